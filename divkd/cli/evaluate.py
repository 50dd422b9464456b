"""``divkd evaluate``: anyone's predictions, from one file."""

from pathlib import Path
from typing import Any

import click

from divkd.cli.options import PATH, placed
from divkd.shared.errors import InputError

COUNT: dict[str, Any] = {"type": int, "default": 0, "show_default": True, "metavar": "N"}


@click.command(short_help="Evaluate the predictions of any model, from any framework.")
@click.argument("file", type=PATH, metavar="FILE.npz")
@click.option(
    "--ensemble",
    type=PATH,
    metavar="FILE.npz",
    help="A deep ensemble on the same samples, whose members measure the deep ensemble equivalent. [default: FILE]",
)
@click.option("--bootstrap", **COUNT, help="Draw the samples again N times for 95 % intervals; 0: none, 1000 is usual.")
@click.option("--seed", **COUNT, help="Seed of subsets and draws.")
@placed("Make the evaluation in --out again.")
def evaluate(**options: Any) -> None:
    """Evaluate the predictions of any model or ensemble, from any framework.

    FILE.npz holds logits or log_probs, (members, samples, classes) or (samples, classes), and labels, whole numbers
    from 0. Optional: val_logits or val_log_probs with val_labels, which the temperature is fitted on, and ood_logits or
    ood_log_probs, of samples that are out of distribution. Without val_* there are no calibrated values.

    \b
    divkd evaluate predictions.npz --out runs/mine
    """
    resamples, seed = options["bootstrap"], options["seed"]
    if resamples < 0 or resamples == 1:
        raise InputError(f"--bootstrap {resamples} is not allowed; give 0 for none or at least 2, e.g. 1000")

    from divkd.cli.runs import carry_out
    from divkd.shared.metrics.evaluation import check_reference, run_evaluation
    from divkd.shared.metrics.predictions import load

    path: Path = options["file"]
    ensemble: Path | None = options["ensemble"]
    predictions, reference = load(path), load(ensemble) if ensemble else None
    if reference is not None:
        check_reference(predictions, reference)
    files = {"file": path.name, "ensemble": ensemble.name if ensemble else None}
    carry_out(
        "evaluate",
        {"file": path, "ensemble": ensemble, "bootstrap": resamples, "seed": seed},
        lambda run, progress: run_evaluation(predictions, reference, files, resamples=resamples, seed=seed),
        options,
        name=path.stem,
    )
