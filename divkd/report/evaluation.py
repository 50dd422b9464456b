"""The report of `divkd evaluate`: anyone's predictions, their quality, calibration and diversity."""

from pathlib import Path

from divkd.report import summaries
from divkd.report.figures import evaluation as figures
from divkd.report.record import Figure, Report, Results, Table, has
from divkd.report.words import MEASURES, number, span


def _sentence(results: Results, asked: Results) -> str:
    test, validation, ood = (f"{results[part]:,}" for part in ("samples", "validation_samples", "ood_samples"))
    rest = f"{results['classes']} classes, {test} test, {validation} validation and {ood} foreign samples"
    return f"The predictions in {results['file']}, judged: {figures.members(results)}, {rest}."


def _tables(results: Results) -> list[Table]:
    """Quality, calibrated quality and diversity, samples of another distribution, and the curve of the DEE."""
    intervals = results.get("intervals", {})
    drawn = [f"{intervals['level']:.0%} interval ({intervals['resamples']:,} draws)"] if intervals else []
    lines = [
        [one.title, number(results[one.key]), *(span(intervals.get(one.key)) for _ in drawn)]
        for one in MEASURES
        if one.key in results and (results["members"] > 1 or not one.of_members)
    ]
    tables = [Table(figures.what(results), ["measure", "value", *drawn], lines, notes=tuple(remarks(results)))]
    if "ood" in results:
        lines = []
        for score, row in results["ood"].items():
            ends = intervals.get("ood", {}).get(score, {})
            values = [f"{number(row[key])} {span(ends.get(key))}".rstrip() for key in ("auroc", "aupr", "fpr95")]
            lines.append([score.replace("_", " "), *values])
        title = f"{results['ood_samples']:,} samples of another distribution, which are the positive class"
        tables.append(Table(title, ["score", "AUROC", "AUPR", "FPR at 95 % TPR"], lines))
    return tables


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
    lines = [["test samples", *(f"{run['samples']:,}" for run in runs)], ["M", *(str(run["members"]) for run in runs)]]
    by_measure = {one: [number(run[one.key]) if one.key in run else "" for run in runs] for one in MEASURES}
    lines += [[one.title, *cells] for one, cells in by_measure.items() if any(cells)]
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


FIGURES = (
    Figure("reliability", figures.reliability,
           "Accuracy against confidence, before and after calibration where there is one", samples),
    Figure("diversity", figures.diversity,
           "Members' pairwise KL by confidence of the mean prediction", samples, has("diversity_by_confidence")),
    Figure("similarity", figures.similarity,
           "Member against member: equal predictions and correlation of errors", samples,
           has("diversity_by_confidence")),
    Figure("dee", figures.equivalent,
           "Calibrated NLL of the deep ensemble by members, and where the model stands", samples, has("dee")),
)  # fmt: skip
REPORT = Report(
    ("evaluate",), _sentence, _tables, FIGURES, _comparison, _again, vector=True, summary=summaries.evaluation
)
