"""``divkd evaluate``: anyone's predictions, from one file."""

import os
import time
from pathlib import Path
from typing import Any

import click

from divkd.cli.options import run_folder
from divkd.shared.errors import InputError, RunError


@click.command(short_help="Judge the predictions of any model, from any framework.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.npz")
@click.option(
    "--ensemble", type=click.Path(path_type=Path), metavar="FILE.npz",
    help="A deep ensemble on the same samples, whose members measure the deep ensemble equivalent. [default: FILE]",
)  # fmt: skip
@click.option(
    "--bootstrap", type=int, default=0, show_default=True, metavar="N",
    help="Draw the samples again N times for 95 % intervals; 0: none, 1000 is usual.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of subsets and draws.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="[default: runs/evaluate-...]")
@click.option("--overwrite", is_flag=True, help="Replace the evaluation in --out.")
def evaluate(**options: Any) -> None:
    """Judge the predictions of any model or ensemble, from any framework.

    FILE.npz holds logits or log_probs, (members, samples, classes) or (samples, classes), and labels, whole numbers
    from 0. Optional: val_logits or val_log_probs with val_labels, which the temperature is fitted on, and ood_logits or
    ood_log_probs, of samples that the model should find foreign. Without val_* there are no calibrated values.

    \b
    divkd evaluate predictions.npz --out runs/mine
    """
    if options["bootstrap"] < 0 or options["bootstrap"] == 1:
        raise InputError(f"--bootstrap {options['bootstrap']} is not allowed; give 0 for none or at least 2, e.g. 1000")
    path: Path = options["file"]
    folder = run_folder(options["out"], "evaluate", path.stem, resume=False)
    check_folder(folder, options["overwrite"])

    from divkd.cli.tables import print_tables
    from divkd.report.evaluation import draw
    from divkd.shared.files import write_json
    from divkd.shared.metrics.evaluation import evaluate_predictions
    from divkd.shared.metrics.predictions import load
    from divkd.shared.run import environment

    began = time.perf_counter()
    try:
        predictions = load(path)
        reference = load(options["ensemble"]) if options["ensemble"] else None
        found = evaluate_predictions(
            predictions, reference=reference, resamples=options["bootstrap"], seed=options["seed"]
        )
    except MemoryError as error:
        raise RunError("out of memory; evaluate fewer samples or members at a time") from error
    results = {"command": "evaluate", "file": path.name, **found}
    if reference is not None:
        results["dee"]["ensemble"] = Path(options["ensemble"]).name
    results |= {"seconds": time.perf_counter() - began, **environment({"seeds": [options["seed"]]})}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if options["overwrite"]:
            clear(folder)
        write_json(folder / "results.json", results)
        draw(results, folder / "figures")
    except OSError as error:
        raise RunError(f"cannot write to {folder} ({error.strerror or error}); make room and run again") from error
    print_tables(results, folder)


def check_folder(folder: Path, overwrite: bool) -> None:
    """Raise `InputError` unless an evaluation may be written into `folder`; nothing is touched."""
    if folder.exists():
        if not folder.is_dir():
            raise InputError(f"--out {folder} is a file; give a folder")
        entries = {entry.name for entry in folder.iterdir()}
        if entries - {"results.json", "figures"}:
            raise InputError(f"--out {folder} holds other files; give an empty or a new folder")
        if entries and not overwrite:
            raise InputError(f"--out {folder} holds an evaluation; --overwrite replaces it, or give another folder")
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"--out {folder} cannot be written; give a folder that you can write to")


def clear(folder: Path) -> None:
    """Delete what an earlier evaluation wrote into `folder`, and nothing else."""
    from divkd.report.evaluation import FIGURES

    (folder / "results.json").unlink(missing_ok=True)
    for name in FIGURES:
        for kind in ("png", "svg"):
            (folder / "figures" / f"{name}.{kind}").unlink(missing_ok=True)
