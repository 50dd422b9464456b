"""Figures of a training run, from the content of its results.json."""

from typing import Any

from divkd.report.style import COLOURS, MARKERS, beside, figure, legend_below, look, marks, points
from divkd.report.words import MEASURE, learned, spread, trained_on
from divkd.shared.kinds import INPUTS, MODELS


def methods(results: dict[str, Any]) -> Any:
    """Test error and calibrated NLL of every student by method, with the deep ensembles as lines to compare with."""
    students = [row for row in results["summary"] if row["model"] != "deep_ensemble"]
    names, models = (list(dict.fromkeys(row[key] for row in students)) for key in ("method", "model"))
    # the teachers, not the whole ladder
    ladder = [row for row in results["summary"] if row["model"] == "deep_ensemble"]
    compared = [row for row in ladder if row["members"] in (1, teachers(results))]
    fig, axes = figure(8.0, 3.8, columns=2)
    for ax, key, label in zip(axes, ("acc", "cal_nll"), ("test error", MEASURE["cal_nll"].axis), strict=True):
        for index, model in enumerate(models):
            rows = [row for row in students if row["model"] == model]
            places = [names.index(row["method"]) + beside(index, len(models), 0.16) for row in rows]
            values = ({**row[key], "mean": _value(row, key)} for row in rows)
            points(ax, places, values, fmt=MARKERS[index], color=COLOURS[index + 1], capsize=3, label=MODELS[model])
        for row, style in zip(compared, (":", "-"), strict=False):
            name = "one teacher" if row["members"] == 1 else f"deep ensemble of {row['members']}"
            ax.axhline(_value(row, key), color="0.35", linestyle=style, linewidth=1.2, zorder=1.5, label=name)
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.04 * (high - low), high)  # a line at the edge would lie on the axis
        ax.set_xticks(range(len(names)), [learned(name) for name in names])
        ax.set(xlim=(-0.5, len(names) - 0.5), xlabel="distillation method", ylabel=label)
    legend_below(fig, axes[:1])
    made = trained_on(results, f" and {results['split']['test']} test")
    fig.suptitle(f"{made}, {spread(results)}", fontsize=10)
    return fig


def _value(row: dict[str, Any], key: str) -> float:
    mean: float = row[key]["mean"]
    return 1 - mean if key == "acc" else mean


def teachers(results: dict[str, Any]) -> int:
    """How many networks taught; one of the committed runs says so by its BatchEnsembles alone."""
    students = (row["members"] for row in results["rows"] if row["model"] == "batch_ensemble")
    return int(results.get("members") or max(students))


def teacher_diversity(results: dict[str, Any]) -> Any:
    """The teachers' pairwise KL on training images, clean and perturbed; one marker a seed."""
    fig, (ax,) = figure(4.8, 3.4)
    for index, row in enumerate(results["teacher_diversity"]):
        ax.plot([row[kind] for kind in INPUTS], linestyle="", label=f"seed {row['seed']}", **look(index))
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(low / 3, high * 3)  # a difference of a few per cent must not fill the figure
    ax.set_xticks(range(len(INPUTS)), list(INPUTS))
    ax.set(xlabel="training images, moved by", ylabel="teachers' pairwise KL, nats")
    ax.legend(frameon=False, fontsize=8)
    train_acc = min(row["train_acc"]["mean"] for row in results["summary"] if row["model"] == "deep_ensemble")
    ax.set_title(f"{results['dataset']}, teachers' train accuracy {train_acc:.3f}", fontsize=10)
    return fig


def fit(results: dict[str, Any]) -> Any:
    """Every network of the deep ensemble by training and test accuracy, and their ensemble (Nam et al. 2021, figure 1).

    A colour and marker a seed, the first so many networks, which teach, filled; a ring is the ensemble of the teachers.
    """
    fig, (ax,) = figure(4.8, 3.8)
    size = teachers(results)
    for index, seed in enumerate(results["seeds"]):
        of_seed = [row for row in results["networks"] if row["seed"] == seed]
        for row in of_seed:
            face = {} if row["network"] < size else {"markerfacecolor": "none"}
            name = f"seed {seed}" if row is of_seed[0] else None
            ax.plot(row["train_acc"], row["acc"], linestyle="", label=name, **look(index), **face)
        whole = (row for row in results["rows"] if row["seed"] == seed and row["model"] == "deep_ensemble")
        for row in (row for row in whole if row["members"] == size):
            ax.plot(row["train_acc"], row["acc"], linestyle="", **look(index) | {"marker": "*"}, markersize=12,
                    label="their ensemble" if seed == results["seeds"][-1] else None)  # fmt: skip
    low, high = ax.get_xlim()
    ax.xaxis.get_major_locator().set_params(nbins=5)
    ax.set(xlim=(min(low, 0.98), max(high, 1.002)), xlabel="training accuracy", ylabel="test accuracy")
    legend_below(fig, [ax], 4)
    ax.set_title(f"{trained_on(results)}; filled: the {size} that teach", fontsize=9)
    return fig


def has_equivalents(results: dict[str, Any]) -> bool:
    """Whether the run measured a ladder, and students on it."""
    return any("dee" in row for row in results["rows"]) and len(results["ladders"][0]["curve"]) > 1


def student_equivalents(results: dict[str, Any], short: str = "") -> dict[str, list[tuple[float, bool]]]:
    """{student: [(members, censored) a seed]}; names of models lose the ending `short`."""
    worth: dict[str, list[tuple[float, bool]]] = {}
    for row in results["rows"]:
        if "dee" in row and row["model"] != "merged":
            name = f"{MODELS[row['model']].removesuffix(short)}, {learned(row['method'])}"
            worth.setdefault(name, []).append((row["dee"]["value"], row["dee"]["censored"]))
    return worth


def equivalents(results: dict[str, Any]) -> Any:
    """The ladder's calibrated NLL by members, a line a seed, and where every student's NLL meets its own ladder."""
    fig, (left, right) = figure(9.0, 4.0, columns=2)
    top = len(results["ladders"][0]["curve"])
    for index, ladder in enumerate(results["ladders"]):
        points(left, [row["members"] for row in ladder["curve"]], ladder["curve"], markersize=4, capsize=2,
               linewidth=1.2, label=f"seed {ladder['seed']}", **look(index))  # fmt: skip
    left.set_xticks(range(1, top + 1))
    left.set(xlabel="members of the deep ensemble", ylabel=f"{MEASURE['cal_nll'].axis} (± sd over subsets)")
    left.legend(frameon=False, fontsize=8)
    marks(right, student_equivalents(results), top, 0.2, color=COLOURS[1], markersize=6)
    right.set_xlabel(f"deep ensemble equivalent (> : at least {top})")
    fig.suptitle(f"{trained_on(results)}; one line and one mark a seed", fontsize=10)
    return fig
