"""What a model says of your data, with uncertainty."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.networks.handed import check_network, described, mapped, taken, tensors
from divkd.empirical.training.diagnosis import flaw
from divkd.empirical.training.seed_run import EVALUATION_BATCH
from divkd.empirical.use import given
from divkd.empirical.use.options import check_bounds, iterated
from divkd.shared.errors import InputError, RunError
from divkd.shared.metrics.diversity import entropy, sample_diversity
from divkd.shared.metrics.quality import ensemble_log_probs


class Classification(NamedTuple):
    """What a network says of N samples, and how sure it is: NumPy arrays, float64 but for `classes`."""

    probabilities: np.ndarray  # (N, K), the members' mean
    classes: np.ndarray  # (N,) int64, the most probable
    confidence: np.ndarray  # (N,), its probability
    entropy: np.ndarray  # (N,), of the mean, in nats, 0 to log K: all uncertainty
    mutual_information: np.ndarray  # (N,), between prediction and member, in nats, 0 to log M: the members' dissent


def predict(
    model: nn.Module, inputs: Any, temperature: float = 1.0, *, low: float | None = 0.0, high: float | None = 1.0
) -> Classification:
    """p = 1/M sum_m softmax(f_m(x)), its entropy H(p), and the mutual information H(p) - 1/M sum_m H(softmax(f_m(x))).

    inputs       (N, ...), a tensor or an array, or a tuple or dict of such; or a DataLoader (any iterable of batches),
                 of whose (inputs, labels) the labels are left alone
    model        a `BatchEnsemble`, a `DeepEnsemble` or a plain network: inputs to logits (M, B, K) or (B, K). A plain
                 network is an ensemble of one member, without mutual information. It answers in eval mode and comes
                 back as it was
    temperature  T, fitted on validation images (`evaluate`): p becomes softmax(log p / T); mutual information stays
                 that of the members as they are
    low, high    of images (N, 1 or 3, H, W), as most networks take floats in [0, 1]; None: no such end

    Returns a `Classification`: probabilities (N, K); classes, confidence, entropy and mutual_information (N,), the
    last two in nats. Raises `InputError` where the inputs are not as said, `RunError` where logits have no softmax.
    """
    check_network(model, "the model")
    given.check_number("temperature", temperature, 0, given.MOST, "a finite number above 0", above=True)
    bounds = check_bounds(low, high)
    log_probs = torch.log_softmax(member_answers(model, blocks(inputs, bounds)), -1)
    pooled = ensemble_log_probs(log_probs)
    if temperature != 1:
        pooled = torch.log_softmax(pooled / temperature, -1)
    probabilities = pooled.exp()
    confidence, classes = probabilities.max(-1)
    information = sample_diversity(log_probs)["mutual_information"]
    arrays = (probabilities, classes, confidence, entropy(pooled[None]), information)
    return Classification(*(array.numpy() for array in arrays))


def member_answers(model: nn.Module, batches: Iterable[Any]) -> Tensor:
    """Member logits (M, N, K), float32 on the CPU, of batches of inputs, in eval mode; raises `RunError` for a flaw."""
    # Not inference_mode: what a network keeps of a pass must be of use in training.
    with given.evaluating(model), torch.no_grad():
        device = given.device_of(model)
        answers = [
            given.member_logits(model, mapped(lambda part: part.to(device), block), "the model") for block in batches
        ]
    if not answers:
        raise InputError("the inputs hold no batch; give at least one")
    logits = torch.cat(answers, 1).float().cpu()
    if words := flaw(logits, "the model"):
        raise RunError(words)
    return logits


def gathered(model: nn.Module, pairs: Iterable[tuple[Any, Tensor]]) -> tuple[Tensor, Tensor]:
    """Member logits (M, N, K) of pairs of inputs and labels, and the labels (N,), the most probable of soft ones."""
    truth: list[Tensor] = []

    def inputs() -> Iterator[Any]:
        for x, labels in pairs:
            truth.append((labels if labels.ndim == 1 else labels.argmax(-1)).cpu())
            yield x

    logits = member_answers(model, inputs())
    return logits, torch.cat(truth)


def blocks(inputs: Any, bounds: tuple[float | None, float | None]) -> Iterable[Any]:
    """Batches of inputs, checked, of arrays or of a loader."""
    loader = isinstance(inputs, Iterable) and not isinstance(inputs, Tensor | np.ndarray | tuple | list | dict | str)
    if loader and not hasattr(inputs, "dtype"):
        for batch in iterated("inputs", inputs, 1):
            labelled = isinstance(batch, tuple | list) and len(batch) == 2
            yield from blocks(batch[0] if labelled else batch, bounds)
        return
    if isinstance(inputs, dict):
        x: Any = {key: given.tensor(part, str(key)) for key, part in inputs.items()}
    elif isinstance(inputs, tuple):
        x = tuple(given.tensor(part, "inputs") for part in inputs)
    else:
        x = given.tensor(inputs, "inputs")
    if not tensors(x):
        raise InputError(f"the inputs are {described(inputs)} without tensors; give numbers in one or several")
    x = given.check_inputs(x, *(bounds if given.is_picture(x) else (None, None)))
    for start in range(0, given.rows_of(x), EVALUATION_BATCH):
        stop = start + EVALUATION_BATCH
        yield taken(x, slice(start, stop))
