"""``divkd sweep``: a grid of options over any command that makes a run."""

import itertools
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from divkd.cli.options import parse_interval, parse_seeds, placed
from divkd.cli.sweep.cells import Cell
from divkd.shared.errors import InputError, RunError, unknown

if TYPE_CHECKING:
    from divkd.shared.jobs import Workers
    from divkd.shared.run import Run

PLACED = ("out", "resume", "overwrite", "dry_run", "print_config")  # of the command, that are the sweep's own here


@click.command(
    context_settings={"allow_interspersed_args": False},
    no_args_is_help=True,
    short_help="Run a command for every cell of a grid of its options.",
)
@click.argument("line", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option(
    "--vary", multiple=True, required=True, metavar="NAME=V,V,...",
    help="Give this option of the command each of these values; repeatable, for every combination. on,off of a flag; "
    "low:high of an interval, 0:1 of seeds, kd:ods of what is repeatable.",
)  # fmt: skip
@click.option("--measure", metavar="NAME", help="Draw this column of sweep.csv. [default: by command, e.g. cal_nll]")
@click.option("--against", metavar="NAME", help="Draw it against this option. [default: the first of --vary]")
@click.option(
    "--minus", metavar="NAME=VALUE",
    help="Draw differences, seed by seed, from the numbers where an option of --vary, or a model, method or claim, has "
    "this value: temperature=1, method=kd.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="List the cells, what each trains and what they share; write nothing.")
@placed("Go on with the sweep in --out: finished cells are kept, others resumed, new ones added.")
@click.pass_context
def sweep(context: click.Context, /, line: tuple[str, ...], vary: tuple[str, ...], **options: Any) -> None:
    """Run a command for every cell of a grid of its options: train, experiment, simulate, analyse or evaluate.

    Every cell is a whole run in a folder of its own under --out, named by its values. Their numbers are gathered into
    one table, a figure (mean and 95 % interval over seeds) and sweep.csv. All cells are checked before the first
    begins; teachers that several have in common are trained once. One that fails says why, the others go on, and the
    exit code is 1. What stands after -- is the command's own: --seeds, --jobs, --dask, --device.

    \b
    divkd sweep --vary temperature=1,2,4 --vary kd_weight=0.5,0.9 --out runs/sweep -- train digits --seeds 0,1
    divkd sweep --vary noise=0.5,1 --vary members=2,3 -- simulate multiview --preset quick
    """
    path, command, words = _command(context, line)
    grid = _grid(command, vary)
    _check_base(context, command, words, grid)
    cells = []
    for combination in itertools.product(*(values.items() for values in grid.values())):
        changes = {name: text for name, (text, _) in zip(grid, combination, strict=True)}
        own = [word for _, given in combination for word in given]
        cells.append(Cell(context, command, [*words, *own], changes))
    names = Counter(cell.name for cell in cells)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(f"two cells would be called {twice[0]}; give each value once")
    axes = [name for name in grid if name != "seeds"] or ["seeds"]  # seeds are what others are measured over
    against = axes[0] if options["against"] is None else _spelled(command).get(_plain(options["against"]), "")
    if against not in axes:
        raise unknown("option of --vary", options["against"], axes)

    minus = options["minus"]
    if minus is not None:
        name, equals, value = minus.partition("=")
        known = _spelled(command).get(_plain(name), "")
        minus = f"{known if known in grid else _plain(name)}{equals}{value.strip()}"

    from divkd.cli.runs import carry_out
    from divkd.report.swept import check_measure, check_minus

    if minus is not None:
        check_minus(minus, grid)
    out: Path | None = options["out"]
    held: list[str] = _cells(out) if out is not None and (options["resume"] or options["overwrite"]) else []
    for place, cell in enumerate(cells):
        cell.ask(out, resume=options["resume"], replaced=options["overwrite"] and cell.name in held)
        if same := [other.name for other in cells[:place] if other.known == cell.known]:
            raise InputError(f"{same[0]} and {cell.name} are the same run; give each value once")
    check_measure(cells[0].asked, options["measure"])
    if minus is not None:
        _check_subtracted(minus, grid, cells)
    failed: list[str] = []

    def compute(run: "Run", _: "Workers") -> dict[str, Any]:
        if options["overwrite"]:
            for said in _delete([folder for folder in run.path.iterdir() if folder.name in {*held} - {*names}]):
                click.echo(f"divkd: {said}", err=True)
        for number, cell in enumerate(cells, 1):
            click.echo(f"divkd: cell {number} of {len(cells)}: {cell.name}", err=True)
            cell.carry_out(run.path, cells)
            run.log(event="cell", name=cell.name, failed=cell.failed)
        failed.extend(cell.name for cell in cells if cell.failed)
        drawn = {"measure": options["measure"], "against": against, "minus": minus}
        return _results(run, cells, list(line), grid, drawn)

    config = {"line": line, "vary": {name: list(values) for name, values in grid.items()}, "cells": list(names)}
    config |= {
        "measure": options["measure"],
        "against": against,
        "minus": minus,
        "device": cells[0].known["config"].get("device", "cpu"),
    }
    plan = (
        f"{len(cells)} cells of divkd {shlex.join(line)}",
        *(text for place, cell in enumerate(cells) for text in cell.said(cells[:place])),
    )
    carry_out("sweep", config, compute, options, path.replace(" ", "-"), plan, extendable=tuple(config))
    if failed:
        raise RunError(
            f"{len(failed)} of {len(cells)} cells failed: {'; '.join(failed)}: the table says why; the others are "
            "whole, and the same command with --resume tries again"
        )


def _check_subtracted(minus: str, grid: Collection[str], cells: Sequence[Cell]) -> None:
    """Raise `InputError` where it is known before anything is trained that no two numbers differ in this alone."""
    name, _, value = minus.partition("=")
    command, columns = cells[0].asked.split()[0], {"train": ("model", "method"), "simulate": ("claim",)}
    if name in grid:
        return
    if name not in columns.get(command, (name,)):
        has = " and ".join(f"{column}s" for column in columns[command])
        raise InputError(
            f"--minus {minus}: divkd {command} has {has}, no {name}s; give another, or an option of --vary"
        )
    trained = dict.fromkeys(method for cell in cells for method in cell.known["config"].get("methods", ()))
    if name == "method" and trained and (value not in trained or len(trained) < 2):
        raise InputError(
            f"--minus {minus} subtracts students by {value} from others, and these cells train by "
            f"{', '.join(trained)}; add --method to the command, or leave --minus out"
        )


def _results(
    run: "Run", cells: Sequence[Cell], line: list[str], grid: Mapping[str, Any], drawn: dict[str, Any]
) -> dict[str, Any]:  # fmt: skip
    """The content of results.json; writes sweep.csv."""
    from divkd.report.page import complete
    from divkd.report.swept import MEASURES, as_csv, gather, measures, points
    from divkd.shared.manifest import read_results

    rows, seeds, members = [], [], {}
    for cell in cells:
        if not cell.failed:
            found = read_results(run.path / cell.name)
            with complete(f"{run.path / cell.name}/results.json"):
                rows += [{"cell": cell.name, **row} for row in gather(found)]
                seeds += [seed for seed in found.get("seeds", []) if seed not in seeds]
                members[cell.name] = found.get("members")
    there, measure = measures(rows), drawn["measure"]
    if rows and measure is not None and measure not in there:
        raise unknown("measure", measure, there)
    results = {
        "command": "sweep",
        "of": cells[0].asked,
        "line": line,
        "vary": {name: list(values) for name, values in grid.items()},
        "cells": [
            {"name": one.name, "changes": one.changes, "members": members.get(one.name), "failed": one.failed}
            for one in cells
        ],
        "seeds": seeds,
        **drawn,
        "measure": measure or next((key for key in (*MEASURES.get(cells[0].asked, ()), *there) if key in there), None),
        "rows": rows,
    }
    points(results)  # refuses a --minus that leaves nothing
    run.write("sweep.csv", as_csv(results))
    return results


def _command(context: click.Context, line: Sequence[str]) -> tuple[str, click.Command, list[str]]:
    """What one types for the command in `line`, the command, and the words after it."""
    command, words = context.find_root().command, list(line)
    path: list[str] = []
    while isinstance(command, click.Group):
        if not words:
            raise InputError(
                f"'{' '.join(path)}' is no whole command; give one of {', '.join(command.commands)} after it"
            )
        name, found, words = command.resolve_command(context, words)
        assert found is not None  # click refuses a name that is none
        command = found
        path.append(str(name))
    if command is context.command or not {"out", "resume"} <= {one.name for one in command.params}:
        raise InputError(f"'{' '.join(path)}' makes no run; give train, experiment, simulate, analyse or evaluate")
    return " ".join(path), command, words


def _plain(name: str) -> str:
    return name.strip().lstrip("-").replace("-", "_")


def _spelled(command: click.Command) -> dict[str, str]:
    """The options that may be varied, by every spelling."""
    options = [one for one in command.params if isinstance(one, click.Option) and one.name not in PLACED]
    return {_plain(str(name)): str(one.name) for one in options for name in (*one.opts, one.name)}


def _grid(command: click.Command, vary: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """{option: {value as typed: words of the command line}}."""
    spelled = _spelled(command)
    options = {one.name: one for one in command.params if isinstance(one, click.Option)}
    grid: dict[str, dict[str, list[str]]] = {}
    for text in vary:
        given, equals, values = text.partition("=")
        name = spelled.get(_plain(given))
        if name is None:
            raise unknown("option", given, sorted(set(spelled.values())))
        if name in grid:
            raise InputError(f"--vary {name} is given twice; give all of its values in one")
        parts = [part.strip() for part in values.split(",")]
        if not equals or not all(parts):
            raise InputError(f"--vary {text!r} is not allowed; give {name}=value,value,...")
        if twice := [part for part in parts if parts.count(part) > 1]:
            raise InputError(f"--vary {name} has {twice[0]} twice; give each value once")
        grid[name] = {part: _words(options[name], part) for part in parts}
    return grid


def _words(option: click.Option, value: str) -> list[str]:
    """What one types to give `option` a value of --vary."""
    if option.is_flag:
        name = option.opts if click.BOOL.convert(value, option, None) else option.secondary_opts
        return name[:1]
    if option.callback in (parse_seeds, parse_interval):
        value = value.replace(":", ",")
    return [f"{option.opts[0]}={one}" for one in (value.split(":") if option.multiple else [value])]


def _check_base(context: click.Context, command: click.Command, words: list[str], grid: Mapping[str, Any]) -> None:
    """Raise `InputError` where the command itself is given what is varied, or what is the sweep's."""
    with command.make_context(command.name, list(words), parent=context) as base:
        given = {one for one in base.params if base.get_parameter_source(one) == click.core.ParameterSource.COMMANDLINE}
    for one in command.params:
        if one.name in given and one.name in PLACED:
            raise InputError(f"{one.opts[0]} of a cell is the sweep's; give it before the command: sweep {one.opts[0]}")
        if one.name in given and one.name in grid:
            raise InputError(f"{one.opts[0]} is varied and given in the command as well; give one of the two")


def _delete(folders: Sequence[Path]) -> Iterator[str]:
    """Delete runs; what they did not write stays, and is said."""
    from divkd.shared.lock import Lock
    from divkd.shared.manifest import FOLDERS, LOCK, Manifest, existing, named

    for folder in folders:
        if folder.is_symlink():
            yield f"left as it was, for it is a link: {folder}"
            continue
        with Lock(folder / LOCK):
            manifest = Manifest(folder)
            left = manifest.delete(existing(folder))
            for own in (folder / LOCK, manifest.file) if not left else ():
                own.unlink(missing_ok=True)
        for below in (*(folder / name for name in FOLDERS), folder):
            with suppress(OSError):
                below.rmdir()
        if left:
            yield f"left as it was, for {folder}'s run did not write it: {named(left)}"


def _cells(out: Path) -> list[str]:
    """The cells of the sweep in `out`."""
    from divkd.shared.manifest import existing

    content = existing(out)
    cells = content["config"].get("cells") if content.get("command") == "sweep" else None
    return [str(name) for name in cells] if isinstance(cells, list) else []
