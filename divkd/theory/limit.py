"""The limit engine: the patch network in d -> infinity dimensions at fixed noise norm, exactly.

Each neuron is known by its 2k feature coordinates a_f = <w, v_f> and one scalar g_{n,p} = <w, xi_{n,p}> a training
patch: as d grows at fixed nu^2 = sigma_p^2 d, noise becomes orthogonal to the features and to other noise, and
<xi, xi> = nu^2. With u = z_{n,p} a_{f(n,p)} + g_{n,p}, descent on L = 1/N sum_n loss_n moves

    da_f = -eta sum_{(n,p): f} z_{n,p} c_{n,p},    dg_{n,p} = -eta nu^2 c_{n,p},
    c_{n,p} = varrho / N  dloss_n/dF_i  sReLU'(u),

in units of varrho (W / varrho, time in those units), following Allen-Zhu and Li, arXiv 2012.09816. Noise of a fresh
sample meets the initial weights alone: <w, xi> ~ N(0, (sigma_0 nu)^2).

Entries (n, p) are sorted by feature and contiguous, and one neuron is worked on at a time, so that its row of g is
read from memory once a step and stays in the cache between the gradient, the update and the next forward pass.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np

from divkd.shared.seeds import rng
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import NOISE, Samples

# Floating-point freedom that vector code needs; infinities keep their meaning, and divergence is caught on the loss.
FAST = {"reassoc", "contract", "nsz", "arcp", "nnan"}
# Noise-only patches are brought up to date once the fastest would have moved by this share, or an output by this much.
LAZY_SHARE, LAZY_OUTPUT = 0.02, 1e-4


@dataclass(frozen=True)
class Layout:
    """The patches of N samples as entries sorted by feature; those without a feature come last."""

    sample: np.ndarray  # (E,) n
    weight: np.ndarray  # (E,) z
    start: np.ndarray  # (2k + 1,) the entries of feature f are start[f]:start[f + 1]
    order: np.ndarray  # (E,) the entry's position n * P + p

    @classmethod
    def of(cls, samples: Samples, features: int) -> "Layout":
        """The layout of `samples` for `features` = 2k features."""
        flat = samples.feature.ravel()
        order = np.argsort(np.where(flat == NOISE, features, flat), kind="stable")
        start = np.searchsorted(flat[order[: int((flat != NOISE).sum())]], np.arange(features + 1))
        sample = (order // samples.feature.shape[1]).astype(np.uint32)
        return cls(sample, samples.weight.ravel()[order], start, order)


class LimitNetworks:
    """M networks on their training samples, members first; `step` moves them in place.

    `weights` (M, k, m, 2k) are the feature coordinates, `noise` (M, k, m, E) the scalars g in `layout`'s order.
    """

    def __init__(self, config: MultiViewConfig, samples: Samples, weights: np.ndarray, noise: np.ndarray) -> None:
        self.config, self.samples, self.count = config, samples, len(samples)
        self.layout = Layout.of(samples, 2 * config.classes)
        self.weights, self.noise = weights, noise
        members, classes = weights.shape[:2]
        entries = int(self.layout.start[-1])
        self._outputs = np.empty((members, classes, self.count), np.float32)
        self._drive = np.zeros_like(self._outputs)  # time integral of dloss/dF that noise-only patches still lack
        self._lazy = np.zeros_like(self._outputs)  # outputs of the noise-only patches, as last computed
        self._peak = np.zeros((members, classes), np.float32)  # their largest g
        self._gradient = np.empty_like(weights)
        self._slopes = np.empty((members, classes, entries), np.float32)  # varrho/N dloss/dF, an entry each
        self._values = np.empty((members, entries), np.float32)  # activations summed over a class's neurons
        never = np.zeros(members, np.float32)
        self._advance(np.zeros_like(self._outputs), never, start=True)

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
        return self._advance(contiguous, np.asarray(remaining, np.float32), start=False)

    def copy(self, rows: Sequence[int]) -> "LimitNetworks":
        """Networks of their own that go on from where `rows` stand."""
        return LimitNetworks(self.config, self.samples, self.weights[list(rows)], self.noise[list(rows)])

    def _advance(self, slopes: np.ndarray, remaining: np.ndarray, *, start: bool) -> np.ndarray:
        config, layout = self.config, self.layout
        times = np.zeros(len(remaining), np.float32)

        def move(b: int) -> None:
            times[b] = _move_member(
                self.weights[b], self.noise[b], slopes[b], remaining[b], start, layout.sample, layout.weight,
                layout.start, self._outputs[b], self._drive[b], self._lazy[b], self._peak[b], self._gradient[b],
                self._slopes[b], self._values[b], (1,) * (config.power - 2), np.float32(config.logit_scale),
                np.float32(config.noise**2), np.float32(config.trust), np.float32(config.trust_cap),
                np.float32(config.noise_trust), np.float32(config.init_scale),
            )  # fmt: skip

        _each(move, range(len(times)) if start else np.flatnonzero(remaining > 0))
        return times


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

    Their noise meets the initial weights alone: <w, xi> ~ N(0, (sigma_0 nu)^2), drawn for `role` and each member.
    """
    layout = Layout.of(samples, 2 * config.classes)
    outputs = np.empty((len(weights), config.classes, len(samples)), np.float32)

    def test(row: int) -> None:
        shape = (config.classes, config.neurons, samples.feature.size)
        g = rng(seed, f"noise/{role}", members[row]).standard_normal(shape, np.float32)
        g *= np.float32(config.init_scale * config.noise)
        _forward(
            weights[row], g, layout.sample, layout.weight, layout.start, outputs[row],
            (1,) * (config.power - 2), np.float32(config.logit_scale),
        )  # fmt: skip

    _each(test, range(len(members)))
    return outputs.transpose(0, 2, 1)


def state_bytes(config: MultiViewConfig) -> int:
    """The memory that training and testing one seed needs, in bytes.

    Members stay while their students are trained, of which the two joint networks of width m K are the largest group.
    """
    networks = config.members + 2 * config.students
    state = networks * config.train_samples * config.neurons * config.patches
    fresh = nb.get_num_threads() * config.test_samples * config.neurons * max(config.students, 1) * config.patches
    spread = networks * max(config.train_samples, config.test_samples) * (config.patches + 8)
    return 4 * config.classes * (state + fresh + spread)


def _each(work: Callable[[int], None], rows: Iterable[int]) -> None:
    """Do `work` for every member, members side by side on the cores.

    Threads of our own, one member a task: the bits depend neither on their number nor on M, and, unlike OpenMP's, they
    do not wait for each other by spinning, which cost a factor of 3 where other programs shared the cores.
    """
    with ThreadPoolExecutor(nb.get_num_threads()) as pool:
        for _ in pool.map(work, rows):
            pass


def _compiled(**options: Any) -> Callable[[Any], Any]:
    return nb.njit(cache=True, fastmath=FAST, error_model="numpy", **options)  # type: ignore[no-any-return]


@_compiled()
def _slope(u: Any, q: Any) -> Any:
    """sReLU'(u) = clip(u, 0, 1)^(q-1). `q` is a tuple of length q - 2: the compiler knows a tuple's length."""
    c = min(max(u, np.float32(0)), np.float32(1))
    slope = c
    for _ in range(len(q)):
        slope *= c
    return slope


@_compiled()
def _value(u: Any, q: Any) -> Any:
    """sReLU(u) = clip(u, 0, 1)^q / q + max(u - 1, 0)."""
    c = min(max(u, np.float32(0)), np.float32(1))
    return c * _slope(u, q) * np.float32(1 / (len(q) + 2)) + max(u - np.float32(1), np.float32(0))


@_compiled()
def _gradient_row(a: Any, g: Any, z: Any, start: Any, slopes: Any, gradient: Any, q: Any) -> Any:
    """One neuron's gradient per feature from entries' varrho/N dloss/dF; returns the largest |c|, as its bits."""
    peak = np.int32(0)  # floats from 0 up are ordered as their bits are, and integers have a vectorised maximum
    for f in range(len(a)):
        # slices, because a loop over start[f]:start[f + 1] keeps a test for negative indices and is not vectorised
        part = slice(start[f], start[f + 1])
        zf, gf, sf = z[part], g[part], slopes[part]
        weight, total = a[f], np.float32(0)
        for e in range(len(zf)):
            c = sf[e] * _slope(zf[e] * weight + gf[e], q)
            total += zf[e] * c
            peak = max(peak, np.float32(abs(c)).view(np.int32))
        gradient[f] = total
    return peak


@_compiled()
def _update_row(
    a: Any, g: Any, z: Any, start: Any, slopes: Any, gradient: Any, eta: Any, nu2: Any, v: Any, q: Any
) -> None:
    """Move one neuron by `eta` and add its activations at the new weights to `v`."""
    move = eta * nu2
    for f in range(len(a)):
        part = slice(start[f], start[f + 1])
        zf, gf, sf, vf = z[part], g[part], slopes[part], v[part]
        old = a[f]
        new = old - eta * gradient[f]
        a[f] = new
        for e in range(len(zf)):
            moved = gf[e] - move * sf[e] * _slope(zf[e] * old + gf[e], q)
            gf[e] = moved
            vf[e] += _value(zf[e] * new + moved, q)


@_compiled()
def _noise_rows(g: Any, sample: Any, first: Any, drive: Any, factor: Any, out: Any, q: Any) -> Any:
    """Move a class's noise-only patches by the drive that they lack; write their activations, return the largest g."""
    peak = np.float32(0)
    out[:] = 0
    for r in range(g.shape[0]):
        for e in range(first, g.shape[1]):
            u = g[r, e]
            if u > 0:  # exactly still otherwise
                u -= factor * drive[sample[e]] * _slope(u, q)
                g[r, e] = u
                out[sample[e]] += _value(u, q)
                peak = max(peak, u)
    drive[:] = 0
    return peak


@_compiled()
def _due(drive: Any, factor: Any, peak: Any, terms: Any, q: Any) -> Any:
    """Whether noise-only patches have to move now: see LAZY_SHARE and LAZY_OUTPUT."""
    pending = np.float32(0)
    for n in range(len(drive)):
        pending = max(pending, abs(drive[n]))
    slope = _slope(peak, q)
    move = factor * pending * slope
    return move > np.float32(LAZY_SHARE) * peak or terms * move * slope > np.float32(LAZY_OUTPUT)


@_compiled(nogil=True)
def _move_member(
    a: Any, g: Any, slopes: Any, remaining: Any, initial: Any, sample: Any, z: Any, start: Any, outputs: Any,
    drive: Any, lazy: Any, peak: Any, gradient: Any, spread: Any, values: Any,
    q: Any, varrho: Any, nu2: Any, trust: Any, cap: Any, noise_trust: Any, sigma: Any,
) -> Any:  # fmt: skip
    """One member's gradient, its step's size, then update and forward pass; returns the step's flow time."""
    classes, neurons, features = a.shape
    count, entries = outputs.shape[1], start[features]
    terms = varrho * np.float32(neurons * (len(sample) // count))
    scale = varrho / np.float32(count)
    steepest = np.float32(0)
    for i in range(classes):
        row, largest = spread[i], np.float32(0)
        for e in range(entries):
            row[e] = scale * slopes[i, sample[e]]
        for n in range(count):
            largest = max(largest, abs(slopes[i, n]))
        # an upper bound for the noise-only patches, which are not read here
        coefficient = scale * largest * _slope(peak[i], q)
        for r in range(neurons):
            bits = np.int32(_gradient_row(a[i, r], g[i, r], z, start, row, gradient[i, r], q))
            coefficient = max(coefficient, bits.view(np.float32))
            for f in range(features):
                clamp = min(max(abs(a[i, r, f]), sigma), cap)
                steepest = max(steepest, abs(gradient[i, r, f]) / clamp)
        steepest = max(steepest, noise_trust * nu2 * coefficient)
    # a member without a gradient stands still rather than dividing by it
    eta = min(trust / steepest, remaining) if steepest > 0 and not initial else np.float32(0)
    for i in range(classes):
        out = outputs[i]
        values[:] = 0
        for r in range(neurons):
            _update_row(a[i, r], g[i, r], z, start, spread[i], gradient[i, r], eta, nu2, values, q)
        for n in range(count):
            drive[i, n] += eta * slopes[i, n]
        if initial or _due(drive[i], scale * nu2, peak[i], terms, q):
            peak[i] = _noise_rows(g[i], sample, entries, drive[i], scale * nu2, lazy[i], q)
        out[:] = lazy[i]
        for e in range(entries):
            out[sample[e]] += values[e]
        for n in range(count):
            out[n] *= varrho
    return eta


@_compiled(nogil=True)
def _forward(a: Any, g: Any, sample: Any, z: Any, start: Any, outputs: Any, q: Any, varrho: Any) -> None:
    """F of one member, (k, N), from its coordinates and every patch's g."""
    classes, neurons, features = a.shape
    for i in range(classes):
        out = outputs[i]
        out[:] = 0
        for r in range(neurons):
            for f in range(features):
                for e in range(start[f], start[f + 1]):
                    out[sample[e]] += _value(z[e] * a[i, r, f] + g[i, r, e], q)
            for e in range(start[features], len(sample)):
                out[sample[e]] += _value(g[i, r, e], q)
        for n in range(len(out)):
            out[n] *= varrho
