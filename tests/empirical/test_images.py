"""Reading, splitting and augmenting: what is promised of the bytes, and what is refused."""

import hashlib
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from divkd.empirical.data import Augmentation, Split, batches, check, load, read_digits, to_float
from divkd.shared.errors import InputError


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


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder in CIFAR-10's published layout with 6 random images a file; torchvision is told these files' sums."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    draw = np.random.default_rng(0)
    sums = {}
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name in names:
        content = {"data": draw.integers(0, 256, (10_000, 3072), dtype=np.uint8), "labels": [*range(10)] * 1000}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    for name in [*names, "batches.meta"]:
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(
        CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    )
    return tmp_path


def test_cifar10_is_read_in_its_published_layout(published):
    data = load("cifar10", str(published), False, None)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [45_000, 5_000, 10_000]
    raw = pickle.loads((published / "cifar-10-batches-py" / "data_batch_5").read_bytes())
    np.testing.assert_array_equal(data.validation.images.numpy(), raw["data"][5000:].reshape(-1, 3, 32, 32))
    assert data.validation.labels.tolist() == raw["labels"][5000:]


def test_damaged_and_missing_files_are_refused_with_the_mend(published):
    (published / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(InputError, match="incomplete or damaged"):
        load("cifar10", str(published), False, None)
    with pytest.raises(InputError, match=r"--data-dir.*--download"):
        load("cifar10", None, False, None)
    with pytest.raises(InputError, match=r"holds no cifar-10-batches-py/.*--download"):
        load("cifar10", str(published / "nowhere"), False, None)


def test_wrong_images_and_labels_are_refused():
    data = read_digits()
    images, labels = data.train.images, data.train.labels
    for split, message in (
        (Split(images.float(), labels), "float32"),
        (Split(images[:, 0], labels), "shape"),
        (Split(images[:, :, :4], labels), "shape"),
        (Split(images[:5], labels), "5 images and 1197 labels"),
        (Split(images, labels + 1), "labels from 1 to 10"),
        (Split(images, torch.zeros_like(labels)), "one class"),
        (Split(images[:0], labels[:0]), "0 images"),
    ):
        with pytest.raises(InputError, match=message):
            check(replace(data, train=split))


def images(count=5, size=6):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def test_crop_and_flip_are_those_of_a_loop_over_images():
    batch, augmentation = images(), Augmentation(crop=2, flip=True)
    corners, flips = augmentation.draw(len(batch), 0, "teacher", 0, 1)
    out = augmentation.apply(batch, torch.from_numpy(corners), torch.from_numpy(flips))
    for i in range(len(batch)):
        padded = torch.nn.functional.pad(batch[i], [2] * 4)
        top, left = corners[i]
        crop = padded[:, top : top + 6, left : left + 6]
        assert torch.equal(out[i], crop.flip(-1) if flips[i] else crop)
    assert out.dtype == torch.uint8


def test_no_augmentation_leaves_the_bytes():
    batch, nothing = images(), Augmentation(0, False)
    corners, flips = nothing.draw(len(batch), 0, "teacher", 0, 1)
    assert torch.equal(nothing.apply(batch, torch.from_numpy(corners), torch.from_numpy(flips)), batch)
    assert to_float(batch).max() <= 1


def test_an_epoch_is_every_image_once_and_depends_on_seed_role_member_epoch_alone():
    split = Split(images(130), torch.arange(130) % 10)
    plain = Augmentation(0, False)

    def labels(*key):
        return torch.cat([y for _, y in batches(split, plain, 64, *key)])

    first = batches(split, plain, 64, 0, "teacher", 0, 1)
    assert [len(y) for _, y in first] == [64, 64, 2]
    everything = torch.cat([x for x, _ in first]).flatten(1).tolist()
    assert sorted(everything) == sorted(split.images.flatten(1).tolist())
    assert torch.equal(labels(0, "teacher", 0, 1), labels(0, "teacher", 0, 1))
    for other in ((1, "teacher", 0, 1), (0, "student", 0, 1), (0, "teacher", 1, 1), (0, "teacher", 0, 2)):
        assert not torch.equal(labels(0, "teacher", 0, 1), labels(*other))


def test_a_last_batch_of_one_image_is_left_out():
    split = Split(images(65), torch.arange(65) % 10)
    assert [len(y) for _, y in batches(split, Augmentation(0, False), 64, 0, "teacher", 0, 1)] == [64]
