"""Arrays that someone hands over as images or class numbers: what they must be, and what makes them so."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from divkd.shared.errors import InputError

LARGEST = 512  # pixels a side: images are resident and the networks are made for small ones
CHANNELS = (1, 3)


def channels_first(name: str, array: np.ndarray) -> np.ndarray:
    """`array`, (N, H, W, C) or (N, C, H, W) uint8, with channels first; raises `InputError` where it is neither."""
    if array.dtype != np.uint8:
        raise InputError(f"{name} has dtype {array.dtype}; bytes from 0 to 255 are needed: {_bytes(array)}")
    first, last = (array.ndim == 4 and array.shape[axis] in CHANNELS for axis in (1, 3))
    if first == last or 0 in array.shape:
        allowed = "(N, H, W, C) or (N, C, H, W) with C = 1 or 3 is needed"
        raise InputError(f"{name} has shape {array.shape}; {allowed}: {_layout(array)}")
    if max(array.shape[1:]) > LARGEST:
        step = math.ceil(max(array.shape[1:]) / LARGEST)
        mend = f"array[..., ::{step}, ::{step}]" if first else f"array[:, ::{step}, ::{step}]"
        raise InputError(
            f"{name} has shape {array.shape}; at most {LARGEST} pixels a side are allowed: scale it down, e.g. {mend}"
        )
    return array if first else array.transpose(0, 3, 1, 2)


def images_like(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`channels_first` of `array`, whose images have to be of `shape` (C, H, W), a run's; else `InputError`."""
    images = channels_first(name, array)
    if images.shape[1:] == shape:
        return images
    last = array.shape[3] in CHANNELS
    if images.shape[2:] != shape[1:]:
        mend = f"scale them to {shape[2]} x {shape[1]}"
    elif shape[0] == 3:
        mend = f"np.repeat(array, 3, axis={3 if last else 1})"
    else:
        luma = f"np.tensordot(array, [0.299, 0.587, 0.114], ({3 if last else 1}, 0))"
        mend = f"{luma}{'[..., None]' if last else '[:, None]'}.round().astype('uint8')"
    raise InputError(f"{name} are {_size(images.shape[1:])} and the run's {_size(shape)}; make them alike: {mend}")


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]} x {shape[1]} pixels with {shape[0]} channel{'s' * (shape[0] > 1)}"


def _bytes(array: np.ndarray) -> str:
    """What makes bytes of `array`, as its values ask for."""
    if array.dtype.kind == "V":
        return "it holds raw bytes, as of bfloat16; write tensor.float().numpy() into the file"
    if array.dtype.kind not in "fiub":
        return "write numbers into the file"
    if array.size == 0:
        return "array.astype('uint8')"
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        return "it holds NaN or infinities; leave out the images that do, with their labels"
    if low >= 0 and high <= 1:
        return "(255 * array).round().astype('uint8')" if array.dtype.kind == "f" else "255 * array.astype('uint8')"
    if low >= 0 and high <= 255:
        return "array.round().astype('uint8')" if array.dtype.kind == "f" else "array.astype('uint8')"
    if array.dtype == np.uint16:
        return "(array / 257).round().astype('uint8')"
    if low >= -1 and high <= 1:
        return f"its values are {low:g} to {high:g}: (127.5 * (array + 1)).round().astype('uint8')"
    return (
        f"its values are {low:g} to {high:g}: undo what was done to the pixels, or ((array - ({low!r})) * "
        f"{255 / (high - low)!r}).clip(0, 255).round().astype('uint8') for all splits"
    )


def _layout(array: np.ndarray) -> str:
    """What makes images of the bytes `array`, as its shape asks for."""
    shape = array.shape
    if 0 in shape:
        return "it is empty; put images there"
    if array.ndim == 2:
        for channels, layout in ((1, "{0}, {0}, 1"), (3, "3, {0}, {0}")):
            side = math.isqrt(shape[1] // channels)
            if side * side * channels == shape[1]:
                return f"array.reshape(-1, {layout.format(side)})"
    if array.ndim == 3:
        return "array[None] for one image" if {shape[0], shape[2]} & set(CHANNELS) else "array[..., None]"
    if array.ndim == 4 and shape[1] in CHANNELS and shape[3] in CHANNELS:
        return f"images {shape[1]} pixels high look like channels; make them higher: np.repeat(array, 2, axis=1)"
    if array.ndim == 4 and (2 in (shape[1], shape[3]) or 4 in (shape[1], shape[3])):
        count = shape[3] if shape[3] in (2, 4) else shape[1]
        part = f"array[..., :{count - 1}]" if shape[3] in (2, 4) else f"array[:, :{count - 1}]"
        return f"without transparency, {part}"
    return "array.reshape(N, H, W, C)"


def class_numbers(name: str, array: np.ndarray) -> np.ndarray:
    """`array` (N,) of whole numbers from 0 as int64; raises `InputError` where it holds something else."""
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise InputError(
            f"{name} has dtype {array.dtype} and shape {array.shape}; whole numbers (N,) are needed: {_numbers(array)}"
        )
    if (bad := np.flatnonzero(array.astype(np.int64) < 0)).size:
        raise InputError(
            f"{name}[{bad[0]}] is {array[bad[0]]}; classes are numbered from 0: {RENUMBER.format('y_train')}"
        )
    return array.astype(np.int64)


RENUMBER = "np.searchsorted(np.unique({0}), array) for the labels of every split"


def _numbers(array: np.ndarray) -> str:
    """What makes class numbers of `array`."""
    if array.ndim == 2:
        return "array.ravel()" if 1 in array.shape else "array.argmax(1)"
    if array.dtype.kind in "US":
        return RENUMBER.format("y_train")
    if array.dtype.kind == "b" or (array.dtype.kind == "f" and bool((array == array.round()).all())):
        return "array.astype('int64')"
    return "write one class number an image into the file"


def check_labels(path: Path, name: str, labels: np.ndarray, count: int, names: Sequence[str]) -> np.ndarray:
    """`labels` (`count`,) of classes below those in `names`, as int64; raises `InputError` where they are not."""
    numbers = class_numbers(f"{name} in {path}", labels)
    if len(numbers) != count:
        raise InputError(f"{name} in {path} has {len(numbers)} labels for {count} images; give one label an image")
    if count and int(numbers.max()) >= len(names):
        raise InputError(
            f"{name} in {path} are {numbers.min()} to {numbers.max()}; the run's classes are 0 to {len(names) - 1}: "
            "leave the images of others out"
        )
    return numbers
