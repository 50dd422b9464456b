"""Your predictions in numbers: quality, calibrated quality, diversity."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.networks.handed import described, shown
from divkd.empirical.use import given
from divkd.empirical.use.options import check_plain, iterated
from divkd.empirical.use.predict import gathered
from divkd.shared.errors import InputError
from divkd.shared.files import writable, write_bytes
from divkd.shared.metrics import evaluation
from divkd.shared.metrics.checks import check_labels, check_logits
from divkd.shared.metrics.quality import ensemble_log_probs, pairwise_kl, quality_of, sample_scores

Array = Tensor | np.ndarray


def evaluate(
    logits: Array | nn.Module,
    labels: Any,
    validation: Any = None,
    *,
    prepare: given.Prepare | None = None,
    out: Path | str | None = None,
) -> dict[str, float]:
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

    evaluate(model, loader) takes a network in place of logits, and batches in place of labels and of `validation`, as
    `distill` takes them, with its `prepare`; the network answers in eval mode and comes back as it was. Of soft labels
    the most probable class counts.

    out         a file (.npz) for the logits and labels, of which ``divkd evaluate`` makes tables, figures and a page

    Tensors or NumPy arrays. Raises `InputError` where one is unusable, naming the first misfit.
    """
    check_plain(prepare, "float32", None)
    if out is not None and (not isinstance(out, str | Path) or not str(out) or not writable(Path(out))):
        raise InputError(f"out {shown(out)} is no name of a file that can be written; give one such as student.npz")
    if isinstance(logits, nn.Module):
        model = logits
        logits, labels = answers(model, labels, "batches", prepare)
        if validation is not None:
            validation = answers(model, validation, "validation", prepare)
    log_probs, truth = _log_probs(logits, "logits"), given.tensor(labels, "labels")
    if validation is None:
        truth = check_labels(truth, log_probs)
        scores = sample_scores(ensemble_log_probs(log_probs)[None], truth)
        row = {**quality_of(scores), "pairwise_kl": pairwise_kl(log_probs)}
    else:
        if not isinstance(validation, tuple | list) or len(validation) != 2:
            raise InputError(f"validation is {described(validation)}; give a pair (logits, labels)")
        val_log_probs = _log_probs(validation[0], "validation logits")
        row = evaluation.evaluate(val_log_probs, given.tensor(validation[1], "validation labels"), log_probs, truth)
    if out is not None:
        arrays: dict[str, Any] = {"logits": logits, "labels": labels}
        arrays |= {} if validation is None else {"val_logits": validation[0], "val_labels": validation[1]}
        buffer = io.BytesIO()
        arrays = {name: given.tensor(array, name).cpu().numpy() for name, array in arrays.items()}
        np.savez(buffer, allow_pickle=False, **arrays)
        write_bytes(Path(out), buffer.getvalue())
    return row


def answers(
    model: nn.Module, batches: Any, name: str = "batches", prepare: given.Prepare | None = None
) -> tuple[Tensor, Tensor]:
    """Member logits (M, N, K) of all `batches`, float32 on the CPU, and their labels (N,)."""
    first = iterated(name, batches, 1)
    return gathered(model, given.checked(first, None, given.device_of(model), True, prepare=prepare))


def _log_probs(logits: Array, name: str) -> Tensor:
    """Logits as log-probabilities (M, N, K) in float64."""
    z = given.tensor(logits, name)
    if not z.is_floating_point():
        raise InputError(f"{name} are {z.dtype}; floats are needed: the numbers before the softmax")
    z = z.double()
    return torch.log_softmax(check_logits(z[None] if z.ndim == 2 else z, name), -1)
