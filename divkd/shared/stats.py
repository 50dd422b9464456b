"""Mean, spread and count of a number over seeds."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.special import stdtrit


def summarise(values: Iterable[float]) -> dict[str, Any]:
    """{mean, std, n}: std is the sample standard deviation (n - 1), null where n < 2 or infinities leave no spread."""
    array = np.array(list(values), dtype=np.float64)
    with np.errstate(over="ignore"):  # the square of 1e200 is infinite, and so is the spread then
        mean = float(array.mean())
        spread = float(array.std(ddof=1)) if array.size > 1 and np.isfinite(array).all() else math.inf
    return {"mean": mean, "std": spread if math.isfinite(spread) else None, "n": int(array.size)}


def show(summary: dict[str, Any], digits: int = 3) -> str:
    """`summary` as text, e.g. ``0.464 ± 0.005``; a single run shows no spread, an infinite mean shows as inf."""
    if summary["mean"] is None:
        return "inf"
    spread = "" if summary["std"] is None else f" ± {summary['std']:.{digits}f}"
    return f"{summary['mean']:.{digits}f}{spread}"


def paired(first: Iterable[float], second: Iterable[float]) -> dict[str, Any]:
    """The differences first_i - second_i as {mean, std, n, low, high}: low and high are Student's 95 % interval,

        mean +- t_{0.975, n - 1} std / sqrt(n),

    null where n < 2. Pairs share what is random in both, so that their difference varies less than either.
    """
    return interval(np.array(list(first), dtype=np.float64) - np.array(list(second), dtype=np.float64))


def interval(values: Iterable[float]) -> dict[str, Any]:
    """`summarise`, and Student's 95 % interval as in `paired`: {mean, std, n, low, high}."""
    summary = summarise(values)
    if summary["std"] is None:
        return summary | {"low": None, "high": None}
    half = float(stdtrit(summary["n"] - 1, 0.975)) * summary["std"] / math.sqrt(summary["n"])
    return summary | {"low": summary["mean"] - half, "high": summary["mean"] + half}
