"""Anyone's images: a folder of files by split and class, or by class alone, or arrays in one .npz file."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from divkd.empirical.data.arrays import LARGEST, RENUMBER, channels_first, class_numbers
from divkd.empirical.data.files import hidden, passed_over, read_image, walk
from divkd.empirical.data.splits import ImageData, Split, moments
from divkd.shared.errors import InputError
from divkd.shared.metrics.predictions import read_arrays
from divkd.shared.seeds import rng
from divkd.shared.storage import room

PARTS = ("train", "test", "val")
LabelledFiles = tuple[list[Path], np.ndarray]
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


def read_folder(root: Path, size: int | None, share: float | None = None) -> ImageData:
    """Images in and below root/train/CLASS, root/test/CLASS and, where it is there, root/val/CLASS, as 3 x H x W.

    With `share` they are in and below root/CLASS, and that share of each class, at least one image, is the test split.
    Classes are the sorted names of the folders, of those in train. All images have one height and width, or become
    `size` x `size` (`read_image`). Raises `InputError` for the first folder or file that does not fit.
    """
    passed: Counter[str] = Counter()
    if share is None:
        parts = [part for part in PARTS if part != "val" or (root / part).is_dir()]
        if missing := [part for part in ("train", "test") if not (root / part).is_dir()]:
            place = f"images lie in {root}/{missing[0]}/CLASS/* (val/ is optional)"
            flat = f"--split 0.2 where {root} is CLASS/* alone"
            flat = flat if "train" in missing else f"{root / 'train'} --split 0.2"
            raise InputError(f"{root} holds no {missing[0]}/; {place}, or give {flat}")
        _beside(root, PARTS, "beside train/, val/ and test/", passed)
        names = class_folders(root / "train")
        found = {part: labelled_files(root / part, names, "train/", passed) for part in parts}
    else:
        if (root / "train").is_dir():  # which is no class: nor is val/ or test/ beside it
            mend = "leave it out" if (root / "test").is_dir() else f"give {root / 'train'} with it"
            raise InputError(f"--split {share:g} is for a folder of CLASS/* alone, and {root} holds train/; {mend}")
        names = class_folders(root)
        found = _shared_out(*labelled_files(root, names, "it", passed), names, share)
    shape: tuple[int, ...] | None = None
    splits = {}
    for part, (files, labels) in found.items():
        order = mixed(labels) if part == "train" else np.arange(len(labels))
        images = read_images([files[i] for i in order], size, shape)
        shape = images.shape[1:]
        splits[part] = Split(torch.from_numpy(images), torch.from_numpy(labels[order]))
    test = "test as given" if share is None else f"a random {share:g} of each class tests"
    return _own(root.resolve().name, splits, names, test, passed_over(passed))


def class_folders(folder: Path) -> list[str]:
    """The sorted names of the folders in `folder`, hidden ones aside; none is an `InputError`."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not hidden(entry))
    if not names:
        raise InputError(f"{folder} holds no folders; one for each class is needed: {folder}/CLASS/*")
    return names


def labelled_files(folder: Path, names: Sequence[str], whose: str, passed: "Counter[str]") -> LabelledFiles:
    """The image files in and below folder/CLASS, class by class, with their labels (N,) int64: positions in `names`.

    Raises `InputError` where there is a class that `names`, of `whose`, has not.
    """
    files: list[Path] = []
    labels: list[int] = []
    here = class_folders(folder)
    for name in here:
        if name not in names:
            raise InputError(
                f"{folder / name} is a class that {whose} has not; its classes: {', '.join(names)}: move it out"
            )
        files += walk(folder / name, passed)
        labels += [names.index(name)] * (len(files) - len(labels))
    _beside(folder, here, "beside the class folders", passed)
    return files, np.array(labels, np.int64)


def _beside(folder: Path, known: Sequence[str], where: str, passed: "Counter[str]") -> None:
    for entry in folder.iterdir():
        if entry.name not in known:
            passed["hidden" if hidden(entry) else where] += 1


def _shared_out(files: list[Path], labels: np.ndarray, names: Sequence[str], share: float) -> dict[str, LabelledFiles]:
    """`files` as train and test: of each class a random `share`, always the same, and never all or none of it."""
    order, tests = mixed(labels), np.zeros(len(labels), bool)
    for c, name in enumerate(names):
        inside = order[labels[order] == c]
        if len(inside) < 2:
            raise InputError(f"class {name} has one image; --split {share:g} needs at least two, to train and to test")
        tests[inside[: min(max(round(share * len(inside)), 1), len(inside) - 1)]] = True
    return {
        part: ([file for file, one in zip(files, chosen, strict=True) if one], labels[chosen])
        for part, chosen in (("train", ~tests), ("test", tests))
    }


def read_images(
    files: Sequence[Path], size: int | None, shape: tuple[int, ...] | None = None, mode: str = "RGB", whose: str = ""
) -> np.ndarray:
    """`files` as (N, C, H, W) uint8 of `mode`, of the first image's shape or of the `shape` that is given.

    Raises `InputError` for the first that is unreadable, too large or of another shape.
    """
    for i, file in enumerate(files):
        image = read_image(file, size, mode)
        shape = shape or image.shape
        if image.shape != shape or max(shape) > LARGEST:
            other = f" and {whose or 'the first image'} {shape[2]} x {shape[1]}" if image.shape != shape else ""
            mend = f"give images of one size, at most {LARGEST} a side, or --image-size, e.g. 32"
            mend = "scale it to that" if whose else mend
            raise InputError(f"{file} is {image.shape[2]} x {image.shape[1]} pixels{other}; {mend}")
        if i == 0:
            images = room((len(files), *shape))
        images[i] = image
    return images


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
            raise InputError(
                f"x_{part} has {len(images)} images and y_{part} {len(labels)} labels in {path}; give as many"
            )
        order = np.arange(len(labels))
        if part == "train":
            names, order = _names(labels), mixed(labels)
        splits[part] = Split(torch.from_numpy(_ordered(images, order)), torch.from_numpy(labels[order]))
    return _own(path.stem, splits, names, "test as given")


def _ordered(images: np.ndarray, order: np.ndarray) -> np.ndarray:
    """A contiguous copy of `images` in an `order`, made in blocks."""
    copy = room(images.shape)
    for begin in range(0, len(order), 1000):
        copy[begin : begin + 1000] = images[order[begin : begin + 1000]]
    return copy


def _names(labels: np.ndarray) -> list[str]:
    """The classes of the labels (N,) by number; raises `InputError` where one below the highest has no image."""
    seen = np.unique(labels)
    gaps = np.flatnonzero(seen != np.arange(len(seen)))
    if gaps.size:
        raise InputError(
            f"no label in y_train is {gaps[0]} and the highest is {seen[-1]}; number classes from 0, no gaps: "
            + RENUMBER.format("y_train")
        )
    return [str(i) for i in seen]


def _own(name: str, splits: dict[str, Split], names: Sequence[str], test: str, passed: str = "") -> ImageData:
    """`splits` as `ImageData`; where there is no "val", the last tenth of the mixed "train" validates."""
    train, validation = splits["train"], splits.get("val")
    rule = "splits as given; train in a fixed random order, classes evenly spread"
    if validation is None:
        cut = len(train) - max(1, len(train) // 10)
        train, validation = train[:cut], train[cut:]
        rule = f"{test}; of train {cut} train and {len(validation)} validate, each class in proportion"
    mean, std = moments(train.images)
    return ImageData(name, train, validation, splits["test"], tuple(names), mean, std, rule, passed)
