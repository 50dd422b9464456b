"""Several runs of one command in one table: the same rows, a column a run."""

from collections.abc import Callable
from typing import Any

from divkd.report.facts import flat
from divkd.report.tables import METRICS, NETWORK, Results, Table, network, unique
from divkd.report.words import CLAIMS, EVALUATED, equivalent, number
from divkd.shared.stats import show

COMPARED = ("acc", "cal_nll", "cal_ece", "pairwise_kl")


def compare(labels: list[str], runs: list[Results], configs: list[Results]) -> list[Table]:
    """Tables of runs of the same command, named by `labels`: where their configurations differ, then their numbers."""
    tables = _differing(labels, configs)
    command = runs[0]["command"]
    return tables + (COMPARISONS[command](labels, runs) if command in COMPARISONS else [])


def _differing(labels: list[str], configs: list[Results]) -> list[Table]:
    found = [dict(flat(config.get("config", {}))) for config in configs]
    names = [name for name in unique(name for one in found for name in one if name)
             if len({one.get(name) for one in found}) > 1]  # fmt: skip
    lines = [[name, *(one.get(name, "not recorded") for one in found)] for name in names]
    return [Table("Where the configurations differ", ["field", *labels], lines)] if lines else []


def _multiview(labels: list[str], runs: list[Results]) -> list[Table]:
    lines = []
    for name, words in CLAIMS.items():
        claims = [run["claims"].get(name) for run in runs]
        if any(claims):
            lines.append([words, *("" if claim is None else _claim(claim) for claim in claims)])
    heads = ["claim", *(f"{label} (n = {len(run['seeds'])})" for label, run in zip(labels, runs, strict=True))]
    caption = "Error on single-view test samples, mean ± sd over seeds; in brackets what was predicted"
    return [Table(caption, heads, lines)]


def _claim(claim: Results) -> str:
    return f"{show(claim['single_view_error'])} ({claim['predicted']:.3f}) {'' if claim['holds'] else 'does not hold'}"


def _training(labels: list[str], runs: list[Results]) -> list[Table]:
    facts: list[tuple[str, Callable[[Results], Any]]] = [
        ("data set", lambda run: run["dataset"]),
        ("network", lambda run: run["network"]),
        ("training images", lambda run: f"{run['split']['train']:,}"),
        ("test images", lambda run: f"{run['split']['test']:,}"),
        ("seeds", lambda run: len(run["seeds"])),
    ]
    lines = [[name, *(str(of(run)) for run in runs)] for name, of in facts]
    tables = [Table("What was trained on what", ["", *labels], lines)]
    found = [{tuple(network(row)): row for row in run["summary"]} for run in runs]
    keys = unique(key for one in found for key in one)
    metrics: list[tuple[str, Callable[[Results], str]]] = [
        (name, _metric(key, digits)) for key, name, digits in METRICS if key in COMPARED
    ]
    metrics.append(("deep ensemble equivalent", lambda row: equivalent(row.get("dee"))))
    heads = [*NETWORK, *(f"{label} (n = {len(run['seeds'])})" for label, run in zip(labels, runs, strict=True))]
    for name, of in metrics:
        rows = [[*key, *(of(one[key]) if key in one else "" for one in found)] for key in keys]
        rows = [row for row in rows if any(row[3:])]
        if rows:
            tables.append(Table(f"{name[0].upper()}{name[1:]}, mean ± sd over seeds", heads, rows, 3))
    return tables


def _metric(key: str, digits: int) -> Callable[[Results], str]:
    return lambda row: show(row[key], digits)


def _evaluations(labels: list[str], runs: list[Results]) -> list[Table]:
    sizes = [["test samples", *(f"{run['samples']:,}" for run in runs)], ["M", *(str(run["members"]) for run in runs)]]
    lines = [
        [name, *(number(run[key]) if key in run else "" for run in runs)]
        for key, name in EVALUATED
        if any(key in run for run in runs)
    ]
    heads = ["measure", *(f"{label}: {run['file']}" for label, run in zip(labels, runs, strict=True))]
    return [Table("Predictions side by side", heads, sizes + lines)]


COMPARISONS: dict[str, Callable[[list[str], list[Results]], list[Table]]] = {
    "simulate multiview": _multiview,
    "train cifar": _training,
    "evaluate": _evaluations,
}
