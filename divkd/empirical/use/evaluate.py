"""Your predictions in numbers: quality, calibrated quality, diversity."""

import numpy as np
import torch
from torch import Tensor

from divkd.empirical.networks.handed import described
from divkd.empirical.use.given import tensor
from divkd.shared.errors import InputError
from divkd.shared.metrics import evaluation
from divkd.shared.metrics.checks import check_labels, check_logits
from divkd.shared.metrics.quality import ensemble_log_probs, pairwise_kl, quality_of, sample_scores

Array = Tensor | np.ndarray


def evaluate(logits: Array, labels: Array, validation: tuple[Array, Array] | None = None) -> dict[str, float]:
    """What p(k|x) = 1/M sum_m softmax(z_m)_k is worth on N samples, as one flat row:

        acc, nll      share of samples whose label is the most probable class; -1/N sum_n log p(y_n|x_n), in nats
        brier         1/N sum_n sum_k (p(k|x_n) - [k = y_n])^2
        ece           the expected calibration error, of 15 bins of confidence
        pairwise_kl   mean KL between two members, in nats; 0 for one
        temperature, temperature_at_bound      T that is best for the NLL on `validation`; whether it ended the search
        cal_nll, cal_brier, cal_ece            of softmax(log p / T)

    logits      z (M, N, K), members first, or (N, K) of one network: floats, or log-probabilities, which a softmax
                leaves as they are
    labels      y (N,), whole numbers 0 to K-1
    validation  the same two of samples that the model did not learn from, of any number; without, T and the calibrated
                values are left out, as the samples that judge never choose

    Tensors or NumPy arrays. Raises `InputError` where one is unusable, naming the first misfit.
    """
    log_probs, truth = _log_probs(logits, "logits"), tensor(labels, "labels")
    if validation is not None:
        if not isinstance(validation, tuple | list) or len(validation) != 2:
            raise InputError(f"validation is {described(validation)}; give a pair (logits, labels)")
        val_log_probs = _log_probs(validation[0], "validation logits")
        return evaluation.evaluate(val_log_probs, tensor(validation[1], "validation labels"), log_probs, truth)
    truth = check_labels(truth, log_probs)
    scores = sample_scores(ensemble_log_probs(log_probs)[None], truth)
    return {**quality_of(scores), "pairwise_kl": pairwise_kl(log_probs)}


def _log_probs(logits: Array, name: str) -> Tensor:
    """Logits as log-probabilities (M, N, K) in float64."""
    z = tensor(logits, name)
    if not z.is_floating_point():
        raise InputError(f"{name} are {z.dtype}; floats are needed: the numbers before the softmax")
    z = z.double()
    return torch.log_softmax(check_logits(z[None] if z.ndim == 2 else z, name), -1)
