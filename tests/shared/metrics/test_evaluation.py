"""The whole evaluation: its numbers are those of the functions it is made of, and val_* alone calibrates."""

import math

import numpy as np
import pytest
import torch
from prediction_cases import noisy

from divkd.shared.errors import InputError
from divkd.shared.metrics import quality as metrics
from divkd.shared.metrics.dee import equivalent, equivalent_curve
from divkd.shared.metrics.evaluation import evaluate, evaluate_predictions
from divkd.shared.metrics.ood import ood_scores, separation
from divkd.shared.metrics.predictions import PredictedSplit, Predictions
from divkd.shared.seeds import rng


def split(seed: int, members: int = 3, samples: int = 200, *, labelled: bool = True) -> PredictedSplit:
    log_probs, labels = noisy(seed, members, samples)
    return PredictedSplit(log_probs, labels if labelled else None, None)


TEST, VAL, OOD = split(0), split(1), split(2, samples=90, labelled=False)
ENSEMBLE = Predictions(TEST, VAL, OOD)


def test_it_holds_the_row_that_training_writes() -> None:
    found = evaluate_predictions(ENSEMBLE)
    row = evaluate(VAL.log_probs, VAL.labels, TEST.log_probs, TEST.labels)
    assert {name: found[name] for name in row} == pytest.approx(row, rel=1e-12)
    assert found["nll_member"] - found["nll"] == pytest.approx(found["ensemble_gain"], abs=1e-13)
    assert (found["members"], found["samples"], found["classes"]) == (3, 200, 5)
    assert (found["validation_samples"], found["ood_samples"]) == (200, 90)


def test_parts_are_those_of_the_functions() -> None:
    found = evaluate_predictions(ENSEMBLE, seed=3)
    for member, row in enumerate(found["by_member"]):
        alone = TEST.log_probs[member : member + 1]
        assert row["acc"] == pytest.approx(metrics.accuracy(alone, TEST.labels), abs=1e-15)
        assert row["nll"] == pytest.approx(metrics.nll(alone, TEST.labels), rel=1e-12)
    gap = sum(row["share"] * abs(row["accuracy"] - row["confidence"]) for row in found["cal_reliability"] if row["n"])
    assert gap == pytest.approx(found["cal_ece"], abs=1e-12)
    own, ood = ood_scores(TEST.log_probs), ood_scores(OOD.log_probs)
    assert found["ood"] == {name: separation(own[name], ood[name]) for name in own}
    assert found["dee"]["value"] == 3
    assert found["dee"]["curve"][2]["mean"] == pytest.approx(found["cal_nll"], abs=1e-12)
    agreement = torch.tensor(found["similarity"]["agreement"])
    pairs = agreement[0, 1] + agreement[0, 2] + agreement[1, 2]
    assert float(1 - pairs / 3) == pytest.approx(found["disagreement"], abs=1e-6)


def test_without_validation_nothing_is_calibrated() -> None:
    found = evaluate_predictions(Predictions(TEST, None, None), resamples=3)
    for name in ("temperature", "cal_nll", "cal_brier", "cal_ece", "cal_reliability", "dee", "ood"):
        assert name not in found
        assert name not in found["intervals"]


def test_test_labels_do_not_move_the_temperature() -> None:
    other = PredictedSplit(TEST.log_probs, (TEST.labels + 1) % 5, None)
    assert (
        evaluate_predictions(Predictions(other, VAL, None))["temperature"]
        == evaluate_predictions(Predictions(TEST, VAL, None))["temperature"]
    )


def test_one_member_has_no_diversity_by_confidence() -> None:
    single = Predictions(split(0, 1), split(1, 1), None)
    found = evaluate_predictions(single, resamples=3)
    for name in ("diversity_by_confidence", "similarity", "dee"):
        assert name not in found
    assert found["pairwise_kl"] == 0
    assert "pairwise_kl" not in found["intervals"]


def test_a_model_is_measured_on_the_curve_of_another_ensemble() -> None:
    single = Predictions(
        PredictedSplit(TEST.log_probs[:1], TEST.labels, None), PredictedSplit(VAL.log_probs[:1], VAL.labels, None), None
    )
    found = evaluate_predictions(single, reference=ENSEMBLE)
    curve = equivalent_curve(VAL.log_probs, VAL.labels, TEST.log_probs, TEST.labels)
    assert found["dee"]["curve"] == curve
    assert not found["dee"]["own_members"]
    assert found["dee"]["value"] == equivalent(curve, found["cal_nll"]).value < 2


def test_another_ensemble_must_be_of_the_same_samples() -> None:
    labels = TEST.labels.clone()
    labels[7] = (labels[7] + 1) % 5
    with pytest.raises(InputError, match=r"labels of the model .* from \[7\] on"):
        evaluate_predictions(ENSEMBLE, reference=Predictions(PredictedSplit(TEST.log_probs, labels, None), VAL, None))
    with pytest.raises(InputError, match="deep ensemble's file has no val_"):
        evaluate_predictions(ENSEMBLE, reference=Predictions(TEST, None, None))
    with pytest.raises(InputError, match=r"labels of the model \(200\) and of the deep ensemble \(100\)"):
        evaluate_predictions(ENSEMBLE, reference=Predictions(split(0, samples=100), VAL, None))


def test_intervals_hold_the_number_and_repeat() -> None:
    found = evaluate_predictions(ENSEMBLE, resamples=200, seed=1)
    again = evaluate_predictions(ENSEMBLE, resamples=200, seed=1)["intervals"]
    intervals = found["intervals"]
    assert intervals == again
    for name in ("acc", "nll", "brier", "cal_nll", "cal_brier", "pairwise_kl", "disagreement", "ensemble_gain"):
        low, high = intervals[name]
        assert low < found[name] < high, name
    for score, row in found["ood"].items():
        for name, value in row.items():
            low, high = intervals["ood"][score][name]
            assert low <= value <= high, (score, name)
    assert all(math.isfinite(end) for end in intervals["ece"])


def test_interval_of_the_error_correlation_is_that_of_its_draws() -> None:
    found = evaluate_predictions(ENSEMBLE, resamples=100, seed=5)["intervals"]["error_correlation"]
    wrong = (TEST.log_probs.argmax(-1) != TEST.labels).numpy()
    generator = rng(5, "bootstrap")
    values = [np.corrcoef(wrong[:, generator.integers(0, 200, 200)])[np.triu_indices(3, 1)].mean() for _ in range(100)]
    assert found == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=1e-12)


def test_the_temperature_is_held_over_draws_of_test_samples() -> None:
    found = evaluate_predictions(Predictions(TEST, VAL, None), resamples=50)
    assert "temperature" not in found["intervals"]
    assert found["intervals"]["cal_nll"][0] < found["cal_nll"] < found["intervals"]["cal_nll"][1]
    other = evaluate_predictions(Predictions(TEST, split(9), None), resamples=50)["intervals"]
    assert other["nll"] == found["intervals"]["nll"]  # the validation samples are not drawn
    assert other["cal_nll"] != found["intervals"]["cal_nll"]
