"""Several models on the same samples: what their differences are, and how sure."""

import csv
import io
import math

import numpy as np
import pytest
import torch
from prediction_cases import noisy

from divkd.shared.errors import InputError
from divkd.shared.files import plain
from divkd.shared.metrics.compare import check_files, run_evaluation
from divkd.shared.metrics.evaluation import evaluate_predictions
from divkd.shared.metrics.predictions import PredictedSplit, Predictions
from divkd.shared.metrics.quality import aurc, nll
from divkd.shared.seeds import rng

LOG_PROBS, LABELS = noisy(0, samples=150)


def model(log_probs: torch.Tensor = LOG_PROBS, labels: torch.Tensor = LABELS) -> Predictions:
    return Predictions(PredictedSplit(log_probs, labels, None), None, None)


FLAT = torch.log_softmax(LOG_PROBS / 2, -1)


def test_differences_are_those_of_the_numbers_and_their_draws_are_paired() -> None:
    found, _ = run_evaluation({"a": model(), "b": model(FLAT)}, None, None, resamples=40, seed=3)
    a, b = found["models"]
    for name, log_probs in (("a", LOG_PROBS), ("b", FLAT)):
        alone = evaluate_predictions(model(log_probs), resamples=40, seed=3)
        assert plain({"file": name, **alone}) == plain(found["models"]["ab".index(name)])  # NaN as null
    (against,) = found["differences"]
    assert (against["file"], against["base"]) == ("b", "a")
    for name, row in against["measures"].items():
        assert row["value"] == b[name] - a[name]
    generator = rng(3, "bootstrap")
    drawn = [torch.from_numpy(generator.integers(0, 150, 150)) for _ in range(40)]
    for name, measure in (("nll", nll), ("aurc", aurc)):
        values = [measure(FLAT[:, i], LABELS[i]) - measure(LOG_PROBS[:, i], LABELS[i]) for i in drawn]
        row = against["measures"][name]
        assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-12)


def test_a_model_beside_itself_differs_by_nothing() -> None:
    found, _ = run_evaluation({"a": model(), "b": model()}, None, None, resamples=20, seed=0)
    for row in found["differences"][0]["measures"].values():
        assert (row["value"], row["low"], row["high"]) == (0, 0, 0)


def test_without_draws_there_are_differences_and_no_intervals() -> None:
    found, _ = run_evaluation({"a": model(), "b": model(LOG_PROBS[:1])}, None, None, resamples=0, seed=0)
    measures = found["differences"][0]["measures"]
    assert {"acc", "nll", "brier", "ece", "adaptive_ece", "aurc"} == set(measures)  # one model has no diversity
    assert all(row["low"] is None is row["high"] for row in measures.values())
    assert "draws" not in found


def test_two_infinite_losses_have_no_difference() -> None:
    sure = torch.full_like(LOG_PROBS, -math.inf)
    sure[..., 0] = 0
    found, _ = run_evaluation({"a": model(sure), "b": model(sure[:1])}, None, None, resamples=5, seed=0)
    row = found["differences"][0]["measures"]["nll"]
    assert all(math.isnan(value) for value in row.values())
    assert found["differences"][0]["measures"]["acc"]["value"] == 0


def test_one_file_has_no_models_and_a_line_a_sample() -> None:
    found, table = run_evaluation({"a": model()}, None, None, resamples=0, seed=0)
    assert "models" not in found
    assert found["file"] == "a"
    rows = list(csv.DictReader(io.StringIO(table.decode())))
    assert list(rows[0]) == "index label predicted confidence entropy mutual_information nll correct".split()
    assert [int(row["index"]) for row in rows] == list(range(150))
    assert np.mean([float(row["nll"]) for row in rows]) == pytest.approx(found["nll"], rel=1e-12)
    assert np.mean([int(row["correct"]) for row in rows]) == pytest.approx(found["acc"], rel=1e-12)
    assert all((row["label"] == row["predicted"]) == (row["correct"] == "1") for row in rows)
    information = np.mean([float(row["mutual_information"]) for row in rows])
    assert information == pytest.approx(found["mutual_information"], rel=1e-12)


def test_models_must_be_of_the_same_samples_and_classes() -> None:
    labels = LABELS.clone()
    labels[7] = (labels[7] + 1) % 5
    with pytest.raises(
        InputError, match=r"labels of a \(150\) and of b \(150\) differ from \[7\] on; predict the same"
    ):
        check_files({"a": model(), "b": model(labels=labels)}, None)
    with pytest.raises(InputError, match=r"labels of a \(150\) and of b \(149\) differ; predict the same"):
        check_files({"a": model(), "b": model(LOG_PROBS[:, 1:], LABELS[1:])}, None)
    wide = torch.cat([LOG_PROBS, torch.full_like(LOG_PROBS[..., :1], -math.inf)], -1)
    with pytest.raises(InputError, match="a and b differ in classes"):
        check_files({"a": model(), "b": model(wide)}, None)
