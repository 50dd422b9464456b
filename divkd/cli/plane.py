"""``divkd simulate plane``: the practice's premise in two dimensions."""

import dataclasses
from typing import Any

import click

from divkd.cli.options import from_fields, given, parse_seeds, placed, repeatable, resolve
from divkd.empirical.plane.config import PlaneConfig

COMMAND = "simulate plane"


@click.command()
@click.option(
    "--seeds",
    "--seed",
    "seeds",
    callback=parse_seeds,
    metavar="N,N,...",
    help="One whole experiment a seed; the figure shows the first. [default: 0,1,2]",
)
@from_fields(PlaneConfig)
@repeatable
@placed("Make the run in --out again, with more seeds or members if given.")
def plane(**options: Any) -> None:
    """Where teachers disagree: small networks on two moons, and points moved by Gaussian and ODS steps.

    The premise of Nam et al., "Diversity Matters When Learning From Ensembles" (NeurIPS 2021): teachers that fit their
    training points agree on them, and ODS and ConfODS steps move a point to where they do not. Seconds on a CPU.

    \b
    divkd simulate plane --out runs/plane
    """
    base = resolve({"moons": PlaneConfig()}, COMMAND, options, "moons")
    config = dataclasses.replace(base, **given(PlaneConfig, options))
    config.validate()

    from divkd.cli.runs import carry_out
    from divkd.empirical.plane.plane import run_plane

    carry_out(
        COMMAND,
        dataclasses.asdict(config),
        lambda run, progress: run_plane(config, progress),
        options,
        name="moons",
        extendable=("seeds", "members"),
    )
