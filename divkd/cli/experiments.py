"""``divkd experiment``: the papers' experiments with trained networks, a command each."""

import dataclasses
import json
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from divkd.cli.contents import Contents, Sectioned
from divkd.cli.options import Decorator, by_jobs, common, from_fields, printed, together
from divkd.cli.train import DATA, EPOCHS, SECTIONS, configure, loaded, lowered, moved
from divkd.empirical.data.names import ViewsConfig
from divkd.empirical.experiments.config import FEATURE_MAP, JACOBIAN, MYSTERIES, OVER_KD, SPLIT_CHANNELS
from divkd.empirical.training.config import NetworksConfig, Schedule
from divkd.shared.errors import InputError
from divkd.shared.files import plain

if TYPE_CHECKING:
    from divkd.shared.jobs import Workers
    from divkd.shared.run import Run


SHARED = ("Data", "Data: views alone", "Networks", "Training")  # sections that `train` has too


@click.group(cls=Contents, short_help="The papers' experiments: why ensembles gain, and where.")
def experiment() -> None:
    """The papers' experiments with trained networks, each a command that makes a run.

    They take the data, networks and training of `divkd train`, and most of its presets; with --teachers RUN, the
    networks of a run of `divkd train`.
    """


def of_networks(
    presets: Mapping[str, NetworksConfig], roles: tuple[str, ...] = ("teacher", "student"), **own: tuple[str, ...]
) -> Decorator:
    """A command of `experiment` with the options of its configuration; `own` are its sections, {title: names}.

    `roles` are the kinds of networks that it trains.
    """
    kind = type(next(iter(presets.values())))
    named = {name for names in own.values() for name in names}
    sections = {title: tuple(name for name in SECTIONS[title] if name not in named) for title in SHARED} | own
    makes = click.command(
        cls=Sectioned,
        sections=sections,
        lists={"DATA": DATA, "Presets": {name: _preset(one, roles) for name, one in presets.items()}},
        no_args_is_help=True,
    )
    epochs = [
        click.option(f"--{role}-epochs", **EPOCHS, help=f"Epochs of {role}s, whatever --epochs says.") for role in roles
    ]
    return together(
        makes,
        click.argument("data", required=False, metavar="DATA"),
        common,
        by_jobs,
        click.option("--download", is_flag=True, help="Fetch CIFAR or SVHN into --data-dir where it is absent."),
        from_fields(kind, defaults=False),
        from_fields(Schedule, defaults=False),
        from_fields(ViewsConfig),
        *epochs,
    )


def _preset(config: NetworksConfig, roles: tuple[str, ...]) -> str:
    """The values of a preset that tell it from the others, in one line."""
    images = f"{config.dataset}, {config.train_images or 'all'} images"
    epochs = "/".join(dict.fromkeys(str(getattr(config, role).epochs) for role in roles))
    return f"{images}; {config.members} {config.network}; {epochs} epochs"


def conduct(name: str, presets: Mapping[str, NetworksConfig], options: dict[str, Any], *more: str) -> None:
    """Carry out `experiment NAME`, of the module of that name; `more` are fields that may grow when a run goes on."""
    command = f"experiment {name}"
    config = configure(options, command, presets)
    if printed(command, dataclasses.asdict(config), options):
        return
    data, facts = loaded(config, options)

    from divkd.cli.runs import carry_out
    from divkd.empirical.experiments.experiment import measured, plan, run_experiment, taught_by_nobody
    from divkd.empirical.training.distillation import reused
    from divkd.empirical.training.work import Source

    if config.teachers is not None:
        theirs = reused(config, facts["sha256"])[1].teachers_network
        if theirs != config.network:
            raise InputError(
                f"--teachers {config.teachers} are {theirs}, and this experiment is of one architecture, "
                f"{config.network}; give --network {theirs}"
            )
    module = import_module(f"divkd.empirical.experiments.{name.replace('-', '_')}")
    what, source = module.EXPERIMENT, Source(config, data)
    behind = json.dumps(plain([config.behind("teacher"), facts["sha256"], facts.get("weights_sha256")]))

    def work(run: "Run", workers: "Workers") -> dict[str, Any]:
        return run_experiment(what, source, run, workers)

    carry_out(
        command,
        dataclasses.asdict(config),
        work,
        options,
        name=config.preset,
        plan=(*filter(None, (data.summary(), data.passed, lowered(config, options, presets))), *plan(what, source)),
        measure=lambda: measured(what, source),
        extendable=("seeds", "members", "preset", *more, *moved(config)),
        shareable=dict.fromkeys(taught_by_nobody(what, source), behind),
        data=facts,
    )


@of_networks(MYSTERIES, Distillation=("temperature", "kd_weight", "label_share"))
def mysteries(**options: Any) -> None:
    """Single networks, their ensemble, their average trained as one, and what is distilled from them.

    After Allen-Zhu and Li (ICLR 2023, figure 1): an ensemble is better than its networks, their average trained as one
    is not, and one network that is distilled from the ensemble, or from another one like it, keeps a part. Students
    learn at a temperature, and by the paper's t CE + (1 - t) H.

    \b
    divkd experiment mysteries digits --out runs/mysteries
    divkd experiment mysteries cifar --data-dir data --seeds 0,1,2
    """

    conduct("mysteries", MYSTERIES, options)


@of_networks(OVER_KD, Distillation=("temperature", "kd_weight", "students"))
def ensemble_over_kd(**options: Any) -> None:
    """Several students of one ensemble, and their own ensemble: does it gain as the teachers' did?

    After a talk by Allen-Zhu and Li on their paper: students of one ensemble have learned the same views from it, so
    that together they gain little.

    \b
    divkd experiment ensemble-over-kd digits --out runs/over-kd
    """

    conduct("ensemble-over-kd", OVER_KD, options, "students")


@of_networks(SPLIT_CHANNELS, **{"The layer": ("cuts",)})
def split_channels(**options: Any) -> None:
    """Networks that see a part of the channels of a trained network's layer: what one lacks, others have.

    After a talk by Allen-Zhu and Li on their paper: a trained ResNet is cut behind its first or second group of blocks,
    and fresh upper networks learn from 1/n of the channels there (n = 1, 2, 4, ... up to --members), while the lower
    network stays as it is. Each loses accuracy, and their ensemble less. --members is how many there are for each n.

    \b
    divkd experiment split-channels digits --out runs/split
    divkd experiment split-channels cifar --data-dir data --seeds 0,1,2
    """

    conduct("split-channels", SPLIT_CHANNELS, options, "cuts")


@of_networks(FEATURE_MAP, ("teacher",), Maps=("images", "cut"))
def feature_map(**options: Any) -> None:
    """Where networks and their ensemble look in the same images, and what single channels respond to, as pictures.

    Maps are of the gradient of the true class's log-probability. Of the generated images `views` it is measured how
    much of them lies on each view of the class, beside which views the network has learned.

    \b
    divkd experiment feature-map digits --out runs/maps
    divkd experiment feature-map views --out runs/maps-views
    """

    conduct("feature-map", FEATURE_MAP, options, "images", "cut")


@of_networks(
    JACOBIAN,
    Networks=("network", "weights", "teachers", "members", "students"),
    Distillation=("steps", "step_size", "sizes", "temperature", "kd_weight", "images"),
)
def jacobian(**options: Any) -> None:
    """Is distillation on moved images KD with a penalty on the difference of Jacobians? By size of the steps.

    After Nam et al. (NeurIPS 2021, section 3.2): to second order in small steps it is. Students learn on moved images,
    and by KD with that penalty in their stead; what moved images add to the loss is measured beside its Taylor term.

    \b
    divkd experiment jacobian digits --out runs/jacobian
    divkd experiment jacobian cifar --teachers runs/cifar10 --data-dir data --seeds 0,1,2
    """

    conduct("jacobian", JACOBIAN, options, "sizes", "steps", "students")


COMMANDS: tuple[Any, ...] = (mysteries, ensemble_over_kd, split_channels, feature_map, jacobian)
for one in COMMANDS:
    experiment.add_command(one)
