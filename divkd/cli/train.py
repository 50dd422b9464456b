"""``divkd train``: teachers and students on real images."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from divkd.cli.contents import Sectioned
from divkd.cli.options import by_jobs, common, device_of, from_fields, given, printed, resolve
from divkd.empirical.data.names import DATASETS, ViewsConfig, full
from divkd.empirical.training.config import PRESETS, NetworksConfig, Schedule, TrainConfig
from divkd.shared.config import described, option_of, shown
from divkd.shared.errors import InputError
from divkd.shared.files import plain
from divkd.shared.kinds import METHODS
from divkd.shared.machine import launched

if TYPE_CHECKING:
    from divkd.empirical.data.splits import ImageData
    from divkd.shared.jobs import Workers
    from divkd.shared.run import Run

Asked = TypeVar("Asked", bound=NetworksConfig)
COMMAND = "train cifar"  # the name in config.json and results.json, whatever the data
EPOCHS: dict[str, Any] = {"type": click.IntRange(1, 100_000), "metavar": "N"}
SECTIONS = {
    "Data": ("dataset", "data_dir", "download", "split", "train_images", "image_size", "crop", "flip"),
    "Data: views alone": tuple(one.name for one in described(ViewsConfig)),
    "Networks": ("network", "teacher_network", "weights", "teachers", "members", "ladder", "students"),
    "Distillation": ("methods", "temperature", "kd_weight", "step_size"),
    "Training": ("epochs", "teacher_epochs", "student_epochs", "batch_size", "lr", "precision", "compile", "profile"),
}


DATA = {
    "digits": "1,797 handwritten digits of 8 x 8 pixels, built in",
    "views": "generated images whose classes have several visual features, which are known",
    "cifar10, cifar100, svhn": "published, in --data-dir, where --download puts them",
    "tinyimagenet": "published, in --data-dir",
    "FOLDER": "train/CLASS/*, test/CLASS/* and perhaps val/CLASS/*, image files; or CLASS/* with --split 0.2",
    "FILE.npz": "x_train, y_train, x_test, y_test and perhaps x_val, y_val",
    "cifar": "cifar10, or the data set of the preset that you give",
}


def _preset(config: TrainConfig) -> str:
    """The values of a preset that tell it from the others, in one line; teachers/students where they differ."""
    pairs = ((getattr(config.teacher, name), getattr(config.student, name)) for name in ("epochs", "batch_size", "lr"))
    epochs, batch, lr = ("/".join(f"{value:g}" for value in dict.fromkeys(pair)) for pair in pairs)
    images = f"{config.dataset}, {config.train_images or 'all'} images"
    methods = "all methods" if config.methods == tuple(METHODS) else ",".join(config.methods)
    networks = f"{config.members} members of {config.networks} {config.network}"
    return f"{images}; {networks}; {methods}; {epochs} epochs, batch {batch}, lr {lr}; t {config.temperature:g}"


@click.command(
    cls=Sectioned,
    sections=SECTIONS,
    lists={"DATA": DATA, "Presets": {name: _preset(one) for name, one in PRESETS.items()}},
    no_args_is_help=True,
    short_help="Train deep ensembles and distill them into one network.",
)
@click.argument("data", required=False, metavar="DATA")
@common
@by_jobs
@click.option("--tensorboard", is_flag=True, help="Write event files for TensorBoard too, RUN/tensorboard/.")
@click.option("--dataset", hidden=True, help="Another spelling of DATA.")
@click.option("--profile", is_flag=True, help="Measure where the time goes: a table, and RUN/profile.json.")
@click.option("--download", is_flag=True, help="Fetch CIFAR or SVHN into --data-dir where it is absent.")
@from_fields(TrainConfig, defaults=False)
@from_fields(Schedule, defaults=False)
@from_fields(ViewsConfig)
@click.option("--teacher-epochs", **EPOCHS, help="Epochs of teachers, whatever --epochs says.")
@click.option("--student-epochs", **EPOCHS, help="Epochs of students, whatever --epochs says.")
def train(**options: Any) -> None:
    """Distill a deep ensemble into a BatchEnsemble, and into the single network that is its control.

    Follows Nam et al., "Diversity Matters When Learning From Ensembles" (NeurIPS 2021). Methods: none (labels only),
    kd (clean images), gaussian, ods and confods (images moved to where the teachers disagree). Presets: smoke (digits,
    under a minute), views (generated images, whose views are known), cpu (CIFAR-10, the paper's regime of teachers that
    fit their data, at a laptop's size), gpu (all of CIFAR-10, a short schedule) and nam2021-*, after the authors' code.
    The default is smoke for digits, views for views and cpu for all else.

    \b
    divkd train digits --out runs/digits
    divkd train cifar --preset cpu --data-dir data --seeds 0,1 --out runs/cifar10
    divkd train cifar100 --data-dir data
    divkd train photos/ --image-size 32 --flip
    """
    config = configure(options, COMMAND, PRESETS)
    if launched()[1] > 1:
        options = _together(options)
    if printed(COMMAND, dataclasses.asdict(config), options):
        return
    from divkd.cli.runs import carry_out
    from divkd.cli.tables import print_profile
    from divkd.empirical.analysis.profile import profile
    from divkd.empirical.training import ranks
    from divkd.empirical.training.experiment import run_training
    from divkd.empirical.training.plan import kinds, measured, plan
    from divkd.empirical.training.work import Source, follow

    data, facts = loaded(config, options)

    def work(run: "Run", workers: "Workers") -> dict[str, Any]:
        results = run_training(config, data, run, workers, profile=options["profile"])
        if options["profile"]:
            print_profile(profile(config, data, run))
        return results

    shareable: dict[str, str] = {}
    for kind in kinds(config):
        values = config.behind("teacher" if kind.model == "deep_ensemble" else kind.method)
        shareable |= dict.fromkeys(
            kind.names, json.dumps(plain([values, facts["sha256"], facts.get("weights_sha256")]))
        )
    with ranks.joined(config.device):
        if not ranks.leads():
            follow(Source(config, data))
            return
        carry_out(
            COMMAND,
            dataclasses.asdict(config),
            work,
            options,
            name=config.preset,
            plan=(*filter(None, (data.summary(), data.passed, lowered(config, options, PRESETS))), *plan(config, data)),
            measure=lambda: measured(config, data),
            extendable=("seeds", "members", "ladder", "methods", "students", "preset", *moved(config)),
            shareable=shareable,
            data=facts,
        )


def loaded(config: NetworksConfig, options: Mapping[str, Any]) -> "tuple[ImageData, dict[str, Any]]":
    """The images that `config` names, and what is known of them; all that it reads beside them is checked."""
    if options["dry_run"] and options["download"]:
        raise InputError("--dry-run fetches nothing; leave --download out, or fetch the data first without --dry-run")

    from divkd.empirical.data.datasets import load
    from divkd.empirical.networks.backbones import start_from
    from divkd.empirical.networks.build import architecture
    from divkd.empirical.training.distillation import reused

    fetch, size, share = options["download"], config.image_size, config.split
    data = load(config.dataset, config.data_dir, fetch, config.train_images, size, share, config.views)
    facts = data.facts()
    if config.teachers is not None:
        reused(config, facts["sha256"])
    for network in {config.network, config.teachers_network} if config.weights else ():
        start_from(architecture(network, data.classes, data.mean, data.std), Path(str(config.weights)))
    if config.weights:
        facts["weights_sha256"] = hashlib.sha256(Path(config.weights).read_bytes()).hexdigest()
    return data, facts


def moved(config: NetworksConfig) -> tuple[str, ...]:
    """What of the data may be elsewhere when a run goes on: one's own images, which `open_run` knows by their bytes."""
    return ("data_dir",) if config.dataset in DATASETS else ("data_dir", "dataset")


def _together(options: dict[str, Any]) -> dict[str, Any]:
    """The options of processes that torchrun has started, which train each network together and do nothing else."""
    for name in ("dry_run", "print_config", "download", "dask"):
        if options[name]:
            raise InputError(f"--{name.replace('_', '-')} is not for torchrun; give it to divkd alone, before")
    if (options["jobs"] or 1) > 1:
        raise InputError(f"--jobs {options['jobs']}: processes of torchrun train one network at a time; leave it out")
    if ":" in str(options["device"]):
        raise InputError(f"--device {options['device']}: each process of torchrun takes a GPU; give --device cuda")
    return {**options, "jobs": 1}


def dataset_of(options: Mapping[str, Any]) -> str | None:
    """The data set that DATA or --dataset names; None where the preset or the run of --config decides."""
    data, dataset = options["data"], options.get("dataset")
    if data not in (None, "cifar"):
        if dataset is not None:
            raise InputError(f"'train {data}' names the data already; leave --dataset out")
        return str(data)
    if dataset is None and options["preset"] is None and options["config"] is None:
        if data is None:
            raise InputError(f"DATA is missing; give {', '.join(DATASETS)}, a folder of images or an .npz file")
        return full("cifar")
    return None if dataset is None else full(str(dataset))


def configure(options: Mapping[str, Any], command: str, presets: Mapping[str, Asked]) -> Asked:
    """The validated configuration behind the options of a `command` that trains."""
    dataset = dataset_of(options)
    base = resolve(presets, command, options, {"digits": "smoke", "views": "views"}.get(str(dataset), "cpu"))
    if dataset not in (None, base.dataset):
        base = dataclasses.replace(base, dataset=str(dataset), views=None)
        base = base if options["config"] else suited(base)
    if options["teachers"] is not None and options.get("teacher_network") is not None:
        raise InputError("--teachers brings networks of its own; leave --teacher-network out")
    changes = given(type(base), {**options, "dataset": dataset})
    for role in ("teacher", "student"):
        own = options.get(f"{role}_epochs")  # which a command without students lacks
        values = given(Schedule, options if own is None else {**options, "epochs": own})
        schedule = dataclasses.replace(getattr(base, role), **values)
        changes[role] = dataclasses.replace(schedule, choose_last=min(schedule.choose_last, schedule.epochs))
    config = dataclasses.replace(base, **changes, views=_views(base, options))
    config.validate()
    device = device_of(config, options)  # before anything that imports torch
    from divkd.empirical.training.execution import decided

    asked = options["precision"] is not None or options["config"] is not None
    return decided(dataclasses.replace(config, device=device), asked=asked)


def lowered(config: NetworksConfig, options: Mapping[str, Any], presets: Mapping[str, NetworksConfig]) -> str:
    """That the preset's bfloat16 is float32 here, where it is; else nothing."""
    named = presets[config.preset].precision if config.preset in presets else ""
    if options["precision"] or options["config"] or (named, config.precision) != ("bfloat16", "float32"):
        return ""
    lacking = f"the preset {config.preset} is of bfloat16, for which {config.device} here has no instructions"
    return f"{lacking}: {config.precision} in its place, with other numbers"


def _views(base: NetworksConfig, options: Mapping[str, Any]) -> ViewsConfig | None:
    """What the generated data set is made of; raises `InputError` where an option of it is given for another."""
    values = given(ViewsConfig, options)
    if base.dataset == "views":
        return dataclasses.replace(base.views or ViewsConfig(), **values)
    if values:
        name, value = next(iter(values.items()))
        option = option_of(next(one for one in described(ViewsConfig) if one.name == name))
        raise InputError(f"{option} {shown(value)} is of the data set views, not of {base.dataset}; leave it out")
    return base.views


def suited(config: Asked) -> Asked:
    """`config` with augmentation that its data set bears, where it was made for another; of one's own images, all.

    Whether a shifted or mirrored image of one's own keeps its class is not known, so neither is done unasked.
    """
    data = DATASETS.get(config.dataset)
    crop, flip = (data.crop, data.flip) if data else (0, False)
    limit = config.train_images if config.dataset in DATASETS else None
    return dataclasses.replace(config, crop=crop if config.crop else 0, flip=config.flip and flip, train_images=limit)
