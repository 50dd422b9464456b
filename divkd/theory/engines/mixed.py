"""Compiled loops of the limit engine where every patch shows a little of every feature, and no block stands alone.

With x_(n,p) = sum_f X_(n,p),f v_f + xi_(n,p), X the weight of the patch's own feature and what is mixed in of all V k,

    u_e = sum_f X_ef a_f + g_e,    du_e = -eta (sum_f X_ef da_f + nu^2 c_e),    da_f = sum_e X_ef c_e,
    c_e = varrho / N  dloss_n(e)/dF  sReLU'(u_e),

so that a step costs two products with X, V k numbers an entry, where `blocks` has one, and nothing can lag behind.
Entries are patches in the order of their samples; samples are taken `CHUNK` at a time, which stay in cache.
"""

from typing import Any

import numpy as np

from divkd.theory.engines.blocks import Constants
from divkd.theory.engines.entries import compiled, srelu, srelu_slope

CHUNK = 8


@compiled(nogil=True)
def add_features(u: Any, a: Any, coefficients: Any) -> None:
    """u_e += sum_f X_ef a_f of one member, u (k, m, E), a (k, m, V k), X (V k, E)."""
    for i, r, f in np.ndindex(a.shape):
        for e in range(u.shape[2]):
            u[i, r, e] += coefficients[f, e] * a[i, r, f]


@compiled(nogil=True)
def forward(u: Any, outputs: Any, constants: Constants) -> None:
    """F (k, N) of one member from its u."""
    neurons, patches = u.shape[1], u.shape[2] // outputs.shape[1]
    for i, n in np.ndindex(outputs.shape):
        total = np.float64(0)
        for r in range(neurons):
            part = np.float32(0)
            for e in range(n * patches, (n + 1) * patches):
                part += srelu(u[i, r, e], constants.q)
            total += part
        outputs[i, n] = constants.varrho * total


@compiled(forceinline=True)
def _drive(u: Any, slopes: Any, q: Any, into: Any) -> Any:
    """c / (varrho / N) of the entries `u` of samples with dloss/dF `slopes`; returns its largest size."""
    patches, peak = len(u) // len(slopes), np.float32(0)
    for n in range(len(slopes)):
        for e in range(n * patches, (n + 1) * patches):
            into[e] = slopes[n] * srelu_slope(u[e], q)
            peak = max(peak, abs(into[e]))
    return peak


@compiled(nogil=True)
def advance(
    a: Any, u: Any, outputs: Any, coefficients: Any, constants: Constants, gamma: Any, slopes: Any, remaining: Any
) -> Any:
    """One member's step; returns its flow time.

    The trust region is that of `blocks.advance`, but for what feature noise hides: a coordinate below gamma times the
    neuron's largest counts as large as that. As it is, it would be driven through 0 in steps of its own small size.
    """
    classes, neurons, features = a.shape
    count, q, factor = outputs.shape[1], constants.q, constants.factor
    patches = u.shape[2] // count
    gradient, spare = np.zeros(a.shape, np.float32), np.empty(CHUNK * patches, np.float32)
    peak = np.float32(0)
    for first in range(0, count, CHUNK):
        last = min(first + CHUNK, count)
        low, high = first * patches, last * patches
        for i in range(classes):
            for r in range(neurons):
                c = spare[: high - low]
                peak = max(peak, _drive(u[i, r, low:high], slopes[i, first:last], q, c))
                for f in range(features):
                    x, total = coefficients[f, low:high], np.float32(0)
                    for e in range(len(c)):
                        total += x[e] * c[e]
                    gradient[i, r, f] += total
    steepest = factor * constants.noise_trust * constants.nu2 * peak
    for i in range(classes):
        for r in range(neurons):
            hidden = max(gamma * np.max(np.abs(a[i, r])), constants.sigma)
            for f in range(features):
                clamp = min(max(abs(a[i, r, f]), hidden), constants.cap)
                steepest = max(steepest, factor * abs(gradient[i, r, f]) / clamp)
    if not steepest > 0:
        return np.float32(0) if remaining > np.float32(1e38) else remaining
    eta = min(constants.trust / steepest, remaining)
    scale = eta * factor
    for first in range(0, count, CHUNK):
        last = min(first + CHUNK, count)
        low, high = first * patches, last * patches
        for i in range(classes):
            for r in range(neurons):
                c, part = spare[: high - low], u[i, r, low:high]
                _drive(part, slopes[i, first:last], q, c)
                for e in range(len(c)):
                    part[e] -= scale * constants.nu2 * c[e]
                for f in range(features):
                    x, move = coefficients[f, low:high], scale * gradient[i, r, f]
                    for e in range(len(c)):
                        part[e] -= x[e] * move
    for i, r, f in np.ndindex(a.shape):
        a[i, r, f] -= scale * gradient[i, r, f]
    forward(u, outputs, constants)
    return eta
