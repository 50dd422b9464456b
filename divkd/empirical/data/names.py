"""The data sets with a name, a record each, and what the generated one is made of; imports no torch.

`datasets.READERS` reads them, under the same names.
"""

from dataclasses import dataclass

from divkd.shared.config import SEEDS, Config, field
from divkd.shared.errors import InputError

CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"
TINY = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


@dataclass(frozen=True)
class DataSet:
    """A published data set: the augmentation that it bears, and how one comes by its files."""

    name: str
    crop: int  # zero padding of the random crop: what a preset may use, not what it must
    flip: bool  # whether a mirrored image keeps its class
    files: str = ""  # what --data-dir holds; "": it needs none
    page: str = ""  # where they are published
    fetched: bool = True  # whether --download gets them
    short: str = ""  # another word for it

    def wanted(self) -> str:
        """How to get the files, in one line."""
        more = ", or any folder and --download to fetch them" if self.fetched else ""
        return f"{self.name} needs --data-dir: a folder that holds {self.files} from {self.page}{more}"


DATASETS = {
    data.name: data
    for data in (
        DataSet("digits", 1, False),
        DataSet("views", 0, False),
        DataSet("cifar10", 4, True, "cifar-10-batches-py/ or cifar-10-python.tar.gz", CIFAR, short="cifar"),
        DataSet("cifar100", 4, True, "cifar-100-python/ or cifar-100-python.tar.gz", CIFAR),
        DataSet("svhn", 4, False, "train_32x32.mat and test_32x32.mat", "http://ufldl.stanford.edu/housenumbers/"),
        DataSet("tinyimagenet", 8, True, "tiny-imagenet-200.zip or tiny-imagenet-200/", TINY, fetched=False),
    )
}


@dataclass(frozen=True)
class ViewsConfig(Config):
    """The data set `views`: images whose classes have several visual features (`divkd.empirical.data.views`)."""

    classes: int = field(20, "classes of the data set", 2, 100, "k")
    class_views: int = field(2, "visual features of each class", 1, 8, option="--views")
    contrast: float = field(0.25, "of a class's own features: their root mean square, pixels in [0, 1]", high=1)
    others: float = field(3.0, "features of other classes: each shows with probability s / k", high=100, symbol="s")
    other_contrast: float = field(0.4, "of other classes' features, as a share of --contrast", high=1)
    single_view: float = field(
        0.02, "share of the images in which one own view is missing", high=1, symbol="mu", option="--mu"
    )
    missing: float = field(0.0, "contrast of a missing view, as a share of --contrast", high=1)
    clutter: float = field(0.3, "share of the free cells that hold a texture of their own", high=1)
    noise: float = field(0.05, "sd of the pixels' noise, pixels in [0, 1]", high=1)
    test_images: int = field(1000, "images that test, and those of each view's probe", 10, 100_000)
    data_seed: int = field(0, "seed of the data set, whatever --seeds trains on it", high=SEEDS)

    def rules(self) -> None:
        """Raise `InputError` where a probability is above 1, or a split would lack a class."""
        if self.others > self.classes:
            raise InputError(f"--others {self.others:g} is more than --classes {self.classes}; give at most as many")
        if self.test_images < 2 * self.classes:
            raise InputError(
                f"--test-images {self.test_images} are too few for --classes {self.classes}; give two each"
            )


SHORT = {data.short: data.name for data in DATASETS.values() if data.short}


def full(name: str) -> str:
    """The name of `DATASETS` that `name` is another word for, or `name` itself, e.g. a path."""
    return SHORT.get(name, name)
