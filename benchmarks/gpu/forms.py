"""Which way to compute a joint training step of M networks, and a BatchEnsemble's, is fastest: every form against the
plain loop, interleaved, where it makes the same weights.

The deep ensemble: M networks, a batch each; "sequential" one after another, "grouped" as one network of M times the
channels whose convolutions have M groups, "vmap" with stacked weights by torch.func. The BatchEnsemble: M rows an
image; "sequential" one call a member with scaled weights (the layer as it is), "activations" one call of all rows with
scaled activations, "vmap" scaled weights by torch.func. Each is run plain, compiled (torch.compile), captured once as a
CUDA graph and replayed, both, and with a stream a member in the graph. A step: forward, cross-entropy, backward, SGD.

A form counts where the change of all weights in the first step, as a vector, is that of the plain loop in the same
arithmetic: |a - b| <= max(1e-3, 2 e) |b|, with e the distance, taken alike, of the plain loop in this arithmetic from
that in float32 without TF32. So a form may differ by what rounding explains, and by no more.
"""

import copy
import functools
import types
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from measure import Piece, Record, Setting, distance, interleaved, shown, spread, tf32
from torch import Tensor, nn
from torch.nn import functional as F

from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import to_batch_ensemble
from divkd.empirical.networks.layers import BatchEnsembleLayer
from divkd.empirical.networks.resnets import BasicBlock

MEMBERS, RATE = 4, 0.1
ARITHMETIC = ("float32, TF32 on", "bfloat16", "float32, TF32 off")  # in the order in which time is given to them
RUNNERS = ("plain", "compiled", "graph", "compiled graph", "streams graph")
FORMS = {
    "deep ensemble": {"sequential": RUNNERS, "grouped": RUNNERS[:3], "vmap": ("plain", "graph")},
    "BatchEnsemble": {"sequential": RUNNERS[:4], "activations": ("plain", "graph"), "vmap": ("plain", "graph")},
}
Wrap = Callable[[Any], Any]


class Part(NamedTuple):
    """What one optimiser trains: logits (rows, K) of its members, their labels, its weights, its number of losses."""

    logits: Callable[[], Tensor]
    labels: Tensor
    weights: list[nn.Parameter]
    losses: int


def network(seed: int, miniature: bool) -> nn.Module:
    name = "resnet8" if miniature else "resnet32"
    return build(name, 10, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), np.random.default_rng(seed))


# Deep ensemble --------------------------------------------------------------------------------------------------------


def sequential(nets: list[nn.Module], x: Tensor, y: Tensor, wrap: Wrap) -> list[Part]:
    def part(m: int) -> Part:
        called = wrap(nets[m])
        return Part(lambda: called(x[m]), y[m], list(nets[m].parameters()), 1)

    return [part(m) for m in range(len(nets))]


class Pad(nn.Module):
    """The shortcut without parameters of a `BasicBlock`, of M members' channels side by side."""

    def __init__(self, block: BasicBlock, members: int) -> None:
        super().__init__()
        self.stride, self.new, self.members = block.stride, block.new_channels, members

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride].unflatten(1, (self.members, -1))
        return F.pad(x, (0, 0, 0, 0, 0, self.new)).flatten(1, 2)


class Heads(nn.Module):
    """M linear layers, (B, M C) -> (B, M, K)."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, y: Tensor) -> Tensor:
        logits: Tensor = torch.einsum("bmc,mkc->bmk", y.unflatten(1, (len(self.weight), -1)), self.weight) + self.bias
        return logits


def grouped(nets: list[nn.Module], x: Tensor, y: Tensor, wrap: Wrap) -> list[Part]:
    joint, count = copy.deepcopy(nets[0]), len(nets)
    for name, module in list(joint.named_modules()):
        own = [cast(Any, net.get_submodule(name)) for net in nets]
        if isinstance(module, nn.Linear):
            joint.set_submodule(name, Heads(own))
            continue
        for key, parameter in list(module.named_parameters(recurse=False)):
            rows = torch.cat([getattr(one, key).detach() for one in own])
            setattr(module, key, nn.Parameter(rows.contiguous(memory_format=layout(parameter))))
        for key, buffer in list(module.named_buffers(recurse=False)):
            if buffer.ndim:
                setattr(module, key, torch.cat([getattr(one, key) for one in own]))
        if isinstance(module, nn.Conv2d):
            module.groups = count
        if isinstance(module, nn.BatchNorm2d):
            module.num_features *= count
        if isinstance(module, BasicBlock) and module.changes:
            module.shortcut = cast(nn.Sequential, Pad(module, count))
    called, folded = wrap(joint), x.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
    return [Part(lambda: called(folded).transpose(0, 1).flatten(0, 1), y.flatten(), list(joint.parameters()), count)]


def layout(weight: Tensor) -> torch.memory_format:
    return torch.channels_last if weight.ndim == 4 else torch.contiguous_format


def vmap(nets: list[nn.Module], x: Tensor, y: Tensor, wrap: Wrap) -> list[Part]:
    weights, buffers = torch.func.stack_module_state(nets)
    base = copy.deepcopy(nets[0])

    def one(weights: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
        logits: Tensor = torch.func.functional_call(base, (weights, buffers), images)
        return logits

    called = wrap(torch.func.vmap(one))
    return [Part(lambda: called(weights, buffers, x).flatten(0, 1), y.flatten(), list(weights.values()), len(nets))]


# BatchEnsemble --------------------------------------------------------------------------------------------------------


def by_activations(layer: BatchEnsembleLayer, x: Tensor) -> Tensor:
    """y_m = s_m * W(r_m * x) + b_m, all rows in one call."""
    call = F.linear if isinstance(layer.plain, nn.Linear) else layer.plain._conv_forward
    ones = [1] * (x.ndim - 2)
    x = (x.unflatten(0, (MEMBERS, -1)) * layer.r[:, None].unflatten(2, (-1, *ones))).flatten(0, 1)
    y = call(x, layer.plain.weight, None).unflatten(0, (MEMBERS, -1)) * layer.s[:, None].unflatten(2, (-1, *ones))
    rows: Tensor = (y if layer.bias is None else y + layer.bias[:, None]).flatten(0, 1)
    return rows


def by_vmap(layer: BatchEnsembleLayer, x: Tensor) -> Tensor:
    """W_m(x) + b_m with W_m = s_m W r_m, members by torch.func."""
    call = F.linear if isinstance(layer.plain, nn.Linear) else layer.plain._conv_forward
    members = torch.func.vmap(lambda rows, weight: call(rows, weight, None))
    y = members(x.unflatten(0, (MEMBERS, -1)), layer.weights(layer.r, layer.s))
    rows: Tensor = (y if layer.bias is None else y + layer.bias[:, None]).flatten(0, 1)
    return rows


def student(form: str, net: nn.Module, x: Tensor, y: Tensor, wrap: Wrap) -> list[Part]:
    model = to_batch_ensemble(net, MEMBERS, seed=0).train()
    new = {"activations": by_activations, "vmap": by_vmap}.get(form)
    for layer in model.modules():
        if isinstance(layer, BatchEnsembleLayer) and new is not None:
            vars(layer)["forward"] = types.MethodType(new, layer)
    called = wrap(model)
    return [Part(lambda: called(x).flatten(0, 1), y.repeat(MEMBERS), list(model.parameters()), 1)]


# A step of either -----------------------------------------------------------------------------------------------------


class Trainer:
    """A form, ready to step."""

    def __init__(self, what: str, form: str, runner: str, arithmetic: str, setting: Setting) -> None:
        self.device, mini = setting.device, setting.miniature
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(MEMBERS, 4 if mini else 128, 3, 32, 32, generator=generator).to(self.device)
        y = torch.randint(10, x.shape[:2], generator=generator).to(self.device)
        nets = [network(seed, mini).to(self.device).train() for seed in range(MEMBERS)]
        backend = "aot_eager" if mini else "inductor"  # in miniature no code is made: that takes minutes
        wrap: Wrap = (
            (lambda f: torch.compile(f, dynamic=False, backend=backend)) if "compiled" in runner else lambda f: f
        )
        if what == "deep ensemble":
            makers = {"sequential": sequential, "grouped": grouped, "vmap": vmap}
            batches = torch.stack([one.contiguous(memory_format=torch.channels_last) for one in x])
            self.parts = makers[form](nets, batches, y, wrap)
        else:
            self.parts = student(form, nets[0], x[0].contiguous(memory_format=torch.channels_last), y[0], wrap)
        self.optimisers = [torch.optim.SGD(part.weights, RATE, 0.9, weight_decay=4e-4) for part in self.parts]
        self.lower = arithmetic == "bfloat16"
        self.streams = [torch.cuda.Stream() for _ in self.parts] if "streams" in runner else None
        self.first = [weight.detach().clone() for part in self.parts for weight in part.weights]
        self.step = self.captured() if "graph" in runner else self.eager

    def eager(self) -> None:
        """Every part's forward and backward pass and step, each on its stream where it has one."""
        for number, (part, optimiser) in enumerate(zip(self.parts, self.optimisers, strict=True)):
            if self.streams:
                self.streams[number].wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.streams[number]) if self.streams else nullcontext():
                optimiser.zero_grad(set_to_none=True)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.lower):
                    logits = part.logits()
                (part.losses * F.cross_entropy(logits.float(), part.labels)).backward()
                optimiser.step()
        for stream in self.streams or ():
            torch.cuda.current_stream().wait_stream(stream)

    def captured(self) -> Callable[[], None]:
        """`eager`, recorded after three steps on a stream of its own, as torch asks for."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self.eager()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.eager()
        return graph.replay

    @torch.no_grad()
    def change(self) -> Tensor:
        """What the first step adds to the weights, one weight after another, of each all members'."""
        weights = [weight for part in self.parts for weight in part.weights]
        for weight, first in zip(weights, self.first, strict=True):
            weight.copy_(first)
        for optimiser in self.optimisers:
            for state in optimiser.state.values():
                state["momentum_buffer"].zero_()
        with torch.enable_grad():
            self.step()
        moved = [(weight - first).flatten() for weight, first in zip(weights, self.first, strict=True)]
        each = len(moved) // len(self.parts)
        return torch.cat([moved[m * each + i] for i in range(each) for m in range(len(self.parts))]).double().cpu()


def measured(what: str, form: str, runner: str, arithmetic: str, setting: Setting) -> Record:
    """Seconds of a step, its ratio to the plain loop's, and whether its weights are those."""
    torch.compiler.reset()
    plain = ("sequential", "plain")
    with tf32(False):
        exact = Trainer(what, *plain, "float32, TF32 off", setting).change()
    with tf32(arithmetic.endswith("on")):
        base, own = (Trainer(what, *kind, arithmetic, setting) for kind in (plain, (form, runner)))
        expected = base.change()
        allowed = max(1e-3, 2 * distance(expected, exact))
        away = distance(own.change(), expected)
        count, rounds = (1, 2) if setting.miniature else (5, 15)
        works = {"plain": base.step, "own": own.step}
        repeated = {name: lambda step=step: [step() for _ in range(count)] for name, step in works.items()}
        times = interleaved(repeated, rounds, setting.device)
    record: Record = {"seconds": spread(times["own"] / count), "plain_seconds": spread(times["plain"] / count)}
    record |= {"ratio": spread(times["own"] / times["plain"]), "steps_a_round": count}
    return record | {"distance": away, "allowed": allowed, "equal": away <= allowed}


def forms(piece: Piece) -> None:
    """Measure every form that this device has, and choose."""
    setting = piece.setting
    try:
        for arithmetic in ARITHMETIC[: 2 if setting.miniature else None]:  # the last is each one's reference there
            for what, kinds in FORMS.items():
                for form, runners in kinds.items():
                    for runner in runners:
                        late = (
                            arithmetic == ARITHMETIC[2] and "compiled" in runner
                        )  # a minute each, and nobody's choice
                        if late or ("graph" in runner and setting.device.type != "cuda"):
                            continue
                        key = (what, form, runner, arithmetic)
                        needs = 120 if "compiled" in runner else 20
                        piece.case(" | ".join(key), functools.partial(measured, *key, setting), needs)
    finally:
        rows = []
        for name, case in piece.cases.items():
            if "ratio" in case:
                counted = "yes" if case["equal"] else "no: not counted"
                away = f"{counted} ({case['distance']:.1e}, allowed {case['allowed']:.1e})"
                milliseconds = f"{case['seconds']['median'] * 1e3:.3g}"
                rows.append((*name.split(" | "), milliseconds, shown(case["ratio"]), str(case["ratio"]["n"]), away))
        best = [f"- {what}, {arithmetic}: {', '.join(fastest(piece.cases, what, arithmetic))}"
                for what in FORMS for arithmetic in ARITHMETIC if fastest(piece.cases, what, arithmetic)]  # fmt: skip
        text = f"{__doc__.strip()}\n\nThe fastest that count, by the median ratio:\n\n" + "\n".join(best)
        head = ("network", "form", "run", "arithmetic", "ms a step", "time over the plain loop's (quartiles)", "n")
        piece.page("The execution of a training step", text, (*head, "same weights"), rows)


def fastest(cases: dict[str, Record], what: str, arithmetic: str, among: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Form and runner of the smallest median ratio of those that count, of the forms `among` where they are given."""
    found: dict[tuple[str, ...], float] = {}
    for name, case in cases.items():
        kind, form, runner, of = name.split(" | ")
        if (kind, of) == (what, arithmetic) and case.get("equal") and (not among or f"{form} {runner}" in among):
            found[form, runner] = case["ratio"]["median"]
    return min(found, key=lambda key: found[key]) if found else ()
