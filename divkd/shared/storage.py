"""Arrays that may be larger than memory: above `RESIDENT` bytes they lie in a file that is mapped.

What is read of such a file is the system's to keep or drop, so that a process needs no more memory for more images.
Other processes of a run map the same file.
"""

import atexit
import contextlib
import fcntl
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from divkd.shared.errors import RunError

RESIDENT = 1 << 30  # bytes of an array that stays in memory
SUFFIX = ".images"
_FILES: dict[Path, np.ndarray] = {}  # what this process has mapped and will delete


class Place(NamedTuple):
    """Where an array lies in a file."""

    path: str
    offset: int
    shape: tuple[int, ...]


def room(shape: Sequence[int], resident: int | None = None) -> np.ndarray:
    """An array of bytes to be filled, (shape) uint8: in memory, or mapped to a file in the folder for temporary ones.

    In memory it is up to so many bytes (`RESIDENT`).
    The environment variable TMPDIR names that folder; the file is deleted when the process ends, or, where it was
    killed, when another makes one. Raises `RunError` where it has no room.
    """
    size = math.prod(shape)
    if size <= (RESIDENT if resident is None else resident):
        return np.empty(shape, np.uint8)
    _forsaken(Path(tempfile.gettempdir()))
    handle, name = tempfile.mkstemp(prefix="divkd-")
    with contextlib.suppress(OSError):  # a file system without locks, where none is taken for forsaken either
        fcntl.flock(handle, fcntl.LOCK_EX)  # as long as the process lives: `handle` stays open
    path = Path(name).rename(name + SUFFIX)
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        os.close(handle)
        path.unlink()
        raise RunError(
            f"{path.parent} has no room for {size / 1e9:.1f} GB of images ({error.strerror}); set TMPDIR to another"
        ) from error
    array = _FILES[path] = mapped(Place(str(path), 0, tuple(shape)))
    return array


def _forsaken(folder: Path) -> None:
    """Delete the files of processes that were killed: nobody holds their lock."""
    for path in folder.glob(f"divkd-*{SUFFIX}"):
        with contextlib.suppress(OSError), open(path, "rb") as file:  # of somebody else, or gone meanwhile
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def mapped(place: Place) -> np.ndarray:
    """The array at `place`."""
    return np.memmap(place.path, np.uint8, "r+", place.offset, place.shape)


def placed(array: np.ndarray) -> Place:
    """Where `array`, or the whole that it is a stretch of, is mapped; one in memory is copied to a file first."""
    begin = array.__array_interface__["data"][0]
    for path, whole in _FILES.items():
        offset = begin - whole.__array_interface__["data"][0]
        if 0 <= offset < whole.nbytes and array.flags.c_contiguous:
            return Place(str(path), offset, array.shape)
    copy = room(array.shape, resident=-1)
    copy[:] = array
    return placed(copy)


@atexit.register
def _delete() -> None:
    for path in _FILES:
        path.unlink(missing_ok=True)
