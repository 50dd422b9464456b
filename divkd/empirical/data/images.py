"""Anyone's images: a folder of files by split and class, or arrays in one .npz file; and how a file becomes bytes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from divkd.empirical.data.splits import ImageData, Split, moments
from divkd.shared.errors import InputError
from divkd.shared.metrics.predictions import read_arrays
from divkd.shared.seeds import rng

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
LARGEST = 512  # pixels a side: images are resident and the networks are made for small ones
NAMES = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")


def spread(labels: np.ndarray) -> np.ndarray:
    """An order (N,) in which every stretch holds the classes in their proportions, up to one image a class.

    Image i of the n_c of class c (from 0, in the order given) sits at (i + 1/2) / n_c; ties go by class. With equal
    n_c it deals one image of each class in turn. A prefix or a tail of it is a stratified sample.
    """
    counts = np.bincount(labels)
    by_class = np.argsort(labels, kind="stable")
    place = np.empty(len(labels))
    place[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    order: np.ndarray = np.lexsort((labels, (place + 0.5) / counts[labels]))
    return order


def mixed(labels: np.ndarray) -> np.ndarray:
    """`spread`, with the images of a class in a random order, which is always the same: neighbours often look alike."""
    shuffled = rng(0, "data/order").permutation(len(labels))
    order: np.ndarray = shuffled[spread(labels[shuffled])]
    return order


def read_folder(root: Path, size: int | None) -> ImageData:
    """Images in root/train/CLASS/*, root/test/CLASS/* and, where it is there, root/val/CLASS/*, as 3 x H x W.

    Classes are the sorted names of the folders in train. All images have one height and width, or become `size` x
    `size` (`read_image`). Raises `InputError` for the first folder or file that does not fit.
    """
    names = _subfolders(root / "train")
    parts = [part for part in ("train", "test", "val") if part != "val" or (root / part).exists()]
    found = {part: _files(root / part, names) for part in parts}
    shape: tuple[int, ...] | None = None
    splits = {}
    for part, (files, labels) in found.items():
        order = mixed(labels) if part == "train" else np.arange(len(labels))
        images = read_images([files[i] for i in order], size, shape)
        shape = images.shape[1:]
        splits[part] = Split(torch.from_numpy(images), torch.from_numpy(labels[order]))
    return _own(root.resolve().name, splits, names)


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise InputError(f"{folder.parent} holds no {folder.name}/; images lie in {folder}/CLASS/*, val/ is optional")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise InputError(f"{folder} holds no folders; one for each class is needed: {folder}/CLASS/*")
    return names


def image_files(folder: Path, pattern: str) -> list[Path]:
    """The image files in `folder` that fit `pattern`, sorted; others are passed over, none is an `InputError`."""
    files = sorted(file for file in folder.glob(pattern) if file.suffix.lower() in ENDINGS and file.is_file())
    if not files:
        raise InputError(f"{folder} holds no image; allowed: {', '.join(ENDINGS)}")
    return files


def _files(folder: Path, names: list[str]) -> tuple[list[Path], np.ndarray]:
    """The image files of `folder` in class order with their labels (N,) int64."""
    files: list[Path] = []
    labels: list[int] = []
    for name in _subfolders(folder):
        if name not in names:
            raise InputError(f"{folder / name} is a class that train/ has not; its classes: {', '.join(names)}")
        files += image_files(folder / name, "*")
        labels += [names.index(name)] * (len(files) - len(labels))
    return files, np.array(labels, np.int64)


def read_images(files: Sequence[Path], size: int | None, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """`files` as (N, 3, H, W) uint8, of the first image's shape or of the `shape` that is given.

    Raises `InputError` for the first that is unreadable, too large or of another shape.
    """
    for i, file in enumerate(files):
        image = read_image(file, size)
        shape = shape or image.shape
        if image.shape != shape or max(shape) > LARGEST:
            other = f" and the first image {shape[2]} x {shape[1]}" if image.shape != shape else ""
            raise InputError(
                f"{file} is {image.shape[2]} x {image.shape[1]} pixels{other}; give images of one size, at most "
                f"{LARGEST} a side, or --image-size, e.g. 32"
            )
        if i == 0:
            images = np.empty((len(files), *shape), np.uint8)
        images[i] = image
    return images


def read_image(file: Path, size: int | None, mode: str = "RGB") -> np.ndarray:
    """The image in `file` as (3, H, W) uint8: grey becomes RGB, transparency is dropped.

    With `size`, its centre square is scaled to `size` x `size` (bicubic). In the `mode` "L" it then becomes grey,
    (1, H, W), by ITU-R 601 luma: exact where the channels are equal. Raises `InputError` where the file is damaged
    or has more than 8 bits a channel.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            if image.mode[0] in "IF":
                raise InputError(f"{file} has more than 8 bits a channel (mode {image.mode}); save it with 8")
            colours = image.convert("RGB")
        if size is not None:
            colours = ImageOps.fit(colours, (size, size), Image.Resampling.BICUBIC)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{file} cannot be read as an image ({error}); restore or remove it") from error
    pixels: np.ndarray = np.atleast_3d(np.asarray(colours.convert(mode))).transpose(2, 0, 1)
    return pixels


def read_npz(path: Path) -> ImageData:
    """x_train, x_test and optional x_val, (N, H, W, C) or (N, C, H, W) uint8 with C = 1 or 3; y_* (N,) from 0.

    Nothing is unpickled. Classes are named by their numbers. Raises `InputError` for the first array that does not fit.
    """
    arrays = read_arrays(path, NAMES, "x_train=..., y_train=..., x_test=..., y_test=...")
    parts = [part for part in ("train", "val", "test") if part != "val" or {"x_val", "y_val"} & arrays.keys()]
    missing = [name for part in parts for name in (f"x_{part}", f"y_{part}") if name not in arrays]
    if missing:
        raise InputError(
            f"{path} holds no {missing[0]}; required: x_train, y_train, x_test, y_test, or also both *_val"
        )
    splits = {}
    for part in parts:
        images, labels = (
            channels_first(f"x_{part}", arrays[f"x_{part}"]),
            class_numbers(f"y_{part}", arrays[f"y_{part}"]),
        )
        if len(images) != len(labels):
            raise InputError(f"x_{part} has {len(images)} images and y_{part} {len(labels)} labels in {path}")
        if part == "train":
            names, order = _names(labels), mixed(labels)
            images, labels = images[order], labels[order]
        splits[part] = Split(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels))
    return _own(path.stem, splits, names)


def _names(labels: np.ndarray) -> list[str]:
    """The classes of the labels (N,) by number; raises `InputError` where one below the highest has no image."""
    seen = np.unique(labels)
    gaps = np.flatnonzero(seen != np.arange(len(seen)))
    if gaps.size:
        raise InputError(
            f"no label in y_train is {gaps[0]} and the highest is {seen[-1]}; number classes from 0, no gaps"
        )
    return [str(i) for i in seen]


def channels_first(name: str, array: np.ndarray) -> np.ndarray:
    """`array`, (N, H, W, C) or (N, C, H, W) uint8, with channels first; raises `InputError` where it is neither."""
    if array.dtype != np.uint8:
        raise InputError(f"{name} has dtype {array.dtype}; bytes from 0 to 255 are needed: array.astype('uint8')")
    first, last = (array.ndim == 4 and array.shape[axis] in (1, 3) for axis in (1, 3))
    if first == last or 0 in array.shape:
        raise InputError(f"{name} has shape {array.shape}; (N, H, W, C) or (N, C, H, W) with C = 1 or 3 is needed")
    if max(array.shape[1:]) > LARGEST:
        raise InputError(f"{name} has shape {array.shape}; at most {LARGEST} pixels a side are allowed: scale it down")
    return array if first else array.transpose(0, 3, 1, 2)


def class_numbers(name: str, array: np.ndarray) -> np.ndarray:
    """`array` (N,) of whole numbers from 0 as int64; raises `InputError` where it holds something else."""
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise InputError(f"{name} has dtype {array.dtype} and shape {array.shape}; whole numbers (N,) are needed")
    if (bad := np.flatnonzero(array.astype(np.int64) < 0)).size:
        raise InputError(f"{name}[{bad[0]}] is {array[bad[0]]}; classes are numbered from 0")
    return array.astype(np.int64)


def _own(name: str, splits: dict[str, Split], names: Sequence[str]) -> ImageData:
    """`splits` as `ImageData`; where there is no "val", the last tenth of the mixed "train" validates."""
    train, validation = splits["train"], splits.get("val")
    rule = "splits as given; train in a fixed random order, classes evenly spread"
    if validation is None:
        cut = len(train) - max(1, len(train) // 10)
        train, validation = train[:cut], train[cut:]
        rule = f"test as given; of train {cut} train and {len(validation)} validate, each class in proportion"
    mean, std = moments(train.images)
    return ImageData(name, train, validation, splits["test"], tuple(names), mean, std, rule)
