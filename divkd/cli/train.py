"""``divkd train``: teachers and students on real images."""

from pathlib import Path
from typing import Any

import click

from divkd.cli.options import check_device, common, resolve, run_folder
from divkd.empirical.networks.names import RULE
from divkd.empirical.training.config import DATASETS, METHODS, PRECISIONS, PRESETS, STUDENTS, TrainConfig
from divkd.shared.errors import InputError

# Options that are fields of the configuration of the same name.
GIVEN = (
    "seeds", "members", "ladder", "dataset", "data_dir", "image_size", "network", "temperature", "kd_weight",
    "step_size", "precision", "teacher_network", "teachers",
)  # fmt: skip


class ByData(click.Group):
    """`divkd train DATA ...` stands for `divkd train cifar --dataset DATA ...`, whatever is no command's name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, its name and its arguments."""
        data = args[0]
        if data in self.commands or data.startswith("-"):
            return super().resolve_command(ctx, args)
        if any(arg.split("=")[0] == "--dataset" for arg in args):
            raise InputError(f"'train {data}' names the data already; leave --dataset out")
        return super().resolve_command(ctx, ["cifar", "--dataset", *args])


@click.group("train", cls=ByData, subcommand_metavar="cifar|DATA [OPTIONS]")
def group() -> None:
    """Train deep ensembles and distill them into one network.

    DATA is digits (built in), cifar10, cifar100, svhn or tinyimagenet, the path of a folder of images or of an .npz
    file; the options are those of cifar.

    \b
    divkd train digits
    divkd train cifar100 --data-dir data
    divkd train photos/ --image-size 32 --flip
    """


@group.command()
@common(PRESETS)
@click.option(
    "--dataset", metavar="|".join((*DATASETS, "PATH")),
    help="A name; a folder with train/CLASS/*, test/CLASS/* and perhaps val/CLASS/*; or an .npz file with x_train, "
    "y_train, x_test, y_test and perhaps x_val, y_val.",
)  # fmt: skip
@click.option("--data-dir", metavar="FOLDER", help="Folder that holds (or, with --download, gets) the named data set.")
@click.option("--download", is_flag=True, help="Fetch CIFAR or SVHN into --data-dir where it is absent.")
@click.option("--train-images", type=int, metavar="N", help="Learn from the first N; the classes are mixed.")
@click.option("--image-size", type=int, metavar="S", help="Scale the images of a folder to S x S pixels.")
@click.option("--crop", type=int, metavar="P", help="Random crops with P pixels of padding; 0: none.")
@click.option("--flip/--no-flip", default=None, help="Random mirroring, where a mirrored image keeps its class.")
@click.option("--network", metavar="NAME", help=f"Network of teachers and students: {RULE}.")
@click.option("--method", "methods", multiple=True, metavar="|".join(METHODS), help="How students learn. Repeatable.")
@click.option("--student", "students", multiple=True, metavar="|".join(STUDENTS), help="What learns. Repeatable.")
@click.option(
    "--ladder", type=int, metavar="L",
    help="Networks whose ensembles measure the deep ensemble equivalent; those beyond --members teach nobody.",
)  # fmt: skip
@click.option("--temperature", type=float, metavar="T", help="t of the distillation term.")
@click.option("--kd-weight", type=float, metavar="A", help="a in the loss (1 - a) CE + a KD.")
@click.option("--step-size", type=float, metavar="ETA", help="eta of the perturbations, pixels in [0, 1].")
@click.option("--precision", metavar="|".join(PRECISIONS), help="Of products and convolutions in training.")
@click.option("--teacher-network", metavar="NETWORK", help="Network of the teachers, where it is another.")
@click.option("--teachers", metavar="RUN", help="Use the teachers of this run instead of training some.")
@click.option("--epochs", type=int, metavar="N", help="Epochs of teachers and of students.")
@click.option("--batch-size", type=int, metavar="B", help="Images a batch, for teachers and students.")
@click.option("--lr", type=float, metavar="RATE", help="Learning rate, for teachers and students.")
def cifar(**options: Any) -> None:
    """Distil a deep ensemble into a BatchEnsemble, and into the single network that is its control.

    Follows Nam et al., "Diversity Matters When Learning From Ensembles" (NeurIPS 2021). Methods: none (labels only),
    kd (clean images), gaussian, ods and confods (images moved to where the teachers disagree). Presets: smoke (digits,
    under a minute), cpu (CIFAR-10, the paper's regime of teachers that fit their data, at a laptop's size), gpu (all of
    CIFAR-10, a short schedule) and the paper's protocols: nam2021-cifar10-resnet32, nam2021-cifar100-wrn28x10,
    nam2021-cifar100-wrn28x5, nam2021-tinyimagenet-wrn28x5.

    \b
    divkd train cifar --preset smoke --out runs/digits
    divkd train cifar --preset cpu --data-dir data --seeds 0,1 --out runs/cifar10
    """
    train_cifar(**options)


def configure(options: dict[str, Any]) -> TrainConfig:
    """The validated configuration behind the command's options."""
    import dataclasses

    given = {key: options[key] for key in GIVEN}
    given |= {key: tuple(options[key]) or None for key in ("methods", "students")}
    default = "smoke" if options["dataset"] in (None, "digits") else "cpu"
    sources = (PRESETS, options["preset"], options["config"], "train cifar", TrainConfig.from_dict, default)
    base, config = resolve(*sources, {}), resolve(*sources, given)
    if config.dataset != base.dataset and not options["config"]:
        config = suited(config)
    if options["teachers"] is not None and options["teacher_network"] is not None:
        raise InputError("--teachers brings networks of its own; leave --teacher-network out")
    asked = {key: options[key] for key in ("train_images", "crop", "flip") if options[key] is not None}
    changes = {key: options[key] for key in ("epochs", "batch_size", "lr") if options[key] is not None}
    for role in ("teacher", "student"):
        schedule = dataclasses.replace(getattr(config, role), **changes)
        asked[role] = dataclasses.replace(schedule, choose_last=min(schedule.choose_last, schedule.epochs))
    config = dataclasses.replace(config, **asked)
    config.validate()
    wanted = options["device"] or (config.device if options["config"] else None)
    return dataclasses.replace(config, device=check_device(wanted))


def suited(config: TrainConfig) -> TrainConfig:
    """`config` with augmentation that its data set bears, where it was made for another; of one's own images, all.

    Whether a shifted or mirrored image of one's own keeps its class is not known, so neither is done unasked.
    """
    import dataclasses

    crop, flip = DATASETS.get(config.dataset, (0, False))
    limit = config.train_images if config.dataset in DATASETS else None
    return dataclasses.replace(config, crop=crop if config.crop else 0, flip=config.flip and flip, train_images=limit)


def train_cifar(**options: Any) -> None:
    """Configure, check the data, open the run, train, and print."""
    config = configure(options)

    import dataclasses

    from divkd.cli.tables import print_tables
    from divkd.empirical.data.datasets import load
    from divkd.empirical.training.distillation import reused
    from divkd.empirical.training.experiment import run_training
    from divkd.report.ensembles import draw
    from divkd.shared.progress import Progress
    from divkd.shared.run import open_run

    data = load(config.dataset, config.data_dir, options["download"], config.train_images, config.image_size)
    facts = data.facts()
    if config.teachers is not None:
        reused(config, facts["sha256"])
    # One's own images may have moved; open_run knows them by their bytes.
    moved = () if config.dataset in DATASETS else ("dataset",)
    folder: Path = run_folder(options["out"], "train-cifar", config.preset, options["resume"])
    run = open_run(
        folder,
        "train cifar",
        dataclasses.asdict(config),
        resume=options["resume"],
        overwrite=options["overwrite"],
        extendable=("seeds", "members", "ladder", "methods", "students", "data_dir", "preset", *moved),
        data=facts,
    )
    with Progress() as progress:
        results = run_training(config, data, run, progress)
    run.finish(results)
    draw(results, run.figures)
    print_tables(results, folder)
