"""Images as uint8 on the training device: read once, split by position, cropped and flipped there.

No loader workers: a batch is an index into resident bytes, and only what the network needs next becomes float.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from divkd.shared.errors import InputError
from divkd.shared.seeds import rng

PIXELS = 1 << 22  # that are worked on at once
Moments = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) uint8 and labels (N,) int64, on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, cut: slice) -> "Split":
        return Split(self.images[cut], self.labels[cut])

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
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rule: str  # how the splits were cut, for results.json
    passed: str = ""  # the files that were not read, in words

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def to(self, device: torch.device) -> "ImageData":
        """The same data on `device`."""
        return self.each(lambda _, split: split.to(device))

    def each(self, change: Callable[[str, Split], Split]) -> "ImageData":
        """The same data with other splits: what `change` makes of the name and the split of each."""
        train, validation, test = (change(name, split) for name, split in self.splits.items())
        return replace(self, train=train, validation=validation, test=test)

    def summary(self) -> str:
        """Sizes, classes and splits in one line."""
        height, width = self.train.images.shape[2:]
        each = torch.cat([split.labels for split in self.splits.values()]).bincount(minlength=self.classes)
        sizes = ", ".join(f"{len(split):,} {name}" for name, split in self.splits.items())
        classes = f"{self.classes} classes of {int(each.min()):,} to {int(each.max()):,} images"
        return f"{self.name}: {int(each.sum()):,} images of {width} x {height} in {classes}: {sizes}"

    def facts(self) -> dict[str, Any]:
        """What config.json keeps of the data: all that a later prediction needs, and the sum of every byte."""
        digest = hashlib.sha256()
        for split in self.splits.values():
            digest.update(str(tuple(split.images.shape)).encode())
            for array in (split.images, split.labels):
                digest.update(array.cpu().contiguous().numpy().data)
        return {
            "name": self.name,
            "shape": list(self.train.images.shape[1:]),
            "class_names": list(self.class_names),
            "mean": list(self.mean),
            "std": list(self.std),
            "sha256": digest.hexdigest(),
        }


def check(data: ImageData) -> None:
    """Raise `InputError` unless the splits hold uint8 images of one shape, valid labels and at least two classes."""
    shape = data.train.images.shape[1:]
    for name, split in data.splits.items():
        if split.images.ndim != 4 or split.images.dtype != torch.uint8 or split.images.shape[1:] != shape:
            raise InputError(
                f"{data.name} {name} images are {split.images.dtype} of shape {tuple(split.images.shape)}; "
                f"uint8 (N, {', '.join(map(str, shape))}) is needed, as of train: make them alike"
            )
        if len(split.images) != len(split.labels) or len(split) == 0:
            raise InputError(
                f"{data.name} {name} has {len(split.images)} images and {len(split)} labels; give one label an image"
            )
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= data.classes:
            raise InputError(
                f"{data.name} {name} has labels from {low} to {high}; allowed: 0 to {data.classes - 1}, as in train; "
                "leave out the images of others"
            )
    if len(torch.unique(data.train.labels)) < 2:
        raise InputError(
            f"{data.name}: all {len(data.train)} training images are of one class; at least two are needed: add another"
        )
    images = data.train.images
    if all(bool((block == images[0]).all()) for block in images.split(block_of(images))):
        same = f" ({int(images.max())} everywhere)" if images.max() == images.min() else ""
        raise InputError(f"{data.name}: all {len(images)} training images are the same{same}; make them again")
    if images.max() <= 1:
        raise InputError(
            f"{data.name}: no pixel of the {len(images)} training images is above 1 of 255; scale them: 255 * array, "
            "or of floats (255 * array).round().astype('uint8')"
        )


def block_of(images: Tensor) -> int:
    """How many of `images` are worked on at once."""
    return max(1, PIXELS // images[0, 0].numel())


def moments(images: Tensor) -> Moments:
    """Mean and standard deviation of each channel of (N, C, H, W) uint8, in [0, 1], to the usual four decimals.

    They come from a count of every byte, so that no float copy is made; a constant channel gets the deviation 1.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in range(images.shape[1]):
        blocks = images[:, channel].split(block_of(images))
        counts = (torch.bincount(block.reshape(-1), minlength=256) for block in blocks)
        share = torch.stack(list(counts)).sum(0).double()
        share /= share.sum()
        centre = (share * values).sum()
        mean.append(round(float(centre), 4))
        std.append(round(float((share * (values - centre) ** 2).sum().sqrt()), 4) or 1.0)
    return tuple(mean), tuple(std)


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
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch as (images uint8, labels) batches in a fresh random order; the last, smaller batch is kept.

    A last batch of a single image is left out: batch normalisation has no statistics for it. Images are gathered some
    `PIXELS` at a time, so that an epoch is never a second copy of all of them.
    """
    device = split.images.device
    drawn = augmentation.draw(len(split), seed, role, member, epoch)
    corners, flips = (torch.from_numpy(one).to(device) for one in drawn)
    order = torch.from_numpy(rng(seed, f"{role}/order", member, epoch).permutation(len(split))).to(device)
    for rows in order.split(batch_size * -(-block_of(split.images) // batch_size)):
        images = augmentation.apply(split.images[rows], corners[rows], flips[rows])
        for cut in zip(images.split(batch_size), split.labels[rows].split(batch_size), strict=True):
            if len(cut[1]) > 1:
                yield cut


def to_float(images: Tensor) -> Tensor:
    """Bytes to pixels in [0, 1], float32, channels last."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)
