"""Residual networks for small images: He et al.'s two families and the pre-activation wide one."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Stats = tuple[float, ...]  # one number a channel


class Normalise(nn.Module):
    """(x - mean) / std per channel. Networks normalise inside, so that perturbations live in pixel space [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Stats, std: Stats) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return (x - self.mean) / self.std


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x))  (He et al. 2016, figure 2).

    The shortcut across a change of shape is bn(conv1x1(x)) with `project` (option B), and free of parameters without
    (option A: every second pixel, zeros for the new channels).
    """

    def __init__(self, channels_in: int, channels: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.new_channels = channels - channels_in
        self.changes = stride > 1 or channels != channels_in
        self.shortcut = None
        if project and self.changes:
            conv = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, channels, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.changes:
            # Subsample and append zero channels, as (B, H, W, C): their gradient keeps channels last, and the sum and
            # ReLU of a gradient in two layouts took a ninth of a step (docs/performance.md).
            x = x.permute(0, 2, 3, 1)[:, :: self.stride, :: self.stride]
            x = F.pad(x, (0, self.new_channels)).permute(0, 3, 1, 2)
        return F.relu(y + x, inplace=True)


class ResNet(nn.Module):
    """He et al. 2016: a 3x3 stem, then stages of `blocks` basic blocks, each stage but the first at half the size.

    Widths (16, 32, 64) without projection are their section 4.2, ResNet-(6 blocks + 2): ResNet-32 on CIFAR-10 has
    464,154 parameters. Widths (64, 128, 256, 512), 2 blocks and projections are ResNet-18 for small images: no stride
    in the stem and no max-pool, 11,173,962 parameters on CIFAR-10.

    Input (B, C, H, W) pixels in [0, 1]; output logits (B, classes).
    """

    def __init__(
        self, widths: tuple[int, ...], blocks: int, classes: int, mean: Stats, std: Stats, *, project: bool
    ) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.stem = nn.Conv2d(len(mean), widths[0], 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.blocks = _stages(partial(BasicBlock, project=project), widths[0], widths, blocks)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, classes)."""
        y = F.relu(self.bn(self.stem(self.normalise(x))), inplace=True)
        logits: Tensor = self.classifier(pooled(self.blocks(y)))
        return logits


class WideBlock(nn.Module):
    """conv(relu(bn(conv(relu(bn(x)))))) + shortcut(x), the pre-activation block (He et al. 2016b) without dropout.

    The shortcut across a change of shape is a 1x1 convolution of the raw x, not of relu(bn(x)).
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        changes = stride > 1 or channels != channels_in
        self.shortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, channels, H / stride, W / stride)."""
        y = self.conv1(F.relu(self.bn1(x), inplace=True))
        y = self.conv2(F.relu(self.bn2(y), inplace=True))
        out: Tensor = y + (x if self.shortcut is None else self.shortcut(x))
        return out


class WideResNet(nn.Module):
    """WRN-(6 blocks + 4)-width (Zagoruyko and Komodakis 2016): a stem of 16, stages of 16, 32 and 64 times `width`.

    Input (B, C, H, W) pixels in [0, 1]; output logits (B, classes). WRN-28-10 on CIFAR-100 has 36,536,884 parameters.
    """

    def __init__(self, blocks: int, width: int, classes: int, mean: Stats, std: Stats) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.stem = nn.Conv2d(len(mean), 16, 3, 1, 1, bias=False)
        self.blocks = _stages(WideBlock, 16, (16 * width, 32 * width, 64 * width), blocks)
        self.bn = nn.BatchNorm2d(64 * width)
        self.classifier = nn.Linear(64 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, classes)."""
        y = F.relu(self.bn(self.blocks(self.stem(self.normalise(x)))), inplace=True)
        logits: Tensor = self.classifier(pooled(y))
        return logits


def pooled(y: Tensor) -> Tensor:
    """The mean over pixels, (B, C, H, W) -> (B, C), whose gradient keeps channels last."""
    return y.permute(0, 2, 3, 1).mean((1, 2))


def _stages(
    block: Callable[[int, int, int], nn.Module], channels: int, widths: Sequence[int], blocks: int
) -> nn.Sequential:
    """`blocks` blocks of each of `widths`, the first of each stage but the first at stride 2."""
    strides = [1] * blocks + ([2] + [1] * (blocks - 1)) * (len(widths) - 1)
    outs = [width for width in widths for _ in range(blocks)]
    return nn.Sequential(*map(block, [channels, *outs[:-1]], outs, strides))
