"""Published data sets, from files that the tests write in the published layouts, with these files' sums."""

import hashlib
import pickle
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from divkd.empirical.data import datasets
from divkd.empirical.data.datasets import load, read_digits
from divkd.empirical.data.names import DATASETS, full
from divkd.shared.errors import InputError

DRAW = np.random.default_rng(0)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_every_data_set_has_a_reader_and_says_how_to_get_it():
    assert list(datasets.READERS) == list(DATASETS)
    for name, data in DATASETS.items():
        if data.files:
            with pytest.raises(InputError, match=f"{name} needs --data-dir: .*{data.files} from http") as refused:
                load(name, None, False, None)
            assert ("--download" in str(refused.value)) == data.fetched
            assert "\n" not in str(refused.value)
    assert full("cifar") == "cifar10"
    with pytest.raises(InputError, match="cifar10 needs --data-dir"):
        load("cifar", None, False, None)


def test_digits_are_scikit_learns_and_split_by_position():
    from sklearn.datasets import load_digits

    data, bunch = read_digits(), load_digits()
    assert [len(split) for split in (data.train, data.validation, data.test)] == [1197, 200, 400]
    pixels = torch.cat([data.train.images, data.validation.images, data.test.images])
    np.testing.assert_array_equal(pixels[:, 0].numpy(), np.round(bunch.images * 255 / 16).astype(np.uint8))
    np.testing.assert_array_equal(data.test.labels.numpy(), bunch.target[-400:])
    share = data.train.images.float() / 255
    assert (share.mean().item(), share.std().item()) == pytest.approx((data.mean[0], data.std[0]), abs=1e-4)


def test_training_images_are_a_prefix_of_the_training_split():
    whole, part = load("digits", None, False, None), load("digits", None, False, 100)
    assert torch.equal(part.train.images, whole.train.images[:100])
    assert torch.equal(part.test.images, whole.test.images)
    with pytest.raises(InputError, match=r"5000 is more.*at most 1197"):
        load("digits", None, False, 5000)


class Evil:
    """What unpickling it does: make the folder `where`."""

    def __init__(self, where):
        self.where = str(where)

    def __reduce__(self):
        import os

        return os.mkdir, (self.where,)


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, tmp_path, monkeypatch):
    """(name, folder, class) in the published layout with 50 training images; torchvision is told these files' sums."""
    import torchvision.datasets

    kind = getattr(torchvision.datasets, request.param.upper())
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    classes, key = (10, "labels") if request.param == "cifar10" else (100, "fine_labels")
    names = [name for name, _ in kind.train_list + kind.test_list]
    for name in names:
        count = 50 if name == "train" else 10
        labels = DRAW.integers(0, classes, count).tolist()
        content = {"data": DRAW.integers(0, 256, (count, 3072), dtype=np.uint8), key: labels, "coarse_labels": [0]}
        (folder / name).write_bytes(pickle.dumps(content))
    meta = {kind.meta["key"]: [f"class {i}" for i in range(classes)]}
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps(meta))
    monkeypatch.setattr(kind, "train_list", [[name, md5(folder / name)] for name in names[:-1]])
    monkeypatch.setattr(kind, "test_list", [[names[-1], md5(folder / names[-1])]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(folder / kind.meta["filename"])})
    monkeypatch.setattr(datasets, "CIFAR_TRAIN", 45)
    return request.param, folder, kind


def test_cifar_is_read_in_its_published_layout_and_order(cifar):
    name, folder, kind = cifar
    data = load(name, str(folder.parent), False, None)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [45, 5, 10]
    raw = pickle.loads((folder / kind.train_list[-1][0]).read_bytes())
    np.testing.assert_array_equal(data.validation.images.numpy(), raw["data"][-5:].reshape(-1, 3, 32, 32))
    labels = raw["labels" if name == "cifar10" else "fine_labels"]
    assert data.validation.labels.tolist() == labels[-5:]
    assert data.class_names == tuple(f"class {i}" for i in range(10 if name == "cifar10" else 100))
    assert (data.mean[0], data.std[0]) == ((0.4915, 0.2472) if name == "cifar10" else (0.5072, 0.2673))
    assert data.rule.startswith("positional: training images 0-44 train, 45-49 validation")


def test_a_published_archive_is_unpacked_once_its_sum_is_right(cifar, monkeypatch):
    name, folder, kind = cifar
    whole = load(name, str(folder.parent), False, None).facts()
    archive = folder.parent / kind.filename
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, kind.base_folder)
    shutil.rmtree(folder)
    with pytest.raises(InputError, match=f"{kind.filename} has the md5 sum .* {kind.tgz_md5} is published"):
        load(name, str(folder.parent), False, None)
    assert not folder.exists()
    monkeypatch.setattr(kind, "tgz_md5", md5(archive))
    for download in (False, True):  # nothing is fetched where the archive is there
        assert load(name, str(folder.parent), download, None).facts() == whole
    archive.unlink()
    assert load(name, str(folder.parent), False, None).facts() == whole


def test_damaged_and_missing_files_are_refused_with_the_mend(cifar):
    name, folder, kind = cifar
    with pytest.raises(InputError, match=rf"--data-dir.*{kind.filename}.*--download"):
        load(name, None, False, None)
    with pytest.raises(InputError, match=rf"holds no {kind.base_folder}/ and no {kind.filename}.*--download"):
        load(name, str(folder.parent / "nowhere"), False, None)
    (folder / kind.train_list[0][0]).write_bytes(b"damaged")
    with pytest.raises(InputError, match="incomplete or damaged"):
        load(name, str(folder.parent), False, None)


@pytest.mark.parametrize("which", ["train_list", "test_list", "meta"])
def test_a_pickle_that_is_not_the_published_one_is_never_loaded(cifar, which):
    name, folder, kind = cifar
    file = kind.meta["filename"] if which == "meta" else getattr(kind, which)[0][0]
    (folder / file).write_bytes(pickle.dumps(Evil(folder / "evil")))
    with pytest.raises(InputError, match="incomplete or damaged"):
        load(name, str(folder.parent), False, None)
    assert not (folder / "evil").exists()


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    """A folder with SVHN's two files, 40 and 20 images H x W x C x N, labels 1 to 10 in a column."""
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    listed = {}
    for part, count in (("train", 40), ("test", 20)):
        file = tmp_path / f"{part}_32x32.mat"
        x = DRAW.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        savemat(file, {"X": x, "y": (np.arange(count, dtype=np.uint8) % 10 + 1)[:, None]})
        listed[part] = ["", file.name, md5(file)]
    monkeypatch.setattr(SVHN, "split_list", listed)
    return tmp_path


def test_svhn_is_read_with_label_10_as_the_digit_0(svhn):
    from scipy.io import loadmat

    data = load("svhn", str(svhn), False, None)
    raw = loadmat(svhn / "train_32x32.mat")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [36, 4, 20]
    assert data.train.labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    np.testing.assert_array_equal(data.validation.images[-1].numpy(), raw["X"][..., -1].transpose(2, 0, 1))
    share = data.train.images.double() / 255
    assert data.mean == pytest.approx(share.mean((0, 2, 3)).tolist(), abs=6e-5)
    assert not DATASETS["svhn"].flip  # a mirrored digit is none


def test_svhn_with_a_file_missing_or_damaged_is_refused(svhn):
    with pytest.raises(InputError, match=r"--data-dir.*train_32x32\.mat and test_32x32\.mat"):
        load("svhn", None, False, None)
    (svhn / "train_32x32.mat").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"svhn .* is incomplete or damaged"):
        load("svhn", str(svhn), False, None)
    (svhn / "test_32x32.mat").unlink()
    with pytest.raises(InputError, match=r"holds no test_32x32\.mat; put it there"):
        load("svhn", str(svhn), False, None)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """tiny-imagenet-200/ with 4 classes of 10 images and 6 tests; image i of class c is one colour, (10 i, 50 c, 0)."""
    folder = tmp_path / "tiny-imagenet-200"
    numbers = ["n04", "n01", "n03", "n02"]

    def save(file, colour, mode="RGB"):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (64, 64), colour).save(file, "JPEG", quality=100, subsampling=0)

    for number in numbers:
        for i in range(10):
            save(folder / f"train/{number}/images/{number}_{i}.JPEG", (10 * i, 50 * int(number[1:]), 0))
    save(folder / "train/n01/images/n01_3.JPEG", 30, "L")
    rows = []
    for i in range(6):
        save(folder / f"val/images/val_{i}.JPEG", (0, 0, 40 * i))
        rows.append(f"val_{i}.JPEG\t{numbers[i % 4]}\t0\t0\t9\t9\n")
    (folder / "val/val_annotations.txt").write_text("".join(rows))
    (folder / "wnids.txt").write_text("\n".join(numbers))
    (folder / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tbullfrog\nn03\ttoad\nn99\tother\n")
    monkeypatch.setattr(datasets, "TINY_PER_CLASS", 10)
    monkeypatch.setattr(datasets, "TINY_TEST", 6)
    return folder


def test_tinyimagenet_is_dealt_out_by_class_before_it_is_cut(tiny):
    data = load("tinyimagenet", str(tiny.parent), False, None)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [36, 4, 6]
    assert data.train.images.shape[1:] == (3, 64, 64)
    assert data.train.labels.tolist() == [0, 1, 2, 3] * 9
    assert data.validation.labels.tolist() == [0, 1, 2, 3]
    corner = data.train.images[:, :, 0, 0].int()
    expected = torch.tensor([[10 * (i // 4), 50 * (i % 4 + 1), 0] for i in range(36)])
    expected[12] = 30  # the grey one became RGB
    assert (corner - expected).abs().max() <= 3  # JPEG
    assert (data.validation.images[:, 0, 0, 0].int() - 90).abs().max() <= 3
    assert data.class_names == ("goldfish, Carassius auratus", "bullfrog", "toad", "n04")
    assert data.test.labels.tolist() == [3, 0, 2, 1, 3, 0]
    assert (data.test.images[:, 2, 0, 0].int() - torch.arange(6) * 40).abs().max() <= 3
    part = load("tinyimagenet", str(tiny.parent), False, 8)
    assert part.train.labels.bincount().tolist() == [2, 2, 2, 2]


def test_tinyimagenet_from_its_archive_and_with_parts_missing(tiny, monkeypatch):
    whole = load("tinyimagenet", str(tiny.parent), False, None).facts()
    archive = shutil.make_archive(tiny, "zip", tiny.parent, tiny.name)
    shutil.rmtree(tiny)
    with pytest.raises(InputError, match=r"zip has the md5 sum .* 90528d7ca1a48142e341f4ef8d21d0de is published"):
        load("tinyimagenet", str(tiny.parent), False, None)
    monkeypatch.setattr(datasets, "TINY_MD5", md5(tiny.with_name("tiny-imagenet-200.zip")))
    assert archive.endswith("tiny-imagenet-200.zip")
    assert load("tinyimagenet", str(tiny.parent), False, None).facts() == whole
    damaged = tiny / "train/n02/images/n02_4.JPEG"
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.raises(InputError, match=r"n02_4\.JPEG cannot be read"):
        load("tinyimagenet", str(tiny.parent), False, None)
    damaged.unlink()
    with pytest.raises(InputError, match="train/n02/images holds 9 of 10 images"):
        load("tinyimagenet", str(tiny.parent), False, None)
    (tiny / "words.txt").unlink()
    with pytest.raises(InputError, match=r"could not be read.*words\.txt"):
        load("tinyimagenet", str(tiny.parent), False, None)
    with pytest.raises(
        InputError, match=r"--download does not fetch tinyimagenet; leave it out, with tiny-imagenet-200\.zip"
    ):
        load("tinyimagenet", str(tiny.parent), True, None)
    with pytest.raises(InputError, match=r"holds no tiny-imagenet-200/ and no tiny-imagenet-200\.zip"):
        load("tinyimagenet", str(tiny), False, None)


@pytest.mark.parametrize("damage", ["val_9.JPEG\tn77\n", ""])
def test_tinyimagenet_with_a_damaged_list_is_mended_as_advised(tiny, damage, monkeypatch):
    shutil.make_archive(tiny, "zip", tiny.parent, tiny.name)
    whole = load("tinyimagenet", str(tiny.parent), False, None).facts()
    rows = (tiny / "val/val_annotations.txt").read_text().splitlines(keepends=True)
    (tiny / "val/val_annotations.txt").write_text("".join([*rows[:-1], damage]))
    with pytest.raises(InputError, match=r"delete tiny-imagenet-200/ and unpack the published archive again"):
        load("tinyimagenet", str(tiny.parent), False, None)
    shutil.rmtree(tiny)
    shutil.unpack_archive(tiny.with_name("tiny-imagenet-200.zip"), tiny.parent)
    assert load("tinyimagenet", str(tiny.parent), False, None).facts() == whole
