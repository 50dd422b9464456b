"""How the members of an ensemble differ: for each sample, in total, by confidence, and member against member.

Everything takes member log-probabilities (M, N, K) and labels (N,), and raises `InputError`, as `quality` does. With
one member nothing differs: every measure of difference is 0 and the correlation of errors has no value (NaN).
"""

import math
from typing import Any

import torch
from torch import Tensor

from divkd.shared.metrics.checks import blocks, check_labels, check_log_probs
from divkd.shared.metrics.quality import (
    CONFIDENCE_BINS,
    confidence_bin,
    ensemble_log_probs,
    pairwise_kl_of,
    sample_scores,
)


def sample_diversity(log_probs: Tensor) -> dict[str, Tensor]:
    """For each sample: {pairwise_kl, disagreement, mutual_information} (N,) float64 and {votes} (M, N) int64.

    pairwise_kl          1/(M (M-1)) sum_{i != j} KL(p_j || p_i), in nats, as `divkd.shared.metrics.quality.pairwise_kl`
    disagreement         1/(M (M-1)) sum_{i != j} [argmax p_i != argmax p_j], the share of pairs that vote apart
    mutual_information   H(p) - 1/M sum_m H(p_m) with p the members' mean, between prediction and member, in nats: the
                         Jensen-Shannon divergence, in [0, log M] (Houlsby et al. 2011, arXiv:1112.5745)
    votes                argmax_k p_m(k|x_n); a tie goes to the first class

    0 log 0 counts 0, so only pairwise_kl may be +inf. log_probs (M, N, K); one pass in blocks.
    """
    members, samples, _ = check_log_probs(log_probs).shape
    log_probs = log_probs.detach()
    votes = torch.cat([block.argmax(dim=-1) for block in blocks(log_probs)], dim=1)
    apart = torch.zeros(samples, dtype=torch.float64, device=log_probs.device)
    if members == 1:
        return {"pairwise_kl": apart, "disagreement": apart, "mutual_information": apart, "votes": votes}
    kl, information = [], []
    for log_p in blocks(log_probs):
        p = log_p.exp()
        kl.append(pairwise_kl_of(log_p, p))
        information.append(_entropy(torch.logsumexp(log_p, dim=0) - math.log(members)) - _entropy(log_p, p).mean(0))
    for member in range(1, members):
        apart += (votes[:member] != votes[member]).sum(dim=0)
    return {
        "pairwise_kl": torch.cat(kl),
        "disagreement": apart / (members * (members - 1) / 2),
        "mutual_information": torch.cat(information).clamp_(0.0, math.log(members)),
        "votes": votes,
    }


def entropy(log_probs: Tensor) -> Tensor:
    """H(p) = -sum_k p(k|x_n) log p(k|x_n) of the members' mean probability, in nats: (M, N, K) to (N,) float64.

    0 log 0 counts 0.
    """
    pooled = ensemble_log_probs(log_probs).detach()
    return torch.cat([_entropy(block[0]) for block in blocks(pooled[None])]).clamp_(min=0.0)  # rounding


def decomposition(log_probs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """nll_member - nll = ensemble_gain, exactly and for each sample: three (N,) float64 tensors, in nats.

    nll_member = -1/M sum_m log p_m(y), nll = -log p(y), ensemble_gain = log of the arithmetic over the geometric mean
    of the members' probabilities of the label, >= 0 (the ambiguity of the cross-entropy: Wood et al. 2023,
    arXiv:2301.03962). The gain is +inf where some, not all, give the label zero; where all do, both NLLs
    are +inf and the gain counts 0, as the members agree. log_probs (M, N, K), labels (N,) integers in 0..K-1.
    """
    labels = check_labels(labels, check_log_probs(log_probs))
    given = of_labels(log_probs, labels)
    nll = math.log(len(given)) - torch.logsumexp(given, dim=0) + 0.0
    nll_member = -given.mean(dim=0) + 0.0
    gain = (nll_member - nll).clamp_(min=0.0).nan_to_num_(nan=0.0, posinf=math.inf)
    return {"nll_member": nll_member, "nll": nll, "ensemble_gain": gain}


def of_labels(log_probs: Tensor, labels: Tensor) -> Tensor:
    """log p_m(y_n|x_n), what each member says of the labels: (M, N) float64, off the graph, of checked arrays."""
    index = labels[None, :, None].expand(len(log_probs), -1, 1)
    return log_probs.detach().gather(2, index)[..., 0].double()


def error_correlation_matrix(votes: Tensor, labels: Tensor) -> Tensor:
    """corr_n([vote_i != y], [vote_j != y]), Pearson's correlation of the members' errors over samples: (M, M) float64.

    votes (M, N) class numbers, labels (N,). NaN where a member makes no error or nothing but errors, as its errors
    then do not vary.
    """
    wrong = (votes != labels).double()
    wrong -= wrong.mean(dim=1, keepdim=True)
    norm = torch.where(wrong.norm(dim=1) > 1e-9, wrong.norm(dim=1), math.nan)
    return ((wrong @ wrong.T) / (norm[:, None] * norm)).clamp_(-1.0, 1.0)


def agreement_matrix(votes: Tensor) -> Tensor:
    """1/N sum_n [vote_i(x_n) = vote_j(x_n)], how similar members predict (Fort et al. 2019, arXiv:1912.02757): (M, M).

    votes (M, N) class numbers; float64, 1 on the diagonal.
    """
    return torch.stack([(votes == vote).double().mean(dim=1) for vote in votes])


def diversity(log_probs: Tensor, labels: Tensor) -> dict[str, float]:
    """The means over samples {pairwise_kl, disagreement, mutual_information, nll_member, nll, ensemble_gain} and
    {error_correlation}, the mean over pairs of members whose errors vary (NaN where there is no such pair).

    Definitions: `sample_diversity`, `decomposition`, `error_correlation_matrix`. log_probs (M, N, K), labels (N,).
    """
    return diversity_of(measured(log_probs, labels))


def measured(log_probs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """`sample_diversity`, `decomposition` and {labels} (N,) int64 of the same samples, on the last axis."""
    labels = check_labels(labels, check_log_probs(log_probs))
    return {**sample_diversity(log_probs), **decomposition(log_probs, labels), "labels": labels}


def diversity_of(samples: dict[str, Tensor]) -> dict[str, float]:
    """`diversity` from what `measured` gives, of all samples or of some."""
    means = {name: float(value.mean()) for name, value in samples.items() if name not in ("votes", "labels")}
    return means | {"error_correlation": mean_pair(error_correlation_matrix(samples["votes"], samples["labels"]))}


def mean_pair(matrix: Tensor) -> float:
    """The mean of a symmetric (M, M) matrix over unordered pairs of members, NaN pairs left out; NaN without any."""
    return float(matrix[tuple(torch.triu_indices(len(matrix), len(matrix), 1))].nanmean())


def by_confidence(log_probs: Tensor, labels: Tensor) -> list[dict[str, float]]:
    """`diversity` within each of the 15 bins of `confidence_bin`, by the confidence of the mean prediction.

    Figure 3 of Nam et al. 2021 (arXiv:2110.14149). A list of {low, high, n, share, confidence, accuracy} and the keys
    of `diversity`: the reliability diagram is in it too. The mean of each measure but the correlation over bins,
    weighted by share, is its overall mean. An empty bin has n = 0, share = 0 and NaN elsewhere. log_probs (M, N, K),
    labels (N,) integers in 0..K-1.
    """
    return by_confidence_of(sample_scores(log_probs, labels), measured(log_probs, labels))


def by_confidence_of(scores: dict[str, Tensor], samples: dict[str, Tensor]) -> list[dict[str, float]]:
    """`by_confidence` from `sample_scores` and `measured` of the same samples."""
    rows = reliability(scores)
    index = confidence_bin(scores["confidence"])
    for number, row in enumerate(rows):
        row |= diversity_of({name: value[..., index == number] for name, value in samples.items()})
    return rows


def profile(log_probs: Tensor, labels: Tensor) -> dict[str, Any]:
    """{acc, confidence, pairwise_kl, disagreement, bins}, the bins {low, high, n, share, pairwise_kl}: `by_confidence`.

    The share of the samples and their mean pairwise KL by the confidence of the mean prediction (NaN in an empty bin),
    and the means over all of them. log_probs (M, N, K), labels (N,) integers in 0..K-1.
    """
    scores, samples = sample_scores(log_probs, labels), measured(log_probs, labels)
    means = {"acc": scores["correct"], "confidence": scores["confidence"]}
    means |= {name: samples[name] for name in ("pairwise_kl", "disagreement")}
    rows, keys = by_confidence_of(scores, samples), ("low", "high", "n", "share", "pairwise_kl")
    total = {name: float(value.mean()) for name, value in means.items()}
    return {**total, "bins": [{key: row[key] for key in keys} for row in rows]}


def reliability(scores: dict[str, Tensor]) -> list[dict[str, float]]:
    """The reliability diagram: {low, high, n, share, confidence, accuracy} for each of the 15 bins (lo, hi].

    Guo et al. 2017 (arXiv:1706.04599), figure 1. Of scores, `confidence` and `correct` (N,) float64 are read, as
    `sample_scores` gives them; sum_b share |accuracy - confidence| is `divkd.shared.metrics.quality.ece`. An empty bin
    has NaN means.
    """
    index = confidence_bin(scores["confidence"])
    count = torch.bincount(index, minlength=CONFIDENCE_BINS)
    zero = torch.zeros(CONFIDENCE_BINS, dtype=torch.float64, device=index.device)
    sums = [zero.index_add(0, index, scores[name]) for name in ("confidence", "correct")]
    means = [(total / count).tolist() for total in sums]  # 0 / 0 is NaN
    return [
        {
            "low": number / CONFIDENCE_BINS,
            "high": (number + 1) / CONFIDENCE_BINS,
            "n": int(count[number]),
            "share": float(count[number]) / len(index),
            "confidence": means[0][number],
            "accuracy": means[1][number],
        }
        for number in range(CONFIDENCE_BINS)
    ]


def _entropy(log_p: Tensor, p: Tensor | None = None) -> Tensor:
    """-sum_k p log p over the last axis, with 0 log 0 = 0."""
    p = log_p.exp() if p is None else p
    return -(p * log_p.clamp(min=-1e300)).sum(dim=-1)  # p is 0 wherever the clamp acts
