"""Inputs without views: does an ensemble help where there is nothing to collect?

Follows the control of Allen-Zhu and Li (arXiv 2012.09816) that ensembles do not gain on Gaussian-like inputs, although
their members' outputs vary. A cell is inputs x, N(0, I_d) or a mixture of Gaussians, and labels

    y = argmax_i f_i(x),   f linear, or a network of `HIDDEN` ReLU units, drawn once a seed,

with or without a margin (the inputs whose two largest f are nearest are left out, in training and in testing) and with
or without label noise (a share of the training labels is drawn anew). Members differ in their start and in the order of
their samples.
"""

import itertools
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from divkd.shared.errors import RunError
from divkd.shared.jobs import Job, Workers
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.seeds import rng
from divkd.shared.stats import interval, summarise
from divkd.theory.evaluate import errors_by_members, windows
from divkd.theory.worlds.config import GaussianConfig

HIDDEN = 16  # of the target
SPREAD, FAR = 0.5, 0.9  # of the mixture: its components' standard deviation, and their centres' norm over sqrt(d)
BATCH, LR, MOMENTUM = 100, 3.2, 0.9  # LR is over the width


class Cell(NamedTuple):
    """One kind of inputs and labels."""

    inputs: str
    target: str
    margin: bool
    noise: bool

    @property
    def name(self) -> str:
        """In words."""
        more = [word for word, is_so in (("margin", self.margin), ("label noise", self.noise)) if is_so]
        return ", ".join([self.inputs, self.target, *more])


CELLS = [
    Cell(inputs, target, margin, noise)
    for inputs in ("gaussian", "mixture")
    for target in ("linear", "network")
    for margin in (False, True)
    for noise in (False, True)
]


def run_gaussian(config: GaussianConfig, run: Run, workers: Workers) -> dict[str, Any]:
    """Train an ensemble a seed and cell, and return the content of results.json.

    rows      for each seed and cell (`case`): train_acc of one member, single_acc and ensemble_acc of one (in the mean)
              and of all M on fresh samples; gain, their difference; acc_by_members; `variances` of ensembles of 1..M/2
    cells     over seeds: {mean, std, n, low, high} of the gain with its standard error, se; {mean, std, n} of the
              accuracies, and of variance_left, that of an ensemble of K as a share of one member's
    summary   median and largest mean gain over cells
    """
    began = time.perf_counter()
    config.validate()
    parts = {
        (seed, cell): f"seed{seed}-{cell.name.replace(', ', '-').replace(' ', '-')}-of{config.members}"
        for seed in config.seeds
        for cell in CELLS
    }
    jobs = [Job(name, partial(measure, config, *part), networks=config.members) for part, name in parts.items()]
    records = workers.records(jobs, run)
    rows = {part: records[name] for part, name in parts.items()}
    cells = [_cell(cell, [rows[seed, cell] for seed in config.seeds]) for cell in CELLS]
    gains = {cell["name"]: cell["gain"]["mean"] for cell in cells}
    largest = max(gains, key=lambda name: gains[name])
    return {
        "command": "simulate gaussian",
        "config": {name: getattr(config, name) for name in config.__dataclass_fields__},
        "seeds": list(config.seeds),
        "rows": list(rows.values()),
        "cells": cells,
        "summary": {
            "median_gain": float(np.median(list(gains.values()))),
            "largest": {"cell": largest, "gain": gains[largest]},
        },
        "seconds": time.perf_counter() - began,
    }


def _cell(cell: Cell, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    gain = interval(row["gain"] for row in rows)
    left = [np.array(row["variance"]) / row["variance"][0] for row in rows if row["variance"] and row["variance"][0]]
    return {
        "name": cell.name,
        **cell._asdict(),
        "gain": gain | {"se": None if gain["std"] is None else gain["std"] / len(rows) ** 0.5},
        **{key: summarise(row[key] for row in rows) for key in ("single_acc", "ensemble_acc", "train_acc")},
        "variance_left": [summarise(values) for values in zip(*left, strict=True)],
    }


def measure(config: GaussianConfig, seed: int, cell: Cell, _: Run, progress: Progress) -> dict[str, Any]:
    """The row of a seed and cell. Raises `RunError` where a network diverges."""
    x, labels = draw(config, cell, seed, "train")
    test, truth = draw(config, cell, seed, "test")
    with progress.task(f"seed{seed}-{cell.name}", config.epochs, networks=config.members) as task:
        weights = start(config, seed, range(config.members))
        for epoch in range(config.epochs):
            train_epoch(config, weights, x, labels, seed, epoch)
            task.update(epoch + 1)
    fitted, outputs = forward(weights, x)[1], forward(weights, test)[1]
    if not np.isfinite(outputs).all():
        raise RunError(f"a network of the cell {cell.name} diverged; lower --width")
    right = 1 - errors_by_members(outputs, truth)
    return {
        "case": cell.name,
        "seed": seed,
        "gain": float(right[-1] - right[0]),
        "single_acc": float(right[0]),
        "ensemble_acc": float(right[-1]),
        "train_acc": float(1 - errors_by_members(fitted, labels)[0]),
        "acc_by_members": right.tolist(),
        "variance": variances(outputs).tolist(),
    }


def draw(config: GaussianConfig, cell: Cell, seed: int, role: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (N, d) float32 and labels (N,), of `role` train or test: the seed's target, and inputs of their own."""
    d, k = config.dimension, config.classes
    world, generator = rng(seed, "gaussian/world"), rng(seed, f"gaussian/{role}/{cell.inputs}")
    centres = world.standard_normal((config.components, d))
    linear = world.standard_normal((d, k))
    first, second = world.standard_normal((d, HIDDEN)), world.standard_normal((HIDDEN, k))

    count = config.train_samples if role == "train" else config.test_samples
    drawn = round(count / (1 - config.margin)) if cell.margin else count
    x = generator.standard_normal((drawn, d))
    if cell.inputs == "mixture":
        centres *= FAR * d**0.5 / np.linalg.norm(centres, axis=1, keepdims=True)
        x = SPREAD * x + centres[generator.integers(config.components, size=drawn)]
    f = x @ linear if cell.target == "linear" else np.maximum(x @ first, 0) @ second
    second_best, best = np.partition(f, k - 2)[:, -2:].T
    kept = np.sort(np.argsort(second_best - best, kind="stable")[:count])  # in the order in which they were drawn
    labels = f.argmax(1)[kept]
    if cell.noise and role == "train":
        anew = generator.random(count) < config.label_noise
        labels = np.where(anew, generator.integers(k, size=count), labels)
    return x[kept].astype(np.float32), labels


def start(config: GaussianConfig, seed: int, members: Sequence[int]) -> list[np.ndarray]:
    """[W (M, d + 1, h), V (M, h + 1, k)], float32, biases in the last rows: N(0, 2 / d), N(0, 1 / h), and 0."""
    shapes = (config.dimension, config.width, 2.0), (config.width, config.classes, 1.0)
    weights = []
    for layer, (rows, columns, scale) in enumerate(shapes):
        drawn = [rng(seed, f"gaussian/init{layer}", m).standard_normal((rows, columns)) for m in members]
        scaled = np.stack(drawn) * (scale / rows) ** 0.5
        weights.append(np.pad(scaled, ((0, 0), (0, 1), (0, 0))).astype(np.float32))
    return weights


def forward(weights: Sequence[np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """relu(x W) (M, N, h), and outputs relu(x W) V (M, N, k); x is (N, d), or (M, N, d) with one's own for each."""
    first, second = weights
    hidden = np.maximum(x @ first[:, :-1] + first[:, -1:], 0)
    return hidden, hidden @ second[:, :-1] + second[:, -1:]


def gradients(weights: Sequence[np.ndarray], x: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """d/dW and d/dV of each member's mean cross-entropy on its x (M, B, d) and labels (M, B)."""
    hidden, outputs = forward(weights, x)
    slopes = np.exp(outputs - outputs.max(2, keepdims=True))
    slopes /= slopes.sum(2, keepdims=True)
    slopes -= np.arange(outputs.shape[2]) == labels[:, :, None]
    slopes /= np.float32(x.shape[1])
    into = slopes @ weights[1][:, :-1].transpose(0, 2, 1) * (hidden > 0)
    return [np.concatenate([of.transpose(0, 2, 1) @ by, by.sum(1, keepdims=True)], 1)
            for of, by in ((x, into), (hidden, slopes))]  # fmt: skip


def train_epoch(
    config: GaussianConfig, weights: list[np.ndarray], x: np.ndarray, labels: np.ndarray, seed: int, epoch: int
) -> None:
    """Move the members in place by SGD with momentum through one epoch, each in its own order of the samples.

    The rate is LR / h, falling by half a cosine; momentum begins anew in each epoch.
    """
    rate = np.float32(LR / config.width * 0.5 * (1 + np.cos(np.pi * epoch / config.epochs)))
    orders = np.stack([rng(seed, "gaussian/order", m, epoch).permutation(len(x)) for m in range(len(weights[0]))])
    speeds = [np.zeros_like(weight) for weight in weights]
    for first in range(0, len(x), BATCH):
        rows = orders[:, first : first + BATCH]
        for weight, speed, slope in zip(weights, speeds, gradients(weights, x[rows], labels[rows]), strict=True):
            speed *= np.float32(MOMENTUM)
            speed += slope
            weight -= rate * speed


def variances(outputs: np.ndarray) -> np.ndarray:
    """Variance of an ensemble's outputs over the draw of its K members, for K = 1.. M/2, from outputs (M, N, k).

        V_K = 1/2 E |f_A(x) - f_B(x)|^2,

    f_A and f_B the means of disjoint groups of K neighbouring members, of outputs without their mean over classes
    (which no softmax sees); E the mean over samples and the M cyclic pairs of groups. Independent members have
    V_K = V_1 / K.
    """
    centred = outputs.astype(np.float64) - outputs.mean(2, keepdims=True, dtype=np.float64)
    sums = itertools.islice(enumerate(windows(centred), 1), len(outputs) // 2)
    return np.array([((one - np.roll(one, -k, 0)) ** 2).sum(2).mean() / (2 * k**2) for k, one in sums])
