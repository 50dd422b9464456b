"""What a command's report is made of: tables and figures as values, and the record that lists them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divkd.report.words import seeds

Results = dict[str, Any]  # the content of a results.json


@dataclass(frozen=True)
class Table:
    """A caption, headings, and lines: the first `names` cells say what the line is of, the last `words` are text.

    `page_only` are the headings of columns for which a terminal has no room.
    """

    caption: str
    heads: list[str]
    lines: list[list[str]]
    names: int = 1
    notes: tuple[str, ...] = ()
    words: int = 0
    page_only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A figure of a run: `name` is its file's, `caption` says what it shows, `draw` makes it from the results."""

    name: str
    draw: Callable[[Results], Any]
    caption: str
    of: Callable[[Results], str] = seeds  # how many seeds, images or samples stand behind it
    fits: Callable[[Results], bool] = lambda results: True  # whether the results have the numbers for it


def with_config(results: Results, asked: Results, run: Path) -> tuple[list[str], str]:
    """The command line that repeats a run from its config.json; `asked` is the configuration in it, {} without one."""
    line = ["divkd", *results["command"].split()]
    if asked:
        return [*line, "--config", str(run / "config.json")], ""
    line += ["--preset", results["preset"]] if "preset" in results else []
    line += ["--seeds", ",".join(map(str, results["seeds"]))]
    return line, "config.json is not in the folder: without it only the preset and the seeds are known."


@dataclass(frozen=True)
class Report:
    """All that is said and shown of a command's runs: one record a command, which `divkd.report.commands` lists."""

    commands: tuple[str, ...]  # as results.json names them
    sentence: Callable[[Results, Results], str]  # what a run is, from its results and the configuration that was asked
    tables: Callable[[Results], list[Table]]
    figures: tuple[Figure, ...]
    comparison: Callable[[list[str], list[Results]], list[Table]] = lambda labels, runs: []  # of several, side by side
    again: Callable[[Results, Results, Path], tuple[list[str], str]] = with_config  # how to repeat it, and a remark
    vector: bool = False  # whether a run's folder holds its figures as SVG as well
    summary: Callable[[Results], list[str]] = lambda results: []  # what was seen, in sentences that its tables bear out
    published: Callable[[Results], list[Table]] = lambda results: []  # tables of others' numbers beside its own

    def figures_of(self, results: Results) -> list[Figure]:
        """The figures that `results` has the numbers for."""
        return [figure for figure in self.figures if figure.fits(results)]


def has(part: str) -> Callable[[Results], bool]:
    """Whether results have a `part`."""
    return lambda results: part in results


def unique(names: Iterable[Any]) -> list[Any]:
    """`names` in order, each once."""
    return list(dict.fromkeys(names))


def counted(labels: list[str], runs: list[Results]) -> list[str]:
    """The runs' names as headings, with their number of seeds."""
    return [f"{label} (n = {len(run['seeds'])})" for label, run in zip(labels, runs, strict=True)]
