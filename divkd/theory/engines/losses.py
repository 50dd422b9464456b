"""What a network minimises, compiled: per-sample losses on the labels, and the slopes of the whole objective.

dL/dF = s (p - 1_y) - push, p = softmax(s F): cross-entropy on the labels and, by the rule's kind,

    FIXED        push = w
    TEMPERATURE  push = T (w - q), q = softmax(F / T)
    CLIPPED      push = [w - q]^+ 1(F < c), q = softmax(min(F / c, 1) / tau)

`divkd.theory.distillation` says which losses these are. A class's samples lie side by side, so that loops over samples
are vector code.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from divkd.theory.engines.entries import compiled

LABELS, FIXED, TEMPERATURE, CLIPPED = range(4)

# exp(x) = 2^n exp(r), |r| <= log(2) / 2, and exp(r) by the polynomial of degree 7 that is best in relative error, after
# Moshier, Cephes (expf.c); n log 2 is taken off in two parts, of which the first is exact.
LOG2E, LOG2_HIGH, LOG2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
SERIES = tuple(map(np.float32, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
                                5.0000001201e-1)))  # fmt: skip
# Below it a probability, or its product with slopes of sReLU, would be a subnormal number, on which a processor spends
# fourteen times as long.
FAINTEST = np.float32(-60)


class Rule(NamedTuple):
    """One network's objective. Scalars, `wanted` and outputs are of one precision."""

    kind: Any
    labels: Any  # (N,)
    scale: Any  # s
    wanted: Any  # w (k, N), or (0, 0)
    temperature: Any  # T
    clip: Any  # c
    tau: Any


def exponential(x: Any) -> Any:
    """exp(max(x, FAINTEST)) of x <= 0, for vector code in float32: relative error 2e-7."""
    return np.exp(np.maximum(x, x.dtype.type(FAINTEST)))


@overload(exponential, inline="always")
def _exponential(x: Any) -> Any:
    def in_double(x: Any) -> Any:
        return math.exp(max(x, np.float64(FAINTEST)))

    def in_single(x: Any) -> Any:
        x = max(x, FAINTEST)
        n = np.floor(x * LOG2E + np.float32(0.5))
        r = x - n * LOG2_HIGH - n * LOG2_LOW
        y = SERIES[0]
        y = y * r + SERIES[1]
        y = y * r + SERIES[2]
        y = y * r + SERIES[3]
        y = y * r + SERIES[4]
        y = y * r + SERIES[5]
        y = y * r * r + r + np.float32(1)
        return y * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)

    return in_double if x == types.float64 else in_single


@compiled(nogil=True)
def answer(rule: Rule, outputs: Any, slopes: Any, losses: Any) -> None:
    """Of one network's `outputs` F (k, N): its samples' `losses` (N,) and `slopes` dloss/dF (k, N), in place."""
    classes, count = outputs.shape
    zero, one = outputs.dtype.type(0), outputs.dtype.type(1)  # integers would make all of it double precision
    top, first, second = np.empty((3, count), outputs.dtype)
    _largest(outputs, top)
    first[:] = 0
    for i in range(classes):
        for n in range(count):
            slopes[i, n] = exponential(rule.scale * (outputs[i, n] - top[n]))
            first[n] += slopes[i, n]
    for n in range(count):
        losses[n] = np.log(first[n]) - rule.scale * (outputs[rule.labels[n], n] - top[n])
        first[n] = rule.scale / first[n]
    for i in range(classes):
        for n in range(count):
            slopes[i, n] *= first[n]
    for n in range(count):
        slopes[rule.labels[n], n] -= rule.scale
    if rule.kind == FIXED:
        for i in range(classes):
            for n in range(count):
                slopes[i, n] -= rule.wanted[i, n]
    elif rule.kind == TEMPERATURE:
        factor = one / rule.temperature
        second[:] = 0
        for i in range(classes):
            for n in range(count):
                second[n] += exponential(factor * (outputs[i, n] - top[n]))
        for n in range(count):
            second[n] = rule.temperature / second[n]
        for i in range(classes):
            for n in range(count):
                soft = second[n] * exponential(factor * (outputs[i, n] - top[n]))
                slopes[i, n] += soft - rule.temperature * rule.wanted[i, n]
    elif rule.kind == CLIPPED:
        factor = one / rule.tau
        second[:] = 0
        for n in range(count):
            top[n] = min(top[n] / rule.clip, one)
        for i in range(classes):
            for n in range(count):
                second[n] += exponential(factor * (min(outputs[i, n] / rule.clip, one) - top[n]))
        for n in range(count):
            second[n] = one / second[n]
        for i in range(classes):
            for n in range(count):
                soft = second[n] * exponential(factor * (min(outputs[i, n] / rule.clip, one) - top[n]))
                lacking = max(rule.wanted[i, n] - soft, zero)
                slopes[i, n] -= lacking if outputs[i, n] < rule.clip else zero


@compiled(forceinline=True)
def _largest(outputs: Any, into: Any) -> None:
    """max_i F_i (N,)."""
    into[:] = outputs[0]
    for i in range(1, len(outputs)):
        for n in range(len(into)):
            into[n] = max(into[n], outputs[i, n])
