"""A residual network in two, at the end of a group of its blocks, and fresh networks on some of the channels there.

    F(x) = U(L(x)),     F_m(x) = U_m(L(x)[C_m])

L is what lies below the cut, U above it; U_m is made as U is, but that its first block takes the channels C_m alone.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.networks.build import architecture, initialise
from divkd.empirical.networks.names import CUTS, parse
from divkd.empirical.networks.resnets import BasicBlock, ResNet, WideBlock, WideResNet, pooled

Cuttable = ResNet | WideResNet
CHANNELS_LAST = torch.channels_last


class Pooled(nn.Module):
    """The mean over pixels, (B, C, H, W) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """`pooled`, as the networks themselves do it."""
        return pooled(x)


class Parts(nn.Module):
    """F_m(x) = U_m(L(x)[C_m]): networks U_1, ..., U_M on channels C_m of a lower network L, which is as it is.

    (B, C, H, W) pixels in [0, 1] -> logits (M, B, classes). The lower network is computed once for all. It is no
    module of this one: neither trained, nor saved with it, nor put into training mode.
    """

    def __init__(self, lower: nn.Module, uppers: Iterable[nn.Module], channels: Sequence[Tensor]) -> None:
        super().__init__()
        self.lower = (lower,)  # in a tuple, where torch does not look for modules
        self.uppers = nn.ModuleList(uppers)
        self.channels = tuple(channels)
        self.members = len(self.uppers)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (M, B, classes) of images (B, C, H, W)."""
        with torch.no_grad():
            y = self.lower[0](x)
        parts = zip(self.uppers, self.channels, strict=True)
        # channels last, as the network itself has them: so that all channels give its own bits
        return torch.stack([upper(y[:, chosen].contiguous(memory_format=CHANNELS_LAST)) for upper, chosen in parts])


def partition(channels: int, parts: int, rng: np.random.Generator) -> list[Tensor]:
    """`parts` disjoint sets of as many of the `channels` each, drawn at random, in rising order: int64 tensors.

    Of the same generator, the sets of 2n parts are halves of those of n.
    """
    drawn = rng.permutation(channels).reshape(parts, -1)
    return [torch.from_numpy(np.sort(one)) for one in drawn]


def blocks_below(network: str, cut: str) -> int:
    """How many blocks of `network` lie below the `cut`."""
    return CUTS[cut] * parse(network)[1]


def below(net: nn.Module, blocks: int) -> nn.Sequential:
    """L: pixels -> (B, channels, H, W) behind the first `blocks` blocks of `net`, whose weights it shares."""
    whole = cast(Cuttable, net)
    first = [whole.normalise, whole.stem, *([whole.bn, nn.ReLU()] if isinstance(whole, ResNet) else ())]
    return nn.Sequential(*first, *list(whole.blocks)[:blocks]).train(net.training)


def above(net: nn.Module, blocks: int) -> nn.Sequential:
    """U: what `below` puts out -> logits (B, classes), by the weights of `net`."""
    whole = cast(Cuttable, net)
    last = [] if isinstance(whole, ResNet) else [whole.bn, nn.ReLU()]
    return nn.Sequential(*list(whole.blocks)[blocks:], *last, Pooled(), whole.classifier).train(net.training)


def fresh_above(network: str, cut: str, channels: int, classes: int, rng: np.random.Generator) -> nn.Sequential:
    """U_m of `network`, whose first block takes so many `channels`, with weights drawn from `rng` as `build` does."""
    net = cast(Cuttable, architecture(network, classes, (0.0,), (1.0,)))
    place = blocks_below(network, cut)
    block = net.blocks[place]
    if isinstance(block, BasicBlock):
        net.blocks[place] = BasicBlock(channels, block.conv2.out_channels, block.stride, project=False)
    elif isinstance(block, WideBlock):
        net.blocks[place] = WideBlock(channels, block.conv2.out_channels, block.conv1.stride[0])
    upper = above(net, place)
    initialise(upper, rng)
    return upper.to(memory_format=torch.channels_last)
