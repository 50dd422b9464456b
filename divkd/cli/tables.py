"""Tables for the terminal, from the content of results.json."""

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from divkd.empirical.config import FITTED
from divkd.shared.report.cells import columns, failures
from divkd.shared.report.ensembles import spread
from divkd.shared.report.words import (
    CLAIMS,
    DIVERSE,
    EVALUATED,
    SHARES,
    bound_of,
    claim_of,
    difference,
    equivalent,
    number,
    remarks,
    span,
)
from divkd.shared.stats import show


def console_of(width: int) -> Console:
    """The terminal, or `width` columns of text; no markup, as "[inf, inf]" or a file's name could be read as a tag."""
    return Console(width=None if Console().is_terminal else width, markup=False)


def print_simulation(results: dict[str, Any], folder: Path) -> None:
    """The claims table of a simulation: measured errors, the theorem's bound, the prediction, and what holds."""
    console = console_of(170)
    table = Table(title=f"Multi-view theory: error rates ({spread(results)})")
    table.add_column("claim")
    for column in ("train", "multi-view test", "single-view test", "test", "theorem", "predicted here", "holds"):
        table.add_column(column, justify="right")
    claims = results["claims"]
    for name in CLAIMS:
        if name not in claims:
            continue
        claim = claims[name]
        errors = [show(claim[f"{kind}_error"]) for kind in ("train", "multi_view", "single_view", "test")]
        holds = "yes" if claim["holds"] else "no"
        table.add_row(claim_of(name, claim), *errors, bound_of(claim), f"{claim['predicted']:.3f}", holds)
    console.print(table)
    by_members = claims["ensemble"]["by_members"]
    steps = "  ".join(f"{row['members']}: {row['single_view_error']:.3f}" for row in by_members)
    console.print(f"single-view error by members  {steps}", highlight=False, soft_wrap=True)
    views = results["views"]["spread"]
    for name, words in SHARES.items():
        if name in views and math.isfinite(views[name]["mean"]):
            console.print(f"{words} {show(views[name])}", highlight=False)
    console.print(f"{results['seconds']:.1f} s; written to {folder}", highlight=False)


def print_cells(results: dict[str, Any], folder: Path) -> None:
    """Every cell of a map or of the ablations: errors on single-view samples and what was learned."""
    console = console_of(170)
    heads, lines = columns(results)
    table = Table(title=f"Errors on single-view test samples, shares of views ({spread(results)})")
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    for why in failures(results):
        console.print(why, highlight=False, soft_wrap=True)
    console.print(f"{results['seconds']:.1f} s; written to {folder}", highlight=False)


def print_training(results: dict[str, Any], folder: Path) -> None:
    """Deep ensembles, students and their control: quality, calibrated quality, diversity, cost."""
    console = console_of(170)
    split = results["split"]
    title = f"{results['dataset']}, {results['network']}, {split['train']} training and {split['test']} test images"
    table = Table(title=f"{title} ({spread(results)})")
    for column in ("model", "method", "M"):
        table.add_column(column)
    for column in ("acc", "NLL", "cal. NLL", "cal. ECE", "DEE", "pairwise KL", "train acc", "parameters", "seconds"):
        table.add_column(column, justify="right")
    for row in results["summary"]:
        quality = [show(row[key]) for key in ("acc", "nll", "cal_nll", "cal_ece")]
        quality += [equivalent(row.get("dee")), *(show(row[key]) for key in ("pairwise_kl", "train_acc"))]
        cost = [f"{row['params']['mean']:,.0f}", f"{row['seconds']['mean']:.1f}"]
        table.add_row(row["model"], row["method"], str(row["members"]), *quality, *cost)
    console.print(table)
    print_differences(results, console)
    for found in results["teacher_diversity"]:
        clean = found["clean"] or float("nan")  # equal teachers never disagree
        ratios = ", ".join(f"{kind} {found[kind] / clean:.3g}x" for kind in ("gaussian", "ods", "confods"))
        console.print(
            f"seed {found['seed']}: teachers' pairwise KL on {found['images']:.0f} training images "
            f"{found['clean']:.2g} nats; with steps: {ratios}; {_premise(found)}",
            highlight=False,
        )
    console.print(f"{results['seconds']:.1f} s; written to {folder}", highlight=False)


def _premise(found: dict[str, Any]) -> str:
    """What the ratios are worth: nothing where the teachers do not fit their images."""
    if not found["void"]:
        return f"they fit {found['train_acc']:.1%} of the images"
    return f"VOID as a test of the paper's premise, they fit {found['train_acc']:.1%} of the images, not {FITTED:.0%}"


def print_differences(results: dict[str, Any], console: Console) -> None:
    """Paired differences between methods, and between students and their control."""
    if not results["differences"]:
        return
    table = Table(title=f"Paired differences, with 95 % intervals over seeds ({spread(results)})")
    for column in ("model", "method", "minus"):
        table.add_column(column)
    for column in ("acc", "cal. NLL", "cal. ECE", "pairwise KL"):
        table.add_column(column, justify="right")
    for row in results["differences"]:
        values = [difference(row[metric]) for metric in ("acc", "cal_nll", "cal_ece", "pairwise_kl")]
        table.add_row(row["model"], row["method"], f"{row['against_model']} {row['against_method']}", *values)
    console.print(table)


def print_evaluation(results: dict[str, Any], folder: Path) -> None:
    """One model's or ensemble's quality, calibrated quality, diversity, and what it makes of foreign samples."""
    console = console_of(120)
    intervals = results.get("intervals", {})
    kind = "one model" if results["members"] == 1 else f"{results['members']} members"
    size = f"{results['samples']:,} test samples, {results['classes']} classes"
    table = Table(title=f"{results['file']}: {kind}, {size}")
    table.add_column("measure")
    table.add_column("value", justify="right")
    if intervals:
        table.add_column(f"{intervals['level']:.0%} interval", justify="right")
    for key, name in EVALUATED:
        if key in results and (results["members"] > 1 or key not in DIVERSE):
            interval = [span(intervals.get(key))] if intervals else []
            table.add_row(name, number(results[key]), *interval)
    console.print(table)
    if "ood" in results:
        foreign = Table(title=f"{results['ood_samples']:,} samples of another distribution (the positive class)")
        foreign.add_column("score")
        for column in ("AUROC", "AUPR", "FPR at 95 % TPR"):
            foreign.add_column(column, justify="right")
        for score, row in results["ood"].items():
            spans = intervals.get("ood", {}).get(score, {})
            cells = [f"{number(row[key])} {span(spans.get(key))}".rstrip() for key in ("auroc", "aupr", "fpr95")]
            foreign.add_row(score.replace("_", " "), *cells)
        console.print(foreign)
    for line in remarks(results):
        console.print(line, highlight=False)
    console.print(f"{results['seconds']:.1f} s; written to {folder}", highlight=False)
