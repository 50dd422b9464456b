"""The reports of `divkd experiment mysteries` and `ensemble-over-kd`: networks, ensembles, what they teach."""

from typing import Any

from divkd.report.published import views_tables
from divkd.report.record import Figure, Report, Results, Table, counted
from divkd.report.style import COLOURS, figure, points
from divkd.report.words import MEASURE, difference, labels, listed_seeds, spread, trained_on
from divkd.shared.kinds import ANSWERS
from divkd.shared.stats import show

KEYS = ("acc", "cal_nll", "views_missed", "nll", "cal_ece", "train_acc")
# Which quantity of the published tables each row is.
QUANTITIES = {"network": "single_of_10", "average": "trained_as_average", "ensemble": "ensemble_of_10",
              "distilled": "distilled_from_ensemble", "self_distilled": "self_distilled",
              "ensemble_over_kd": "ensemble_over_kd"}  # fmt: skip


def _sentence(results: Results, asked: Results) -> str:
    split = results["split"]
    return (
        f"{results['members']} networks ({results['network']}) on {results['dataset']} and what is made of them; "
        f"{split['train']:,} training, {split['validation']:,} validation, {split['test']:,} test images; "
        f"{listed_seeds(results['seeds'])}."
    )


def _keys(results: Results) -> list[str]:
    return [key for key in KEYS if key in results["summary"][0]]


def _tables(results: Results) -> list[Table]:
    keys = _keys(results)
    lines = [
        [ANSWERS[row["model"]], str(row["networks"]), *(show(row[key], MEASURE[key].digits) for key in keys)]
        for row in results["summary"]
    ]
    caption = f"{results['dataset']}, {results['network']}: test images ({spread(results)})"
    page_only = tuple(labels(*(key for key in keys if key in ("nll", "cal_ece"))))
    notes = ("Of one network: the mean of a seed's networks, so that sd is over seeds.",)
    quality = Table(caption, ["answer", "networks", *labels(*keys)], lines, notes=notes, page_only=page_only)
    lines = [
        [ANSWERS[row["model"]], ANSWERS[row["against_model"]], *(difference(row[key]) for key in keys if key in row)]
        for row in results["differences"]
    ]
    heads = ["answer", "minus", *labels(*keys)]
    caption = "Paired differences over seeds, mean and 95 % interval (none where n is 1)"
    return [quality, *([Table(caption, heads, lines, 2, page_only=page_only)] if lines else [])]


def _summary(results: Results) -> list[str]:
    """What distilled networks keep of the ensemble's gain, and every difference that its interval tells from 0."""
    of = {row["model"]: row["acc"]["mean"] for row in results["summary"]}
    gain = of["ensemble"] - of["network"]
    lines = [
        f"The ensemble of {results['members']} has {of['ensemble']:.3f} accuracy, one network {of['network']:.3f} "
        f"({spread(results, 'mean over')})."
    ]
    if gain > 0:
        kept = [f"{ANSWERS[key]} {(value - of['network']) / gain:.2f}" for key, value in of.items()
                if key not in ("network", "ensemble")]  # fmt: skip
        lines.append(f"Shares of that gain: {'; '.join(kept)}.")
    told = [row for row in results["differences"] if row["acc"]["low"] is not None]
    if told:
        apart = [f"{ANSWERS[row['model']]} and {ANSWERS[row['against_model']]} ({difference(row['acc'])})"
                 for row in told if row["acc"]["low"] > 0 or row["acc"]["high"] < 0]  # fmt: skip
        lines.append(f"Accuracies that 95 % intervals tell apart: {'; '.join(apart) or 'none'}.")
    return lines


def _published(results: Results) -> list[Table]:
    """Accuracies of Allen-Zhu and Li beside the run's own."""
    own = {QUANTITIES[row["model"]]: row["acc"] for row in results["summary"] if row["model"] in QUANTITIES}
    return views_tables(own, results["dataset"], ("cifar10", "cifar100"))


def _compared(names: list[str], runs: list[Results]) -> list[Table]:
    """Every answer's accuracy and calibrated NLL, a column a run."""
    found = [{row["model"]: row for row in run["summary"]} for run in runs]
    models = [model for model in ANSWERS if any(model in one for one in found)]
    return [
        Table(
            f"{MEASURE[key].axis} side by side, mean ± sd over seeds",
            ["answer", *counted(names, runs)],
            [[ANSWERS[model], *(show(one[model][key]) if model in one else "" for one in found)] for model in models],
        )
        for key in ("acc", "cal_nll")
    ]


def answers(results: Results) -> Any:
    """Test error and calibrated NLL of every answer: a bar a network, mean and sd; lines at network and ensemble."""
    rows = results["summary"]
    fig, axes = figure(10.0, 1.5 + 0.36 * len(rows), columns=2)
    for ax, key, label in zip(axes, ("acc", "cal_nll"), ("test error", MEASURE["cal_nll"].axis), strict=True):
        for place, row in enumerate(rows):
            colour = COLOURS[1] if row["model"] in ("network", "ensemble", "pair", "average") else COLOURS[2]
            each = [value(one, key) for one in results["rows"] if one["model"] == row["model"]]
            ax.plot(each, [-place - 0.22] * len(each), linestyle="", marker="|", color="0.55", markersize=6)
            mean = {**row[key], "mean": value({key: row[key]["mean"]}, key)}
            points(ax, [-place], [mean], sideways=True, fmt="o", color=colour, markersize=6, capsize=3)
        for name, style in (("network", ":"), ("ensemble", "-")):
            line = next(row for row in rows if row["model"] == name)
            ax.axvline(value({key: line[key]["mean"]}, key), color="0.35", linestyle=style, linewidth=0.9, zorder=1.5)
        ax.set(ylim=(0.6 - len(rows), 0.6), xlabel=label)
    axes[0].set_yticks([-place for place in range(len(rows))], [ANSWERS[row["model"]] for row in rows])
    axes[1].set_yticks([-place for place in range(len(rows))], [""] * len(rows))
    fig.suptitle(f"{trained_on(results)}; {spread(results)}; bars: a network each", fontsize=9)
    return fig


def value(row: Results, key: str) -> float:
    """Of accuracy the error, else the measure."""
    return float(1 - row[key] if key == "acc" else row[key])


SHOWN = (
    "Test error and calibrated NLL of one network, of ensembles and of what is distilled from them; dotted line at one "
    "network, full line at the ensemble"
)
REPORT = Report(
    ("experiment mysteries", "experiment ensemble-over-kd"), _sentence, _tables,
    (Figure("answers", answers, SHOWN),), _compared, summary=_summary, published=_published,
)  # fmt: skip
