"""Published numbers beside a run's own."""

import csv
from importlib.resources import files
from typing import Any

from divkd.report.record import Results, Table
from divkd.report.words import NETWORK, labels, network
from divkd.shared.stats import show

COLUMNS = ("acc", "cal_nll", "cal_brier", "cal_ece", "dee")


def published() -> list[dict[str, Any]]:
    """The main table of Nam et al. 2021 (arXiv:2110.14149), NLL, Brier and ECE after temperature scaling.

    Rows {dataset, network, model, method, members} and {mean, std} of each of `COLUMNS`, null where none was given;
    accuracies are fractions. The number of seeds was not stated. That the values are the calibrated ones is a reading:
    the authors' code agrees with the table only so.
    """
    rows = []
    with (files("divkd.report") / "published.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            row: dict[str, Any] = {
                "dataset": line["dataset"],
                "network": line["network"],
                "model": "deep_ensemble" if line["method"] == "deep_ensemble" else "batch_ensemble",
                # the paper's "batch_ensemble" is one trained on labels alone
                "method": "none" if line["method"].endswith("ensemble") else line["method"],
                "members": int(line["members"]),
            }
            for column in COLUMNS:
                given, scale = ("acc_percent", 0.01) if column == "acc" else (column, 1.0)
                mean, std = (float(line[key]) * scale if line[key] else None for key in (given, f"{given}_std"))
                row[column] = {"mean": mean, "std": std}
            rows.append(row)
    return rows


def beside(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The published rows of a training run's data set, each with what the run `measured`, calibrated to calibrated.

    `measured` is {network, train_images} and the run's summary of each of `COLUMNS` for the same model, method and
    number of members, null where it has no such row. Another network or fewer images make it a comparison of methods
    within each, not of numbers. Empty for a data set that the paper has not.
    """
    own = {(row["model"], row["method"], row["members"]): row for row in results["summary"]}
    made_with = {"network": results["network"], "train_images": results["split"]["train"]}
    rows = [row for row in published() if row["dataset"] == results["dataset"]]
    for row in rows:
        mine = own.get((row["model"], row["method"], row["members"]))
        row["measured"] = mine and made_with | {column: mine.get(column) for column in COLUMNS}
    return rows


def published_tables(rows: list[Results]) -> list[Table]:
    """Published numbers (Nam et al. 2021) beside measured ones, two lines a network; nothing where there are none."""
    lines = []
    for row in rows:
        own = row["measured"] or {}
        for whose, numbers, net in (("published", row, row["network"]), ("measured here", own, own.get("network", ""))):
            values = [numbers.get(key) for key in COLUMNS]
            images = f"{own['train_images']:,}" if numbers is own and own else ""
            cells = ["" if one is None or one["mean"] is None else show(one) for one in values]
            lines.append([*network(row), whose, net, images, *cells])
    heads = [*NETWORK, "whose", "network", "training images", *labels(*COLUMNS)]
    note = "Another network or fewer images make this a comparison of methods within each, not of numbers."
    caption = "Published (Nam et al. 2021, arXiv:2110.14149) beside measured, mean ± sd"
    return [Table(caption, heads, lines, 4, (note,), page_only=tuple(heads))] if rows else []
