"""``divkd figures``: theory beside practice, from finished runs alone."""

from pathlib import Path

import click

from divkd.cli.options import PATH
from divkd.shared.errors import InputError
from divkd.shared.manifest import read_results


@click.command(short_help="Draw theory beside practice, from finished runs alone.")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN...")
@click.option("--out", type=PATH, default=Path("figures"), show_default=True, metavar="FOLDER")
def figures(runs: tuple[Path, ...], out: Path) -> None:
    """Set theory beside practice: every figure of the manual, from the results.json of finished runs alone.

    Runs of `simulate multiview`, `simulate plane`, `train cifar` and `analyse`, in any order; of several of a kind each
    is a column. What has no run is left out and named. FOLDER/captions.md says what each figure shows, of which runs.

    \b
    divkd figures runs/theory runs/digits --out figures
    divkd figures runs/theory runs/digits runs/cifar10 runs/cifar10-analysis --out figures
    """
    from divkd.report.figures.manual import COMMANDS, draw_all
    from divkd.report.page import complete
    from divkd.report.sources import Source, config_of

    sources = []
    for run in runs:
        results = read_results(run) if (run / "results.json").is_file() else None
        if not isinstance(results, dict) or results.get("command") not in list(COMMANDS):
            raise InputError(
                f"{run} is no finished run of divkd {', '.join(COMMANDS)}; give a folder that holds its results.json"
            )
        sources.append(Source(run.resolve().name, results, config_of(run, results["command"])))
    try:
        with complete("a results.json"):
            paths, missing = draw_all(sources, out)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written ({error.strerror}); give a folder you can write to") from error
    for path in paths:
        click.echo(path)
    for line in missing:
        click.echo(line, err=True)
