"""``divkd analyse``: everything that the papers ask of a finished training run."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from divkd.cli.options import PATH, by_jobs, check_device, on_device, placed
from divkd.empirical.data.names import DATASETS
from divkd.shared.errors import InputError


@click.command(short_help="Analyse a run: diversity, transfer, gradients, other images, cost.")
@click.argument("run", type=PATH, metavar="RUN")
@click.option(
    "--images", type=int, default=1000, show_default=True, metavar="N",
    help="Use the first N images of each set, and of each kind and severity of corruption.",
)  # fmt: skip
@click.option(
    "--ood", multiple=True, metavar="FOLDER|FILE.npz|" + "|".join(DATASETS),
    help="Images of other classes: how well are they told from the run's own? Repeatable.",
)  # fmt: skip
@click.option(
    "--shift", multiple=True, metavar="FOLDER|FILE.npz",
    help="Images of the run's classes from elsewhere, with labels, e.g. CINIC-10 for CIFAR-10. Repeatable.",
)  # fmt: skip
@click.option(
    "--corruptions", metavar="FOLDER",
    help="The published CIFAR-10-C or CIFAR-100-C arrays. [default: our own generator, 12 kinds]",
)  # fmt: skip
@click.option(
    "--data-dir", metavar="FOLDER", help="Where the named sets of --ood lie. [default: where the run's data lies]"
)
@on_device
@by_jobs
@placed("Go on with the analysis in --out.")
def analyse(**options: Any) -> None:
    """Analyse a finished run of `divkd train`: diversity, transfer, gradients, shift, corruptions, cost.

    Diversity by confidence on clean, Gaussian, ODS and ConfODS images (Nam et al. 2021, figure 3); ODS steps of own,
    sibling and external teachers (figure 6); whether students have their teachers' gradients; each member alone and the
    first 1, 2, ... together; images out of distribution, the same classes from elsewhere, corruptions; time, memory and
    arithmetic of an answer; published numbers beside the run's.

    A file holds images, x or x_test (N, H, W, C) uint8 and, for --shift, labels, y or y_test; a
    folder holds images, for --shift in CLASS/*.

    \b
    divkd analyse runs/digits --out runs/digits-analysis
    divkd analyse runs/cifar10 --ood svhn --ood photos.npz --shift cinic10.npz --out runs/cifar10-analysis
    """
    if options["images"] < 2:
        raise InputError(f"--images {options['images']} is not allowed; give at least 2, e.g. 1000")
    device = check_device(options["device"])

    from divkd.cli.runs import carry_out
    from divkd.empirical.analysis.analysis import AnalysisConfig, finished, read_sets, run_analysis
    from divkd.empirical.use.restore import load_run
    from divkd.report.page import complete
    from divkd.report.published import beside
    from divkd.shared.manifest import read_results

    source: Path = options["run"]
    trained, data = load_run(source)
    results = read_results(source) if (source / "results.json").is_file() else None
    with complete(f"{source}/results.json"):
        whole = results is not None and finished(trained, results)
        published = beside(results) if results is not None and whole else None
    if not whole:
        raise InputError(
            f"{source} is not finished; divkd train cifar --config {source}/config.json --out {source} --resume goes on"
        )
    config = AnalysisConfig(
        str(source),
        options["images"],
        options["ood"],
        options["shift"],
        options["corruptions"],
        device,
        trained,
        options["data_dir"],
    )
    sets = read_sets(config, data)
    for one in (*sets.ood, *sets.shift):
        if one.passed:
            click.echo(one.passed, err=True)
    held = {Path(folder).resolve() for folder in (source, trained.teachers or source)}
    if options["out"] is not None and options["out"].resolve() in held:
        raise InputError(f"--out {options['out']} holds the networks that are analysed; give another folder")
    carry_out(
        "analyse",
        dataclasses.asdict(config),
        lambda run, workers: {**run_analysis(config, data, sets, run, workers), "published": published},
        options,
        name=source.name,
        extendable=("run", "data_dir"),
        data={"name": data.name, "sha256": sets.sha256(data), "sets": sets.facts()},
    )
