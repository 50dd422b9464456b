"""The BatchEnsemble form of a convolution or linear layer."""

import copy
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from divkd.empirical.networks.convertible import TRANSPOSED, Layer
from divkd.shared.errors import InputError

# The one member whose rows a layer is given, and the scaled weights (M, ...) of every layer; None: all members' rows.
# A context variable, as threads share the layers.
MEMBER: "ContextVar[tuple[int, Mapping[BatchEnsembleLayer, Tensor]] | None]" = ContextVar("member", default=None)


class BatchEnsembleLayer(nn.Module):
    """y_m = s_m * W(r_m * x) + b_m (Wen, Tran and Ba 2020, equation 5), for a convolution or linear layer W.

    Computed as W_m(x) with W_m = s_m W r_m, one call of the layer a member. Scaling the weights instead of the
    activations gives the same function and the same gradients for a fraction of the bytes: a layer's weights are far
    smaller than its activations, and autograd keeps no scaled copies of the latter.

    Factors r (M, C_in) and s (M, C_out) scale channels, of all groups; a layer with a bias gets one for each member,
    b (M, C_out). W is `plain.weight`; there is no `weight` here, as code that reads it would leave out the factors.
    """

    def __init__(self, layer: Layer, r: Tensor, s: Tensor) -> None:
        super().__init__()
        self.plain = layer
        self.r = nn.Parameter(r.to(layer.weight))
        self.s = nn.Parameter(s.to(layer.weight))
        bias = layer.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().expand(len(r), -1).clone(), bias.requires_grad)
        layer.bias = None
        vars(layer)["forward"] = _bypassed

    def forward(self, x: Tensor) -> Tensor:
        """(M*B, C_in, ...) as the plain layer takes it, members contiguous -> (M*B, C_out, ...).

        Where `MEMBER` is set, x is that member's rows alone: (B, C_in, ...) -> (B, C_out, ...).
        """
        call = _call(self.plain)
        if (only := MEMBER.get()) is not None:
            m, scaled = only
            return call(x, scaled[self][m], None if self.bias is None else self.bias[m])
        members = len(self.r)
        # x.shape and unflatten, as len(x) and chunk would make the batch size of an exported network a constant
        if x.shape[0] % members:
            raise InputError(f"{len(x)} rows are not those of {members} members; the network mixes or drops rows")
        biases = [None] * members if self.bias is None else self.bias.unbind(0)
        rows, weights = x.unflatten(0, (members, -1)).unbind(0), self.weights(self.r, self.s).unbind(0)
        outputs = [call(part, w, b) for part, w, b in zip(rows, weights, biases, strict=True)]
        return outputs[0] if members == 1 else torch.cat(outputs)

    def weights(self, r: Tensor, s: Tensor) -> Tensor:
        """s_m W r_m for each row of r and s: (M, C_out, C_in / groups, ...)."""
        weight, groups = self.plain.weight, getattr(self.plain, "groups", 1)
        # Output channel o of group g reads the input channels of g alone. A transposed weight has the inputs first.
        first, second = (r, s) if isinstance(self.plain, TRANSPOSED) else (s, r)
        scale = (first.unflatten(1, (groups, -1, 1)) * second.unflatten(1, (groups, 1, -1))).flatten(1, 2)
        scaled: Tensor = weight * scale.reshape(*scale.shape, *[1] * (weight.ndim - 2))
        return scaled

    @torch.no_grad()
    def to_plain(self, choose: Callable[[Tensor], Tensor]) -> Layer:
        """A plain layer with the one row of r, s and b that `choose` makes of their M rows."""
        layer = copy.deepcopy(self.plain)
        del vars(layer)["forward"]
        weight = self.weights(choose(self.r)[None], choose(self.s)[None])[0]
        layer.weight = nn.Parameter(weight, self.plain.weight.requires_grad)
        if self.bias is not None:
            layer.bias = nn.Parameter(choose(self.bias).clone(), self.bias.requires_grad)
        return layer


def _call(layer: Layer) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """(x, weight, bias) -> what `layer` makes of x with these."""
    if isinstance(layer, nn.Linear):
        return F.linear
    if not isinstance(layer, TRANSPOSED):
        return layer._conv_forward
    transposed: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[layer.weight.ndim - 3]
    how = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
    return lambda x, weight, bias: transposed(x, weight, bias, *how)


def _bypassed(*_: Any, **__: Any) -> Tensor:
    raise InputError(
        "a converted layer is called without its rank-one factors: the network keeps it in a plain list, dict or "
        "closure besides its attribute; give it an nn.ModuleList or call the attribute"
    )
