"""How much of the ensemble's gain other answers have: theory beside practice, as in `divkd.report.figures.beside`."""

from typing import Any, NamedTuple

from divkd.report.figures.beside import told_apart
from divkd.report.record import Results
from divkd.report.sources import Source
from divkd.report.style import COLOURS, figure, one_scale
from divkd.report.words import spread, trained_on


class Line(NamedTuple):
    """What is compared: its name, and the claim of a simulation and the answer of an experiment that are about it."""

    name: str
    claim: str = ""
    answer: str = ""


# The theory's clipped rule, and its self-distillation that goes on with the trained network, have no practice here.
LINES = (
    Line("ensemble of two", "pair", "pair"),
    Line("their average, trained as one", "trained_jointly_average", "average"),
    Line("distilled, by the clipped rule", "distilled"),
    Line("distilled, at a temperature", "distilled_temperature", "distilled"),
    Line("distilled, t CE + (1 - t) H", "distilled_mixed", "distilled_mixed"),
    Line("ensemble of the distilled", "ensemble_of_distilled", "ensemble_over_kd"),
    Line("self-distilled, the network goes on", "self_distilled"),
    Line("self-distilled, a fresh network", "chain_1", "self_distilled"),
    Line("self-distilled, t CE + (1 - t) H", "", "self_distilled_mixed"),
)


class Share(NamedTuple):
    """The share of the ensemble's gain: of means over seeds, and each seed's where its ensemble gains."""

    mean: float
    seeds: list[float]


def kept(sources: list[Source]) -> tuple[Any, str]:
    """The share of the ensemble's gain over one network that every other answer has:

        (e_1 - e) / (e_1 - e_M),    e test error (theory: on single-view samples), e_1 one network's, e_M the ensemble's

    of means over seeds, with a bar for each seed's own.
    """
    found = [shares(source.results) for source in sources]
    lines = [line for line in LINES if any(line.name in one for one in found)]
    fig, axes = figure(2.6 + 4.2 * len(sources), 1.5 + 0.34 * len(lines), columns=len(sources))
    for column, (ax, source, whose, shown) in enumerate(zip(axes, sources, told_apart(sources), found, strict=True)):
        for place, line in enumerate(lines):
            if line.name not in shown:
                ax.text(0.5, -place, "not in this run", ha="center", va="center", fontsize=7, color="0.5")
                continue
            share, student = shown[line.name], "distilled" in line.name
            ax.plot(share.seeds, [-place] * len(share.seeds), linestyle="", marker="|", color="0.45", markersize=9)
            ax.plot(share.mean, -place, marker="o", color=COLOURS[2 if student else 1], markersize=6)
        for end in (0, 1):
            ax.axvline(end, color="0.35", linewidth=0.8, linestyle=":")
        ax.set_yticks([-place for place in range(len(lines))], [line.name if not column else "" for line in lines])
        ax.set(ylim=(0.6 - len(lines), 0.6), xlabel="share of the ensemble's gain")
        of = "single-view samples" if source.simulated else f"{trained_on(source.results)}\ntest images"
        ax.set_title(f"{whose}{of}; {spread(source.results, 'of means over')}", fontsize=9)
    one_scale(axes, sideways=True)
    return fig, (
        "The share of the ensemble's gain over one network that other answers have, by the errors' means over seeds; "
        "bars: a seed each, where its ensemble gains. Theory: single-view test samples. Practice: test images."
    )


def shares(results: Results) -> dict[str, Share]:
    """By the name of a line, what a simulation or an experiment has of it; empty where its ensemble gains nothing."""
    simulated = str(results["command"]).startswith("simulate")
    by_kind = _claims(results) if simulated else _answers(results)
    one, all_of_them = ("single", "ensemble") if simulated else ("network", "ensemble")
    if one not in by_kind or all_of_them not in by_kind:
        return {}
    first, gain = by_kind[one], by_kind[one]["mean"] - by_kind[all_of_them]["mean"]
    if gain <= 0:
        return {}
    found = {}
    for line in LINES:
        errors = by_kind.get(line.claim if simulated else line.answer)
        if errors is not None:
            gains = {seed: first[seed] - by_kind[all_of_them][seed] for seed in results["seeds"]}
            own = [(first[seed] - errors[seed]) / gain for seed, gain in gains.items() if gain > 0 and seed in errors]
            found[line.name] = Share((first["mean"] - errors["mean"]) / gain, own)
    return found


Errors = dict[Any, float]  # by seed, and their "mean"


def _claims(results: Results) -> dict[str, Errors]:
    """Single-view errors of a simulation's claims; of two members there is the mean alone."""
    errors = _by_seed((row["claim"], row["seed"], row["single_view_error"]) for row in results["rows"])
    if "ensemble" in errors:
        members = {row["members"]: row["single_view_error"] for row in results["claims"]["ensemble"]["by_members"]}
        errors |= {"pair": {"mean": members[2]}} if 2 in members else {}
    return errors


def _answers(results: Results) -> dict[str, Errors]:
    """Test errors of an experiment's answers, of one network the mean of a seed's."""
    return _by_seed((row["model"], row["seed"], 1 - row["acc"]) for row in results["rows"])


def _by_seed(rows: Any) -> dict[str, Errors]:
    found: dict[str, dict[Any, list[float]]] = {}
    for kind, seed, error in rows:
        found.setdefault(kind, {}).setdefault(seed, []).append(error)
    means = {kind: {seed: sum(same) / len(same) for seed, same in seeds.items()} for kind, seeds in found.items()}
    return {kind: {**seeds, "mean": sum(seeds.values()) / len(seeds)} for kind, seeds in means.items()}


def fits(source: Source) -> bool:
    """Whether a run's ensemble gains, and anything stands beside it but two of its members."""
    return bool(shares(source.results).keys() - {LINES[0].name})
