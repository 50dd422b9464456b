"""How every command carries out a run: open its folder, compute, finish, draw, print."""

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from divkd.shared.errors import InputError
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

    `compute` gives the content of results.json. Without --out it gets a fresh folder under runs/, named after command,
    `name` and time. What else is `known` (extendable, data) goes to `open_run`. Call it when every input has been
    checked: a refusal before writes nothing.
    """
    from divkd.cli.tables import print_tables
    from divkd.report import draw

    out, resume = options["out"], options["resume"]
    if out is None and resume:
        raise InputError("--resume needs --out: the folder of the run to go on with")
    folder = out or Path("runs") / re.sub(r"\W+", "-", f"{command}-{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    run = open_run(folder, command, config, resume=resume, overwrite=options["overwrite"], **known)
    with Progress() as progress:
        results = compute(run, progress)
    run.finish(results)
    draw(results, run.figures)
    print_tables(results, folder)
