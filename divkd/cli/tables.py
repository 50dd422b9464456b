"""Tables for the terminal, from the content of results.json."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from divkd.shared.stats import show


def print_simulation(results: dict[str, Any], folder: Path) -> None:
    """The claims of a simulation: measured error rates beside the finite-size prediction."""
    console = Console(width=None if Console().is_terminal else 120)
    table = Table(title="Multi-view theory: error rates (mean ± sd over seeds)")
    for column in ("members", "train", "multi-view test", "single-view test", "predicted"):
        table.add_column(column, justify="right")
    claims = results["claims"]
    by_members = claims["ensemble"]["by_members"]
    for name, size in (("single", 1), ("ensemble", by_members[-1]["members"])):
        errors = [show(claims[name][f"{kind}_error"]) for kind in ("train", "multi_view", "single_view")]
        predicted = next(row["predicted"] for row in by_members if row["members"] == size)
        table.add_row(f"{name} ({size})", *errors, f"{predicted:.3f}")
    console.print(table)
    steps = "  ".join(f"{row['members']}: {row['single_view_error']:.3f}" for row in by_members)
    console.print(f"single-view error by members  {steps}", highlight=False, soft_wrap=True)
    views = results["views"]["spread"]
    console.print(
        f"share of classes with one view learned {show(views['one_view_fraction'])}; "
        f"share of winners that the lottery names {show(views['lottery_accuracy'])}",
        highlight=False,
    )
    console.print(f"{len(results['seeds'])} seeds, {results['seconds']:.1f} s; written to {folder}", highlight=False)


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
        clean = found["clean"] or float("nan")  # equal teachers never disagree
        ratios = ", ".join(f"{kind} {found[kind] / clean:.3g}x" for kind in ("gaussian", "ods", "confods"))
        console.print(
            f"seed {found['seed']}: teachers' pairwise KL on {found['images']:.0f} training images "
            f"{found['clean']:.2g} nats; with steps: {ratios}",
            highlight=False,
        )
    console.print(f"{results['seconds']:.1f} s; written to {folder}", highlight=False)
