"""What members know and where they differ: theory beside practice, as in `divkd.report.figures.beside`."""

from typing import Any

import numpy as np

from divkd.report.figures.analysis import TEACHERS, Kind, diversity_lines, named, one_scale_with_shares, over_seeds
from divkd.report.figures.beside import told_apart
from divkd.report.figures.views import known_views
from divkd.report.sources import Source
from divkd.report.style import figure
from divkd.report.words import spread

PREFERRED = ("ods", "confods", "kd", "gaussian", "none")  # whose student stands for all, the first that is there


def confidence(sources: list[Source]) -> tuple[Any, str]:
    """Diversity by confidence on training images, before and after a step: teachers above, a student below.

    Pairwise KL of the members in each bin of confidence of their mean prediction (Nam et al. 2021, figure 3).
    """
    fig, axes = figure(max(8.6, 4.6 * len(sources)), 5.6, columns=len(sources), rows=2)
    for column, results in enumerate(source.results for source in sources):
        for ax, kind in zip(axes[column :: len(sources)], (TEACHERS, student(results)), strict=True):
            diversity_lines(ax, results, kind, "train")
            ax.set_ylabel("pairwise KL, nats")
            ax.set_title(f"{results['dataset']}: {named(kind)}; {spread(results)}", fontsize=9)
    one_scale_with_shares(axes)
    return fig, (
        "Diversity by confidence on training images, clean and moved by each perturbation: the members' pairwise KL in "
        "each bin of confidence that holds 1 % of the images; teachers above, a student below."
    )


def members(sources: list[Source]) -> tuple[Any, str]:
    """What each member knows, before distillation above and after it below.

    Theory: the share of each class's two views that each network learned. Practice: how often two members predict the
    same class of a test image, mean over seeds, for the teachers and for the BatchEnsemble's members.
    """
    fig, axes = figure(4.4 * len(sources), 7.2, columns=len(sources), rows=2)
    for column, (source, whose) in enumerate(zip(sources, told_apart(sources), strict=True)):
        pair = axes[column :: len(sources)]
        if source.simulated:
            for ax, name in zip(pair, ("members", "distilled from the ensemble"), strict=True):
                _views(ax, np.array(source.results["learned"][name.split()[0]]), whose, name)
            continue
        for ax, kind in zip(pair, (TEACHERS, student(source.results)), strict=True):
            _agreement(ax, source.results, kind)
    return fig, (
        "What each member knows, before distillation above and after it below. Theory: the views of each class that a "
        "network knows (seed of the first run). Practice: how often two members predict the same class of a test image."
    )


def _views(ax: Any, learned: np.ndarray, whose: str, name: str) -> None:
    """Networks x classes: the number of views that are known, 0 to 2."""
    known_views(ax, learned, learned.sum(2), "Blues", 8)
    ax.set(ylabel="network")
    ax.set_title(f"{whose}views known, {name}\n{learned.mean():.0%} of the views, one seed", fontsize=9)


def _agreement(ax: Any, results: dict[str, Any], kind: Kind) -> None:
    """Members x members: the share of test images on which they agree."""
    size = results["members"]
    matrix = np.mean(over_seeds(results, kind, "agreement"), axis=0)[:size, :size]
    ax.imshow(matrix, cmap="Blues", vmin=0, vmax=1.5, interpolation="nearest")
    for i, j in np.ndindex(matrix.shape):
        ax.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=8)
    ax.grid(False)
    ax.set(xlabel="member", ylabel="member", xticks=np.arange(size), yticks=np.arange(size))
    pairs = f"{spread(results, 'mean of')}; two agree on {matrix[np.triu_indices(size, 1)].mean():.0%}"
    ax.set_title(f"{results['dataset']}: {named(kind)}\n{pairs}", fontsize=9)


def student(analysis: dict[str, Any]) -> Kind:
    """The BatchEnsemble that stands for all, by the first of `PREFERRED` that was trained."""
    trained = {row["method"] for row in analysis["rows"] if row["model"] == "batch_ensemble"}
    return "batch_ensemble", next(method for method in PREFERRED if method in trained)


def fits(source: Source) -> bool:
    """Whether a run has members that differ before and after distillation."""
    if source.simulated:
        return "distilled" in source.results.get("learned", {})
    return any("diversity" in row for row in source.results["rows"] if row["model"] == "batch_ensemble")
