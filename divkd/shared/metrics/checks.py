"""What can be member log-probabilities (M, N, K) and labels (N,), and where what cannot be first goes wrong."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from divkd.shared.errors import InputError

# Float64 copies are made of this many numbers at a time: 512 KiB, which stays in a core's cache.
BLOCK = 2**16

# Float32 log-softmax rows miss their sum of one by less than this, logits and probabilities usually by far more.
SLACK = 1e-3


def check_log_probs(log_probs: Tensor, name: str = "log_probs") -> Tensor:
    """`log_probs` (M, N, K) as given; raises `InputError` unless |sum_k exp(log_probs[m, n, k]) - 1| <= 0.001.

    float32 or float64, M, N and K at least 1; -inf is legal, NaN and a row that is no distribution are refused with
    the index of the first one. `name` is what the message calls the array. One pass over the numbers.
    """
    if not isinstance(log_probs, Tensor):
        raise InputError(f"{name} is a {type(log_probs).__name__}; pass a torch tensor, e.g. torch.as_tensor(array)")
    if log_probs.dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"{name} has dtype {log_probs.dtype}; float32 and float64 are allowed: "
            "use torch.log_softmax(logits.float(), -1)"
        )
    if log_probs.ndim != 3 or 0 in log_probs.shape:
        raise InputError(
            f"{name} has shape {tuple(log_probs.shape)}; (members, samples, classes) is required, none of them "
            "zero: use log_probs[None] for a single model"
        )
    log_probs_ = log_probs.detach()
    for block in split(log_probs_):
        if not ((block.exp().sum(dim=-1) - 1).abs() <= SLACK).all():  # NaN fails the comparison
            raise InputError(_first_bad_row(log_probs_, name))
    return log_probs


def check_logits(logits: Tensor, name: str = "logits") -> Tensor:
    """`logits` (M, N, K) as given; raises `InputError` unless log_softmax over the last axis is defined for every row.

    float32 or float64, M, N and K at least 1. -inf excludes a class and is legal; NaN, +inf and a row of nothing but
    -inf are refused with the index of the first, and so is an array whose every row is a row of probabilities.
    """
    if not isinstance(logits, Tensor) or logits.dtype not in (torch.float32, torch.float64):
        given = f"dtype {logits.dtype}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"{name} is of {given}; a torch tensor of float32 or float64 is required")
    if logits.ndim != 3 or 0 in logits.shape:
        raise InputError(
            f"{name} has shape {tuple(logits.shape)}; (members, samples, classes) is required, none of them zero: "
            "use logits[None] for a single model"
        )
    logits_ = logits.detach()
    probabilities = True
    for block in split(logits_):
        top = block.amax(dim=-1)  # passes NaN on
        if not torch.isfinite(top).all():
            raise InputError(_first_bad_logit(logits_, name))
        probabilities = probabilities and bool(((block.sum(dim=-1) - 1).abs() <= SLACK).all() and (block >= 0).all())
    if probabilities:
        raise InputError(
            f"{name} holds probabilities: {name}[0, 0] and every other row sums to 1 with nothing below 0; pass the "
            "numbers before the softmax, or the logarithms as log_probs"
        )
    return logits


def check_labels(labels: Tensor, log_probs: Tensor, name: str = "labels") -> Tensor:
    """`labels` (N,) as int64 on the device of `log_probs` (M, N, K); raises `InputError` where they do not fit it.

    Integers in 0..K-1; the message names the first that is not, under the name `name`.
    """
    if not isinstance(labels, Tensor):
        raise InputError(f"{name} is a {type(labels).__name__}; pass a torch tensor, e.g. torch.as_tensor(array)")
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        where = ""
        if labels.is_floating_point() and labels.ndim == 1 and (odd := labels.remainder(1) != 0).any():
            index = int(odd.nonzero()[0])  # inf and NaN leave NaN
            where = f" and {name}[{index}] is {labels[index].item():g}"
        raise InputError(
            f"{name} has dtype {str(labels.dtype).removeprefix('torch.')}{where}; class numbers are integers: "
            "use labels.long(), or labels.astype('int64') in NumPy"
        )
    _, samples, classes = log_probs.shape
    if labels.shape != (samples,):
        raise InputError(
            f"{name} has shape {tuple(labels.shape)}; ({samples},) is required: one class number for each sample"
        )
    labels = labels.to(log_probs.device, torch.int64)
    low, high = (int(bound.item()) for bound in labels.aminmax())
    if low < 0 or high >= classes:
        index = int(((labels < 0) | (labels >= classes)).nonzero()[0])
        raise InputError(
            f"{name}[{index}] is {int(labels[index])}, and they range from {low} to {high}; 0 to {classes - 1} is "
            f"allowed for {classes} classes"
        )
    return labels


def split(log_probs: Tensor) -> Iterator[Tensor]:
    """`log_probs` (M, N, K) a block of samples (M, n, K) at a time, in its own precision."""
    rows = max(1, BLOCK // (log_probs.shape[0] * log_probs.shape[2]))
    return iter(log_probs.split(rows, dim=1))


def blocks(log_probs: Tensor) -> Iterator[Tensor]:
    """`log_probs` (M, N, K) in float64, a block of samples (M, n, K) at a time."""
    return (block.double() for block in split(log_probs))


def _first_bad_row(log_probs: Tensor, name: str) -> str:
    """What to say of the first row, in the order of the array, that is no distribution."""
    good = torch.cat([(block.exp().sum(dim=-1) - 1).abs() <= SLACK for block in split(log_probs)], dim=1)
    member, sample = (int(index) for index in (~good).nonzero()[0])
    row = log_probs[member, sample].double()
    where = f"{name}[{member}, {sample}"
    if row.isnan().any():
        return f"{where}, {int(row.isnan().nonzero()[0])}] is nan; log-probabilities are numbers from -inf to 0"
    if (row >= 0).all() and abs(float(row.sum()) - 1) <= SLACK:
        return f"{where}] holds probabilities (the largest is {float(row.max()):g}); pass their logarithms"
    total = float(row.exp().sum())
    return (
        f"{where}] is no row of log-probabilities: the probabilities sum to {total:g}, not 1, and the largest "
        f"logarithm is {float(row.max()):g}; use torch.log_softmax(logits, -1)"
        + ("" if math.isfinite(total) else ", and mend what made the logits infinite")
    )


def _first_bad_logit(logits: Tensor, name: str) -> str:
    """What to say of the first row, in the order of the array, that has no softmax."""
    good = torch.cat([torch.isfinite(block.amax(dim=-1)) for block in split(logits)], dim=1)
    member, sample = (int(index) for index in (~good).nonzero()[0])
    row = logits[member, sample]
    odd = row.isnan() | row.isposinf()
    if not odd.any():
        return f"{name}[{member}, {sample}] is -inf in every class; at least one must be possible"
    index = int(odd.nonzero()[0])
    return f"{name}[{member}, {sample}, {index}] is {row[index].item()}; logits are numbers, or -inf for no chance"
