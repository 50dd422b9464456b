"""The Taylor term of distillation on moved images, measured beside its second order (`training.jacobian`)."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from divkd.empirical.data.splits import Split, to_float
from divkd.empirical.experiments.config import JacobianConfig
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training.distillation import kd_loss
from divkd.empirical.training.jacobian import Jet, direction, expansion, jet
from divkd.empirical.training.perturb import PERTURBATIONS, PIXELS
from divkd.empirical.training.seed_run import SeedRun
from divkd.shared.seeds import rng

Networks = TypeVar("Networks", bound=nn.Module)
SIZES = tuple(4.0**power for power in range(-5, 3))  # of the steps, as multiples of the least that is trained with
DRAWS = 2  # of a step for each image, both ways
BLOCK = 25  # images that one teacher's ODS step moves: of 100 images most teachers are met
CLIPPED = "clipped"  # the Gaussian steps once more, as `perturb` takes them


def exact(net: Networks) -> Networks:
    """A copy in float64 and eval mode: the term is a small difference of large numbers."""
    return deepcopy(net).double().eval().requires_grad_(False)


@dataclass(frozen=True)
class Probe:
    """Images x, steps of one kind from them, and what the teachers answer there, whoever the student is."""

    teachers: DeepEnsemble
    x: Tensor
    steps: Sequence[Tensor]
    sizes: Sequence[float]
    temperature: float
    clipped: bool = False

    def moved(self, size: float) -> Iterator[Tensor]:
        """The images moved by every step of this size, and by its opposite."""
        for step in self.steps:
            for sign in (size, -size):
                z = self.x + sign * step
                yield z.clamp(PIXELS.low, PIXELS.high) if self.clipped else z

    @cached_property
    def jets(self) -> list[Jet]:
        """The teachers' along every step."""
        return [jet(self.teachers, self.x, step) for step in self.steps]

    @cached_property
    def answers(self) -> list[list[Tensor]]:
        """The teachers' logits on the moved images, by size."""
        return [[self.teachers(z) for z in self.moved(size)] for size in self.sizes]

    @cached_property
    def clean(self) -> Tensor:
        """The teachers' logits on the images."""
        logits: Tensor = self.teachers(self.x)
        return logits


@torch.no_grad()
def measured(student: nn.Module, probe: Probe, whose: slice = slice(None)) -> dict[str, Any]:
    """What f = KD does around the images, in nats, the mean over images, members and steps, of the teachers `whose`:

        kd                                     f(x)
        second, jacobian, ours, theirs         of `training.jacobian.expansion`: what the square of a size multiplies
        extra                                  (f(x + size n) + f(x - size n)) / 2 - f(x), for every size

    Both are of the same steps, so that they differ in what the second order leaves out and in nothing else.
    """
    t = probe.temperature
    terms = [
        expansion(jet(student, probe.x, step), Jet(*(part[whose] for part in theirs)), t)
        for step, theirs in zip(probe.steps, probe.jets, strict=True)
    ]
    clean = kd_loss(student(probe.x), probe.clean[whose], t).item()
    extra = [
        mean(kd_loss(student(z), answer[whose], t).item() for z, answer in zip(moved, answers, strict=True)) - clean
        for moved, answers in zip(map(probe.moved, probe.sizes), probe.answers, strict=True)
    ]
    coefficients = {name: mean(one[name].mean().item() for one in terms) for name in terms[0]}
    return {"kd": clean, **coefficients, "extra": extra}


def probes(seed_run: SeedRun, teachers: DeepEnsemble, config: JacobianConfig) -> dict[tuple[str, str], Probe]:
    """{(split, kind of step): probe} of the first images of a seed: Gaussian steps, clipped ones, and `config`'s."""
    teachers, sizes = exact(teachers), [times * config.step_size for times in SIZES]
    splits = {"train": seed_run.data.train, "test": seed_run.data.test}
    found = {}
    for name, split in splits.items():
        x = to_float(Split(split.images, split.labels).images[: config.images]).double()
        for kind in dict.fromkeys(("gaussian", *config.steps)):
            generator = rng(seed_run.seed, f"jacobian/{name}/{PERTURBATIONS[kind].draws}")
            drawn = [
                torch.cat([direction(kind, part, teachers, config.temperature, generator) for part in x.split(BLOCK)])
                for _ in range(DRAWS)
            ]
            found[name, kind] = Probe(teachers, x, drawn, sizes, config.temperature)
            if kind == "gaussian":
                found[name, CLIPPED] = Probe(teachers, x, drawn, sizes, config.temperature, clipped=True)
    return found
