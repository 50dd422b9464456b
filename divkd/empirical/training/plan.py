"""What a training run will train: networks, steps and memory, and by a few timed steps how long it takes."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from divkd.empirical.analysis.cost import peak_training_bytes, weight_bytes
from divkd.empirical.data.splits import Augmentation, ImageData, batches, to_float
from divkd.empirical.networks.build import architecture
from divkd.empirical.networks.ensembles import DeepEnsemble, Ensemble
from divkd.empirical.training.config import NetworksConfig, Schedule, TrainConfig
from divkd.empirical.training.distillation import answered_bytes, label_loss, spared, student_loss, teacher_name
from divkd.empirical.training.loop import BatchLoss, run_epoch, sgd
from divkd.empirical.training.seed_run import SeedRun
from divkd.empirical.training.students import STUDENTS
from divkd.shared.progress import Progress, lasting
from divkd.shared.run import Run
from divkd.shared.seeds import rng

SECONDS = 1.0  # that the timed step of a kind of network may take: with a part of its batch where a whole one is slow


class Kind(NamedTuple):
    """Networks of a seed that are trained alike: how many, for how long, and the names of their checkpoints."""

    model: str
    method: str
    schedule: Schedule
    names: tuple[str, ...]  # of all seeds

    def steps(self, images: int) -> int:
        """Of one network."""
        return self.schedule.epochs * -(-images // self.schedule.batch_size)


def kinds(config: TrainConfig) -> list[Kind]:
    """What `run_training` trains; the teachers of another run are not trained."""
    names = [teacher_name(seed, member) for seed in config.seeds for member in range(config.networks)]
    taught = [] if config.teachers is not None else [Kind("deep_ensemble", "none", config.teacher, tuple(names))]
    for student, method in itertools.product(config.students, config.methods):
        names = [STUDENTS[student].checkpoint(method, config.members, seed) for seed in config.seeds]
        taught.append(Kind(student, method, config.student, tuple(names)))
    return taught


def plan(config: TrainConfig, data: ImageData) -> tuple[str, ...]:
    """The networks, steps and memory of a run on `data`, in words."""
    images, seeds = len(data.train), len(config.seeds)
    networks = sum(len(kind.names) for kind in kinds(config))
    steps = sum(kind.steps(images) * len(kind.names) for kind in kinds(config))
    beyond = config.networks - config.members
    ladder = (
        f" ({config.members} teach, {beyond} only measure the deep ensemble equivalent: --ladder)" if beyond else ""
    )
    ensemble = f"{config.networks} of the deep ensemble{ladder}"
    if config.teachers is not None:
        ensemble = f"none of the deep ensemble (those of {config.teachers} are used)"
    students = len(config.students) * len(config.methods)
    each = f" for each of {seeds} seeds" if seeds > 1 else ""
    lengths = dict.fromkeys((config.teacher.epochs, config.student.epochs))
    epochs = f"{' and '.join(map(str, lengths))} epoch{'s' * (list(lengths) != [1])}"
    pixels = sum(one.images.nbytes for one in (data.train, data.validation, data.test))
    held, one = weights(config, data)
    return (
        f"{networks} networks are trained: {ensemble}, {students} student{'s' * (students != 1)}{each}; "
        f"{epochs} on {images} images, {steps:,} steps in all",
        f"memory: images {size(pixels)}, weights {size(held)}, momentum and gradients {size(2 * one)}, "
        "and what a step holds",
    )


def weights(config: NetworksConfig, data: ImageData) -> tuple[int, int]:
    """Bytes of the weights that are held at once, teachers and the largest student, and of the largest network."""
    with torch.device("meta"):  # shapes alone
        stats = data.classes, data.mean, data.std
        teacher = weight_bytes(architecture(config.teachers_network, *stats))
        students = [
            weight_bytes(STUDENTS[student].create(architecture(config.network, *stats), config.members, 0))
            for student in _students(config)
        ]
    return teacher * config.networks + max(students, default=0), max(teacher, *students, 0)


def _students(config: NetworksConfig) -> tuple[str, ...]:
    """The kinds of students; an experiment's are plain networks."""
    return config.students if isinstance(config, TrainConfig) else ("single",)


def step_bytes(config: NetworksConfig, data: ImageData, together: int = 1) -> int:
    """About what a job holds: images, weights, the outputs of layers for a batch, and answers that are remembered.

    Of networks that are trained `together`, as one, so many times what is kept of each weight.
    """
    pixels = sum(one.images.nbytes for one in (data.train, data.validation, data.test))
    held, one = weights(config, data)
    student, teacher = (_outputs(data, name) for name in (config.network, config.teachers_network))
    rows = config.members if _students(config) else 1
    return (
        pixels
        + answered_bytes(config, data, config.members)
        + held
        + 2 * one * together
        + max(rows * config.student.batch_size * student, config.teacher.batch_size * teacher)
    )


def _outputs(data: ImageData, network: str) -> int:
    """Bytes of the outputs of all layers of a network for one image."""
    sizes: list[int] = []
    with torch.device("meta"):  # shapes alone
        net = architecture(network, data.classes, data.mean, data.std).eval()
        for module in net.modules():
            if not any(module.children()):
                module.register_forward_hook(lambda _, __, out: sizes.append(out.nbytes))
        net(torch.empty(1, *data.train.images.shape[1:]))
    return sum(sizes)


def measured(config: TrainConfig, data: ImageData) -> Iterator[str]:
    """How long training takes and what a step holds, by timed steps of every kind of network on its own images."""
    data = data.to(torch.device(config.device))
    seed_run = first(config, data)
    images, total, most, lines = len(data.train), 0.0, 0, []
    teachers = DeepEnsemble(
        [seed_run.plain(config.teachers_network, "teacher", member) for member in range(config.members)]
    )
    teachers.eval().requires_grad_(False)
    for kind in kinds(config):
        loss: BatchLoss = label_loss
        if kind.model == "deep_ensemble":
            net: Ensemble = DeepEnsemble([seed_run.plain(config.teachers_network, "teacher")])
        else:
            net = _student(seed_run, config, kind.model)
            loss = student_loss(kind.method, teachers, config.temperature, config.kd_weight, config.step_size)
        step, peak = timed(seed_run, net, loss, kind.schedule)
        if kind.method == "kd" and (less := spared(config, data, kind.schedule.epochs, config.members)):
            alone, _ = timed(seed_run, net, label_loss, kind.schedule)
            step -= max(0.0, step - alone) * less / (config.members * kind.schedule.epochs)
        taken = step * kind.steps(images) * len(kind.names)
        total, most = total + taken, max(most, peak)
        name = "a network of the deep ensemble" if kind.model == "deep_ensemble" else f"{kind.model} by {kind.method}"
        lines.append(f"  {name}: {1000 * step:.0f} ms a step, {lasting(taken / len(kind.names))} a network")
    yield f"memory of a step: at most {size(most)} for one batch"
    yield f"time: about {lasting(total)} of training on {config.device}, by timed steps of each kind:"
    yield from lines


def timed(seed_run: SeedRun, net: nn.Module, loss: BatchLoss, schedule: Schedule) -> tuple[float, int]:
    """Seconds of a training step of a whole batch, and the bytes that it holds; a part of one where that is slow."""
    augmentation = Augmentation(seed_run.config.crop, seed_run.config.flip)
    cuts = batches(seed_run.data.train, augmentation, schedule.batch_size, seed_run.seed, "teacher", 0, 1)
    first, labels = next(cuts)
    x = to_float(first)
    few, more = (peak_training_bytes(net, loss, x[:size], labels[:size]) for size in (2, 4))
    optimiser = sgd(net, schedule, seed_run.config.momentum, seed_run.config.rank_one_lr)

    def seconds(size: int) -> float:
        began = time.perf_counter()
        run_epoch(net, loss, optimiser, [(x[:size], labels[:size])], rng(0, "plan"), seed_run.config.precision)
        return time.perf_counter() - began

    slow = seconds(2)  # it warms up, so that it may be slower than those that follow
    if slow < SECONDS:
        slow = seconds(2)
    part = min(len(x), max(2, int(2 * SECONDS / slow)))
    if part > 2:
        slow = min(seconds(part), seconds(part))
    # what a step holds grows with its images from what does not depend on them
    return slow * len(x) / part, few + max(0, more - few) * (len(x) - 2) // 2


def size(count: float) -> str:
    """Bytes in words."""
    for unit, scale in (("kB", 1e3), ("MB", 1e6)):
        if count < 1000 * scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e9:.3g} GB"


def first(config: NetworksConfig, data: ImageData) -> SeedRun:
    """A seed's work that is only tried."""
    return SeedRun(config, data, config.seeds[0], Run(Path()), Progress(quiet=True))  # which writes nothing


def _student(seed_run: SeedRun, config: TrainConfig, student: str) -> Ensemble:
    plain = seed_run.plain(config.network, "student")
    return STUDENTS[student].create(plain, config.members, seed_run.seed).to(torch.device(config.device))
