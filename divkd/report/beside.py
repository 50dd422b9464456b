"""Figures that set theory beside practice: a column a run, simulated ones first, the same words on the axes.

Every function takes the runs that it can draw, at least one, and returns the figure and its caption; a further run of
either kind is a further column. `divkd.report.figures` says which runs go where.
"""

import math
from typing import Any, NamedTuple

from divkd.report.ensembles import MODEL_NAMES, spread
from divkd.report.style import COLOURS, MARKERS, figure
from divkd.shared.metrics.dee import equivalent
from divkd.shared.stats import summarise

WIDTH, HEIGHT = 4.3, 3.9  # inches, of a column
CLAIMS = {
    "single": "one network",
    "ensemble": "ensemble",
    "distilled": "distilled",
    "self_distilled": "self-distilled",
    "labels_only": "labels only, as long",
}
ERROR = "test error, as a share of one network's"


class Source(NamedTuple):
    """A finished run: the name of its folder, and its results.json."""

    name: str
    results: dict[str, Any]

    @property
    def simulated(self) -> bool:
        """Whether it is theory."""
        return str(self.results["command"]).startswith("simulate")

    def __str__(self) -> str:
        seeds = ", ".join(map(str, self.results["seeds"]))
        return f"{self.name} ({spread(self.results)}: {seeds})"


def ensemble_gain(sources: list[Source]) -> tuple[Any, str]:
    """Test error as a share of one network's, against the number of members.

    The share is 1 - (ensemble gain in accuracy) / (one network's error). Theory: single-view test samples, the ones on
    which a network that knows one view of each class fails, with the finite-size prediction. Practice: the test images,
    each share taken of the same seed's first network, with every student. Raises ValueError where one simulated network
    makes no error, as there is no share of it.
    """
    fig, axes = figure(WIDTH * len(sources), HEIGHT, columns=len(sources))
    for ax, source in zip(axes, sources, strict=True):
        (_gain_theory if source.simulated else _gain_practice)(ax, source)
        ax.axhline(1, color="0.35", linewidth=0.8, linestyle=":")
        ax.set_xlabel("members of the ensemble")
        ax.set_ylabel(ERROR)
        ax.legend(frameon=False, fontsize=8)
        ax.set_ylim(bottom=0)
    return fig, (
        f"{ERROR.capitalize()}, against the number of members. Theory: samples that show one view of their class, and "
        "the finite-size prediction. Practice: test images, with every student of the run."
    )


def _gain_theory(ax: Any, source: Source) -> None:
    rows = source.results["claims"]["ensemble"]["by_members"]
    base, predicted_base = rows[0]["single_view_error"], rows[0]["predicted"]
    if not base or not predicted_base:
        raise ValueError("one simulated network makes no error")
    members = [row["members"] for row in rows]
    shares = [row["single_view_error"] / base for row in rows]
    deviations = [(row.get("std") or 0) / base for row in rows]
    ax.errorbar(members, shares, yerr=deviations, color=COLOURS[1], marker="o", capsize=3, label="measured")
    predicted = [row["predicted"] / predicted_base for row in rows]
    ax.plot(members, predicted, color=COLOURS[0], linestyle="--", linewidth=1, label="predicted, finite size")
    ax.set_title(f"Theory: multi-view data, single-view samples\none network errs on {base:.1%}; "
                 f"{spread(source.results)}", fontsize=9)  # fmt: skip
    ax.set_xticks(members)


def _gain_practice(ax: Any, source: Source) -> None:
    shares = practice_shares(source.results)
    sizes = sorted(size for model, _, size in shares if model == "deep_ensemble")
    ladder = [summarise(shares["deep_ensemble", "none", size]) for size in sizes]
    ax.errorbar(sizes, [point["mean"] for point in ladder], yerr=[point["std"] or 0 for point in ladder],
                color=COLOURS[1], marker="o", capsize=3, label="deep ensemble")  # fmt: skip
    for index, model in enumerate(("batch_ensemble", "single")):
        students = {key: summarise(value) for key, value in shares.items() if key[0] == model}
        for offset, (key, point) in enumerate(students.items()):
            place = key[2] + 0.13 * (offset - (len(students) - 1) / 2)
            label = None if offset else f"{MODEL_NAMES[model]}, each method"
            ax.errorbar(place, point["mean"], yerr=point["std"] or 0, fmt=MARKERS[index + 1], markersize=5,
                        color=COLOURS[index + 2], capsize=2, label=label)  # fmt: skip
    ax.set_title(practice_title(source), fontsize=9)
    ax.set_xticks(sizes)


def practice_title(source: Source) -> str:
    """Data set, network, size, and what one network makes of it."""
    results = source.results
    error = summarise(
        1 - row["acc"] for row in results["rows"] if row["model"] == "deep_ensemble" and row["members"] == 1
    )
    return (
        f"Practice: {results['dataset']}, {results['network']}, {results['split']['train']} training images\n"
        f"one network errs on {error['mean']:.1%}; {spread(results)}"
    )


def practice_shares(practice: dict[str, Any]) -> dict[tuple[str, str, int], list[float]]:
    """Test error over the error of the same seed's first teacher, one number a seed, by (model, method, members)."""
    first = {
        row["seed"]: 1 - row["acc"]
        for row in practice["rows"]
        if row["model"] == "deep_ensemble" and row["members"] == 1
    }
    shares: dict[tuple[str, str, int], list[float]] = {}
    for row in practice["rows"]:
        error = 1 - row["acc"]
        share = error / first[row["seed"]] if first[row["seed"]] else math.nan if error else 1.0
        shares.setdefault((row["model"], row["method"], row["members"]), []).append(share)
    return shares


def recovered(sources: list[Source]) -> tuple[Any, str]:
    """What distillation recovers: the error of one network, of the ensemble and of what was distilled from it.

    As a share of one network's error, as in `ensemble_gain`: theory on single-view samples, practice on test images.
    """
    columns = [theory_shares(s.results) if s.simulated else recovered_shares(s.results) for s in sources]
    tallest = max(map(len, columns))
    fig, axes = figure((WIDTH + 1.2) * len(sources), 1.4 + 0.27 * tallest, columns=len(sources))
    for ax, source, shares in zip(axes, sources, columns, strict=True):
        for place, (name, point) in enumerate(shares.items()):
            student = "distilled" in name if source.simulated else "," in name
            colour = COLOURS[2 if student else 1]
            ax.errorbar(point["mean"], -place, xerr=point["std"] or 0, fmt="o", color=colour, markersize=6, capsize=3)
        ax.axvline(1, color="0.35", linewidth=0.8, linestyle=":")
        ensemble = next(point for name, point in shares.items() if "ensemble" in name)
        ax.axvline(ensemble["mean"], color=COLOURS[1], linewidth=0.8, linestyle=":")
        ax.set_yticks([-place for place in range(len(shares))], list(shares))
        ax.set_ylim(0.6 - tallest, 0.6)
        ax.set_xlabel(ERROR)
        ax.set_xlim(left=0 if source.simulated else None)
        title = f"Theory: single-view samples; {spread(source.results)}"
        ax.set_title(title if source.simulated else practice_title(source), fontsize=9)
    return fig, (
        "What distillation recovers: the error that is left, as a share of one network's; dotted lines at one network "
        "and at the ensemble of the teachers."
    )


def theory_shares(theory: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Single-view error of every claim as a share of a single network's mean: {name: {mean, std}}."""
    found = {CLAIMS[name]: theory["claims"][name]["single_view_error"] for name in CLAIMS if name in theory["claims"]}
    base = found[CLAIMS["single"]]["mean"]
    if not base:
        raise ValueError("one simulated network makes no error")
    return {name: {"mean": one["mean"] / base, "std": (one["std"] or 0) / base} for name, one in found.items()}


def recovered_shares(practice: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Test error of the teachers and of every student as a share of one teacher's: {name: {mean, std, n}}."""
    shares = practice_shares(practice)
    # runs of earlier versions do not say how many networks taught
    sizes = [size for model, _, size in shares if model == "batch_ensemble"]
    teachers = practice.get("members") or max(sizes or [size for _, _, size in shares])
    found = {"one network": summarise(shares["deep_ensemble", "none", 1])}
    found[f"deep ensemble of {teachers}"] = summarise(shares["deep_ensemble", "none", teachers])
    for (model, method, _), values in shares.items():
        if model in ("batch_ensemble", "single"):
            learned = "labels" if method == "none" else method
            found[f"{MODEL_NAMES[model].removesuffix(' network')}, {learned}"] = summarise(values)
    return found


def equivalents(sources: list[Source]) -> tuple[Any, str]:
    """How many members a distilled network is worth: where its score meets the ladder of the ensembles.

    Practice: the deep ensemble equivalent of `shared.metrics.dee` on calibrated NLL, a mark a seed. Theory: the same
    crossing on the mean error on single-view samples.
    """
    fig, axes = figure(WIDTH * len(sources) + 0.6, HEIGHT, columns=len(sources))
    for ax, source in zip(axes, sources, strict=True):
        found, top = (theory_equivalents if source.simulated else practice_equivalents)(source.results)
        for place, values in enumerate(found.values()):
            for value, censored in values:
                ax.plot(value, -place, marker=">" if censored else "o", color=COLOURS[2], markersize=7, alpha=0.7)
        ax.set_yticks([-place for place in range(len(found))], list(found))
        ax.set_ylim(0.5 - len(found), 0.5)
        ax.set_xlim(0.7, top + 0.3)
        ax.set_xticks(range(1, top + 1))
        ax.set_xlabel(f"worth so many members (> : at least {top})")
        what = "Theory, by single-view error; one mark, of the mean over seeds" if source.simulated else (
            f"Practice, by calibrated NLL: {source.results['dataset']},\n{source.results['network']}; one mark a seed"
        )  # fmt: skip
        ax.set_title(what, fontsize=9)
    return fig, (
        "Deep ensemble equivalent: the number of members at which an ensemble is as good as the network. Practice on "
        "calibrated NLL, theory on the error on single-view samples."
    )


def has_equivalents(source: Source) -> bool:
    """Whether a run distilled anything and measured a ladder."""
    results = source.results
    if source.simulated:
        return "distilled" in results["claims"]
    return any("dee" in row for row in results["rows"]) and len(results["ladders"][0]["curve"]) > 1


def errs(source: Source) -> bool:
    """Whether one network makes errors of which the others' can be a share."""
    if not source.simulated:
        return True
    first = source.results["claims"]["ensemble"]["by_members"][0]
    return bool(first["single_view_error"] and first["predicted"])


def theory_equivalents(theory: dict[str, Any]) -> tuple[dict[str, list[tuple[float, bool]]], int]:
    """{claim: [(members, censored)]} on the ladder of single-view errors, and the ladder's length."""
    rows = theory["claims"]["ensemble"]["by_members"]
    curve = [{"members": row["members"], "mean": row["single_view_error"]} for row in rows]
    found = {}
    for claim in ("distilled", "self_distilled", "labels_only"):
        if claim in theory["claims"]:
            one = equivalent(curve, theory["claims"][claim]["single_view_error"]["mean"])
            found[CLAIMS[claim]] = [(one.value, one.censored)]
    return found, len(curve)


def practice_equivalents(practice: dict[str, Any]) -> tuple[dict[str, list[tuple[float, bool]]], int]:
    """{student: [(members, censored) a seed]}, and the ladder's length."""
    found: dict[str, list[tuple[float, bool]]] = {}
    for row in practice["rows"]:
        if "dee" in row and row["model"] != "merged":
            name = f"{MODEL_NAMES[row['model']].removesuffix(' network')}, {row['method']}"
            found.setdefault(name, []).append((row["dee"]["value"], row["dee"]["censored"]))
    return found, len(practice["ladders"][0]["curve"])
