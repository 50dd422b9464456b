"""``divkd simulate plane``: the practice's premise in two dimensions."""

import dataclasses
from typing import Any

import click

from divkd.cli.contents import Sectioned
from divkd.cli.options import asked_first, by_jobs, from_fields, given, placed, printed, repeatable, resolve, seeds
from divkd.empirical.plane.config import PlaneConfig

COMMAND = "simulate plane"


@click.command(
    cls=Sectioned,
    sections={"Points": ("points", "noise"), "Teachers": ("members", "width", "epochs"),
              "Steps": ("step_size", "temperature")},
)  # fmt: skip
@seeds
@by_jobs
@from_fields(PlaneConfig)
@repeatable
@asked_first
@placed("Make the run in --out again, with more seeds or members if given.")
def plane(**options: Any) -> None:
    """Where teachers disagree: small networks on two moons, and points moved by Gaussian and ODS steps.

    The premise of Nam et al., "Diversity Matters When Learning From Ensembles" (NeurIPS 2021): teachers that fit their
    training points agree on them, and ODS and ConfODS steps move a point to where they do not. Computed on the
    CPU, in seconds.

    \b
    divkd simulate plane --out runs/plane
    """
    base = resolve({"moons": PlaneConfig()}, COMMAND, options, "moons")
    config = dataclasses.replace(base, **given(PlaneConfig, options))
    config.validate()
    if printed(COMMAND, dataclasses.asdict(config), options):
        return

    from divkd.cli.runs import carry_out
    from divkd.empirical.plane.plane import BATCH, run_plane

    teachers = config.members * len(config.seeds)
    steps = teachers * config.epochs * -(-config.points // BATCH)
    carry_out(
        COMMAND,
        dataclasses.asdict(config),
        lambda run, workers: run_plane(config, run, workers),
        options,
        name="moons",
        plan=(f"{teachers} small networks are trained, {steps:,} steps in all: seconds on a CPU",),
        extendable=("seeds", "members"),
    )
