"""The report of `divkd simulate ntk`: ensembles and students of networks that keep the features of their start."""

from typing import Any

from divkd.report.record import Figure, Report, Results, Table
from divkd.report.style import COLOURS, MARKERS, figure, legend_below, points
from divkd.report.words import difference, listed_seeds, spread
from divkd.shared.kinds import CLAIMS
from divkd.shared.stats import show

SETS = {"multi_view": "multi-view test", "single_view": "single-view test", "train": "train"}
TESTS = ("multi_view", "single_view")


def _named(kind: str, results: Results) -> str:
    many = f" of {results['config']['members']}" if kind == "ensemble" else ""
    return f"{CLAIMS[kind].short}{many}"


def _sentence(results: Results, asked: Results) -> str:
    world = results["config"]
    return (
        f"Networks in the tangent-kernel regime on multi-view data: {world['members']} members, {world['students']} "
        f"students of either kind, {world['classes']} classes, {world['train_samples']:,} training samples; "
        f"{listed_seeds(results['seeds'])}."
    )


def _tables(results: Results) -> list[Table]:
    """Errors of every kind, and of ensembles by members."""
    lines = [[_named(kind, results), *(show(errors[of]) for of in SETS)] for kind, errors in results["summary"].items()]
    notes = tuple(_kept(results, of) for of in TESTS)
    heads = ["network", *(f"{words} error" for words in SETS.values())]
    by_members = results["by_members"]
    rows = [
        [str(k), *(show(by_members[of][k - 1]) for of in TESTS)] for k in range(1, results["config"]["members"] + 1)
    ]
    return [
        Table(f"Errors in the tangent-kernel regime ({spread(results)})", heads, lines, notes=notes),
        Table(f"Errors of ensembles by members ({spread(results)})", ["members", *heads[1:3]], rows),
    ]


def _kept(results: Results, of: str) -> str:
    one = results["differences"][of]
    kept = "cannot be told" if one["kept"] is None else f"{round(100 * one['kept']['mean'])} %"
    if one["kept"] is not None and one["kept"]["low"] is not None:
        kept += f" ({round(100 * one['kept']['low'])} to {round(100 * one['kept']['high'])} %)"
    interval = "one seed" if one["gain"]["low"] is None else "95 % intervals over seeds"
    return (
        f"{SETS[of].capitalize()} error, {interval}: one network minus ensemble {difference(one['gain'])}; ensemble "
        f"minus trained jointly {difference(one['joint'])}; of the ensemble's gain the distilled keep {kept}."
    )


def _summary(results: Results) -> list[str]:
    """Whether ensembling helps, distillation passes it on, and training the average does better."""
    errors = results["summary"]
    parts = [
        f"{SETS[of]} error: " + ", ".join(f"{_named(kind, results)} {show(one[of])}" for kind, one in errors.items())
        for of in TESTS
    ]
    return [
        f"In the tangent-kernel regime, {'; '.join(parts)} ({spread(results)}).",
        *(_kept(results, of) for of in TESTS),
    ]


def errors(results: Results) -> Any:
    """Errors of ensembles by members, of students and of the joint average; a panel a kind of test samples."""
    members = results["config"]["members"]
    fig, axes = figure(8.6, 3.9, columns=2)
    others = ("distilled", "self_distilled", "trained_jointly_average")
    for ax, of in zip(axes, TESTS, strict=True):
        points(ax, range(1, members + 1), results["by_members"][of], color=COLOURS[0], marker=MARKERS[0], capsize=2,
               markersize=4, linewidth=1, label="ensemble of independent networks")  # fmt: skip
        for place, kind in enumerate(others, 1):
            at = members if kind == "trained_jointly_average" else 1
            shift = 0.04 * members * (place if at == 1 else 0.8)
            points(ax, [at + shift], [results["summary"][kind][of]], color=COLOURS[place], marker=MARKERS[place],
                   capsize=2, markersize=6, linestyle="", label=_named(kind, results))  # fmt: skip
        single, ensemble = (results["summary"][kind][of]["mean"] for kind in ("single", "ensemble"))
        ax.axhline(
            (single + ensemble) / 2, color="0.5", linestyle=":", linewidth=1, label="half of the ensemble's gain"
        )
        ax.set_ylim(bottom=0)
        ax.set_xticks(range(1, members + 1, max(members // 10, 1)))
        ax.set_title(f"{SETS[of]} samples", fontsize=9)
        ax.set_xlabel("networks at inference", fontsize=9)
    axes[0].set_ylabel("test error", fontsize=9)
    legend_below(fig, axes, columns=3)
    fig.suptitle(f"Networks in the tangent-kernel regime; {spread(results, 'mean ± 1 sd over')}", fontsize=9)
    return fig


SHOWN = "Error of ensembles by members, of students, and of networks trained jointly, in the tangent-kernel regime"
FIGURES = (Figure("errors", errors, SHOWN),)
REPORT = Report(("simulate ntk",), _sentence, _tables, FIGURES, summary=_summary)
