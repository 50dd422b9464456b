"""One HTML page about finished runs: everything is in the file, nothing is fetched, nothing runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from divkd import __version__
from divkd.report.analysis_tables import analysis
from divkd.report.comparison import compare
from divkd.report.facts import again, flat, made_with, sentence
from divkd.report.pictures import Picture, pictures, theory_beside_practice
from divkd.report.tables import TABLES, Table, unique
from divkd.shared.errors import InputError
from divkd.shared.files import read_json

Content = dict[str, Any]
BUILDERS = {**TABLES, "analyse": analysis}
# What code meets in a results.json that lacks what it should hold.
INCOMPLETE = (KeyError, IndexError, TypeError, AttributeError, ValueError)


@dataclass(frozen=True)
class Run:
    """A finished run: where it is, the name that the page calls it by, results.json and config.json ({}: none)."""

    path: Path
    name: str
    results: Content
    config: Content


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The finished runs in the folders `paths`. Raises `InputError` where one is none, is damaged or is given twice."""
    twice = [path for place, path in enumerate(paths) if path.resolve() in [p.resolve() for p in paths[:place]]]
    if twice:
        raise InputError(f"{twice[0]} is given twice; name each run once")
    names = [path.resolve().name for path in paths]
    return [
        Run(path, name if names.count(name) == 1 else str(path), *_read(path))
        for path, name in zip(paths, names, strict=True)
    ]


def _read(path: Path) -> tuple[Content, Content]:
    try:
        found = (path / "results.json").is_file()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a folder that holds results.json") from error
    if not found:
        raise InputError(f"{path} is no finished run of divkd; give a folder that holds results.json")
    results = read_json(path / "results.json")
    command = results.get("command") if isinstance(results, dict) else None
    if not isinstance(command, str) or command not in BUILDERS:
        known = ", ".join(BUILDERS)
        raise InputError(f"{path}/results.json is of the command {command!r}; a report is made of runs of {known}")
    config = read_json(path / "config.json") if (path / "config.json").exists() else {}
    if not isinstance(config, dict) or (config and not isinstance(config.get("config"), dict)):
        raise InputError(f"{path}/config.json is no configuration of a run; restore it, or take it out of the folder")
    if config and config.get("command") != command:
        raise InputError(
            f"{path}/config.json is of {config.get('command')!r} and results.json of {command!r}; restore the folder"
        )
    return results, config


def page(runs: Sequence[Run], title: str) -> bytes:
    """The page about `runs`, in their order, as UTF-8. Raises `InputError` where a results.json lacks something."""
    from jinja2 import Environment, StrictUndefined

    text = (files("divkd.report") / "page.html").read_text(encoding="utf-8")
    world = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    content = {
        "title": title,
        "version": __version__,
        "sections": [_section(place, run) for place, run in enumerate(runs, 1)],
        "comparisons": list(_comparisons(runs)),
        "beside": _beside(runs),
    }
    return world.from_string(text).render(content).encode()


def _section(place: int, run: Run) -> Content:
    try:
        command, remark = again(run.results, run.config, run.path)
        tables: list[Table] = BUILDERS[run.results["command"]](run.results)
        figures: list[Picture] = pictures(run.results, run.name)
        return {
            "id": f"run-{place}",
            "name": run.name,
            "command": run.results["command"],
            "sentence": sentence(run.results, run.config),
            "tables": tables,
            "figures": figures,
            "config": flat(run.config["config"]) if run.config else [],
            "made_with": made_with(run.results, run.config),
            "again": command,
            "remark": remark,
        }
    except INCOMPLETE as error:
        raise _incomplete(f"{run.path}/results.json", error) from error


def _comparisons(runs: Sequence[Run]) -> Iterable[Content]:
    """For every command with more than one run, the tables that set them side by side."""
    for place, command in enumerate(unique(run.results["command"] for run in runs), 1):
        same = [run for run in runs if run.results["command"] == command]
        if len(same) > 1:
            parts = [run.name for run in same], [run.results for run in same], [run.config for run in same]
            try:
                tables = compare(*parts)
            except INCOMPLETE as error:
                raise _incomplete(f"a results.json of '{command}'", error) from error
            if tables:
                yield {"id": f"compared-{place}", "command": command, "count": len(same), "tables": tables}


def _beside(runs: Sequence[Run]) -> Picture | None:
    """Theory beside practice, from the first simulation and the first training run, where there are both."""
    found = [
        next((run for run in runs if run.results["command"] == command), None)
        for command in ("simulate multiview", "train cifar")
    ]
    theory, practice = found
    if theory is None or practice is None:
        return None
    try:
        return theory_beside_practice(theory.results, practice.results, (theory.name, practice.name))
    except INCOMPLETE as error:
        raise _incomplete("a results.json", error) from error


def _incomplete(what: str, error: Exception) -> InputError:
    return InputError(f"{what} is incomplete ({error!r}); make the run again with --overwrite")
