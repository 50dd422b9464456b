"""Predictions from any framework, read from one .npz file and checked."""

import difflib
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from divkd.shared.errors import InputError, RunError, unknown
from divkd.shared.metrics.checks import SLACK, check_labels, check_log_probs, check_probs, split
from divkd.shared.metrics.ood import energy as energy_of
from divkd.shared.storage import RESIDENT, room

PREFIXES = ("", "val_", "ood_")
# What a file may hold of predictions; of a binary problem's one column z, both columns.
KINDS = {"logits": "0 * z, z", "log_probs": "np.log1p(-np.exp(z)), z", "probs": "1 - z, z"}
ARRAYS = tuple(prefix + name for prefix in PREFIXES for name in (*KINDS, "labels") if prefix + name != "ood_labels")


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
    """What a file holds: the test split, and where given the validation split and samples of another distribution.

    `ignored` are the names of what it holds besides, with the name that each may have been meant for.
    """

    test: PredictedSplit
    val: PredictedSplit | None
    ood: PredictedSplit | None
    ignored: tuple[str, ...] = ()


def load(path: Path) -> Predictions:
    """Read `logits`, `log_probs` or `probs` (M, N, K) or (N, K), `labels` (N,), optional `val_*` of these and `ood_*`.

    float16 is widened to float32; logits and probabilities become float64 log-probabilities, -inf and 0 stay legal.
    Nothing is unpickled, and arrays of other names than `ARRAYS` are not read. Raises `InputError` where the file or an
    array is unusable, with the index of the first offender, and where the splits differ in members or classes.
    """
    others: list[str] = []
    arrays = read_arrays(path, others=others)
    if not KINDS.keys() & arrays.keys():
        held = ", ".join([*arrays, *others]) or "nothing"
        raise InputError(
            f"{path} holds {held}; logits, log_probs or probs is required: np.savez(path, logits=..., labels=...)"
        )
    splits = {prefix: _split(arrays, prefix, others) for prefix in PREFIXES}
    test = splits[""]
    assert test is not None
    for prefix, part in splits.items():
        (members, _, classes), (of, _, among) = (part or test).log_probs.shape, test.log_probs.shape
        if (members, classes) != (of, among):
            raise InputError(
                f"{prefix}predictions have {members} members and {classes} classes, the test predictions {of} and "
                f"{among}; predict all samples with the same model"
            )
    return Predictions(test, splits["val_"], splits["ood_"], tuple(_hinted(name, arrays) for name in others))


def _hinted(name: str, arrays: dict[str, np.ndarray]) -> str:
    close = difflib.get_close_matches(name, [one for one in ARRAYS if one not in arrays], n=1, cutoff=0.8)
    return f"{name} (did you mean {close[0]}?)" if close else name


def read_arrays(
    path: Path,
    allowed: Sequence[str] = ARRAYS,
    example: str = "logits=..., labels=...",
    others: list[str] | None = None,
) -> dict[str, np.ndarray]:
    """Every array of the .npz file `path` by name; raises `InputError` where one is damaged, pickled or misnamed.

    With `others`, arrays whose names are not `allowed` are left unread and their names put there.
    """
    try:
        with open(path, "rb") as file:
            try:
                content = np.load(file, allow_pickle=False)
            except (ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
                raise InputError(f"{path} is no .npz file; write one with np.savez(path, {example})") from error
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise InputError(f"{path} holds one array without a name; use np.savez(path, {example})")
            further = [name for name in content.files if name not in allowed]
            if others is not None:
                others += further
            elif further:
                raise unknown("array", further[0], allowed)
            return {name: _array(content, name, path) for name in content.files if name in allowed}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; give a .npz file") from error


def _array(content: np.lib.npyio.NpzFile, name: str, path: Path) -> np.ndarray:
    try:
        array = _streamed(content, name)
    except (MemoryError, RunError):
        raise
    except Exception as error:  # of a damaged or encrypted archive, zipfile, zlib, tokenize and NumPy raise anything
        if "pickle" in str(error):
            raise InputError(
                f"{name} in {path} holds Python objects, which are not read; save numbers, every row of the same "
                f"length: np.asarray({name}.tolist())"
            ) from error
        reason = str(error)[:80] or type(error).__name__
        raise InputError(f"{name} in {path} is damaged ({reason}); write the file again") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name} in {path} is no array; write the file with np.savez")
    return array


def _streamed(content: np.lib.npyio.NpzFile, name: str) -> Any:
    """Array `name`, read piece by piece where its bytes have no room in memory."""
    assert content.zip is not None
    with content.zip.open(f"{name}.npy") as file:
        try:
            version = np.lib.format.read_magic(file)
        except ValueError:  # no array
            return content[name]
        if version in ((1, 0), (2, 0)):
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            if dtype == np.uint8 and not fortran and math.prod(shape) > RESIDENT:
                array = room(shape)
                flat, at = array.reshape(-1), 0
                while piece := file.read(1 << 24):
                    flat[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
                    at += len(piece)
                if at < len(flat):
                    raise ValueError("it ends too early")
                return array
    return content[name]


def _split(arrays: dict[str, np.ndarray], prefix: str, others: list[str]) -> PredictedSplit | None:
    names = [prefix + kind for kind in KINDS if prefix + kind in arrays]
    label_name, held = prefix + "labels", f"; the file also holds {', '.join(others)}" if others else ""
    if not names:
        if label_name in arrays:
            some = " or ".join(prefix + kind for kind in KINDS)
            raise InputError(f"{label_name} stands alone; {some} belongs to it: save both or neither{held}")
        return None
    if len(names) > 1:
        raise InputError(f"{names[0]} and {names[1]} say the same twice; keep one of the two")
    if label_name not in arrays and prefix != "ood_":
        raise InputError(f"{names[0]} has no labels; {label_name} is required: one class number for each sample{held}")
    array = _members_first(names[0], arrays[names[0]], arrays.get(label_name), KINDS[names[0].removeprefix(prefix)])
    energy = None
    if names[0].endswith("logits"):
        given = energy_of(array, names[0])
        energy = given if given.abs().max() > SLACK else None  # log-probabilities carry none but rounding
        log_probs = torch.empty(array.shape, dtype=torch.float64)
        for source, target in zip(split(array), split(log_probs), strict=True):
            # the largest becomes 0 first, which keeps the digits of logits of any size
            scores = source.double() - source.double().amax(dim=-1, keepdim=True)
            torch.sub(scores, scores.exp().sum(dim=-1, keepdim=True).log_(), out=target)
    elif names[0].endswith("log_probs"):
        log_probs = check_log_probs(array, names[0])
    else:
        log_probs = check_probs(array, names[0]).double().log_()  # log 0 is -inf, which is legal
    if prefix == "ood_":
        return PredictedSplit(log_probs, None, energy)
    labels = check_labels(_labels(arrays[label_name], label_name), log_probs, label_name, names[0])
    return PredictedSplit(log_probs, labels, energy)


def _members_first(name: str, array: np.ndarray, labels: np.ndarray | None, columns: str) -> Tensor:
    """`array` as a float tensor (M, N, K); `columns` says how both columns of a binary problem come from one."""
    if array.dtype.kind != "f":
        raise InputError(
            f"{name} has dtype {array.dtype}; float16, float32 and float64 are allowed: {_as_float(array, name)}"
        )
    shape = array.shape
    if shape and 0 not in shape and len(shape) < 4 and (len(shape) == 1 or shape[-1] == 1):
        join = "np.stack" if len(shape) == 1 else "np.concatenate"
        raise InputError(
            f"{name} has shape {shape}, one class; at least 2 are required: of a binary problem "
            f"{join}([{columns.replace('z', name)}], -1)"
        )
    if len(shape) not in (2, 3) or 0 in shape:
        single = 0 not in shape and array.squeeze().ndim in (2, 3)
        raise InputError(
            f"{name} has shape {shape}; (members, samples, classes) or (samples, classes) is required, none of them "
            f"zero{f': {name}.squeeze()' if single else ''}"
        )
    if labels is not None and labels.ndim == 1 and shape[-2] != len(labels):
        if len(shape) == 3 and shape[0] == len(labels):
            raise InputError(
                f"{name} has shape {shape} for {len(labels)} labels; members come first: {name}.transpose(1, 0, 2)"
            )
        if shape[-1] == len(labels):
            raise InputError(
                f"{name} has shape {shape} for {len(labels)} labels; classes come last: {name}.swapaxes(-1, -2)"
            )
    array = array[None] if len(shape) == 2 else array
    with np.errstate(over="ignore"):  # a long double beyond float64 becomes infinite, and is refused as such
        return torch.from_numpy(np.ascontiguousarray(array, "f8" if array.dtype.itemsize >= 8 else "f4"))


def _as_float(array: np.ndarray, name: str) -> str:
    """What makes an array of another dtype one of floats."""
    if array.dtype.kind in "iub":
        return f"{name}.astype('float32')"
    if array.dtype.kind == "c":
        return f"{name}.real"
    if array.dtype.kind == "V" and array.dtype.names is None:  # NumPy's files keep the bytes of what they do not know
        return "a file keeps only the bytes of bfloat16 and float8: save tensor.float().numpy() or jnp.float32(array)"
    return "save the numbers that the network puts out"


def _labels(array: np.ndarray, name: str) -> Tensor:
    """`array` as a tensor that `check_labels` can judge."""
    if array.dtype.kind not in "iufb":
        raise InputError(
            f"{name} has dtype {array.dtype}; class numbers are integers from 0: np.searchsorted(columns, {name}), "
            "columns the names of the columns' classes in rising order"
        )
    if array.dtype == np.uint64:
        array = array.clip(max=2**63 - 1)  # which no class number is, as little as what it would wrap to
    kinds: dict[str, Any] = {"i": np.int64, "u": np.int64, "f": np.float64, "b": np.bool_}
    return torch.from_numpy(array.astype(kinds[array.dtype.kind], order="C"))
