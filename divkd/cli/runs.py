"""How every command carries out a run: open its folder, compute, finish, draw, print."""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from divkd.shared.cluster import Cluster
from divkd.shared.errors import InputError, RunError
from divkd.shared.files import plain
from divkd.shared.jobs import Workers
from divkd.shared.machine import cores
from divkd.shared.manifest import named
from divkd.shared.progress import Progress
from divkd.shared.run import Run, open_run
from divkd.shared.track import check_tensorboard


def carry_out(
    command: str,
    config: Mapping[str, Any],
    compute: Callable[[Run, Workers], dict[str, Any]],
    options: Mapping[str, Any],
    name: str,
    plan: Sequence[str] = (),
    measure: Callable[[], Iterable[str]] = tuple,
    *,
    shareable: Mapping[str, str] = MappingProxyType({}),
    **known: Any,
) -> None:
    """Carry out `command` with `config` as --out, --resume, --overwrite and --dry-run among its `options` say.

    `compute` gives the content of results.json. Without --out it gets a fresh folder under runs/, named after command,
    `name` and time. The lines of the `plan` are said before anything is trained, and are all that --dry-run says, with
    what `measure` adds. What else is `known` (extendable, data) goes to `open_run`. Call it when every input has been
    checked: a refusal before writes nothing.

    A `cell` among the options says that a sweep asks: first what is going to be run, later to run it. `shareable` are
    the jobs that runs with the same values share: {name: all that it depends on beside its name}.
    """
    from divkd.cli.tables import print_tables
    from divkd.report import draw

    cell = options.get("cell")
    if cell is not None and not cell.goes_on(command, plain(config), plan, shareable, known):
        return
    if options.get("dry_run"):
        for line in (*plan, *measure()):
            click.echo(line)
        return
    if options.get("tensorboard"):
        check_tensorboard()
    if options.get("dask"):
        Cluster(options["dask"]).shutdown()  # it answers
    out, resume = options["out"], options["resume"]
    if out is None and resume:
        raise InputError("--resume needs --out RUN, the folder of the run to go on with; give both")
    folder = out or Path("runs") / re.sub(r"\W+", "-", f"{command}-{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    run = open_run(folder, command, config, resume=resume, overwrite=options["overwrite"], **known)
    if run.left:
        click.echo(f"divkd: left as it was, for {folder}'s run did not write it: {named(run.left)}", err=True)
    began = time.perf_counter()
    try:
        if cell is not None:
            cell.borrow(run)
        if options.get("tensorboard"):
            run.curves.events.mkdir(exist_ok=True)
        run.log(event="started", command=command, resumed=resume)
        for line in plan if cell is None else ():
            click.echo(f"divkd: {line}", err=True)
        held = len(list(run.jobs.glob("*.json")))
        if held and cell is None:
            click.echo(
                f"divkd: {folder} has {held} finished job{'s' * (held > 1)} already, which are not done again", err=True
            )
        with Progress(quiet=command == "sweep") as progress:  # whose cells show theirs
            results = compute(run, workers(progress, options, config))
        run.finish(results)
        for file in draw(results, run.figures):
            run.manifest.add(f"figures/{file.name}")
        run.log(event="finished", seconds=round(time.perf_counter() - began, 3))
    except BaseException as error:
        if isinstance(error, OSError) and not run.manifest.file.exists():
            raise RunError(f"{folder} is gone, and with it what it held; the same command begins anew") from error
        # how to go on, for `divkd.cli.main`, which says how a command ends
        instead = " instead of --overwrite" if options["overwrite"] else ""
        error.add_note(f"the same command with --resume --out {folder}{instead}")
        raise
    finally:
        run.close()
    if cell is None:
        print_tables(results, folder)


def workers(progress: Progress, options: Mapping[str, Any], config: Mapping[str, Any]) -> Workers:
    """Who carries out the jobs, as --jobs and --dask among the `options` say; on a GPU one at a time unless they do."""
    count, cluster = options.get("jobs"), options.get("dask")
    if "jobs" in options and cluster is None and count is None:
        count = 1 if str(config.get("device", "cpu")).startswith("cuda") else cores()
    return Workers(progress, count or 1, cluster)
