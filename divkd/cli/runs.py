"""How every command carries out a run: open its folder, compute, finish, draw, print."""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from divkd.shared.cluster import Cluster
from divkd.shared.errors import InputError
from divkd.shared.jobs import Workers
from divkd.shared.machine import cores
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
    **known: Any,
) -> None:
    """Carry out `command` with `config` as --out, --resume, --overwrite and --dry-run among its `options` say.

    `compute` gives the content of results.json. Without --out it gets a fresh folder under runs/, named after command,
    `name` and time. The lines of the `plan` are said before anything is trained, and are all that --dry-run says, with
    what `measure` adds. What else is `known` (extendable, data) goes to `open_run`. Call it when every input has been
    checked: a refusal before writes nothing.
    """
    from divkd.cli.tables import print_tables
    from divkd.report import draw

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
    if options.get("tensorboard"):
        run.curves.events.mkdir(exist_ok=True)
    began = time.perf_counter()
    run.log(event="started", command=command, resumed=resume)
    try:
        for line in plan:
            click.echo(f"divkd: {line}", err=True)
        held = len(list(run.checkpoints.iterdir()))
        if held:
            click.echo(
                f"divkd: {folder} has {held} checkpoints already, and what they hold is not trained again", err=True
            )
        with Progress() as progress:
            results = compute(run, workers(progress, options, config))
        run.finish(results)
        draw(results, run.figures)
    except BaseException as error:
        # how to go on, for `divkd.cli.main`, which says how a command ends
        instead = " instead of --overwrite" if options["overwrite"] else ""
        error.add_note(f"the same command with --resume --out {folder}{instead}")
        raise
    run.log(event="finished", seconds=round(time.perf_counter() - began, 3))
    print_tables(results, folder)


def workers(progress: Progress, options: Mapping[str, Any], config: Mapping[str, Any]) -> Workers:
    """Who carries out the jobs, as --jobs and --dask among the `options` say; on a GPU one at a time unless they do."""
    count, cluster = options.get("jobs"), options.get("dask")
    if "jobs" in options and cluster is None and count is None:
        count = 1 if str(config.get("device", "cpu")).startswith("cuda") else cores()
    return Workers(progress, count or 1, cluster)
