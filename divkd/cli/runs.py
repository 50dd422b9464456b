"""How every command carries out a run: open its folder, compute, finish, draw, print."""

from collections.abc import Callable, Mapping
from typing import Any

from divkd.cli.options import run_folder
from divkd.shared.progress import Progress
from divkd.shared.run import Run, open_run


def carry_out(
    command: str,
    config: Mapping[str, Any],
    compute: Callable[[Run, Progress], dict[str, Any]],
    options: Mapping[str, Any],
    name: str,
    **known: Any,
) -> None:
    """Carry out `command` with `config` as --out, --resume and --overwrite among its `options` say.

    `compute` gives the content of results.json. The folder is called after `name` where --out gives none; what else is
    `known` (extendable, data) goes to `open_run`. Call it when every input has been checked: a refusal before writes
    nothing.
    """
    from divkd.cli.tables import print_tables
    from divkd.report import draw

    folder = run_folder(options["out"], command, name, options["resume"])
    run = open_run(folder, command, config, resume=options["resume"], overwrite=options["overwrite"], **known)
    with Progress() as progress:
        results = compute(run, progress)
    run.finish(results)
    draw(results, run.figures)
    print_tables(results, folder)
