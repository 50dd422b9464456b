"""``divkd simulate plane|gaussian|ntk|students|convergence``: the practice's premise in two dimensions and inside the
theory, the theory's opposite worlds, and both engines."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from divkd.cli.contents import Sectioned
from divkd.cli.options import (
    Decorator,
    asked_first,
    by_jobs,
    from_fields,
    given,
    placed,
    printed,
    repeatable,
    resolve,
    seeds,
    together,
)
from divkd.empirical.plane.config import PlaneConfig
from divkd.shared.config import Config
from divkd.theory.worlds.config import ConvergenceConfig, GaussianConfig, NtkConfig, StudentsConfig

if TYPE_CHECKING:  # numpy comes with them
    from divkd.shared.jobs import Workers
    from divkd.shared.run import Run


def world_of(kind: type[Config]) -> Decorator:
    """The options of a world that is described by `kind`."""
    again = placed("Make the run in --out again, with more seeds or members if given.")
    return together(seeds, by_jobs, from_fields(kind), repeatable, asked_first, again)


def simulate(
    command: str,
    kind: type[Config],
    options: dict[str, Any],
    name: str,
    plan: Callable[[Any], str],
    compute: "Callable[[Any, Run, Workers], dict[str, Any]]",
    more: tuple[str, ...] = (),
) -> None:
    """Carry out the `command` of a world: `plan` says of a configuration what it takes, `compute` runs it.

    `more` are fields that may grow when a run goes on, beside seeds and members.
    """
    base = resolve({name: kind()}, command, options, name)
    config = dataclasses.replace(base, **given(kind, options))
    config.validate()
    if printed(command, dataclasses.asdict(config), options):
        return

    from divkd.cli.runs import carry_out

    carry_out(
        command,
        dataclasses.asdict(config),
        lambda run, workers: compute(config, run, workers),
        options,
        name=name,
        plan=(plan(config),),
        extendable=("seeds", "members", *more),
    )


@click.command(
    cls=Sectioned,
    sections={"Points": ("points", "noise"), "Teachers": ("members", "width", "epochs"),
              "Steps": ("step_size", "temperature")},
)  # fmt: skip
@world_of(PlaneConfig)
def plane(**options: Any) -> None:
    """Where teachers disagree: small networks on two moons, and points moved by Gaussian and ODS steps.

    The premise of Nam et al., "Diversity Matters When Learning From Ensembles" (NeurIPS 2021): teachers that fit their
    training points agree on them, and ODS and ConfODS steps move a point to where they do not. Computed on the
    CPU, in seconds.

    \b
    divkd simulate plane --out runs/plane
    """

    def plan(config: PlaneConfig) -> str:
        from divkd.empirical.plane.plane import BATCH

        teachers = config.members * len(config.seeds)
        steps = teachers * config.epochs * -(-config.points // BATCH)
        return f"{teachers} small networks are trained, {steps:,} steps in all: seconds on a CPU"

    def compute(config: PlaneConfig, run: "Run", workers: "Workers") -> dict[str, Any]:
        from divkd.empirical.plane.plane import run_plane

        return run_plane(config, run, workers)

    simulate("simulate plane", PlaneConfig, options, "moons", plan, compute)


@click.command(
    cls=Sectioned,
    sections={"Data": ("dimension", "classes", "train_samples", "test_samples", "components", "margin", "label_noise"),
              "Networks": ("members", "width", "epochs")},
)  # fmt: skip
@world_of(GaussianConfig)
def gaussian(**options: Any) -> None:
    """An opposite world: ensembles on inputs without views, which vary and hardly gain.

    Sixteen cells: Gaussian inputs or a mixture, labels by a linear function or a small network, with and without a
    margin, with and without label noise. After Allen-Zhu and Li (ICLR 2023), who find no gain from ensembles on such
    inputs. Computed on the CPU, in less than a minute.

    \b
    divkd simulate gaussian --out runs/gaussian
    """

    def plan(config: GaussianConfig) -> str:
        from divkd.theory.worlds.gaussian import CELLS

        networks = config.members * len(config.seeds)
        return f"{len(CELLS) * networks} small networks are trained, {networks} in each of {len(CELLS)} cells"

    def compute(config: GaussianConfig, run: "Run", workers: "Workers") -> dict[str, Any]:
        from divkd.theory.worlds.gaussian import run_gaussian

        return run_gaussian(config, run, workers)

    simulate("simulate gaussian", GaussianConfig, options, "default", plan, compute)


@click.command(
    cls=Sectioned,
    sections={"Data": ("classes", "patches", "train_samples", "test_samples", "expected_others", "other_weight",
                       "other_weight_single", "noise"),
              "Networks": ("members", "students", "neurons", "power", "init_scale", "ridge")},
)  # fmt: skip
@world_of(NtkConfig)
def ntk(**options: Any) -> None:
    """An opposite world: networks that keep the features of their start, on multi-view data.

    The patch network of `simulate multiview` in the tangent-kernel regime: single ones, their ensemble, students
    distilled from it or from one other, and the average trained as one, in closed form. After Allen-Zhu and Li (ICLR
    2023): there an ensemble helps, and distillation passes nothing on. Computed on the CPU, in seconds.

    \b
    divkd simulate ntk --out runs/ntk
    """

    def plan(config: NtkConfig) -> str:
        each, of = config.members + config.students, len(config.seeds)
        return f"{each * of} networks are fitted in closed form: {each} for each of {of} seeds"

    def compute(config: NtkConfig, run: "Run", workers: "Workers") -> dict[str, Any]:
        from divkd.theory.worlds.ntk import run_ntk

        return run_ntk(config, run, workers)

    simulate("simulate ntk", NtkConfig, options, "default", plan, compute, more=("students",))


@click.command(
    cls=Sectioned,
    sections={"Data": ("dimension", "classes", "patches", "train_samples", "expected_others", "noise"),
              "Networks": ("members", "neurons", "power", "init_scale", "trust", "distill_time")},
)  # fmt: skip
@world_of(ConvergenceConfig)
def convergence(**options: Any) -> None:
    """Does the dense engine converge to the limit engine? The same networks in both, in d / 16, d / 4 and d dimensions.

    Learned views, strengths and training outputs of members and of one distilled student at the same flow time, with
    the exponent at which they approach each other and its prediction. Computed on the CPU, in minutes.

    \b
    divkd simulate convergence --out runs/convergence
    """

    def plan(config: ConvergenceConfig) -> str:
        each, of = config.members + bool(config.distill_time), len(config.seeds)
        return f"{each * of} networks are trained in either engine and 3 dimensions: {each} for each of {of} seeds"

    def compute(config: ConvergenceConfig, run: "Run", workers: "Workers") -> dict[str, Any]:
        from divkd.theory.worlds.convergence import run_convergence

        return run_convergence(config, run, workers)

    simulate("simulate convergence", ConvergenceConfig, options, "default", plan, compute)


@click.command(
    cls=Sectioned,
    sections={"Data": ("classes", "patches", "train_samples", "test_samples", "expected_others", "other_weight",
                       "other_weight_single"),
              "Teachers and networks": ("members", "neurons", "teacher_time"),
              "Students": ("distill_time", "rule", "clip", "soft_temperature", "temperature", "max_steps", "factors",
                           "factor_sd", "factor_rate"),
              "Perturbation": ("step_size", "redraw"),
              "Scan": ("scan_seeds", "scan_time")},
)  # fmt: skip
@world_of(StudentsConfig)
def students(**options: Any) -> None:
    """The practice inside the theory: BatchEnsembles and single networks distilled by every method, view by view.

    Teachers are members of the multi-view world; students learn from labels or from teachers' answers to training
    samples as they are, or moved by Gaussian, ODS and ConfODS steps through the teachers (Nam et al. 2021). Which views
    each member knows, since when, and how members differ; a scan of what it depends on. Computed on the CPU in minutes.

    \b
    divkd simulate students --out runs/students
    """

    def plan(config: StudentsConfig) -> str:
        from divkd.theory.worlds.students import kinds

        return f"{len(kinds()) * len(config.seeds)} students for {len(config.seeds)} seeds, and those of the scan"

    def compute(config: StudentsConfig, run: "Run", workers: "Workers") -> dict[str, Any]:
        from divkd.theory.worlds.students import run_students

        return run_students(config, run, workers)

    simulate("simulate students", StudentsConfig, options, "default", plan, compute, more=("scan_seeds",))


WORLDS = (plane, gaussian, ntk, students, convergence)
