"""The premise of Nam et al. 2021 in two dimensions: teachers agree where they were trained, and ODS finds where not.

A figure of our own with the product's own steps (`training.perturb`): a point of [0, 1]^2 is an image of shape
(2, 1, 1). D = 2 is the hardest case for ODS to shine in: a Gaussian step has half of its squared length along any one
direction there, and 1/3072 of it on 32 x 32 x 3 pixels. And half of the ODS steps lead away from the boundary, as the
sign of w . p is chance.
"""

import time
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.plane.config import PlaneConfig
from divkd.empirical.training.config import FITTED, Schedule
from divkd.empirical.training.distillation import label_loss
from divkd.empirical.training.loop import run_epoch, set_rate, sgd
from divkd.empirical.training.perturb import perturb
from divkd.shared.errors import RunError
from divkd.shared.jobs import Job, Workers
from divkd.shared.kinds import INPUTS, PERTURBATIONS
from divkd.shared.metrics.diversity import sample_diversity
from divkd.shared.metrics.quality import accuracy
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.seeds import rng
from divkd.shared.stats import paired, summarise

CLASSES = 2
BATCH = 20  # in training; in moving points too, as one teacher serves a batch
APART = 0.1  # nats of pairwise KL above which teachers are counted as disagreeing on a point
GRID = 121  # values an axis, 0 and 1 among them
GAIN = 2.0  # initial weights ~ N(0, 2 GAIN / inputs): beyond the data, larger ones differ more
LR, MOMENTUM, MILESTONES = 0.03, 0.9, (0.05, 0.5, 0.95)


def moons(seed: int, points: int, noise: float) -> tuple[Tensor, Tensor]:
    """Two interleaved half circles with N(0, noise^2) added, clipped: points (N, 2, 1, 1) in [0, 1], labels (N,).

    Classes alternate, so that any batch is of both.
    """
    generator = rng(seed, "plane/points")
    labels = np.arange(points) % CLASSES
    angle = np.pi * generator.uniform(size=points)
    x = np.where(labels == 0, np.cos(angle), 1 - np.cos(angle))
    y = np.where(labels == 0, np.sin(angle), 0.5 - np.sin(angle))
    place = 0.5 + 0.27 * (np.stack([x, y], 1) - [0.5, 0.25]) + noise * generator.standard_normal((points, 2))
    return torch.from_numpy(place.clip(0, 1).astype(np.float32))[:, :, None, None], torch.from_numpy(labels)


class Plane(nn.Module):
    """Two hidden layers of ReLU units: (B, 2, 1, 1) in [0, 1], normalised inside -> logits (B, 2)."""

    def __init__(self, width: int, generator: np.random.Generator) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, CLASSES)
        )
        with torch.no_grad():
            for name, parameter in self.layers.named_parameters():
                shape = tuple(parameter.shape)
                if name.endswith("weight"):
                    draw = (2 * GAIN / shape[1]) ** 0.5 * generator.standard_normal(shape)
                else:
                    draw = generator.uniform(-1, 1, shape)  # kinks all over the plane, not in one point
                parameter.copy_(torch.from_numpy(draw))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2, 1, 1) -> logits (B, 2)."""
        logits: Tensor = self.layers((x.flatten(1) - 0.5) / 0.25)
        return logits


def run_plane(config: PlaneConfig, run: Run, workers: Workers) -> dict[str, Any]:
    """Train the teachers of every seed, move every training point, and return the content of results.json.

    rows        for each seed: train_acc of every teacher, `void` where their mean is below `FITTED`; the mean
                pairwise KL, in nats, over the n points, clean and moved by each kind (one draw a point); and in
                `apart` the number of points on which it is above `APART`
    summary     {mean, std, n} over seeds of each kind; ods_minus_gaussian with its 95 % interval, paired by seed
    picture     of the first seed, see `figure_of`
    """
    began = time.perf_counter()
    names = {seed: f"seed{seed}-of{config.members}" for seed in config.seeds}
    jobs = [Job(names[seed], partial(measure, config, seed), networks=config.members) for seed in config.seeds]
    records = workers.records(jobs, run)
    rows = [records[names[seed]]["row"] for seed in config.seeds]
    return {
        "command": "simulate plane",
        "config": {name: getattr(config, name) for name in config.__dataclass_fields__},
        "seeds": list(config.seeds),
        "rows": rows,
        "summary": {kind: summarise(row[kind] for row in rows) for kind in INPUTS},
        "apart_above": APART,
        "ods_minus_gaussian": paired([row["ods"] for row in rows], [row["gaussian"] for row in rows]),
        "picture": records[names[config.seeds[0]]]["picture"],
        "seconds": time.perf_counter() - began,
    }


def measure(config: PlaneConfig, seed: int, _: Run, progress: Progress) -> dict[str, Any]:
    """The row and the figure of a seed."""
    points, labels = moons(seed, config.points, config.noise)
    nets = [train_teacher(config, points, labels, seed, m, progress) for m in range(config.members)]
    teachers = DeepEnsemble(nets)
    perturbed = {kind: perturb_all(kind, config, points, teachers, seed) for kind in PERTURBATIONS}
    train_acc = [accuracy(member[None], labels) for member in log_probs(teachers, points)]
    kl = {kind: kl_of(teachers, place) for kind, place in {"clean": points, **perturbed}.items()}
    row = {"seed": seed, "n": config.points, "train_acc": train_acc, "void": float(np.mean(train_acc)) < FITTED}
    row |= {kind: float(value.mean()) for kind, value in kl.items()}
    row["apart"] = {kind: int((value > APART).sum()) for kind, value in kl.items()}
    return {"row": row, "picture": {"seed": seed, **figure_of(points, labels, perturbed, teachers)}}


def train_teacher(
    config: PlaneConfig, points: Tensor, labels: Tensor, seed: int, member: int, progress: Progress
) -> nn.Module:
    """Teacher `member` of `seed`, by SGD on the cross-entropy; it depends on no other. Raises `RunError` on NaN."""
    net = Plane(config.width, rng(seed, "plane/init", member))
    one = DeepEnsemble([net])
    schedule = Schedule(config.epochs, BATCH, LR, 0.0, MILESTONES)
    optimiser = sgd(net, schedule, MOMENTUM, 0.0)
    with progress.task(f"seed{seed}-teacher{member}", config.epochs, networks=1) as task:
        for epoch in range(1, config.epochs + 1):
            set_rate(optimiser, schedule, epoch)
            order = torch.from_numpy(rng(seed, "plane/order", member, epoch).permutation(len(points)))
            batches = ((points[rows], labels[rows]) for rows in order.split(BATCH))
            try:
                mean_loss, acc = run_epoch(one, label_loss, optimiser, batches, rng(seed, "plane"), "float32")
            except RunError as error:
                raise RunError(f"teacher {member} of seed {seed}, epoch {epoch}, {error}; lower --width") from error
            task.update(epoch, note=f"loss {mean_loss:.3f} acc {acc:.3f}")
    return net.eval()


def perturb_all(kind: str, config: PlaneConfig, points: Tensor, teachers: DeepEnsemble, seed: int) -> Tensor:
    """Every point moved once by `perturb`, in batches; ODS and ConfODS share teachers and w."""
    step = teachers, config.temperature, config.step_size, rng(seed, "plane/perturb")
    return torch.cat([perturb(kind, part, *step) for part in points.split(BATCH)])


@torch.no_grad()
def log_probs(teachers: DeepEnsemble, points: Tensor) -> Tensor:
    """(N, 2, 1, 1) -> the teachers' log-probabilities (M, N, 2) at temperature 1, float64."""
    return torch.log_softmax(teachers(points).double(), -1)


def kl_of(teachers: DeepEnsemble, points: Tensor) -> Tensor:
    """The teachers' pairwise KL at each point (N,), in nats."""
    return sample_diversity(log_probs(teachers, points))["pairwise_kl"]


def figure_of(points: Tensor, labels: Tensor, perturbed: dict[str, Tensor], teachers: DeepEnsemble) -> dict[str, Any]:
    """What the figure shows: {points, labels, moved: {kind: places}, grid: {size, decisions, kl}}.

    The grid has `size` x `size` points over [0, 1]^2; a row of it is one string, y rising from row to row, x along it.
    `decisions` of a teacher are rows of digits, the class of each point; `kl` are rows of numbers, in nats.
    """
    axis = torch.linspace(0, 1, GRID)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    places = torch.stack([x, y], -1).reshape(-1, 2, 1, 1)
    votes = log_probs(teachers, places).argmax(-1).reshape(-1, GRID, GRID).tolist()
    kl = kl_of(teachers, places).reshape(GRID, GRID).tolist()
    return {
        "points": _pairs(points),
        "labels": labels.tolist(),
        "moved": {kind: _pairs(place) for kind, place in perturbed.items()},
        "grid": {
            "size": GRID,
            "decisions": [["".join(map(str, row)) for row in member] for member in votes],
            "kl": [" ".join(f"{value:.3g}" for value in row) for row in kl],
        },
    }


def _pairs(places: Tensor) -> list[list[float]]:
    return [[round(value, 5) for value in place] for place in places.flatten(1).tolist()]
