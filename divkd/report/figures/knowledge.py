"""What members know and where they differ: theory beside practice, as in `divkd.report.figures.beside`."""

from typing import Any

import numpy as np

from divkd.report.figures.analysis import TEACHERS, Kind, diversity_lines, named, one_scale_with_shares, over_seeds
from divkd.report.figures.beside import told_apart
from divkd.report.figures.views import known_views
from divkd.report.sources import Source
from divkd.report.style import figure
from divkd.report.words import spread
from divkd.shared.kinds import INPUTS

SAMPLES = {"train": "training", "multi_view": "multi-view test", "single_view": "single-view test"}
DIVERSE = {"single": "members", "distilled": "distilled from the ensemble"}  # networks of a simulation
PREFERRED = ("ods", "confods", "kd", "gaussian", "none")  # whose student stands for all, the first that is there


def confidence(sources: list[Source]) -> tuple[Any, str]:
    """Diversity by confidence: of teachers above, below of a student's members, or of simulated students together.

    Pairwise KL of the members in each bin of confidence of their mean prediction (Nam et al. 2021, figure 3). Theory:
    on training samples, on which teachers are to agree, and on fresh ones. Practice: on training images, before and
    after a step.
    """
    fig, axes = figure(max(8.6, 4.6 * len(sources)), 5.6, columns=len(sources), rows=2)
    for column, (source, whose) in enumerate(zip(sources, told_apart(sources), strict=True)):
        results, pair = source.results, axes[column :: len(sources)]
        if source.simulated:
            simulated(pair, results, whose)
            continue
        for ax, kind in zip(pair, (TEACHERS, student(results)), strict=True):
            diversity_lines(ax, {name: over_seeds(results, kind, "diversity", "train", name) for name in INPUTS})
            ax.set_ylabel("pairwise KL, nats")
            ax.set_title(f"{results['dataset']}: {named(kind)}; {spread(results)}", fontsize=9)
    one_scale_with_shares(axes)
    return fig, (
        "Diversity by confidence: the members' pairwise KL in each bin of confidence that holds 1 % of the samples. "
        "Theory: on training samples and on fresh ones; members above, networks distilled from them below. Practice: "
        "on training images, clean and moved by each perturbation; teachers above, a student below."
    )


def simulated(axes: list[Any], results: dict[str, Any], whose: str = "") -> None:
    """A panel for the members of simulated ensembles, and one for the networks that are distilled from them."""
    for ax, name in zip(axes, DIVERSE, strict=False):
        by_seed = [one[name] for one in results["judged"]["diversity"]]
        diversity_lines(ax, {words: [one[of] for one in by_seed] for of, words in SAMPLES.items()}, "samples")
        ax.set_ylabel("pairwise KL, nats")
        ax.set_title(f"{whose}{DIVERSE[name]}; {spread(results)}", fontsize=9)


def simulated_confidence(results: dict[str, Any]) -> Any:
    """Diversity by confidence of a simulation alone, on training samples and on fresh ones."""
    count = sum(name in results["judged"]["diversity"][0] for name in DIVERSE)
    fig, axes = figure(4.8 * count + 0.6, 3.6, columns=count)
    simulated(axes, results)
    one_scale_with_shares(axes)
    return fig


def members(sources: list[Source]) -> tuple[Any, str]:
    """What each member knows, before distillation above and after it below.

    Theory: the views of each class that each network learned. Practice: how often two members predict the
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
    """Networks x classes: the number of views that are known."""
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


def diverse(source: Source) -> bool:
    """Whether a run says how diverse its members are by confidence."""
    if source.simulated:
        return any("distilled" in one for one in source.results.get("judged", {}).get("diversity", ()))
    return fits(source)


def fits(source: Source) -> bool:
    """Whether a run has members that differ before and after distillation."""
    if source.simulated:
        return "distilled" in source.results.get("learned", {})
    return any("diversity" in row for row in source.results["rows"] if row["model"] == "batch_ensemble")
