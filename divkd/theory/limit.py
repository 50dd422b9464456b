"""The limit engine: the patch network in d -> infinity dimensions at fixed noise norm, exactly.

Each neuron is known by its 2k feature coordinates a_f = <w, v_f> and one scalar g_{n,p} = <w, xi_{n,p}> a training
patch: as d grows at fixed nu^2 = sigma_p^2 d, noise becomes orthogonal to the features and to other noise, and
<xi, xi> = nu^2. With u = z_{n,p} a_{f(n,p)} + g_{n,p}, descent on L = 1/N sum_n loss_n moves

    da_f = -eta sum_{(n,p): f} z_{n,p} c_{n,p},    dg_{n,p} = -eta nu^2 c_{n,p},
    c_{n,p} = varrho / N  dloss_n/dF_i  sReLU'(u),

in units of varrho (W / varrho, time in those units), following Allen-Zhu and Li, arXiv 2012.09816. Noise of a fresh
sample meets the initial weights alone: <w, xi> ~ N(0, (sigma_0 nu)^2).

Entries (n, p) are sorted by feature and contiguous: a block, one neuron's entries of one feature, fits into the
innermost cache, and only blocks that have to move in a step are read from memory (see `blocks`).
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba as nb
import numpy as np

from divkd.shared.seeds import rng
from divkd.theory import blocks
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import NOISE, Samples

# A block stands still until it would have moved by this share of itself, or an output by this much.
LAZY_SHARE, LAZY_OUTPUT = 0.05, 1e-3
FOREVER = np.float32(3e38)  # for no limit: infinity times a rate of 0 would not be a number


@dataclass(frozen=True)
class Layout:
    """The patches of N samples as entries sorted by feature; those without one come last, as feature 2k."""

    sample: np.ndarray  # (E,) n
    weight: np.ndarray  # (E,) z
    start: np.ndarray  # (2k + 2,) the entries of feature f are start[f]:start[f + 1]
    order: np.ndarray  # (E,) the entry's position n * P + p
    weight_in: np.ndarray  # (N, 2k + 1) sum of z over a sample's patches of a feature
    shows: np.ndarray  # (N, 2k + 1) 1 where it has one, else 0
    copies: np.ndarray  # (2k + 1,) the most patches that a sample has of a feature
    largest: np.ndarray  # (2k + 1,) the largest z

    @classmethod
    def of(cls, samples: Samples, features: int) -> "Layout":
        """The layout of `samples` for `features` = 2k features."""
        flat = np.where(samples.feature == NOISE, features, samples.feature)
        order = np.argsort(flat, axis=None, kind="stable")
        start = np.searchsorted(flat.ravel()[order], np.arange(features + 2))
        sample = (order // flat.shape[1]).astype(np.uint32)
        weight = samples.weight.ravel()[order]
        cells = np.arange(len(flat))[:, None] * (features + 1) + flat
        size, shape = len(flat) * (features + 1), (len(flat), features + 1)
        counts = np.bincount(cells.ravel(), minlength=size).reshape(shape)
        weights = np.bincount(cells.ravel(), samples.weight.ravel(), size).reshape(shape)
        largest = [weight[a:b].max(initial=0) for a, b in itertools.pairwise(start)]
        return cls(
            sample,
            weight,
            start,
            order,
            weights.astype(np.float32),
            (counts > 0).astype(np.float32),
            counts.max(0).astype(np.float32),
            np.array(largest, np.float32),
        )


class LimitNetworks:
    """M networks on their training samples, members first; `step` moves them in place.

    `weights` (M, k, m, 2k) are the feature coordinates, `noise` (M, k, m, E) the scalars g in `layout`'s order. Blocks
    that hardly move lag behind (see `blocks`) until `settle`.
    """

    def __init__(self, config: MultiViewConfig, samples: Samples, weights: np.ndarray, noise: np.ndarray) -> None:
        self.config, self.samples, self.count = config, samples, len(samples)
        self.layout = Layout.of(samples, 2 * config.classes)
        self.weights, self.noise = weights, noise
        members, classes, neurons, features = weights.shape
        self._outputs = np.empty((members, classes, self.count), np.float32)
        self._sums = np.empty(self._outputs.shape)  # of activations, float64 because every step adds to them
        self._time_integral = np.zeros(self._outputs.shape)  # of dloss/dF
        self._drive = np.zeros_like(self._outputs)  # the same in the precision of what is `seen`
        self._seen = np.zeros_like(noise)  # the drive by which an entry has moved
        shape = (members, classes, neurons, features + 1)
        self._top, self._mass = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._pending = np.zeros(shape, np.float32)  # how far towards being due a block is: see `blocks.advance`
        self._last = np.full(members, FOREVER)
        _each(self._begin, range(members))

    def outputs(self) -> np.ndarray:
        """F on the training samples, (M, N, k); a view that the next `step` overwrites."""
        return self._outputs.transpose(0, 2, 1)

    def step(self, slopes: np.ndarray, remaining: np.ndarray) -> np.ndarray:
        """Move every member down its gradient by a step of its own, and return the steps' flow times (M,).

        `slopes` (M, N, k) is dloss_n/dF. A step is the largest that moves no feature coordinate by more than
        `trust` * min(max(|a|, sigma_0), `trust_cap`) and no g by more than `trust` / `noise_trust`, and at most
        `remaining` (M,); a member with 0 remaining stands still.
        """
        contiguous = np.ascontiguousarray(slopes.transpose(0, 2, 1), dtype=np.float32)
        limits = np.minimum(remaining, FOREVER).astype(np.float32)
        times = np.zeros(len(limits), np.float32)
        config, layout = self.config, self.layout

        def move(b: int) -> None:
            times[b] = blocks.advance(
                self.weights[b], self.noise[b], self._seen[b], contiguous[b], limits[b], self._last[b],
                layout.sample, layout.weight, layout.start, layout.weight_in, layout.shows, layout.copies,
                layout.largest, self._sums[b], self._outputs[b], self._time_integral[b], self._drive[b], self._top[b],
                self._mass[b], self._pending[b], self._power, self._scale, np.float32(config.noise**2),
                np.float32(config.trust), np.float32(config.trust_cap), np.float32(config.noise_trust),
                np.float32(config.init_scale), np.float32(LAZY_SHARE), np.float32(LAZY_OUTPUT),
            )  # fmt: skip

        moving = np.flatnonzero(limits > 0)
        _each(move, moving)
        self._last[moving] = times[moving]
        return times

    def settle(self, rows: Sequence[int]) -> None:
        """Bring every block of members `rows`, and with them their outputs, up to date."""

        def catch_up(b: int) -> None:
            blocks.catch_up(
                self.weights[b], self.noise[b], self._seen[b], self.layout.sample, self.layout.weight,
                self.layout.start, self._sums[b], self._outputs[b], self._drive[b], self._top[b], self._mass[b],
                self._pending[b], np.float32(0), self._power, self._scale, np.float32(self.config.noise**2),
            )  # fmt: skip

        _each(catch_up, rows)

    def copy(self, rows: Sequence[int]) -> "LimitNetworks":
        """Networks of their own that go on from where `rows`, which have settled, stand."""
        return LimitNetworks(self.config, self.samples, self.weights[list(rows)], self.noise[list(rows)])

    @property
    def _power(self) -> tuple[int, ...]:
        return (1,) * (self.config.power - 2)

    @property
    def _scale(self) -> np.float32:
        return np.float32(self.config.logit_scale)

    def _begin(self, b: int) -> None:
        blocks.forward(
            self.weights[b], self.noise[b], self.layout.sample, self.layout.weight, self.layout.start, self._sums[b],
            self._outputs[b], self._top[b], self._mass[b], self._power, self._scale,
        )  # fmt: skip


def create(config: MultiViewConfig, samples: Samples, seed: int, members: Sequence[int]) -> LimitNetworks:
    """The networks `members` of `seed` at their initial weights, w ~ N(0, sigma_0^2 I)."""
    shape = (len(members), config.classes, config.neurons)
    weights = np.empty((*shape, 2 * config.classes), np.float32)
    noise = np.empty((*shape, samples.feature.size), np.float32)

    def draw(row: int) -> None:
        generator = rng(seed, "init", members[row])
        for array, scale in ((weights, config.init_scale), (noise, config.init_scale * config.noise)):
            generator.standard_normal(out=array[row], dtype=np.float32)
            array[row] *= np.float32(scale)

    _each(draw, range(len(members)))
    return LimitNetworks(config, samples, weights, noise)


def fresh_outputs(
    config: MultiViewConfig, weights: np.ndarray, samples: Samples, seed: int, role: str, members: Sequence[int]
) -> np.ndarray:
    """F on samples that were not trained on, (M, N, k), for the coordinates `weights` (M, k, m, 2k) of `members`.

    Their noise meets the initial weights alone: <w, xi> ~ N(0, (sigma_0 nu)^2), drawn for `role` and each number in
    `members`. Rows of the same number, a member before and after it was distilled, or students that learned by other
    rules from the same start, meet the same noise.
    """
    layout = Layout.of(samples, 2 * config.classes)
    outputs = np.empty((len(weights), config.classes, len(samples)), np.float32)

    def test(number: int) -> None:
        shape = (config.classes, config.neurons, samples.feature.size)
        g = rng(seed, f"noise/{role}", number).standard_normal(shape, np.float32)
        g *= np.float32(config.init_scale * config.noise)
        unused = np.empty((2, *shape[:2], 2 * config.classes + 1), np.float32)
        for row in np.flatnonzero(np.asarray(members) == number):
            blocks.forward(
                weights[row], g, layout.sample, layout.weight, layout.start, np.empty(outputs[row].shape),
                outputs[row], unused[0], unused[1], (1,) * (config.power - 2), np.float32(config.logit_scale),
            )  # fmt: skip

    _each(test, dict.fromkeys(members))
    return outputs.transpose(0, 2, 1)


def state_bytes(config: MultiViewConfig) -> int:
    """The memory that training and testing one seed needs, in bytes.

    Members stay while their students are trained, of which the two joint networks of width m K are the largest group.
    """
    networks = config.members + 2 * config.students
    state = 2 * networks * config.train_samples * config.neurons * config.patches  # every g, and the drive it has seen
    fresh = nb.get_num_threads() * config.test_samples * config.neurons * max(config.students, 1) * config.patches
    samples = 12 * networks * max(config.train_samples, config.test_samples)  # outputs, drives, losses
    return 4 * config.classes * (state + fresh + samples)


def _each(work: Callable[[int], None], rows: Iterable[int]) -> None:
    """Do `work` for every member, members side by side on the cores.

    Threads of our own, one member a task: the bits depend neither on their number nor on M, and, unlike OpenMP's, they
    do not wait for each other by spinning, which cost a factor of 3 where other programs shared the cores.
    """
    for _ in _pool().map(work, rows):
        pass


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(nb.get_num_threads())
