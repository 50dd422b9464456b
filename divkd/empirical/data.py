"""Images as uint8 on the training device: read once, split by position, cropped and flipped there.

No loader workers: a batch is an index into resident bytes, and only what the network needs next becomes float.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from divkd.shared.errors import InputError
from divkd.shared.seeds import rng


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) uint8 and labels (N,) int64, on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        """The same split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ImageData:
    """A data set cut into train, validation and test splits, with the normalisation that its networks apply."""

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rule: str  # how the splits were cut, for results.json

    def to(self, device: torch.device) -> "ImageData":
        """The same data on `device`."""
        moved = [split.to(device) for split in (self.train, self.validation, self.test)]
        return replace(self, train=moved[0], validation=moved[1], test=moved[2])


def load(name: str, data_dir: str | None, download: bool, train_images: int | None) -> ImageData:
    """Read the data set `name` ("digits" or "cifar10") and keep the first `train_images` of its training split.

    Raises `InputError` where the files are absent or damaged, or the images are not what the data set promises.
    """
    data = read_digits() if name == "digits" else read_cifar10(data_dir, download)
    if train_images is not None:
        if train_images > len(data.train):
            raise InputError(
                f"train_images {train_images} is more than the training split of {name}; give at most {len(data.train)}"
            )
        kept = Split(data.train.images[:train_images], data.train.labels[:train_images])
        data = replace(data, train=kept, rule=f"{data.rule}; of the training split the first {train_images}")
    check(data)
    return data


def check(data: ImageData) -> None:
    """Raise `InputError` unless the splits hold uint8 images of one shape, valid labels and at least two classes."""
    shape = data.train.images.shape[1:]
    for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        if split.images.ndim != 4 or split.images.dtype != torch.uint8 or split.images.shape[1:] != shape:
            raise InputError(
                f"{data.name} {name} images are {split.images.dtype} of shape {tuple(split.images.shape)}; "
                f"allowed: uint8 (N, {', '.join(map(str, shape))})"
            )
        if len(split.images) != len(split.labels) or len(split) == 0:
            raise InputError(
                f"{data.name} {name} has {len(split.images)} images and {len(split)} labels; give one label an image"
            )
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= data.classes:
            raise InputError(f"{data.name} {name} has labels from {low} to {high}; allowed: 0 to {data.classes - 1}")
    if len(torch.unique(data.train.labels)) < 2:
        raise InputError(
            f"{data.name}: all {len(data.train)} training images are of one class; training needs two or more"
        )


def read_digits() -> ImageData:
    """scikit-learn's 1,797 handwritten digits, 1 x 8 x 8, in file order: 1,197 train, 200 validation, 400 test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy((bunch.images * (255 / 16)).round().astype(np.uint8)[:, None])
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    cuts = [slice(0, 1197), slice(1197, 1397), slice(1397, 1797)]
    train, validation, test = (Split(images[cut], labels[cut]) for cut in cuts)
    return ImageData(
        "digits",
        train,
        validation,
        test,
        10,
        (0.3064,),
        (0.3753,),
        "positional: 1197 train, 200 validation, 400 test, in file order",
    )


def read_cifar10(data_dir: str | None, download: bool) -> ImageData:
    """CIFAR-10 in its published Python layout, through torchvision, which checks every file's published md5 sum.

    Splits as in the papers: training images 0..44,999 train, 45,000..49,999 validate, the 10,000 test images test.
    """
    if data_dir is None:
        raise InputError(
            "cifar10 needs --data-dir: a folder that holds cifar-10-batches-py/, or any with --download to fetch it"
        )
    from torchvision.datasets import CIFAR10

    root = Path(data_dir)
    if not download and not (root / "cifar-10-batches-py").is_dir():
        raise InputError(
            f"--data-dir {data_dir} holds no cifar-10-batches-py/; give the folder that holds it, or add --download"
        )
    try:
        parts = [CIFAR10(root, train=train, download=download) for train in (True, False)]
    except RuntimeError as error:
        raise InputError(
            f"CIFAR-10 in --data-dir {data_dir} is incomplete or damaged ({str(error).splitlines()[0]}); "
            "restore the published files, or delete them and add --download"
        ) from error
    except OSError as error:
        raise InputError(
            f"CIFAR-10 could not be read from or fetched into --data-dir {data_dir} ({error}); "
            "give a folder that holds its files"
        ) from error
    images = [torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in parts]
    labels = [torch.tensor(part.targets, dtype=torch.int64) for part in parts]
    cut = 45_000
    return ImageData(
        "cifar10",
        Split(images[0][:cut], labels[0][:cut]),
        Split(images[0][cut:], labels[0][cut:]),
        Split(images[1], labels[1]),
        10,
        (0.4915, 0.4821, 0.4464),
        (0.2472, 0.2437, 0.2617),
        "positional: training images 0-44999 train, 45000-49999 validation; the 10000 test images",
    )


@dataclass(frozen=True)
class Augmentation:
    """Random crop (zero padding of `crop` pixels a side) and horizontal flip, drawn for a whole epoch at once."""

    crop: int
    flip: bool

    def draw(self, count: int, seed: int, role: str, member: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Top-left corners (count, 2) and flips (count,), one row an image, whatever the order of the images."""
        generator = rng(seed, f"{role}/augment", member, epoch)
        corners = generator.integers(0, 2 * self.crop + 1, size=(count, 2))
        flips = generator.integers(0, 2, size=count).astype(bool) & self.flip
        return corners, flips

    def apply(self, images: Tensor, corners: Tensor, flips: Tensor) -> Tensor:
        """Crop and flip a batch of bytes (B, C, H, W) by gathering: one index a pixel row and one a pixel column."""
        _, _, height, width = images.shape
        device = images.device
        columns = torch.arange(width, device=device).expand(len(images), width)
        columns = torch.where(flips[:, None], width - 1 - columns, columns)
        if self.crop == 0:
            return images.gather(3, columns[:, None, None, :].expand_as(images)) if self.flip else images
        padded = torch.nn.functional.pad(images, [self.crop] * 4)
        rows = torch.arange(height, device=device) + corners[:, :1]
        columns = columns + corners[:, 1:]
        batch = torch.arange(len(images), device=device)
        picked = padded.permute(0, 2, 3, 1)[batch[:, None, None], rows[:, :, None], columns[:, None, :]]
        return picked.permute(0, 3, 1, 2)


def batches(
    split: Split, augmentation: Augmentation, batch_size: int, seed: int, role: str, member: int, epoch: int
) -> list[tuple[Tensor, Tensor]]:
    """One epoch as (images uint8, labels) batches in a fresh random order; the last, smaller batch is kept.

    A last batch of a single image is left out: batch normalisation has no statistics for it.
    """
    device = split.images.device
    corners, flips = augmentation.draw(len(split), seed, role, member, epoch)
    order = torch.from_numpy(rng(seed, f"{role}/order", member, epoch).permutation(len(split))).to(device)
    images = augmentation.apply(
        split.images[order], torch.from_numpy(corners).to(device)[order], torch.from_numpy(flips).to(device)[order]
    )
    labels = split.labels[order]
    cuts = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))
    return cuts[:-1] if len(cuts[-1][1]) == 1 else cuts


def to_float(images: Tensor) -> Tensor:
    """Bytes to pixels in [0, 1], float32, channels last."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)
