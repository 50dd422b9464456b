"""Data sets by name, in their published layouts and splits; anything else is the path of someone's own images."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from divkd.empirical.data.archives import unpack
from divkd.empirical.data.images import read_folder, read_images, read_npz, spread
from divkd.empirical.data.names import DATASETS, ViewsConfig, full
from divkd.empirical.data.splits import ImageData, Moments, Split, check, moments
from divkd.empirical.data.views import read_views
from divkd.shared.errors import InputError, unknown

CIFAR_TRAIN = 45_000  # of the 50,000 training images
CIFAR_MOMENTS: dict[str, Moments] = {
    "cifar10": ((0.4915, 0.4821, 0.4464), (0.2472, 0.2437, 0.2617)),
    "cifar100": ((0.5072, 0.4866, 0.4410), (0.2673, 0.2564, 0.2760)),
}
TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
TINY_PER_CLASS = 500
TINY_TEST = 10_000


def load(
    name: str,
    data_dir: str | None,
    download: bool,
    train_images: int | None,
    image_size: int | None = None,
    split: float | None = None,
    views: ViewsConfig | None = None,
) -> ImageData:
    """Read a data set of `divkd.empirical.data.names.DATASETS`, or the images at the path `name`.

    `train_images` keeps a prefix of the training split, in whose order the classes are mixed whatever the source: as
    published for CIFAR, SVHN and the digits, which are not sorted by class, and by `images.spread` for all others.
    `split` is the share of each class that tests, of a folder of CLASS/* alone. `views` says what the data set of that
    name is made of.
    Raises `InputError` where the files are absent or damaged, or the images are not what the data set promises.
    """
    name = full(name)
    own = name not in DATASETS
    if own and not (name and Path(name).exists()):
        if Path(name).suffix == ".npz" or Path(name).name != name:
            raise InputError(f"there is no {name}; give the path of an .npz file or of a folder of images, or a name")
        raise unknown("data set", name, (*DATASETS, "a folder of images", "an .npz file"))
    if own and data_dir is not None:
        raise InputError(f"--data-dir {data_dir} is for published data sets; {name} is itself the place: leave it out")
    if image_size is not None and not (own and Path(name).is_dir()):
        raise InputError(
            f"--image-size {image_size} scales the images of a folder; {name} has a size of its own: leave it out"
        )
    if split is not None and not (own and Path(name).is_dir()):
        raise InputError(f"--split {split:g} is for a folder of CLASS/*; {name} has a test split: leave it out")
    if own:
        data = read_folder(Path(name), image_size, split) if Path(name).is_dir() else read_npz(Path(name))
    else:
        if download and not DATASETS[name].fetched:
            raise InputError(
                f"--download does not fetch {name}; leave it out, with {DATASETS[name].files} in --data-dir"
            )
        data = read_views(views, train_images) if views else READERS[name](data_dir, download)
    if train_images is not None:
        if train_images > len(data.train):
            have = f"the training split of {name}; give at most {len(data.train)}"
            raise InputError(f"--train-images {train_images} is more than {have}")
        rule = f"{data.rule}; of the training split the first {train_images}"
        data = replace(data, train=data.train[:train_images], rule=rule)
    check(data)
    return data


def read_digits(data_dir: str | None = None, download: bool = False) -> ImageData:
    """scikit-learn's 1,797 handwritten digits, 1 x 8 x 8, in file order: 1,197 train, 200 validation, 400 test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy((bunch.images * (255 / 16)).round().astype(np.uint8)[:, None])
    every = Split(images, torch.from_numpy(bunch.target.astype(np.int64)))
    rule = "positional: 1197 train, 200 validation, 400 test, in file order"
    return _cut("digits", every[:1397], 1197, every[1397:], "0123456789", rule)


def read_cifar(name: str, data_dir: str | None, download: bool) -> ImageData:
    """CIFAR-10 or CIFAR-100 (fine labels) in the published Python layout, or its archive, which is then unpacked.

    torchvision unpickles a file only after its published md5 sum was found right. Splits as in the papers: training
    images 0..44,999 train, 45,000..49,999 validate (positional; the published order is random), 10,000 test.
    """
    from torchvision.datasets import CIFAR10, CIFAR100
    from torchvision.datasets.utils import download_url

    kind = CIFAR10 if name == "cifar10" else CIFAR100
    with _reading(name, data_dir) as root:
        folder, archive = root / kind.base_folder, root / kind.filename
        if download and not folder.is_dir():
            download_url(kind.url, root, kind.filename, kind.tgz_md5)
        _need_folder(folder, archive, kind.tgz_md5, "put one of them there, or add --download")
        parts = [kind(root, train=train) for train in (True, False)]
    train, test = (
        Split(
            torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets, dtype=torch.int64)
        )
        for part in parts
    )
    validation = f"{CIFAR_TRAIN}-{len(train) - 1} validation; the {len(test)} test images"
    rule = f"positional: training images 0-{CIFAR_TRAIN - 1} train, {validation}"
    return _cut(name, train, CIFAR_TRAIN, test, parts[0].classes, rule, CIFAR_MOMENTS[name])


def read_svhn(data_dir: str | None, download: bool) -> ImageData:
    """SVHN's train_32x32.mat and test_32x32.mat, whose md5 sums torchvision checks; label 10, the digit 0, becomes 0.

    No validation split was published: the last tenth of the training images validates, positional (the published order
    is that of the photographed houses, not sorted by class). The "extra" images are not used.
    """
    from torchvision.datasets import SVHN

    with _reading("svhn", data_dir) as root:
        files = [root / SVHN.split_list[part][1] for part in ("train", "test")]
        for file in files:
            if not download and not file.is_file():
                raise InputError(f"--data-dir {root} holds no {file.name}; put it there, or add --download")
        parts = [SVHN(root, split=part, download=download) for part in ("train", "test")]
    train, test = (Split(torch.from_numpy(p.data).contiguous(), torch.from_numpy(p.labels)) for p in parts)
    cut = len(train) - len(train) // 10
    rule = f"positional: {cut} of the training images train, the last {len(train) - cut} validation; the test images"
    return _cut("svhn", train, cut, test, "0123456789", rule)


def read_tinyimagenet(data_dir: str | None, download: bool) -> ImageData:
    """TinyImageNet, 3 x 64 x 64, from tiny-imagenet-200/ or tiny-imagenet-200.zip (unpacked; md5 as published).

    200 classes by sorted WordNet number, named by words.txt. Nam et al. split 90,000 / 10,000 by position, in an order
    that was not published. The files are sorted by class, where a cut by position would leave 20 classes out, so the
    images are dealt out first, one of each class in turn (`images.spread`): the first 450 of each class train, its last
    50 validate. The 10,000 published validation images are the test split; labels of the test images are not public.
    """
    mend = "delete tiny-imagenet-200/ and unpack the published archive again"
    with _reading("tinyimagenet", data_dir) as root:
        folder = root / "tiny-imagenet-200"
        _need_folder(folder, root / "tiny-imagenet-200.zip", TINY_MD5, "put one of them there")
        numbers = sorted((folder / "wnids.txt").read_text().split())
        words = dict(line.split("\t", 1) for line in (folder / "words.txt").read_text().splitlines() if "\t" in line)
        rows = [line.split("\t") for line in (folder / "val" / "val_annotations.txt").read_text().splitlines()]
        files = []
        for number in numbers:
            inside = sorted((folder / "train" / number / "images").glob("*.JPEG"))
            if len(inside) != TINY_PER_CLASS:
                here = f"{folder}/train/{number}/images"
                raise InputError(f"{here} holds {len(inside)} of {TINY_PER_CLASS} images; {mend}")
            files += inside
        if len(rows) != TINY_TEST or not {row[1] for row in rows} <= set(numbers):
            raise InputError(
                f"{folder}/val/val_annotations.txt names {len(rows)} of {TINY_TEST} images, or no class; {mend}"
            )
    labels = np.repeat(np.arange(len(numbers)), TINY_PER_CLASS)
    order = spread(labels)
    images = read_images([files[i] for i in order], None)
    tested = read_images([folder / "val" / "images" / row[0] for row in rows], None, images.shape[1:])
    train = Split(torch.from_numpy(images), torch.from_numpy(labels[order]))
    test = Split(torch.from_numpy(tested), torch.tensor([numbers.index(row[1]) for row in rows]))
    cut = len(files) - len(files) // 10
    rule = f"dealt out by class, then positional: {cut} train, {len(files) - cut} validation; the published validation "
    classes = [words.get(number, number) for number in numbers]
    return _cut("tinyimagenet", train, cut, test, classes, f"{rule}images, {len(rows)}, test")


READERS: dict[str, Callable[[str | None, bool], ImageData]] = {
    "digits": read_digits,
    "views": lambda data_dir, download: read_views(ViewsConfig()),
    "cifar10": partial(read_cifar, "cifar10"),
    "cifar100": partial(read_cifar, "cifar100"),
    "svhn": read_svhn,
    "tinyimagenet": read_tinyimagenet,
}


def _cut(
    name: str, train: Split, cut: int, test: Split, classes: Iterable[str], rule: str, known: Moments | None = None
) -> ImageData:
    """A published training split cut at position `cut` into train and validation; `known` are its published moments."""
    mean, std = known or moments(train.images[:cut])
    return ImageData(name, train[:cut], train[cut:], test, tuple(classes), mean, std, rule)


@contextmanager
def _reading(name: str, data_dir: str | None) -> Iterator[Path]:
    """The folder `data_dir`, with what can go wrong while it is read told in one line."""
    if data_dir is None:
        raise InputError(DATASETS[name].wanted())
    try:
        yield Path(data_dir)
    except RuntimeError as error:
        raise InputError(
            f"{name} in --data-dir {data_dir} is incomplete or damaged ({str(error).splitlines()[0]}); "
            "restore the published files, or delete them and add --download"
        ) from error
    except OSError as error:
        raise InputError(
            f"{name} could not be read from or fetched into --data-dir {data_dir} ({error}); "
            "give a folder that holds its files"
        ) from error


def _need_folder(folder: Path, archive: Path, md5: str, mend: str) -> None:
    if not folder.is_dir():
        if not archive.is_file():
            raise InputError(f"--data-dir {folder.parent} holds no {folder.name}/ and no {archive.name}; {mend}")
        unpack(archive, folder, md5)
