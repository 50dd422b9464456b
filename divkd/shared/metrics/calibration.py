"""One temperature for an ensemble: pool, then calibrate."""

import math
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor

from divkd.shared.errors import InputError
from divkd.shared.metrics.checks import BLOCK, check_labels, check_log_probs
from divkd.shared.metrics.quality import ensemble_log_probs, quality_of, sample_scores

# Far outside what networks need (about 0.5 to 5), near enough that a fit at the lower bound, where the validation
# split held no error to learn from, cannot make one error on the test split cost hundreds of times its NLL.
LOWEST, HIGHEST = 0.05, 20.0


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature; `at_bound` says that the NLL still fell at the end of the allowed range."""

    value: float
    at_bound: bool


def fit_temperature(log_probs: Tensor, labels: Tensor) -> Temperature:
    """argmin_T -1/N sum_n log softmax(log p(.|x_n) / T)[y_n] over T in [0.05, 20], p the members' mean probability.

    Temperature scaling (Guo et al. 2017, arXiv:1706.04599, section 4.2) in the order of Rahaman and Thiery 2021
    (arXiv:2007.08792): pool, then calibrate. The NLL is convex in 1/T, so a sign change of its slope is its minimum.

    A validation split without errors drives T to the lower bound, one no better than chance to the upper; `at_bound`
    says so. Samples whose label has probability zero cost +inf at every T and are left out; where the NLL is the
    same for every T (uniform predictions, or zeros and ones that are right) T is 1.

    log_probs (M, N, K), labels (N,) integers in 0..K-1. Raises `InputError` where they are unusable.
    """
    labels = check_labels(labels, check_log_probs(log_probs))
    return fit_pooled(ensemble_log_probs(log_probs.detach()), labels)


def fit_pooled(pooled: Tensor, labels: Tensor, start: float = 1.0) -> Temperature:
    """`fit_temperature` of log-probabilities that are pooled and checked already: (N, K) float64, labels int64.

    `start` is where the search begins, e.g. the temperature of a similar ensemble; the answer does not depend on it.
    """
    possible = pooled.gather(1, labels[:, None])[:, 0] > -math.inf
    if not possible.any():
        return Temperature(1.0, at_bound=False)
    if not possible.all():
        pooled, labels = pooled[possible], labels[possible]
    target = float((pooled.gather(1, labels[:, None]) - pooled.amax(dim=-1, keepdim=True)).mean())
    # in blocks that stay in cache; a score of -inf weighs nothing at any temperature, and neither does -1e300
    scores = [(rows - rows.amax(dim=-1, keepdim=True)).clamp_(min=-1e300) for rows in _rows(pooled)]

    def slopes(log_beta: float) -> tuple[float, float]:
        """d NLL / d beta at beta = 1/T, the mean over samples of E_q[score] - score of the label; d2 NLL / d beta2."""
        beta, first, second = math.exp(log_beta), 0.0, 0.0
        for block in scores:
            weights = torch.exp(block * beta)
            total = weights.sum(dim=-1)
            weights *= block
            mean = weights.sum(dim=-1).div_(total)
            first += float(mean.sum())
            second += float((weights.mul_(block).sum(dim=-1) / total - mean.square_()).sum())
        return first / len(labels) - target, second / len(labels)

    low, high = -math.log(HIGHEST), -math.log(LOWEST)
    log_beta = min(max(-math.log(start), low), high)
    for _ in range(12):  # Newton's steps in log beta, where the optimum is inside and the curve is bent
        slope, bend = slopes(log_beta)
        step = slope / (bend * math.exp(log_beta)) if bend > 1e-200 else math.inf
        if abs(step) <= 1e-11:
            return Temperature(math.exp(-log_beta), at_bound=False)
        log_beta -= step
        if not low < log_beta < high:
            break
    # At a bound, flat, or far from the start: a bracket decides.
    at_low, at_high = slopes(low)[0], slopes(high)[0]
    if at_low == 0.0 and at_high == 0.0:
        return Temperature(1.0, at_bound=False)
    if at_high <= 0.0:
        return Temperature(LOWEST, at_bound=True)
    if at_low >= 0.0:
        return Temperature(HIGHEST, at_bound=True)
    root = brentq(lambda at: slopes(at)[0], low, high, xtol=1e-12, rtol=1e-12)  # type: ignore[no-untyped-call]  # scipy has no types
    return Temperature(math.exp(-root), at_bound=False)


def calibrated_nll(pooled: Tensor, labels: Tensor, temperature: float) -> float:
    """-1/N sum_n log softmax(log p(.|x_n) / T)[y_n], the NLL at a temperature, in nats, without a calibrated copy.

    pooled (N, K) float64, as `ensemble_log_probs` gives it, labels (N,) int64: both checked already.
    """
    total = 0.0
    for rows, classes in zip(_rows(pooled), _rows(labels, pooled.shape[1]), strict=True):
        scores = (rows - rows.amax(dim=-1, keepdim=True)) / temperature
        total += float((scores.exp().sum(dim=-1).log_() - scores.gather(1, classes[:, None])[:, 0]).sum())
    return total / len(labels)


def _rows(array: Tensor, classes: int | None = None) -> tuple[Tensor, ...]:
    """`array` (N, ...) in the blocks of rows that a (N, `classes`) array is read in."""
    rows: tuple[Tensor, ...] = array.split(max(1, BLOCK // (classes or array.shape[1])))
    return rows


def apply_temperature(pooled: Tensor, temperature: float) -> Tensor:
    """log softmax(log p / T), the calibrated log-probabilities of the ensemble (Guo et al. 2017, section 4.2).

    pooled (N, K), as `ensemble_log_probs` gives it, to (N, K) float64; -inf stays -inf, the argmax stays where it
    was. Raises `InputError` where `pooled` is unusable or the temperature is not a positive finite number.
    """
    if not 0 < temperature < math.inf:
        raise InputError(f"temperature is {temperature}; a positive finite number is required")
    if not isinstance(pooled, Tensor) or pooled.ndim != 2:
        given = tuple(pooled.shape) if isinstance(pooled, Tensor) else type(pooled).__name__
        raise InputError(f"the ensemble's log-probabilities are {given}; (samples, classes) is required: pool first")
    pooled = check_log_probs(pooled[None])[0].double()
    # the largest becomes 0 before the division, which can then overflow to -inf but never to inf - inf
    return torch.log_softmax((pooled - pooled.amax(dim=-1, keepdim=True)) / temperature, dim=-1)


def calibrated(pooled: Tensor, labels: Tensor, temperature: Temperature) -> tuple[dict[str, float], dict[str, Tensor]]:
    """{temperature, temperature_at_bound, cal_nll, cal_brier, cal_ece} and the calibrated predictions' scores.

    pooled (N, K) as `ensemble_log_probs` gives it, labels (N,), and a temperature fitted elsewhere.
    """
    scores = sample_scores(apply_temperature(pooled, temperature.value)[None], labels)
    row = {"temperature": temperature.value, "temperature_at_bound": temperature.at_bound}
    return row | calibrated_quality(scores), scores


def calibrated_quality(scores: dict[str, Tensor]) -> dict[str, float]:
    """{cal_nll, cal_brier, cal_ece} from the `sample_scores` of calibrated predictions."""
    return {f"cal_{name}": value for name, value in quality_of(scores).items() if name != "acc"}
