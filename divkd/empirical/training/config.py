"""What a training run is made of, the presets, and the checks that a configuration passes before anything starts.

Imports no torch: the command line reads this module for ``--help``.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from divkd.empirical.networks.names import parse
from divkd.shared.errors import InputError, unknown

METHODS = ("none", "kd", "gaussian", "ods", "confods")
STUDENTS = ("batch_ensemble", "single")
# The random crop's zero padding and whether a mirrored image keeps its class: what a preset may use, not what it must.
DATASETS = {
    "digits": (1, False),
    "cifar10": (4, True),
    "cifar100": (4, True),
    "svhn": (4, False),
    "tinyimagenet": (8, True),
}
MODELS = ("batch_ensemble", "deep_ensemble", "single", "merged")  # what a run holds, as its results name them
PRECISIONS = ("float32", "bfloat16")
FITTED = 0.99  # training accuracy from which teachers fit their images: the regime that the paper is about
HUGE = 1e30  # above any sensible number, far below what overflows


@dataclass(frozen=True)
class Schedule:
    """SGD for one kind of network: epochs, images a batch, learning rate, weight decay, milestones [p, q, s].

    The rate of epoch e (from 1) follows the schedule of Nam et al.'s public code: a linear warm-up from 1 % to 100 %
    over e < p, full until q, a linear decay to 1 % over q <= e < s, then 1 %. Milestones are shares of the epochs here,
    so that one preset serves any length; 200 epochs with (.025, .5, .9) are their [5, 100, 180]. A run of one epoch is
    all tail: it trains at 1 %.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    milestones: tuple[float, float, float]
    choose_last: int = 0  # validation chooses among epoch 1, every 25th and the last so many; 0: the last epoch counts

    def looks_at(self, epoch: int) -> bool:
        """Whether `epoch` (from 1) may be chosen by validation: the epochs of Nam et al.'s public code."""
        last = epoch > self.epochs - self.choose_last
        return self.choose_last > 0 and (epoch == 1 or epoch % 25 == 0 or last)

    def factor(self, epoch: int) -> float:
        """The learning rate of `epoch` (from 1), as a share of `lr`."""
        warm, hold, decay = (share * self.epochs for share in self.milestones)
        if epoch < warm:
            return 0.01 + 0.99 * (epoch - 1) / (warm - 1)
        if epoch < hold:
            return 1.0
        if epoch < decay:
            return 1.0 - 0.99 * (epoch - hold) / (decay - hold)
        return 0.01


@dataclass(frozen=True)
class TrainConfig:
    """One `divkd train` run: deep-ensemble teachers and the students distilled from them."""

    preset: str
    dataset: str  # a name of DATASETS, or the path of a folder of images or an .npz file
    network: str
    members: int  # M, of the deep ensemble and of every BatchEnsemble student
    methods: tuple[str, ...]
    students: tuple[str, ...]
    seeds: tuple[int, ...]
    teacher: Schedule
    student: Schedule
    temperature: float  # t of the KD term
    kd_weight: float  # a: loss = (1 - a) CE + a KD
    step_size: float  # eta, in pixels of [0, 1]
    train_images: int | None  # the first so many of the training split; None: all of it
    crop: int  # zero padding of the random crop, pixels; 0: no crop
    flip: bool  # random horizontal flip
    data_dir: str | None = None
    image_size: int | None = None  # height and width that a folder's images are scaled to; None: as they are
    device: str = "cpu"
    momentum: float = 0.9
    precision: str = "float32"  # of matrix products and convolutions in training
    teacher_network: str | None = None  # where it is not the students'
    teachers: str | None = None  # a finished run whose teachers are used instead of training some
    rank_one_lr: float = 0.5  # learning rate of the rank-one factors, as a share of the student's
    ladder: int = 0  # networks of the deep ensemble that measures DEE; those beyond `members` teach nobody

    @property
    def networks(self) -> int:
        """How many networks of the deep ensemble are trained: all of the ladder, and every teacher."""
        return max(self.members, self.ladder)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that a run's config.json holds under ``config``; raises `InputError` on a misfit."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                raise unknown("parameter", name, sorted(fields))
        try:
            parts: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
            }
            for name in ("teacher", "student"):
                schedule = dict(parts[name])
                parts[name] = Schedule(**{**schedule, "milestones": tuple(schedule["milestones"])})
            config = cls(**parts)
            config.validate()
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the configuration is incomplete or of the wrong type ({error}); give a whole one"
            ) from error
        return config

    def validate(self) -> None:
        """Raise `InputError` for the first value that is not allowed."""
        _choice("preset", self.preset, tuple(PRESETS))
        _need(isinstance(self.dataset, str), "dataset", self.dataset, "a name or a path")
        _need(isinstance(self.flip, bool), "flip", self.flip, "true or false")
        _need(isinstance(self.device, str), "device", self.device, "cpu, cuda or cuda:N")
        _need(isinstance(self.data_dir, str | None), "data_dir", self.data_dir, "a folder's name, or null")
        _choice("precision", self.precision, PRECISIONS)
        for network in {self.network, self.teacher_network or self.network}:
            parse(network)
        _need(isinstance(self.teachers, str | None), "teachers", self.teachers, "a run's folder, or null")
        for method in self.methods:
            _choice("method", method, METHODS)
        for student in self.students:
            _choice("student", student, STUDENTS)
        _need(
            _whole(self.members) and 1 <= self.members <= 64, "--members", self.members, "a whole number from 1 to 64"
        )
        _need(_whole(self.ladder) and 0 <= self.ladder <= 64, "--ladder", self.ladder, "a whole number from 0 to 64")
        _need(len(self.seeds) > 0, "--seeds", "", "at least one seed, e.g. --seeds 0,1,2")
        _need(
            all(_whole(seed) and 0 <= seed < 2**31 for seed in self.seeds),
            "--seeds",
            self.seeds,
            "whole numbers from 0 to 2^31 - 1",
        )
        for name, values in (("seeds", self.seeds), ("method", self.methods), ("student", self.students)):
            _need(len(set(values)) == len(values), f"--{name}", values, "each value once")
        for schedule in (self.teacher, self.student):
            _need(
                _whole(schedule.epochs) and 1 <= schedule.epochs <= 100_000,
                "--epochs",
                schedule.epochs,
                "a whole number from 1 to 100000",
            )
            _need(
                _whole(schedule.batch_size) and 2 <= schedule.batch_size <= 65_536,
                "--batch-size",
                schedule.batch_size,
                "2 to 65536 images",
            )
            _need(0 < schedule.lr <= HUGE, "--lr", schedule.lr, "a finite number above 0, e.g. 0.1")
            _need(0 <= schedule.weight_decay <= HUGE, "weight_decay", schedule.weight_decay, "a number from 0")
            last = schedule.choose_last
            _need(_whole(last) and 0 <= last <= schedule.epochs, "choose_last", last, "0 to the number of epochs")
            p, q, s = schedule.milestones
            _need(0 <= p <= q <= s <= 1, "milestones", schedule.milestones, "rising shares of the epochs, 0 to 1")
        _need(0 < self.temperature <= HUGE, "temperature", self.temperature, "a finite number above 0")
        _need(0 <= self.kd_weight <= 1, "kd_weight", self.kd_weight, "a number from 0 to 1")
        _need(0 <= self.step_size <= 1, "step_size", self.step_size, "a number from 0 to 1 (pixels are in [0, 1])")
        _need(0 <= self.momentum < 1, "momentum", self.momentum, "a number from 0 to below 1")
        _need(0 <= self.rank_one_lr <= HUGE, "rank_one_lr", self.rank_one_lr, "a number from 0")
        _need(_whole(self.crop) and 0 <= self.crop <= 16, "--crop", self.crop, "0 (no crop) to 16 pixels")
        count, size = self.train_images, self.image_size
        _need(count is None or (_whole(count) and count >= 2), "--train-images", count, "a whole number from 2")
        _need(size is None or (_whole(size) and 4 <= size <= 512), "--image-size", size, "4 to 512 pixels")


def _choice(kind: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise unknown(kind, value, allowed)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _need(holds: bool, name: str, value: object, allowed: str) -> None:
    # `holds` is written so that NaN fails it.
    if not holds:
        raise InputError(f"{name} {value} is not allowed; give {allowed}")


def _published(
    name: str, temperature: float, choose_last: int, teacher: tuple[int, int, float], student: tuple[int, int, float],
    weight_decay: float,
) -> TrainConfig:  # fmt: skip
    """A protocol of Nam et al. 2021: epochs, images a batch, rate; 5 epochs of warm-up, decay from half to 90 %."""
    _, dataset, network = name.split("-")
    crop, flip = DATASETS[dataset]

    def schedule(epochs: int, batch: int, lr: float) -> Schedule:
        return Schedule(epochs, batch, lr, weight_decay, (5 / epochs, 0.5, 0.9), choose_last)

    return TrainConfig(
        preset=name, dataset=dataset, network=network, members=4, methods=METHODS, students=STUDENTS, seeds=(0,),
        teacher=schedule(*teacher), student=schedule(*student), temperature=temperature, kd_weight=0.9,
        step_size=1 / 255, train_images=None, crop=crop, flip=flip, ladder=8,
    )  # fmt: skip


# Teachers of `smoke` and `cpu` must fit their training images: that is the regime which the paper is about.
PRESETS = {
    "smoke": TrainConfig(
        preset="smoke",
        dataset="digits",
        network="resnet8",
        members=3,
        methods=("kd", "ods"),
        students=("batch_ensemble", "single"),
        seeds=(0,),
        teacher=Schedule(10, 64, 0.1, 4e-4, (0.1, 0.5, 0.9)),
        student=Schedule(20, 64, 0.1, 4e-4, (0.1, 0.5, 0.9)),
        temperature=4.0,
        kd_weight=0.9,
        step_size=1 / 255,
        train_images=None,
        crop=1,
        flip=False,
        ladder=4,
    ),
    "cpu": TrainConfig(
        preset="cpu",
        dataset="cifar10",
        network="resnet8",
        members=4,
        methods=METHODS,
        students=STUDENTS,
        seeds=(0,),
        teacher=Schedule(100, 32, 0.1, 4e-4, (0.05, 0.5, 0.9)),
        student=Schedule(50, 32, 0.1, 4e-4, (0.05, 0.5, 0.9)),
        temperature=4.0,
        kd_weight=0.9,
        step_size=1 / 255,
        train_images=1000,
        crop=0,
        flip=True,
        ladder=8,
    ),
    # Real size in GPU-minutes instead of hours: all of CIFAR-10, the paper's network and augmentation, a quarter of its
    # epochs at a batch of 128. Our choice, no protocol of theirs.
    "gpu": TrainConfig(
        preset="gpu",
        dataset="cifar10",
        network="resnet32",
        members=4,
        methods=METHODS,
        students=STUDENTS,
        seeds=(0,),
        teacher=Schedule(50, 128, 0.1, 4e-4, (0.1, 0.5, 0.9)),
        student=Schedule(60, 128, 0.1, 4e-4, (0.1, 0.5, 0.9)),
        temperature=4.0,
        kd_weight=0.9,
        step_size=1 / 255,
        train_images=None,
        crop=4,
        flip=True,
        precision="bfloat16",
        ladder=8,
    ),
    **{
        preset.preset: preset
        for preset in (
            # Nam et al. 2021 as in their public code, but that BatchNorm pools all rows of a batch, as on one GPU: the
            # wide networks' students had 16 images on each of four, and statistics of their own there.
            _published("nam2021-cifar10-resnet32", 4.0, 25, (200, 512, 0.4), (250, 128, 0.1), 4e-4),
            _published("nam2021-cifar100-wrn28x10", 1.0, 30, (300, 256, 0.2), (300, 64, 0.05), 5e-4),
            _published("nam2021-cifar100-wrn28x5", 1.0, 30, (300, 256, 0.2), (300, 64, 0.05), 5e-4),
            # A reading: of TinyImageNet only network, split and crops were published; the rest is that of CIFAR-100.
            _published("nam2021-tinyimagenet-wrn28x5", 1.0, 30, (300, 256, 0.2), (300, 64, 0.05), 5e-4),
        )
    },
}
