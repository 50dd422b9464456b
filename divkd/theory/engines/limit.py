"""The limit engine: the patch network in d -> infinity dimensions at fixed noise norm, exactly.

Each neuron is known by its V k feature coordinates a_f = <w, v_f> and one scalar g_{n,p} = <w, xi_{n,p}> a training
patch: as d grows at fixed nu^2 = sigma_p^2 d, noise becomes orthogonal to the features and to other noise, and
<xi, xi> = nu^2. With u = z_{n,p} a_{f(n,p)} + g_{n,p}, descent on L = 1/N sum_n loss_n moves

    da_f = -eta sum_{(n,p): f} z_{n,p} c_{n,p},    dg_{n,p} = -eta nu^2 c_{n,p},
    c_{n,p} = varrho / N  dloss_n/dF_i  sReLU'(u),

in units of varrho (W / varrho, time in those units), following Allen-Zhu and Li, arXiv 2012.09816. Noise of a fresh
sample meets the initial weights alone: <w, xi> ~ N(0, (sigma_0 nu)^2).

Entries (n, p) are sorted by feature and contiguous: a block, one neuron's entries of one feature, fits into the
innermost cache, and only blocks that have to move in a step are read from memory (see `blocks`). Where patches have
feature noise, every entry depends on all V k coordinates, and `MixedNetworks` take the place of blocks (see `mixed`).
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import numba as nb
import numpy as np

from divkd.shared.seeds import rng
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import NOISE, Layout, Samples
from divkd.theory.descent import Loss, Stepwise, Trace
from divkd.theory.engines import blocks, mixed

# A block stands still until it would have moved by this share of itself, or an output by this much.
LAZY_SHARE, LAZY_OUTPUT = 0.05, 1e-3
CAUTION = 2.0  # times the pace at which it was seen to move
TAIL, UNHEARD = 6.0, 1e-4  # of normal noise, one of 1e9 draws; of an output
UNDECIDED = 1e-3  # share of samples whose answer unheard noise may decide
AT_ONCE = 250_000_000  # bytes of networks that are trained side by side


class LimitNetworks:
    """M networks on their training samples, members first; `step` moves them in place.

    `weights` (M, k, m, V k) are the feature coordinates, `noise` (M, k, m, E) the scalars g in `layout`'s order. Blocks
    that hardly move lag behind (see `blocks`) until `settle`.
    """

    def __init__(self, config: MultiViewConfig, samples: Samples, weights: np.ndarray, noise: np.ndarray) -> None:
        self.config, self.samples, self.weights, self.noise = config, samples, weights, noise
        self.layout, constants = Layout.of(samples, config.features), _constants(config, len(samples))
        self._outputs = np.empty((len(weights), config.classes, len(samples)), np.float32)
        networks = [_network(*one) for one in zip(weights, noise, self._outputs, strict=True)]
        lags = [_lag(one, len(self.layout.sample)) for one in networks]
        self._states = [(*one, self.layout, constants) for one in zip(networks, lags, strict=True)]
        self._last = np.full(len(weights), blocks.FOREVER)
        _each(lambda b: blocks.forward(networks[b], self.layout, constants), range(len(weights)))

    @property
    def coordinates(self) -> np.ndarray:
        """`weights`: there are no others."""
        return self.weights

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
        limits = np.minimum(remaining, blocks.FOREVER).astype(np.float32)
        times = np.zeros(len(limits), np.float32)

        def move(b: int) -> None:
            times[b] = blocks.advance(*self._states[b], contiguous[b], limits[b], self._last[b])

        moving = np.flatnonzero(limits > 0)
        _each(move, moving)
        self._last[moving] = times[moving]
        return times

    def run(
        self, loss: Loss, slopes: np.ndarray, times: np.ndarray, active: np.ndarray, flow_time: float, count: int
    ) -> Trace:
        """As `descent.Networks.run`: every member takes its steps by itself, in compiled code."""
        (members, classes, samples), views = self._outputs.shape, self.config.views
        losses = np.empty((members, count, samples), np.float32)
        strengths = np.empty((members, count, classes, views), np.float32)
        trace = Trace(np.repeat(times[:, None], count, 1), losses, strengths)
        taken = np.ones(members, int)

        def go(b: int) -> None:
            rule, record, slope = loss.rule(b), blocks.Record(*(part[b] for part in trace)), slopes[b].T
            if active[b]:
                last, time = self._last[b], times[b]
                taken[b], self._last[b] = blocks.run(self._states[b], rule, slope, last, time, flow_time, record)
            else:
                blocks.look(self._states[b][0], rule, slope, record, 0)
            for part in record:
                part[taken[b] :] = part[taken[b] - 1]

        _each(go, range(members))
        return Trace(*(part[:, : taken.max()].swapaxes(0, 1) for part in trace))

    def settle(self, rows: Sequence[int]) -> None:
        """Bring every block of members `rows`, and with them their outputs, up to date."""

        def settle(b: int) -> None:
            network, lag, layout, constants = self._states[b]
            blocks.catch_up(network, lag, layout, constants, np.ones(lag.pending.shape, np.bool_))
            lag.pace.fill(1)  # what comes next may pull elsewhere

        _each(settle, rows)

    def copy(self, rows: Sequence[int]) -> "LimitNetworks":
        """Networks of their own that go on from where `rows`, which have settled, stand."""
        return type(self)(self.config, self.samples, self.weights[list(rows)], self.noise[list(rows)])


class MixedNetworks(Stepwise, LimitNetworks):
    """As `LimitNetworks`, on samples with feature noise: `noise` holds u = X a + g (M, k, m, N P) in samples' order."""

    def __init__(self, config: MultiViewConfig, samples: Samples, weights: np.ndarray, noise: np.ndarray) -> None:
        self.config, self.samples, self.weights, self.noise = config, samples, weights, noise
        self._outputs = np.empty((len(weights), config.classes, len(samples)), np.float32)
        self._coefficients, self._constants = _coefficients(samples), _constants(config, len(samples))
        _each(lambda b: mixed.forward(noise[b], self._outputs[b], self._constants), range(len(weights)))

    def step(self, slopes: np.ndarray, remaining: np.ndarray) -> np.ndarray:
        """As that of `LimitNetworks`."""
        contiguous = np.ascontiguousarray(slopes.transpose(0, 2, 1), dtype=np.float32)
        limits = np.minimum(remaining, blocks.FOREVER).astype(np.float32)
        times = np.zeros(len(limits), np.float32)

        def move(b: int) -> None:
            state = self.weights[b], self.noise[b], self._outputs[b], self._coefficients, self._constants
            times[b] = mixed.advance(*state, np.float32(self.config.feature_noise), contiguous[b], limits[b])

        _each(move, np.flatnonzero(limits > 0))
        return times

    def settle(self, rows: Sequence[int]) -> None:
        """Nothing lags behind."""


def _coefficients(samples: Samples) -> np.ndarray:
    """X (V k, N P): what a patch shows of every feature, its own and those that are mixed in."""
    assert samples.mixed is not None
    shown = samples.mixed.reshape(samples.feature.size, -1).copy()
    filled = np.flatnonzero(samples.feature != NOISE)
    shown[filled, samples.feature.ravel()[filled]] += samples.weight.ravel()[filled]
    return np.ascontiguousarray(shown.T)


def _mix(layout: Layout, coefficients: np.ndarray, weights: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """u (k, m, N P) of one network, in samples' order, from its coordinates and g in `layout`'s."""
    u = np.empty_like(noise)
    u[..., layout.order] = noise
    mixed.add_features(u, weights, coefficients)
    return u


def create(config: MultiViewConfig, samples: Samples, seed: int, members: Sequence[int]) -> LimitNetworks:
    """The networks `members` of `seed` at their initial weights, w ~ N(0, sigma_0^2 I)."""
    layout = Layout.of(samples, config.features)
    shape = (len(members), config.classes, config.neurons)
    weights = np.empty((*shape, config.features), np.float32)
    noise = np.empty((*shape, samples.feature.size), np.float32)

    def draw(row: int) -> None:
        generator = rng(seed, "init", members[row])
        generator.standard_normal(out=weights[row], dtype=np.float32)
        weights[row] *= np.float32(config.init_scale)
        _draw_noise(config, generator, layout, noise[row])

    _each(draw, range(len(members)))
    if samples.mixed is None:
        return LimitNetworks(config, samples, weights, noise)
    for b, of_member in enumerate(noise):
        of_member[:] = _mix(layout, _coefficients(samples), weights[b], of_member)
    return MixedNetworks(config, samples, weights, noise)


def fresh_outputs(
    config: MultiViewConfig, weights: np.ndarray, samples: Samples, seed: int, role: str, members: Sequence[int]
) -> np.ndarray:
    """F on samples that were not trained on, (M, N, k), for the coordinates `weights` (M, k, m, V k) of `members`.

    Their noise meets the initial weights alone: <w, xi> ~ N(0, (sigma_0 nu)^2), drawn for `role` and each number in
    `members`. Rows of the same number, a member before and after it was distilled, or students that learned by other
    rules from the same start, meet the same noise. It is drawn for every block by itself, where the block is heard at
    all (see `_heard`); all of it where, for more than `UNDECIDED` of the samples, what is not heard decides the answer.
    """
    layout, constants = Layout.of(samples, config.features), _constants(config, len(samples))
    outputs = np.zeros((len(weights), config.classes, len(samples)), np.float32)
    coefficients = None if samples.mixed is None else _coefficients(samples)
    scale = np.float32(config.init_scale * config.noise)

    def test(number: int) -> None:
        rows = np.flatnonzero(np.asarray(members) == number)
        if coefficients is not None:
            g = np.empty((*weights.shape[1:3], samples.feature.size), np.float32)
            _draw_noise(config, rng(seed, f"noise/{role}", number), layout, g)
            for row in rows:
                mixed.forward(_mix(layout, coefficients, weights[row], g), outputs[row], constants)
            return
        a = np.pad(weights[rows, ..., : config.features], ((0, 0), (0, 0), (0, 0), (0, 1)))  # 0: no feature
        heard = _heard(config, a * layout.largest)

        def add(chosen: np.ndarray) -> None:
            for place in np.flatnonzero(chosen.any(0)).tolist():
                i, r, f = np.unravel_index(place, a.shape[1:])
                size = layout.start[f + 1] - layout.start[f]
                g = rng(seed, f"noise/{role}", number, place).standard_normal(size, np.float32) * scale
                for row in np.flatnonzero(chosen[:, i, r, f]):
                    blocks.answer(a[row, i, r, f], g, f, outputs[rows[row], i], layout, constants)

        add(heard)
        first, second = np.partition(outputs[rows], [-2, -1], axis=1)[:, :-3:-1].swapaxes(0, 1)
        decided = (first - second <= 2 * UNHEARD).mean(1) <= UNDECIDED
        add(~heard & ~decided[:, None, None, None])

    _each(test, set(members))
    return outputs.transpose(0, 2, 1)


def _heard(config: MultiViewConfig, shown: np.ndarray) -> np.ndarray:
    """Which blocks say anything to fresh samples, by the most `shown` (..., m, V k + 1) to them, z a.

    With noise `TAIL` standard deviations above 0, all others of a network add up to `UNHEARD` in an output at most.
    """
    u = np.maximum(shown, 0) + TAIL * config.init_scale * config.noise
    most = np.minimum(u, 1) ** config.power / config.power + np.maximum(u - 1, 0)
    return np.asarray(config.logit_scale * shown.shape[-2] * config.patches * most > UNHEARD)


def together(config: MultiViewConfig) -> int:
    """How many networks are trained at once: more are no faster, and take more memory."""
    return int(max(1, min(8, AT_ONCE // _network_bytes(config))))


def state_bytes(config: MultiViewConfig) -> int:
    """The most memory that a part of a seed needs, in bytes: training members, or the widest networks, or testing."""
    wide = dataclasses.replace(config, neurons=config.neurons * (config.joint if config.students else 1))
    continued = min(together(config), config.students)
    members = (min(config.members, 2 * max(1, together(config) // 2)) + continued) * _network_bytes(config)
    joint = min(2, together(wide)) * _network_bytes(wide) if config.students else 0
    fresh = 4 * wide.classes * wide.neurons * config.patches * config.test_samples if config.feature_noise else 0
    answers = 24 * config.classes * config.test_samples * (config.members + (6 + config.chain) * config.students)
    alpha = 4 * config.patches * config.features if config.feature_noise else 0  # of a sample
    trained = max(members, joint) + 3 * alpha * config.train_samples  # with X, which is turned from a copy
    tested = 2 * fresh + answers + alpha * (config.train_samples + 5 * config.test_samples)
    return max(trained, tested)


def _network_bytes(config: MultiViewConfig) -> int:
    """What a network takes in training: every g, the drive seen; outputs, sums, drives, losses and slopes."""
    shown = 1 + config.views * (1 + (1 - 1 / config.classes) * config.expected_others)  # features of a sample, and none
    entries = config.patches + (0 if config.feature_noise else min(shown, config.patches))
    return int(4 * config.classes * config.train_samples * (config.neurons * entries + 16))


def _draw_noise(config: MultiViewConfig, generator: np.random.Generator, layout: Layout, into: np.ndarray) -> None:
    """Initial products g (k, m, E) of one network, ~ N(0, (sigma_0 nu)^2)."""
    scale = np.float32(config.init_scale * config.noise)
    for of_class in into:
        drawn = generator.standard_normal(of_class.shape, np.float32)
        drawn *= scale
        np.take(drawn, layout.drawn, axis=1, out=of_class, mode="clip")  # "raise" would copy


def _network(weights: np.ndarray, noise: np.ndarray, outputs: np.ndarray) -> blocks.Network:
    """One member before its forward pass, which fills `outputs` (k, N)."""
    classes, neurons, features = weights.shape
    top, mass = np.empty((2, classes, neurons, features + 1), np.float32)
    return blocks.Network(weights, noise, np.empty(outputs.shape), outputs, top, mass)


def _lag(network: blocks.Network, samples: int) -> blocks.Lag:
    """Of a member that lags behind in nothing, with so many `samples` over all features."""
    seen = np.zeros((*network.a.shape[:2], samples), np.float32)
    of_blocks = np.zeros_like(network.top), np.ones_like(network.top)
    return blocks.Lag(np.zeros_like(network.sums), np.zeros_like(network.outputs), seen, *of_blocks)


def _constants(config: MultiViewConfig, count: int) -> blocks.Constants:
    f = np.float32
    return blocks.Constants(
        q=(1,) * (config.power - 2),
        varrho=f(config.logit_scale),
        factor=f(config.logit_scale) / f(count),
        nu2=f(config.noise**2),
        trust=f(config.trust),
        cap=f(config.trust_cap),
        noise_trust=f(config.noise_trust),
        sigma=f(config.init_scale),
        share=f(LAZY_SHARE),
        tolerance=f(LAZY_OUTPUT),
        caution=f(CAUTION),
    )


def _each(work: Callable[[int], None], rows: Collection[int]) -> None:
    """Do `work` for every member, members side by side on the cores.

    Threads of our own, one member a task: the bits depend neither on their number nor on M, and, unlike OpenMP's, they
    do not wait for each other by spinning, which cost a factor of 3 where other programs shared the cores.
    """
    threads = nb.get_num_threads() if len(rows) > 1 else 1
    for _ in map(work, rows) if threads == 1 else _pool(threads).map(work, rows):
        pass


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
