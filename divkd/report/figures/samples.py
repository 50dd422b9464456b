"""A drawn sample and its soft labels, from a simulation's results.json alone."""

from typing import Any

import numpy as np

from divkd.report.style import COLOURS, figure, legend_below


def drawn_sample(results: dict[str, Any]) -> Any:
    """The P patches of a multi-view and of a single-view sample: which feature sits in which, with what coefficient."""
    samples = results["samples"]
    fig, axes = figure(width=9.6, height=4.6, columns=1, rows=len(samples))
    for ax, sample in zip(axes, samples, strict=True):
        feature, weight = np.array(sample["feature"]), np.array(sample["weight"])
        feature = np.where(weight > 0, feature, -1)  # of weight 0 it does not show
        own = (feature >= 0) & (feature // 2 == sample["label"])
        missing = own & (sample["view"] >= 0) & (feature % 2 != sample["view"])
        for rows, label, colour in (
            (own & ~missing, "own view", COLOURS[1]),
            (missing, "own view that is missing", COLOURS[2]),
            ((feature >= 0) & ~own, "another class's feature", COLOURS[5]),
        ):
            if rows.any():  # of no bars the legend would show another colour
                ax.bar(np.flatnonzero(rows), weight[rows], color=colour, label=label)
        for p in np.flatnonzero(feature >= 0):
            name = f"{feature[p] // 2},{feature[p] % 2 + 1}"
            ax.text(p, weight[p] + 0.01, name, ha="center", va="bottom", fontsize=7)
        ax.set(xticks=np.arange(len(feature)), xlim=(-0.7, len(feature) - 0.3), ylabel="coefficient $z_p$")
        ax.tick_params(axis="x", labelsize=7)
        ax.set_ylim(0, 1.25 * weight.max())
        shown = "both views" if sample["view"] < 0 else f"view {sample['view'] + 1} only"
        ax.set_title(f"{sample['kind']} sample of class {sample['label']}: {shown}", fontsize="medium")
    axes[-1].set_xlabel("patch $p$ (above a bar: class, view; patches without a bar hold noise alone)")
    legend_below(fig, axes, 3, "small")
    return fig


def soft_labels(results: dict[str, Any]) -> Any:
    """What teachers say of the multi-view sample, class by class: the ensemble names the other classes that show."""
    sample = results["samples"][0]
    feature = np.array(sample["feature"])
    fig, axes = figure(width=9.6, height=3.6, columns=len(sample["soft_labels"]))
    for ax, (title, values) in zip(axes, sample["soft_labels"].items(), strict=True):
        classes = np.arange(len(values))
        shown = np.isin(classes, feature[feature >= 0] // 2)
        own = classes == sample["label"]
        for rows, colour, label in (
            (own, COLOURS[1], "the sample's class"),
            (shown & ~own, COLOURS[5], "a class with a feature in the sample"),
            (~shown, "0.7", "no feature in the sample"),
        ):
            if rows.any():
                ax.bar(classes[rows], np.array(values)[rows], color=colour, label=label)
        ax.set(xlabel="class", ylim=(0, 1.02))
        ax.set_title(title, fontsize="medium")
    axes[0].set_ylabel("soft label")
    legend_below(fig, axes[:1], 3, "small")
    return fig
