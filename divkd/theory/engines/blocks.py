"""Compiled loops of the limit engine, over blocks: one neuron's entries (sample, patch) of one feature.

A step moves a neuron's coordinate a of a feature and the products g of its patches' noise by

    da = -sum_e z_e c_e,    dg_e = -nu^2 c_e,    c_e = varrho / N  D_n(e)  sReLU'(z_e a + g_e),

where D_n, the drive, is dloss_n/dF times the step's flow time. In the tensor-power race and after it nearly every block
stands almost still: few have to be touched in a step. The others only let their drive add up, and are
brought up to date before they would have moved by `LAZY_SHARE` of themselves or an output by `LAZY_OUTPUT`; what they
then move by is the drive since they were last seen, so that nothing is lost. One that the next step would find due is
brought up to date at once, which spares its gradient; one that is due all the same moves by its gradient as it stands.
The last block of a neuron holds its patches without a feature, with z = 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numba as nb
import numpy as np

from divkd.theory.data import Layout

# Floating-point freedom that vector code needs; infinities keep their meaning, and divergence is caught on the loss.
FAST = {"reassoc", "contract", "nsz", "arcp", "nnan"}


def compiled(**options: Any) -> Callable[[Any], Any]:
    """As all of the engine's loops are compiled."""
    return nb.njit(cache=True, fastmath=FAST, error_model="numpy", **options)  # type: ignore[no-any-return]


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


class _Block(NamedTuple):
    a: Any
    g: Any  # (e,)
    z: Any  # (e,)
    edges: Any  # of its runs


class _Pull(NamedTuple):
    """Of a class's samples on the blocks of one feature, at most."""

    weighted: Any  # sum_n |slope_n| sum of z over the sample's patches of the feature
    largest: Any  # |slope_n|
    copies: Any
    z: Any


@compiled()
def srelu_slope(u: Any, q: Any) -> Any:
    """sReLU'(u) = clip(u, 0, 1)^(q-1), `q` as in `Constants`."""
    c = min(max(u, np.float32(0)), np.float32(1))
    slope = c
    for _ in range(len(q)):
        slope *= c
    return slope


@compiled()
def srelu(u: Any, q: Any) -> Any:
    """sReLU(u) = clip(u, 0, 1)^q / q + max(u - 1, 0)."""
    c = min(max(u, np.float32(0)), np.float32(1))
    return c * srelu_slope(u, q) * np.float32(1 / (len(q) + 2)) + max(u - np.float32(1), np.float32(0))


@compiled()
def _bits(u: Any) -> Any:
    """Floats from 0 up are ordered as their bits are, and integers have a vectorised maximum."""
    return np.float32(max(u, np.float32(0))).view(np.int32)


# Inlined, these do not count the references to a record's arrays: a tenth of a small block's time.
@compiled(forceinline=True)
def _block(network: Any, layout: Any, i: Any, r: Any, f: Any) -> Any:
    part = slice(layout.start[f], layout.start[f + 1])
    weight = network.a[i, r, f] if f < network.a.shape[2] else np.float32(0)
    return _Block(weight, network.g[i, r, part], layout.weight[part], layout.edges[f, : layout.copies[f] + 1])


@compiled(forceinline=True)
def _gather(values: Any, samples: Any, into: Any) -> None:
    for p in range(len(samples)):
        into[p] = values[samples[p]]


@compiled(forceinline=True)
def _gradient(block: Any, slopes: Any, q: Any) -> Any:
    """A block's sum_e z_e c_e and its largest |c_e|, c without the factor varrho / N, of its samples' `slopes`."""
    total, peak = np.float32(0), np.int32(0)
    for run in range(len(block.edges) - 1):
        part = slice(block.edges[run], block.edges[run + 1])
        g, z = block.g[part], block.z[part]
        for p in range(len(g)):
            c = slopes[p] * srelu_slope(z[p] * block.a + g[p], q)
            total += z[p] * c
            peak = max(peak, _bits(abs(c)))
    return total, np.int32(peak).view(np.float32)


@compiled(forceinline=True)
def _bring(block: Any, drive: Any, seen: Any, change: Any, spare: Any, constants: Any) -> Any:
    """Move a block by its samples' `drive` since it was `seen`, and add what that does to their sums to `change`.

    Returns the new coordinate, the largest u = z a + g (0 if none is above) and sum_e z_e sReLU'(u_e).
    """
    q, factor, nu2 = constants.q, constants.factor, constants.nu2
    total, mass, top = np.float32(0), np.float32(0), np.int32(0)
    for p in range(len(seen)):
        seen[p] = factor * (drive[p] - seen[p])
    for run in range(len(block.edges) - 1):
        part = slice(block.edges[run], block.edges[run + 1])
        g, z, c = block.g[part], block.z[part], spare[part]
        for p in range(len(g)):
            c[p] = seen[p] * srelu_slope(z[p] * block.a + g[p], q)
            total += z[p] * c[p]
    new = block.a - total
    for run in range(len(block.edges) - 1):
        part = slice(block.edges[run], block.edges[run + 1])
        g, z, c = block.g[part], block.z[part], spare[part]
        for p in range(len(g)):
            old = z[p] * block.a + g[p]
            g[p] -= nu2 * c[p]
            u = z[p] * new + g[p]
            change[p] += srelu(u, q) - srelu(old, q)
            mass += z[p] * srelu_slope(u, q)
            top = max(top, _bits(u))
    for p in range(len(seen)):
        seen[p] = drive[p]
    return new, np.int32(top).view(np.float32), mass


@compiled()
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
    spare, now = _spare(layout), np.empty(neurons, np.bool_)
    rates = np.empty(pending.shape, np.float32)
    moves = np.zeros(pending.shape, np.bool_)
    for i in range(classes):
        for f in range(features + 1):
            weighted, largest = np.float32(0), np.int32(0)
            for n in range(count):
                size = abs(slopes[i, n])
                weighted += size * layout.weight_in[f, n]
                largest = max(largest, _bits(size * layout.shows[f, n]))
            pull = _Pull(weighted, np.int32(largest).view(np.float32), np.float32(layout.copies[f]), layout.largest[f])
            for r in range(neurons):
                weight = a[i, r, f] if f < features else sigma
                rates[i, r, f] = _rate(weight, top[i, r, f], mass[i, r, f], pull, constants)

    steepest, eta = np.float32(0), last
    for _ in range(2):  # what is likely to move sets the step, and the step says what else has to: it only shrinks
        for i in range(classes):
            for f in range(features + 1):
                some = False
                for r in range(neurons):
                    now[r] = not moves[i, r, f] and pending[i, r, f] + eta * rates[i, r, f] > 1
                    some |= now[r]
                if not some:
                    continue
                _catch_up(network, lag, layout, constants, (i, f), now, spare)
                own = spare[0]
                _gather(slopes[i], layout.sample[layout.begin[f] : layout.begin[f + 1]], own)
                for r in range(neurons):
                    if now[r]:
                        moves[i, r, f] = True
                        block = _block(network, layout, i, r, f)
                        total, peak = _gradient(block, own, constants.q)
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
                if moves[i, r, f]:
                    pending[i, r, f] = 1
                else:  # due in the next step, it is cheaper now: no gradient is asked of it for that step's size
                    lag_behind = eta * rates[i, r, f]
                    pending[i, r, f] += lag_behind
                    if pending[i, r, f] + lag_behind > 1:
                        pending[i, r, f] = max(pending[i, r, f], np.float32(1))
    catch_up(network, lag, layout, constants, np.float32(1))
    return eta


@compiled(forceinline=True)
def _spare(layout: Any) -> Any:
    """Room for the entries of a block, and for three numbers of each of its samples."""
    return np.empty((3, np.max(layout.start[1:] - layout.start[:-1])), np.float32)


@compiled(forceinline=True)
def _catch_up(network: Any, lag: Any, layout: Any, constants: Any, place: Any, which: Any, spare: Any) -> None:
    """Bring those blocks at `place` (class, feature) up to date that lag behind, of the neurons `which` (m,)."""
    i, f = place
    first, last = layout.begin[f], layout.begin[f + 1]
    samples, drive, change = layout.sample[first:last], spare[1, : last - first], spare[2, : last - first]
    begun = False
    for r in range(len(which)):
        if not which[r] or not lag.pending[i, r, f] > 0:
            continue
        if not begun:
            _gather(lag.drive[i], samples, drive)
            for p in range(len(change)):
                change[p] = 0
            begun = True
        block, seen = _block(network, layout, i, r, f), lag.seen[i, r, first:last]
        weight, top, mass = _bring(block, drive, seen, change, spare[0], constants)
        if f < network.a.shape[2]:
            network.a[i, r, f] = weight
        network.top[i, r, f], network.mass[i, r, f], lag.pending[i, r, f] = top, mass, 0
    if begun:
        for p in range(len(samples)):
            network.sums[i, samples[p]] += change[p]


@compiled(nogil=True)
def catch_up(network: Network, lag: Lag, layout: Layout, constants: Constants, due: Any) -> None:
    """Bring the blocks of one member up to date that are pending by `due` or more."""
    classes, neurons, features = network.a.shape
    spare, which = _spare(layout), np.empty(neurons, np.bool_)
    for i in range(classes):
        for f in range(features + 1):
            for r in range(neurons):
                which[r] = lag.pending[i, r, f] >= due
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
                network.top[i, r, f], network.mass[i, r, f] = _answer(block, change, q)
            for p in range(len(samples)):
                sums[i, samples[p]] += change[p]
    network.outputs[:] = constants.varrho * sums


@compiled(forceinline=True)
def _answer(block: Any, into: Any, q: Any) -> Any:
    """Add sReLU(u) of a block's entries to its samples' numbers; its largest u and sum_e z_e sReLU'(u_e)."""
    mass, top = np.float32(0), np.int32(0)
    for run in range(len(block.edges) - 1):
        part = slice(block.edges[run], block.edges[run + 1])
        g, z = block.g[part], block.z[part]
        for p in range(len(g)):
            u = z[p] * block.a + g[p]
            into[p] += srelu(u, q)
            mass += z[p] * srelu_slope(u, q)
            top = max(top, _bits(u))
    return np.int32(top).view(np.float32), mass


@compiled(nogil=True)
def answer(a: Any, g: Any, f: Any, outputs: Any, layout: Layout, constants: Constants) -> None:
    """Add to the outputs (N,) of a class what a neuron with the coordinate `a` of feature f answers to its patches."""
    samples = layout.sample[layout.begin[f] : layout.begin[f + 1]]
    block = _Block(a, g, layout.weight[layout.start[f] : layout.start[f + 1]], layout.edges[f, : layout.copies[f] + 1])
    into = np.zeros(len(samples), np.float32)
    _answer(block, into, constants.q)
    for p in range(len(samples)):
        outputs[samples[p]] += constants.varrho * into[p]
