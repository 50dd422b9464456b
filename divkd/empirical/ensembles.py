"""The member axis: deep ensembles and BatchEnsembles, both (B, C, H, W) -> logits (M, B, K), members first."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from divkd.shared.errors import InputError
from divkd.shared.seeds import rng


class DeepEnsemble(nn.Module):
    """f(x)_m = f_m(x): a list of ordinary networks (Lakshminarayanan et al. 2017). A single network has M = 1."""

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), seen by all, or (M, B, C, H, W), one batch a member -> logits (M, B, K)."""
        inputs = x if x.ndim == 5 else [x] * len(self.nets)
        return torch.stack([net(part) for net, part in zip(self.nets, inputs, strict=True)])


class BatchEnsemble(nn.Module):
    """A network whose layers `to_batch_ensemble` replaced; the batch is folded to M*B rows, members contiguous."""

    def __init__(self, net: nn.Module, members: int) -> None:
        super().__init__()
        self.net = net
        self.members = members

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), seen by all members, or (M, B, C, H, W) -> logits (M, B, K)."""
        if x.ndim == 4:
            x = x.expand(self.members, *x.shape)
        logits: Tensor = self.net(x.flatten(0, 1))
        return logits.view(self.members, -1, logits.shape[-1])


class _RankOne(nn.Module):
    """What both layer types share: r (M, C_in) and s (M, C_out), drawn from N(1, 0.5), the bias one a member.

    y_m = s_m * W(r_m * x) + b_m (Wen, Tran and Ba 2020, equation 5), computed as W_m(x) with W_m = s_m W r_m. Scaling
    the weights instead of the activations gives the same function and the same gradients for a fraction of the bytes:
    a layer's weights are far smaller than its activations, and autograd keeps no scaled copies of the latter.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, members: int, channels_in: int, draws: np.ndarray) -> None:
        super().__init__()
        self.members = members
        self.weight = layer.weight
        self.r = nn.Parameter(torch.from_numpy(draws[:, :channels_in].copy()))
        self.s = nn.Parameter(torch.from_numpy(draws[:, channels_in:].copy()))
        bias = layer.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().expand(members, -1).clone())


class BatchEnsembleConv2d(_RankOne):
    """A convolution of M members: input (M*B, C, H, W), members contiguous, grouped and depthwise included."""

    def __init__(self, layer: nn.Conv2d, members: int, draws: np.ndarray) -> None:
        super().__init__(layer, members, layer.in_channels, draws)
        self.stride, self.padding, self.dilation, self.groups = (
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(M*B, C_in, H, W) -> (M*B, C_out, H', W'): one convolution a member with its own weights."""
        out, width = self.weight.shape[:2]
        # Output channel o of group g reads the input channels of g alone.
        r = self.r.view(self.members, self.groups, 1, width).expand(-1, -1, out // self.groups, -1)
        scale = r.reshape(self.members, out, width) * self.s[:, :, None]
        weights = self.weight * scale[..., None, None]
        biases = [None] * self.members if self.bias is None else self.bias.unbind(0)
        parts = zip(x.chunk(self.members), weights.unbind(0), biases, strict=True)
        return torch.cat(
            [F.conv2d(part, w, b, self.stride, self.padding, self.dilation, self.groups) for part, w, b in parts]
        )


class BatchEnsembleLinear(_RankOne):
    """A linear layer of M members: input (M*B, C_in), members contiguous."""

    def __init__(self, layer: nn.Linear, members: int, draws: np.ndarray) -> None:
        super().__init__(layer, members, layer.in_features, draws)

    def forward(self, x: Tensor) -> Tensor:
        """(M*B, C_in) -> (M*B, C_out)."""
        x = x.unflatten(0, (self.members, -1)) * self.r[:, None]
        y = F.linear(x, self.weight) * self.s[:, None]
        if self.bias is not None:
            y = y + self.bias[:, None]
        return y.flatten(0, 1)


def to_batch_ensemble(net: nn.Module, members: int, seed: int) -> BatchEnsemble:
    """Replace every convolution and linear layer of `net` (changed in place) by its BatchEnsemble form.

    The shared weights are the ones that `net` has; member m's rank-one factors depend on (seed, m) alone, so a larger
    ensemble starts with the factors of a smaller one. Raises `InputError` where there is nothing to replace.
    """
    places = [
        (parent, name, layer)
        for parent in net.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    if not places:
        raise InputError(f"{type(net).__name__} has no convolution and no linear layer to convert; give one that has")
    generators = [rng(seed, "student/rank-one", member) for member in range(members)]

    def draw(width: int) -> np.ndarray:
        return np.stack([g.standard_normal(width, dtype=np.float32) for g in generators]) * np.float32(0.5) + 1

    for parent, name, layer in places:
        if isinstance(layer, nn.Conv2d):
            draws = draw(layer.in_channels + layer.out_channels)
            setattr(parent, name, BatchEnsembleConv2d(layer, members, draws))
        else:
            setattr(parent, name, BatchEnsembleLinear(layer, members, draw(layer.in_features + layer.out_features)))
    return BatchEnsemble(net, members)


def rank_one(net: nn.Module) -> list[nn.Parameter]:
    """The rank-one factors of `net`: half the learning rate and no weight decay are theirs. Empty for plain ones."""
    return [factor for layer in net.modules() if isinstance(layer, _RankOne) for factor in (layer.r, layer.s)]
