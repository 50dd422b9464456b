"""The member axis: deep ensembles and BatchEnsembles, both (B, ...) -> logits (M, B, K), members first."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.networks.attention import split_attention
from divkd.empirical.networks.convertible import TRANSPOSED, Layer, check_members, layers
from divkd.empirical.networks.handed import (
    answer,
    check_network,
    choice,
    copied,
    described,
    mapped,
    reason,
    taken,
    tensors,
    together,
    whole,
)
from divkd.empirical.networks.layers import MEMBER, BatchEnsembleLayer
from divkd.shared.errors import InputError
from divkd.shared.seeds import rng

SPREADS = {"near": 0.02, "normal": 0.5}  # standard deviations of factors around 1
INITS = (*SPREADS, "signs", "ones")
IN_TURN = 8  # images from which members answer in turn on a CPU: of fewer, the calls cost more than the bytes


class Ensemble(nn.Module):
    """A network with a member axis: inputs (B, ...), seen by all, or (M, B, ...) -> logits (M, B, K).

    Inputs are what the plain network takes, one or several, by place or by name; each tensor has the axis B, and the
    first of them, of `ndim` axes or one more, says whether all have the axis M.
    """

    members: int  # M
    ndim: int  # of a batch: 4 for images

    def plain(self, m: int) -> nn.Module:
        """A copy of member `m` as a plain network: (B, ...) -> logits (B, K)."""
        raise NotImplementedError

    def _each(self, x: Any) -> tuple[Any, bool]:
        """Inputs that have the axis M, and whether they had it before."""
        first = tensors(x)
        if not first:
            raise InputError(f"the input is {described(x)}; give a tensor (B, ...), or several")
        if first[0].ndim != self.ndim + 1:
            return mapped(lambda part: part.expand(self.members, *part.shape), x), False
        if len(first[0]) != self.members:
            many = f"there are {len(first[0])} batches for {self.members} members"
            raise InputError(f"{many}; give one batch, or one a member (ndim={first[0].ndim} if it is one)")
        return x, True


class DeepEnsemble(Ensemble):
    """f(x)_m = f_m(x): a list of ordinary networks (Lakshminarayanan et al. 2017). A single network has M = 1."""

    def __init__(self, nets: Iterable[nn.Module], ndim: int = 4) -> None:
        super().__init__()
        self.ndim = whole("ndim", ndim, 1)
        if isinstance(nets, nn.Module) and not isinstance(nets, nn.ModuleList):
            raise InputError(f"{described(nets)} is one network; give a list of networks: [net]")
        if not isinstance(nets, Iterable):
            raise InputError(f"{described(nets)} is no list; give a list of networks")
        try:
            found = list(nets)
        except Exception as error:  # whatever its own code raises
            raise InputError(f"{described(nets)} is no list ({reason(error)}); give a list of networks") from error
        nets = [check_network(net, f"network {m}") for m, net in enumerate(found)]
        if not nets:
            raise InputError("there are no networks; give a list of at least one")
        self.nets = nn.ModuleList(nets)
        self.members = len(nets)

    def forward(self, x: Any = None, /, *more: Any, **named: Any) -> Tensor:
        """Inputs (B, ...), seen by all, or (M, B, ...), one batch a member -> logits (M, B, K)."""
        each, _ = self._each(together((x, *more), named))
        parts = (taken(each, m) for m in range(self.members))
        return torch.stack([answer(net, part) for net, part in zip(self.nets, parts, strict=True)])

    def plain(self, m: int) -> nn.Module:
        """A copy of network `m`."""
        return copied(self.nets[m])


class BatchEnsemble(Ensemble):
    """A network whose layers `to_batch_ensemble` replaced; the batch is folded to M*B rows, members contiguous.

    On a CPU, in eval mode, without gradients and from `IN_TURN` images on, members answer in turn: the same logits, and
    one network's activations at a time, which stay in the cache where those of all members would not, beside all
    members' weights, as a deep ensemble holds them (benchmarks/predict_batch.py).

    `ndim` is the number of axes of a batch (4 for images): an input with one more has a batch for each member.
    """

    def __init__(self, net: nn.Module, members: int, ndim: int = 4) -> None:
        super().__init__()
        self.net = net
        self.members = members
        self.ndim = ndim

    def forward(self, x: Any = None, /, *more: Any, **named: Any) -> Tensor:
        """Inputs (B, ...), seen by all members, or (M, B, ...) -> logits (M, B, K)."""
        x, given = self._each(together((x, *more), named))
        first = tensors(x)[0]
        folded = self.training or torch.is_grad_enabled() or first.device.type != "cpu" or torch.compiler.is_compiling()
        if not folded and first.shape[1] >= IN_TURN:
            scaled = self._scaled()
            parts = (taken(x, m) for m in range(self.members))
            return torch.stack([self._alone(m, part, scaled) for m, part in enumerate(parts)])
        copies = self.members > 1 and not given  # else the rows may lie in order already, in the caller's memory
        rows = mapped(lambda part: part.flatten(0, 1), x)
        logits: Tensor = answer(self.net, rows, own=copies).unflatten(0, (self.members, -1))
        return logits

    def plain(self, m: int) -> nn.Module:
        """A plain network with W_m = s_m W r_m and b_m."""
        return _plain(self.net, lambda rows: rows[m])

    def _scaled(self) -> dict[BatchEnsembleLayer, Tensor]:
        """Every layer's weights for all members, (M, ...)."""
        layers = (layer for layer in self.net.modules() if isinstance(layer, BatchEnsembleLayer))
        return {layer: layer.weights(layer.r, layer.s) for layer in layers}

    def _alone(self, m: int, x: Any, scaled: Mapping[BatchEnsembleLayer, Tensor]) -> Tensor:
        token = MEMBER.set((m, scaled))
        try:
            return answer(self.net, x)
        finally:
            MEMBER.reset(token)


def to_batch_ensemble(
    net: nn.Module, members: int, seed: int = 0, init: str = "near", example: Any = None
) -> BatchEnsemble:
    """A copy of `net` with each convolution and linear layer in its BatchEnsemble form; `net` stays as it is.

    Transposed convolutions and the projections of torch's attention are among them; embeddings and norms are shared.

    The shared weights, the biases and all else (norms, class tokens, position tables, scales) are those of `net`. The
    rank-one factors are drawn by `init`: "near", N(1, 0.02), keeps what a trained network knows (docs/use.md measures
    it); "normal", N(1, 0.5), is the paper's for a fresh one, and what ``divkd train`` takes; "signs" are random signs,
    "ones" ones. Member m's depend on (seed, m) alone, so that a larger ensemble starts with those of a smaller one.

    With an `example`, a batch of 2 rows or so (a tensor, a tuple or a dict, as the network takes it), copies of the
    result are run near it, folded and member by member, in eval mode; a network that mixes rows is refused, and the
    module that does it is named, and so is one that calls its layers in threads. What a network does in train mode
    alone is not seen.

    Raises `InputError` with the name of the first module that cannot be converted, and where there is nothing to
    convert.
    """
    check_network(net, "the network")
    members, seed = whole("members", members, 1), whole("seed", seed, 0)
    choice("initial value of the rank-one factors", init, INITS)
    if rank_one(net):
        raise InputError(f"{type(net).__name__} is a BatchEnsemble already; convert the plain network: member(net, 0)")
    parts = tensors(example)
    if example is not None and not (parts and all(part.ndim and len(part) and not part.is_sparse for part in parts)):
        raise InputError(f"the example is {described(example)}; give a batch, a tensor (B, ...) or several, e.g. B = 2")
    attends = any(isinstance(part, nn.MultiheadAttention) for part in net.modules())
    net = split_attention(copied(net)) if attends else net
    names = layers(net)
    net = net if attends else copied(net)  # only now, as what cannot be converted may have no copy
    generators = [rng(seed, "student/rank-one", member) for member in range(members)]

    def draw(width: int) -> Tensor:
        if init == "ones":
            return torch.ones(members, width)
        draws = torch.from_numpy(np.stack([g.standard_normal(width, dtype=np.float32) for g in generators]))
        return draws * SPREADS[init] + 1 if init in SPREADS else torch.where(draws < 0, -1.0, 1.0)

    new: dict[nn.Module, nn.Module] = {}
    ndim = 4
    for name in names:
        layer = cast(Layer, net.get_submodule(name))
        if layer in new:
            continue  # one layer under two names
        sizes = [layer.weight.shape[1] * getattr(layer, "groups", 1), layer.weight.shape[0]]  # channels in and out
        sizes = sizes[::-1] if isinstance(layer, TRANSPOSED) else sizes
        ndim = ndim if isinstance(layer, nn.Linear) else layer.weight.ndim
        r, s = draw(sum(sizes)).split(sizes, 1)
        new[layer] = BatchEnsembleLayer(layer, r, s)
    model = BatchEnsemble(_replace(net, new), members, parts[0].ndim if parts else ndim)
    if example is not None:
        _check(model, example)
    return model


@torch.no_grad()
def _check(model: BatchEnsemble, example: Any) -> None:
    """`check_members` on a copy whose members differ in every factor and bias, whatever they start with."""
    probe, generator = copy.deepcopy(model), rng(0, "conversion/factors")
    for layer in probe.modules():
        if isinstance(layer, BatchEnsembleLayer):
            for rows in (layer.r, layer.s, layer.bias):
                if rows is not None:
                    rows.copy_(torch.from_numpy(generator.normal(1, 0.5, tuple(rows.shape))))
    members = [member(probe, m) for m in range(probe.members)]
    check_members(probe.net, members, example)
    for m, alone in enumerate(members):
        try:
            agree = torch.allclose(
                probe._alone(m, example, probe._scaled()), answer(alone, example), 1e-3, 1e-3, equal_nan=True
            )
        except InputError:  # rows that the layer takes for those of all members
            agree = False
        if not agree:
            raise InputError(
                "the network has no BatchEnsemble form, as it calls layers in threads of its own, which do not know "
                "whose rows they are given; call them in the thread that calls the network"
            )


def member(model: Ensemble, m: int) -> nn.Module:
    """A copy of member `m` of `model` as a plain network: W_m = s_m W r_m, b_m; logits (B, K) equal to the model's [m].

    Equal in eval mode: in train mode a BatchEnsemble's BatchNorm pools the rows of all members. Raises `InputError`
    where there is no member `m`.
    """
    if not isinstance(model, Ensemble):
        raise InputError(f"the model is {described(model)}; give a BatchEnsemble or a DeepEnsemble")
    m = whole("member", m, 0, model.members - 1)
    return model.plain(int(m))


def merge(model: BatchEnsemble) -> nn.Module:
    """One plain network of the members' mean factors, W = mean_m(s_m) W mean_m(r_m), b = mean_m(b_m).

    The training of an ensemble at one network's forward pass (Nam et al., ICML 2022, "Improving Ensemble Distillation
    With Weight Averaging and Diversifying Perturbation"). BatchNorm keeps the running statistics that the members
    share. Equal members merge into the member.
    """
    if not isinstance(model, BatchEnsemble):
        raise InputError(f"the model is {described(model)}; give a BatchEnsemble, whose members share their weights")
    return _plain(model.net, lambda rows: rows.mean(0))


def rank_one(net: nn.Module) -> list[nn.Parameter]:
    """The rank-one factors of `net`: half the learning rate and no weight decay are theirs. Empty for plain ones."""
    return [factor for layer in net.modules() if isinstance(layer, BatchEnsembleLayer) for factor in (layer.r, layer.s)]


def _plain(net: nn.Module, choose: Callable[[Tensor], Tensor]) -> nn.Module:
    net = copied(net)
    return _replace(net, {old: old.to_plain(choose) for old in net.modules() if isinstance(old, BatchEnsembleLayer)})


def _replace(net: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """`net` with each module that is a key of `new` replaced, in place, wherever it stands."""
    for parent in list(net.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in new:
                setattr(parent, name, new[child])
    return new.get(net, net)
