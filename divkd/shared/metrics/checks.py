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
    array = _members(log_probs, name, "torch.log_softmax(logits.float(), -1)")
    good = torch.cat([(block.exp().sum(dim=-1) - 1).abs() <= SLACK for block in split(array)], dim=1)  # NaN is not
    if not good.all():
        member, sample = _first(~good)
        raise InputError(_no_distribution(array[member, sample].double(), f"{name}[{member}, {sample}", sample))
    return log_probs


def check_logits(logits: Tensor, name: str = "logits") -> Tensor:
    """`logits` (M, N, K) as given; raises `InputError` unless log_softmax over the last axis is defined for every row.

    float32 or float64, M, N and K at least 1. -inf excludes a class and is legal; NaN, +inf and a row of nothing but
    -inf are refused with the index of the first, and so is an array whose every row is a row of probabilities.
    """
    array = _members(logits, name, f"{name}.float()")
    good = torch.cat([torch.isfinite(block.amax(dim=-1)) for block in split(array)], dim=1)  # amax passes NaN on
    if not good.all():
        member, sample = _first(~good)
        row = array[member, sample]
        if not (odd := row.isnan() | row.isposinf()).any():
            raise InputError(
                f"{name}[{member}, {sample}] is -inf in every class; at least one must be possible: {_again(sample)}"
            )
        where = f"{name}[{member}, {sample}, {_first(odd)[0]}]"
        raise InputError(
            f"{where} is {row[odd][0].item()}; logits are numbers, or -inf for no chance: {_again(sample)}"
        )
    if all(((block.sum(dim=-1) - 1).abs() <= SLACK).all() and (block >= 0).all() for block in split(array)):
        raise InputError(
            f"{name} holds probabilities: {name}[0, 0] and every other row sums to 1 with nothing below 0; give the "
            "numbers before the softmax, or the logarithms of these, or in a file the name probs"
        )
    return logits


def check_probs(probs: Tensor, name: str = "probs") -> Tensor:
    """`probs` (M, N, K) as given; raises `InputError` unless none is below 0 and |sum_k probs[m, n, k] - 1| <= 0.001.

    float32 or float64, M, N and K at least 1; zeros are legal. The message has the index of the first row that is none.
    """
    array = _members(probs, name, f"{name}.float()")
    good = torch.cat(
        [((block.sum(dim=-1) - 1).abs() <= SLACK) & (block >= 0).all(dim=-1) for block in split(array)], dim=1
    )
    if not good.all():
        member, sample = _first(~good)
        row, where = array[member, sample].double(), f"{name}[{member}, {sample}]"
        if not row.isfinite().all() and not (row <= 0).all():
            raise InputError(
                f"{where} holds {float(row[~row.isfinite()][0])}; probabilities are 0 to 1: {_again(sample)}"
            )
        if (row <= 0).all() and abs(float(row.exp().sum()) - 1) <= SLACK:
            raise InputError(f"{where} holds logarithms of probabilities; save them under the name log_probs")
        raise InputError(
            f"{where} is no row of probabilities: they sum to {float(row.sum()):g}, not 1, and the least is "
            f"{float(row.min()):g}; divide each row by its sum, or save logits under the name logits"
        )
    return probs


def check_labels(labels: Tensor, log_probs: Tensor, name: str = "labels", of: str = "predictions") -> Tensor:
    """`labels` (N,) as int64 on the device of `log_probs` (M, N, K); raises `InputError` where they do not fit it.

    Integers in 0..K-1; the message names the first that is not, under the name `name`, and what the labels are `of`.
    """
    _tensor(labels, name)
    _check_count(labels.shape, log_probs.shape, name, of)
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        dtype = str(labels.dtype).removeprefix("torch.")
        if labels.is_floating_point() and (odd := labels.remainder(1) != 0).any():  # inf and NaN leave NaN
            place = _first(odd)[0]
            raise InputError(
                f"{name} has dtype {dtype} and {name}[{place}] is {labels[place].item():g}, which is no class number: "
                f"correct it, or leave sample {place} out"
            )
        raise InputError(
            f"{name} has dtype {dtype}; class numbers are integers: use {name}.long(), or {name}.astype('int64') in "
            "NumPy"
        )
    classes = log_probs.shape[2]
    labels = labels.to(log_probs.device, torch.int64)
    if (odd := (labels < 0) | (labels >= classes)).any():
        low, high = int(labels.min()), int(labels.max())
        if low >= 1 and high == classes:
            mend = f"use {name} - 1"
        elif low < 0 and high < classes:
            mend = f"leave the samples below 0 out: {of}[..., {name} >= 0, :] and {name}[{name} >= 0]"
        else:
            mend = f"np.searchsorted(columns, {name}), columns the classes of the {classes} columns in rising order"
        raise InputError(
            f"{name}[{_first(odd)[0]}] is {int(labels[odd][0])}, and they range from {low} to {high}; 0 to "
            f"{classes - 1} is allowed for {classes} classes: {mend}"
        )
    return labels


def _check_count(shape: tuple[int, ...], predicted: tuple[int, ...], name: str, of: str) -> None:
    """Raise `InputError` unless labels of `shape` are one a sample of predictions (M, N, K)."""
    members, samples, classes = predicted
    if shape == (samples,):
        return
    count = math.prod(shape)
    if len(shape) == 1 and members == 1 and count > 1 and samples % count == 0:
        raise InputError(
            f"{name} has shape {tuple(shape)} for {samples} rows of {of}; if these are {samples // count} members, one "
            f"after another, use {of}.reshape({samples // count}, {count}, {classes})"
        )
    if len(shape) > 1 and count == samples:
        mend = f"use {name}.ravel()"
    elif shape == (samples, classes):
        mend = f"use {name}.argmax(1)"
    elif shape == (members, samples):
        mend = f"use {name}[0]"
    elif shape == (members * samples,):
        mend = f"use {name}[:{samples}]"
    else:
        mend = f"label the samples that {of} are of"
    raise InputError(
        f"{name} has shape {tuple(shape)}; ({samples},) is required, one class number for each sample: {mend}"
    )


def check_splits(
    val_log_probs: Tensor, val_labels: Tensor, test_log_probs: Tensor, test_labels: Tensor
) -> tuple[Tensor, Tensor]:
    """The labels of both splits, as `check_labels` gives them.

    Raises `InputError` where an array is unusable or the splits differ in members or classes.
    """
    val, test = check_log_probs(val_log_probs, "val_log_probs"), check_log_probs(test_log_probs, "test_log_probs")
    if (val.shape[0], val.shape[2]) != (test.shape[0], test.shape[2]):
        raise InputError(
            f"validation has shape {tuple(val.shape)} and test {tuple(test.shape)}; members and classes (the first "
            "and the last number) must be the same: predict both splits with the same model or ensemble"
        )
    return check_labels(val_labels, val, "val_labels"), check_labels(test_labels, test, "test_labels")


def split(log_probs: Tensor) -> Iterator[Tensor]:
    """`log_probs` (M, N, K) a block of samples (M, n, K) at a time, in its own precision."""
    rows = max(1, BLOCK // (log_probs.shape[0] * log_probs.shape[2]))
    return iter(log_probs.split(rows, dim=1))


def blocks(log_probs: Tensor) -> Iterator[Tensor]:
    """`log_probs` (M, N, K) in float64, a block of samples (M, n, K) at a time."""
    return (block.double() for block in split(log_probs))


def _tensor(array: Tensor, name: str) -> None:
    if not isinstance(array, Tensor):
        raise InputError(f"{name} is a {type(array).__name__}; pass a torch tensor, e.g. torch.as_tensor(array)")


def _members(array: Tensor, name: str, mend: str) -> Tensor:
    """`array` off the graph; raises `InputError` unless it is of floats (M, N, K)."""
    _tensor(array, name)
    if array.dtype not in (torch.float32, torch.float64):
        raise InputError(f"{name} has dtype {array.dtype}; float32 and float64 are allowed: use {mend}")
    if array.ndim != 3 or 0 in array.shape:
        mend = f": use {name}[None] for a single model" if array.ndim == 2 and 0 not in array.shape else ""
        raise InputError(
            f"{name} has shape {tuple(array.shape)}; (members, samples, classes) is required, none of them zero{mend}"
        )
    return array.detach()


def _first(bad: Tensor) -> list[int]:
    """The index of the first True."""
    index: list[int] = bad.nonzero()[0].tolist()
    return index


def _again(sample: int) -> str:
    """The mend of a sample that has no predictions."""
    return f"predict sample {sample} again, in float32, or leave it out"


def _no_distribution(row: Tensor, where: str, sample: int) -> str:
    """What to say of a row that is no distribution, by its place `where` in the array, ``log_probs[0, 1``."""
    if row.isnan().any():
        at = f"{where}, {_first(row.isnan())[0]}]"
        return f"{at} is nan; log-probabilities are numbers from -inf to 0: {_again(sample)}"
    if (row >= 0).all() and abs(float(row.sum()) - 1) <= SLACK:
        most = f"(the largest is {float(row.max()):g})"
        return f"{where}] holds probabilities {most}; take their logarithms, or in a file save them as probs"
    total = float(row.exp().sum())
    return (
        f"{where}] is no row of log-probabilities: the probabilities sum to {total:g}, not 1, and the largest "
        f"logarithm is {float(row.max()):g}; use torch.log_softmax(logits, -1)"
        + ("" if 0 < total < math.inf else f"; if they are infinite, {_again(sample)}")
    )
