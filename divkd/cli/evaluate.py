"""``divkd evaluate``: anyone's predictions, from .npz files."""

from pathlib import Path
from typing import Any

import click

from divkd.cli.options import PATH, placed
from divkd.shared.errors import InputError


@click.command(short_help="Evaluate the predictions of any model, from any framework.")
@click.argument("files", type=PATH, nargs=-1, required=True, metavar="FILE.npz...")
@click.option(
    "--ensemble",
    type=PATH,
    metavar="FILE.npz",
    help="A deep ensemble on the same samples, whose members measure the deep ensemble equivalent. [default: FILE]",
)
@click.option(
    "--bootstrap",
    type=int,
    metavar="N",
    help="Draw the samples again N times for 95 % intervals; 0: none. [default: 0; of several files 1000]",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of subsets and draws.")
@placed("Make the evaluation in --out again.")
def evaluate(**options: Any) -> None:
    """Evaluate the predictions of any model or ensemble, from any framework.

    FILE.npz holds logits, log_probs or probs, (members, samples, classes) or (samples, classes), and labels, whole
    numbers from 0. Optional: val_logits, val_log_probs or val_probs with val_labels, which the temperature is fitted
    on, and ood_logits, ood_log_probs or ood_probs, of samples that are out of distribution. Without val_* there are no
    calibrated values. Several files, of the same samples, are set side by side, each against the first, with intervals
    of the differences. All is computed on the CPU.

    \b
    divkd evaluate predictions.npz --out runs/mine
    divkd evaluate base.npz better.npz --out runs/both
    """
    paths: tuple[Path, ...] = options["files"]
    ensemble: Path | None = options["ensemble"]
    resamples, seed = options["bootstrap"], options["seed"]
    if resamples is None:
        resamples = 1000 if len(paths) > 1 else 0
    if resamples < 0 or resamples == 1:
        raise InputError(f"--bootstrap {resamples} is not allowed; give 0 for none or at least 2, e.g. 1000")
    names = [path.name for path in paths]
    names = [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]
    whole = [path.resolve() for path in paths]
    if twice := [path for place, path in enumerate(paths) if whole[place] in whole[:place]]:
        raise InputError(f"{twice[0]} is given twice; name each file once")

    from divkd.cli.runs import carry_out
    from divkd.shared.jobs import Workers
    from divkd.shared.metrics.compare import check_files, run_evaluation
    from divkd.shared.metrics.predictions import load
    from divkd.shared.run import Run

    models = {name: load(path) for name, path in zip(names, paths, strict=True)}
    reference = load(ensemble) if ensemble else None
    check_files(models, reference)
    for name, one in [*models.items(), (str(ensemble), reference)]:
        if one and one.ignored:
            click.echo(f"{name}: not read: {', '.join(one.ignored)}", err=True)

    def compute(run: Run, _: Workers) -> dict[str, Any]:
        named = ensemble.name if ensemble else None
        results, samples = run_evaluation(models, reference, named, resamples=resamples, seed=seed)
        run.write("samples.csv", samples)
        return results

    given = {"file": paths[0]} if len(paths) == 1 else {"files": paths}
    config = {**given, "ensemble": ensemble, "bootstrap": resamples, "seed": seed}
    carry_out("evaluate", config, compute, options, name=paths[0].stem)
