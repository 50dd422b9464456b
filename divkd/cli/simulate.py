"""``divkd simulate``: the theory, in simulated worlds."""

import dataclasses
from typing import Any

import click

from divkd.cli.options import check_device, common, from_fields, parameters, resolve, run_folder
from divkd.shared.errors import InputError
from divkd.theory.config import ENGINES, PRESETS, MultiViewConfig


@click.group("simulate")
def group() -> None:
    """Simulate the theory and measure its claims."""


@group.command()
@common(PRESETS)
@click.option("--engine", metavar="|".join(ENGINES), help="limit: d -> infinity, exact, on the CPU; dense: finite d.")
@click.option("--dimension", type=int, metavar="D", help="d of the dense engine.")
@from_fields(MultiViewConfig)
def multiview(**options: Any) -> None:
    """Single networks, ensembles and their students on multi-view data.

    Follows Allen-Zhu and Li, "Towards Understanding Ensemble, Knowledge Distillation and Self-Distillation in Deep
    Learning" (ICLR 2023): every class shows two views, a network learns one of them, an ensemble collects both,
    and a student can learn both from its soft labels. Defaults are those of the preset `default`; another preset brings
    its own. Presets: quick (seconds) and default (3 seeds).

    \b
    divkd simulate multiview --preset quick --out runs/theory
    """
    simulate_multiview(**options)


def configure(options: dict[str, Any]) -> MultiViewConfig:
    """The validated configuration behind the command's options."""
    given = {key: options[key] for key in ("seeds", "members", "engine", "dimension", *parameters(MultiViewConfig))}
    config = resolve(
        PRESETS,
        options["preset"],
        options["config"],
        "simulate multiview",
        MultiViewConfig.from_dict,
        "default",
        given,
    )
    if config.engine == "limit":
        if options["dimension"] is not None:
            raise InputError("--dimension is d of the dense engine; give --engine dense with it, or leave it out")
        device = options["device"] or "cpu"
    else:
        device = check_device(options["device"] or (config.device if options["config"] else None))
    config = dataclasses.replace(config, device=device)
    config.validate()
    return config


def simulate_multiview(**options: Any) -> None:
    """Configure, open the run, simulate, and print."""
    config = configure(options)

    from divkd.cli.tables import print_simulation
    from divkd.shared.progress import Progress
    from divkd.shared.report.multiview import draw
    from divkd.shared.run import open_run
    from divkd.theory.experiment import check, simulate

    check(config)
    for warning in config.warnings():
        click.echo(f"divkd: warning: {warning}", err=True)
    folder = run_folder(options["out"], "simulate-multiview", config.preset, options["resume"])
    run = open_run(
        folder,
        "simulate multiview",
        dataclasses.asdict(config),
        resume=options["resume"],
        overwrite=options["overwrite"],
        extendable=("seeds", "members", "students", "preset"),
    )
    with Progress() as progress:
        results = simulate(config, run, progress)
    run.finish(results)
    draw(results, run.figures)
    print_simulation(results, folder)
