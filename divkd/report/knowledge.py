"""What members know and where they differ: theory beside practice, as in `divkd.report.beside`."""

from typing import Any

import numpy as np

from divkd.report.analysis import diversity_lines, named, over_seeds
from divkd.report.beside import Source
from divkd.report.ensembles import spread
from divkd.report.style import figure

STUDENTS = ("ods", "confods", "kd", "gaussian", "none")  # whose student stands for all, the first that is there


def confidence(sources: list[Source]) -> tuple[Any, str]:
    """Diversity by confidence on training images, before and after a step: teachers above, a student below.

    Pairwise KL of the members in each bin of confidence of their mean prediction (Nam et al. 2021, figure 3).
    """
    fig, axes = figure(max(8.6, 4.6 * len(sources)), 5.6, columns=len(sources), rows=2)
    for column, source in enumerate(sources):
        results = source.results
        for row, kind in enumerate((("deep_ensemble", "none"), student(results))):
            ax = axes[row * len(sources) + column]
            diversity_lines(ax, results, kind, "train")
            ax.set_ylabel("pairwise KL, nats")
            ax.set_title(f"{results['dataset']}: {named(kind)}; {spread(results)}", fontsize=9)
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
    for column, source in enumerate(sources):
        pair = axes[column], axes[len(sources) + column]
        if source.simulated:
            for ax, name in zip(pair, ("members", "distilled"), strict=True):
                _views(ax, np.array(source.results["learned"][name]), name)
            continue
        results = source.results
        for ax, kind in zip(pair, (("deep_ensemble", "none"), student(results)), strict=True):
            size = results["members"]
            matrix = np.mean(over_seeds(results, kind, "agreement"), axis=0)[:size, :size]
            seeds = len(results["seeds"])
            n = f"mean of {seeds} seeds" if seeds > 1 else "one seed"
            _agreement(ax, matrix, f"{results['dataset']}: {named(kind)}\n{n}")
    return fig, (
        "What each member knows, before distillation above and after it below. Theory: the views of each class that a "
        "network knows (seed of the first run). Practice: how often two members predict the same class of a test image."
    )


def _views(ax: Any, learned: np.ndarray, name: str) -> None:
    """Networks x classes: the number of views that are known, 0 to 2."""
    code = learned[:, :, 0] + 2 * learned[:, :, 1]
    ax.imshow(learned.sum(2), cmap="Blues", vmin=0, vmax=3, aspect="auto", interpolation="nearest")
    for n, i in np.ndindex(code.shape):
        ax.text(i, n, ("–", "1", "2", "12")[code[n, i]], ha="center", va="center", fontsize=8)
    ax.grid(False)
    ax.set_xticks(np.arange(0, code.shape[1], max(1, code.shape[1] // 10)))
    ax.set_yticks(np.arange(len(code)))
    ax.set(xlabel="class", ylabel="network")
    title = "members" if name == "members" else "distilled from the ensemble"
    ax.set_title(f"Theory: views known, {title}\n{learned.mean():.0%} of the views, one seed", fontsize=9)


def _agreement(ax: Any, matrix: np.ndarray, title: str) -> None:
    """Members x members: the share of test images on which they agree."""
    ax.imshow(matrix, cmap="Blues", vmin=0, vmax=1.5, interpolation="nearest")
    for i, j in np.ndindex(matrix.shape):
        ax.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=8)
    ax.grid(False)
    ax.set_xticks(np.arange(len(matrix)))
    ax.set_yticks(np.arange(len(matrix)))
    ax.set(xlabel="member", ylabel="member")
    pairs = matrix[np.triu_indices(len(matrix), 1)].mean()
    ax.set_title(f"{title}; two agree on {pairs:.0%}", fontsize=9)


def student(analysis: dict[str, Any]) -> tuple[str, str]:
    """The BatchEnsemble that stands for all, by the first of `STUDENTS` that was trained."""
    trained = {row["method"] for row in analysis["rows"] if row["model"] == "batch_ensemble"}
    return "batch_ensemble", next(method for method in STUDENTS if method in trained)


def fits(source: Source) -> bool:
    """Whether a run has members that differ before and after distillation."""
    if source.simulated:
        return "distilled" in source.results.get("learned", {})
    return any("diversity" in row for row in source.results["rows"] if row["model"] == "batch_ensemble")
