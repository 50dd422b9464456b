"""Predictions from any framework, read from one .npz file and checked."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from divkd.shared.errors import InputError, unknown
from divkd.shared.metrics.checks import SLACK, check_labels, check_log_probs, split
from divkd.shared.metrics.ood import energy as energy_of

PREFIXES = ("", "val_", "ood_")
ARRAYS = ("logits", "log_probs", "labels", "val_logits", "val_log_probs", "val_labels", "ood_logits", "ood_log_probs")


@dataclass(frozen=True)
class PredictedSplit:
    """Predictions on one set of samples: log_probs (M, N, K) float32 or float64, labels (N,) int64.

    `energy` (N,) float64 is there where raw logits were given, which log-probabilities under that name are not;
    `labels` is None for samples of another distribution.
    """

    log_probs: Tensor
    labels: Tensor | None
    energy: Tensor | None


@dataclass(frozen=True)
class Predictions:
    """What a file holds: the test split, and where given the validation split and samples of another distribution."""

    test: PredictedSplit
    val: PredictedSplit | None
    ood: PredictedSplit | None


def load(path: Path) -> Predictions:
    """Read `logits` or `log_probs` (M, N, K) or (N, K) and `labels` (N,), optional `val_*` of the same and `ood_*`.

    float16 is widened to float32; logits become float64 log-probabilities, -inf stays legal. Nothing is unpickled.
    Raises `InputError` where the file or an array is unusable, with the index of the first offender, where a name is
    not one of `ARRAYS`, and where the splits differ in members or classes.
    """
    arrays = read_arrays(path)
    if "logits" not in arrays and "log_probs" not in arrays:
        held = ", ".join(arrays) or "nothing"
        raise InputError(
            f"{path} holds {held}; logits or log_probs is required: np.savez(path, logits=..., labels=...)"
        )
    splits = {prefix: _split(arrays, prefix) for prefix in PREFIXES}
    test = splits[""]
    assert test is not None
    for prefix, part in splits.items():
        (members, _, classes), (of, _, among) = (part or test).log_probs.shape, test.log_probs.shape
        if (members, classes) != (of, among):
            raise InputError(
                f"{prefix}predictions have {members} members and {classes} classes, the test predictions {of} and "
                f"{among}; predict all samples with the same model"
            )
    return Predictions(test, splits["val_"], splits["ood_"])


def read_arrays(
    path: Path, allowed: Sequence[str] = ARRAYS, example: str = "logits=..., labels=..."
) -> dict[str, np.ndarray]:
    """Every array of the .npz file `path` by name; raises `InputError` where one is damaged, pickled or misnamed."""
    try:
        with open(path, "rb") as file:
            try:
                content = np.load(file, allow_pickle=False)
            except (ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
                raise InputError(f"{path} is no .npz file; write one with np.savez(path, {example})") from error
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise InputError(f"{path} holds one array without a name; use np.savez(path, {example})")
            for name in content.files:
                if name not in allowed:
                    raise unknown("array", name, allowed)
            return {name: _array(content, name, path) for name in content.files}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; give a .npz file") from error


def _array(content: np.lib.npyio.NpzFile, name: str, path: Path) -> np.ndarray:
    try:
        array = content[name]
    except MemoryError:
        raise
    except Exception as error:  # of a damaged or encrypted archive, zipfile, zlib, tokenize and NumPy raise anything
        if "pickle" in str(error):
            raise InputError(
                f"{name} in {path} holds Python objects, which are not read; save numbers: np.asarray(list, "
                "dtype='float32'), every row of the same length"
            ) from error
        reason = str(error)[:80] or type(error).__name__
        raise InputError(f"{name} in {path} is damaged ({reason}); write the file again") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name} in {path} is no array; write the file with np.savez")
    return array


def _split(arrays: dict[str, np.ndarray], prefix: str) -> PredictedSplit | None:
    names = [prefix + kind for kind in ("logits", "log_probs") if prefix + kind in arrays]
    label_name = prefix + "labels"
    if not names:
        if label_name in arrays:
            raise InputError(f"{label_name} stands alone; {prefix}logits or {prefix}log_probs belongs to it")
        return None
    if len(names) == 2:
        raise InputError(f"{names[0]} and {names[1]} say the same twice; keep one of the two")
    if label_name not in arrays and prefix != "ood_":
        raise InputError(f"{names[0]} has no labels; {label_name} is required: one class number for each sample")
    array = _members_first(names[0], arrays[names[0]], arrays.get(label_name))
    energy = None
    if names[0].endswith("logits"):
        given = energy_of(array, names[0])
        energy = given if given.abs().max() > SLACK else None  # log-probabilities carry none but rounding
        log_probs = torch.empty(array.shape, dtype=torch.float64)
        for source, target in zip(split(array), split(log_probs), strict=True):
            # the largest becomes 0 first, which keeps the digits of logits of any size
            scores = source.double() - source.double().amax(dim=-1, keepdim=True)
            torch.sub(scores, scores.exp().sum(dim=-1, keepdim=True).log_(), out=target)
    else:
        log_probs = check_log_probs(array, names[0])
    labels = check_labels(_labels(arrays[label_name], label_name), log_probs, label_name) if prefix != "ood_" else None
    return PredictedSplit(log_probs, labels, energy)


def _members_first(name: str, array: np.ndarray, labels: np.ndarray | None) -> Tensor:
    """`array` as a float tensor (M, N, K)."""
    if array.dtype.kind != "f":
        raise InputError(
            f"{name} has dtype {array.dtype}; float16, float32 and float64 are allowed: array.astype('float32')"
        )
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(
            f"{name} has shape {array.shape}; (members, samples, classes) or (samples, classes) is required, "
            "none of them zero"
        )
    array = array[None] if array.ndim == 2 else array
    if labels is not None and labels.ndim == 1 and len(labels) == array.shape[0] != array.shape[1]:
        raise InputError(
            f"{name} has shape {array.shape} for {len(labels)} labels; members come first: {name}.transpose(1, 0, 2)"
        )
    if array.shape[2] == 1:
        raise InputError(f"{name} has one class; at least 2 are required: give both columns of a binary problem")
    with np.errstate(over="ignore"):  # a long double beyond float64 becomes infinite, and is refused as such
        return torch.from_numpy(np.ascontiguousarray(array, "f8" if array.dtype.itemsize >= 8 else "f4"))


def _labels(array: np.ndarray, name: str) -> Tensor:
    """`array` as a tensor that `check_labels` can judge."""
    if array.dtype.kind not in "iufb":
        raise InputError(f"{name} has dtype {array.dtype}; class numbers are integers from 0")
    if array.ndim == 2:
        mend = "ravel()" if 1 in array.shape else "argmax(1)"
        raise InputError(f"{name} has shape {array.shape}; one class number for each sample: use {name}.{mend}")
    if array.dtype == np.uint64:
        array = array.clip(max=2**63 - 1)  # which no class number is, as little as what it would wrap to
    kinds: dict[str, Any] = {"i": np.int64, "u": np.int64, "f": np.float64, "b": np.bool_}
    return torch.from_numpy(array.astype(kinds[array.dtype.kind], order="C"))
