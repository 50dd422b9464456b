"""Figures of a `train` run, from the content of its results.json."""

from pathlib import Path
from typing import Any

from divkd.report.style import COLOURS, MARKERS, figure, save

MODEL_NAMES = {
    "deep_ensemble": "deep ensemble",
    "batch_ensemble": "BatchEnsemble",
    "merged": "BatchEnsemble merged into one",
    "single": "single network",
}


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw every figure of the run into `folder` and return the paths."""
    drawn = [methods(results, folder / "methods.png")]
    if results["teacher_diversity"]:
        drawn.append(teacher_diversity(results, folder / "teacher_diversity.png"))
    ladders = results.get("ladders", [])  # runs of earlier versions have none
    if any("dee" in row for row in results["summary"]) and len(ladders[0]["curve"]) > 1:
        drawn.append(equivalents(results, folder / "dee.png"))
    return drawn


def methods(results: dict[str, Any], path: Path) -> Path:
    """Test error and calibrated NLL of every student by method, with the deep ensembles as lines to compare with."""
    students = [row for row in results["summary"] if row["model"] != "deep_ensemble"]
    names = list(dict.fromkeys(row["method"] for row in students))
    ladder = [row for row in results["summary"] if row["model"] == "deep_ensemble"]
    fig, axes = figure(8.0, 3.8, columns=2)
    for ax, key, label in zip(axes, ("acc", "cal_nll"), ("test error", "calibrated NLL, nats"), strict=True):
        models = list(dict.fromkeys(row["model"] for row in students))
        for index, model in enumerate(models):
            rows = [row for row in students if row["model"] == model]
            ax.errorbar(
                [names.index(row["method"]) + 0.16 * (index - (len(models) - 1) / 2) for row in rows],
                [_value(row, key) for row in rows],
                yerr=[row[key]["std"] or 0 for row in rows],
                fmt=MARKERS[index],
                color=COLOURS[index + 1],
                capsize=3,
                label=MODEL_NAMES[model],
            )
        # the teachers of a BatchEnsemble, not the whole ladder
        sizes = [row["members"] for row in students if row["members"] > 1]
        teachers = results.get("members") or max(sizes, default=ladder[-1]["members"])
        compared = [row for row in ladder if row["members"] in (1, teachers)]
        for row, style in zip(compared, (":", "-"), strict=False):
            name = "one teacher" if row["members"] == 1 else f"deep ensemble of {row['members']}"
            ax.axhline(_value(row, key), color="0.35", linestyle=style, linewidth=1.2, zorder=1.5, label=name)
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.04 * (high - low), high)  # a line at the edge would lie on the axis
        ax.set_xticks(range(len(names)), names)
        ax.set_xlim(-0.5, len(names) - 0.5)
        ax.set_xlabel("distillation method")
        ax.set_ylabel(label)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)
    fig.suptitle(f"{results['dataset']}, {results['network']}, {caption(results)}", fontsize=10)
    return save(fig, path)


def teacher_diversity(results: dict[str, Any], path: Path) -> Path:
    """The teachers' pairwise KL on training images, clean and perturbed; one marker a seed."""
    kinds = ("clean", "gaussian", "ods", "confods")
    fig, (ax,) = figure(4.8, 3.4)
    for index, found in enumerate(results["teacher_diversity"]):
        ax.plot(
            range(len(kinds)),
            [found[kind] for kind in kinds],
            marker=MARKERS[index % len(MARKERS)],
            color=COLOURS[index % len(COLOURS)],
            linestyle="",
            label=f"seed {found['seed']}",
        )
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(low / 3, high * 3)  # a difference of a few per cent must not fill the picture
    ax.set_xticks(range(len(kinds)), kinds)
    ax.set_xlabel("training images, moved by")
    ax.set_ylabel("teachers' pairwise KL, nats")
    ax.legend(frameon=False, fontsize=8)
    train_acc = min(row["train_acc"]["mean"] for row in results["summary"] if row["model"] == "deep_ensemble")
    ax.set_title(f"{results['dataset']}, teachers' train accuracy {train_acc:.3f}", fontsize=10)
    return save(fig, path)


def equivalents(training: dict[str, Any], path: Path) -> Path:
    """The ladder's calibrated NLL by members, a line a seed, and where every student's NLL meets its own ladder."""
    students = [row for row in training["rows"] if "dee" in row and row["model"] != "merged"]
    shown = list(dict.fromkeys((row["model"], row["method"]) for row in students))
    fig, (left, right) = figure(9.0, 4.0, columns=2)
    for index, ladder in enumerate(training["ladders"]):
        curve = ladder["curve"]
        left.errorbar([row["members"] for row in curve], [row["mean"] for row in curve],
                      yerr=[row["std"] or 0 for row in curve], color=COLOURS[index % len(COLOURS)],
                      marker=MARKERS[index % len(MARKERS)], markersize=4, capsize=2, linewidth=1.2,
                      label=f"seed {ladder['seed']}")  # fmt: skip
    left.set_xlabel("members of the deep ensemble")
    left.set_ylabel("calibrated NLL, nats (± sd over subsets)")
    left.legend(frameon=False, fontsize=8)
    for place, kind in enumerate(shown):
        mine = [row for row in students if (row["model"], row["method"]) == kind]
        for row in mine:
            censored = row["dee"]["censored"]
            right.plot(row["dee"]["value"], -place, marker=">" if censored else "o", color=COLOURS[1],
                       markersize=6, alpha=0.7, linestyle="")  # fmt: skip
    right.set_yticks([-place for place in range(len(shown))], [f"{MODEL_NAMES[kind[0]]}, {kind[1]}" for kind in shown])
    top = len(training["ladders"][0]["curve"])
    right.set_xlim(0.8, top + 0.2)
    right.set_xticks(range(1, top + 1))
    left.set_xticks(range(1, top + 1))
    right.set_xlabel(f"deep ensemble equivalent (> : at least {top})")
    images = training["split"]["train"]
    fig.suptitle(
        f"{training['dataset']}, {training['network']}, {images} training images; one line and one mark a seed",
        fontsize=10,
    )
    return save(fig, path)


def caption(results: dict[str, Any]) -> str:
    """How many images and seeds stand behind a figure."""
    return f"{results['split']['train']} training and {results['split']['test']} test images, {spread(results)}"


def spread(results: dict[str, Any]) -> str:
    """What an error bar of the run is."""
    seeds = len(results["seeds"])
    return f"mean ± sd over {seeds} seeds" if seeds > 1 else "one seed"


def _value(row: dict[str, Any], key: str) -> float:
    mean: float = row[key]["mean"]
    return 1 - mean if key == "acc" else mean
