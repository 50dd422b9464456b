"""Multi-head attention whose projections are linear layers, which have a BatchEnsemble form."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from divkd.shared.errors import InputError


class Attention(nn.Module):
    """concat_h softmax(Q_h K_h' / sqrt(d)) V_h W_o, as `torch.nn.MultiheadAttention` computes it (Vaswani et al. 2017).

    Its packed matrix of queries, keys and values becomes three linear layers. Batches only; masks as torch's: True or
    -inf hides. Rows lie on the first axis inside, wherever the caller has them.
    """

    in_proj_bias = None  # which keeps torch's encoder layers from their fused path, past these layers

    def __init__(self, plain: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.dropout, self.batch_first = plain.num_heads, plain.dropout, plain.batch_first
        packed = plain._qkv_same_embed_dim
        weights = plain.in_proj_weight.chunk(3) if packed else [getattr(plain, f"{x}_proj_weight") for x in "qkv"]
        biases = [None] * 3 if plain.in_proj_bias is None else plain.in_proj_bias.chunk(3)
        self.q, self.k, self.v = map(_linear, weights, biases)
        self.out_proj = _linear(plain.out_proj.weight, plain.out_proj.bias)
        self.train(plain.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        **_: Any,  # is_causal, a hint about the mask
    ) -> tuple[Tensor, Tensor | None]:
        """(B, L, E) or, without batch_first, (L, B, E) -> the like, and the weights (B, L, S) where they are needed."""
        if query.ndim != 3:
            raise InputError(f"attention is given {tuple(query.shape)}; a BatchEnsemble needs batches, (B, L, E)")
        first = self.batch_first
        inputs = [x if first else x.transpose(0, 1) for x in (query, key, value)]
        layers = (self.q, self.k, self.v)
        q, k, v = (
            f(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for f, x in zip(layers, inputs, strict=True)
        )
        mask = _mask(attn_mask, q)
        if mask is not None and mask.ndim == 3:
            mask = mask.unflatten(0, (-1, self.num_heads))
        if key_padding_mask is not None:
            hidden = _mask(key_padding_mask, q)[:, None, None, :]  # type: ignore[index]
            mask = hidden if mask is None else mask + hidden
        drop = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.mT / q.shape[-1] ** 0.5
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), drop)
            out = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, drop)
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        return (out if first else out.transpose(0, 1)), weights


def split_attention(net: nn.Module) -> nn.Module:
    """`net` with torch's attention as `Attention`, in place; what has more than projections stays, to be refused."""
    new: dict[nn.Module, nn.Module] = {}
    for module in net.modules():
        if type(module) is nn.MultiheadAttention and not (module._forward_hooks or module._forward_pre_hooks):
            names = {name for name, _ in module.named_parameters()}
            packed = {"in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias"}
            if names <= packed | {"out_proj.weight", "out_proj.bias"} and not module.add_zero_attn:
                new[module] = Attention(module)
    for parent in list(net.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in new:
                setattr(parent, name, new[child])
    return new.get(net, net)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, weight.device, weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer.requires_grad_(weight.requires_grad)


def _mask(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """What is added to scores."""
    if mask is None or mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))
