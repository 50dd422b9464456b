"""Names, numbers and remarks that the terminal's tables and the page share."""

import math
from typing import Any

from divkd.shared.stats import show

CLAIMS = {
    "single": "1 single network",
    "ensemble": "2 ensemble",
    "trained_jointly": "  trained jointly, outputs summed",
    "trained_jointly_average": "  trained jointly, true average",
    "distilled": "3 distilled, clipped rule",
    "ensemble_of_distilled": "  ensemble of distilled",
    "distilled_without_others": "  without other classes' features",
    "distilled_temperature": "  distilled at temperature T",
    "distilled_mixed": "  distilled by t CE + (1 - t) H",
    "self_distilled": "4 self-distilled",
    "labels_only": "  same flow time, labels only",
}
SHARES = {
    "one_view_fraction": "share of classes with one view learned",
    "lottery_accuracy": "share of winners that the lottery names",
    "distilled_views": "share of views that students of the ensemble know",
    "learned_inside_union": "share that the self-distilled know of the union of both networks' views",
    "learned_outside_union": "share that they know of the views outside it",
}
EVALUATED = (
    ("acc", "accuracy"),
    ("nll", "NLL, nats"),
    ("brier", "Brier, 0 to 2"),
    ("ece", "ECE, 15 bins"),
    ("cal_nll", "calibrated NLL, nats"),
    ("cal_brier", "calibrated Brier"),
    ("cal_ece", "calibrated ECE"),
    ("nll_member", "members' mean NLL, nats"),
    ("ensemble_gain", "ensemble gain, nats"),
    ("pairwise_kl", "pairwise KL, nats"),
    ("disagreement", "disagreement of pairs"),
    ("error_correlation", "correlation of errors"),
    ("mutual_information", "mutual information, nats"),
)
DIVERSE = {"nll_member", "ensemble_gain", "pairwise_kl", "disagreement", "error_correlation", "mutual_information"}


def claim_of(name: str, claim: dict[str, Any]) -> str:
    """A claim's name in a table, with the ensemble's size."""
    return f"{CLAIMS[name]} of {claim['members']}" if name == "ensemble" else CLAIMS[name]


def bound_of(claim: dict[str, Any]) -> str:
    """The theorem's bound; empty where it has none."""
    return "" if claim["bound"] is None else " to ".join(f"{edge:g}" for edge in claim["bound"])


def equivalent(dee: dict[str, Any] | None) -> str:
    """A deep ensemble equivalent over seeds, a lower bound where one of them was censored."""
    return "" if dee is None else f"{'>= ' if dee['censored'] else ''}{show(dee, 2)}"


def difference(found: dict[str, Any]) -> str:
    """A paired difference, with its interval where there is one."""
    ends = "" if found["low"] is None else f" ({found['low']:+.3f} to {found['high']:+.3f})"
    return f"{found['mean']:+.3f}{ends}"


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


def remarks(results: dict[str, Any]) -> list[str]:
    """What a reader of an evaluation's numbers must know."""
    lines = []
    if "temperature" in results:
        fitted = f"temperature {results['temperature']:.3f}, fitted on {results['validation_samples']:,} val_* samples"
        bound = "; the fit ended at its bound, so the calibrated values describe the bound"
        lines.append(fitted + (bound if results["temperature_at_bound"] else ""))
    else:
        lines.append("no calibrated values and no DEE: the file has no val_* arrays, and the test set never chooses")
    if "dee" in results:
        dee = results["dee"]
        curve = "  ".join(f"{row['members']}: {number(row['mean'])}" for row in dee["curve"])
        lines.append(f"calibrated NLL of a deep ensemble by members  {curve}")
        if not dee["own_members"]:
            sign = ">= " if dee["censored"] else ""
            lines.append(f"deep ensemble equivalent {sign}{dee['value']:.2f}, on the members of {dee['ensemble']}")
    return lines
