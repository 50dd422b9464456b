"""What a training run is made of, the presets, and the checks that a configuration passes before anything starts.

Imports no torch: the command line reads this module for ``--help``.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from divkd.empirical.data.names import DATASETS, ViewsConfig
from divkd.empirical.networks.names import RULE, parse
from divkd.shared.config import SEEDS, Config, field
from divkd.shared.errors import InputError, unknown
from divkd.shared.kinds import METHODS, STUDENTS

Sizes = tuple[int, int, float]  # epochs, images a batch, learning rate
FITTED = 0.99  # training accuracy from which teachers fit their images: the regime that the paper is about


@dataclass(frozen=True)
class Schedule(Config):
    """SGD for one kind of network: epochs, images a batch, learning rate, weight decay, milestones [p, q, s].

    The rate of epoch e (from 1) follows the schedule of Nam et al.'s public code: a linear warm-up from 1 % to 100 %
    over e < p, full until q, a linear decay to 1 % over q <= e < s, then 1 %. Milestones are shares of the epochs here,
    so that one preset serves any length; 200 epochs with (.025, .5, .9) are their [5, 100, 180]. A run of one epoch is
    all tail: it trains at 1 %.
    """

    epochs: int = field(meaning="epochs of teachers and of students", low=1, high=100_000)
    batch_size: int = field(meaning="images a batch, for teachers and students", low=2, high=65_536)
    lr: float = field(meaning="learning rate, for teachers and students", above=True, hint="e.g. 0.1")
    weight_decay: float = field()
    milestones: tuple[float, float, float] = field(high=1, hint="shares of the epochs")
    choose_last: int = field(
        0
    )  # validation chooses among epoch 1, every so many and the last so many; 0: the last counts
    choose_every: int = field(25, low=1)

    def rules(self) -> None:
        """Raise `InputError` where validation would choose among more epochs than there are."""
        if self.choose_last > self.epochs:
            raise InputError(f"choose_last {self.choose_last} is not allowed; give 0 to --epochs {self.epochs}")

    def looks_at(self, epoch: int) -> bool:
        """Whether `epoch` (from 1) may be chosen by validation: the epochs of Nam et al.'s public code."""
        last = epoch > self.epochs - self.choose_last
        return self.choose_last > 0 and (epoch == 1 or epoch % self.choose_every == 0 or last)

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


# What no network depends on but in its name or its images: which networks there are, and where the images come from.
_OF_NONE = ("preset", "seeds", "members", "ladder", "methods", "students", "data_dir", "views")
# And what a teacher does not, or a student by a method.
_NOT_OF = {
    "teacher": ("teachers", "student", "rank_one_lr"),
    "none": ("teachers", "teacher", "teacher_network", "temperature", "kd_weight", "step_size"),
    "kd": ("step_size",),
}


@dataclass(frozen=True, kw_only=True)
class NetworksConfig(Config):
    """What networks of a run are and learn from: data, architecture, schedules, seeds, and how they are computed."""

    preset: str = field()
    dataset: str = field(hint="a name or a path")  # a name of DATASETS, or the path of a folder or an .npz file
    network: str = field(meaning=f"network of teachers and students: {RULE}", metavar="NAME")
    members: int = field(low=1, high=64)  # M, of the deep ensemble and of every BatchEnsemble student
    seeds: tuple[int, ...] = field(high=SEEDS, hint="e.g. 0,1,2")
    teacher: Schedule = field()
    student: Schedule = field()
    train_images: int | None = field(meaning="learn from the first N; the classes are mixed", low=2)  # None: all
    crop: int = field(
        meaning="random crops with so many pixels of padding; 0: none", high=16, hint="pixels of padding; 0: no crop"
    )
    flip: bool = field(meaning="random mirroring, where a mirrored image keeps its class")
    data_dir: str | None = field(
        None, "folder that holds (or, with --download, gets) the named data set", hint="a folder", metavar="FOLDER"
    )
    image_size: int | None = field(None, "scale the images of a folder to N x N pixels", 4, 512, hint="pixels")
    split: float | None = field(
        None, "share of each class that tests, of a folder of CLASS/* alone", 0, 0.9, above=True
    )
    device: str = field("cpu", hint="cpu, cuda or cuda:N")
    momentum: float = field(0.9, high=0.9999)
    precision: str = field(
        "float32",
        "of products and convolutions in training; auto: bfloat16 where it is faster",
        choices=("float32", "bfloat16", "auto"),
    )
    compile: str = field(
        "auto",
        "compile networks for training; auto: off, as no measured network gained by it",
        choices=("auto", "on", "off"),
    )
    weights: str | None = field(
        None, "weights that networks of torchvision start from, but for the classifier", metavar="FILE"
    )
    teachers: str | None = field(None, "use the teachers of this run instead of training some", metavar="RUN")
    rank_one_lr: float = field(0.5)  # learning rate of the rank-one factors, as a share of the student's
    views: ViewsConfig | None = field(None)  # what the data set `views` is made of; None for any other

    @property
    def networks(self) -> int:
        """How many networks of the deep ensemble are trained."""
        return self.members

    @property
    def teachers_network(self) -> str:
        """The network that teaches."""
        return self.network

    def behind(self, role: str) -> dict[str, Any]:
        """All that a network depends on beside its images and its name: runs of equal values can share it.

        `role` is "teacher", or the method by which a student learns.
        """
        values = dataclasses.asdict(self)
        if role == "teacher":  # of what a command adds, none but its network concerns it
            shared = (one.name for one in dataclasses.fields(NetworksConfig))
            values = {name: values[name] for name in shared} | {"network": self.teachers_network}
        return {key: value for key, value in values.items() if key not in (*_OF_NONE, *_NOT_OF.get(role, ()))}

    def rules(self) -> None:
        """Raise `InputError` for an unknown network."""
        for network in (self.network, self.teachers_network):
            parse(network)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(NetworksConfig):
    """One `divkd train` run: deep-ensemble teachers and the students distilled from them."""

    methods: tuple[str, ...] = field(meaning="how students learn; repeatable", choices=METHODS, option="--method")
    students: tuple[str, ...] = field(meaning="what learns; repeatable", choices=STUDENTS, option="--student")
    temperature: float = field(meaning="of the distillation term", above=True, symbol="t")
    kd_weight: float = field(meaning="in the loss (1 - a) CE + a KD", high=1, symbol="a")
    step_size: float = field(meaning="of the perturbations, pixels in [0, 1]", high=1, symbol="eta")
    teacher_network: str | None = field(None, "network of the teachers, where it is another", metavar="NETWORK")
    ladder: int = field(
        0, "networks whose ensembles measure the deep ensemble equivalent; those beyond --members teach nobody", high=64
    )

    @property
    def networks(self) -> int:
        """How many networks of the deep ensemble are trained: all of the ladder, and every teacher."""
        return max(self.members, self.ladder)

    @property
    def teachers_network(self) -> str:
        """The network that teaches."""
        return self.teacher_network or self.network

    def rules(self) -> None:
        """Raise `InputError` for an unknown preset or network."""
        if self.preset not in PRESETS:
            raise unknown("preset", self.preset, PRESETS)
        super().rules()


# Teachers of `cpu` and `smoke` must fit their training images: that is the regime which the paper is about.
_CPU = TrainConfig(
    preset="cpu",
    dataset="cifar10",
    network="resnet8",
    members=4,
    methods=tuple(METHODS),
    students=tuple(STUDENTS),
    seeds=(0,),
    teacher=Schedule(100, 32, 0.1, 4e-4, (0.05, 0.5, 0.9)),
    student=Schedule(50, 32, 0.1, 4e-4, (0.05, 0.5, 0.9)),
    temperature=4.0,
    kd_weight=0.9,
    step_size=1 / 255,
    train_images=1000,
    crop=0,
    flip=True,
    precision="auto",
    ladder=8,
)
# Chosen on seeds 10 to 13, which are shown nowhere: few images and no crop, so that teachers fit and still disagree.
# Calibrated NLL there (mean and sd of 4): one network .674 ± .078, the ensemble of four .576 ± .027; single network on
# labels .724 ± .039, by kd .576 ± .070; BatchEnsemble on labels .779 ± .092, by kd .620 ± .085.
_SMOKE = dataclasses.replace(
    _CPU,
    preset="smoke",
    dataset="digits",
    methods=("none", "kd"),
    teacher=Schedule(30, 32, 0.1, 4e-4, (0.1, 0.5, 0.9)),
    student=Schedule(30, 32, 0.1, 4e-4, (0.1, 0.5, 0.9)),
    train_images=200,
    flip=False,
    precision="float32",
    ladder=4,
)
# Real size in GPU-minutes instead of hours: all of CIFAR-10, the paper's network and augmentation, a quarter of its
# epochs at a batch of 128. Our choice, no protocol of theirs.
_GPU = dataclasses.replace(
    _CPU,
    preset="gpu",
    network="resnet32",
    teacher=Schedule(50, 128, 0.1, 4e-4, (0.1, 0.5, 0.9)),
    student=Schedule(60, 128, 0.1, 4e-4, (0.1, 0.5, 0.9)),
    train_images=None,
    crop=4,
)
# Chosen on seed 100, which is shown nowhere: mu so small, and networks so narrow, that they fit without both views.
# At .03 for 40 epochs BatchEnsembles fit better, and kd closes less of the gap between one network and the ensemble.
_VIEWS = dataclasses.replace(
    _CPU,
    preset="views",
    dataset="views",
    network="resnet8w8",
    members=5,
    methods=("none", "kd", "ods"),
    teacher=Schedule(20, 32, 0.1, 4e-4, (0.05, 0.5, 0.9)),
    student=Schedule(25, 32, 0.01, 4e-4, (0.05, 0.5, 0.9)),
    train_images=1000,
    flip=False,
    views=ViewsConfig(),
    ladder=5,
    precision="bfloat16",  # of which the preset's numbers are: in float32 networks miss more (docs/results/views-map)
)


def _published(
    name: str, temperature: float, look: int, teacher: Sizes, student: Sizes, weight_decay: float
) -> TrainConfig:
    """A protocol of Nam et al. 2021: epochs, images a batch, rate; 5 epochs of warm-up, decay from half to 90 %.

    Validation looks at every `look`-th epoch and at the last so many. Students narrower than the wide network have
    teachers of that one: the paper's cross-architecture tables.
    """
    _, dataset, network = name.split("-")
    data = DATASETS[dataset]
    changes: dict[str, Any] = {"dataset": dataset, "network": network, "temperature": temperature}
    if network == "wrn28x5":
        changes["teacher_network"] = "wrn28x10"
    for role, (epochs, batch, lr) in (("teacher", teacher), ("student", student)):
        changes[role] = Schedule(epochs, batch, lr, weight_decay, (5 / epochs, 0.5, 0.9), look, look)
    changes |= {"crop": data.crop, "flip": data.flip, "precision": "float32"}
    return dataclasses.replace(_CPU, preset=name, train_images=None, **changes)


PRESETS = {
    preset.preset: preset
    for preset in (
        _SMOKE,
        _CPU,
        _GPU,
        _VIEWS,
        # Nam et al. 2021 as in their public code, but that BatchNorm pools all rows of a batch, as on one GPU: the wide
        # networks' students had 16 images on each of four, and statistics of their own there.
        _published("nam2021-cifar10-resnet32", 4.0, 25, (200, 512, 0.4), (250, 128, 0.1), 4e-4),
        _published("nam2021-cifar100-wrn28x10", 1.0, 30, (300, 256, 0.2), (300, 64, 0.05), 5e-4),
        _published("nam2021-cifar100-wrn28x5", 1.0, 30, (300, 256, 0.2), (300, 64, 0.05), 5e-4),
        # A reading: of TinyImageNet only networks, split and crops were published; the rest is that of CIFAR-100.
        _published("nam2021-tinyimagenet-wrn28x10", 1.0, 30, (300, 256, 0.2), (300, 64, 0.05), 5e-4),
        _published("nam2021-tinyimagenet-wrn28x5", 1.0, 30, (300, 256, 0.2), (300, 64, 0.05), 5e-4),
    )
}
