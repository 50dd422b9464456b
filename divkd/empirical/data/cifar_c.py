"""The published layout of CIFAR-10-C and CIFAR-100-C: labels.npy and one KIND.npy for each kind of corruption."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from divkd.empirical.data.arrays import class_numbers
from divkd.empirical.data.corrupt import SEVERITIES, Corruptions, check_cell
from divkd.shared.errors import InputError

LABELS = "labels.npy"


def read_published(folder: Path, limit: int | None = None) -> Corruptions:
    """The first `limit` images (all: None) of every kind of corruption in `folder`, read only when asked for.

    labels.npy (5 n,) holds the n labels five times, KIND.npy (5 n, H, W, C) uint8 severity s in rows (s - 1) n to s n;
    as published, n = 10,000 and the images are 32 x 32 x 3. Nothing is unpickled. The kinds are sorted; labels (N,)
    int64, images (N, C, H, W) uint8. Raises `InputError` for the first file that does not fit.
    """
    if not (folder / LABELS).is_file():
        why = f"holds no {LABELS}" if folder.is_dir() else "is no folder"
        mend = f"with {LABELS} and a KIND.npy for each corruption, into which CIFAR-10-C or CIFAR-100-C was unpacked"
        raise InputError(f"{folder} {why}; give the folder {mend}")
    labels = _read_labels(folder / LABELS)
    rows, count = len(labels), len(labels) // SEVERITIES
    limit = count if limit is None else limit
    if not 1 <= limit <= count:
        raise InputError(f"limit {limit} is not the number of images to read from {folder}; allowed: 1 to {count}")
    arrays: dict[str, np.ndarray] = {}
    for file in sorted(folder.glob("*.npy")):
        if file.name == LABELS:
            continue
        array = arrays[file.stem] = _open(file)
        first = next(iter(arrays.values()))
        fits = array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] in (1, 3) and 0 not in array.shape
        if not fits or len(array) != rows or array.shape != first.shape:
            size = "H, W, 1 or 3" if array is first else ", ".join(map(str, first.shape[1:]))
            raise InputError(
                f"{file} is {array.dtype} of shape {array.shape}; uint8 of shape ({rows}, {size}) is needed "
                f"beside {rows} labels: restore it, or move it out of {folder}"
            )
    if not arrays:
        raise InputError(f"{folder} holds no KIND.npy beside {LABELS}; put at least one there, e.g. fog.npy")
    kinds = tuple(arrays)

    def images(kind: str, severity: int) -> Tensor:
        check_cell(kind, severity, kinds)
        start = (severity - 1) * count
        return torch.from_numpy(np.array(arrays[kind][start : start + limit].transpose(0, 3, 1, 2), order="C"))

    return Corruptions(f"published arrays in {folder}", kinds, torch.from_numpy(labels[:limit].copy()), images)


def _read_labels(file: Path) -> np.ndarray:
    labels = class_numbers(str(file), _open(file))
    if len(labels) == 0 or len(labels) % SEVERITIES:
        raise InputError(f"{file} has {len(labels)} labels; a multiple of {SEVERITIES} is needed, n for each severity")
    blocks = labels.reshape(SEVERITIES, -1)
    for severity, block in enumerate(blocks[1:], 2):
        if (bad := np.flatnonzero(block != blocks[0])).size:
            row = (severity - 1) * len(block) + bad[0]
            raise InputError(
                f"{file}: row {row} (severity {severity}) has label {block[bad[0]]} and row {bad[0]} (severity 1) "
                f"{blocks[0, bad[0]]}; all severities show the same images in one order: restore the file"
            )
    return labels


def _open(file: Path) -> np.ndarray:
    """The array in `file`, mapped and not loaded; arrays of Python objects are refused, not unpickled."""
    try:
        return np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError, EOFError, OverflowError, SyntaxError) as error:
        raise InputError(f"{file} cannot be read as an array of numbers ({error}); restore or remove it") from error
