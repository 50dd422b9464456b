"""What a simulation of the multi-view theory depends on, with the finite-size regimes that were measured to hold.

Imports nothing heavy: the command line reads this module for ``--help``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from divkd.shared.config import SEEDS, Config, Interval, field
from divkd.shared.errors import InputError
from divkd.shared.kinds import ENGINES, LINKS


@dataclass(frozen=True)
class MultiViewConfig(Config):
    """One simulation: the distribution, the network, the descent and the machine. Symbols are those of the paper.

    Allen-Zhu and Li, arXiv 2012.09816. Weights and strengths are in units of varrho, the width of the smoothed
    part of the activation, so that `init_scale` is sigma_0 / varrho and outputs are varrho times a sum of
    activations.
    """

    preset: str = field("default")
    seeds: tuple[int, ...] = field((0, 1, 2), high=SEEDS, hint="e.g. 0,1,2")
    members: int = field(10, low=1)  # M: independent networks a seed; ensembles of 1..M are made of them
    engine: str = field("limit", choices=ENGINES)
    device: str = field("cpu", hint="cpu, cuda or cuda:N")  # of the dense engine; the limit engine runs on the CPU
    dimension: int = field(1000, low=1)  # d, of the dense engine alone

    # the multi-view distribution
    classes: int = field(10, "classes", 2, symbol="k")
    views: int = field(2, "views of a class", 1, 12, "V")  # predictions list every subset of them
    patches: int = field(32, "patches of a sample", 2, symbol="P")
    train_samples: int = field(1200, "training samples, single-view ones included", 1, symbol="N")
    test_samples: int = field(2000, "fresh samples of either kind, multi-view and single-view", 1)
    single_views: int = field(1, "single-view training samples per (class, view); mu = V k times this / N")
    expected_others: float = field(
        5.0, "each view of another class is present with probability s / k", symbol="s", above=True
    )
    own_patches: int = field(3, "patches that share the weight of an own view", 1, symbol="C_p")
    own_weight: Interval = field((1.1, 1.3), "sum of z over an own view's patches", symbol="z")
    other_weight: Interval = field((0.3, 0.4), "another class's feature in a multi-view sample", symbol="z")
    other_weight_single: Interval = field((0.16, 0.22), "the same in a single-view sample", symbol="Gamma")
    missing_weight: Interval = field((0.1, 0.15), "z of an own view that a single-view sample lacks", symbol="rho")
    second_view: float = field(
        1.0,
        "of two views, every class's second one shows with this share of its weight: 1 for balance, 0 for one view",
        high=1,
        hint="a share of the first view's",
    )
    noise: float = field(1.0, "norm of a patch's noise, nu^2 = sigma_p^2 d", symbol="nu", above=True)

    feature_noise: float = field(
        0.0, "every patch shows every feature with a weight uniform in [0, gamma]", symbol="gamma"
    )
    coherence: float = field(
        0.0, "<v, v'> = c or -c of any two features, in the dense engine; 0 for orthogonal ones", high=1, symbol="c"
    )

    # the network
    neurons: int = field(8, "neurons a class", 1, symbol="m")
    power: int = field(
        3, "the activation is z^q / q below 1 and linear above", 2, 16, "q", hint="flatter ones are never left"
    )
    init_scale: float = field(5e-4, "standard deviation of initial weights", symbol="sigma_0/varrho", above=True)
    logit_scale: float = field(
        3.0, "width of the smoothed part of the activation; scale of outputs", symbol="varrho", above=True
    )

    # the descent
    trust: float = field(0.3, "largest relative change of a feature coordinate in a step", symbol="delta", above=True)
    trust_cap: float = field(2.0, "coordinates above this move by at most trust times this a step", above=True)
    noise_trust: float = field(
        0.3, "a patch's <w, xi> moves by at most trust / noise_trust a step", symbol="dn", above=True
    )
    max_steps: int = field(20000, "a network that is not finished by then ends the run", 1)

    # the students
    students: int = field(5, "students of every kind a seed; 0 leaves out distillation and its controls")
    chain: int = field(
        3,
        "S_1, ..., S_n: fresh networks, each distilled from the one before, S_1 from a member; 0: none",
        high=LINKS,
        symbol="n",
    )
    joint: int = field(5, "networks that are trained jointly, as one of K times the width", 2, symbol="K")
    distill_time: float = field(4e6, "flow time of distillation; labels until fitted follow", symbol="T'", above=True)
    clip: float = field(1.2, "outputs at c or above count as c in the soft labels", symbol="c", above=True)
    soft_temperature: float = field(0.1, "of the soft labels softmax(min(F / c, 1) / tau)", symbol="tau", above=True)
    temperature: float = field(300.0, "of ordinary distillation by temperature", symbol="T", above=True)
    label_share: float = field(0.5, "in the loss t CE + (1 - t) H(S, T)", high=1, symbol="t")
    soft_steps: int = field(3000, "most steps by temperature or by H(S, T), which are stiff", 1)

    @property
    def features(self) -> int:
        """V k, feature i V + l is view l of class i."""
        return self.views * self.classes

    @property
    def single_share(self) -> float:
        """mu, the share of single-view samples."""
        return self.features * self.single_views / self.train_samples

    def single_views_of(self, share: float) -> int:
        """The `single_views` whose mu = V k single_views / N is nearest to `share`; `InputError` where that is none."""
        nearest = round(share * self.train_samples / self.features) if 0 <= share <= 1 else 0
        if nearest < 1:
            least = self.features / self.train_samples
            raise InputError(
                f"--mu {share:g} is no sample of every (class, view): mu is a multiple of V k / N = {least:.4g}, from "
                "that to 1; give one, or --single-views 0"
            )
        return nearest

    def rules(self) -> None:
        """Raise `InputError` for the first values that do not fit each other."""
        features = self.features
        single = features * self.single_views
        if self.expected_others > self.classes:
            raise InputError(
                f"--expected-others {self.expected_others} is s in the probability s / k; "
                f"at most --classes {self.classes} is possible: lower it"
            )
        if self.train_samples < single + 2 * self.classes:
            raise InputError(
                f"--train-samples {self.train_samples} leaves under two multi-view samples a class beside the "
                f"{single} single-view ones; raise it or lower --single-views (--mu)"
            )
        if self.views * self.own_patches > self.patches:
            raise InputError(
                f"--patches {self.patches} cannot hold {self.views} views of --own-patches {self.own_patches}; "
                "raise --patches"
            )
        if self.views != 2 and self.second_view != 1:
            raise InputError(
                f"--second-view {self.second_view} is of two views, not of --views {self.views}; leave it out"
            )
        if self.engine == "dense" and self.dimension < features:
            raise InputError(f"--dimension {self.dimension} has no room for {features} orthonormal features; raise it")
        if self.engine == "limit" and self.coherence:
            raise InputError(
                f"--coherence {self.coherence}: features of the limit engine are orthogonal; leave it out, or give "
                "--engine dense"
            )
        if self.device.split(":")[0] not in ("cpu", "cuda"):
            raise InputError(f"--device {self.device} is not allowed; give cpu, cuda or cuda:N")
        if self.engine == "limit" and self.device != "cpu":
            raise InputError(
                f"--device {self.device}: the limit engine runs on the CPU; give --device cpu or --engine dense"
            )

    def warnings(self) -> Iterator[str]:
        """What will run, but not as the theory has it: one line each, with the mend."""
        if self.init_scale > 1:
            yield (
                f"init_scale {self.init_scale} puts sigma_0 above varrho: activations start in their linear part, "
                "where every view is learned and there is no lottery to win; the measured regime has 5e-4"
            )
        elif self.init_scale > 0.01:
            yield (
                f"init_scale {self.init_scale}: from a start so near to varrho several views of a class often come in "
                "together; the measured regime has 5e-4"
            )
        if self.power == 2:
            yield "power 2: views grow exponentially, none outruns the others, and all are learned; give 3"
        if self.missing_weight[1] > self.other_weight_single[0]:
            yield (
                f"missing_weight {self.missing_weight} reaches into other_weight_single {self.other_weight_single}: a "
                "single-view sample then shows its missing view as strongly as other classes; lower missing_weight"
            )


# How `default` was found (seeds 0-4; docs/theory.md has the map around it). s = 5: a competitor is nearly always
# present, so that single models err on nearly half of the single-view samples. tau = 0.1: on classes that a sample does
# not show, the soft labels of two networks differ by about exp(-1 / tau), a drive without end that at tau = 0.25 taught
# the self-distilled a tenth of the views that neither network knew. Gamma in U[.16, .22] lightens the ensemble's tail;
# c lies below the teacher's output on another class's feature; own weights from 1.1 keep the few networks with two
# strong views in a class from erring on multi-view samples. `quick` is the smaller world, `large` one of 50 classes.
# `toy` is that of the paper's introduction: two classes of two views each, 80 % of the samples with both and 10 % with
# either and nothing of the other, the other class's features at a weight of 0.1. It has no students: at that weight
# they learn nothing from it.
PRESETS: dict[str, MultiViewConfig] = {
    "quick": MultiViewConfig(preset="quick", seeds=(0,), students=0, train_samples=600),
    "default": MultiViewConfig(),
    "large": MultiViewConfig(
        preset="large", seeds=(0,), classes=50, train_samples=3000, test_samples=4000, students=3, joint=3,
        distill_time=4e7,
    ),
    "toy": MultiViewConfig(
        preset="toy", seeds=(0, 1, 2, 3, 4), classes=2, patches=10, train_samples=400, single_views=20,
        expected_others=1.0, other_weight=(0.1, 0.1), other_weight_single=(0.1, 0.1), missing_weight=(0.0, 0.0),
        students=0,
    ),
}  # fmt: skip
