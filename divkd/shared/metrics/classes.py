"""Which classes are taken for which, and how well each is told."""

import math

import torch
from torch import Tensor

from divkd.shared.metrics.checks import check_labels
from divkd.shared.metrics.quality import ensemble_log_probs


def confusion(log_probs: Tensor, labels: Tensor) -> Tensor:
    """C[i, j] = #{n: y_n = i, argmax_k p(k|x_n) = j}, p the members' mean probability: (K, K) int64, a row a class.

    A tie goes to the first class. log_probs (M, N, K), labels (N,) integers in 0..K-1; raises `InputError`.
    """
    return confusion_of(
        ensemble_log_probs(log_probs).argmax(dim=-1), check_labels(labels, log_probs), log_probs.shape[2]
    )


def confusion_of(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """`confusion` from class numbers (N,) int64 that are checked already."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def by_class(counts: Tensor) -> list[dict[str, float]]:
    """{class, support, predicted, precision, recall, f1} of each class from its `confusion`.

        precision  C[k, k] / sum_i C[i, k]    recall  C[k, k] / sum_j C[k, j]    f1  2 C[k, k] / (support + predicted)

    (van Rijsbergen 1979, chapter 7; F1 is the harmonic mean of the two). support is the row's sum and predicted the
    column's. NaN where the denominator is zero: a class that is never predicted has no precision, where scikit-learn
    reports 0 unless asked for NaN.
    """
    support, predicted, hits = counts.sum(dim=1).tolist(), counts.sum(dim=0).tolist(), counts.diagonal().tolist()

    def share(part: int, whole: int) -> float:
        return part / whole if whole else math.nan

    return [
        {
            "class": number,
            "support": true,
            "predicted": told,
            "precision": share(hit, told),
            "recall": share(hit, true),
            "f1": share(2 * hit, true + told),
        }
        for number, (true, told, hit) in enumerate(zip(support, predicted, hits, strict=True))
    ]
