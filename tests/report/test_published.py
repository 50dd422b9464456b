"""The packaged tables of the papers: their own numbers, and their rows beside a run's."""

import json
import math
from pathlib import Path

import pytest

from divkd.report.commands import REPORTS
from divkd.report.published import (
    COLUMNS,
    allenzhu,
    beside,
    published,
    published_tables,
    simulated_tables,
    split_channels,
    split_table,
    views_tables,
)
from divkd.shared.stats import show

KEY = ("dataset", "network", "model", "method", "members")
RESULTS = Path(__file__).parents[2] / "docs" / "results"


def row(*key, table="main"):
    (found,) = [row for row in published() if tuple(row[name] for name in KEY) == key and row["table"] == table]
    return found


def test_the_main_table_has_every_row_of_the_paper_once():
    rows = [row for row in published() if row["table"] == "main"]
    keys = [tuple(row[name] for name in KEY) for row in rows]
    assert len(set(keys)) == len(rows) == 18
    assert all(row["network"] == row["student_network"] == row["teacher_network"] for row in rows)
    tables = {("cifar10", "resnet32", 4), ("cifar10", "resnet32", 8), ("cifar100", "wrn28x10", 4)}
    methods = [
        ("deep_ensemble", "none"),
        *(("batch_ensemble", m) for m in ("none", "kd", "gaussian", "ods", "confods")),
    ]
    assert set(keys) == {(*table[:2], *method, table[2]) for table in tables for method in methods}


def test_all_rows_of_the_three_files_are_there():
    assert (len(published()), len(allenzhu()), len(split_channels())) == (29, 49, 30)


def test_across_architectures_the_teachers_are_wider():
    rows = [row for row in published() if row["table"] == "cross_architecture"]
    assert len(rows) == 11
    assert {(row["student_network"], row["teacher_network"]) for row in rows} == {("wrn28x5", "wrn28x10")}
    for one in rows:
        deep = one["model"] == "deep_ensemble"
        assert one["network"] == ("wrn28x10" if deep else "wrn28x5")
        assert (one["params_million"] > 100) == deep
    confods = row("cifar100", "wrn28x5", "batch_ensemble", "confods", 4, table="cross_architecture")
    assert (confods["acc"]["mean"], confods["cal_nll"]["mean"]) == pytest.approx((0.8062, 0.733))
    assert row("tinyimagenet", "wrn28x5", "batch_ensemble", "none", 4, table="cross_architecture")["method"] == "none"


@pytest.mark.parametrize(
    ("key", "values"),
    [
        (("cifar10", "resnet32", "deep_ensemble", "none", 4), (0.9442, 0.167, 0.082, 0.008, None)),
        (("cifar10", "resnet32", "batch_ensemble", "none", 4), (0.9337, 0.204, 0.099, 0.008, 1.419)),
        (("cifar10", "resnet32", "batch_ensemble", "kd", 4), (0.9398, 0.188, 0.091, 0.009, 2.019)),
        (("cifar10", "resnet32", "batch_ensemble", "confods", 4), (0.9401, 0.180, 0.089, 0.007, 2.524)),
        (("cifar10", "resnet32", "batch_ensemble", "ods", 8), (0.9413, 0.175, 0.086, 0.006, 2.991)),
        (("cifar100", "wrn28x10", "batch_ensemble", "gaussian", 4), (0.8039, 0.761, 0.277, 0.022, 1.379)),
        (("cifar100", "wrn28x10", "batch_ensemble", "confods", 4), (0.8185, 0.672, 0.256, 0.024, 3.333)),
    ],
)
def test_values_are_the_papers(key, values):
    assert [row(*key)[column]["mean"] for column in COLUMNS] == pytest.approx(list(values), abs=1e-12)


def test_spreads_are_the_papers_and_accuracies_are_fractions():
    found = row("cifar10", "resnet32", "batch_ensemble", "confods", 4)
    stds = [found[column]["std"] for column in COLUMNS]
    assert stds == pytest.approx([0.0019, 0.001, 0.001, 0.001, 0.080], abs=1e-12)
    teachers = row("cifar10", "resnet32", "deep_ensemble", "none", 4)
    assert [teachers[column]["std"] for column in COLUMNS] == [None] * 5
    for one in published():
        assert 0.6 < one["acc"]["mean"] < 1
        assert 0 < one["cal_ece"]["mean"] < one["cal_brier"]["mean"] < one["cal_nll"]["mean"]
        none = one["model"] == "deep_ensemble" or one["table"] == "cross_architecture"
        assert one["dee"]["mean"] is None if none else 1 <= one["dee"]["mean"] <= one["members"]


def summary_row(model, method, members, at):
    """A run's summary with the uncalibrated values far from the calibrated ones."""
    names = ("acc", "nll", "brier", "ece", "cal_nll", "cal_brier", "cal_ece", "dee")
    values = {name: {"mean": at + i / 10, "std": 0.01, "n": 2} for i, name in enumerate(names)}
    if model == "deep_ensemble":
        del values["dee"]
    return {"model": model, "method": method, "members": members, **values}


def training(dataset="cifar10", **more):
    rows = [
        summary_row("deep_ensemble", "none", 1, 1.0),
        summary_row("deep_ensemble", "none", 4, 2.0),
        summary_row("batch_ensemble", "confods", 4, 3.0),
        summary_row("single", "confods", 1, 4.0),
        summary_row("merged", "confods", 1, 5.0),
    ]
    return {"dataset": dataset, "network": "resnet8", "split": {"train": 1000}, "summary": rows, **more}


def test_a_run_stands_beside_the_row_of_its_model_method_and_members_calibrated_with_calibrated():
    results = training()
    found = beside(results)
    added = ("same_networks", "measured")
    assert [{name: one[name] for name in one if name not in added} for one in found] == [
        row for row in published() if row["dataset"] == "cifar10"
    ]
    by = {(one["model"], one["method"], one["members"]): one["measured"] for one in found}
    teachers, confods = by["deep_ensemble", "none", 4], by["batch_ensemble", "confods", 4]
    for measured, mine in ((teachers, results["summary"][1]), (confods, results["summary"][2])):
        assert (measured["network"], measured["train_images"]) == ("resnet8", 1000)
        for column in COLUMNS:
            assert measured[column] == mine.get(column)
    assert teachers["dee"] is None
    assert math.isclose(confods["cal_nll"]["mean"], 3.4)
    missing = [key for key, measured in by.items() if measured is None]
    assert len(missing) == 12 - 2


def test_other_data_sets_have_no_published_rows():
    assert beside(training("digits")) == []
    assert {one["dataset"] for one in beside(training("cifar100"))} == {"cifar100"}
    assert all(one["measured"] is not None for one in beside(training("cifar100")) if one["method"] == "confods")


def test_data_set_student_and_teacher_network_decide_which_rows_are_of_the_same_networks():
    def same(**more):
        return {row["table"] for row in beside(training("cifar100", **more)) if row["same_networks"]}

    assert same() == set()  # resnet8
    assert same(network="wrn28x10") == {"main"}
    assert same(network="wrn28x5", teacher_network="wrn28x10") == {"cross_architecture"}
    assert same(network="wrn28x5") == set()
    results = training("cifar100", network="wrn28x5", teacher_network="wrn28x10")
    (table,) = published_tables(beside(results))
    cells = [line[:6] for line in table.lines if line[3] != "published"]
    assert ["deep ensemble", "labels", "4", "published, same networks", "wrn28x10", "wrn28x10"] in cells
    assert ["deep ensemble", "labels", "4", "measured here", "wrn28x10", "wrn28x10"] in cells
    assert ["BatchEnsemble", "confods", "4", "measured here", "wrn28x5", "wrn28x10"] in cells


def test_the_same_quantities_of_the_other_paper_stand_beside_a_run():
    (table,) = views_tables({"single_of_10": {"mean": 0.5, "std": None}}, "here", ("cifar100",))
    assert table.lines[0] == ["here", "", "measured here", "0.5000", *[""] * 5]
    figure = ["0.8151 ± 0.0016", "0.8183", "0.8469", "0.8381", "0.8356", ""]
    assert ["cifar100", "wrn-28-10", "paper figure 1", *figure] in table.lines
    assert sum(bool(cell) for line in table.lines[1:] for cell in line[3:]) == 15  # every row of that data set
    (table,) = views_tables({}, "here", ("cifar10", "cifar100"))
    assert sum(bool(cell) for line in table.lines for cell in line[3:]) == 49
    simulation = json.loads((RESULTS / "multiview-default" / "results.json").read_text())
    (table,) = simulated_tables(simulation)
    error = simulation["claims"]["single"]["test_error"]
    assert table.lines[0][3] == show({"mean": 1 - error["mean"], "std": error["std"]}, 4)
    assert len(split_table().lines) == 30
    assert views_tables({}, "here", ("digits",)) == []


def test_split_channels_stand_behind_a_runs_own_with_their_gains():
    row = {"dataset": "digits", "network": "resnet8", "cut": "a", "split": 2, "input_channels": 16}
    row |= {"single": {"mean": 0.5, "std": 0.25}, "ensemble": {"mean": 0.75, "std": None}}
    own, first, *_ = split_table([row]).lines
    assert own == ["digits", "resnet8", "a", "16", "1/2", "0.5000 ± 0.2500", "0.7500", "+0.2500", "measured here"]
    assert first == ["cifar100", "ResNet-28", "a", "16", "1/1", "0.7044 ± 0.0029", "0.7552", "+0.0508", "published"]
    assert "was not stated" in " ".join(split_table().notes)


def test_every_committed_run_is_summed_up_with_its_n():
    for path in sorted(RESULTS.glob("*/results.json")):
        results = json.loads(path.read_text())
        text = " ".join(REPORTS[results["command"]].summary(results))
        assert text.endswith(".")
        assert "seed" in text
        assert "nan" not in text
