"""Compiled loops of the limit engine, over blocks: one neuron's entries (sample, patch) of one feature.

A step moves a neuron's coordinate a of a feature and the products g of its patches' noise by

    da = -sum_e z_e c_e,    dg_e = -nu^2 c_e,    c_e = varrho / N  D_n(e)  sReLU'(z_e a + g_e),

where D_n, the drive, is dloss_n/dF times the step's flow time. In the tensor-power race and after it nearly every block
stands almost still: about one in thirty has to be touched in a step. The others only let their drive add up, and are
brought up to date before they would have moved by `LAZY_SHARE` of themselves or an output by `LAZY_OUTPUT`; what they
then move by is the drive since they were last seen, so that nothing is lost. The last block of a neuron holds its
patches without a feature, with z = 0.
"""

from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np

# Floating-point freedom that vector code needs; infinities keep their meaning, and divergence is caught on the loss.
FAST = {"reassoc", "contract", "nsz", "arcp", "nnan"}


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
def _bits(u: Any) -> Any:
    """Floats from 0 up are ordered as their bits are, and integers have a vectorised maximum."""
    return np.float32(max(u, np.float32(0))).view(np.int32)


@_compiled()
def _gradient(a: Any, g: Any, z: Any, sample: Any, slopes: Any, spare: Any, q: Any) -> Any:
    """A block's sum_e z_e c_e and its largest |c_e|, c without the factor varrho / N."""
    total, peak = np.float32(0), np.int32(0)
    for e in range(len(g)):  # apart from the next loop, which is vectorised without it
        spare[e] = slopes[sample[e]]
    for e in range(len(g)):
        c = spare[e] * _slope(z[e] * a + g[e], q)
        total += z[e] * c
        peak = max(peak, _bits(abs(c)))
    return total, np.int32(peak).view(np.float32)


@_compiled()
def _bring(
    a: Any, g: Any, seen: Any, z: Any, sample: Any, drive: Any, factor: Any, nu2: Any, out: Any, spare: Any, q: Any
) -> Any:
    """Move a block by the drive since it was `seen`, and add what that changes to `out` (N,).

    Returns the new coordinate, the largest u = z a + g (0 if none is above) and sum_e z_e sReLU'(u_e).
    """
    total, mass, top = np.float32(0), np.float32(0), np.int32(0)
    for e in range(len(g)):
        now = drive[sample[e]]
        spare[e] = now - seen[e]
        seen[e] = now
    for e in range(len(g)):
        c = factor * spare[e] * _slope(z[e] * a + g[e], q)
        total += z[e] * c
        spare[e] = c
    new = a - total
    for e in range(len(g)):
        old = z[e] * a + g[e]
        g[e] -= nu2 * spare[e]
        u = z[e] * new + g[e]
        spare[e] = _value(u, q) - _value(old, q)
        mass += z[e] * _slope(u, q)
        top = max(top, _bits(u))
    for e in range(len(g)):
        out[sample[e]] += spare[e]
    return new, np.int32(top).view(np.float32), mass


@_compiled()
def _rate(
    a: Any, top: Any, mass: Any, weighted: Any, largest: Any, copies: Any, zmax: Any,
    factor: Any, nu2: Any, varrho: Any, sigma: Any, share: Any, tolerance: Any, q: Any,
) -> Any:  # fmt: skip
    """An upper bound of how fast a block that is not touched goes stale: 1 / the time in which it is due."""
    if not top > 0:
        return np.float32(0)
    steepest = _slope(top, q)
    moved = factor * min(steepest * weighted, mass * largest)  # |da/dt|
    noise = factor * nu2 * steepest * largest  # |dg/dt|
    relative = max(moved / max(abs(a), sigma), noise / top) / share
    return max(relative, varrho * copies * steepest * (zmax * moved + noise) / tolerance)


@_compiled(nogil=True)
def advance(
    a: Any, g: Any, seen: Any, slopes: Any, remaining: Any, last: Any,
    sample: Any, z: Any, start: Any, weight_in: Any, shows: Any, copies: Any, zmax: Any,
    sums: Any, outputs: Any, time_integral: Any, drive: Any, top: Any, mass: Any, pending: Any,
    q: Any, varrho: Any, nu2: Any, trust: Any, cap: Any, noise_trust: Any, sigma: Any, share: Any, tolerance: Any,
) -> Any:  # fmt: skip
    """One member's step: its size from the blocks that have to move, then those blocks; returns its flow time.

    `last` is the step before, which says what is likely to be due; `pending` (k, m, 2k + 1) how far towards being due
    the others are.
    """
    classes, neurons, features = a.shape
    count = outputs.shape[1]
    factor = varrho / np.float32(count)
    spare = np.empty(np.max(start[1:] - start[:-1]), np.float32)
    rates = np.empty(pending.shape, np.float32)
    moves = np.zeros(pending.shape, np.bool_)
    weighted, largest = np.empty(features + 1, np.float32), np.empty(features + 1, np.float32)
    for i in range(classes):
        weighted[:] = 0
        largest[:] = 0
        for n in range(count):
            size = abs(slopes[i, n])
            if size > 0:
                for f in range(features + 1):
                    weighted[f] += size * weight_in[n, f]
                    largest[f] = max(largest[f], size * shows[n, f])
        for r in range(neurons):
            for f in range(features + 1):
                weight = a[i, r, f] if f < features else sigma
                rates[i, r, f] = _rate(
                    weight, top[i, r, f], mass[i, r, f], weighted[f], largest[f], copies[f], zmax[f],
                    factor, nu2, varrho, sigma, share, tolerance, q,
                )  # fmt: skip

    steepest, eta = np.float32(0), last
    for _ in range(2):  # what is likely to move sets the step, and the step says what else has to: it only shrinks
        for i in range(classes):
            for r in range(neurons):
                for f in range(features + 1):
                    if moves[i, r, f] or not pending[i, r, f] + eta * rates[i, r, f] > 1:
                        continue
                    moves[i, r, f] = True
                    part = slice(start[f], start[f + 1])
                    weight = a[i, r, f] if f < features else np.float32(0)
                    if pending[i, r, f] > 0:
                        weight, top[i, r, f], mass[i, r, f] = _bring(
                            weight, g[i, r, part], seen[i, r, part], z[part], sample[part], drive[i], factor, nu2,
                            sums[i], spare, q,
                        )  # fmt: skip
                        pending[i, r, f] = 0
                        if f < features:
                            a[i, r, f] = weight
                    total, peak = _gradient(weight, g[i, r, part], z[part], sample[part], slopes[i], spare, q)
                    clamp = min(max(abs(weight), sigma), cap)
                    steepest = max(steepest, factor * max(abs(total) / clamp, noise_trust * nu2 * peak))
        eta = min(trust / steepest, remaining) if steepest > 0 else remaining
    if not steepest > 0 and remaining > np.float32(1e38):
        return np.float32(0)  # without a gradient and without a limit there is nowhere to go

    for i in range(classes):
        for n in range(count):
            time_integral[i, n] += np.float64(eta) * np.float64(slopes[i, n])
            drive[i, n] = time_integral[i, n]
        for r in range(neurons):
            for f in range(features + 1):
                if moves[i, r, f]:
                    pending[i, r, f] = 1
                else:
                    pending[i, r, f] += eta * rates[i, r, f]
    catch_up(
        a, g, seen, sample, z, start, sums, outputs, drive, top, mass, pending, np.float32(1), q, varrho, nu2
    )  # fmt: skip
    return eta


@_compiled(nogil=True)
def catch_up(
    a: Any, g: Any, seen: Any, sample: Any, z: Any, start: Any, sums: Any, outputs: Any, drive: Any, top: Any,
    mass: Any, pending: Any, due: Any, q: Any, varrho: Any, nu2: Any,
) -> None:  # fmt: skip
    """Bring the blocks of one member up to date that are `pending` by `due` or more."""
    classes, neurons, features = a.shape
    factor = varrho / np.float32(outputs.shape[1])
    spare = np.empty(np.max(start[1:] - start[:-1]), np.float32)
    for i in range(classes):
        for r in range(neurons):
            for f in range(features + 1):
                if pending[i, r, f] > 0 and pending[i, r, f] >= due:
                    part = slice(start[f], start[f + 1])
                    weight, top[i, r, f], mass[i, r, f] = _bring(
                        a[i, r, f] if f < features else np.float32(0), g[i, r, part], seen[i, r, part], z[part],
                        sample[part], drive[i], factor, nu2, sums[i], spare, q,
                    )  # fmt: skip
                    if f < features:
                        a[i, r, f] = weight
                    pending[i, r, f] = 0
        for n in range(outputs.shape[1]):
            outputs[i, n] = varrho * sums[i, n]


@_compiled(nogil=True)
def forward(
    a: Any, g: Any, sample: Any, z: Any, start: Any, sums: Any, outputs: Any, top: Any, mass: Any, q: Any, varrho: Any
) -> None:
    """F of one member, (k, N), from its coordinates and every patch's g, and what its blocks' rates are bounded by."""
    classes, neurons, features = a.shape
    for i in range(classes):
        sums[i] = 0
        for r in range(neurons):
            for f in range(features + 1):
                weight = a[i, r, f] if f < features else np.float32(0)
                peak, total = np.int32(0), np.float32(0)
                for e in range(start[f], start[f + 1]):
                    u = z[e] * weight + g[i, r, e]
                    sums[i, sample[e]] += _value(u, q)
                    total += z[e] * _slope(u, q)
                    peak = max(peak, _bits(u))
                top[i, r, f] = np.int32(peak).view(np.float32)
                mass[i, r, f] = total
        for n in range(sums.shape[1]):
            outputs[i, n] = varrho * sums[i, n]
