"""Gradient flow by full-batch steps, each member with a step of its own, for the losses of `engines.losses`."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from divkd.shared.errors import RunError
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import Samples
from divkd.theory.engines import losses as rules

NOTHING = np.zeros((1, 0, 0), np.float32)


@dataclass(frozen=True)
class Loss:
    """Per-sample losses (M, N) and their slopes dloss_n/dF (M, N, k) of outputs (M, N, k), as `rules` has them.

    `scales` (1 or M,) and `wanted` (1 or M, k, N) are the same for all networks, or of each.
    """

    labels: np.ndarray  # (N,)
    kind: int = rules.LABELS
    wanted: np.ndarray = field(default_factory=lambda: NOTHING)
    scales: np.ndarray = field(default_factory=lambda: np.ones(1))
    temperature: float = 1.0
    clip: float = 1.0
    tau: float = 1.0

    def rule(self, row: int, precision: type = np.float32) -> rules.Rule:
        """That of a network, for outputs in that `precision`."""
        own = self.wanted[min(row, len(self.wanted) - 1)].astype(precision, order="C", copy=False)
        scale, *rest = map(
            precision, (self.scales[min(row, len(self.scales) - 1)], self.temperature, self.clip, self.tau)
        )
        return rules.Rule(self.kind, self.labels, scale, own, *rest)

    def __call__(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Losses and slopes of `outputs`, slopes laid out in memory as networks' outputs are, by class."""
        by_class = np.ascontiguousarray(outputs.swapaxes(1, 2))
        slopes, losses = np.empty_like(by_class), np.empty(outputs.shape[:2], outputs.dtype)
        for row, of_network in enumerate(by_class):
            rules.answer(self.rule(row, outputs.dtype.type), of_network, slopes[row], losses[row])
        return losses, slopes.swapaxes(1, 2)


class Trace(NamedTuple):
    """What M networks were like after each of S steps."""

    times: np.ndarray  # (S, M) flow time so far
    losses: np.ndarray  # (S, M, N)
    strengths: np.ndarray  # (S, M, k, V)


class Networks(Protocol):
    """What descent asks of an engine: M networks on their training samples."""

    @property
    def config(self) -> MultiViewConfig:
        """Of their world."""

    @property
    def weights(self) -> np.ndarray:
        """(M, k, m, >= V k), feature coordinates first."""

    @property
    def coordinates(self) -> np.ndarray:
        """(M, k, m, 2k), those alone."""

    def outputs(self) -> np.ndarray:
        """(M, N, k)."""

    def step(self, slopes: np.ndarray, remaining: np.ndarray) -> np.ndarray:
        """Move in place by dloss/dF (M, N, k), at most `remaining` (M,); the flow times (M,)."""

    def run(
        self, loss: Loss, slopes: np.ndarray, times: np.ndarray, active: np.ndarray, flow_time: float, count: int
    ) -> Trace:
        """Up to `count` steps, at least one, of each of the `active` (M,), on which `slopes` (M, N, k) go along.

        A network stops where it is finished (see `descend`), and stands still while others go on.
        """

    def settle(self, rows: Sequence[int]) -> None:
        """Bring `rows` up to date where the engine lets parts of them lag behind."""

    def copy(self, rows: Sequence[int]) -> "Networks":
        """Networks of their own that go on from where `rows` stand."""


class Engine(NamedTuple):
    """What an engine offers an experiment."""

    create: Callable[[MultiViewConfig, Samples, int, Sequence[int]], Networks]
    fresh_outputs: Callable[[MultiViewConfig, np.ndarray, Samples, int, str, Sequence[int]], np.ndarray]
    state_bytes: Callable[[MultiViewConfig], int]
    together: Callable[[MultiViewConfig], int]  # networks that are trained at once


def engine(name: str) -> Engine:
    """The module `name` of `divkd.shared.kinds.ENGINES`, imported when it is asked for: the dense one brings torch."""
    module = importlib.import_module(f"divkd.theory.engines.{name}")
    return Engine(module.create, module.fresh_outputs, module.state_bytes, module.together)


@dataclass(frozen=True)
class Step:
    """Where descent stands before its step `number`: the first record is the start, the last the fitted state."""

    number: int
    times: np.ndarray  # (M,) flow time of every member so far
    losses: np.ndarray  # (M,) mean loss
    active: np.ndarray  # (M,) members that go on
    finished: list[int]  # members that have just stopped; their state will not change any more
    trace: Trace  # from the record before this one, which is not in it, to this one


class Stepwise:
    """For engines whose steps are taken one at a time."""

    def run(
        self: Networks,
        loss: Loss,
        slopes: np.ndarray,
        times: np.ndarray,
        active: np.ndarray,
        flow_time: float,
        count: int,
    ) -> Trace:
        """As `Networks.run`: one step."""
        times = times + self.step(slopes, np.where(active, flow_time - times, 0.0))
        losses, slopes[:] = loss(self.outputs())
        return traced(self, times, losses)


def traced(networks: Networks, times: np.ndarray, losses: np.ndarray) -> Trace:
    """The record of one step."""
    config = networks.config
    return Trace(times[None], losses[None], strengths(networks.coordinates, config.classes, config.views)[None])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    with np.errstate(invalid="ignore"):  # a diverged member's inf - inf; `descend` names it
        shifted = np.asarray(logits - logits.max(-1, keepdims=True))
    np.maximum(shifted, rules.FAINTEST, out=shifted)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(-1, keepdims=True)
    return shifted


def cross_entropy(labels: np.ndarray) -> Loss:
    """-log p_y, p = softmax(F), and its slopes p - 1_y, for `labels` (N,)."""
    return Loss(labels)


def descend(
    networks: Networks,
    loss: Loss,
    *,
    max_steps: int,
    flow_time: float = np.inf,
    most_steps: int | None = None,
    stretch: int = 1,
) -> Iterator[Step]:
    """dW/dt = -dL/dW, L = mean_n loss_n, for `flow_time` or, where none is given, until a member fits the labels.

    It fits where p_y > 1/2 on every sample (losses below log 2), hence train accuracy 1. A member that is finished
    stands still, so that it ends as it would have ended alone. Steps are the engine's: the largest inside its trust
    region, taken on the current gradient, because a step that fits the previous gradient overshoots where strengths
    blow up in finite time (the tensor-power race).

    Yields a `Step` at the start, then after every step, or after `stretch` steps where the engine takes several at
    once, and at the end: where all are finished, or after `most_steps`. Raises `RunError` where a loss is no longer
    finite or `max_steps` were not enough.
    """
    times, active, number = np.zeros(len(networks.weights)), np.ones(len(networks.weights), dtype=bool), 0
    losses, slopes = loss(networks.outputs())
    trace = traced(networks, times, losses)
    while True:
        times, mean = trace.times[-1], trace.losses.mean(2)
        broken = np.flatnonzero(active & ~np.isfinite(mean).all(0))
        if len(broken):
            raise RunError(f"descent diverged at step {number} in network {broken[0]} of this batch; lower trust")
        largest = trace.losses[-1].max(1)
        stop = active & (largest < np.log(2) if np.isinf(flow_time) else times >= flow_time)
        finished = np.flatnonzero(stop).tolist()
        active = active & ~stop
        networks.settle(finished)
        yield Step(number, times.copy(), mean[-1], active.copy(), finished, trace)
        if not active.any() or number == most_steps:
            return
        if number >= max_steps:
            raise RunError(
                f"{int(active.sum())} of {len(active)} networks had not finished after max_steps {max_steps} steps "
                f"(largest loss {largest[active].max():.3g}); raise max_steps, or choose parameters that can be fitted"
            )
        count = min(stretch, max_steps - number, (most_steps or max_steps) - number)
        trace = networks.run(loss, slopes, times, active, flow_time, count)
        number += len(trace.times)


def strengths(weights: np.ndarray, classes: int, views: int = 2) -> np.ndarray:
    """Lambda_{i,l} = max_r [<w_{i,r}, v_{i,l}>]^+ in units of varrho, (M, k, V), from weights (M, k, m, >= V k).

    Following Allen-Zhu and Li, arXiv 2012.09816.
    """
    of_views = weights[..., : views * classes].reshape(*weights.shape[:3], classes, views)
    own = np.einsum("airib->airb", of_views)
    return np.asarray(np.maximum(own.max(2), 0))
