"""``divkd figures``: theory beside practice, from finished runs alone."""

from pathlib import Path

import click

from divkd.cli.options import PATH
from divkd.shared.errors import InputError


@click.command(short_help="Draw theory beside practice, from finished runs alone.")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN...")
@click.option("--out", type=PATH, default=Path("figures"), show_default=True, metavar="FOLDER")
def figures(runs: tuple[Path, ...], out: Path) -> None:
    """Set theory beside practice: every figure of the manual, from the results.json of finished runs alone.

    Runs of `simulate multiview`, `simulate plane`, `train cifar`, `analyse`, `experiment mysteries` and `experiment
    ensemble-over-kd`, in any order; of several of a kind each is a column. What has no run is left out and named.
    FOLDER/captions.md says what each figure shows, of which runs.
    Runs of other commands have their own figures drawn, in FOLDER/RUN.

    \b
    divkd figures runs/theory runs/digits --out figures
    divkd figures runs/theory runs/digits runs/cifar10 runs/cifar10-analysis --out figures
    """
    from divkd.report.commands import REPORTS, draw, write_captions
    from divkd.report.figures.manual import COMMANDS, draw_all
    from divkd.report.page import complete
    from divkd.report.sources import Source, config_of, results_of

    sources = []
    for run in runs:
        results = results_of(run) if (run / "results.json").is_file() else None
        if not isinstance(results, dict) or results.get("command") not in list(REPORTS):
            raise InputError(
                f"{run} is no finished run of divkd {', '.join(REPORTS)}; give a folder that holds its results.json"
            )
        sources.append(Source(run.resolve().name, results, config_of(run, results["command"])))
    beside = [source for source in sources if source.results["command"] in COMMANDS]
    alone = {source.name: source.results for source in sources if source not in beside}
    if len(alone) + len(beside) < len(sources):
        raise InputError(
            "two of the runs have the same name, and their figures one folder; rename one, or draw it apart"
        )
    paths: list[Path] = []
    missing: list[str] = []
    try:
        with complete("a results.json"):
            if beside:
                paths, missing = draw_all(beside, out)
            for name, results in alone.items():
                (out / name).mkdir(parents=True, exist_ok=True)
                paths += draw(results, out / name)
                write_captions(results, out / name)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written ({error.strerror}); give a folder you can write to") from error
    for path in paths:
        click.echo(path)
    for line in missing:
        click.echo(line, err=True)
