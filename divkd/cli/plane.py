"""``divkd simulate plane``: the practice's premise in two dimensions."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from divkd.cli.options import from_fields, parameters, parse_seeds, resolve, run_folder
from divkd.empirical.plane.config import PlaneConfig


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

    from divkd.cli.tables import print_tables
    from divkd.empirical.plane.plane import run_plane
    from divkd.report import draw
    from divkd.shared.progress import Progress
    from divkd.shared.run import open_run

    folder = run_folder(options["out"], command.replace(" ", "-"), "moons", options["resume"])
    run = open_run(
        folder, command, dataclasses.asdict(config),
        resume=options["resume"], overwrite=options["overwrite"], extendable=("seeds", "members"),
    )  # fmt: skip
    with Progress() as progress:
        results = run_plane(config, progress)
    run.finish(results)
    draw(results, run.figures)
    print_tables(results, folder)
