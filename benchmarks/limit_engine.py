"""Cost of one step of the limit engine, in ns per coordinate, beside a copy of the state and a plain NumPy step.

A coordinate is one scalar g of one neuron and one training patch (M k m N P of them). The copy reads and writes each of
them once: the floor of an engine that touches all of them in every step, which this one does in its first steps alone.
Its steps are those of whole trainings, until every member fits, taken one by one, with the loss; the mean counts, as
few steps touch much. Measurements are interleaved, because a machine's speed drifts.
Run: python benchmarks/limit_engine.py
"""

import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from divkd.theory import descent
from divkd.theory.config import PRESETS
from divkd.theory.data import NOISE, Samples, training_samples
from divkd.theory.engines import limit

REPEATS = 3


def numpy_step(
    feature: np.ndarray, z: np.ndarray, a: np.ndarray, g: np.ndarray, slopes: np.ndarray, factor: float, nu2: float
) -> np.ndarray:
    """Gradient, update and forward pass of one member in plain array operations, samples first: (k, N) outputs."""
    classes, neurons = a.shape[:2]
    column = np.where(feature == NOISE, 0, feature)
    coefficient = np.clip(z * a[:, :, column] + g, 0, 1) ** 2 * (factor * slopes.T[:, None, :, None])
    weighted = (z * coefficient).reshape(classes * neurons, -1)
    gradient = np.stack([np.bincount(column.ravel(), row, a.shape[2]) for row in weighted]).reshape(a.shape)
    step = np.float32(0.3 / np.abs(gradient).max())
    g -= step * np.float32(nu2) * coefficient
    a -= step * gradient.astype(np.float32)
    u = z * a[:, :, column] + g
    value = np.clip(u, 0, 1) ** 3 / 3 + np.maximum(u - 1, 0)
    outputs: np.ndarray = value.sum((1, 3))
    return outputs


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    config = PRESETS["default"]
    samples: Samples = training_samples(config, 0)
    loss = descent.cross_entropy(samples.labels)
    networks = limit.create(config, samples, 0, range(config.members))
    coordinates = networks.noise.size

    def engine() -> tuple[float, list[float]]:
        """The first step, and all steps of a training."""
        networks = limit.create(config, samples, 0, range(config.members))
        times: list[float] = []
        run = networks.run

        def timed_run(*arguments: Any) -> Any:
            began = time.perf_counter()
            trace = run(*arguments)
            times.append(time.perf_counter() - began)
            return trace

        networks.run = timed_run  # type: ignore[method-assign, assignment]
        for _ in descent.descend(networks, loss, max_steps=config.max_steps):
            pass
        return times[0], times

    source, target = np.ones(coordinates, np.float32), np.empty(coordinates, np.float32)
    parts = [slice(part.start, part.stop) for part in _parts(coordinates, os.cpu_count() or 1)]
    pool = ThreadPoolExecutor(len(parts))

    def copy() -> float:
        return timed(lambda: list(pool.map(lambda part: np.copyto(target[part], source[part]), parts)))

    a = networks.weights[0].copy()
    g = np.zeros((*a.shape[:2], *samples.feature.shape), np.float32)
    factor = config.logit_scale / len(samples)
    slopes = loss(networks.outputs())[1][0]

    def plain() -> float:
        step = timed(lambda: numpy_step(samples.feature, samples.weight, a, g, slopes, factor, config.noise**2))
        return step * config.members  # one member measured, as the whole would need 1 GB of temporaries

    for work in (engine, copy):
        work()
    times: dict[str, list[float]] = {"all steps": [], "first step": [], "copy": [], "plain NumPy": []}
    for _ in range(REPEATS):
        first, steps = engine()
        times["first step"].append(first)
        times["all steps"] += steps
        times["copy"] += [copy() for _ in range(5)]
        times["plain NumPy"].append(plain())
    pool.shutdown()

    size = f"{coordinates / 1e6:.1f} million coordinates, {config.members} members"
    print(f"{platform.machine()}, {os.cpu_count()} cores; {size}")
    print(f"{'':14}{'mean, ms':>11}{'ns/coordinate':>15}{'quartiles, ms':>20}{'n':>6}")
    for name, values in times.items():
        low, _, high = statistics.quantiles(values, n=4)
        mean = statistics.mean(values)
        spread = f"{low * 1e3:.1f} to {high * 1e3:.1f}"
        print(f"{name:14}{mean * 1e3:11.2f}{mean / coordinates * 1e9:15.3f}{spread:>20}{len(values):6d}")
    bandwidth = 8 * coordinates / statistics.median(times["copy"]) / 1e9
    print(f"copy bandwidth {bandwidth:.1f} GB/s (read plus write)")


def _parts(count: int, pieces: int) -> list[range]:
    edges = np.linspace(0, count, pieces + 1).astype(int).tolist()
    return [range(low, high) for low, high in itertools.pairwise(edges)]


if __name__ == "__main__":
    main()
