"""What a table row says of a model's predictions, and everything that can be said of a file of them."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from divkd.shared.errors import InputError
from divkd.shared.metrics.bootstrap import LEVEL, bootstrap
from divkd.shared.metrics.calibration import calibrated, calibrated_quality, fit_temperature
from divkd.shared.metrics.checks import check_labels, check_splits
from divkd.shared.metrics.dee import equivalent, equivalent_curve
from divkd.shared.metrics.diversity import (
    agreement_matrix,
    by_confidence_of,
    diversity_of,
    error_correlation_matrix,
    measured,
    of_labels,
    reliability,
)
from divkd.shared.metrics.ood import ood_scores, separation
from divkd.shared.metrics.predictions import PredictedSplit, Predictions
from divkd.shared.metrics.quality import ensemble_log_probs, pairwise_kl, quality_of, sample_scores
from divkd.shared.run import environment


def evaluate(
    val_log_probs: Tensor, val_labels: Tensor, test_log_probs: Tensor, test_labels: Tensor
) -> dict[str, float]:
    """The flat row {acc, nll, brier, ece, temperature, temperature_at_bound, cal_nll, cal_brier, cal_ece, pairwise_kl}.

    Every value is measured on the test split with the definitions of `divkd.shared.metrics.quality`; the temperature is
    fitted on the validation split alone and only applied to the test split. `temperature_at_bound` is True where
    that fit ended at an end of its range, which makes the calibrated values a statement about the range.

    val_log_probs (M, N_val, K), test_log_probs (M, N_test, K), labels (N_val,) and (N_test,) integers in 0..K-1.
    Raises `InputError` where an array is unusable or the two splits differ in members or classes.
    """
    val_labels, test_labels = check_splits(val_log_probs, val_labels, test_log_probs, test_labels)
    pooled = ensemble_log_probs(test_log_probs.detach())
    temperature = fit_temperature(val_log_probs, val_labels)
    row = quality_of(sample_scores(pooled[None], test_labels)) | calibrated(pooled, test_labels, temperature)[0]
    return row | {"pairwise_kl": pairwise_kl(test_log_probs)}


def run_evaluation(
    predictions: Predictions, reference: Predictions | None, files: Mapping[str, Any], *, resamples: int, seed: int
) -> dict[str, Any]:
    """The content of an evaluation's results.json; `files` are the names of `file` and `ensemble`."""
    began = time.perf_counter()
    results: dict[str, Any] = {"command": "evaluate", "file": files["file"]}
    results |= evaluate_predictions(predictions, reference=reference, resamples=resamples, seed=seed)
    if reference is not None:
        results["dee"]["ensemble"] = files["ensemble"]
    return results | {"seconds": time.perf_counter() - began, **environment({"seeds": [seed]})}


def evaluate_predictions(
    predictions: Predictions, *, reference: Predictions | None = None, resamples: int = 0, seed: int = 0
) -> dict[str, Any]:
    """The flat row of `evaluate`, the diversity, bins, similarity, DEE and OOD: an evaluation's results.json.

    Calibrated values and the DEE need the validation split: without it they are left out, as the test split never
    chooses. The DEE is measured on the curve of `reference`, the predictions of a deep ensemble on the same samples,
    or else on the curve of the model's own members, if there is more than one. Draws of subsets and samples
    follow from `seed`.

    `resamples` > 0 adds bootstrap intervals over draws of the test samples (and the out-of-distribution ones). The
    temperature is held: it comes from the validation samples, which are not drawn. The DEE has no interval: what moves
    it is which members were trained, not which samples they are tested on, so an interval over samples would look surer
    than it is; the curve carries its spread over subsets, and over runs there is `dee.summarise_equivalents`.

    Raises `InputError` where `reference` is of other samples or lacks its validation split.
    """
    test, val = predictions.test, predictions.val
    labels = check_labels(_labels(test), test.log_probs)
    members, count, classes = test.log_probs.shape
    pooled = ensemble_log_probs(test.log_probs)
    scores, samples = sample_scores(pooled[None], labels), measured(test.log_probs, labels)
    results: dict[str, Any] = {"members": members, "samples": count, "classes": classes}
    for name, part in (("validation", val), ("ood", predictions.ood)):
        results[f"{name}_samples"] = part.log_probs.shape[1] if part else 0
    results |= quality_of(scores)
    calibrated_scores = None
    if val:
        row, calibrated_scores = calibrated(pooled, labels, fit_temperature(val.log_probs, _labels(val)))
        results |= row | {"cal_reliability": reliability(calibrated_scores)}
    results |= _diversity(samples)
    results["by_member"] = _by_member(test, samples["votes"], labels)
    results["reliability"] = reliability(scores)
    if members > 1:
        results["diversity_by_confidence"] = by_confidence_of(scores, samples)
        results["similarity"] = {
            "agreement": agreement_matrix(samples["votes"]).tolist(),
            "error_correlation": error_correlation_matrix(samples["votes"], labels).tolist(),
        }
    if reference is not None or (val and members > 1):
        results["dee"] = _dee(predictions, reference, results, seed)
    if predictions.ood:
        own, ood = _ood_scores(test), _ood_scores(predictions.ood)
        shared = [name for name in own if name in ood]
        results["ood"] = {name: separation(own[name], ood[name]) for name in shared}
    if resamples:

        def drawn(index: Tensor) -> dict[str, float]:
            row = quality_of(_at(scores, index))
            row |= calibrated_quality(_at(calibrated_scores, index)) if calibrated_scores else {}
            return row | (_diversity(_at(samples, index)) if members > 1 else {})

        def separated(name: str, mine: Tensor, theirs: Tensor) -> dict[str, float]:
            return separation(own[name][mine], ood[name][theirs])

        draws = {"resamples": resamples, "seed": seed}
        results["intervals"] = {"level": LEVEL, **draws, **bootstrap(drawn, count, **draws)}
        if predictions.ood:
            sizes = count, results["ood_samples"]
            results["intervals"]["ood"] = {
                name: bootstrap(partial(separated, name), *sizes, **draws) for name in shared
            }
    return results


def _at(scores: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    return {name: value[..., index] for name, value in scores.items()}


def _diversity(samples: dict[str, Tensor]) -> dict[str, float]:
    """`diversity_of` without the NLL, which is that of `quality_of`."""
    return {name: value for name, value in diversity_of(samples).items() if name != "nll"}


def _labels(part: PredictedSplit) -> Tensor:
    assert part.labels is not None  # `load` gives labels to all but samples of another distribution
    return part.labels


def _by_member(test: PredictedSplit, votes: Tensor, labels: Tensor) -> list[dict[str, float]]:
    """{acc, nll} of each member alone."""
    losses = -of_labels(test.log_probs, labels).mean(dim=1) + 0.0
    hits = (votes == labels).double().mean(dim=1)
    return [{"acc": acc, "nll": nll} for acc, nll in zip(hits.tolist(), losses.tolist(), strict=True)]


def _dee(predictions: Predictions, reference: Predictions | None, results: dict[str, Any], seed: int) -> dict[str, Any]:
    if reference is not None:
        check_reference(predictions, reference)
    ensemble = reference or predictions
    assert ensemble.val is not None
    arrays = [array for part in (ensemble.val, ensemble.test) for array in (part.log_probs, _labels(part))]
    curve = equivalent_curve(*arrays, seed=seed)
    worth = equivalent(curve, results["cal_nll"] if reference else curve[-1]["mean"])  # its own: equal but for rounding
    return {"value": worth.value, "censored": worth.censored, "own_members": reference is None, "curve": curve}


def check_reference(predictions: Predictions, reference: Predictions) -> None:
    """Raise `InputError` unless `reference` is of the same samples and both have a validation split."""
    if predictions.val is None or reference.val is None:
        missing = "the model's file" if predictions.val is None else "the deep ensemble's file"
        raise InputError(f"{missing} has no val_* arrays; the deep ensemble equivalent compares calibrated NLLs")
    pairs = {"labels": (predictions.test, reference.test), "val_labels": (predictions.val, reference.val)}
    for name, pair in pairs.items():
        a, b = map(_labels, pair)
        if len(a) != len(b) or not torch.equal(a, b):
            where = "" if len(a) != len(b) else f" from [{int((a != b).nonzero()[0])}] on"
            raise InputError(
                f"{name} of the model ({len(a)}) and of the deep ensemble ({len(b)}) differ{where}; "
                "predict the same samples in the same order"
            )
    if predictions.test.log_probs.shape[2] != reference.test.log_probs.shape[2]:
        raise InputError("the model and the deep ensemble differ in classes; predict the same problem with both")


def _ood_scores(part: PredictedSplit) -> dict[str, Tensor]:
    """Every score that can be had, higher where a sample looks more out of distribution."""
    return ood_scores(part.log_probs) | ({} if part.energy is None else {"energy": part.energy})
