"""The deep ensemble equivalent: its curve against independent computations, and its reading by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prediction_cases import noisy

from divkd.shared.errors import InputError
from divkd.shared.metrics import quality as metrics
from divkd.shared.metrics.calibration import apply_temperature, fit_temperature
from divkd.shared.metrics.dee import Equivalent, equivalent, equivalent_curve, subsets, summarise_equivalents


def curve(*means: float) -> list[dict[str, float]]:
    return [{"members": size, "mean": mean} for size, mean in enumerate(means, start=1)]


def test_curve_is_the_mean_over_all_subsets() -> None:
    (val, val_labels), (test, test_labels) = noisy(0, members=4), noisy(1, members=4, samples=300)
    found = equivalent_curve(val, val_labels, test, test_labels)
    for size, row in enumerate(found, start=1):
        values = []
        for subset in itertools.combinations(range(4), size):
            temperature = fit_temperature(val[list(subset)], val_labels).value
            pooled = metrics.ensemble_log_probs(test[list(subset)])
            values.append(metrics.nll(apply_temperature(pooled, temperature)[None], test_labels))
        assert row["members"] == size
        assert row["n"] == row["of"] == len(values) == math.comb(4, size)
        assert row["mean"] == pytest.approx(np.mean(values), abs=1e-10)
        assert row["std"] == (pytest.approx(np.std(values, ddof=1), abs=1e-10) if len(values) > 1 else None)
    assert [row["mean"] for row in found] == sorted((row["mean"] for row in found), reverse=True)


def test_a_student_that_equals_a_size_is_worth_that_size() -> None:
    (val, val_labels), (test, test_labels) = noisy(2, members=3), noisy(3, members=3)
    found = equivalent_curve(val, val_labels, test, test_labels)
    for row in found:
        assert equivalent(found, row["mean"]) == Equivalent(row["members"], censored=False)


def test_order_of_members_does_not_matter_and_float32_is_close() -> None:
    (val, val_labels), (test, test_labels) = noisy(4), noisy(5)
    before = [row["mean"] for row in equivalent_curve(val, val_labels, test, test_labels)]
    turned = [row["mean"] for row in equivalent_curve(val.flip(0), val_labels, test.flip(0), test_labels)]
    single = [row["mean"] for row in equivalent_curve(val.float(), val_labels, test.float(), test_labels)]
    assert turned == pytest.approx(before, abs=1e-10)
    assert single == pytest.approx(before, abs=1e-6)


def test_copies_give_a_flat_curve() -> None:
    (val, val_labels), (test, test_labels) = noisy(6, members=1), noisy(7, members=1)
    found = equivalent_curve(val.repeat(3, 1, 1), val_labels, test.repeat(3, 1, 1), test_labels)
    assert [row["mean"] for row in found] == pytest.approx([found[0]["mean"]] * 3, abs=1e-10)
    assert found[1]["std"] == pytest.approx(0, abs=1e-10)


def test_impossible_classes_cost_infinity_and_nothing_is_nan() -> None:
    log_probs = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]]).log()
    found = equivalent_curve(log_probs, torch.tensor([0]), log_probs, torch.tensor([1]))
    assert found[0]["mean"] == math.inf
    assert found[1]["mean"] < math.inf
    assert equivalent(found, found[1]["mean"]).value == 2.0


def test_subsets_are_all_or_a_seeded_draw_without_repetition() -> None:
    assert subsets(4, 2, 6, seed=0) == list(itertools.combinations(range(4), 2))
    drawn = subsets(20, 5, 30, seed=1)
    assert len(set(drawn)) == 30
    assert all(len(set(subset)) == 5 and set(subset) <= set(range(20)) for subset in drawn)
    assert drawn == subsets(20, 5, 30, seed=1) != subsets(20, 5, 30, seed=2)
    counts = np.bincount(np.array(subsets(6, 2, 14, seed=3)).ravel(), minlength=6)
    assert counts.min() >= 4  # 14 of 15 pairs: every member is in 4 or 5


def test_reading_by_hand() -> None:
    falling = curve(1.0, 0.8, 0.7)
    assert equivalent(falling, 0.9) == Equivalent(pytest.approx(1.5), censored=False)
    assert equivalent(falling, 0.75) == Equivalent(pytest.approx(2.5), censored=False)
    assert equivalent(falling, 1.3) == Equivalent(1.0, censored=False)  # worse than one member
    assert equivalent(falling, math.inf) == Equivalent(1.0, censored=False)
    assert equivalent(falling, 0.6) == Equivalent(3.0, censored=True)
    assert str(equivalent(falling, 0.6)) == ">= 3.00"
    assert equivalent(curve(1.0, 0.8, 0.9, 0.7), 0.85).value == pytest.approx(1.75)  # the first of three crossings
    assert equivalent(curve(math.inf, 0.8), 0.9) == Equivalent(2.0, censored=False)
    assert equivalent(curve(1.0), 0.5) == Equivalent(1.0, censored=True)
    assert equivalent(curve(1.0, 0.8), 0.8) == Equivalent(2.0, censored=False)
    assert equivalent(curve(1.0, 1.2, 0.9), 1.0) == Equivalent(1.0, censored=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 5), min_size=1, max_size=6), st.floats(0, 5), st.floats(0, 1))
def test_a_better_model_is_worth_no_less(means: list[float], worse: float, gain: float) -> None:
    first, second = equivalent(curve(*means), worse), equivalent(curve(*means), worse - gain)
    assert second.value >= first.value
    assert 1 <= first.value <= len(means)
    # at the value the piecewise-linear curve is as good as the model
    if not first.censored and worse < means[0]:
        at = np.interp(first.value, np.arange(1, len(means) + 1), means)
        assert at == pytest.approx(worse, abs=1e-9)


def test_runs_are_averaged_and_say_how_many_reached_the_end() -> None:
    runs = [Equivalent(2.0, censored=False), Equivalent(4.0, censored=True)]
    assert summarise_equivalents(runs) == {"mean": 3.0, "std": pytest.approx(math.sqrt(2)), "n": 2, "censored": 0.5}


def test_numbers_whose_squares_overflow_have_no_spread() -> None:
    log_probs = torch.tensor([[[0.0, -1e300]], [[0.0, -1e299]]], dtype=torch.float64)
    found = equivalent_curve(log_probs, torch.tensor([1]), log_probs, torch.tensor([1]))
    assert math.isfinite(found[0]["mean"])
    assert found[0]["std"] is None


def test_refusals() -> None:
    log_probs, labels = noisy(8)
    with pytest.raises(InputError, match="members and classes"):
        equivalent_curve(log_probs[:2], labels, log_probs, labels)
    with pytest.raises(InputError, match="limit is 0"):
        equivalent_curve(log_probs, labels, log_probs, labels, limit=0)
    with pytest.raises(InputError, match=r"val_log_probs\[0, 0\]"):
        equivalent_curve(log_probs + 1, labels, log_probs, labels)
    with pytest.raises(InputError, match="nan"):
        equivalent(curve(1.0), math.nan)
    with pytest.raises(InputError, match="1, 2, 3"):
        equivalent(curve(1.0, 2.0)[1:], 1.0)
