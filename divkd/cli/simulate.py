"""``divkd simulate``: the theory, in simulated worlds."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import click

from divkd.cli.contents import Contents, Sectioned
from divkd.cli.options import asked, by_jobs, common, device_of, from_fields, given, printed, resolve
from divkd.cli.worlds import WORLDS
from divkd.shared.config import described, shown
from divkd.shared.errors import InputError, unknown
from divkd.shared.kinds import ENGINES
from divkd.shared.manifest import existing
from divkd.theory.config import PRESETS, MultiViewConfig

# Parameters of students that maps and ablations do not train.
UNUSED = ("chain", "joint", "temperature", "label_share", "soft_steps")


class Simulations(Contents):
    """The claims first, then what they rest on, then other worlds."""

    sections: ClassVar = {"Commands": ("multiview", "ablations", "window")}


@click.group("simulate", cls=Simulations)
def group() -> None:
    """Simulate the theory, the worlds where it should not hold, and the practice's premise, in a plane."""


for world in WORLDS:
    group.add_command(world)


def _preset(config: MultiViewConfig) -> str:
    """What a preset has that `default` has not, in one line."""
    base, names = MultiViewConfig(), [one.name for one in dataclasses.fields(config)][1:]
    values = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(base, name)}
    other = ", ".join(f"{name} {shown(value)}" for name, value in values.items())
    return other or "the defaults below, seeds 0,1,2, 10 members"


def _sections() -> dict[str, list[str]]:
    """The options of a simulation as the configuration has them: each section begins at a field."""
    names = [one.name for one in described(MultiViewConfig)]
    begin = {"Data": "classes", "Network": "neurons", "Descent": "trust", "Students": "students"}
    ends = [*(names.index(first) for first in begin.values()), len(names)]
    sections = {title: names[ends[place] : ends[place + 1]] for place, title in enumerate(begin)}
    sections["Data"].append("mu")
    sections["Network"] += ["members", "engine", "dimension"]
    return sections


share = click.option(
    "--mu",
    type=float,
    metavar="X",
    help="mu: share of single-view training samples, in place of --single-views: the nearest multiple of V k / N.",
)
HELP: dict[str, Any] = {
    "cls": Sectioned,
    "sections": _sections(),
    "lists": {"Presets": {name: _preset(one) for name, one in PRESETS.items()}},
}


@group.command(**HELP, short_help="Measure every claim: networks, ensembles and their students.")
@common
@by_jobs
@click.option("--engine", metavar="|".join(ENGINES), help="limit: d -> infinity, exact, on the CPU; dense: finite d.")
@click.option("--dimension", type=int, metavar="D", help="d of the dense engine.")
@from_fields(MultiViewConfig)
@share
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
    config = configure(options)
    if printed("simulate multiview", dataclasses.asdict(config), options):
        return

    from divkd.cli.runs import carry_out
    from divkd.cli.timed import measured
    from divkd.theory.experiment import check, simulate

    check(config)
    for warning in config.warnings():
        click.echo(f"divkd: warning: {warning}", err=True)
    count, plan = planned({"": config})
    carry_out(
        "simulate multiview",
        dataclasses.asdict(config),
        lambda run, workers: simulate(config, run, workers),
        options,
        name=config.preset,
        plan=plan,
        measure=lambda: measured(config, count),
        extendable=("seeds", "members", "students", "chain", "joint", "preset", "max_steps"),
    )


@group.command(**HELP, short_help="Map where the claims hold, by one parameter or by two.")
@common
@by_jobs
@click.option(
    "--vary", multiple=True, metavar="NAME=V,V,...", help="Map this parameter (repeatable); low:high for two."
)
@click.option("--grid", multiple=True, metavar="NAME=V,V,...", help="Given twice: map every pair of two parameters.")
@from_fields(MultiViewConfig, without=UNUSED)
@share
def window(vary: tuple[str, ...], grid: tuple[str, ...], **options: Any) -> None:
    """Map the window in which the claims hold: every claim against one parameter at a time, or against two.

    Every cell is a whole simulation of claims 1 to 4 with the other parameters as given; that of the given ones is made
    once. Without --vary or --grid, the map of the documentation, 64 simulations a seed: some 15 minutes each on two
    cores.

    \b
    divkd simulate window --vary init_scale=1e-4,1e-3,1e-2 --vary other_weight_single=0.1:0.16,0.2:0.3 --out runs/map
    divkd simulate window --grid init_scale=1e-4,1e-3,1e-2 --grid noise=0.5,1,2 --out runs/grid
    """
    from divkd.theory import sweep

    if vary and grid:
        raise InputError("--vary and --grid are two maps; give one of the two")
    kind = "grid" if grid else "vary"
    values = parse_vary(grid or vary, f"--{kind}")
    if not values:
        kind, values = stored_map(options) or ("vary", sweep.GRID)
    if kind == "grid" and len(values) != 2:
        raise InputError(
            f"--grid {' '.join(values)} is one parameter; give two: --grid NAME=V,V,... --grid NAME=V,V,..."
        )
    cells = sweep.pairs(values) if kind == "grid" else sweep.one_at_a_time(values)
    measure_cells("simulate window", cells, options, {kind: values})


@group.command(**HELP, short_help="Take away what the theory rests on, one thing at a time.")
@common
@by_jobs
@from_fields(MultiViewConfig, without=UNUSED)
@share
def ablations(**options: Any) -> None:
    """Take away, one at a time, what the theory rests on: rho, q > 2, the smoothed part, balanced views.

    \b
    divkd simulate ablations --out runs/ablations
    """
    from divkd.theory import sweep

    measure_cells("simulate ablations", sweep.ABLATIONS, options, {})


def parse_vary(texts: Iterable[str], option: str) -> dict[str, tuple[Any, ...]]:
    """{name: values} of ``--vary name=v,v,...`` options, each value of the type of the parameter's default."""
    fields = {one.name: one.default for one in described(MultiViewConfig) if one.name not in UNUSED}
    grid: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if name not in fields:
            raise unknown("parameter", name, sorted(fields))
        if name in grid:
            raise InputError(f"{option} {name} is given twice; give all of its values in one")
        default = fields[name]
        try:
            grid[name] = tuple(_value(value, default) for value in values.split(","))
        except ValueError as error:
            example = ":".join(f"{part:g}" for part in (default if isinstance(default, tuple) else (default,)))
            mend = f"give {name}=value,value,... as in {option} {name}={example}"
            raise InputError(f"{option} {text!r} is not allowed; {mend}") from error
    return grid


def _value(text: str, default: Any) -> Any:
    """A number, or low:high as a pair, like `default`; raises ValueError."""
    numbers = [int(part) if isinstance(default, int) else float(part) for part in text.split(":")]
    if len(numbers) > (2 if isinstance(default, tuple) else 1):
        raise ValueError
    return (numbers[0], numbers[-1]) if isinstance(default, tuple) else numbers[0]


def stored_map(options: dict[str, Any]) -> tuple[str, dict[str, tuple[Any, ...]]] | None:
    """The map that --config repeats or --resume goes on with: "vary" or "grid", and its values; None without one."""
    content: Mapping[str, Any] = {}
    if options["config"]:
        content = asked(options["config"])
    elif options["resume"] and options["out"]:
        content = existing(options["out"])
    config = content.get("config") or {}
    for kind in ("vary", "grid"):
        if isinstance(config.get(kind), dict):
            texts = [
                f"{name}={','.join(':'.join(map(str, one if isinstance(one, list) else [one])) for one in values)}"
                for name, values in config[kind].items()
                if isinstance(values, list)
            ]
            return kind, parse_vary(texts, f"--{kind}")
    return None


def measure_cells(command: str, cells: Mapping[str, Any], options: Mapping[str, Any], beside: dict[str, Any]) -> None:
    """Simulate every cell; `beside` is what config.json holds beside the configuration."""
    config = configure(options, command)
    whole = {**dataclasses.asdict(config), **beside}
    if printed(command, whole, options):
        return

    from divkd.cli.runs import carry_out
    from divkd.cli.timed import measured
    from divkd.theory.experiment import check
    from divkd.theory.sweep import STUDENTS, run_sweep

    check(config)
    changed = {name: dataclasses.replace(config, **changes) for name, changes in cells.items()}
    for one in changed.values():
        one.validate()
    count, plan = planned(changed, STUDENTS)
    carry_out(
        command,
        whole,
        lambda run, workers: run_sweep(config, command, cells, run, workers),
        options,
        name=config.preset,
        plan=plan,
        measure=lambda: measured(config, count),
        extendable=("seeds", "preset", "max_steps"),
    )


def planned(cells: Mapping[str, MultiViewConfig], kinds: Sequence[str] | None = None) -> tuple[int, tuple[str, ...]]:
    """How many networks simulations train, with students of `kinds` (None: all), and what they are, in words."""
    from divkd.theory.descent import engine
    from divkd.theory.roster import KINDS, networks

    each = [networks(one, tuple(KINDS) if kinds is None else kinds) for one in cells.values()]
    first = next(iter(cells.values()))
    seeds, needed = len(first.seeds), max(engine(one.engine).state_bytes(one) for one in cells.values())
    members = first.members * len(cells)
    parts = f"{members} members" + (f" and {sum(each) - members} students and controls" if sum(each) > members else "")
    many = f" in {len(cells)} simulations" if len(cells) > 1 else ""
    of = f", for each of {seeds} seeds" if seeds > 1 else ""
    return seeds * sum(each), (
        f"{seeds * sum(each)} networks are trained: {parts}{many}{of}; each until it fits, "
        f"at most {first.max_steps:,} steps a descent",
        f"memory: {needed / 1e6:,.0f} MB of samples, weights and products",
    )


def configure(options: Mapping[str, Any], command: str = "simulate multiview") -> MultiViewConfig:
    """The validated configuration behind the command's options."""
    base = resolve(PRESETS, command, options, "default", beside=("vary", "grid"))
    config = dataclasses.replace(base, **given(MultiViewConfig, options))
    if options["mu"] is not None:
        config = _share(config, options["mu"], options["single_views"])
    if config.engine == "limit" and options.get("dimension") is not None:
        raise InputError("--dimension is d of the dense engine; give --engine dense with it, or leave it out")
    device = options["device"] or "cpu" if config.engine == "limit" else device_of(config, options)
    config = dataclasses.replace(config, device=device)
    config.validate()
    return config


def _share(config: MultiViewConfig, mu: float, told: int | None) -> MultiViewConfig:
    """`config` with the `single_views` nearest to the share `mu`, which is said where it is another."""
    single_views = config.single_views_of(mu)
    if told not in (None, single_views):
        raise InputError(f"--mu {mu:g} is --single-views {single_views} here, and {told} is given; give one of the two")
    config = dataclasses.replace(config, single_views=single_views)
    if abs(config.single_share - mu) > 1e-9:
        click.echo(f"divkd: --mu {mu:g} is --single-views {single_views}, mu = {config.single_share:.4g}", err=True)
    return config
