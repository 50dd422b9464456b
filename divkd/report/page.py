"""One HTML page about finished runs: everything is in the file, nothing is fetched, nothing runs."""

import shlex
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from divkd import __version__
from divkd.report.commands import REPORTS
from divkd.report.figures.beside import ensemble_gain, errs
from divkd.report.record import Results, Table, unique
from divkd.report.sources import Source, flat, made_with
from divkd.report.style import rendered
from divkd.report.training import test_images
from divkd.report.words import seeds
from divkd.shared.errors import InputError


@contextmanager
def complete(what: str) -> Iterator[None]:
    """Raises `InputError` where code within meets a results.json, called `what`, that lacks what it should hold."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        mend = "restore it, or have its command write it anew with --resume"
        raise InputError(f"{what} is incomplete ({error!r:.200}); {mend}") from error


def page(runs: Sequence[Source], title: str) -> bytes:
    """The page about `runs`, in their order, as UTF-8. Raises `InputError` where a results.json lacks something."""
    from jinja2 import Environment, StrictUndefined

    text = (files("divkd.report") / "page.html").read_text(encoding="utf-8")
    world = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    content = {
        "title": title,
        "version": __version__,
        "sections": [_section(place, run) for place, run in enumerate(runs, 1)],
        "comparisons": list(_comparisons(runs)),
        "beside": theory_beside_practice(runs),
    }
    return world.from_string(text).render(content).encode()


def _section(place: int, run: Source) -> Results:
    report = REPORTS[run.results["command"]]
    with complete(f"{run.path}/results.json"):
        line, remark = report.again(run.results, run.asked, run.path)
        end = line.index("--") if "--" in line else len(line)  # after which another command begins
        line[end:end] = ["--out", f"{run.path.name or 'run'}-again"]
        return {
            "id": f"run-{place}",
            "name": run.name,
            "command": run.results["command"],
            "sentence": report.sentence(run.results, run.asked),
            "summary": report.summary(run.results),
            "tables": report.tables(run.results),
            "published": report.published(run.results),
            "figures": figures(run),
            "config": flat(run.asked) if run.config else [],
            "made_with": made_with(run.results, run.config),
            "again": shlex.join(line),
            "remark": remark,
        }


def figures(run: Source) -> list[Results]:
    """Every figure that a run has the numbers for, drawn anew: of no other numbers than the tables beside them."""
    return [
        _image(one.draw(run.results), one.caption, f"{one.of(run.results)}. Drawn from {run.name}/results.json.")
        for one in REPORTS[run.results["command"]].figures_of(run.results)
    ]


def _image(fig: Any, shown: str, of: str) -> Results:
    """A figure as the page holds it: its size in CSS pixels, 96 an inch, as it was laid out for that size."""
    width, height = (round(96 * inches) for inches in fig.get_size_inches())
    data = f"data:image/png;base64,{b64encode(rendered(fig)).decode()}"
    return {"data": data, "width": width, "height": height, "alt": shown, "caption": f"{shown}; {of}"}


def _comparisons(runs: Sequence[Source]) -> Iterator[Results]:
    """For every command with more than one run, the tables that set them side by side."""
    for place, command in enumerate(unique(run.results["command"] for run in runs), 1):
        same = [run for run in runs if run.results["command"] == command]
        if len(same) > 1:
            with complete(f"a results.json of '{command}'"):
                tables = _compared(same)
            if tables:
                yield {"id": f"compared-{place}", "command": command, "count": len(same), "tables": tables}


def _compared(runs: list[Source]) -> list[Table]:
    """Where the configurations of runs of one command differ, then their numbers."""
    names, fields = [run.name for run in runs], [dict(flat(run.asked)) for run in runs]
    lines = [
        [name, *(one.get(name, "not recorded") for one in fields)]
        for name in unique(name for one in fields for name in one if name)
        if len({one.get(name) for one in fields}) > 1
    ]
    differing = [Table("Where the configurations differ", ["field", *names], lines)] if lines else []
    return differing + REPORTS[runs[0].results["command"]].comparison(names, [run.results for run in runs])


def theory_beside_practice(runs: Sequence[Source]) -> Results | None:
    """The error that is left by members, of the first simulation and of the first training run.

    None where one of the two is missing, or no network errs in theory.
    """
    first = {run.results["command"]: run for run in reversed(runs)}
    theory, practice = first.get("simulate multiview"), first.get("train cifar")
    if theory is None or practice is None:
        return None
    with complete("a results.json"):
        if not errs(theory):
            return None
        counts = f"theory: {seeds(theory.results)}; practice: {test_images(practice.results)}"
        shown = "Test error as a share of one network's, by the ensemble's members: simulated left, real images right"
        fig, _ = ensemble_gain([theory, practice])
        return _image(fig, shown, f"{counts}. Drawn from {theory.name} and {practice.name}.")
