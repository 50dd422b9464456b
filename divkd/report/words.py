"""Names, numbers and remarks that tables, figures and pages share."""

import math
from typing import Any, NamedTuple

from divkd.shared.kinds import METHODS, MODELS
from divkd.shared.stats import show


class Measure(NamedTuple):
    """A measured number, under its key in results.json: what it is called, in what, and how exactly it is shown."""

    key: str
    label: str
    unit: str = ""
    scale: str = ""  # what else a reader must know of the number
    digits: int = 3
    of_members: bool = False  # a single model has none

    @property
    def axis(self) -> str:
        """As it is called on an axis."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    @property
    def title(self) -> str:
        """As it is called where it stands alone."""
        return f"{self.axis}, {self.scale}" if self.scale else self.axis


# Of predictions, in the order of an evaluation's table, which shows those that its results hold.
MEASURES = (
    Measure("acc", "accuracy"),
    Measure("nll", "NLL", "nats"),
    Measure("brier", "Brier", scale="0 to 2"),
    Measure("ece", "ECE", scale="15 bins", digits=4),
    Measure("adaptive_ece", "adaptive ECE", scale="15 bins", digits=4),
    Measure("aurc", "AURC", digits=4),
    Measure("cal_nll", "calibrated NLL", "nats"),
    Measure("cal_brier", "calibrated Brier"),
    Measure("cal_ece", "calibrated ECE", digits=4),
    Measure("cal_adaptive_ece", "calibrated adaptive ECE", digits=4),
    Measure("cal_aurc", "calibrated AURC", digits=4),
    Measure("nll_member", "members' mean NLL", "nats", of_members=True),
    Measure("ensemble_gain", "ensemble gain", "nats", of_members=True),
    Measure("pairwise_kl", "pairwise KL", "nats", of_members=True),
    Measure("disagreement", "disagreement of pairs", of_members=True),
    Measure("error_correlation", "correlation of errors", of_members=True),
    Measure("mutual_information", "mutual information", "nats", of_members=True),
)
# Of a trained network beside its predictions.
TRAINED = (
    Measure("train_acc", "train accuracy"),
    Measure("temperature", "temperature", digits=2),
    Measure("dee", "DEE", digits=2),
    Measure("views_missed", "classes with a view missed"),
    Measure("views_missed_member", "members' mean of classes with a view missed", of_members=True),
)
MEASURE = {one.key: one for one in (*MEASURES, *TRAINED)}


def views_of(results: dict[str, Any]) -> int:
    """The views of a class in a simulation: runs that do not say have two."""
    return int(results["config"].get("views", 2))


def labels(*keys: str) -> list[str]:
    """What the measures of those keys are called."""
    return [MEASURE[key].label for key in keys]


NETWORK = ["model", "method", "M"]  # the headings over `network`


def network(row: dict[str, Any]) -> list[str]:
    """Model, method and members of a row, as words."""
    return [MODELS[row["model"]], learned(row["method"]), str(row["members"])]


def learned(method: str) -> str:
    """How a network learned: the method, or from labels alone."""
    return METHODS["none"] if method == "none" else method


def one_seed(results: dict[str, Any]) -> str:
    """What a figure of the first seed alone is of."""
    return f"seed {results['seeds'][0]} alone"


def seeds(results: dict[str, Any]) -> str:
    """What a figure of all seeds is of."""
    return f"n = {len(results['seeds'])} seeds" if len(results["seeds"]) > 1 else one_seed(results)


def listed_seeds(seeds: list[int]) -> str:
    """Seeds as words, e.g. ``seeds 0 to 4 (n = 5)``."""
    if len(seeds) == 1:
        return f"seed {seeds[0]} (n = 1)"
    run = seeds == list(range(seeds[0], seeds[0] + len(seeds)))
    shown = f"{seeds[0]} to {seeds[-1]}" if run and len(seeds) > 2 else ", ".join(str(seed) for seed in seeds)
    return f"seeds {shown} (n = {len(seeds)})"


def spread(results: dict[str, Any], what: str = "mean ± sd over") -> str:
    """What a point and its error bar are."""
    count = len(results["seeds"])
    return f"{what} {count} seeds" if count > 1 else "one seed"


def trained_on(results: dict[str, Any], more: str = "") -> str:
    """Data set, network, and how many images it was trained on, and `more`."""
    return f"{results['dataset']}, {results['network']}, {results['split']['train']} training{more} images"


def corruptions(made: dict[str, Any]) -> str:
    """Who made an analysis' corrupted images."""
    return "our own generator, not CIFAR-10-C" if made["source"].startswith("own") else str(made["source"])


def equivalent(dee: dict[str, Any] | None) -> str:
    """A deep ensemble equivalent over seeds, a lower bound where one of them was censored."""
    return "" if dee is None else f"{'>= ' if dee['censored'] else ''}{show(dee, MEASURE['dee'].digits)}"


def difference(paired: dict[str, Any]) -> str:
    """A paired difference, with its interval where there is one."""
    ends = "" if paired["low"] is None else f" ({paired['low']:+.3f} to {paired['high']:+.3f})"
    return f"{paired['mean']:+.3f}{ends}"


def number(value: float | None) -> str:
    """Four decimals; null is what results.json writes for an infinity or NaN."""
    if value is None:
        return "not finite"
    if math.isnan(value):
        return "undefined"
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.3e}"


def span(interval: tuple[float | None, float | None] | None) -> str:
    """An interval; empty where there is none."""
    return "" if interval is None else f"[{number(interval[0])}, {number(interval[1])}]"
