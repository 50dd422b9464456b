"""The report of `divkd evaluate`: anyone's predictions, their quality, calibration and diversity."""

import math
from pathlib import Path
from typing import TypeGuard

from divkd.report import summaries
from divkd.report.figures import evaluation as figures
from divkd.report.record import Figure, Report, Results, Table, has
from divkd.report.words import MEASURES, number, span

MANY = 20  # classes beyond which only the worst are tabled


def _sentence(results: Results, asked: Results) -> str:
    if "models" in results:
        base, *others = figures.models(results)
        rest = f"on the same {results['samples']:,} test samples, {results['classes']} classes"
        return f"The predictions in {', '.join(one['file'] for one in others)} beside those in {base['file']}, {rest}."
    val, ood = results["validation_samples"], results["ood_samples"]
    rest = f"{results['samples']:,} test, {val:,} validation and {ood:,} foreign samples"
    kind = figures.members(results)
    return f"The predictions in {results['file']}, judged: {kind}, {results['classes']} classes, {rest}."


def _tables(results: Results) -> list[Table]:
    """Quality, calibrated quality, diversity and classes; samples of another distribution; of several files, the
    numbers side by side and their paired differences."""
    several = "models" in results
    tables = _several(results) if several else [_single(results), *_classes(results)]
    scored = [one for one in figures.models(results) if "ood" in one]
    lines = []
    for one in scored:
        spans = one.get("intervals", {}).get("ood", {})
        for score, row in one["ood"].items():
            ends = spans.get(score, {})
            values = [f"{number(row[key])} {span(ends.get(key))}".rstrip() for key in ("auroc", "aupr", "fpr95")]
            lines.append([*[one["file"]] * several, score.replace("_", " "), *values])
    if scored:
        title = f"{scored[0]['ood_samples']:,} samples of another distribution, which are the positive class"
        heads = [*["file"] * several, "score", "AUROC", "AUPR", "FPR at 95 % TPR"]
        tables.append(Table(title, heads, lines, names=1 + several))
    return tables


def _single(results: Results) -> Table:
    intervals = results.get("intervals", {})
    drawn = [f"{intervals['level']:.0%} interval ({intervals['resamples']:,} draws)"] if intervals else []
    lines = [
        [one.title, number(results[one.key]), *(span(intervals.get(one.key)) for _ in drawn)]
        for one in MEASURES
        if one.key in results and (results["members"] > 1 or not one.of_members)
    ]
    heads = ["measure", "value", *drawn]
    return Table(figures.caption(results, short=False), heads, lines, notes=tuple(remarks(results)))


def _classes(results: Results) -> list[Table]:
    """How well each class is told, or where there are many, the ten that are told worst."""
    rows = results.get("by_class", [])
    title = "Each class"
    if len(rows) > MANY:
        title = f"The 10 of {len(rows)} classes with the lowest F1; results.json has all"
        rows = sorted((row for row in rows if _known(row["f1"])), key=lambda row: row["f1"])[:10]
    lines = [
        [*(f"{row[key]:,}" for key in ("class", "support", "predicted")),
         *(number(row[key]) if _known(row[key]) else "none" for key in ("precision", "recall", "f1"))]
        for row in rows
    ]  # fmt: skip
    return [Table(title, ["class", "samples", "predicted", "precision", "recall", "F1"], lines)] if lines else []


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)


def _several(results: Results) -> list[Table]:
    """The numbers of each file, and the differences of each from the first."""
    each = figures.models(results)
    draws: Results = results.get("draws", {})
    said: dict[str, list[str]] = {}
    for one in each:
        for line in remarks(one):
            said.setdefault(line, []).append(one["file"])
    notes = (f"{', '.join(of) if len(of) < len(each) else 'each file'}: {line}" for line, of in said.items())
    heads = ["measure", *(one["file"] for one in each)]
    tables = [Table(figures.caption(results), heads, _beside(each), notes=tuple(notes))]
    heads = ["measure", "difference"]
    if draws:
        heads.append(f"{draws['level']:.0%} interval ({draws['resamples']:,} draws)")
    for one in results["differences"]:
        rows = [(measure, one["measures"][measure.key]) for measure in MEASURES if measure.key in one["measures"]]
        lines = [
            [measure.title, _signed(row["value"]), *([span((row["low"], row["high"]))] if draws else [])]
            for measure, row in rows
        ]
        paired = ", both on the same draws of the samples" if draws else ""
        tables.append(Table(f"{one['file']} minus {one['base']}{paired}", heads, lines))
    return tables


def _signed(value: float | None) -> str:
    return f"{'+' if _known(value) and value > 0 else ''}{number(value)}"


def _beside(each: list[Results]) -> list[list[str]]:
    """Every measure of several evaluations; a single model has none of members."""
    lines = [["M", *(str(one["members"]) for one in each)]]
    for measure in MEASURES:
        having = [measure.key in one and (one["members"] > 1 or not measure.of_members) for one in each]
        if any(having):
            cells = (number(one[measure.key]) if has else "" for one, has in zip(each, having, strict=True))
            lines.append([measure.title, *cells])
    return lines


def remarks(results: Results) -> list[str]:
    """What a reader of the numbers must know."""
    lines = []
    if "temperature" in results:
        bound = "; the fit ended at its bound, so the calibrated values describe the bound"
        lines.append(f"temperature {results['temperature']:.3f}, fitted on {results['validation_samples']:,} val_* "
                     f"samples{bound if results['temperature_at_bound'] else ''}")  # fmt: skip
    else:
        lines.append("no calibrated values and no DEE: the file has no val_* arrays, and the test set never chooses")
    if "dee" in results:
        dee = results["dee"]
        curve = "  ".join(f"{row['members']}: {number(row['mean'])}" for row in dee["curve"])
        lines.append(f"calibrated NLL of a deep ensemble by members  {curve}")
        if not dee["own_members"]:
            worth = f"{'>= ' if dee['censored'] else ''}{dee['value']:.2f}"
            lines.append(f"deep ensemble equivalent {worth}, on the members of {dee['ensemble']}")
    return lines


def _comparison(labels: list[str], runs: list[Results]) -> list[Table]:
    """Every measure of several files."""
    each = [(label, one) for label, run in zip(labels, runs, strict=True) for one in figures.models(run)]
    lines = [["test samples", *(f"{one['samples']:,}" for _, one in each)], *_beside([one for _, one in each])]
    heads = ["measure", *(f"{label}: {one['file']}" for label, one in each)]
    return [Table("Predictions side by side", heads, lines)]


def _again(results: Results, asked: Results, run: Path) -> tuple[list[str], str]:
    each = figures.models(results)
    line = ["divkd", "evaluate", *(one["file"] for one in each)]
    if "dee" in each[0] and not each[0]["dee"]["own_members"]:
        line += ["--ensemble", each[0]["dee"]["ensemble"]]
    draws = (results.get("draws") or results.get("intervals") or {"resamples": 0})["resamples"]
    line += ["--bootstrap", str(draws)] if draws or len(each) > 1 else []
    line += [part for seed in results["seeds"][:1] for part in ("--seed", str(seed))]
    return line, "The folder of a file was not recorded, only its name."


def samples(results: Results) -> str:
    """What a figure is of."""
    each = figures.models(results)
    return f"{results['samples']:,} test samples, members: {', '.join(str(one['members']) for one in each)}"


FIGURES = (
    Figure(
        "reliability",
        figures.reliability,
        "Accuracy against confidence, before and after calibration where there is one",
        samples,
        fits=has("reliability"),
    ),
    Figure(
        "risk_coverage",
        figures.risk_coverage,
        "Error rate of the samples that are answered, the most confident first, by their share",
        samples,
        fits=lambda results: all("risk_coverage" in one for one in figures.models(results)),
    ),
    Figure(
        "confusion",
        figures.confusion,
        "Predicted class by true class, as a share of the true class",
        samples,
        fits=has("confusion"),
    ),
    Figure(
        "diversity",
        figures.diversity,
        "Members' pairwise KL by confidence of the mean prediction",
        samples,
        fits=has("diversity_by_confidence"),
    ),
    Figure(
        "similarity",
        figures.similarity,
        "Member against member: equal predictions and correlation of errors",
        samples,
        fits=has("diversity_by_confidence"),
    ),
    Figure(
        "dee",
        figures.equivalent,
        "Calibrated NLL of the deep ensemble by members, and where the model stands",
        samples,
        fits=has("dee"),
    ),
)
REPORT = Report(
    ("evaluate",), _sentence, _tables, FIGURES, _comparison, _again, vector=True, summary=summaries.evaluation
)
