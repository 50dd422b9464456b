"""What a simulation of the multi-view theory depends on, with the finite-size regimes that were measured to hold.

Imports nothing heavy: the command line reads this module for ``--help``.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from divkd.shared.errors import InputError, unknown

ENGINES = ("limit", "dense")
Interval = tuple[float, float]


def _parameter(default: Any, symbol: str, meaning: str) -> Any:
    """A field that the command line offers as an option: its default, the paper's symbol and what it means."""
    return dataclasses.field(default=default, metadata={"symbol": symbol, "meaning": meaning})


@dataclass(frozen=True)
class MultiViewConfig:
    """One simulation: the distribution, the network, the descent and the machine. Symbols are those of the paper.

    Allen-Zhu and Li, arXiv 2012.09816. Weights and strengths are in units of varrho, the width of the smoothed
    part of the activation, so that `init_scale` is sigma_0 / varrho and outputs are varrho times a sum of
    activations.
    """

    preset: str = "default"
    seeds: tuple[int, ...] = (0, 1, 2)
    members: int = 10  # M: independent networks a seed; ensembles of 1..M are made of them
    engine: str = "limit"  # limit: the exact d -> infinity limit; dense: weights and patches in R^d
    device: str = "cpu"  # of the dense engine; the limit engine runs on the CPU
    dimension: int = 1000  # d, of the dense engine alone

    # the multi-view distribution
    classes: int = _parameter(10, "k", "classes")
    patches: int = _parameter(32, "P", "patches of a sample")
    train_samples: int = _parameter(1200, "N", "training samples, single-view ones included")
    test_samples: int = _parameter(2000, "", "fresh samples of either kind, multi-view and single-view")
    single_views: int = _parameter(1, "", "single-view training samples per (class, view); mu = 2 k times this / N")
    expected_others: float = _parameter(5.0, "s", "another class's feature is present with probability s / k")
    own_patches: int = _parameter(3, "C_p", "patches that share the weight of an own view")
    own_weight: tuple[float, float] = _parameter((1.1, 1.3), "z", "sum of z over an own view's patches")
    other_weight: tuple[float, float] = _parameter((0.3, 0.4), "z", "another class's feature in a multi-view sample")
    other_weight_single: tuple[float, float] = _parameter((0.16, 0.22), "Gamma", "the same in a single-view sample")
    missing_weight: tuple[float, float] = _parameter(
        (0.1, 0.15), "rho", "z of the own view that a single-view sample lacks"
    )
    second_view: float = _parameter(
        1.0, "", "every class's second view shows with this share of its weight: 1 for balanced views, 0 for one view"
    )
    noise: float = _parameter(1.0, "nu", "norm of a patch's noise, nu^2 = sigma_p^2 d")

    # the network
    neurons: int = _parameter(8, "m", "neurons a class")
    power: int = _parameter(3, "q", "the activation is z^q / q below 1 and linear above; at least 2")
    init_scale: float = _parameter(5e-4, "sigma_0/varrho", "standard deviation of initial weights")
    logit_scale: float = _parameter(3.0, "varrho", "width of the smoothed part of the activation; scale of outputs")

    # the descent
    trust: float = _parameter(0.3, "delta", "largest relative change of a feature coordinate in a step")
    trust_cap: float = _parameter(2.0, "", "coordinates above this move by at most trust times this a step")
    noise_trust: float = _parameter(0.3, "dn", "a patch's <w, xi> moves by at most trust / noise_trust a step")
    max_steps: int = _parameter(20000, "", "a network that is not finished by then ends the run")

    # the students
    students: int = _parameter(5, "", "students of every kind a seed; 0 leaves out distillation and its controls")
    distill_time: float = _parameter(4e6, "T'", "flow time of distillation; labels until fitted follow")
    clip: float = _parameter(1.2, "c", "outputs at c or above count as c in the soft labels")
    soft_temperature: float = _parameter(0.1, "tau", "of the soft labels softmax(min(F / c, 1) / tau)")
    temperature: float = _parameter(300.0, "T", "of ordinary distillation by temperature")
    label_share: float = _parameter(0.5, "t", "in the loss t CE + (1 - t) H(S, T)")
    soft_steps: int = _parameter(3000, "", "most steps by temperature or by H(S, T), which are stiff")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that a run's config.json holds under ``config``; raises `InputError` on unknown fields."""
        fields = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                raise unknown("parameter", name, sorted(fields))
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        config = cls(**given)
        config.validate()
        return config

    @property
    def single_share(self) -> float:
        """mu, the share of single-view samples."""
        return 2 * self.classes * self.single_views / self.train_samples

    def validate(self) -> None:
        """Raise `InputError` at the first value that the simulation cannot work with."""
        if self.engine not in ENGINES:
            raise unknown("engine", str(self.engine), ENGINES)
        if not isinstance(self.seeds, tuple) or not self.seeds:
            raise InputError(f"seeds {self.seeds!r}: one or more whole numbers are needed; give --seeds 0,1,2")
        for seed in self.seeds:
            _whole("seeds", seed, 0)
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds {self.seeds!r}: a seed counts once; leave the repeated ones out")
        for name, least in WHOLE.items():
            _whole(name, getattr(self, name), least)
        for name in POSITIVE:
            _positive(name, getattr(self, name))
        for name in INTERVALS:
            _interval(name, getattr(self, name))
        if not isinstance(self.label_share, (int, float)) or not 0 <= self.label_share <= 1:
            raise InputError(f"label_share {self.label_share!r} is t in t CE + (1 - t) H; give a number from 0 to 1")
        if self.power > 16:
            raise InputError(f"power {self.power}: activations z^q so flat are never left; at most 16 is possible")
        if not isinstance(self.second_view, (int, float)) or not 0 <= self.second_view <= 1:
            raise InputError(
                f"second_view {self.second_view!r} is a share of the first view's; give a number from 0 to 1"
            )
        if self.expected_others > self.classes:
            raise InputError(
                f"expected_others {self.expected_others} is s in the probability s / k; "
                f"at most classes = {self.classes} is possible: lower it"
            )
        if self.train_samples < 2 * self.classes * self.single_views + 2 * self.classes:
            raise InputError(
                f"train_samples {self.train_samples} leaves under two multi-view samples a class beside the "
                f"{2 * self.classes * self.single_views} single-view ones; raise it or lower single_views"
            )
        if 2 * self.own_patches > self.patches:
            raise InputError(
                f"patches {self.patches} cannot hold two views of own_patches {self.own_patches} patches; raise patches"
            )
        if self.engine == "dense" and self.dimension < 2 * self.classes:
            raise InputError(
                f"dimension {self.dimension} has no room for {2 * self.classes} orthonormal features; raise it"
            )
        if not isinstance(self.device, str) or self.device.split(":")[0] not in ("cpu", "cuda"):
            raise InputError(f"device {self.device!r}: cpu, cuda or cuda:<number> are possible; give --device cpu")
        if self.engine == "limit" and self.device != "cpu":
            raise InputError(
                f"device {self.device!r}: the limit engine runs on cpu; give --device cpu or --engine dense"
            )

    def warnings(self) -> list[str]:
        """What will run, but not as the theory has it: one line each, with the mend."""
        found = []
        if self.init_scale > 1:
            found.append(
                f"init_scale {self.init_scale} puts sigma_0 above varrho: activations start in their linear part, "
                "where every view is learned and there is no lottery to win; the measured regime has 5e-4"
            )
        elif self.init_scale > 0.01:
            found.append(
                f"init_scale {self.init_scale}: from a start so near to varrho both views of a class often come in "
                "together; the measured regime has 5e-4"
            )
        if self.power == 2:
            found.append("power 2: views grow exponentially, none outruns the other, and both are learned; give 3")
        if self.missing_weight[1] > self.other_weight_single[0]:
            found.append(
                f"missing_weight {self.missing_weight} reaches into other_weight_single {self.other_weight_single}: a "
                "single-view sample then shows its missing view as strongly as other classes; lower missing_weight"
            )
        return found


MOST = 10**12  # of anything: far above what fits, far below what overflows
WHOLE = {
    "members": 1,
    "dimension": 1,
    "classes": 2,
    "patches": 2,
    "train_samples": 1,
    "test_samples": 1,
    "single_views": 0,
    "own_patches": 1,
    "neurons": 1,
    "power": 2,
    "max_steps": 1,
    "students": 0,
    "soft_steps": 1,
}
POSITIVE = (
    "expected_others", "noise", "init_scale", "logit_scale", "trust", "trust_cap", "noise_trust", "distill_time",
    "clip", "soft_temperature", "temperature",
)  # fmt: skip
INTERVALS = ("own_weight", "other_weight", "other_weight_single", "missing_weight")


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST:
        raise InputError(f"{name} {value!r}: a whole number of at least {least} is needed, and at most {MOST}")


def _positive(name: str, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= MOST:
        raise InputError(f"{name} {value!r}: a number above 0 is needed, and at most {MOST}")


def _interval(name: str, value: object) -> None:
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(number, (int, float)) for number in value):
        low, high = value
        if 0 <= low <= high <= MOST:
            return
    raise InputError(f"{name} {value!r}: two numbers low,high with 0 <= low <= high are needed")


# How `default` was found (seeds 0-4; docs/theory.md has the map around it). s = 5: a competitor is nearly always
# present, so that single models err on nearly half of the single-view samples. tau = 0.1: on classes that a sample does
# not show, the soft labels of two networks differ by about exp(-1 / tau), a drive without end that at tau = 0.25 taught
# the self-distilled a tenth of the views that neither network knew. Gamma in U[.16, .22] lightens the ensemble's tail;
# c lies below the teacher's output on another class's feature; own weights from 1.1 keep the few networks with two
# strong views in a class from erring on multi-view samples. `quick` is the smaller world, `large` one of 50 classes.
# `toy` is that of the paper's introduction: two classes of two views each, 80 % of the samples with both and 10 % with
# either, the other class's features at a weight of 0.1. It has no students: at that weight they learn nothing from it.
PRESETS: dict[str, MultiViewConfig] = {
    "quick": MultiViewConfig(preset="quick", seeds=(0,), members=4, students=0, train_samples=600, test_samples=1000),
    "default": MultiViewConfig(),
    "large": MultiViewConfig(
        preset="large", seeds=(0,), classes=50, train_samples=3000, test_samples=4000, students=3, distill_time=4e7
    ),
    "toy": MultiViewConfig(
        preset="toy", seeds=(0, 1, 2, 3, 4), classes=2, patches=10, train_samples=400, single_views=20,
        expected_others=1.0, other_weight=(0.1, 0.1), other_weight_single=(0.1, 0.1), missing_weight=(0.02, 0.04),
        students=0,
    ),
}  # fmt: skip
