"""Figures of an evaluation, from the content of its results.json."""

import math
from typing import Any

import numpy as np

from divkd.report.style import COLOURS, figure, legend_below, points
from divkd.report.words import MEASURE

DASHES = ("-", "--", "-.", (0, (1, 1)))
MANY_CLASSES = 20  # beyond which a confusion matrix has no room for numbers
MAX_NUMBERS = 10  # members beyond which the cells of a matrix have no room for their numbers


def reliability(results: dict[str, Any]) -> Any:
    """Accuracy against confidence with the share of samples in each bin below, before and after calibration."""
    versions = [("as given", results["reliability"], results["ece"])]
    if "cal_reliability" in results:
        bound = ", bound" if results["temperature_at_bound"] else ""
        title = f"calibrated, T = {results['temperature']:.2f}{bound}"
        versions.append((title, results["cal_reliability"], results["cal_ece"]))
    fig, axes = figure(4.0 * len(versions) + 0.4, 4.6, len(versions), 2, (3, 1))
    for ax, shares, (title, bins, ece) in zip(axes, axes[len(versions) :], versions, strict=False):
        rows = [row for row in bins if row["n"]]
        centres, width = _shares(ax, shares, rows, "confidence")
        ax.bar(centres, [row["accuracy"] for row in rows], width, color=COLOURS[6], edgecolor=COLOURS[1], linewidth=0.8,
               label="accuracy in the bin")  # fmt: skip
        confidences = [row["confidence"] for row in rows]
        ax.plot(confidences, confidences, "o", color=COLOURS[0], markersize=4, label="mean confidence", zorder=4,
                clip_on=False)  # fmt: skip
        ax.plot([0, 1], [0, 1], color="0.35", linestyle="--", linewidth=1, label="perfect calibration", zorder=3)
        ax.set(ylim=(0, 1.03), ylabel="accuracy")
        ax.set_title(f"{title}: ECE {ece:.4f}", fontsize=10)
    legend_below(fig, axes[:1], 3 if len(versions) > 1 else 2)
    fig.suptitle(caption(results), fontsize=9)
    return fig


def diversity(results: dict[str, Any]) -> Any:
    """Members' pairwise KL by the confidence of their mean, with the share of samples in each bin below."""
    fig, (ax, shares) = figure(5.4, 4.6, rows=2, heights=(3, 1))
    rows = [row for row in results["diversity_by_confidence"] if row["n"]]
    centres, _ = _shares(ax, shares, rows, "confidence of the mean prediction")
    finite = [(x, row["pairwise_kl"]) for x, row in zip(centres, rows, strict=True) if _finite(row["pairwise_kl"])]
    if finite:
        ax.plot(*zip(*finite, strict=True), color=COLOURS[1], marker="o", label="in the bin", clip_on=False)
    if _finite(results["pairwise_kl"]):
        ax.axhline(results["pairwise_kl"], color=COLOURS[2], linestyle="--", linewidth=1.2, label="over all samples")
    top = 1.1 * max((y for _, y in finite), default=0) or 1
    ax.set(ylim=(0, top), ylabel="pairwise KL of members, nats")
    ax.set_title(caption(results), fontsize=9)
    _legend(ax, len(rows) - len(finite), len(rows), "in", "bin")
    return fig


def equivalent(results: dict[str, Any]) -> Any:
    """Calibrated NLL of the deep ensemble by size, and where the model stands on it."""
    fig, (ax,) = figure(5.6, 3.9)
    dee, nll = results["dee"], results["cal_nll"]
    rows = dee["curve"]
    curve = [row for row in rows if _finite(row["mean"])]
    if curve:
        label = "deep ensemble, mean ± sd over subsets"
        points(ax, [row["members"] for row in curve], curve, color=COLOURS[1], marker="o", capsize=3, label=label)
    if _finite(nll) and not dee["own_members"]:
        ax.axhline(nll, color=COLOURS[2], linestyle="--", linewidth=1.2, label="the model")
        label = f"worth {'≥ ' if dee['censored'] else ''}{dee['value']:.2f} members"
        ax.plot([dee["value"]], [nll], "D", color=COLOURS[2], zorder=4, clip_on=False, label=label)
    ax.set_xticks([row["members"] for row in rows][:: max(1, len(rows) // 10)])
    ax.set(xlim=(0.6, len(rows) + 0.4), xlabel="members of the deep ensemble", ylabel=MEASURE["cal_nll"].axis)
    sampled = [row["n"] for row in rows if row["n"] < row["of"]]
    counts = f"at most {max(sampled)} subsets a size" if sampled else "all subsets of each size"
    ax.set_title(f"{caption(results)}\n{counts}", fontsize=9)
    _legend(ax, len(rows) - len(curve), len(rows), "at", "size")
    return fig


def _shares(ax: Any, below: Any, rows: list[dict[str, Any]], confidence: str) -> tuple[list[float], float]:
    """Share of samples in each bin `below` the axes of the same bins; their centres, and the width of a bar."""
    centres, width = [(row["low"] + row["high"]) / 2 for row in rows], (rows[0]["high"] - rows[0]["low"]) * 0.92
    ax.set_xlim(0, 1)
    ax.tick_params(labelbottom=False)
    below.bar(centres, [row["share"] for row in rows], width, color="0.6")
    below.set(xlim=(0, 1), ylim=(0, None), xlabel=confidence, ylabel="share of\nsamples")
    return centres, width


def _legend(ax: Any, missing: int, places: int, at: str, place: str) -> None:
    """The legend, titled by how many of the places hold no finite number; where nothing is drawn, that in words."""
    if ax.get_legend_handles_labels()[0]:
        note = f"infinite {at} {missing} of {places} {place}s" if missing else None
        ax.legend(frameon=False, fontsize=8, title=note, title_fontsize=8)
    else:
        ax.text(0.5, 0.5, f"infinite {at} every {place}", transform=ax.transAxes, ha="center")


def similarity(results: dict[str, Any]) -> Any:
    """Member against member: the share of samples with the same predicted class, and the correlation of errors."""
    fig, axes = figure(8.4, 4.2, columns=2)
    titles = {"agreement": "same predicted class, share of samples", "error_correlation": "correlation of errors"}
    for ax, (key, title) in zip(axes, titles.items(), strict=True):
        _matrix(fig, ax, results["similarity"][key], title)
    fig.suptitle(f"{caption(results)}; hatched: no value", fontsize=9)
    return fig


def _matrix(fig: Any, ax: Any, values: list[list[float | None]], title: str) -> None:
    """A symmetric matrix as shades between its lowest and highest pair; the diagonal says nothing and is hatched."""
    pairs = np.array(values, dtype=float)  # null becomes NaN
    pairs[~np.isfinite(pairs) | np.eye(len(pairs), dtype=bool)] = np.nan
    known = pairs[np.isfinite(pairs)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    if high - low < 0.02:  # a difference of nothing must not fill the scale
        low, high = (low + high) / 2 - 0.01, (low + high) / 2 + 0.01
    image = ax.imshow(pairs, cmap="cividis", vmin=low, vmax=high)
    ax.patch.set(facecolor="white", edgecolor="0.6", hatch="////", linewidth=0)  # no shade of the scale, in grey too
    ax.grid(False)
    size = len(pairs)
    for i, j in np.argwhere(np.isfinite(pairs)) if size <= MAX_NUMBERS else ():
        colour = "white" if pairs[i, j] < (low + high) / 2 else "black"
        ax.text(j, i, f"{pairs[i, j]:.2f}", ha="center", va="center", fontsize=8 if size < 7 else 6, color=colour)
    ticks = range(0, size, max(1, size // 10))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(ticks, [tick + 1 for tick in ticks])
    ax.set(xlabel="member", ylabel="member")
    ax.set_title(title, fontsize=9)
    if known.size:
        fig.colorbar(image, ax=ax, shrink=0.85)


def risk_coverage(results: dict[str, Any]) -> Any:
    """Error rate of the most confident samples by their share; of one model beside the best order and none."""
    fig, (ax,) = figure(5.6, 4.2)
    each = models(results)
    for place, one in enumerate(each):
        curve = [(row["coverage"], row["risk"]) for row in one["risk_coverage"]]
        label = f"{_short(one['file'])}, AURC {one['aurc']:.4f}"
        ax.plot(*zip(*curve, strict=True), color=COLOURS[1 + place % 6], linestyle=DASHES[place % 4], label=label)
    if len(each) == 1:
        accuracy, shares = each[0]["acc"], np.linspace(0.01, 1, 100)
        ax.axhline(1 - accuracy, color="0.6", linestyle=":", linewidth=1.2, label="samples in any order")
        ax.plot(shares, np.maximum(0, 1 - accuracy / shares), color="0.35", linestyle="--", linewidth=1,
                label="all errors last")  # fmt: skip
    ax.set(
        xlim=(0, 1), xlabel="coverage: share of samples answered, most confident first", ylabel="error rate of these"
    )
    ax.set_ylim(bottom=0)
    ax.set_title(caption(results), fontsize=9)
    ax.legend(frameon=False, fontsize=8)
    return fig


def confusion(results: dict[str, Any]) -> Any:
    """Predicted class by true class: the shade is the share of the true class, the numbers are samples."""
    from matplotlib.colors import PowerNorm

    counts = np.array(results["confusion"])
    size, support = len(counts), counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.full(counts.shape, np.nan), where=support > 0)
    inches = min(9.0, 3.2 + 0.3 * size)
    fig, (ax,) = figure(inches, inches - 0.8)
    shade = PowerNorm(0.5, 0, 1)  # so that few among many can be seen
    image = ax.imshow(shares, cmap="Blues", norm=shade)
    ax.patch.set(facecolor="white", edgecolor="0.6", hatch="////", linewidth=0)
    ax.grid(False)
    for i, j in np.argwhere(counts) if size <= MANY_CLASSES else ():
        colour = "white" if shade(shares[i, j]) > 0.6 else "black"
        ax.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=8 if size <= 12 else 6, color=colour)
    ticks = range(0, size, max(1, size // 10))
    ax.set_xticks(ticks)
    ax.set_yticks(ticks)
    ax.set(xlabel="predicted class", ylabel="true class")
    hatched = "; hatched: no samples" if (support == 0).any() else ""
    ax.set_title(f"{caption(results)}{hatched}", fontsize=9)
    fig.colorbar(image, ax=ax, shrink=0.85, label="share of the true class", ticks=[0, 0.01, 0.1, 0.25, 0.5, 1])
    return fig


def models(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The evaluations that a results.json holds: of several files, or its own."""
    return list(results.get("models", [results]))


def caption(results: dict[str, Any], *, short: bool = True) -> str:
    """What stands behind a figure."""
    of = f"{results['samples']:,} test samples, {results['classes']} classes"
    if "models" in results:
        return f"{len(results['models'])} files of predictions: {of}"
    return f"{_short(results['file']) if short else results['file']}: {members(results)}, {of}"


def _short(file: str) -> str:
    return file if len(file) <= 32 else f"{file[:31]}…"


def members(results: dict[str, Any]) -> str:
    """How many members were evaluated."""
    return "one model" if results["members"] == 1 else f"{results['members']} members"


def _finite(value: float | None) -> bool:
    """False for null, as results.json writes infinities and NaN, and for these themselves."""
    return value is not None and math.isfinite(value)
