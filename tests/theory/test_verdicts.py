"""A claim's two verdicts: on its bound and on the prediction, in the report as in results.json."""

import json
from pathlib import Path

import pytest

from divkd.report.figures.claims import misses
from divkd.report.multiview import REPORT
from divkd.shared.verdicts import verdicts

COMMITTED = sorted((Path(__file__).parents[2] / "docs/results").glob("multiview-*/results.json"))
NONE = (0.0, 0.001)


def claim(error, predicted, bound, holds=True):
    return {"single_view_error": {"mean": error, "std": None, "n": 1}, "predicted": predicted, "bound": bound,
            "holds": holds}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "numbers", "within", "as_predicted", "why"),
    [
        ("ensemble", (0.0, 0.031, NONE), True, False, ""),  # five members that happen to know every view
        ("ensemble", (0.052, 0.0625, NONE), False, True, "too few members"),
        ("ensemble", (0.0016, 0.0008, NONE), False, True, ""),
        ("ensemble", (0.0014, 0.0008, NONE), True, True, ""),  # 0.001, as tables show it
        ("distilled", (0.0026, 0.002, NONE), False, True, "too few members"),
        ("single", (0.488, 0.489, (0.49, 0.51)), False, True, ""),
        ("single", (0.4896, 0.489, (0.49, 0.51)), True, True, ""),
        ("self_distilled", (0.273, 0.27, (0.0, 0.26)), False, True, ""),
        ("trained_jointly", (0.455, 0.496, (0.49, 0.51)), False, False, ""),
        ("distilled_mixed", (0.489, 0.002, None), None, False, ""),
    ],
)
def test_bound_and_prediction_are_two_questions(name, numbers, within, as_predicted, why):
    said = verdicts(name, claim(*numbers))
    assert (said["bound"], said["prediction"], said["why"]) == (within, as_predicted, why)
    assert said["theorem"] == (name in ("single", "ensemble", "distilled", "self_distilled"))
    assert bool(misses(name, claim(*numbers))) == (within is False or not as_predicted)


def test_a_claim_that_is_accepted_is_not_thereby_within_its_bound():
    assert verdicts("single", claim(0.488, 0.489, (0.49, 0.51), holds=True))["accepted"]


@pytest.mark.parametrize("path", COMMITTED, ids=[path.parent.name for path in COMMITTED])
def test_no_yes_stands_beside_a_bound_that_is_missed(path):
    """In the table as it is printed, of runs with verdicts in them and of older ones."""
    results = json.loads(path.read_text(encoding="utf-8"))
    if results["command"] != "simulate multiview":
        pytest.skip("cells")
    table = REPORT.tables(results)[0]
    at = {head: place for place, head in enumerate(table.heads)}
    for line in table.lines:
        whose, _, bound = line[at["bound"]].partition(": ")
        error = float(line[at["single-view test error"]].split()[0])
        if whose == "none":
            assert line[at["within it?"]] == ""
            continue
        assert (whose == "theorem") == line[0].startswith(("1", "2", "3", "4"))
        low, high = map(float, bound.split(" to "))
        assert line[at["within it?"]].startswith("yes" if low <= error <= high else "no")
        near = abs(error - float(line[at["predicted here"]])) <= 0.0201
        assert line[at["as predicted?"]] == ("yes" if near else "no")
