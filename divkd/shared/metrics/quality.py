"""The quality and the diversity of predictions: one definition each, on member log-probabilities (M, N, K).

Members first, float32 or float64, any device; everything is accumulated in float64 and nothing adds an epsilon. A
log-probability of -inf is legal: 0 * -inf counts 0, and an NLL or a KL divergence may be +inf. A prediction that is
not an ensemble has M = 1, and so has one that is pooled already: ``nll(pooled[None], labels)``. All raise `InputError`
where an array is unusable, naming the first misfit.
"""

import math

import torch
from torch import Tensor

from divkd.shared.metrics.checks import blocks, check_labels, check_log_probs

CONFIDENCE_BINS = 15


def ensemble_log_probs(log_probs: Tensor) -> Tensor:
    """log p(k|x) = logsumexp_m log p_m(k|x) - log M, the log of the members' mean probability.

    The mixture of Lakshminarayanan et al. 2017 (arXiv:1612.01474), section 2.4, taken in log space. (M, N, K) to
    (N, K) float64, in nats; exact for one member; differentiable but at a class that every member gives zero.
    """
    return pool(check_log_probs(log_probs))


def pool(log_probs: Tensor) -> Tensor:
    """`ensemble_log_probs` of an array that is checked already."""
    if len(log_probs) == 1:
        return log_probs[0].double()
    return torch.cat([torch.logsumexp(block, dim=0) for block in blocks(log_probs)]) - math.log(len(log_probs))


def sample_scores(log_probs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What each sample adds to the metrics below: {correct, nll, brier, confidence} of the members' mean probability p.

    correct [argmax_k p(k|x_n) = y_n], nll -log p(y_n|x_n), brier sum_k (p(k|x_n) - [k = y_n])^2, confidence
    max_k p(k|x_n): each (N,) float64, off the graph. log_probs (M, N, K), labels (N,) integers in 0..K-1.
    """
    pooled = ensemble_log_probs(log_probs).detach()
    labels = check_labels(labels, log_probs)
    top, predicted = pooled.max(dim=-1)
    target = pooled.gather(1, labels[:, None])[:, 0]
    # (p_y - 1)^2 beside the squares of the others, without a copy of the array: expm1 keeps the digits of 1 - p
    squares = torch.cat([block[0].mul(2).exp().sum(dim=-1) for block in blocks(pooled[None])])
    others = (squares - target.mul(2).exp()).clamp(min=0)
    return {
        "correct": (predicted == labels).double(),
        "nll": -target + 0.0,  # + 0.0 turns -0.0 into 0.0
        "brier": others + target.expm1().square(),
        "confidence": top.exp().clamp(max=1.0),  # rounding, or rows that are given with a sum of 1.0005
    }


def accuracy(log_probs: Tensor, labels: Tensor) -> float:
    """1/N sum_n [argmax_k p(k|x_n) = y_n], a fraction, with p the members' mean probability; a tie goes to the first.

    log_probs (M, N, K), labels (N,) integers in 0..K-1.
    """
    return float(sample_scores(log_probs, labels)["correct"].mean())


def nll(log_probs: Tensor, labels: Tensor) -> float:
    """-1/N sum_n log p(y_n|x_n), in nats, with p the members' mean probability (not the members' mean NLL).

    +inf where a label is given probability zero. log_probs (M, N, K), labels (N,) integers in 0..K-1.
    """
    return float(sample_scores(log_probs, labels)["nll"].mean())


def brier(log_probs: Tensor, labels: Tensor) -> float:
    """1/N sum_n sum_k (p(k|x_n) - [k = y_n])^2 with p the members' mean probability, in [0, 2].

    The score as Brier 1950 defined it; libraries that divide by 2 or by K report less. log_probs (M, N, K), labels
    (N,) integers in 0..K-1.
    """
    return float(sample_scores(log_probs, labels)["brier"].mean())


def confidence_bin(confidence: Tensor) -> Tensor:
    """clamp(ceil(15 c) - 1, 0, 14): the bin of each confidence among 15 of equal width, (lo, hi], the first [lo, hi].

    confidence: probabilities of any shape; the result has that shape, int64.
    """
    return ((confidence * CONFIDENCE_BINS).ceil().long() - 1).clamp(0, CONFIDENCE_BINS - 1)


def ece(log_probs: Tensor, labels: Tensor) -> float:
    """sum_b |B_b|/N |acc(B_b) - conf(B_b)|, the expected calibration error.

    Guo et al. 2017 (arXiv:1706.04599), equation 3. Confidence is the largest of the members' mean probabilities; the
    15 bins are those of `confidence_bin`, so a confidence of exactly 1 shares the last bin (torchmetrics 1.9 gives it
    a bin of its own). In [0, 1]. log_probs (M, N, K), labels (N,) integers in 0..K-1.
    """
    return quality_of(sample_scores(log_probs, labels))["ece"]


def quality_of(scores: dict[str, Tensor]) -> dict[str, float]:
    """{acc, nll, brier, ece} from `sample_scores`."""
    means = {name: float(scores[key].mean()) for name, key in (("acc", "correct"), ("nll", "nll"), ("brier", "brier"))}
    confidence = scores["confidence"]
    gaps = confidence.new_zeros(CONFIDENCE_BINS)
    gaps.index_add_(0, confidence_bin(confidence), scores["correct"] - confidence)
    return means | {"ece": float(gaps.abs().sum()) / len(confidence)}


def by_rank(confidence: Tensor) -> Tensor:
    """The samples' indices (N,) from the most to the least confident."""
    return confidence.argsort(descending=True, stable=True)


def adaptive_ece(log_probs: Tensor, labels: Tensor) -> float:
    """sum_b |B_b|/N |acc(B_b) - conf(B_b)| over 15 bins of equal mass: B_b holds the ranks n with floor(15 n / N) = b.

    The adaptive binning of Nguyen and O'Connor 2015 (arXiv:1508.05154) in Guo's ECE of the predicted class; see Nixon
    et al. 2019 (arXiv:1904.01685). n = 0..N-1 counts from the most confident sample on: bins differ by one sample at
    most, and fewer than 15 samples are alone in theirs. Samples of equal confidence count as the share of them that is
    right, so that it does not matter which side of a bin's edge each is on. In [0, 1].
    log_probs (M, N, K), labels (N,) integers in 0..K-1.
    """
    return _ranked_quality(log_probs, labels)["adaptive_ece"]


def aurc(log_probs: Tensor, labels: Tensor) -> float:
    """1/N sum_{n=1..N} r(n), r(n) = 1/n sum_{i<=n} [wrong_i] the error rate of the n most confident samples.

    The area under the risk-coverage curve (Geifman et al. 2019, arXiv:1805.08206; 0-1 loss): what it costs
    to answer the share n/N of the samples and leave the least confident out, over all shares. Samples of equal
    confidence count as the share of them that is wrong, which is r(n) averaged over their orders; where all are equal
    it is the error rate. In [0, 1], lower is better. log_probs (M, N, K), labels (N,) integers in 0..K-1.
    """
    return _ranked_quality(log_probs, labels)["aurc"]


def _ranked_quality(log_probs: Tensor, labels: Tensor) -> dict[str, float]:
    scores = sample_scores(log_probs, labels)
    return ranked_quality(scores, by_rank(scores["confidence"]))


def ranked_quality(scores: dict[str, Tensor], order: Tensor) -> dict[str, float]:
    """{adaptive_ece, aurc} from `sample_scores`, of the samples `order` (n,), the most confident first."""
    confidence, hits = scores["confidence"][order], _tied(scores, order)
    gaps = confidence.new_zeros(CONFIDENCE_BINS)
    place = torch.arange(len(order), device=order.device)
    gaps.index_add_(0, place * CONFIDENCE_BINS // len(order), hits - confidence)
    return {
        "adaptive_ece": float(gaps.abs().sum()) / len(order),
        "aurc": float(((1 - hits).cumsum(0) / (place + 1)).mean()),
    }


def risk_coverage(scores: dict[str, Tensor], points: int = 100) -> list[dict[str, float]]:
    """The curve r(n) of `aurc` at `points` shares of the samples, or at all where they are fewer: {coverage, risk}."""
    hits = _tied(scores, by_rank(scores["confidence"]))
    risks, count = (1 - hits).cumsum(0), len(hits)
    kept = sorted({-(-count * point // points) for point in range(1, points + 1)})
    return [{"coverage": n / count, "risk": float(risks[n - 1]) / n} for n in kept]


def _tied(scores: dict[str, Tensor], order: Tensor) -> Tensor:
    """Of each sample in `order`, the share that is right among those as confident as it."""
    hits = scores["correct"][order]
    _, group, count = torch.unique_consecutive(scores["confidence"][order], return_inverse=True, return_counts=True)
    shares: Tensor = hits.new_zeros(len(count)).index_add_(0, group, hits) / count
    return shares[group]


def pairwise_kl(log_probs: Tensor) -> float:
    """1/(M (M-1)) sum_{i != j} KL(p_j || p_i), the mean over samples and ordered pairs of members, in nats.

    Computed as sum_k cov_m(p_m(k), log p_m(k)), the sample covariance over members (M - 1 in the denominator): the
    pairs sum to the same thing, no pair is ever formed, and close members lose no digits.

    +inf where one member gives zero to a class that another gives more; a class that all members give zero (-inf,
    or exp underflows in float64) counts 0. One member has no pairs: 0.0. log_probs (M, N, K).
    """
    members, samples, _ = check_log_probs(log_probs).shape
    if members == 1:
        return 0.0
    total = 0.0
    for log_p in blocks(log_probs.detach()):
        total += float(pairwise_kl_of(log_p, log_p.exp()).sum())
    return total / samples


def pairwise_kl_of(log_p: Tensor, p: Tensor) -> Tensor:
    """The mean over ordered pairs of `pairwise_kl` for each sample: (M, n, K) float64 and its exp to (n,), M > 1."""
    zero = log_p.isneginf()
    infinite = (zero.any(dim=0) & (p > 0).any(dim=0)).any(dim=-1) if zero.any() else None
    centred = log_p.clamp(min=-1e300)  # its p is 0, and 0 * -inf or an overflow in the mean would be NaN
    centred -= centred.mean(dim=0)
    kl = (p - p.mean(dim=0)).mul_(centred).sum(dim=0).sum(dim=-1).div_(len(log_p) - 1)
    kl.clamp_(min=0.0)  # rounding may leave -1e-33 for equal members
    return kl if infinite is None else kl.masked_fill_(infinite, math.inf)
