"""Figures that set theory beside practice: a column a run, simulated ones first, the same words on the axes.

Every function takes the runs that it can draw, at least one, and returns the figure and its caption; a further run of
either kind is a further column. `divkd.report.figures.manual` says which runs go where.
"""

import math
from itertools import chain
from textwrap import fill
from typing import Any

from divkd.report.figures import training
from divkd.report.record import unique
from divkd.report.sources import Source, flat
from divkd.report.style import COLOURS, MARKERS, beside, figure, marks, one_scale, points
from divkd.report.words import learned, spread, trained_on
from divkd.shared import kinds
from divkd.shared.kinds import MODELS, STUDENTS
from divkd.shared.stats import summarise

WIDTH, HEIGHT = 4.3, 3.9  # inches, of a column
CLAIMS = {name: kinds.CLAIMS[name].short for name in ("single", "ensemble", "distilled", "self_distilled")}
CLAIMS |= {"labels_only": "labels only, as long"}  # a line of room
ERROR = "test error, as a share of one network's"
NO_ERROR = "one simulated network makes no error"


def ensemble_gain(sources: list[Source]) -> tuple[Any, str]:
    """Test error as a share of one network's, against the number of members.

    The share is 1 - (ensemble gain in accuracy) / (one network's error). Theory: single-view test samples, the ones on
    which a network that knows one view of each class fails, with the finite-size prediction. Practice: the test images,
    each share taken of the same seed's first network, with every student. Raises ValueError where one simulated network
    makes no error, as there is no share of it.
    """
    fig, axes = figure(WIDTH * len(sources), HEIGHT, columns=len(sources))
    for ax, source, name in zip(axes, sources, told_apart(sources), strict=True):
        (_gain_theory if source.simulated else _gain_practice)(ax, source)
        ax.set_title(f"{name}{ax.get_title()}", fontsize=9)
        ax.axhline(1, color="0.35", linewidth=0.8, linestyle=":")
        ax.set(xlabel="members of the ensemble", ylabel=ERROR, ylim=(0, None))
        ax.legend(frameon=False, fontsize=8)
    one_scale(axes)
    return fig, (
        f"{ERROR.capitalize()}, against the number of members. Theory: samples that show one view of their class, and "
        "the finite-size prediction. Practice: test images, with every student of the run."
    )


def told_apart(sources: list[Source]) -> list[str]:
    """How a title begins: theory or practice; of several simulations by the preset, up to three fields, or the name."""
    runs = [source for source in sources if source.simulated]
    fields = [dict(flat({**run.results["config"], **run.asked, "preset": run.results["preset"]})) for run in runs]
    differ = [key for key in unique(chain(*fields)) if len({one.get(key) for one in fields}) > 1]
    if len({one["preset"] for one in fields}) == len(runs):
        differ = ["preset"]
    by = [", ".join(f"{key}={one.get(key)}" for key in differ) if 0 < len(differ) < 4 else run.name
          for run, one in zip(runs, fields, strict=True)]  # fmt: skip
    names = iter(f"{fill(f'Theory, {name}', 52)}\n" if len(runs) > 1 else "Theory: " for name in by)
    return [next(names) if source.simulated else "Practice: " for source in sources]


def _gain_theory(ax: Any, source: Source) -> None:
    rows = source.results["claims"]["ensemble"]["by_members"]
    if not errs(source):
        raise ValueError(NO_ERROR)
    members, base = [row["members"] for row in rows], rows[0]["single_view_error"]
    shares = (_share({"mean": row["single_view_error"], "std": row["std"]}, base) for row in rows)
    points(ax, members, shares, color=COLOURS[1], marker="o", capsize=3, label="measured")
    predicted = [row["predicted"] / rows[0]["predicted"] for row in rows]
    ax.plot(members, predicted, color=COLOURS[0], linestyle="--", linewidth=1, label="predicted, finite size")
    title = f"multi-view data, single-view samples\none network errs on {base:.1%}; {spread(source.results)}"
    ax.set_title(title, fontsize=9)
    ax.set_xticks(members)


def _share(error: dict[str, Any], base: float) -> dict[str, Any]:
    return {"mean": error["mean"] / base, "std": (error["std"] or 0) / base}


def _gain_practice(ax: Any, source: Source) -> None:
    shares = practice_shares(source.results)
    sizes = sorted(size for model, _, size in shares if model == "deep_ensemble")
    ladder = (summarise(shares["deep_ensemble", "none", size]) for size in sizes)
    points(ax, sizes, ladder, color=COLOURS[1], marker="o", capsize=3, label=MODELS["deep_ensemble"])
    for index, model in enumerate(STUDENTS, 1):
        students = {key: summarise(value) for key, value in shares.items() if key[0] == model}
        places = [key[2] + beside(offset, len(students), 0.13) for offset, key in enumerate(students)]
        if students:
            points(ax, places, students.values(), fmt=MARKERS[index], markersize=5, color=COLOURS[index + 1], capsize=2,
                   label=f"{MODELS[model]}, each method")  # fmt: skip
    ax.set_title(practice_title(source), fontsize=9)
    ax.set_xticks(sizes)


def practice_title(source: Source) -> str:
    """Data set, network, size, and what one network makes of it."""
    error = summarise(_first_errors(source.results).values())["mean"]
    return f"{trained_on(source.results)}\none network errs on {error:.1%}; {spread(source.results)}"


def _first_errors(practice: dict[str, Any]) -> dict[int, float]:
    """Test error of every seed's first teacher."""
    rows = practice["rows"]
    return {row["seed"]: 1 - row["acc"] for row in rows if row["model"] == "deep_ensemble" and row["members"] == 1}


def practice_shares(practice: dict[str, Any]) -> dict[tuple[str, str, int], list[float]]:
    """Test error over the error of the same seed's first teacher, one number a seed, by (model, method, members)."""
    first = _first_errors(practice)
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
    for ax, source, name_of, shares in zip(axes, sources, told_apart(sources), columns, strict=True):
        for place, (name, point) in enumerate(shares.items()):
            student = "distilled" in name if source.simulated else "," in name
            colour = COLOURS[2 if student else 1]
            points(ax, [-place], [point], sideways=True, fmt="o", color=colour, markersize=6, capsize=3)
        ax.axvline(1, color="0.35", linewidth=0.8, linestyle=":")
        ensemble = next(point for name, point in shares.items() if "ensemble" in name)
        ax.axvline(ensemble["mean"], color=COLOURS[1], linewidth=0.8, linestyle=":")
        ax.set_yticks([-place for place in range(len(shares))], list(shares))
        ax.set(ylim=(0.6 - tallest, 0.6), xlabel=ERROR)
        ax.set_xlim(left=0)
        theory = f"single-view samples; {spread(source.results)}"
        ax.set_title(f"{name_of}{theory if source.simulated else practice_title(source)}", fontsize=9)
    one_scale(axes, sideways=True)
    return fig, (
        "What distillation recovers: the error that is left, as a share of one network's; dotted lines at one network "
        "and at the ensemble of the teachers."
    )


def theory_shares(theory: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Single-view error of every claim as a share of a single network's mean: {name: {mean, std}}."""
    errors = {name: theory["claims"][name]["single_view_error"] for name in CLAIMS if name in theory["claims"]}
    base = errors["single"]["mean"]
    if not base:
        raise ValueError(NO_ERROR)
    return {CLAIMS[name]: _share(one, base) for name, one in errors.items()}


def recovered_shares(practice: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Test error of the teachers and of every student as a share of one teacher's: {name: {mean, std, n}}."""
    shares = practice_shares(practice)
    size = training.teachers(practice)
    named = {"one network": ("deep_ensemble", "none", 1), f"deep ensemble of {size}": ("deep_ensemble", "none", size)}
    for model, method, members in shares:
        if model in STUDENTS:
            named[f"{MODELS[model].removesuffix(' network')}, {learned(method)}"] = model, method, members
    return {name: summarise(shares[key]) for name, key in named.items()}


def equivalents(sources: list[Source]) -> tuple[Any, str]:
    """How many members a distilled network is worth: where its score meets the ladder of the ensembles.

    The deep ensemble equivalent of `shared.metrics.dee` on calibrated NLL, a mark a seed: practice on test images,
    theory on single-view test samples.
    """
    fig, axes = figure(WIDTH * len(sources) + 0.6, HEIGHT, columns=len(sources))
    for ax, source, name in zip(axes, sources, told_apart(sources), strict=True):
        worth, top = (theory_equivalents if source.simulated else practice_equivalents)(source.results)
        marks(ax, worth, top, 0.3, color=COLOURS[2], markersize=7)
        ax.set(ylim=(0.5 - len(worth), 0.5), xlabel=f"worth so many members (> : at least {top})")
        what = "multi-view data,\nsingle-view samples"
        if not source.simulated:
            what = f"{source.results['dataset']},\n{source.results['network']}"
        ax.set_title(f"{name}by calibrated NLL: {what}; one mark a seed", fontsize=9)
    return fig, (
        "Deep ensemble equivalent: the number of members at which an ensemble is as good as the network, by calibrated "
        "NLL: theory on single-view test samples, practice on test images."
    )


def has_equivalents(source: Source) -> bool:
    """Whether a run distilled anything and measured a ladder."""
    results = source.results
    if source.simulated:
        return "judged" in results and "distilled" in results["claims"]
    return training.has_equivalents(results)


def errs(source: Source) -> bool:
    """Whether one network makes errors of which the others' can be a share."""
    first = source.results["claims"]["ensemble"]["by_members"][0] if source.simulated else None
    return first is None or bool(first["single_view_error"] and first["predicted"])


def theory_equivalents(theory: dict[str, Any]) -> tuple[dict[str, list[tuple[float, bool]]], int]:
    """{claim: [(members, censored) a seed]} on the ladders of single-view samples, and the ladders' length."""
    ladders = theory["judged"]["ladders"]
    worth = {
        CLAIMS[claim]: [(one["dee"][claim]["value"], one["dee"][claim]["censored"]) for one in ladders]
        for claim in ("distilled", "self_distilled", "labels_only")
        if claim in ladders[0]["dee"]
    }
    return worth, len(ladders[0]["curve"])


def practice_equivalents(practice: dict[str, Any]) -> tuple[dict[str, list[tuple[float, bool]]], int]:
    """{student: [(members, censored) a seed]}, and the ladder's length."""
    return training.student_equivalents(practice, short=" network"), len(practice["ladders"][0]["curve"])
