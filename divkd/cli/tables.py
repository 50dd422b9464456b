"""Tables for the terminal, from the content of results.json."""

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from divkd.shared.stats import show

CLAIMS = {
    "single": "1 single network",
    "ensemble": "2 ensemble",
    "trained_jointly": "  trained jointly, outputs summed",
    "trained_jointly_average": "  trained jointly, true average",
    "distilled": "3 distilled, clipped rule",
    "ensemble_of_distilled": "  ensemble of distilled",
    "distilled_without_others": "  without other classes' features",
    "distilled_temperature": "  distilled at temperature T",
    "distilled_mixed": "  distilled by t CE + (1 - t) H",
    "self_distilled": "4 self-distilled",
    "labels_only": "  same flow time, labels only",
}


def print_simulation(results: dict[str, Any], folder: Path) -> None:
    """The claims table of a simulation: measured errors, the theorem's bound, the prediction, and what holds."""
    console = Console(width=None if Console().is_terminal else 140)
    seeds = len(results["seeds"])
    table = Table(title=f"Multi-view theory: error rates (mean ± sd over {seeds} seeds)")
    table.add_column("claim")
    for column in ("train", "multi-view test", "single-view test", "theorem", "predicted here", "holds"):
        table.add_column(column, justify="right")
    claims = results["claims"]
    for name, title in CLAIMS.items():
        if name not in claims:
            continue
        claim = claims[name]
        errors = [show(claim[f"{kind}_error"]) for kind in ("train", "multi_view", "single_view")]
        bound = "" if claim["bound"] is None else " to ".join(f"{edge:g}" for edge in claim["bound"])
        shown = f"{title} of {claim['members']}" if name == "ensemble" else title
        table.add_row(shown, *errors, bound, f"{claim['predicted']:.3f}", "yes" if claim["holds"] else "no")
    console.print(table)
    by_members = claims["ensemble"]["by_members"]
    steps = "  ".join(f"{row['members']}: {row['single_view_error']:.3f}" for row in by_members)
    console.print(f"single-view error by members  {steps}", highlight=False)
    views = results["views"]["spread"]
    shares = {
        "one_view_fraction": "share of classes with one view learned",
        "lottery_accuracy": "share of winners that the lottery names",
        "distilled_views": "share of views that students of the ensemble know",
        "learned_inside_union": "that the self-distilled know of the union of both networks' views",
        "learned_outside_union": "of the views outside it",
    }
    for name, words in shares.items():
        if name in views and math.isfinite(views[name]["mean"]):
            console.print(f"{words} {show(views[name])}", highlight=False)
    console.print(f"{seeds} seeds, {results['seconds']:.1f} s; written to {folder}", highlight=False)


def print_training(results: dict[str, Any], folder: Path) -> None:
    """Deep ensembles, students and their control: quality, calibrated quality, diversity, cost."""
    console = Console(width=None if Console().is_terminal else 140)
    split = results["split"]
    title = f"{results['dataset']}, {results['network']}, {split['train']} training and {split['test']} test images"
    table = Table(title=f"{title} (mean ± sd over {len(results['seeds'])} seeds)")
    for column in ("model", "method", "M"):
        table.add_column(column)
    for column in ("acc", "NLL", "cal. NLL", "cal. ECE", "pairwise KL", "train acc", "parameters", "seconds"):
        table.add_column(column, justify="right")
    for row in results["summary"]:
        quality = [show(row[key]) for key in ("acc", "nll", "cal_nll", "cal_ece", "pairwise_kl", "train_acc")]
        cost = [f"{row['params']['mean']:,.0f}", f"{row['seconds']['mean']:.1f}"]
        table.add_row(row["model"], row["method"], str(row["members"]), *quality, *cost)
    console.print(table)
    for found in results["teacher_diversity"]:
        ratios = ", ".join(f"{kind} {found[kind] / found['clean']:.3g}x" for kind in ("gaussian", "ods", "confods"))
        console.print(
            f"seed {found['seed']}: teachers' pairwise KL on {found['images']:.0f} training images "
            f"{found['clean']:.2g} nats; with steps: {ratios}",
            highlight=False,
        )
    console.print(f"{results['seconds']:.1f} s; written to {folder}", highlight=False)
