"""How every command carries out a run: open its folder, compute, finish, draw, print."""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from divkd.shared.errors import InputError
from divkd.shared.progress import Plan, Progress
from divkd.shared.run import Run, open_run


def carry_out(
    command: str,
    config: Mapping[str, Any],
    compute: Callable[[Run, Progress], dict[str, Any]],
    options: Mapping[str, Any],
    name: str,
    plan: Plan | None = None,
    measure: Callable[[], Iterable[str]] = tuple,
    **known: Any,
) -> None:
    """Carry out `command` with `config` as --out, --resume, --overwrite and --dry-run among its `options` say.

    `compute` gives the content of results.json. Without --out it gets a fresh folder under runs/, named after command,
    `name` and time. The `plan` is said before anything is trained, and is all that --dry-run says, with what `measure`
    adds in lines. What else is `known` (extendable, data) goes to `open_run`. Call it when every input has been
    checked: a refusal before writes nothing.
    """
    from divkd.cli.tables import print_tables
    from divkd.report import draw

    if options.get("dry_run"):
        for line in (*(plan.lines if plan else ()), *measure()):
            click.echo(line)
        return
    out, resume = options["out"], options["resume"]
    if out is None and resume:
        raise InputError("--resume needs --out RUN, the folder of the run to go on with; give both")
    folder = out or Path("runs") / re.sub(r"\W+", "-", f"{command}-{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    run = open_run(folder, command, config, resume=resume, overwrite=options["overwrite"], **known)
    began = time.perf_counter()
    run.log(event="started", command=command, resumed=resume)
    try:
        for line in plan.lines if plan else ():
            click.echo(f"divkd: {line}", err=True)
        held = len(list(run.checkpoints.iterdir()))
        if held:
            click.echo(
                f"divkd: {folder} has {held} checkpoints already, and what they hold is not trained again", err=True
            )
        with Progress(plan=plan) as progress:
            results = compute(run, progress)
        run.finish(results)
        draw(results, run.figures)
    except BaseException as error:
        # how to go on, for `divkd.cli.main`, which says how a command ends
        instead = " instead of --overwrite" if options["overwrite"] else ""
        error.add_note(f"the same command with --resume --out {folder}{instead}")
        raise
    run.log(event="finished", seconds=round(time.perf_counter() - began, 3))
    print_tables(results, folder)
