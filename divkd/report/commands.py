"""Which record tells of which command's runs, by the command's name in results.json; and a run's figures as files."""

from pathlib import Path

from divkd.report import analysis, evaluation, multiview, plane, sweep, training
from divkd.report.record import Report, Results
from divkd.report.style import rendered
from divkd.shared.files import write_bytes

REPORTS: dict[str, Report] = {
    "simulate multiview": multiview.REPORT,
    "simulate window": sweep.REPORT,
    "simulate ablations": sweep.REPORT,
    "simulate plane": plane.REPORT,
    "train cifar": training.REPORT,
    "evaluate": evaluation.REPORT,
    "analyse": analysis.REPORT,
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Write every figure that `results` has the numbers for into `folder`, each whole or not at all; the paths."""
    report, paths = REPORTS[results["command"]], []
    for figure in report.figures_of(results):
        fig = figure.draw(results)
        # SVG first: drawing settles the layout, and a PNG that is drawn after it holds the same
        contents = {kind: rendered(fig, kind) for kind in (("svg", "png") if report.vector else ("png",))}
        for kind in sorted(contents):
            paths.append(folder / f"{figure.name}.{kind}")
            write_bytes(paths[-1], contents[kind])
    return paths
