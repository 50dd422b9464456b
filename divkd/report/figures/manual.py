"""The figures of the manual: which runs each is made of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from divkd.report import plane
from divkd.report.figures import beside, kept, knowledge
from divkd.report.sources import Source
from divkd.report.style import rendered
from divkd.shared.files import write_bytes
from divkd.shared.stats import show

THEORY, PLANE, PRACTICE, ANALYSIS = "simulate multiview", "simulate plane", "train cifar", "analyse"
EXPERIMENTS = "experiment mysteries", "experiment ensemble-over-kd"


class ManualFigure(NamedTuple):
    """One figure of the manual."""

    name: str
    commands: tuple[str, ...]  # whose runs are its columns, in order
    draw: Callable[[list[Source]], tuple[Any, str]]  # the figure and its caption
    fits: Callable[[Source], bool] = lambda source: True  # whether a run of the right command holds what is drawn


def motivation(sources: list[Source]) -> tuple[Any, str]:
    """Why perturb: teachers agree on their training points, and ODS steps lead to where they do not."""
    summary = sources[0].results["summary"]
    kl = ", ".join(f"{kind} {show(summary[kind])}" for kind in plane.NAMES)
    return plane.planes([source.results for source in sources]), (
        "Nam et al.'s motivation in two dimensions: teachers (lines: where their decisions change) agree on their "
        f"training points; shading and numbers are their pairwise KL. Over the seeds of the first run, nats: {kl}."
    )


FIGURES = (
    ManualFigure("ensemble_gain", (THEORY, PRACTICE), beside.ensemble_gain, beside.errs),
    ManualFigure("recovered", (THEORY, PRACTICE), beside.recovered, beside.errs),
    ManualFigure("diversity_by_confidence", (THEORY, ANALYSIS), knowledge.confidence, knowledge.diverse),
    ManualFigure("members", (THEORY, ANALYSIS), knowledge.members, knowledge.fits),
    ManualFigure("plane", (PLANE,), motivation),
    ManualFigure("equivalents", (THEORY, PRACTICE), beside.equivalents, beside.has_equivalents),
    ManualFigure("kept", (THEORY, *EXPERIMENTS), kept.kept, kept.fits),
)
COMMANDS = tuple(dict.fromkeys(command for figure in FIGURES for command in figure.commands))


def draw_all(sources: list[Source], folder: Path) -> tuple[list[Path], list[str]]:
    """Draw every figure that `sources` have runs for; the paths, and what was left out and why.

    captions.md beside them has each figure's caption, generated: what it shows, of which runs, n and seeds. A column
    whose run is missing is left out and named, and so is a figure that has no column; nothing is invented, and a figure
    that an earlier captions.md there speaks of does not outlive it.
    """
    paths, missing, captions, listed = [], [], ["# Theory beside practice\n"], folder / "captions.md"
    before = listed.read_text(encoding="utf-8") if listed.is_file() else ""
    for figure in FIGURES:
        path = folder / f"{figure.name}.png"
        columns = [s for c in figure.commands for s in sources if s.results["command"] == c and figure.fits(s)]
        absent = [f"'{c}'" for c in figure.commands if all(s.results["command"] != c for s in columns)]
        if absent:
            what = "lacks a column" if columns else "is left out"
            missing.append(f"{path.name} {what}: no run of {' and '.join(absent)} that has it was given")
        if columns:
            fig, caption = figure.draw(columns)
            paths.append(path)
            write_bytes(path, rendered(fig))
            captions.append(f"![{figure.name}]({path.name})\n\n{caption} Runs: {'; '.join(map(str, columns))}.\n")
        elif f"]({path.name})" in before:
            path.unlink(missing_ok=True)
    if paths:
        write_bytes(listed, "\n".join(captions).encode())
    return paths, missing
