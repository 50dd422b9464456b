"""Published numbers beside a run's own: the tables of both papers, and a third talk's split channels."""

import csv
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from divkd.report.record import Results, Table, unique
from divkd.report.words import NETWORK, labels, network
from divkd.shared.stats import show

COLUMNS = ("acc", "cal_nll", "cal_brier", "cal_ece", "dee")
# The quantities of Allen-Zhu and Li's tables, under the name that a figure or a talk gave them.
QUANTITIES = {
    "single_of_10": "one network",
    "trained_as_average": "trained as an average",
    "ensemble_of_10": "ensemble of 10",
    "distilled_from_ensemble": "distilled from it",
    "self_distilled": "self-distilled",
    "ensemble_over_kd": "ensemble of distilled",
}
SAME = {"kd_of_10": "distilled_from_ensemble"}
CLAIMS = {  # which claim of a simulation is about the same
    "single_of_10": "single",
    "trained_as_average": "trained_jointly_average",
    "ensemble_of_10": "ensemble",
    "distilled_from_ensemble": "distilled",
    "self_distilled": "self_distilled",
    "ensemble_over_kd": "ensemble_of_distilled",
}
Summary = dict[str, Any]  # {mean, std}, None where there is none


def _read(name: str) -> list[dict[str, str]]:
    with (files("divkd.report") / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _given(line: dict[str, str], column: str, spread: str, scale: float = 1.0) -> Summary:
    mean, std = (float(line[key]) * scale if line.get(key) else None for key in (column, spread))
    return {"mean": mean, "std": std}


def published() -> list[dict[str, Any]]:
    """The tables of Nam et al. 2021 (arXiv:2110.14149), NLL, Brier and ECE after temperature scaling.

    Rows {table, dataset, network, student_network, teacher_network, model, method, members, params_million} and
    {mean, std} of each of `COLUMNS`, null where none was given; accuracies are fractions. `network` is the row's own.
    The number of seeds was not stated. That the values are the calibrated ones is a reading: the authors' code agrees
    with the table only so.
    """
    rows = []
    for line in _read("published.csv"):
        name, _, wide = line["method"].partition("ensemble_")  # deep_ensemble_wrn28x10 is one of the teachers' network
        deep = line["method"].startswith("deep_ensemble")
        teacher = wide or ("wrn28x10" if line["table"] == "cross_architecture" else line["network"])
        row: dict[str, Any] = {
            "table": line["table"],
            "dataset": line["dataset"],
            "network": teacher if deep else line["network"],
            "student_network": line["network"],
            "teacher_network": teacher,
            "model": "deep_ensemble" if deep else "batch_ensemble",
            # the paper's "batch_ensemble" is one trained on labels alone
            "method": "none" if deep or name.endswith("ensemble") else name,
            "members": int(line["members"]),
            "params_million": float(line["params_million"]),
        }
        for column in COLUMNS:
            given, scale = ("acc_percent", 0.01) if column == "acc" else (column, 1.0)
            row[column] = _given(line, given, f"{given}_std", scale)
        rows.append(row)
    return rows


def allenzhu() -> list[dict[str, Any]]:
    """Test accuracies of Allen-Zhu and Li 2020 (arXiv:2012.09816), of the paper's figure 1 and of a talk on it.

    Rows {source, table, dataset, network, quantity, acc: {mean, std}}, as fractions; `resnet-n-w` is WRN-n-w.
    """
    return [
        {**{key: line[key] for key in ("source", "table", "dataset", "network", "quantity")},
         "acc": _given(line, "acc_percent", "acc_percent_std", 0.01)}
        for line in _read("published_allenzhu.csv")
    ]  # fmt: skip


def split_channels() -> list[dict[str, Any]]:
    """CIFAR-100 accuracies of networks that see 1/`split` of the channels at a cut, and of their ensembles (same talk).

    Rows {dataset, network, cut, input_channels, split, single, ensemble: {mean, std}}, as fractions. Which parts an
    ensemble joins, and of how many networks, was not stated; ResNet-28-w is WRN-28-w.
    """
    return [
        {"dataset": "cifar100", **{key: line[key] for key in ("network", "cut")},
         **{key: int(line[key]) for key in ("input_channels", "split")},
         "single": _given(line, "single_acc", "single_std", 0.01), "ensemble": _given(line, "ensemble_acc", "", 0.01)}
        for line in _read("published_split_channels.csv")
    ]  # fmt: skip


def beside(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of Nam et al. of a training run's data set, each with what the run `measured`, calibrated to calibrated.

    `measured` is {network, student_network, teacher_network, train_images} and the run's summary of each of `COLUMNS`
    for the same model, method and number of members, null where it has no such row; `same_networks` is whether both
    student and teachers were the published ones. Other networks or fewer images make it a comparison of methods within
    each, not of numbers. Empty for a data set that the paper has not.
    """
    own = {(row["model"], row["method"], row["members"]): row for row in results["summary"]}
    student, teacher = results["network"], results.get("teacher_network") or results["network"]
    rows = [row for row in published() if row["dataset"] == results["dataset"]]
    for row in rows:
        mine = own.get((row["model"], row["method"], row["members"]))
        made_with = {
            "network": teacher if row["model"] == "deep_ensemble" else student,
            "student_network": student,
            "teacher_network": teacher,
            "train_images": results["split"]["train"],
        }
        row["same_networks"] = (row["student_network"], row["teacher_network"]) == (student, teacher)
        row["measured"] = mine and made_with | {column: mine.get(column) for column in COLUMNS}
    return rows


def published_tables(rows: list[Results]) -> list[Table]:
    """Numbers of Nam et al. beside measured ones, a line each; nothing where there are none."""
    lines = []
    for row in rows:
        own = row["measured"] or {}
        whose = "published, same networks" if row.get("same_networks") else "published"
        for name, numbers in ((whose, row), ("measured here", own)):
            if numbers:
                nets = [numbers["network"], numbers.get("teacher_network", "")]
                images = f"{own['train_images']:,}" if numbers is own else ""
                values = [numbers.get(key) for key in COLUMNS]
                cells = ["" if one is None or one["mean"] is None else show(one) for one in values]
                lines.append([*network(row), name, *nets, images, *cells])
    heads = [*NETWORK, "whose", "network", "teachers' network", "training images", *labels(*COLUMNS)]
    note = "Another network or fewer images make this a comparison of methods within each, not of numbers."
    caption = "Published (Nam et al. 2021, arXiv:2110.14149) beside measured, mean ± sd"
    return [Table(caption, heads, lines, 6, (note,))] if lines else []


def views_tables(own: dict[str, Summary], name: str, datasets: tuple[str, ...]) -> list[Table]:
    """Accuracies of Allen-Zhu and Li on `datasets`, and of the run called `name`, whose own are `own` by quantity."""
    rows = [row for row in allenzhu() if row["dataset"] in datasets]
    lines = []
    for key in unique(tuple(row[part] for part in ("dataset", "network", "source")) for row in rows):
        of_network = [row for row in rows if (row["dataset"], row["network"], row["source"]) == key]
        values = {SAME.get(row["quantity"], row["quantity"]): row["acc"] for row in of_network}
        lines.append([*key[:2], key[2].replace("_", " "), *_accuracies(values)])
    heads = ["data set", "network", "source", *QUANTITIES.values()]
    caption = "Test accuracy, published by Allen-Zhu and Li (arXiv:2012.09816), beside measured"
    note = "Other networks, data and numbers of members: the same comparisons, not the same numbers."
    return [Table(caption, heads, [[name, "", "measured here", *_accuracies(own)], *lines], 3, (note,))] if rows else []


def simulated_tables(results: Results) -> list[Table]:
    """The same beside a simulation's accuracies on all its test samples."""
    errors = {key: results["claims"][name]["test_error"] for key, name in CLAIMS.items() if name in results["claims"]}
    accuracies = {key: {**error, "mean": 1 - error["mean"]} for key, error in errors.items()}
    return views_tables(accuracies, "simulated", ("cifar10", "cifar100"))


def _accuracies(values: dict[str, Summary]) -> list[str]:
    return [show(values[key], 4) if key in values else "" for key in QUANTITIES]


def split_table(own: Sequence[Results] = ()) -> Table:
    """The rows of `split_channels`, behind `own` ones of the same form."""
    lines = [
        [row["dataset"], row["network"], row["cut"], str(row["input_channels"]), f"1/{row['split']}",
         show(row["single"], 4), show(row["ensemble"], 4), f"{row['ensemble']['mean'] - row['single']['mean']:+.4f}",
         whose]
        for whose, rows in (("measured here", own), ("published", split_channels())) for row in rows
    ]  # fmt: skip
    heads = ["data set", "network", "cut", "channels at the cut", "of which it sees", "one network", "ensemble", "gain",
             "whose"]  # fmt: skip
    beside = " beside measured ones" if own else ""
    notes = ("Which parts a published ensemble joins, and of how many networks, was not stated.",)
    return Table(f"Published accuracies of split channels on CIFAR-100{beside}, from a talk on the same paper", heads,
                 lines, 5, notes)  # fmt: skip
