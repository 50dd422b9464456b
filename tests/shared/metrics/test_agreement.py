"""Every quantity beside other people's code: NumPy, SciPy and scikit-learn to 1e-10, torchmetrics to 1e-6.

Laws and cases by hand stand with each module's own tests, as do random cases against the definitions.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from prediction_cases import nll_member, noisy
from scipy.optimize import brentq
from scipy.spatial.distance import jensenshannon
from scipy.special import logsumexp, softmax
from scipy.stats import entropy as scipy_entropy
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    hamming_loss,
    log_loss,
    precision_recall_fscore_support,
    zero_one_loss,
)
from torchmetrics import functional as tm
from torchmetrics.functional import classification as tmc
from torchmetrics.functional.text import perplexity

from divkd.shared.metrics import quality as metrics
from divkd.shared.metrics.calibration import apply_temperature, fit_temperature
from divkd.shared.metrics.classes import by_class, confusion
from divkd.shared.metrics.dee import equivalent_curve
from divkd.shared.metrics.diversity import agreement_matrix, by_confidence, decomposition, diversity, sample_diversity
from divkd.shared.metrics.evaluation import evaluate
from divkd.shared.metrics.ood import separation

CLASSES = 6
LOG_PROBS, LABELS = noisy(0, members=4, samples=500, classes=CLASSES)
VAL_LOG_PROBS, VAL_LABELS = noisy(1, members=4, samples=300, classes=CLASSES)
# NumPy's own: nothing below this line of the reference values passes through divkd
LOG_P, Y = LOG_PROBS.numpy(), LABELS.numpy()
P = np.exp(LOG_P)
MEAN, VOTES = P.mean(0), LOG_P.argmax(-1)
PAIRS = list(itertools.combinations(range(4), 2))
MEAN32, VOTES32 = torch.from_numpy(MEAN).float(), torch.from_numpy(VOTES)

EXACT = {"rel": 1e-10, "abs": 1e-10}
SINGLE = {"rel": 1e-6, "abs": 1e-6}


def kl(first: np.ndarray, second: np.ndarray) -> float:
    """SciPy's KL(first || second), the mean over samples."""
    return float(scipy_entropy(first, second, axis=-1).mean())


# NumPy, SciPy, scikit-learn, float64 ----------------------------------------------------------------------------------


def test_confusion_and_scores_of_classes() -> None:
    seen = CLASSES + 1  # the last class neither occurs nor is predicted
    wide = torch.cat([LOG_PROBS, torch.full((*LOG_PROBS.shape[:2], 1), -math.inf)], -1)
    counts = confusion(wide, LABELS)
    assert counts.tolist() == confusion_matrix(Y, MEAN.argmax(-1), labels=range(seen)).tolist()
    theirs = precision_recall_fscore_support(Y, MEAN.argmax(-1), labels=range(seen), zero_division=np.nan)
    rows = by_class(counts)
    for name, values in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        assert [row[name] for row in rows] == pytest.approx(values, nan_ok=True, **EXACT), name
    assert sum(row["predicted"] for row in rows) == len(Y)


def test_rankings() -> None:
    """NumPy's risks and equal parts, from the definitions."""
    wrong, confidence = MEAN.argmax(-1) != Y, MEAN.max(-1)
    order = np.argsort(-confidence)
    risks = [wrong[order[:n]].mean() for n in range(1, len(Y) + 1)]
    assert metrics.aurc(LOG_PROBS, LABELS) == pytest.approx(np.mean(risks), **EXACT)
    for count in (500, 301, 15, 7):  # of samples: divisible by 15 and not, and fewer
        part = order[:count]
        parts = [part[np.arange(count) * 15 // count == place] for place in range(15)]
        gap = sum(abs((~wrong[one]).sum() - confidence[one].sum()) for one in parts) / count
        index = torch.from_numpy(part.copy())
        assert metrics.adaptive_ece(LOG_PROBS[:, index], LABELS[index]) == pytest.approx(gap, **EXACT)


def test_quality() -> None:
    assert metrics.accuracy(LOG_PROBS, LABELS) == pytest.approx(accuracy_score(Y, MEAN.argmax(-1)), **EXACT)
    assert metrics.nll(LOG_PROBS, LABELS) == pytest.approx(log_loss(Y, MEAN, labels=range(CLASSES)), **EXACT)
    member = np.mean([log_loss(Y, p, labels=range(CLASSES)) for p in P])
    assert nll_member(LOG_PROBS, LABELS) == pytest.approx(member, **EXACT)
    one_against_rest = sum(brier_score_loss((k == Y).astype(int), MEAN[:, k], pos_label=1) for k in range(CLASSES))
    assert metrics.brier(LOG_PROBS, LABELS) == pytest.approx(one_against_rest, **EXACT)
    assert metrics.brier(LOG_PROBS, LABELS) == pytest.approx(((MEAN - np.eye(CLASSES)[Y]) ** 2).sum(-1).mean(), **EXACT)


def test_ece_and_its_bins() -> None:
    top, hit = MEAN.max(-1), MEAN.argmax(-1) == Y
    accuracies, confidences = calibration_curve(hit, top, n_bins=15)
    rows = by_confidence(LOG_PROBS, LABELS)
    full = [row for row in rows if row["n"]]
    assert [row["accuracy"] for row in full] == pytest.approx(accuracies, **EXACT)
    assert [row["confidence"] for row in full] == pytest.approx(confidences, **EXACT)
    shares = np.histogram(top, bins=15, range=(0, 1))[0] / len(Y)
    assert [row["share"] for row in rows] == pytest.approx(shares, **EXACT)
    gap = (shares[shares > 0] * abs(accuracies - confidences)).sum()
    assert metrics.ece(LOG_PROBS, LABELS) == pytest.approx(gap, **EXACT)


def test_diversity() -> None:
    found = diversity(LOG_PROBS, LABELS)
    assert found["pairwise_kl"] == pytest.approx(
        np.mean([kl(P[i], P[j]) for i, j in itertools.permutations(range(4), 2)]), **EXACT
    )
    assert found["disagreement"] == pytest.approx(
        np.mean([hamming_loss(VOTES[i], VOTES[j]) for i, j in PAIRS]), **EXACT
    )
    assert found["mutual_information"] == pytest.approx(np.mean([kl(p, MEAN) for p in P]), **EXACT)  # Jensen-Shannon
    wrong = (VOTES != Y).astype(float)
    assert found["error_correlation"] == pytest.approx(np.corrcoef(wrong)[np.triu_indices(4, 1)].mean(), **EXACT)
    gain = np.mean([log_loss(Y, p, labels=range(CLASSES)) for p in P]) - log_loss(Y, MEAN, labels=range(CLASSES))
    assert found["ensemble_gain"] == pytest.approx(gain, **EXACT)


def test_diversity_of_two_members_is_the_squared_jensen_shannon_distance() -> None:
    found = sample_diversity(LOG_PROBS[:2])["mutual_information"]
    assert found.numpy() == pytest.approx(jensenshannon(P[0], P[1], axis=-1) ** 2, **EXACT)


def test_diversity_by_confidence() -> None:
    bins = np.ceil(15 * MEAN.max(-1)).astype(int) - 1
    for number, row in enumerate(by_confidence(LOG_PROBS, LABELS)):
        inside = bins == number
        if not inside.any():
            assert row["n"] == 0
            continue
        pairs = [kl(P[i][inside], P[j][inside]) for i, j in itertools.permutations(range(4), 2)]
        assert row["pairwise_kl"] == pytest.approx(np.mean(pairs), **EXACT)
        apart = [zero_one_loss(VOTES[i][inside], VOTES[j][inside]) for i, j in PAIRS]
        assert row["disagreement"] == pytest.approx(np.mean(apart), **EXACT)
        jensen = np.log(MEAN[inside][np.arange(inside.sum()), Y[inside]]) - LOG_P[:, inside, Y[inside]].mean(0)
        assert row["ensemble_gain"] == pytest.approx(jensen.mean(), **EXACT)


def test_similarity() -> None:
    expected = [[accuracy_score(a, b) for b in VOTES] for a in VOTES]
    assert agreement_matrix(sample_diversity(LOG_PROBS)["votes"]).numpy() == pytest.approx(np.array(expected), **EXACT)


def numpy_calibrated(
    val: np.ndarray, val_y: np.ndarray, test: np.ndarray, test_y: np.ndarray
) -> tuple[float, np.ndarray]:
    """Pool, then calibrate, by the root of the slope in T itself: (T, calibrated test probabilities (N, K))."""
    pooled = logsumexp(val, axis=0) - math.log(len(val))

    def slope(temperature: float) -> float:
        expected = (softmax(pooled / temperature, axis=-1) * pooled).sum(-1)
        return float((pooled[np.arange(len(val_y)), val_y] - expected).mean())

    temperature = float(brentq(slope, 0.05, 20.0, xtol=1e-14, rtol=1e-14))
    return temperature, softmax((logsumexp(test, axis=0) - math.log(len(test))) / temperature, axis=-1)


def test_temperature_and_what_it_calibrates() -> None:
    row = evaluate(VAL_LOG_PROBS, VAL_LABELS, LOG_PROBS, LABELS)
    temperature, calibrated = numpy_calibrated(VAL_LOG_PROBS.numpy(), VAL_LABELS.numpy(), LOG_P, Y)
    assert row["temperature"] == pytest.approx(temperature, **EXACT)
    assert row["cal_nll"] == pytest.approx(log_loss(Y, calibrated, labels=range(CLASSES)), **EXACT)
    assert row["cal_brier"] == pytest.approx(((calibrated - np.eye(CLASSES)[Y]) ** 2).sum(-1).mean(), **EXACT)
    top, hit = calibrated.max(-1), calibrated.argmax(-1) == Y
    index = np.ceil(15 * top).astype(int) - 1
    assert row["cal_ece"] == pytest.approx(abs(np.bincount(index, hit - top)).sum() / len(Y), **EXACT)


def test_curve_of_the_deep_ensemble_equivalent() -> None:
    curve = equivalent_curve(VAL_LOG_PROBS, VAL_LABELS, LOG_PROBS, LABELS)
    for row in curve:
        chosen = [list(subset) for subset in itertools.combinations(range(4), row["members"])]
        values = [
            log_loss(
                Y,
                numpy_calibrated(VAL_LOG_PROBS.numpy()[subset], VAL_LABELS.numpy(), LOG_P[subset], Y)[1],
                labels=range(CLASSES),
            )
            for subset in chosen
        ]
        assert row["mean"] == pytest.approx(np.mean(values), **EXACT)
        assert row["std"] == (pytest.approx(np.std(values, ddof=1), **EXACT) if len(values) > 1 else None)


# torch and torchmetrics, float32 --------------------------------------------------------------------------------------


def test_quality_beside_torchmetrics() -> None:
    assert metrics.accuracy(LOG_PROBS, LABELS) == pytest.approx(
        float(tmc.multiclass_accuracy(MEAN32, LABELS, CLASSES, average="micro")), **SINGLE
    )
    assert metrics.nll(LOG_PROBS, LABELS) == pytest.approx(
        float(torch.nn.functional.nll_loss(torch.from_numpy(np.log(MEAN)), LABELS)), **EXACT
    )
    assert metrics.nll(LOG_PROBS, LABELS) == pytest.approx(
        math.log(float(perplexity(MEAN32.log()[None], LABELS[None]))), **SINGLE
    )
    # the mean over samples and classes: K times less than the Brier score as Brier defined it
    onehot = torch.nn.functional.one_hot(LABELS, CLASSES).float()
    assert metrics.brier(LOG_PROBS, LABELS) == pytest.approx(
        CLASSES * float(tm.mean_squared_error(MEAN32, onehot)), **SINGLE
    )
    theirs = tmc.multiclass_calibration_error(MEAN32, LABELS, CLASSES, n_bins=15, norm="l1")
    assert metrics.ece(LOG_PROBS, LABELS) == pytest.approx(float(theirs), **SINGLE)
    calibrated = apply_temperature(metrics.ensemble_log_probs(LOG_PROBS), fit_temperature(LOG_PROBS, LABELS).value)
    theirs = tmc.multiclass_calibration_error(calibrated.exp().float(), LABELS, CLASSES, n_bins=15, norm="l1")
    assert metrics.ece(calibrated[None], LABELS) == pytest.approx(float(theirs), **SINGLE)


def test_diversity_beside_torchmetrics() -> None:
    found = diversity(LOG_PROBS, LABELS)
    ordered = itertools.permutations(LOG_PROBS.float(), 2)
    pairs = [float(tm.kl_divergence(a, b, log_prob=True)) for a, b in ordered]
    assert found["pairwise_kl"] == pytest.approx(np.mean(pairs), **SINGLE)
    apart = [float(tmc.multiclass_hamming_distance(VOTES32[i], VOTES32[j], CLASSES, average="micro")) for i, j in PAIRS]
    assert found["disagreement"] == pytest.approx(np.mean(apart), **SINGLE)
    wrong = VOTES32 != LABELS
    phi = [float(tmc.binary_matthews_corrcoef(wrong[i].int(), wrong[j].int())) for i, j in PAIRS]
    assert found["error_correlation"] == pytest.approx(np.mean(phi), **SINGLE)
    pearson = [float(tm.pearson_corrcoef(wrong[i].float(), wrong[j].float())) for i, j in PAIRS]
    assert found["error_correlation"] == pytest.approx(np.mean(pearson), **SINGLE)
    each = torch.stack([torch.nn.functional.nll_loss(p, LABELS, reduction="none") for p in LOG_PROBS])
    assert torch.allclose(decomposition(LOG_PROBS, LABELS)["nll_member"], each.mean(0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("digits", [1, 6])
def test_separation_beside_torchmetrics_also_where_scores_tie(digits: int) -> None:
    rng = np.random.default_rng(2)
    own, ood = rng.beta(2, 3, 400).round(digits), rng.beta(3, 2, 300).round(digits)
    scores = torch.from_numpy(np.r_[own, ood]).float()  # in [0, 1]: torchmetrics takes others for logits
    truth = torch.from_numpy(np.r_[np.zeros(400), np.ones(300)]).long()
    found = separation(torch.from_numpy(own), torch.from_numpy(ood))
    specificity, _ = tmc.binary_specificity_at_sensitivity(scores, truth, min_sensitivity=0.95)
    assert found == pytest.approx(
        {
            "auroc": float(tmc.binary_auroc(scores, truth)),
            "aupr": float(tmc.binary_average_precision(scores, truth)),
            "fpr95": 1 - float(specificity),
        },
        **SINGLE,
    )


def test_reference_values_are_not_trivial() -> None:
    assert 0.5 < metrics.accuracy(LOG_PROBS, LABELS) < 0.95
    assert metrics.ece(LOG_PROBS, LABELS) > 0.05
    assert 0.1 < diversity(LOG_PROBS, LABELS)["disagreement"] < 0.9
