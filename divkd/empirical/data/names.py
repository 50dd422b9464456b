"""The published data sets, a record each; imports no torch. `datasets.READERS` reads them, under the same names."""

from dataclasses import dataclass

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
        DataSet("cifar10", 4, True, "cifar-10-batches-py/ or cifar-10-python.tar.gz", CIFAR, short="cifar"),
        DataSet("cifar100", 4, True, "cifar-100-python/ or cifar-100-python.tar.gz", CIFAR),
        DataSet("svhn", 4, False, "train_32x32.mat and test_32x32.mat", "http://ufldl.stanford.edu/housenumbers/"),
        DataSet("tinyimagenet", 8, True, "tiny-imagenet-200.zip or tiny-imagenet-200/", TINY, fetched=False),
    )
}
SHORT = {data.short: data.name for data in DATASETS.values() if data.short}


def full(name: str) -> str:
    """The name of `DATASETS` that `name` is another word for, or `name` itself, e.g. a path."""
    return SHORT.get(name, name)
