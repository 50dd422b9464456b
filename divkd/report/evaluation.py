"""Figures of an evaluation, from the content of its results.json."""

import math
from pathlib import Path
from typing import Any

from divkd.report.style import COLOURS, figure, save_both, stacked

FIGURES = ("reliability", "diversity", "dee", "similarity")
MAX_NUMBERS = 10  # members beyond which the cells of a matrix have no room for their numbers


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw every figure that the results have the numbers for into `folder`, PNG and SVG, and return the paths."""
    drawn = reliability(results, folder / "reliability")
    if "diversity_by_confidence" in results:
        drawn += diversity(results, folder / "diversity")
        drawn += similarity(results, folder / "similarity")
    if "dee" in results:
        drawn += equivalent(results, folder / "dee")
    return drawn


def reliability(results: dict[str, Any], path: Path) -> list[Path]:
    """Accuracy against confidence with the share of samples in each bin below, before and after calibration."""
    versions = [("as given", results["reliability"], results["ece"])]
    if "cal_reliability" in results:
        bound = ", bound" if results["temperature_at_bound"] else ""
        title = f"calibrated, T = {results['temperature']:.2f}{bound}"
        versions.append((title, results["cal_reliability"], results["cal_ece"]))
    fig, (above, below) = stacked(4.0 * len(versions) + 0.4, 4.6, len(versions), (3, 1))
    for ax, shares, (title, rows, ece) in zip(above, below, versions, strict=True):
        full = [row for row in rows if row["n"]]
        centres = [(row["low"] + row["high"]) / 2 for row in full]
        width = (rows[0]["high"] - rows[0]["low"]) * 0.92
        ax.bar(centres, [row["accuracy"] for row in full], width, color=COLOURS[6], edgecolor=COLOURS[1], linewidth=0.8,
               label="accuracy in the bin")  # fmt: skip
        ax.plot([row["confidence"] for row in full], [row["confidence"] for row in full], "o", color=COLOURS[0],
                markersize=4, label="mean confidence", zorder=4, clip_on=False)  # fmt: skip
        ax.plot([0, 1], [0, 1], color="0.35", linestyle="--", linewidth=1, label="perfect calibration", zorder=3)
        ax.set(xlim=(0, 1), ylim=(0, 1.03))
        ax.set_ylabel("accuracy")
        ax.tick_params(labelbottom=False)
        ax.set_title(f"{title}: ECE {ece:.4f}", fontsize=10)
        shares.bar(centres, [row["share"] for row in full], width, color="0.6")
        shares.set(xlim=(0, 1), xlabel="confidence", ylabel="share of\nsamples")
        shares.set_ylim(bottom=0)
    handles, labels = above[0].get_legend_handles_labels()
    fig.legend(
        handles, labels, loc="outside lower center", ncols=3 if len(versions) > 1 else 2, frameon=False, fontsize=8
    )
    fig.suptitle(caption(results), fontsize=9)
    return save_both(fig, path)


def diversity(results: dict[str, Any], path: Path) -> list[Path]:
    """Members' pairwise KL by the confidence of their mean, with the share of samples in each bin below."""
    fig, (above, below) = stacked(5.4, 4.6, 1, (3, 1))
    (ax,), (shares,) = above, below
    rows = [row for row in results["diversity_by_confidence"] if row["n"]]
    width = (rows[0]["high"] - rows[0]["low"]) * 0.92
    centres = [(row["low"] + row["high"]) / 2 for row in rows]
    finite = [(x, row["pairwise_kl"]) for x, row in zip(centres, rows, strict=True) if _finite(row["pairwise_kl"])]
    if finite:
        ax.plot(*zip(*finite, strict=True), color=COLOURS[1], marker="o", label="in the bin", clip_on=False)
    if _finite(results["pairwise_kl"]):
        ax.axhline(results["pairwise_kl"], color=COLOURS[2], linestyle="--", linewidth=1.2, label="over all samples")
    missing = len(rows) - len(finite)
    ax.set_ylim(0, 1.1 * max((y for _, y in finite), default=0) or 1)
    ax.set(xlim=(0, 1), ylabel="pairwise KL of members, nats")
    ax.tick_params(labelbottom=False)
    ax.set_title(caption(results), fontsize=9)
    if ax.get_legend_handles_labels()[0]:
        note = f"infinite in {missing} of {len(rows)} bins" if missing else None
        ax.legend(frameon=False, fontsize=8, title=note, title_fontsize=8)
    else:
        ax.text(0.5, 0.5, "infinite in every bin", transform=ax.transAxes, ha="center")
    shares.bar(centres, [row["share"] for row in rows], width, color="0.6")
    shares.set(xlim=(0, 1), xlabel="confidence of the mean prediction", ylabel="share of\nsamples")
    shares.set_ylim(bottom=0)
    return save_both(fig, path)


def equivalent(results: dict[str, Any], path: Path) -> list[Path]:
    """Calibrated NLL of the deep ensemble by size, and where the model stands on it."""
    fig, (ax,) = figure(5.6, 3.9)
    dee = results["dee"]
    curve = [row for row in dee["curve"] if _finite(row["mean"])]
    sizes, means = [row["members"] for row in curve], [row["mean"] for row in curve]
    if curve:
        ax.errorbar(sizes, means, yerr=[row["std"] or 0 for row in curve], color=COLOURS[1], marker="o", capsize=3,
                    label="deep ensemble, mean ± sd over subsets")  # fmt: skip
    if _finite(results["cal_nll"]) and not dee["own_members"]:
        value, sign = dee["value"], "≥ " if dee["censored"] else ""
        ax.axhline(results["cal_nll"], color=COLOURS[2], linestyle="--", linewidth=1.2, label="the model")
        ax.plot([value], [results["cal_nll"]], "D", color=COLOURS[2], zorder=4, clip_on=False,
                label=f"worth {sign}{value:.2f} members")  # fmt: skip
    ax.set_xticks([row["members"] for row in dee["curve"]][:: max(1, len(dee["curve"]) // 10)])
    ax.set_xlim(0.6, len(dee["curve"]) + 0.4)
    ax.set(xlabel="members of the deep ensemble", ylabel="calibrated NLL, nats")
    sampled = [row for row in dee["curve"] if row["n"] < row["of"]]
    counts = f"at most {max(row['n'] for row in sampled)} subsets a size" if sampled else "all subsets of each size"
    ax.set_title(f"{caption(results)}\n{counts}", fontsize=9)
    if curve:
        missing = len(dee["curve"]) - len(curve)
        note = f"infinite at {missing} of {len(dee['curve'])} sizes" if missing else None
        ax.legend(frameon=False, fontsize=8, title=note, title_fontsize=8)
    else:
        ax.text(0.5, 0.5, "infinite at every size", transform=ax.transAxes, ha="center")
    return save_both(fig, path)


def similarity(results: dict[str, Any], path: Path) -> list[Path]:
    """Member against member: the share of samples with the same predicted class, and the correlation of errors."""
    fig, (left, right) = figure(8.4, 4.2, columns=2)
    _matrix(fig, left, results["similarity"]["agreement"], "same predicted class, share of samples")
    _matrix(fig, right, results["similarity"]["error_correlation"], "correlation of errors")
    fig.suptitle(f"{caption(results)}; hatched: no value", fontsize=9)
    return save_both(fig, path)


def _matrix(fig: Any, ax: Any, values: list[list[float | None]], title: str) -> None:
    """A symmetric matrix as shades between its lowest and highest pair; the diagonal says nothing and is hatched."""
    size = len(values)
    pairs = [
        [math.nan if i == j or not _finite(value) else value for j, value in enumerate(row)]
        for i, row in enumerate(values)
    ]
    known = [value for row in pairs for value in row if value is not None and not math.isnan(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    if high - low < 0.02:  # a difference of nothing must not fill the scale
        low, high = (low + high) / 2 - 0.01, (low + high) / 2 + 0.01
    image = ax.imshow(pairs, cmap="cividis", vmin=low, vmax=high)
    ax.patch.set(facecolor="white", edgecolor="0.6", hatch="////", linewidth=0)  # no shade of the scale, in grey too
    ax.grid(False)
    cells = ((i, j, value) for i, row in enumerate(pairs) for j, value in enumerate(row) if value is not None)
    for i, j, value in cells if size <= MAX_NUMBERS else ():
        if math.isnan(value):
            continue
        colour = "white" if value < (low + high) / 2 else "black"
        ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8 if size < 7 else 6, color=colour)
    ticks = range(0, size, max(1, size // 10))
    ax.set_xticks(ticks, [tick + 1 for tick in ticks])
    ax.set_yticks(ticks, [tick + 1 for tick in ticks])
    ax.set(xlabel="member", ylabel="member")
    ax.set_title(title, fontsize=9)
    if known:
        fig.colorbar(image, ax=ax, shrink=0.85)


def caption(results: dict[str, Any]) -> str:
    """What stands behind a figure."""
    members = "one model" if results["members"] == 1 else f"{results['members']} members"
    file = results["file"] if len(results["file"]) <= 32 else f"{results['file'][:31]}…"
    return f"{file}: {members}, {results['samples']:,} test samples, {results['classes']} classes"


def _finite(value: float | None) -> bool:
    """False for null, as results.json writes infinities and NaN, and for these themselves."""
    return value is not None and math.isfinite(value)
