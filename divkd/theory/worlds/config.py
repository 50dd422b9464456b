"""What the opposite worlds depend on, and the checks before they start. Imports nothing heavy: ``--help`` reads it."""

from dataclasses import dataclass

from divkd.shared.config import SEEDS, Config, Interval, field
from divkd.shared.errors import InputError
from divkd.theory.config import MultiViewConfig

RULES = {"clipped": "theorem 3's, which only pushes up", "temperature": "t^2 KL at temperature t, the practice's"}
FACTORS = {"normal": "N(1, sd^2)", "signs": "random signs", "aligned": "N(1, sd^2) that gate features one by one",
           "aligned_signs": "random signs that do"}  # fmt: skip


@dataclass(frozen=True)
class GaussianConfig(Config):
    """Inputs without views: Gaussian or a mixture of Gaussians, labelled by a linear function or a small network."""

    seeds: tuple[int, ...] = field((0, 1, 2, 3, 4), high=SEEDS, hint="e.g. 0,1,2")
    members: int = field(10, "networks in the ensemble of every cell", 1, 100, "M")
    dimension: int = field(10, "dimensions of an input", 1, 1000, "d")
    classes: int = field(4, "classes", 2, 100, "k")
    train_samples: int = field(4000, "training samples", 100, 1_000_000, "N")
    test_samples: int = field(5000, "test samples, never with label noise", 1, 1_000_000)
    components: int = field(
        8, "Gaussians in the mixture, of standard deviation 0.5 around centres of norm 0.9 sqrt(d)", 1, 1000
    )
    margin: float = field(
        0.3, "share of the inputs, those nearest to another class, that cells with a margin leave out", 0, 0.9
    )
    label_noise: float = field(0.1, "share of the training labels that cells with label noise draw anew", 0, 1)
    width: int = field(64, "hidden units of a network", 1, 4096)
    epochs: int = field(20, "epochs of a network", 1, 10_000)  # fmt: skip


@dataclass(frozen=True)
class NtkConfig(Config):
    """The patch network, linearised around its start, on multi-view data: symbols and units of `MultiViewConfig`."""

    seeds: tuple[int, ...] = field((0, 1, 2, 3, 4), high=SEEDS, hint="e.g. 0,1,2")
    members: int = field(10, "networks in the ensemble", 1, 100, "M")
    students: int = field(5, "students of either kind", 1, 100)
    classes: int = field(5, "classes", 2, 100, "k")
    patches: int = field(20, "patches of a sample", 2, 1000, "P")
    train_samples: int = field(600, "training samples, two single-view ones a class included", 1, 10_000, "N")
    test_samples: int = field(1000, "fresh samples of either kind, multi-view and single-view", 1, 100_000)
    expected_others: float = field(
        2.5, "another class's feature is present with probability s / k", symbol="s", above=True
    )
    other_weight: Interval = field((0.6, 0.8), "another class's feature in a multi-view sample", symbol="z")
    other_weight_single: Interval = field((0.4, 0.5), "the same in a single-view sample", symbol="Gamma")
    noise: float = field(1.0, "norm of a patch's noise", symbol="nu", above=True)
    neurons: int = field(4, "neurons a class", 1, 1000, "m")
    power: int = field(3, "the activation is z^q / q below 1 and linear above", 2, 16, "q")
    init_scale: float = field(0.1, "standard deviation of initial weights", symbol="sigma_0/varrho", above=True)
    ridge: float = field(0.1, "ridge, in units of a sample's mean |phi|^2", symbol="lambda", above=True)

    def world(self) -> MultiViewConfig:
        """The multi-view distribution and the network."""
        names = ("classes", "patches", "train_samples", "test_samples", "expected_others", "other_weight",
                 "other_weight_single", "noise", "neurons", "power", "init_scale")  # fmt: skip
        return MultiViewConfig(**{name: getattr(self, name) for name in names})

    def rules(self) -> None:
        """Raise `InputError` where the world's values do not fit each other."""
        self.world().validate()


@dataclass(frozen=True)
class ConvergenceConfig(Config):
    """The same networks in both engines, for a growing number of dimensions: symbols and units of `MultiViewConfig`."""

    seeds: tuple[int, ...] = field((0, 1, 2), high=SEEDS, hint="e.g. 0,1,2")
    members: int = field(3, "networks of a seed, each in both engines", 1, 100)
    dimension: int = field(4000, "most dimensions; a quarter and a sixteenth of them come before", 1, 10**6, "d")
    classes: int = field(5, "classes", 2, 100, "k")
    patches: int = field(20, "patches of a sample", 2, 1000, "P")
    train_samples: int = field(300, "training samples, two single-view ones a class included", 1, 100_000, "N")
    expected_others: float = field(
        2.5, "another class's feature is present with probability s / k", symbol="s", above=True
    )
    noise: float = field(1.0, "norm of a patch's noise", symbol="nu", above=True)
    neurons: int = field(4, "neurons a class", 1, 1000, "m")
    power: int = field(3, "the activation is z^q / q below 1 and linear above", 2, 16, "q")
    init_scale: float = field(1e-3, "standard deviation of initial weights", symbol="sigma_0/varrho", above=True)
    trust: float = field(0.1, "largest relative change of a feature coordinate in a step", symbol="delta", above=True)
    distill_time: float = field(
        2.5e5, "flow time of one student a seed, distilled in either engine from its members; 0 for none", symbol="T'"
    )

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Those that are simulated, d / 16, d / 4 and d."""
        return self.dimension // 16, self.dimension // 4, self.dimension

    def world(self, dimension: int) -> MultiViewConfig:
        """The multi-view distribution and the network, in so many dimensions."""
        names = ("members", "classes", "patches", "train_samples", "expected_others", "noise", "neurons", "power",
                 "init_scale", "trust")  # fmt: skip
        return MultiViewConfig(
            engine="dense", dimension=dimension, students=0, **{name: getattr(self, name) for name in names}
        )

    def rules(self) -> None:
        """Raise `InputError` where the smallest world's values do not fit each other."""
        if self.dimensions[0] < 2 * self.classes:
            raise InputError(
                f"--dimension {self.dimension}: a sixteenth of it has no room for {2 * self.classes} orthonormal "
                "features; raise it"
            )
        self.world(self.dimension).validate()


@dataclass(frozen=True)
class StudentsConfig(Config):
    """BatchEnsembles and single networks that learn from members of the multi-view world: symbols of both papers."""

    seeds: tuple[int, ...] = field((0, 1, 2, 3, 4), high=SEEDS, hint="e.g. 0,1,2")
    scan_seeds: int = field(3, "seeds of every scanned cell, the first of --seeds; 0 leaves the scan out", 0, 100)
    scan_time: float = field(3e3, "flow time of students in the scan", symbol="T'", above=True)
    members: int = field(4, "teachers, and members of a BatchEnsemble", 2, 100, "M")

    classes: int = field(4, "classes", 2, 100, "k")
    patches: int = field(12, "patches of a sample", 2, 1000, "P")
    train_samples: int = field(120, "training samples, two single-view ones a class included", 1, 10_000, "N")
    test_samples: int = field(1000, "fresh samples of either kind, multi-view and single-view", 1, 100_000)
    expected_others: float = field(
        2.0, "another class's feature is present with probability s / k", symbol="s", above=True
    )
    other_weight: Interval = field((0.3, 0.4), "another class's feature in a multi-view sample", symbol="z")
    other_weight_single: Interval = field((0.16, 0.22), "the same in a single-view sample", symbol="Gamma")
    neurons: int = field(8, "neurons a class", 1, 1000, "m")

    teacher_time: float = field(0.0, "flow time on labels by which teachers go on after they fit")
    distill_time: float = field(1e4, "flow time of students; labels until fitted follow", symbol="T'", above=True)
    rule: str = field("temperature", "what students make of their teachers' answers", choices=RULES)
    clip: float = field(1.2, "clipped rule: outputs at c or above count as c", symbol="c", above=True)
    soft_temperature: float = field(
        0.1, "clipped rule: of the soft labels softmax(min(F / c, 1) / tau)", symbol="tau", above=True
    )
    temperature: float = field(
        4.0, "of softmax(F / t), in the rule of that name and in ODS steps", symbol="t", above=True
    )
    max_steps: int = field(12000, "most steps of the distillation", 1)

    factors: str = field(
        "normal",
        "rank-one factors: N(1, sd^2) or random signs; aligned: they gate features one by one",
        choices=FACTORS,
    )
    factor_sd: float = field(0.5, "standard deviation of normal factors", 0, 100)
    factor_rate: float = field(0.5, "rate at which factors learn, beside the weights'", 0, 100)

    step_size: float = field(0.6, "norm of a step, on a sample", symbol="eta")
    redraw: int = field(20, "descent steps for which a draw of perturbed samples serves", 1, 10_000)

    def world(self) -> MultiViewConfig:
        """The multi-view distribution, the network and the descent."""
        names = ("members", "classes", "patches", "train_samples", "test_samples", "expected_others", "other_weight",
                 "other_weight_single", "neurons")  # fmt: skip
        return MultiViewConfig(**{name: getattr(self, name) for name in names})

    def rules(self) -> None:
        """Raise `InputError` where the world's values do not fit each other."""
        self.world().validate()
