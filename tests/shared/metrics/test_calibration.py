"""The fitted temperature is the optimum, says when it is not, and never sees the test split."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prediction_cases import noisy
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from torch import Tensor

from divkd.shared.errors import InputError
from divkd.shared.metrics import quality as metrics
from divkd.shared.metrics.calibration import HIGHEST, LOWEST, Temperature, apply_temperature, fit_temperature
from divkd.shared.metrics.evaluation import evaluate


def numpy_nll(log_probs: Tensor, labels: Tensor, temperature: float) -> float:
    pooled = logsumexp(log_probs.double().numpy(), axis=0) - math.log(len(log_probs))
    return float(-log_softmax(pooled / temperature, axis=-1)[np.arange(len(labels)), labels.numpy()].mean())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 1.0, 4.0]), st.integers(1, 4))
def test_fit_is_the_optimum_of_an_independent_search(seed: int, sharpen: float, members: int) -> None:
    log_probs, labels = noisy(seed, members, sharpen=sharpen)
    fitted = fit_temperature(log_probs, labels)
    found = minimize_scalar(  # type: ignore[no-untyped-call]
        lambda log_t: numpy_nll(log_probs, labels, math.exp(log_t)),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert not fitted.at_bound
    assert fitted.value == pytest.approx(math.exp(found.x), rel=1e-6)
    calibrated = apply_temperature(metrics.ensemble_log_probs(log_probs), fitted.value)[None]
    assert metrics.nll(calibrated, labels) == pytest.approx(found.fun, abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_order_and_copies_do_not_matter_and_float32_is_close(seed: int) -> None:
    log_probs, labels = noisy(seed)
    value = fit_temperature(log_probs, labels).value
    column = np.random.default_rng(seed).permutation(5)
    assert fit_temperature(log_probs.flip(0), labels).value == pytest.approx(value, rel=1e-9)
    assert fit_temperature(log_probs.flip(1), labels.flip(0)).value == pytest.approx(value, rel=1e-9)
    renamed = torch.from_numpy(np.argsort(column))[labels]
    assert fit_temperature(log_probs[..., column], renamed).value == pytest.approx(value, rel=1e-9)
    assert fit_temperature(log_probs.repeat(2, 1, 1), labels).value == pytest.approx(value, rel=1e-9)
    assert fit_temperature(log_probs.repeat(1, 3, 1), labels.repeat(3)).value == pytest.approx(value, rel=1e-9)
    assert fit_temperature(log_probs.float(), labels).value == pytest.approx(value, rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 3.0))
def test_a_calibrated_prediction_needs_no_more_and_a_scaled_one_is_undone(seed: int, scale: float) -> None:
    log_probs, labels = noisy(seed)
    pooled = metrics.ensemble_log_probs(log_probs)
    value = fit_temperature(log_probs, labels).value
    calibrated = apply_temperature(pooled, value)
    assert fit_temperature(calibrated[None], labels).value == pytest.approx(1.0, rel=1e-8)
    assert fit_temperature(apply_temperature(pooled, scale)[None], labels).value == pytest.approx(
        value / scale, rel=1e-8
    )


def test_pool_then_calibrate() -> None:
    log_probs, labels = noisy(3)
    pooled = metrics.ensemble_log_probs(log_probs)[None]
    assert fit_temperature(log_probs, labels) == fit_temperature(pooled, labels)


def test_all_correct_ends_at_the_lower_bound_and_says_so() -> None:
    log_probs, _ = noisy(1)
    right = log_probs.exp().mean(0).argmax(-1)
    assert fit_temperature(log_probs, right) == Temperature(LOWEST, at_bound=True)
    one = torch.tensor([[[0.9, 0.1]]]).log()
    assert fit_temperature(one, torch.tensor([0])) == Temperature(LOWEST, at_bound=True)
    saturated = torch.tensor([[[0.0, -800.0], [0.0, -900.0]]])  # already flat at T = 1, in float64, but not above
    assert fit_temperature(saturated, torch.tensor([0, 0])) == Temperature(LOWEST, at_bound=True)


def test_worse_than_chance_ends_at_the_upper_bound_and_says_so() -> None:
    one = torch.tensor([[[0.9, 0.1]]]).log()
    assert fit_temperature(one, torch.tensor([1])) == Temperature(HIGHEST, at_bound=True)
    saturated = torch.tensor([[[0.0, -1e4], [0.0, -1e4]]])
    assert fit_temperature(saturated, torch.tensor([1, 1])) == Temperature(HIGHEST, at_bound=True)


def test_one_sample_with_an_interior_optimum() -> None:
    # scores 0, -1, -2.5 and the second label: e^(-b) (-1 + 1) + 1 * 1 - 1.5 e^(-2.5 b) = 0 at b = ln(1.5) / 2.5
    log_probs = torch.log_softmax(torch.tensor([[[0.0, -1.0, -2.5]]], dtype=torch.float64), -1)
    fitted = fit_temperature(log_probs, torch.tensor([1]))
    assert fitted.value == pytest.approx(2.5 / math.log(1.5), rel=1e-10)
    assert not fitted.at_bound


@pytest.mark.parametrize(
    "probs", [[[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], [[0.5, 0.5], [1.0, 0.0]]]
)
def test_where_no_temperature_matters_it_is_one(probs: list[list[float]]) -> None:
    # uniform; right and certain; wrong and certain; uniform beside wrong and certain
    log_probs = torch.tensor([probs]).log()
    assert fit_temperature(log_probs, torch.tensor([0, 1])) == Temperature(1.0, at_bound=False)


def test_impossible_classes_are_legal_and_impossible_labels_left_out() -> None:
    log_probs, labels = noisy(5)
    extra = torch.full((*log_probs.shape[:2], 1), -math.inf, dtype=torch.float64)
    widened = torch.cat([log_probs, extra], dim=-1)
    expected = fit_temperature(log_probs, labels)
    assert fit_temperature(widened, labels).value == pytest.approx(expected.value, rel=1e-9)
    doubled = fit_temperature(widened.repeat(1, 2, 1), torch.cat([labels, torch.full_like(labels, 5)]))
    assert doubled.value == pytest.approx(expected.value, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-300, 1e300))
def test_applied_temperature_keeps_distributions_and_their_order(seed: int, temperature: float) -> None:
    log_probs, _ = noisy(seed, samples=10, sharpen=20.0)
    pooled = metrics.ensemble_log_probs(log_probs)
    pooled[0] = torch.tensor([0.0, -math.inf, -math.inf, -math.inf, -math.inf])
    result = apply_temperature(pooled, temperature)
    assert result.dtype == torch.float64
    assert result.exp().sum(-1) == pytest.approx(1.0, abs=1e-12)
    assert torch.equal(result.gather(1, pooled.argmax(-1, keepdim=True))[:, 0], result.amax(-1))
    assert torch.equal(result[0], pooled[0])


def test_temperature_one_changes_nothing() -> None:
    pooled = metrics.ensemble_log_probs(noisy(2)[0])
    assert apply_temperature(pooled, 1.0) == pytest.approx(pooled, abs=1e-13)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_bad_temperatures_are_refused(temperature: float) -> None:
    with pytest.raises(InputError, match=f"temperature is {temperature}"):
        apply_temperature(torch.zeros(1, 2) - math.log(2), temperature)


def test_bad_shapes_are_refused() -> None:
    log_probs, labels = noisy(0)
    with pytest.raises(InputError, match="pool first"):
        apply_temperature(log_probs, 1.0)
    with pytest.raises(InputError, match=r"shape \(400, 5\)"):
        fit_temperature(log_probs[0], labels)
    with pytest.raises(InputError, match="members and classes"):
        evaluate(log_probs, labels, log_probs[:2], labels)
    for name, arrays in [
        ("val_log_probs", (log_probs + 1, labels, log_probs, labels)),
        ("val_labels", (log_probs, labels - 5, log_probs, labels)),
        ("test_log_probs", (log_probs, labels, log_probs + 1, labels)),
        ("test_labels", (log_probs, labels, log_probs, labels + 5)),
    ]:
        with pytest.raises(InputError, match=rf"^{name}\["):
            evaluate(*arrays)


def test_evaluate_fits_on_validation_and_measures_on_test() -> None:
    (val, val_labels), (test, test_labels) = noisy(11), noisy(12, samples=300)
    row = evaluate(val, val_labels, test, test_labels)
    assert list(row) == [
        "acc",
        "nll",
        "brier",
        "ece",
        "temperature",
        "temperature_at_bound",
        "cal_nll",
        "cal_brier",
        "cal_ece",
        "pairwise_kl",
    ]
    assert row["temperature"] == fit_temperature(val, val_labels).value != fit_temperature(test, test_labels).value
    assert row["temperature_at_bound"] is False
    assert row["acc"] == metrics.accuracy(test, test_labels)
    assert row["nll"] == metrics.nll(test, test_labels)
    assert row["pairwise_kl"] == metrics.pairwise_kl(test)
    assert row["cal_nll"] == pytest.approx(numpy_nll(test, test_labels, row["temperature"]), abs=1e-10)
    assert row["cal_nll"] < row["nll"]  # the members are overconfident by construction
    other = evaluate(val, val_labels, test.flip(0), (test_labels + 1) % 5)
    assert other["temperature"] == row["temperature"]


def test_evaluate_of_a_split_without_errors_says_that_the_temperature_is_a_bound() -> None:
    log_probs, labels = noisy(4)
    right = log_probs.exp().mean(0).argmax(-1)
    assert evaluate(log_probs, right, log_probs, labels)["temperature_at_bound"] is True
