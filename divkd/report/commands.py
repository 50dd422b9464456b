"""Which record tells of which command's runs, by the command's name in results.json; and a run's figures as files."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import divkd.report as rooms
from divkd.report import experiments, worlds
from divkd.report.record import Report, Results
from divkd.report.style import rendered
from divkd.shared.files import write_bytes

# Those modules of this folder, of `worlds` and of `experiments` that have a REPORT; `page` is made of them all.
MODULES = [
    f"{package.__name__}.{one.name}"
    for package in (rooms, worlds, experiments)
    for one in iter_modules(package.__path__)
    if one.name not in ("commands", "page")
]
RECORDS = [getattr(import_module(name), "REPORT", None) for name in MODULES]
REPORTS: dict[str, Report] = {command: record for record in RECORDS if record for command in record.commands}


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


def write_captions(results: Results, folder: Path) -> None:
    """Write captions.md, what each figure that `draw` makes shows and of how much, into `folder`."""
    figures = REPORTS[results["command"]].figures_of(results)
    shown = (f"![{one.name}]({one.name}.png)\n\n{one.caption}; {one.of(results)}.\n" for one in figures)
    write_bytes(folder / "captions.md", "\n".join([f"# {results['command']}\n", *shown]).encode())
