"""Measures that rank samples by confidence: cases by hand, ties, and the border of arithmetic in all metrics."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from prediction_cases import Drawn, noisy, predictions

from divkd.shared.metrics.evaluation import evaluate_predictions, evaluated
from divkd.shared.metrics.predictions import PredictedSplit, Predictions
from divkd.shared.metrics.quality import adaptive_ece, aurc, by_rank, ranked_quality, risk_coverage, sample_scores
from divkd.shared.seeds import rng


def scored(confidence: list[float], correct: list[int]) -> dict[str, torch.Tensor]:
    return {
        name: torch.tensor(value, dtype=torch.float64)
        for name, value in (("confidence", confidence), ("correct", correct))
    }


def ranked(scores: dict[str, torch.Tensor]) -> dict[str, float]:
    return ranked_quality(scores, by_rank(scores["confidence"]))


def test_aurc_by_hand() -> None:
    scores = scored([0.6, 0.9, 0.8, 0.7], [1, 1, 0, 0])  # in order of confidence: right, wrong, wrong, right
    assert ranked(scores)["aurc"] == pytest.approx((0 + 1 / 2 + 2 / 3 + 2 / 4) / 4)
    assert risk_coverage(scores) == [
        {"coverage": n / 4, "risk": pytest.approx(risk)} for n, risk in enumerate((0, 1 / 2, 2 / 3, 1 / 2), start=1)
    ]
    assert [row["coverage"] for row in risk_coverage(scores, 2)] == [0.5, 1.0]


def test_adaptive_ece_by_hand() -> None:
    # thirty samples, two a bin: of each pair one is right, so that a bin's gap is |1/2 - mean confidence|
    confidence = [0.99 - 0.01 * n for n in range(30)]
    gaps = [abs(0.5 - (confidence[n] + confidence[n + 1]) / 2) for n in range(0, 30, 2)]
    assert ranked(scored(confidence, [1, 0] * 15))["adaptive_ece"] == pytest.approx(sum(gaps) / 15)
    assert ranked(scored([0.9, 0.6], [1, 0]))["adaptive_ece"] == pytest.approx((0.1 + 0.6) / 2)  # each alone


def test_equal_confidences_count_as_the_mean_over_their_orders() -> None:
    confidence, correct = [0.9, 0.7, 0.7, 0.7, 0.5], [0, 1, 0, 1, 1]
    broken = []
    for tied in itertools.permutations([1, 2, 3]):
        order = [0, *tied, 4]
        broken.append(np.mean([1 - np.mean([correct[i] for i in order[:n]]) for n in range(1, 6)]))
    assert ranked(scored(confidence, correct))["aurc"] == pytest.approx(np.mean(broken))
    every = scored([0.8] * 40, [1] * 30 + [0] * 10)
    assert ranked(every) == {"adaptive_ece": pytest.approx(0.05), "aurc": pytest.approx(0.25)}


@settings(deadline=None)
@given(predictions(impossible=True))
def test_the_order_of_samples_and_members_does_not_matter(drawn: Drawn) -> None:
    log_probs, labels, draw = drawn
    samples = torch.from_numpy(draw.permutation(len(labels)))
    for measure in (aurc, adaptive_ece):
        value = measure(log_probs, labels)
        assert 0 <= value <= 1
        assert measure(log_probs[:, samples], labels[samples]) == pytest.approx(value, abs=1e-12)
    wrong = 1 - float(sample_scores(log_probs, labels)["correct"].mean())
    best = np.maximum(0, np.arange(1, len(labels) + 1) - round(len(labels) * (1 - wrong))) / np.arange(
        1, len(labels) + 1
    )
    assert aurc(log_probs, labels) >= best.mean() - 1e-12  # that of errors that are all least sure


def test_draws_are_ranked_as_if_sorted_again() -> None:
    log_probs, labels = noisy(0, samples=60)
    found = evaluated(Predictions(PredictedSplit(log_probs, labels, None), None, None), resamples=5, seed=2)
    generator = rng(2, "bootstrap")
    for draw in range(5):
        index = torch.from_numpy(generator.integers(0, 60, 60))
        for name, measure in (("aurc", aurc), ("adaptive_ece", adaptive_ece)):
            value = measure(log_probs[:, index], labels[index])
            assert float(found.draws[name][draw]) == pytest.approx(value, abs=1e-12)


NO_VALUE = {"error_correlation", "precision", "recall", "f1", "confidence", "accuracy"}  # of what does not occur
MAY_BE_INFINITE = {"nll", "cal_nll", "nll_member", "ensemble_gain", "pairwise_kl", "mean"}


def numbers(value: object, name: str = ""):
    """Every float in a results.json with the key it stands under."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from () if key == "diversity_by_confidence" else numbers(part, key)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from numbers(part, name)
    elif isinstance(value, float):
        yield name, value


@settings(max_examples=60, deadline=None)
@given(predictions(impossible=True))
def test_excluded_classes_and_saturated_softmaxes_leave_no_number_undefined(drawn: Drawn) -> None:
    log_probs, labels, draw = drawn
    test = PredictedSplit(log_probs, labels, None)
    val = PredictedSplit(log_probs.flip(1), torch.from_numpy(draw.integers(0, log_probs.shape[2], len(labels))), None)
    found = evaluated(Predictions(test, val, PredictedSplit(log_probs.roll(1, -1), None, None)))
    for name, value in numbers(found.results):
        assert not math.isnan(value) or name in NO_VALUE, name
        assert not math.isinf(value) or name in MAY_BE_INFINITE, name
    for name in ("confidence", "entropy", "mutual_information"):
        assert found.samples[name].isfinite().all()
    assert (found.samples["confidence"] <= 1).all()
    assert (found.samples["entropy"] >= 0).all()


def test_numbers_of_a_certain_model() -> None:
    """Zeros and ones, one of ten wrong: what each measure is in the limit."""
    sure = torch.full((2, 10, 3), -math.inf, dtype=torch.float64)
    sure[..., 0] = 0.0
    labels = torch.tensor([0] * 9 + [1])
    found = evaluate_predictions(Predictions(PredictedSplit(sure, labels, None), None, None), resamples=20)
    expected = {"acc": 0.9, "nll": math.inf, "brier": 0.2, "ece": 0.1, "adaptive_ece": 0.1, "aurc": 0.1,
                "pairwise_kl": 0.0, "mutual_information": 0.0, "ensemble_gain": 0.0}  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert found["confusion"] == [[9, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert found["by_class"][1]["recall"] == 0
    assert math.isnan(found["by_class"][1]["precision"])
