"""``divkd simulate``: the theory, in simulated worlds."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import click

from divkd.cli.contents import Contents
from divkd.cli.options import check_device, common, from_fields, parameters, resolve, run_folder
from divkd.cli.plane import plane
from divkd.shared.errors import InputError, unknown
from divkd.shared.files import read_json
from divkd.theory.config import ENGINES, PRESETS, MultiViewConfig

# Parameters of students that maps and ablations do not train.
UNUSED = ("temperature", "label_share", "soft_steps")


class Simulations(Contents):
    """The claims first, then what they rest on."""

    sections: ClassVar = {"Commands": ("multiview", "ablations", "window")}


@click.group("simulate", cls=Simulations)
def group() -> None:
    """Simulate the theory and measure its claims; and the practice's premise, in a plane."""


group.add_command(plane)


@group.command(short_help="Measure every claim: networks, ensembles and their students.")
@common(PRESETS)
@click.option("--engine", metavar="|".join(ENGINES), help="limit: d -> infinity, exact, on the CPU; dense: finite d.")
@click.option("--dimension", type=int, metavar="D", help="d of the dense engine.")
@from_fields(MultiViewConfig)
def multiview(**options: Any) -> None:
    """Single networks, ensembles and their students on multi-view data.

    Follows Allen-Zhu and Li, "Towards Understanding Ensemble, Knowledge Distillation and Self-Distillation in Deep
    Learning" (ICLR 2023): every class shows two views, a network learns one of them, an ensemble collects both,
    and a student can learn both from its soft labels. Defaults are those of the preset `default`; another preset brings
    its own. Presets: quick (seconds), default (3 seeds), large (50 classes, minutes), toy (that of the paper's
    introduction).

    \b
    divkd simulate multiview --preset quick --out runs/theory
    """
    simulate_multiview(**options)


@group.command(short_help="Map where the claims hold, one parameter at a time.")
@common(PRESETS)
@click.option(
    "--vary", multiple=True, metavar="NAME=V,V,...", help="Map this parameter (repeatable); low:high for two."
)
@from_fields(MultiViewConfig, without=UNUSED)
def window(vary: tuple[str, ...], **options: Any) -> None:
    """Map the window in which the claims hold: every claim against one parameter at a time.

    Every value is a whole simulation of claims 1 to 4 with the other parameters as given. Without --vary, the map of
    the documentation, 78 simulations a seed: some 15 minutes each on two cores.

    \b
    divkd simulate window --vary init_scale=1e-4,1e-3,1e-2 --vary other_weight_single=0.1:0.16,0.2:0.3 --out runs/map
    """
    from divkd.theory import sweep as cells

    grid = parse_vary(vary) or stored_vary(options) or cells.WINDOW
    measure_cells("simulate window", options, grid, lambda config: cells.window(config, grid))


@group.command(short_help="Take away what the theory rests on, one thing at a time.")
@common(PRESETS)
@from_fields(MultiViewConfig, without=UNUSED)
def ablations(**options: Any) -> None:
    """Take away, one at a time, what the theory rests on: rho, q > 2, the smoothed part, balanced views.

    \b
    divkd simulate ablations --out runs/ablations
    """
    from divkd.theory import sweep as cells

    measure_cells("simulate ablations", options, None, lambda config: cells.ABLATIONS)


def parse_vary(given: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """{name: values} of ``--vary name=v,v,...`` options, each value of the type of the parameter's default."""
    fields = {
        field.name: field.default
        for field in dataclasses.fields(MultiViewConfig)
        if field.metadata and field.name not in UNUSED
    }
    found: dict[str, tuple[Any, ...]] = {}
    for text in given:
        name, _, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if name not in fields:
            raise unknown("parameter", name, sorted(fields))
        if name in found:
            raise InputError(f"--vary {name} is given twice; give all of its values in one")
        default = fields[name]
        try:
            if isinstance(default, tuple):
                pairs = [[float(part) for part in value.split(":")] for value in values.split(",")]
                if any(len(pair) > 2 for pair in pairs):
                    raise ValueError
                found[name] = tuple((pair[0], pair[-1]) for pair in pairs)
            else:
                kind = int if isinstance(default, int) else float
                found[name] = tuple(kind(value) for value in values.split(","))
        except ValueError as error:
            raise InputError(
                f"--vary {text!r} is not allowed; give {name}=value,value,... as in --vary {name}={_example(default)}"
            ) from error
    return found


def _example(default: Any) -> str:
    return ":".join(f"{part:g}" for part in default) if isinstance(default, tuple) else f"{default:g}"


def stored_vary(options: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """The grid of the map that --config repeats or --resume goes on with; empty where there is none."""
    file = options["config"] or (options["out"] / "config.json" if options["resume"] and options["out"] else None)
    content = read_json(file) if file is not None and file.exists() else None
    config = content.get("config") if isinstance(content, dict) else None
    vary = config.get("vary") if isinstance(config, dict) else None
    if not isinstance(vary, dict):
        return {}
    return {
        name: tuple(tuple(value) if isinstance(value, list) else value for value in values)
        for name, values in vary.items()
    }


def measure_cells(
    command: str,
    options: dict[str, Any],
    vary: dict[str, tuple[Any, ...]] | None,
    choose: Callable[[MultiViewConfig], Any],
) -> None:
    """Configure, open the run, simulate every cell, draw and print."""
    config = configure(options | {"engine": None, "dimension": None}, command)

    from divkd.cli.tables import print_tables
    from divkd.report import draw
    from divkd.shared.progress import Progress
    from divkd.shared.run import open_run
    from divkd.theory.experiment import check
    from divkd.theory.sweep import measure

    check(config)
    cells = choose(config)
    for changes in cells.values():
        dataclasses.replace(config, **changes).validate()
    folder = run_folder(options["out"], command.replace(" ", "-"), config.preset, options["resume"])
    run = open_run(
        folder, command, {**dataclasses.asdict(config), **({} if vary is None else {"vary": vary})},
        resume=options["resume"], overwrite=options["overwrite"], extendable=("seeds", "preset", "max_steps"),
    )  # fmt: skip
    with Progress() as progress:
        rows = measure(config, cells, run, progress)
    results = {
        "command": command,
        "preset": config.preset,
        "seeds": list(config.seeds),
        "base": {name: getattr(config, name) for name in parameters(MultiViewConfig)},
        "symbols": {field.name: field.metadata["symbol"] for field in dataclasses.fields(config) if field.metadata},
        "cells": rows,
        "seconds": sum(row["seconds"] for row in rows),  # over all sittings
    }
    run.finish(results)
    draw(results, run.figures)
    print_tables(results, folder)


def configure(options: dict[str, Any], command: str = "simulate multiview") -> MultiViewConfig:
    """The validated configuration behind the command's options."""
    given = {key: options.get(key) for key in ("seeds", "members", "engine", "dimension", *parameters(MultiViewConfig))}
    config = resolve(
        PRESETS,
        options["preset"],
        options["config"],
        command,
        lambda values: MultiViewConfig.from_dict({key: value for key, value in values.items() if key != "vary"}),
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

    from divkd.cli.tables import print_tables
    from divkd.report import draw
    from divkd.shared.progress import Progress
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
        extendable=("seeds", "members", "students", "preset", "max_steps"),
    )
    with Progress() as progress:
        results = simulate(config, run, progress)
    run.finish(results)
    draw(results, run.figures)
    print_tables(results, folder)
