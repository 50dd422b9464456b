"""``divkd simulate plane``: the practice's premise in two dimensions."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from divkd.cli.options import from_fields, parameters, parse_seeds, resolve, run_folder
from divkd.empirical.plane_config import PlaneConfig


@click.command()
@click.option(
    "--seeds", "--seed", "seeds", callback=parse_seeds, metavar="N,N,...",
    help="One whole experiment a seed; the figure shows the first. [default: 0,1,2]",
)  # fmt: skip
@from_fields(PlaneConfig)
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Repeat a run: RUN/config.json.")
@click.option("--out", type=click.Path(path_type=Path), metavar="RUN", help="Run directory. [default: runs/...]")
@click.option("--resume", is_flag=True, help="Make the run in --out again, with more seeds or members if given.")
@click.option("--overwrite", is_flag=True, help="Delete the run in --out first.")
def plane(**options: Any) -> None:
    """Where teachers disagree, in a picture: small networks on two moons, and points moved by Gaussian and ODS steps.

    The premise of Nam et al., "Diversity Matters When Learning From Ensembles" (NeurIPS 2021): teachers that fit their
    training points agree on them, and ODS and ConfODS steps move a point to where they do not. Seconds on a CPU.

    \b
    divkd simulate plane --out runs/plane
    """
    simulate_plane(**options)


def simulate_plane(**options: Any) -> None:
    """Configure, open the run, train, move points, draw, and print."""
    command = "simulate plane"
    given = {name: options[name] for name in ("seeds", *parameters(PlaneConfig))}
    presets = {"moons": PlaneConfig()}
    config = resolve(presets, None, options["config"], command, PlaneConfig.from_dict, "moons", given)
    config.validate()

    from divkd.empirical.plane import run_plane
    from divkd.shared.progress import Progress
    from divkd.shared.report.plane import draw
    from divkd.shared.run import open_run

    folder = run_folder(options["out"], command.replace(" ", "-"), "moons", options["resume"])
    run = open_run(
        folder, command, dataclasses.asdict(config),
        resume=options["resume"], overwrite=options["overwrite"], extendable=("seeds", "members"),
    )  # fmt: skip
    with Progress() as progress:
        results = run_plane(config, progress)
    run.finish(results)
    print_plane(results, [folder, *draw(results, run.figures)])


def print_plane(results: dict[str, Any], paths: list[Path]) -> None:
    """The teachers' pairwise KL by kind of point, what ODS adds to Gaussian steps, and the files."""
    from rich.console import Console
    from rich.table import Table

    from divkd.shared.report.ensembles import spread
    from divkd.shared.stats import show

    console = Console(width=None if Console().is_terminal else 120, markup=False)
    config = results["config"]
    size = f"{config['members']} teachers, {config['points']} points"
    table = Table(title=f"Teachers' pairwise KL on two moons, nats ({size}, {spread(results)})")
    for place, head in enumerate(
        ("points", "pairwise KL", "times clean", "times Gaussian", f"above {results['apart_above']:g} nats")
    ):
        table.add_column(head, justify="right" if place else "left")
    summary = results["summary"]
    for kind, found in summary.items():
        ratios = [
            f"{found['mean'] / summary[base]['mean']:.2f}" if summary[base]["mean"] else ""
            for base in ("clean", "gaussian")
        ]
        apart = [row["apart"][kind] for row in results["rows"]]
        table.add_row(kind, show(found, 4), *ratios, f"{sum(apart)} of {config['points'] * len(apart)}")
    console.print(table)
    difference = results["ods_minus_gaussian"]
    ends = ("low", "high")
    interval = "" if difference["low"] is None else " to ".join(f"{difference[end]:+.4f}" for end in ends)
    console.print(
        f"ODS minus Gaussian {difference['mean']:+.4f} nats"
        + (f" (95 % interval over seeds {interval})" if interval else " (one seed)"),
        highlight=False,
    )
    worst = min(min(row["train_acc"]) for row in results["rows"])
    void = [row["seed"] for row in results["rows"] if row["void"]]
    fitted = f"lowest training accuracy of a teacher {worst:.3f}"
    console.print(f"{fitted}; VOID for seeds {void}, whose teachers do not fit" if void else fitted, highlight=False)
    console.print(f"{results['seconds']:.1f} s; written to", highlight=False)
    for path in paths:
        click.echo(f"  {path}")
