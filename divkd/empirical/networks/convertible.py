"""Which networks have a BatchEnsemble form; the module for which one has none is named.

A conversion must leave no weight out. So each module with weights of its own is a layer that has a rank-one form, is
known to treat rows alike (norms), or is refused; and what can only be seen by running is looked for by running.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.parameter import is_lazy

from divkd.empirical.networks.handed import answer, mapped, reason, taken
from divkd.shared.errors import InputError
from divkd.shared.seeds import rng

Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear | Transposed
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, *TRANSPOSED)
# Their parameters are all members'.
ROW_BY_ROW = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU, nn.Embedding)
STEPS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
RNN = (nn.RNNBase, nn.RNNCellBase)
CONTAINERS = (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def layers(net: nn.Module) -> list[str]:
    """The names of the layers of `net` to convert. Raises `InputError` naming the first module that cannot be."""
    owner: dict[int, tuple[str, nn.Module]] = {}
    for name, module in net.named_modules():
        label = name or type(net).__name__
        reason = _obstacle(module)
        if reason:
            raise InputError(f"{label} ({type(module).__name__}) has no BatchEnsemble form: {reason}")
        for parameter in module.parameters(recurse=False):
            other, first = owner.setdefault(id(parameter), (label, module))
            if first is not module and (isinstance(module, LAYERS) or isinstance(first, LAYERS)):
                raise InputError(
                    f"{label} and {other} have no BatchEnsemble form: they share one weight, which each would scale by "
                    "its own factors; give each its own weight, or use one module twice"
                )
    names = [
        f"{above}.{name}".lstrip(".")
        for above, parent in net.named_modules()
        for name, child in parent.named_children()
        if isinstance(child, LAYERS)
    ]
    names = [""] if isinstance(net, LAYERS) else names
    if not names:
        raise InputError(f"{type(net).__name__} has no convolution and no linear layer to convert; give one that has")
    return names


def _obstacle(module: nn.Module) -> str:
    """Why `module` itself, apart from its children, cannot be part of a BatchEnsemble; empty if it can."""
    own = dict(module.named_parameters(recurse=False))
    if any(is_lazy(tensor) for tensor in (*own.values(), *module.buffers(recurse=False))):
        return "it is lazy and has no shape yet; run one batch through the network first"
    if isinstance(module, LAYERS):
        base = next(kind for kind in LAYERS if isinstance(module, kind))
        if "weight" not in own or not {*own, *dict(module.named_buffers())} <= {"weight", "bias"}:
            return "its weight is computed from others (a parametrization, pruning); remove that, keeping the weight"
        own_code = (getattr(getattr(module, name, None), "__func__", None) for name in ("forward", "_conv_forward"))
        if tuple(own_code) != (base.forward, getattr(base, "_conv_forward", None)):
            return f"its forward pass is not that of {base.__name__}; use a plain {base.__name__}"
        if any(getattr(module, hooks) for hooks in HOOKS):
            return "its hooks would be lost; remove them before the conversion"
    elif isinstance(module, STEPS) and not getattr(module.self_attn, "batch_first", True):
        return "the rows of its linear layers lie on the second axis; make it with batch_first=True"
    elif isinstance(module, _BatchNorm) and module.running_mean is None:
        return "without running statistics the members of a batch mix in eval mode; track them"
    elif own and not isinstance(module, ROW_BY_ROW):
        torchs = next(kind for kind in type(module).__mro__ if kind.__module__.split(".")[0] == "torch")
        if torchs not in CONTAINERS:
            own_way = "; write its steps with nn.Linear, or give what it puts out as inputs" * issubclass(torchs, RNN)
            return f"it has weights of its own; build it of linear layers and convolutions that it calls{own_way}"
        for name, parameter in own.items():
            # (L, D) may be a matrix of a functional layer; (D,), (1, L, D) and (C, 1, 1) are added or multiplied.
            if parameter.ndim > 1 and parameter.shape[0] > 1 and parameter[0].numel() > 1:
                return (
                    f"its parameter {name} {tuple(parameter.shape)} may be a layer's weight; use a layer for it, or a "
                    "leading axis of 1 if it is added to each row"
                )
    return ""


@torch.no_grad()
def check_members(folded: nn.Module, members: Sequence[nn.Module], example: Any) -> None:
    """Raise `InputError` unless rows m*B to (m+1)*B of folded(x) are members[m](x_m), in eval mode, where all stay.

    x_m is the `example` (B, ...) plus noise of its own, so that mixed rows show before the first layer too. The message
    names the innermost module that made the first tensor on which the two disagree, or in which the folded batch fails.
    """
    generators = [rng(0, "conversion/check", m) for m in range(len(members))]

    def near(part: Tensor) -> Tensor:
        draws = [torch.from_numpy(g.standard_normal(tuple(part.shape))).to(part.device) for g in generators]
        return torch.stack([part + 0.1 * one.to(part) if part.is_floating_point() else part for one in draws])

    x = mapped(near, example)
    alone = []
    for m, net in enumerate(members):
        part = taken(x, m)
        events, failure = _trace(net, part)
        if failure:
            raise InputError(f"the network fails on the example, one member alone, in {failure}")
        alone.append(events)
    mine, failure = _trace(folded, mapped(lambda part: part.flatten(0, 1), x))
    if not failure and _agree(mine[-1][1], [events[-1][1] for events in alone]):
        return
    for (place, tensors), *theirs in zip(mine, *alone, strict=False):
        if not _agree(tensors, [other for _, other in theirs]):
            failure = f"{place} (it mixes rows of several members, or drops some)"
            break
    raise InputError(f"the network has no BatchEnsemble form because of {failure or mine[-1][0]}")


def _agree(folded: list[Tensor], alone: Sequence[list[Tensor]]) -> bool:
    """Whether chunk m of each folded tensor is member m's, up to rounding; or, as constants may be, the same whole."""
    for i, tensor in enumerate(folded):
        theirs = [tensors[i] for tensors in alone]
        joined = torch.cat(theirs) if tensor.ndim else theirs[0]
        if tensor.shape != joined.shape:
            joined = theirs[0]
        if tensor.shape != joined.shape:
            return False
        if tensor.is_floating_point():
            limit = torch.finfo(tensor.dtype).eps ** 0.5 * joined.abs().max().clamp_min(1e-30)
            if not bool(((tensor - joined).abs() <= limit).all()):
                return False
        elif not torch.equal(tensor, joined):
            return False
    return True


def _trace(net: nn.Module, x: Any) -> tuple[list[tuple[str, list[Tensor]]], str]:
    """Run `net` on `x` in eval mode, in which it stays: what goes into and out of each module call, and any failure.

    The tensors come in order of time, each with the name of the module whose own code made them. A failure is the
    innermost module that was running, and why.
    """
    events: list[tuple[str, list[Tensor]]] = []
    running: list[str] = []

    def enter(name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        events.append((running[-1] if running else name, _tensors((args, kwargs))))
        running.append(name)

    def leave(name: str, module: nn.Module, args: Any, output: Any) -> None:
        running.pop()
        events.append((name, _tensors(output)))

    handles = []
    for name, module in net.named_modules():
        label = name or type(net).__name__
        handles.append(module.register_forward_pre_hook(functools.partial(enter, label), with_kwargs=True))
        handles.append(module.register_forward_hook(functools.partial(leave, label)))
    net.eval()
    try:
        answer(net, x)
    except Exception as error:  # whatever the network's own code raises
        return events, f"{running[-1] if running else type(net).__name__} ({reason(error)})"
    finally:
        for handle in handles:
            handle.remove()
    return events, ""


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value.clone()]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, list | tuple) else []
