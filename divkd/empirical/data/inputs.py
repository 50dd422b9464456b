"""Images to predict: files, folders of files or one .npz file, as bytes of the shape that a network takes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from divkd.empirical.data.images import channels_first, image_files, read_image
from divkd.shared.errors import InputError
from divkd.shared.metrics.predictions import read_arrays


def read_inputs(
    paths: Sequence[Path], shape: tuple[int, int, int], image_size: int | None, resize: bool
) -> tuple[list[str], np.ndarray]:
    """The names and the images (N, C, H, W) uint8 behind `paths`, in the order given; of a folder, sorted.

    A file is an image; a folder stands for all image files in and below it; an .npz file holds `images`, (N, H, W, C)
    or (N, C, H, W) uint8, which are named FILE[0], FILE[1], ... Files are read as the run's own are: with its
    `image_size` the centre square of each is scaled to it. Where the run scaled nothing, other sizes are refused unless
    `resize` asks for the same. Colours become grey (ITU-R 601 luma) where `shape` has one channel, and grey RGB where
    it has three.

    Raises `InputError` for the first that is absent, unreadable or does not fit.
    """
    channels, height, width = shape
    if image_size is None and resize:
        if height != width:
            raise InputError(f"--resize makes squares and the run's images are {width} x {height}; scale yours first")
        image_size = height
    names: list[str] = []
    images: list[np.ndarray] = []
    for path in paths:
        if path.suffix == ".npz" and path.is_file():
            found = read_arrays(path, ("images",), "images=...")
            if "images" not in found:
                raise InputError(f"{path} holds no array; write one with np.savez(path, images=...)")
            block = channels_first("images", found["images"])
            if block.shape[1:] != shape:
                raise InputError(
                    f"images in {path} are {_size(block.shape[1:])} and the run's {_size(shape)}; make them alike"
                )
            names += [f"{path}[{i}]" for i in range(len(block))]
            images += list(block)
            continue
        if not (path.is_dir() or path.is_file()):
            raise InputError(f"there is no {path}; give image files, a folder of them or an .npz file with images=...")
        for file in image_files(path, "**/*") if path.is_dir() else [path]:
            image = read_image(file, image_size, "L" if channels == 1 else "RGB")
            if image.shape != shape:
                raise InputError(
                    f"{file} is {image.shape[2]} x {image.shape[1]} pixels and the run's images {width} x {height}; "
                    "--resize scales the centre square"
                )
            names.append(str(file))
            images.append(image)
    if not images:
        raise InputError("there are no images; give files, folders or an .npz file with images=...")
    return names, np.stack(images)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]} x {shape[1]} pixels with {shape[0]} channel{'s' * (shape[0] > 1)}"
