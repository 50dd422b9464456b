"""The report of `divkd evaluate`: anyone's predictions, their quality, calibration and diversity."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from divkd.report.figures import evaluation as figures
from divkd.report.record import Figure, Report, Results, Table
from divkd.report.words import MEASURES, number, span


def _sentence(results: Results, asked: Results) -> str:
    val, ood = results["validation_samples"], results["ood_samples"]
    rest = f"{results['samples']:,} test, {val:,} validation and {ood:,} foreign samples"
    kind = figures.members(results)
    return f"The predictions in {results['file']}, judged: {kind}, {results['classes']} classes, {rest}."


def _tables(results: Results) -> list[Table]:
    """Quality, calibrated quality and diversity, samples of another distribution, and the curve of the DEE."""
    intervals = results.get("intervals", {})
    heads = ["measure", "value"]
    if intervals:
        heads.append(f"{intervals['level']:.0%} interval ({intervals['resamples']:,} draws)")
    lines = [
        [one.title, number(results[one.key]), *([span(intervals.get(one.key))] if intervals else [])]
        for one in MEASURES
        if one.key in results and (results["members"] > 1 or not one.of_members)
    ]
    kind = figures.members(results)
    caption = f"{results['file']}: {kind}, {results['samples']:,} test samples, {results['classes']} classes"
    tables = [Table(caption, heads, lines, notes=tuple(remarks(results)))]
    if "ood" in results:
        spans = intervals.get("ood", {})
        lines = []
        for score, row in results["ood"].items():
            ends = spans.get(score, {})
            values = [f"{number(row[key])} {span(ends.get(key))}".rstrip() for key in ("auroc", "aupr", "fpr95")]
            lines.append([score.replace("_", " "), *values])
        title = f"{results['ood_samples']:,} samples of another distribution, which are the positive class"
        tables.append(Table(title, ["score", "AUROC", "AUPR", "FPR at 95 % TPR"], lines))
    return tables


def remarks(results: Results) -> list[str]:
    """What a reader of the numbers must know."""
    lines = []
    if "temperature" in results:
        fitted = f"temperature {results['temperature']:.3f}, fitted on {results['validation_samples']:,} val_* samples"
        bound = "; the fit ended at its bound, so the calibrated values describe the bound"
        lines.append(fitted + (bound if results["temperature_at_bound"] else ""))
    else:
        lines.append("no calibrated values and no DEE: the file has no val_* arrays, and the test set never chooses")
    if "dee" in results:
        dee = results["dee"]
        curve = "  ".join(f"{row['members']}: {number(row['mean'])}" for row in dee["curve"])
        lines.append(f"calibrated NLL of a deep ensemble by members  {curve}")
        if not dee["own_members"]:
            sign = ">= " if dee["censored"] else ""
            lines.append(f"deep ensemble equivalent {sign}{dee['value']:.2f}, on the members of {dee['ensemble']}")
    return lines


def _comparison(labels: list[str], runs: list[Results]) -> list[Table]:
    """Every measure of several files."""
    lines = [["test samples", *(f"{run['samples']:,}" for run in runs)], ["M", *(str(run["members"]) for run in runs)]]
    lines += [
        [one.title, *(number(run[one.key]) if one.key in run else "" for run in runs)]
        for one in MEASURES
        if any(one.key in run for run in runs)
    ]
    heads = ["measure", *(f"{label}: {run['file']}" for label, run in zip(labels, runs, strict=True))]
    return [Table("Predictions side by side", heads, lines)]


def _again(results: Results, asked: Results, run: Path) -> tuple[list[str], str]:
    line = ["divkd", "evaluate", results["file"]]
    if "dee" in results and not results["dee"]["own_members"]:
        line += ["--ensemble", results["dee"]["ensemble"]]
    if "intervals" in results:
        line += ["--bootstrap", str(results["intervals"]["resamples"])]
    line += [part for seed in results["seeds"][:1] for part in ("--seed", str(seed))]
    return line, "The folder of the file was not recorded, only its name."


def samples(results: Results) -> str:
    """What a figure is of."""
    return f"{results['samples']:,} test samples, members: {results['members']}"


def _some(part: str) -> Callable[[Results], bool]:
    return lambda results: part in results


_figure = partial(Figure, of=samples)
FIGURES = (
    _figure(
        "reliability",
        figures.reliability,
        "Accuracy against confidence, before and after calibration where there is one",
    ),
    _figure(
        "diversity",
        figures.diversity,
        "Members' pairwise KL by confidence of the mean prediction",
        fits=_some("diversity_by_confidence"),
    ),
    _figure(
        "similarity",
        figures.similarity,
        "Member against member: equal predictions and correlation of errors",
        fits=_some("diversity_by_confidence"),
    ),
    _figure(
        "dee",
        figures.equivalent,
        "Calibrated NLL of the deep ensemble by members, and where the model stands",
        fits=_some("dee"),
    ),
)
REPORT = Report(_sentence, _tables, FIGURES, _comparison, _again, vector=True)
