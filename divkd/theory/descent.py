"""Gradient flow by full-batch steps, each member with a step of its own, for any loss that knows d loss / d outputs."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from divkd.shared.errors import RunError
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import Samples

FAINTEST = np.float32(-60)  # log of a probability

# (M, N, k) outputs -> per-sample losses (M, N) and their slopes dloss_n/dF (M, N, k)
Loss = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Networks(Protocol):
    """What descent asks of an engine: M networks on their training samples."""

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
    sample_losses: np.ndarray  # (M, N)
    active: np.ndarray  # (M,) members that go on
    finished: list[int]  # members that have just stopped; their state will not change any more


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    shifted = _shifted(logits)
    _normalise(shifted)
    return shifted


def _shifted(logits: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a diverged member's inf - inf; `descend` names it
        return np.asarray(logits - logits.max(-1, keepdims=True))


def _normalise(shifted: np.ndarray) -> np.ndarray:
    """Turn `_shifted` logits into probabilities, in place; returns what their exponentials sum to.

    Those below exp(-60) = 9e-27 are that: of the order of 1e-38 they, or their products with slopes of sReLU, would be
    subnormal numbers, on which a processor spends fourteen times as long.
    """
    np.maximum(shifted, FAINTEST, out=shifted)
    np.exp(shifted, out=shifted)
    total = shifted.sum(-1)
    shifted /= total[..., None]
    return np.asarray(total)


def cross_entropy(labels: np.ndarray, push: Callable[[np.ndarray, np.ndarray], None] | None = None) -> Loss:
    """-log p_y, p = softmax(F), and its slopes p - 1_y, for `labels` (N,); `push` changes slopes in place, from F."""
    places = labels * len(labels) + np.arange(len(labels))
    hot: dict[int, np.ndarray] = {}  # by the number of classes: 1 at a sample's label

    def loss(outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        classes = outputs.shape[2]
        if classes not in hot:
            hot[classes] = one_hot(labels, classes)
        slopes = _shifted(outputs)
        own = slopes.transpose(0, 2, 1).reshape(len(outputs), -1).take(places, 1)
        total = _normalise(slopes)
        slopes -= hot[classes]
        if push is not None:
            push(slopes, outputs)
        return np.log(total) - own, slopes

    return loss


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """1 at the label, else 0, (N, k), laid out as `by_class`."""
    return np.asarray((np.arange(classes)[:, None] == labels).astype(np.float32).T)


def by_class(values: np.ndarray) -> np.ndarray:
    """`values` (..., N, k) laid out in memory as networks' outputs are: the samples of a class side by side."""
    return np.asarray(np.ascontiguousarray(values.swapaxes(-1, -2)).swapaxes(-1, -2))


def descend(networks: Networks, loss: Loss, *, max_steps: int, flow_time: float = np.inf) -> Iterator[Step]:
    """dW/dt = -dL/dW, L = mean_n loss_n, for `flow_time` or, where none is given, until a member fits the labels.

    It fits where p_y > 1/2 on every sample (losses below log 2), hence train accuracy 1. A member that is finished
    stands still, so that it ends as it would have ended alone. Steps are the engine's: the largest inside its trust
    region, taken on the current gradient, because a step that fits the previous gradient overshoots where strengths
    blow up in finite time (the tensor-power race).

    Yields a `Step` before every step and after the last. Raises `RunError` where a loss is no longer finite or
    `max_steps` were not enough.
    """
    times = np.zeros(len(networks.weights))
    active = np.ones(len(times), dtype=bool)
    number = 0
    while True:
        losses, slopes = loss(networks.outputs())
        mean = losses.mean(1)
        broken = np.flatnonzero(active & ~np.isfinite(mean))
        if len(broken):
            raise RunError(f"descent diverged at step {number} in network {broken[0]} of this batch; lower trust")
        stop = active & (losses.max(1) < np.log(2) if np.isinf(flow_time) else times >= flow_time)
        finished = np.flatnonzero(stop).tolist()
        active = active & ~stop
        networks.settle(finished)
        yield Step(number, times.copy(), mean, losses, active.copy(), finished)
        if not active.any():
            return
        if number >= max_steps:
            raise RunError(
                f"{int(active.sum())} of {len(active)} networks had not finished after max_steps {max_steps} steps "
                f"(largest loss {losses[active].max():.3g}); raise max_steps, or choose parameters that can be fitted"
            )
        times += networks.step(slopes, np.where(active, flow_time - times, 0.0))
        number += 1


def strengths(weights: np.ndarray, classes: int, views: int = 2) -> np.ndarray:
    """Lambda_{i,l} = max_r [<w_{i,r}, v_{i,l}>]^+ in units of varrho, (M, k, V), from weights (M, k, m, >= V k).

    Following Allen-Zhu and Li, arXiv 2012.09816.
    """
    of_views = weights[..., : views * classes].reshape(*weights.shape[:3], classes, views)
    own = np.einsum("airib->airb", of_views)
    return np.asarray(np.maximum(own.max(2), 0))
