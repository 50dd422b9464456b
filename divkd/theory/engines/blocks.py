"""Compiled loops of the limit engine, over blocks: one neuron's entries (sample, patch) of one feature.

A step moves a neuron's coordinate a of a feature and the products g of its patches' noise by

    da = -sum_e z_e c_e,    dg_e = -nu^2 c_e,    c_e = varrho / N  D_n(e)  sReLU'(z_e a + g_e),

where D_n, the drive, is dloss_n/dF times the step's flow time. In the tensor-power race and after it nearly every block
stands almost still: few have to be touched in a step. The others only let their drive add up, and are brought up to
date before they would have moved by `LAZY_SHARE` of themselves or an output by `LAZY_OUTPUT`; what they then move by
is the drive since they were last seen, so that nothing is lost. How fast a block moves is bounded from above for all
neurons at once. As drives cancel, most move at a tenth of the bound or less: what a block did move by when it was
last brought up to date says at what share of its bound it is taken to go on, times a `CAUTION`. One that the next
step would find due is brought up to date at once, which spares its gradient; one that is due all the same moves by
its gradient as it stands. The last block of a neuron holds its patches without a feature, with z = 0.
"""

from typing import Any, NamedTuple

import numpy as np

from divkd.theory.data import Layout
from divkd.theory.engines import entries
from divkd.theory.engines.entries import Block, bits, compiled, srelu_slope
from divkd.theory.engines.losses import Rule
from divkd.theory.engines.losses import answer as answer_labels

SLOWEST = np.float32(1 / 64)  # share of its bound
FOREVER = np.float32(3e38)  # for no limit: infinity times a rate of 0 would not be a number
LOG2 = np.log(2)


class Network(NamedTuple):
    """One member: its coordinates, what its outputs are made of, and what bounds how fast its blocks move."""

    a: np.ndarray  # (k, m, V k) feature coordinates
    g: np.ndarray  # (k, m, E) products with the patches' noise
    sums: np.ndarray  # (k, N) of activations, float64 because every step adds to them
    outputs: np.ndarray  # (k, N) F
    top: np.ndarray  # (k, m, V k + 1) a block's largest u = z a + g, 0 if none is above
    mass: np.ndarray  # (k, m, V k + 1) its sum_e z_e sReLU'(u_e)


class Lag(NamedTuple):
    """What one member's blocks still have to catch up with."""

    time_integral: np.ndarray  # (k, N) of dloss/dF, float64
    drive: np.ndarray  # (k, N) the same in the precision of what is `seen`
    seen: np.ndarray  # (k, m, S) the drive by which a sample's entries of a feature have moved
    pending: np.ndarray  # (k, m, V k + 1) how far towards being due a block is; 1 is due, 0 lags behind in nothing
    pace: np.ndarray  # (k, m, V k + 1) the share of its bound at which it is taken to move


class Constants(NamedTuple):
    """What every step has in common. Scalars are float32."""

    q: tuple[int, ...]  # of length q - 2: the compiler knows a tuple's length
    varrho: np.float32
    factor: np.float32  # varrho / N
    nu2: np.float32
    trust: np.float32
    cap: np.float32
    noise_trust: np.float32
    sigma: np.float32
    share: np.float32  # of itself, by which a block may lag behind
    tolerance: np.float32  # of an output
    caution: np.float32  # how much faster a block is taken to move than it was seen to


class _Pull(NamedTuple):
    """Of a class's samples on the blocks of one feature, at most."""

    weighted: Any  # sum_n |slope_n| sum of z over the sample's patches of the feature
    largest: Any  # |slope_n|
    copies: Any
    z: Any


@compiled(forceinline=True)
def _block(network: Any, layout: Any, i: Any, r: Any, f: Any) -> Any:
    part = slice(layout.start[f], layout.start[f + 1])
    weight = network.a[i, r, f] if f < network.a.shape[2] else np.float32(0)
    return Block(weight, network.g[i, r, part], layout.weight[part], layout.edges[f, : layout.copies[f] + 1])


@compiled(forceinline=True)
def _pull(slopes: Any, weight_in: Any, shows: Any) -> Any:
    """`_Pull.weighted` and `_Pull.largest` of a class on the blocks of a feature."""
    weighted, largest = np.float32(0), np.int32(0)
    for n in range(len(slopes)):
        size = abs(slopes[n])
        weighted += size * weight_in[n]
        largest = max(largest, bits(size * shows[n]))
    return weighted, np.int32(largest).view(np.float32)


@compiled(forceinline=True)
def _rate(a: Any, top: Any, mass: Any, pull: Any, constants: Any) -> Any:
    """An upper bound of how fast a block that is not touched goes stale: 1 / the time in which it is due."""
    if not top > 0:
        return np.float32(0)
    factor = constants.factor
    steepest = srelu_slope(top, constants.q)
    moved = factor * min(steepest * pull.weighted, mass * pull.largest)  # |da/dt|
    noise = factor * constants.nu2 * steepest * pull.largest  # |dg/dt|
    relative = max(moved / max(abs(a), constants.sigma), noise / top) / constants.share
    lost = constants.varrho * pull.copies * steepest * (pull.z * moved + noise)  # of an output
    return max(relative, lost / constants.tolerance)


class Record(NamedTuple):
    """What one member was like after each of S steps."""

    times: np.ndarray  # (S,) flow time so far, float64
    losses: np.ndarray  # (S, N)
    strengths: np.ndarray  # (S, k, V)


@compiled(nogil=True)
def run(
    state: tuple[Network, Lag, Layout, Constants],
    rule: Rule,
    slopes: Any,
    last: Any,
    time: Any,
    until: Any,
    record: Record,
) -> Any:
    """Up to S steps of one member from flow time `time`; how many, and the size of the last.

    It stops at the time `until` or, where that is infinite, where p_y > 1/2 on every sample. `slopes` (k, N), those of
    its outputs by its `rule`, go along.
    """
    network, lag, layout, constants = state
    for step in range(len(record.times)):
        remaining = np.float32(min(until - time, FOREVER))
        last = advance(network, lag, layout, constants, slopes, remaining, last)
        time += last
        record.times[step] = time
        look(network, rule, slopes, record, step)
        if time >= until or (until > FOREVER and np.max(record.losses[step]) < LOG2):
            return step + 1, last
    return len(record.times), last


@compiled(nogil=True)
def look(network: Network, rule: Rule, slopes: Any, record: Record, step: Any) -> None:
    """What one member is like now: its `slopes`, and what the `record` of a step keeps but for the time."""
    answer_labels(rule, network.outputs, slopes, record.losses[step])
    classes, views = record.strengths.shape[1:]
    for i in range(classes):
        for f in range(views):
            record.strengths[step, i, f] = max(np.max(network.a[i, :, views * i + f]), np.float32(0))


@compiled(nogil=True)
def advance(
    network: Network, lag: Lag, layout: Layout, constants: Constants, slopes: Any, remaining: Any, last: Any
) -> Any:
    """One member's step: its size from the blocks that have to move, then those blocks; returns its flow time.

    `slopes` (k, N) is dloss_n/dF; `last` the step before, which says what is likely to be due.
    """
    a, top, mass, pending = network.a, network.top, network.mass, lag.pending
    classes, neurons, features = a.shape
    count = network.outputs.shape[1]
    sigma, factor = constants.sigma, constants.factor
    spare, rates = _spare(layout), np.empty(pending.shape, np.float32)
    weighted, largest = np.empty((2, classes, features + 1), np.float32)
    moves, due = np.zeros(pending.shape, np.bool_), np.zeros(pending.shape, np.bool_)
    for f in range(features + 1):  # whose row of the layout stays in the innermost cache
        for i in range(classes):
            weighted[i, f], largest[i, f] = _pull(slopes[i], layout.weight_in[f], layout.shows[f])
    for i in range(classes):
        for r in range(neurons):
            for f in range(features + 1):
                pull = _Pull(weighted[i, f], largest[i, f], layout.copies[f], layout.largest[f])
                bound = _rate(a[i, r, f] if f < features else sigma, top[i, r, f], mass[i, r, f], pull, constants)
                rates[i, r, f] = lag.pace[i, r, f] * bound

    steepest, eta = np.float32(0), last
    for _ in range(2):  # what is likely to move sets the step, and the step says what else has to: it only shrinks
        for i in range(classes):
            for r in range(neurons):
                for f in range(features + 1):
                    due[i, r, f] = (pending[i, r, f] + eta * rates[i, r, f] > 1) & ~moves[i, r, f]
        some = _of_any_neuron(due)
        for i in range(classes):
            for f in range(features + 1):
                if not some[i, f]:
                    continue
                _catch_up(network, lag, layout, constants, (i, f), due, spare)
                own = spare[0]
                entries.gather(slopes[i], layout.sample[layout.begin[f] : layout.begin[f + 1]], own)
                for r in range(neurons):
                    if due[i, r, f]:
                        moves[i, r, f] = True
                        block = _block(network, layout, i, r, f)
                        total, peak = entries.gradient(block, own, constants.q)
                        clamp = min(max(abs(block.a), sigma), constants.cap)
                        noise = constants.noise_trust * constants.nu2 * peak
                        steepest = max(steepest, factor * max(abs(total) / clamp, noise))
        eta = min(constants.trust / steepest, remaining) if steepest > 0 else remaining
    if not steepest > 0 and remaining > np.float32(1e38):
        return np.float32(0)  # without a gradient and without a limit there is nowhere to go

    for i in range(classes):
        for n in range(count):
            lag.time_integral[i, n] += np.float64(eta) * np.float64(slopes[i, n])
            lag.drive[i, n] = lag.time_integral[i, n]
        for r in range(neurons):
            for f in range(features + 1):
                behind = eta * rates[i, r, f]
                pending[i, r, f] += behind
                moves[i, r, f] |= pending[i, r, f] + behind > 1  # due in the next step, which is spared its gradient
    catch_up(network, lag, layout, constants, moves)
    return eta


@compiled(forceinline=True)
def _spare(layout: Any) -> Any:
    """Room for the entries of a block, and for two numbers of each of its samples."""
    return np.empty((3, np.max(layout.start[1:] - layout.start[:-1])), np.float32)


@compiled(forceinline=True)
def _of_any_neuron(which: Any) -> Any:
    """(k, V k + 1): where any neuron is of those `which` (k, m, V k + 1), which few are."""
    some = np.zeros((which.shape[0], which.shape[2]), np.bool_)
    for i in range(which.shape[0]):
        for r in range(which.shape[1]):
            for f in range(which.shape[2]):
                some[i, f] |= which[i, r, f]
    return some


@compiled(forceinline=True)
def _catch_up(network: Any, lag: Any, layout: Any, constants: Any, place: Any, which: Any, spare: Any) -> None:
    """Bring those blocks at `place` (class, feature) up to date that lag behind, of `which` (k, m, V k + 1)."""
    i, f = place
    first, last = layout.begin[f], layout.begin[f + 1]
    samples, drive, change = layout.sample[first:last], spare[1, : last - first], spare[2, : last - first]
    begun = False
    for r in range(which.shape[1]):
        if not which[i, r, f] or not lag.pending[i, r, f] > 0:
            continue
        if not begun:
            entries.gather(lag.drive[i], samples, drive)
            for p in range(len(change)):
                change[p] = 0
            begun = True
        block, seen = _block(network, layout, i, r, f), lag.seen[i, r, first:last]
        new, mass, top, noise, most = entries.bring(block, drive, seen, change, spare[0], constants)
        moved = max(abs(new - block.a) / max(abs(block.a), constants.sigma), noise / network.top[i, r, f])
        lost = constants.varrho * np.float32(layout.copies[f]) * most
        pace = lag.pace[i, r, f] * max(moved / constants.share, lost / constants.tolerance) / lag.pending[i, r, f]
        lag.pace[i, r, f] = min(max(constants.caution * pace, lag.pace[i, r, f] / 4, SLOWEST), np.float32(1))
        if f < network.a.shape[2]:
            network.a[i, r, f] = new
        network.top[i, r, f], network.mass[i, r, f], lag.pending[i, r, f] = top, mass, 0
    if begun:
        for p in range(len(samples)):
            network.sums[i, samples[p]] += change[p]


@compiled(nogil=True)
def catch_up(network: Network, lag: Lag, layout: Layout, constants: Constants, which: Any) -> None:
    """Bring the blocks `which` (k, m, V k + 1) of one member up to date, and its outputs."""
    spare, some = _spare(layout), _of_any_neuron(which)
    for i in range(which.shape[0]):
        for f in range(which.shape[2]):
            if some[i, f]:
                _catch_up(network, lag, layout, constants, (i, f), which, spare)
        for n in range(network.outputs.shape[1]):
            network.outputs[i, n] = constants.varrho * network.sums[i, n]


@compiled(nogil=True)
def forward(network: Network, layout: Layout, constants: Constants) -> None:
    """F of one member from its coordinates, and what its blocks' rates are bounded by."""
    q, sums = constants.q, network.sums
    classes, neurons, features = network.a.shape
    spare = _spare(layout)[0]
    sums[:] = 0
    for i in range(classes):
        for f in range(features + 1):
            samples = layout.sample[layout.begin[f] : layout.begin[f + 1]]
            change = spare[: len(samples)]
            change[:] = 0
            for r in range(neurons):
                block = _block(network, layout, i, r, f)
                network.top[i, r, f], network.mass[i, r, f] = entries.answer(block, change, q)
            for p in range(len(samples)):
                sums[i, samples[p]] += change[p]
    network.outputs[:] = constants.varrho * sums


@compiled(nogil=True)
def answer(a: Any, g: Any, f: Any, outputs: Any, layout: Layout, constants: Constants) -> None:
    """Add to the outputs (N,) of a class what a neuron with the coordinate `a` of feature f answers to its patches."""
    samples = layout.sample[layout.begin[f] : layout.begin[f + 1]]
    block = Block(a, g, layout.weight[layout.start[f] : layout.start[f + 1]], layout.edges[f, : layout.copies[f] + 1])
    into = np.zeros(len(samples), np.float32)
    entries.answer(block, into, constants.q)
    for p in range(len(samples)):
        outputs[samples[p]] += constants.varrho * into[p]
