"""The report of `divkd simulate convergence`: how the dense engine approaches the limit as dimensions are added."""

from typing import Any

from divkd.report.record import Figure, Report, Results, Table
from divkd.report.style import COLOURS, MARKERS, figure, legend_below, points
from divkd.report.words import listed_seeds, spread
from divkd.shared.stats import show

WHO = {"": "members", "student_": "distilled student"}


def _who(results: Results) -> dict[str, str]:
    found = next(iter(results["summary"].values()))
    return {prefix: name for prefix, name in WHO.items() if f"{prefix}rmse" in found}


def _sentence(results: Results, asked: Results) -> str:
    world = results["config"]
    return (
        f"The same networks in the dense and the limit engine: {world['members']} members, {world['classes']} classes, "
        f"{world['train_samples']:,} training samples; {listed_seeds(results['seeds'])}."
    )


def _tables(results: Results) -> list[Table]:
    """By dimension: members' outputs beside their prediction, strengths and views; then those of students."""
    tables = []
    for prefix, name in _who(results).items():
        keys = {"RMSE of training outputs": "rmse", "predicted": "predicted", "half the step": "steps",
                "root mean square of the limit's": "scale", "|difference of Λ|": "strength",
                "views alike": "same_views", "known in the limit": "limit_views",
                "in d dimensions": "dense_views"}  # fmt: skip
        keys = {head: f"{prefix}{key}" for head, key in keys.items()}
        keys = {head: key for head, key in keys.items() if all(key in one for one in results["summary"].values())}
        lines = [[d, *(show(one[key]) for key in keys.values())] for d, one in results["summary"].items()]
        caption = f"Dense and limit engine at the same flow time: {name} ({spread(results)})"
        tables.append(Table(caption, ["d", *keys], lines, notes=tuple(_slopes(results)) if not prefix else ()))
    return tables


def _slopes(results: Results) -> list[str]:
    words = {"rmse": "RMSE of the members", "predicted": "predicted", "student_rmse": "RMSE of the student"}
    lines = []
    for key, slope in results["slopes"].items():
        ends = "" if slope["low"] is None else f" ({slope['low']:.2f} to {slope['high']:.2f})"
        lines.append(f"{words[key]}: d^{slope['mean']:.2f}{ends}")
    interval = "one seed" if len(results["seeds"]) == 1 else "95 % intervals over seeds"
    return [f"Exponents over {len(results['summary'])} dimensions, {interval}: {'; '.join(lines)}."]


def _summary(results: Results) -> list[str]:
    """How near the engines come, in the most dimensions, and how fast."""
    (d, last), parts = list(results["summary"].items())[-1], []
    for prefix, name in _who(results).items():
        parts.append(f"{name}: {100 * last[f'{prefix}same_views']['mean']:.1f} % of the views alike, RMSE "
                     f"{show(last[f'{prefix}rmse'])} of {last[f'{prefix}scale']['mean']:.2f}")  # fmt: skip
    return [f"In {d} dimensions, {'; '.join(parts)} ({spread(results)}).", *_slopes(results)]


def approach(results: Results) -> Any:
    """Left RMSE of training outputs against d, as predicted and as measured; right the share of views that agree."""
    dimensions, summary = [int(d) for d in results["summary"]], list(results["summary"].values())
    fig, (left, right) = figure(8.6, 3.9, columns=2)
    for place, (prefix, name) in enumerate(_who(results).items()):
        style: dict[str, Any] = {
            "color": COLOURS[place],
            "marker": MARKERS[place],
            "capsize": 2,
            "markersize": 4,
            "linewidth": 1,
        }
        points(left, dimensions, [one[f"{prefix}rmse"] for one in summary], label=name, **style)
        points(right, dimensions, [one[f"{prefix}same_views"] for one in summary], label=name, **style)
    foreseen = [one["predicted"]["mean"] for one in summary]
    left.plot(dimensions, foreseen, color=COLOURS[0], linestyle="--", linewidth=1, label="members, predicted")
    rate = [foreseen[-1] * (d / dimensions[-1]) ** -0.5 for d in dimensions]
    left.plot(dimensions, rate, color="0.5", linestyle=":", linewidth=1, label="d^-1/2")
    steps = [one["steps"]["mean"] for one in summary]
    left.plot(dimensions, steps, color="0.7", linewidth=1, label="members, limit at half the step")
    left.set(xscale="log", yscale="log")
    right.set(xscale="log", ylim=(0.4, 1.03))
    for ax, words in ((left, "RMSE of training outputs"), (right, "views known in both engines or in neither")):
        ax.minorticks_off()
        ax.set_xticks(dimensions, [str(d) for d in dimensions])
        ax.set_xlabel("dimensions d", fontsize=9)
        ax.set_ylabel(words, fontsize=9)
    legend_below(fig, [left], columns=3)
    fig.suptitle(f"The dense engine and its limit; {spread(results, 'mean ± 1 sd over')}", fontsize=9)
    return fig


SHOWN = "How far the dense engine's outputs and learned views are from those of its limit, against d"
FIGURES = (Figure("approach", approach, SHOWN),)
REPORT = Report(("simulate convergence",), _sentence, _tables, FIGURES, summary=_summary)
