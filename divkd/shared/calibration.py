"""One temperature for an ensemble: pool, then calibrate."""

import math
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor

from divkd.shared.errors import InputError
from divkd.shared.metrics import check_labels, check_log_probs, ensemble_log_probs

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
    pooled = ensemble_log_probs(log_probs.detach())
    possible = pooled.gather(1, labels[:, None])[:, 0] > -math.inf
    if not possible.any():
        return Temperature(1.0, at_bound=False)
    if not possible.all():
        pooled, labels = pooled[possible], labels[possible]
    scores = pooled - pooled.amax(dim=-1, keepdim=True)
    target = scores.gather(1, labels[:, None])[:, 0]
    finite = scores.masked_fill(scores.isneginf(), 0.0)  # its weight is zero at every temperature

    def slope(log_beta: float) -> float:
        """d NLL / d beta at beta = 1/T: the mean over samples of E_q[score] - score of the label."""
        weights = torch.exp(scores * math.exp(log_beta))
        return float(((weights * finite).sum(dim=-1) / weights.sum(dim=-1) - target).mean())

    low, high = -math.log(HIGHEST), -math.log(LOWEST)
    at_low, at_high = slope(low), slope(high)
    if at_low == 0.0 and at_high == 0.0:
        return Temperature(1.0, at_bound=False)
    if at_high <= 0.0:
        return Temperature(LOWEST, at_bound=True)
    if at_low >= 0.0:
        return Temperature(HIGHEST, at_bound=True)
    root = brentq(slope, low, high, xtol=1e-12, rtol=1e-12)  # type: ignore[no-untyped-call]  # scipy has no types
    return Temperature(math.exp(-root), at_bound=False)


def apply_temperature(pooled: Tensor, temperature: float) -> Tensor:
    """log softmax(log p / T), the calibrated log-probabilities of the ensemble (Guo et al. 2017, section 4.2).

    pooled (N, K), as `ensemble_log_probs` gives it, to (N, K) float64; -inf stays -inf, the argmax stays where it
    was. Raises `InputError` where `pooled` is unusable or the temperature is not a positive finite number.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"temperature is {temperature}; a positive finite number is required")
    if not isinstance(pooled, Tensor) or pooled.ndim != 2:
        given = tuple(pooled.shape) if isinstance(pooled, Tensor) else type(pooled).__name__
        raise InputError(f"the ensemble's log-probabilities are {given}; (samples, classes) is required: pool first")
    pooled = check_log_probs(pooled[None])[0].double()
    # the largest becomes 0 before the division, which can then overflow to -inf but never to inf - inf
    return torch.log_softmax((pooled - pooled.amax(dim=-1, keepdim=True)) / temperature, dim=-1)
