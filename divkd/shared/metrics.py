"""The quality and the diversity of predictions: one definition each, on member log-probabilities (M, N, K).

Members first, float32 or float64, any device; everything is accumulated in float64 and nothing adds an epsilon. A
log-probability of -inf is legal: 0 * -inf counts 0, and an NLL or a KL divergence may be +inf. A prediction that is
not an ensemble has M = 1, and so has one that is pooled already: ``nll(pooled[None], labels)``.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from divkd.shared.errors import InputError

CONFIDENCE_BINS = 15

# Float64 copies are made of this many numbers at a time: 8 MiB, whatever the size of the input.
_BLOCK = 2**20

# Float32 log-softmax rows miss their sum of one by less than this, logits and probabilities usually by far more.
_SLACK = 1e-3


def check_log_probs(log_probs: Tensor) -> Tensor:
    """`log_probs` (M, N, K) as given; raises `InputError` unless it can be member log-probabilities.

    One pass over the numbers: NaN is refused, and any row whose largest class lies outside [1/K, 1], which no
    distribution can have. That catches probabilities and most logits, not every row that does not sum to one.
    """
    if not isinstance(log_probs, Tensor):
        raise InputError(f"log_probs is a {type(log_probs).__name__}; pass a torch tensor, e.g. torch.as_tensor(array)")
    if log_probs.dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"log_probs has dtype {log_probs.dtype}; float32 and float64 are allowed: "
            "use torch.log_softmax(logits.float(), -1)"
        )
    if log_probs.ndim != 3 or 0 in log_probs.shape:
        raise InputError(
            f"log_probs has shape {tuple(log_probs.shape)}; (members, samples, classes) is required, none of them "
            "zero: use log_probs[None] for a single model"
        )
    top = log_probs.detach().amax(dim=-1)
    low, high = top.amin().item(), top.amax().item()  # amin and amax pass NaN on, and NaN fails the comparison
    if not -math.log(log_probs.shape[-1]) - _SLACK <= low <= high <= _SLACK:
        raise InputError(
            f"the largest log-probability of a row ranges from {low:g} to {high:g}; between -log K = "
            f"{-math.log(log_probs.shape[-1]):g} and 0 is possible: use torch.log_softmax(logits, -1)"
        )
    return log_probs


def check_labels(labels: Tensor, log_probs: Tensor) -> Tensor:
    """`labels` (N,) as int64 on the device of `log_probs` (M, N, K); raises `InputError` where they do not fit it."""
    if not isinstance(labels, Tensor):
        raise InputError(f"labels is a {type(labels).__name__}; pass a torch tensor, e.g. torch.as_tensor(array)")
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise InputError(f"labels has dtype {labels.dtype}; class numbers are integers: use labels.long()")
    _, samples, classes = log_probs.shape
    if labels.shape != (samples,):
        raise InputError(
            f"labels has shape {tuple(labels.shape)}; ({samples},) is required: one class number for each sample"
        )
    labels = labels.to(log_probs.device, torch.int64)
    low, high = (int(bound.item()) for bound in labels.aminmax())
    if low < 0 or high >= classes:
        raise InputError(f"labels range from {low} to {high}; 0 to {classes - 1} is allowed for {classes} classes")
    return labels


def ensemble_log_probs(log_probs: Tensor) -> Tensor:
    """log p(k|x) = logsumexp_m log p_m(k|x) - log M, the log of the members' mean probability.

    The mixture of Lakshminarayanan et al. 2017 (arXiv:1612.01474), section 2.4, taken in log space. (M, N, K) to
    (N, K) float64, in nats; differentiable; exact for one member. Raises `InputError` where `log_probs` is unusable.
    """
    members = check_log_probs(log_probs).shape[0]
    if members == 1:
        return log_probs[0].double()
    return torch.cat([torch.logsumexp(block, dim=0) for block in _blocks(log_probs)]) - math.log(members)


def accuracy(log_probs: Tensor, labels: Tensor) -> float:
    """1/N sum_n [argmax_k p(k|x_n) = y_n], a fraction, with p the members' mean probability; a tie goes to the first.

    log_probs (M, N, K), labels (N,) integers in 0..K-1. Raises `InputError` where they are unusable.
    """
    pooled, labels = _pool(log_probs, labels)
    return float((pooled.argmax(dim=-1) == labels).double().mean())


def nll(log_probs: Tensor, labels: Tensor) -> float:
    """-1/N sum_n log p(y_n|x_n), in nats, with p the members' mean probability (not the members' mean NLL).

    +inf where a label is given probability zero. log_probs (M, N, K), labels (N,) integers in 0..K-1. Raises
    `InputError` where they are unusable.
    """
    pooled, labels = _pool(log_probs, labels)
    return float(-pooled.gather(1, labels[:, None]).mean()) + 0.0  # + 0.0 turns -0.0 into 0.0


def nll_member(log_probs: Tensor, labels: Tensor) -> float:
    """-1/(M N) sum_m sum_n log p_m(y_n|x_n), in nats: the members' mean NLL, never below the ensemble's (Jensen).

    log_probs (M, N, K), labels (N,) integers in 0..K-1. Raises `InputError` where they are unusable.
    """
    labels = check_labels(labels, check_log_probs(log_probs))
    index = labels[None, :, None].expand(log_probs.shape[0], -1, 1)
    return float(-log_probs.detach().gather(2, index).double().mean()) + 0.0


def brier(log_probs: Tensor, labels: Tensor) -> float:
    """1/N sum_n sum_k (p(k|x_n) - [k = y_n])^2 with p the members' mean probability, in [0, 2].

    The score as Brier 1950 defined it; libraries that divide by 2 or by K report less. log_probs (M, N, K), labels
    (N,) integers in 0..K-1. Raises `InputError` where they are unusable.
    """
    pooled, labels = _pool(log_probs, labels)
    errors = pooled.exp()
    errors[torch.arange(len(labels), device=labels.device), labels] -= 1
    return float(errors.square().sum(dim=-1).mean())


def confidence_bin(confidence: Tensor) -> Tensor:
    """clamp(ceil(15 c) - 1, 0, 14): the bin of each confidence among 15 of equal width, (lo, hi], the first [lo, hi].

    confidence: probabilities of any shape; the result has that shape, int64.
    """
    return ((confidence * CONFIDENCE_BINS).ceil().long() - 1).clamp(0, CONFIDENCE_BINS - 1)


def ece(log_probs: Tensor, labels: Tensor) -> float:
    """sum_b |B_b|/N |acc(B_b) - conf(B_b)|, the expected calibration error.

    Guo et al. 2017 (arXiv:1706.04599), equation 3. Confidence is the largest of the members' mean probabilities; the
    15 bins are those of `confidence_bin`, so a confidence of exactly 1 shares the last bin (torchmetrics 1.9 gives it
    a bin of its own). In [0, 1].

    log_probs (M, N, K), labels (N,) integers in 0..K-1. Raises `InputError` where they are unusable.
    """
    pooled, labels = _pool(log_probs, labels)
    top, predicted = pooled.max(dim=-1)
    confidence = top.exp()
    gaps = (predicted == labels).double() - confidence
    by_bin = gaps.new_zeros(CONFIDENCE_BINS).index_add_(0, confidence_bin(confidence), gaps)
    return float(by_bin.abs().sum()) / len(labels)


def pairwise_kl(log_probs: Tensor) -> float:
    """1/(M (M-1)) sum_{i != j} KL(p_j || p_i), the mean over samples and ordered pairs of members, in nats.

    Computed as sum_k cov_m(p_m(k), log p_m(k)), the sample covariance over members (M - 1 in the denominator): the
    pairs sum to the same thing, no pair is ever formed, and close members lose no digits.

    +inf where one member gives zero to a class that another gives more; a class that all members give zero (-inf,
    or exp underflows in float64) counts 0. One member has no pairs: 0.0. log_probs (M, N, K). Raises `InputError`
    where it is unusable.
    """
    members, samples, _ = check_log_probs(log_probs).shape
    if members == 1:
        return 0.0
    total = torch.zeros((), dtype=torch.float64, device=log_probs.device)
    for log_p in _blocks(log_probs.detach()):
        p = log_p.exp()
        zero = log_p.isneginf()
        if zero.any():
            if (zero.any(dim=0) & (p > 0).any(dim=0)).any():
                return math.inf
            log_p = log_p.masked_fill(zero, 0.0)
        log_p = log_p - log_p.mean(dim=0)
        total += (p - p.mean(dim=0)).mul_(log_p).sum()
    return max(float(total) / (samples * (members - 1)), 0.0)  # rounding may leave -1e-33 for equal members


def _pool(log_probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The ensemble's log-probabilities (N, K) float64, off the graph, and the checked labels."""
    pooled = ensemble_log_probs(log_probs.detach() if isinstance(log_probs, Tensor) else log_probs)
    return pooled, check_labels(labels, log_probs)


def _blocks(log_probs: Tensor) -> Iterator[Tensor]:
    """`log_probs` (M, N, K) in float64, a block of samples (M, n, K) at a time."""
    rows = max(1, _BLOCK // (log_probs.shape[0] * log_probs.shape[2]))
    return (block.double() for block in log_probs.split(rows, dim=1))
