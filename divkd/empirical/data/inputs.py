"""Images to predict: files, folders of files or one .npz file, as bytes of the shape that a network takes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from divkd.empirical.data.arrays import images_like
from divkd.empirical.data.files import read_image, walk
from divkd.shared.errors import InputError
from divkd.shared.metrics.predictions import read_arrays


def read_inputs(
    paths: Sequence[Path],
    shape: tuple[int, int, int],
    image_size: int | None,
    resize: bool,
    refused: list[InputError] | None = None,
    passed: "Counter[str] | None" = None,
) -> tuple[list[str], np.ndarray]:
    """The names and the images (N, C, H, W) uint8 behind `paths`, in the order given; of a folder, sorted.

    A file is an image; a folder stands for all image files in and below it; an .npz file holds `images`, (N, H, W, C)
    or (N, C, H, W) uint8, which are named FILE[0], FILE[1], ... Files are read as the run's own are: with its
    `image_size` the centre square of each is scaled to it. Where the run scaled nothing, other sizes are refused unless
    `resize` asks for the same. Colours become grey (ITU-R 601 luma) where `shape` has one channel, and grey RGB where
    it has three.

    Raises `InputError` for the first that is absent, unreadable or does not fit; where `refused` is given, these are
    put there and the others returned, unless there are none. `passed` counts what `walk` passes over.
    """
    _, height, width = shape
    if image_size is None and resize:
        if height != width:
            raise InputError(f"--resize makes squares and the run's images are {width} x {height}; scale yours first")
        image_size = height
    names: list[str] = []
    images: list[np.ndarray] = []
    problems = [] if refused is None else refused
    passed = Counter() if passed is None else passed
    for path in paths:
        try:
            files = walk(path, passed) if path.is_dir() else [path]
        except InputError as error:
            files = []
            problems.append(error)
        for file in files:
            try:
                for name, image in _read(file, shape, image_size):
                    names.append(name)
                    images.append(image)
            except InputError as error:
                problems.append(error)
        if problems and refused is None:
            break
    if problems and (refused is None or not images):
        raise problems[0]
    if not images:
        raise InputError("there are no images; give files, folders or an .npz file with images=...")
    return names, np.stack(images)


def _read(file: Path, shape: tuple[int, int, int], image_size: int | None) -> Iterator[tuple[str, np.ndarray]]:
    """The images in one file with their names."""
    channels, height, width = shape
    if not file.is_file():
        raise InputError(f"there is no {file}; give image files, a folder of them or an .npz file with images=...")
    if file.suffix.lower() != ".npz":
        image = read_image(file, image_size, "L" if channels == 1 else "RGB")
        if image.shape != shape:
            raise InputError(
                f"{file} is {image.shape[2]} x {image.shape[1]} pixels and the run's images {width} x {height}; "
                f"{'--resize scales the centre square' if height == width else 'scale it'}"
            )
        yield str(file), image
        return
    arrays = read_arrays(file, ("images",), "images=...")
    if "images" not in arrays:
        raise InputError(f"{file} holds no array; write one with np.savez(path, images=...)")
    block = images_like(f"images in {file}", arrays["images"], shape)
    yield from ((f"{file}[{i}]", image) for i, image in enumerate(block))
