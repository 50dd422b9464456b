"""What a table row says of a model's predictions, and everything that can be said of a file of them."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from divkd.shared.errors import InputError
from divkd.shared.metrics.bootstrap import LEVEL, bootstrap, interval, resampled
from divkd.shared.metrics.calibration import calibrated, calibrated_quality, fit_temperature
from divkd.shared.metrics.checks import check_labels, check_splits
from divkd.shared.metrics.classes import by_class, confusion_of
from divkd.shared.metrics.dee import equivalent, equivalent_curve
from divkd.shared.metrics.diversity import (
    agreement_matrix,
    by_confidence_of,
    diversity_of,
    entropy,
    error_correlation_matrix,
    measured,
    of_labels,
    reliability,
)
from divkd.shared.metrics.ood import ood_scores, separation
from divkd.shared.metrics.predictions import PredictedSplit, Predictions
from divkd.shared.metrics.quality import (
    by_rank,
    ensemble_log_probs,
    pairwise_kl,
    quality_of,
    ranked_quality,
    risk_coverage,
    sample_scores,
)

CLASSES = 100  # up to which a confusion matrix is written


class Evaluated(NamedTuple):
    """What `evaluate_predictions` finds, its numbers in each bootstrap draw, and what can be said of each sample.

    `draws` are (R,) float64 by name, empty without draws; `samples` are (N,) by name.
    """

    results: dict[str, Any]
    draws: dict[str, Tensor]
    samples: dict[str, Tensor]


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
    return evaluated(predictions, reference=reference, resamples=resamples, seed=seed).results


def evaluated(
    predictions: Predictions, *, reference: Predictions | None = None, resamples: int = 0, seed: int = 0
) -> Evaluated:
    """`evaluate_predictions` with what lies behind it."""
    test, val = predictions.test, predictions.val
    labels = check_labels(_labels(test), test.log_probs)
    members, count, classes = test.log_probs.shape
    pooled = ensemble_log_probs(test.log_probs)
    scores, samples = sample_scores(pooled[None], labels), measured(test.log_probs, labels)
    versions = {"": scores}
    results: dict[str, Any] = {"members": members, "samples": count, "classes": classes}
    for name, part in (("validation", val), ("ood", predictions.ood)):
        results[f"{name}_samples"] = part.log_probs.shape[1] if part else 0
    results |= quality_of(scores)
    if val:
        row, versions["cal_"] = calibrated(pooled, labels, fit_temperature(val.log_probs, _labels(val)))
        results |= row | {"cal_reliability": reliability(versions["cal_"])}
    orders = {name: by_rank(one["confidence"]) for name, one in versions.items()}
    results |= _ranked(versions, orders) | _diversity(samples)
    results["by_member"] = _by_member(test, samples["votes"], labels)
    results["reliability"] = reliability(scores)
    results["risk_coverage"] = risk_coverage(scores)
    predicted = pooled.argmax(dim=-1)
    confused = confusion_of(predicted, labels, classes)
    results |= {"confusion": confused.tolist()} if classes <= CLASSES else {}
    results["by_class"] = by_class(confused)
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

    def of_draw(index: Tensor) -> dict[str, float]:
        row = quality_of(_at(scores, index))
        row |= calibrated_quality(_at(versions["cal_"], index)) if val else {}
        times = torch.bincount(index, minlength=count)  # the draw in order of confidence, without sorting it again
        row |= _ranked(versions, {name: order.repeat_interleave(times[order]) for name, order in orders.items()})
        return row | (_diversity(_at(samples, index)) if members > 1 else {})

    drawn = {name: torch.empty(0) for name in of_draw(torch.arange(count))}
    if resamples:

        def separated(name: str, mine: Tensor, theirs: Tensor) -> dict[str, float]:
            return separation(own[name][mine], ood[name][theirs])

        draws = {"resamples": resamples, "seed": seed}
        drawn = resampled(of_draw, count, **draws)
        intervals = {name: interval(values, LEVEL) for name, values in drawn.items()}
        results["intervals"] = {"level": LEVEL, **draws, **intervals}
        if predictions.ood:
            sizes = count, results["ood_samples"]
            results["intervals"]["ood"] = {
                name: bootstrap(partial(separated, name), *sizes, **draws) for name in shared
            }
    told = {"label": labels, "predicted": predicted, "confidence": scores["confidence"]}
    told |= {"entropy": entropy(pooled[None]), "mutual_information": samples["mutual_information"]}
    return Evaluated(results, drawn, told | {"nll": scores["nll"], "correct": scores["correct"].long()})


def _ranked(versions: dict[str, dict[str, Tensor]], orders: dict[str, Tensor]) -> dict[str, float]:
    """{adaptive_ece, aurc} of predictions as given, and with calibrated ones {cal_adaptive_ece, cal_aurc}."""
    return {
        prefix + name: value
        for prefix, scores in versions.items()
        for name, value in ranked_quality(scores, orders[prefix]).items()
    }


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
        raise InputError(
            f"{missing} has no val_* arrays; the deep ensemble equivalent compares calibrated NLLs: save val_logits "
            "and val_labels too, or leave --ensemble out"
        )
    check_same("the model", predictions, "the deep ensemble", reference)
    check_same("the model", predictions, "the deep ensemble", reference, val=True)


def check_same(first: str, a: Predictions, second: str, b: Predictions, *, val: bool = False) -> None:
    """Raise `InputError` unless `a` and `b` predict the same classes of the same samples (of `val` or test)."""
    parts = [one.val if val else one.test for one in (a, b)]
    mine, theirs = (_labels(part) for part in parts if part)
    if not torch.equal(mine, theirs):
        where = "" if len(mine) != len(theirs) else f" from [{int((mine != theirs).nonzero()[0])}] on"
        raise InputError(
            f"{'val_' * val}labels of {first} ({len(mine)}) and of {second} ({len(theirs)}) differ{where}; "
            "predict the same samples in the same order"
        )
    if a.test.log_probs.shape[2] != b.test.log_probs.shape[2]:
        raise InputError(f"{first} and {second} differ in classes; predict the same problem with both")


def _ood_scores(part: PredictedSplit) -> dict[str, Tensor]:
    """Every score that can be had, higher where a sample looks more out of distribution."""
    return ood_scores(part.log_probs) | ({} if part.energy is None else {"energy": part.energy})
