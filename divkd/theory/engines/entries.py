"""Compiled loops over the entries of one block: a neuron's patches that show one feature.

A block's entries are runs over the same samples (see `divkd.theory.data.Layout`), so that what belongs to a sample, its
drive or its sum, is read and written once for all neurons, and loops over a run are vector code.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numba as nb
import numpy as np

# Floating-point freedom that vector code needs; infinities keep their meaning, and divergence is caught on the loss.
FAST = {"reassoc", "contract", "nsz", "arcp", "nnan"}


def compiled(**options: Any) -> Callable[[Any], Any]:
    """As all of the engine's loops are compiled."""
    return nb.njit(cache=True, fastmath=FAST, error_model="numpy", **options)  # type: ignore[no-any-return]


class Block(NamedTuple):
    """One neuron's entries of one feature, in runs."""

    a: Any  # the coordinate, 0 of patches without a feature
    g: Any  # (e,) products with the noise of patches
    z: Any  # (e,)
    edges: Any  # (runs + 1,) where each begins, and the end


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
def bits(u: Any) -> Any:
    """Floats from 0 up are ordered as their bits are, and integers have a vectorised maximum."""
    return np.float32(max(u, np.float32(0))).view(np.int32)


# Inlined, these do not count the references to a record's arrays: a tenth of a small block's time.
@compiled(forceinline=True)
def gather(values: Any, samples: Any, into: Any) -> None:
    """The `values` (N,) of some samples."""
    for p in range(len(samples)):
        into[p] = values[samples[p]]


@compiled(forceinline=True)
def gradient(block: Any, slopes: Any, q: Any) -> Any:
    """A block's sum_e z_e c_e and its largest |c_e|, c without the factor varrho / N, of its samples' `slopes`."""
    total, peak = np.float32(0), np.int32(0)
    for run in range(len(block.edges) - 1):
        part = slice(block.edges[run], block.edges[run + 1])
        g, z = block.g[part], block.z[part]
        for p in range(len(g)):
            c = slopes[p] * srelu_slope(z[p] * block.a + g[p], q)
            total += z[p] * c
            peak = max(peak, bits(abs(c)))
    return total, np.int32(peak).view(np.float32)


@compiled(forceinline=True)
def bring(block: Any, drive: Any, seen: Any, change: Any, spare: Any, constants: Any) -> Any:
    """Move a block by its samples' `drive` since it was `seen`, and add what that does to their sums to `change`.

    Returns the new coordinate, the largest u = z a + g (0 if none is above), sum_e z_e sReLU'(u_e), and by how much an
    entry's g and its sReLU have moved at most.
    """
    q, factor, nu2 = constants.q, constants.factor, constants.nu2
    total, mass, top, noise, most = np.float32(0), np.float32(0), np.int32(0), np.int32(0), np.int32(0)
    for p in range(len(seen)):
        seen[p] = factor * (drive[p] - seen[p])
    for run in range(len(block.edges) - 1):
        part = slice(block.edges[run], block.edges[run + 1])
        g, z, c = block.g[part], block.z[part], spare[part]
        for p in range(len(g)):
            c[p] = seen[p] * srelu_slope(z[p] * block.a + g[p], q)
            total += z[p] * c[p]
            noise = max(noise, bits(abs(c[p])))
    new = block.a - total
    for run in range(len(block.edges) - 1):
        part = slice(block.edges[run], block.edges[run + 1])
        g, z, c = block.g[part], block.z[part], spare[part]
        for p in range(len(g)):
            old = z[p] * block.a + g[p]
            g[p] -= nu2 * c[p]
            u = z[p] * new + g[p]
            moved = srelu(u, q) - srelu(old, q)
            change[p] += moved
            mass += z[p] * srelu_slope(u, q)
            top = max(top, bits(u))
            most = max(most, bits(abs(moved)))
    for p in range(len(seen)):
        seen[p] = drive[p]
    largest = np.int32(top).view(np.float32), nu2 * np.int32(noise).view(np.float32), np.int32(most).view(np.float32)
    return new, mass, *largest


@compiled(forceinline=True)
def answer(block: Any, into: Any, q: Any) -> Any:
    """Add sReLU(u) of a block's entries to its samples' numbers; its largest u and sum_e z_e sReLU'(u_e)."""
    mass, top = np.float32(0), np.int32(0)
    for run in range(len(block.edges) - 1):
        part = slice(block.edges[run], block.edges[run + 1])
        g, z = block.g[part], block.z[part]
        for p in range(len(g)):
            u = z[p] * block.a + g[p]
            into[p] += srelu(u, q)
            mass += z[p] * srelu_slope(u, q)
            top = max(top, bits(u))
    return np.int32(top).view(np.float32), mass
