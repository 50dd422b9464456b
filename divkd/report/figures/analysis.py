"""Figures of an analysis, from the content of its results.json."""

from collections.abc import Callable, Mapping
from functools import reduce
from itertools import product
from operator import getitem
from typing import Any

import numpy as np

from divkd.report.style import COLOURS, beside, figure, legend_below, look, one_scale, panels, points
from divkd.report.words import MEASURE, corruptions, learned, spread, trained_on
from divkd.shared.kinds import INPUTS, MODELS, STEPS
from divkd.shared.stats import summarise

Kind = tuple[str, str]  # model and method of a network
SPLITS = ("train", "test")
TEACHERS = ("deep_ensemble", "none")


def kinds(analysis: dict[str, Any], singles: bool | None = None) -> list[Kind]:
    """(model, method) of every network analysed, in order; of the single ones that by KD, or by `singles` all, none."""
    every = dict.fromkeys((row["model"], row["method"]) for row in analysis["rows"])
    return [kind for kind in every if kind[0] != "single" or (kind[1] == "kd" if singles is None else singles)]


def at(*path: str) -> Callable[[Any], Any]:
    """What reads that which lies under `path`."""
    return lambda one: reduce(getitem, path, one)


def over_seeds(analysis: dict[str, Any], kind: Kind, *path: str) -> list[Any]:
    """What lies under `path` in the rows of `kind`, one a seed."""
    return [at(*path)(row) for row in analysis["rows"] if (row["model"], row["method"]) == kind]


def named(kind: Kind, teachers: str = "teachers") -> str:
    """A network's name in a figure."""
    model, method = kind
    return teachers if model == "deep_ensemble" else f"{MODELS[model]}, {learned(method)}"


def caption(analysis: dict[str, Any]) -> str:
    """Data set, network, how many images and seeds."""
    return f"{trained_on(analysis)}; {spread(analysis, 'mean of')}"


def confidence_diversity(analysis: dict[str, Any]) -> Any:
    """Pairwise KL by confidence of the mean prediction, and how many images have it (Nam et al. 2021, figure 3).

    A column each for the teachers and the BatchEnsembles (of more than three, those by none, kd and ods), training
    images above, test images below; a line a kind of input. Bins that hold under 1 % of the images are left out.
    """
    shown = [kind for kind in kinds(analysis) if kind == TEACHERS or kind[0] == "batch_ensemble"]
    shown = [kind for kind in shown if kind[1] in ("none", "kd", "ods")] if len(shown) > 4 else shown
    fig, axes = figure(2.7 * len(shown) + 1.2, 5.6, columns=len(shown), rows=2)
    for ax, (split, kind) in zip(axes, product(SPLITS, shown), strict=True):
        diversity_lines(ax, {name: over_seeds(analysis, kind, "diversity", split, name) for name in INPUTS})
        ax.set_title(f"{named(kind)}: {split} images", fontsize=9)
    for ax in axes[:: len(shown)]:
        ax.set_ylabel("members' pairwise KL, nats")
    one_scale_with_shares(axes)
    fig.suptitle(f"{caption(analysis)}; first {analysis['images']} images of each", fontsize=10)
    return fig


def diversity_lines(ax: Any, inputs: Mapping[str, list[dict[str, Any]]], of: str = "images") -> None:
    """A line for each kind of input, records of seeds: pairwise KL in the bins of confidence, its mean in the legend.

    Steps at the foot, on a scale of their own: the share `of` images or samples in each bin.
    """
    counts = ax.twinx()
    for index, (name, records) in enumerate(inputs.items()):
        total = summarise(record["pairwise_kl"] for record in records)["mean"]
        ax.plot(*binned(records), markersize=4, linewidth=1.2, label=f"{name}: {total:.3g}", **look(index))
        shares = np.mean([[row["share"] for row in record["bins"]] for record in records], axis=0)
        counts.stairs(shares, np.linspace(0, 1, len(shares) + 1), color=COLOURS[index], linewidth=0.8, alpha=0.7)
    counts.set(ylim=(0, 3), yticks=[0, 0.5, 1])
    counts.tick_params(labelsize=6, colors="0.4")
    counts.set_ylabel(f"share of {of}", fontsize=7, color="0.4", loc="bottom")
    counts.spines[["top", "left"]].set_visible(False)
    counts.grid(False)
    ax.set(yscale="log", xlim=(0, 1), xlabel="confidence of the mean prediction")
    ax.legend(frameon=False, fontsize=7, title="mean, nats", title_fontsize=7)


def one_scale_with_shares(axes: list[Any]) -> None:
    """One scale for panels of `diversity_lines`, whose lower third is the shares'."""
    one_scale(axes, 1e-6)
    low, high = axes[0].get_ylim()
    for ax in axes:
        ax.set_ylim(low * (low / high) ** 0.5, high)


def binned(records: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Centres of the bins that hold at least 1 % of all images over seeds, and their mean pairwise KL there."""
    xs, ys = [], []
    for rows in zip(*(record["bins"] for record in records), strict=True):
        count = sum(row["n"] for row in rows)
        if count >= 0.01 * sum(row["n"] for record in records for row in record["bins"]):
            xs.append((rows[0]["low"] + rows[0]["high"]) / 2)
            ys.append(sum(row["n"] * row["pairwise_kl"] for row in rows if row["n"]) / count)
    return xs, ys


def transfer(analysis: dict[str, Any]) -> Any:
    """Pairwise KL of two members, clean and under an ODS step of an own, a sibling, an external teacher (figure 6)."""
    shown = kinds(analysis, singles=False)
    fig, axes = figure(9.0, 3.8, columns=2)
    for ax, split in zip(axes, SPLITS, strict=True):
        for index, kind in enumerate(shown):
            by_step = [over_seeds(analysis, kind, "transfer", split, step) for step in STEPS]
            known = {place: [v for v in values if v is not None] for place, values in enumerate(by_step)}
            places = [place + beside(index, len(shown), 0.11) for place, values in known.items() if values]
            points(ax, places, map(summarise, filter(None, known.values())), linestyle="", markersize=5, capsize=2,
                   label=named(kind) if places else None, **look(index))  # fmt: skip
        ax.set_xticks(range(len(STEPS)), list(STEPS))
        ax.set(yscale="log", xlabel="ODS step of a teacher that is", ylabel="pairwise KL of two members, nats")
        ax.set_title(f"{split} images", fontsize=9)
    one_scale(axes)
    _legend(fig, axes[0], caption(analysis))
    return fig


def transfer_by_confidence(analysis: dict[str, Any]) -> Any:
    """The same by confidence of the two's mean prediction, a column a network, as in the paper's figure."""
    shown = [kind for kind in kinds(analysis, singles=False) if over_seeds(analysis, kind, "transfer")]
    shown = (
        [kind for kind in shown if kind == TEACHERS or kind[1] in ("none", "kd", "ods")] if len(shown) > 4 else shown
    )
    fig, axes = figure(2.7 * len(shown) + 1.2, 5.6, columns=len(shown), rows=2)
    for ax, (split, kind) in zip(axes, product(SPLITS, shown), strict=True):
        for index, step in enumerate(STEPS):
            records = [{"bins": bins[step]} for bins in over_seeds(analysis, kind, "transfer", split, "bins")
                       if step in bins]  # fmt: skip
            ax.plot(
                *binned(records), markersize=4, linewidth=1.2, label=STEPS[step] if records else None, **look(index)
            )
        ax.set(yscale="log", xlim=(0, 1), xlabel="confidence of the two")
        ax.set_title(f"{named(kind)}: {split} images", fontsize=9)
    for ax in axes[:: len(shown)]:
        ax.set_ylabel("pairwise KL of two members, nats")
    one_scale(axes)
    _legend(fig, axes[0], caption(analysis))
    return fig


def by_confidence(analysis: dict[str, Any]) -> bool:
    """Whether transfer was measured by confidence; in older runs it was not."""
    return any("bins" in split for row in analysis["rows"] for split in row.get("transfer", {}).values())


def gradients(analysis: dict[str, Any]) -> Any:
    """Cosine of a student's gradient with its own teacher's, with another's, and of two teachers'."""
    shown = [kind for kind in kinds(analysis, singles=True) if kind != TEACHERS]
    fig, axes = figure(9.0, 4.0, columns=2)
    for ax, split in zip(axes, SPLITS, strict=True):
        for index, (part, label) in enumerate((("own", "own teacher"), ("other", "another member's teacher")), 1):
            by_place = {0.12 * (3 - 2 * index) - place: over_seeds(analysis, kind, "gradients", split, part)
                        for place, kind in enumerate(shown)}  # fmt: skip
            known = {place: summarise(values) for place, values in by_place.items() if values[0] is not None}
            points(ax, list(known), known.values(), sideways=True, linestyle="", markersize=5, capsize=2,
                   label=label if known else None, **look(index))  # fmt: skip
        pairs = (over_seeds(analysis, kind, "gradients", split, "teachers") for kind in shown)
        between = [value for values in pairs for value in values if value is not None]
        if between:
            ax.axvline(float(np.mean(between)), color="0.35", linestyle=":", linewidth=1.2, label="two teachers")
        ax.set_yticks([-place for place in range(len(shown))], [named(kind) for kind in shown] if ax is axes[0] else [])
        ax.set_xlabel("cosine of input gradients")
        ax.set_title(f"{split} images", fontsize=9)
    one_scale(axes, sideways=True)
    _legend(fig, axes[0], caption(analysis))
    return fig


def member_curve(analysis: dict[str, Any]) -> Any:
    """Error and calibrated NLL of the first 1, 2, ... members, of the deep ensemble and of each student."""
    shown = kinds(analysis, singles=False)
    fig, axes = figure(9.0, 3.8, columns=2)
    for ax, key, label in zip(axes, ("acc", "cal_nll"), ("test error", MEASURE["cal_nll"].axis), strict=True):
        for index, kind in enumerate(shown):
            sizes = zip(*over_seeds(analysis, kind, "by_members"), strict=True)
            curve = [summarise(1 - row[key] if key == "acc" else row[key] for row in rows) for rows in sizes]
            points(ax, np.arange(1, len(curve) + 1) + beside(index, len(shown), 0.05), curve, markersize=4,
                   linewidth=1.2, capsize=2, label=named(kind, "deep ensemble"), **look(index))  # fmt: skip
        ax.set(xlabel="members that are asked, the first so many", ylabel=label)
        ax.xaxis.get_major_locator().set_params(integer=True)
    _legend(fig, axes[0], f"{caption(analysis)}; {analysis['split']['test']} test images")
    return fig


def corruption_boxes(analysis: dict[str, Any]) -> Any:
    """Accuracy, NLL and ECE over kinds of corruption by severity: a box a network, of the kinds' means over seeds."""
    shown, made = kinds(analysis), analysis["corruptions"]
    fig, axes = figure(9.0, 7.6, rows=3)
    width = 0.8 / len(shown)
    for ax, metric in zip(axes, ("acc", "nll", "ece"), strict=True):
        for index, kind in enumerate(shown):
            tables = over_seeds(analysis, kind, "corruptions", metric)
            values = np.mean([[table[name] for name in made["kinds"]] for table in tables], axis=0)
            severities = np.arange(1, values.shape[1] + 1)  # of (kinds, severities)
            colour = COLOURS[index % len(COLOURS)]
            line = {"color": colour}
            ax.boxplot(values, positions=severities + beside(index, len(shown), width), widths=0.85 * width,
                       manage_ticks=False, patch_artist=True, medianprops={"color": "k"}, whiskerprops=line,
                       capprops=line, boxprops={"facecolor": colour, "alpha": 0.45, "edgecolor": colour},
                       flierprops={"marker": ".", "markersize": 3, "markeredgecolor": colour})  # fmt: skip
            ax.plot([], [], color=colour, linewidth=6, alpha=0.6, label=named(kind, "deep ensemble"))
        ax.set(ylabel=MEASURE[metric].axis, xticks=severities)
    axes[-1].set_xlabel("severity")
    which = f"{len(made['kinds'])} kinds ({corruptions(made)}), {made['n']} test images each"
    _legend(fig, axes[0], f"{caption(analysis)}\n{which}; box: quartiles over kinds")
    return fig


def entropies(analysis: dict[str, Any]) -> Any:
    """Entropy of the mean prediction on test images and on foreign ones, by network, with the AUROC of entropy."""
    sets = [one["name"] for one in analysis["sets"] if one["use"] == "ood"]
    shown = kinds(analysis)
    fig, axes = panels(len(shown), 3, 9.0, 2.3, 0.7)
    for ax, kind in zip(axes, shown, strict=True):
        for index, name in enumerate(("test", *sets)):
            shares = np.mean(over_seeds(analysis, kind, "ood", name, "entropy"), axis=0)
            label = name
            if name != "test":
                auroc = np.mean(over_seeds(analysis, kind, "ood", name, "scores", "entropy", "auroc"))
                label = f"{name}: {auroc:.3f}"
            ax.stairs(shares, np.linspace(0, 1, len(shares) + 1), color=COLOURS[index % len(COLOURS)], linewidth=1.4,
                      label=label, linestyle=("-", "--", "-.", ":")[index % 4])  # fmt: skip
        ax.set_title(named(kind, "deep ensemble"), fontsize=9)
        ax.set(xlabel="entropy / log K", ylim=(0, 1.7 * ax.get_ylim()[1]))  # room for the legend
        ax.legend(frameon=False, fontsize=7, title="AUROC of entropy", title_fontsize=7, loc="upper right")
    one_scale(axes)
    for ax in axes[::3]:
        ax.set_ylabel("share of images")
    fig.suptitle(f"{caption(analysis)}; {analysis['images']} images of each set at most", fontsize=10)
    return fig


def _legend(fig: Any, ax: Any, title: str) -> None:
    legend_below(fig, [ax], min(4, len(ax.get_legend_handles_labels()[1])))
    fig.suptitle(title, fontsize=10)
