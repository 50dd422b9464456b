"""The packaged table of the paper: its own numbers, and its rows beside a run's."""

import math

import pytest

from divkd.report.published import COLUMNS, beside, published

KEY = ("dataset", "network", "model", "method", "members")


def row(*key):
    (found,) = [row for row in published() if tuple(row[name] for name in KEY) == key]
    return found


def test_the_table_has_every_row_of_the_paper_once():
    rows = published()
    keys = [tuple(row[name] for name in KEY) for row in rows]
    assert len(set(keys)) == len(rows) == 18
    tables = {("cifar10", "resnet32", 4), ("cifar10", "resnet32", 8), ("cifar100", "wrn28x10", 4)}
    methods = [
        ("deep_ensemble", "none"),
        *(("batch_ensemble", m) for m in ("none", "kd", "gaussian", "ods", "confods")),
    ]
    assert set(keys) == {(*table[:2], *method, table[2]) for table in tables for method in methods}


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
        assert 0.5 < one["acc"]["mean"] < 1
        assert 0 < one["cal_ece"]["mean"] < one["cal_brier"]["mean"] < one["cal_nll"]["mean"]
        dee = one["dee"]["mean"]
        assert dee is None if one["model"] == "deep_ensemble" else 1 <= dee <= one["members"]


def summary_row(model, method, members, at):
    """A run's summary with the uncalibrated values far from the calibrated ones."""
    names = ("acc", "nll", "brier", "ece", "cal_nll", "cal_brier", "cal_ece", "dee")
    values = {name: {"mean": at + i / 10, "std": 0.01, "n": 2} for i, name in enumerate(names)}
    if model == "deep_ensemble":
        del values["dee"]
    return {"model": model, "method": method, "members": members, **values}


def training(dataset="cifar10"):
    rows = [
        summary_row("deep_ensemble", "none", 1, 1.0),
        summary_row("deep_ensemble", "none", 4, 2.0),
        summary_row("batch_ensemble", "confods", 4, 3.0),
        summary_row("single", "confods", 1, 4.0),
        summary_row("merged", "confods", 1, 5.0),
    ]
    return {"dataset": dataset, "network": "resnet8", "split": {"train": 1000}, "summary": rows}


def test_a_run_stands_beside_the_row_of_its_model_method_and_members_calibrated_with_calibrated():
    results = training()
    found = beside(results)
    assert [{name: row[name] for name in (*KEY, *COLUMNS)} for row in found] == [
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
