"""Telling samples of another distribution from one's own: scores, and three measures of how well they separate.

The other distribution is the positive class, and every score is higher where a sample looks more out of
distribution (ood). Libraries that take one's own samples as positive report another AUPR and another FPR at 95 % for
the same scores.
"""

import torch
from torch import Tensor

from divkd.shared.errors import InputError
from divkd.shared.metrics.checks import blocks, check_logits
from divkd.shared.metrics.diversity import entropy, sample_diversity
from divkd.shared.metrics.quality import ensemble_log_probs

RECALL = 0.95


def energy(logits: Tensor, name: str = "logits") -> Tensor:
    """1/M sum_m -logsumexp_k f_m(k|x_n), the members' mean energy (Liu et al. 2020, arXiv:2010.03759, T = 1).

    Raw logits (M, N, K) to (N,) float64; log-probabilities would give 0 for every sample. Raises `InputError` where
    `logits` is unusable (`divkd.shared.metrics.checks.check_logits`), under the name `name`.
    """
    return torch.cat([-block.logsumexp(dim=-1).mean(dim=0) for block in blocks(check_logits(logits, name).detach())])


def ood_scores(log_probs: Tensor) -> dict[str, Tensor]:
    """{max_probability, entropy} and, of M > 1 members, {mutual_information}: (N,) float64, higher is more ood.

    max_probability is -max_k p(k|x_n) (Hendrycks and Gimpel 2017, arXiv:1610.02136) and entropy H(p), of the members'
    mean probability p; mutual_information as in `divkd.shared.metrics.diversity.sample_diversity`. log_probs (M, N, K).
    Raises `InputError` where it is unusable.
    """
    pooled = ensemble_log_probs(log_probs).detach()
    scores = {"max_probability": -pooled.amax(dim=-1).exp(), "entropy": entropy(pooled[None])}
    if log_probs.shape[0] > 1:
        scores["mutual_information"] = sample_diversity(log_probs)["mutual_information"]
    return scores


def separation(own: Tensor, ood: Tensor) -> dict[str, float]:
    """{auroc, aupr, fpr95} of the rule "ood where the score is at least t", all t: fractions in [0, 1].

    auroc   P(ood score > own score) + P(equal) / 2, the area under the ROC curve
    aupr    sum_t (R_t - R_{t-1}) P_t over falling t, the average precision (no interpolation between thresholds)
    fpr95   the share of own samples at or above the highest t that finds at least 95 % of the others

    own (N,), ood (N',) scores, higher where more ood; samples of equal score pass a threshold together.
    Raises `InputError` where either is empty, not of rank one, or holds NaN.
    """
    for name, scores in (("own", own), ("ood", ood)):
        if scores.ndim != 1 or not len(scores):
            raise InputError(f"the {name} scores have shape {tuple(scores.shape)}; one number a sample is needed")
        if (bad := scores.isnan()).any():
            raise InputError(f"{name}[{int(bad.nonzero()[0])}] is nan; scores are numbers")
    scores = torch.cat([own.double(), ood.double()])
    order = scores.argsort(descending=True)
    scores = scores[order]
    positive = (order >= len(own)).long()
    last = torch.ones_like(scores, dtype=torch.bool)  # of the samples that share a score: a threshold takes them all
    last[:-1] = scores[1:] != scores[:-1]
    hits = positive.cumsum(0)[last]
    false = (1 - positive).cumsum(0)[last]
    recall, fall_out = hits.double() / len(ood), false.double() / len(own)
    zero = recall.new_zeros(1)
    gained = torch.diff(recall, prepend=zero)
    area = torch.trapezoid(torch.cat([zero, recall]), torch.cat([zero, fall_out]))
    # counted in samples: a share of 0.95 that rounding leaves below 0.95 would move the threshold
    enough = hits * 100 >= round(RECALL * 100) * len(ood)
    return {
        "auroc": float(area),
        "aupr": float((gained * hits / (hits + false)).sum()),
        "fpr95": float(fall_out[enough][0]),
    }
