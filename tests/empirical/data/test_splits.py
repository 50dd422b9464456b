"""Splits, augmentation and batches: what is promised of the bytes, and what is refused."""

from dataclasses import replace

import pytest
import torch

from divkd.empirical.data.datasets import read_digits
from divkd.empirical.data.splits import Augmentation, Split, batches, check, moments, to_float
from divkd.shared.errors import InputError


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


def test_moments_are_those_of_the_pixels_and_a_constant_channel_has_none():
    x = images(50, 7)
    x[:, 2] = 51
    mean, std = moments(x)
    share = x.double() / 255
    assert mean == pytest.approx(share.mean((0, 2, 3)).tolist(), abs=6e-5)
    assert std[:2] == pytest.approx(share.std((0, 2, 3), correction=0).tolist()[:2], abs=6e-5)
    assert (mean[2], std[2]) == (0.2, 1.0)


def test_the_sum_of_the_data_changes_with_any_byte_label_or_cut():
    data = read_digits()
    facts = data.facts()
    assert facts == read_digits().facts()
    assert (facts["shape"], facts["class_names"]) == ([1, 8, 8], list("0123456789"))
    pixel, label = data.test.images.clone(), data.validation.labels.clone()
    pixel[3, 0, 0, 0] += 1
    label[3] = (label[3] + 1) % 10
    for other in (
        replace(data, test=Split(pixel, data.test.labels)),
        replace(data, validation=Split(data.validation.images, label)),
        replace(data, train=Split(data.train.images[:-1], data.train.labels[:-1])),
    ):
        assert other.facts()["sha256"] != facts["sha256"]


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

    first = list(batches(split, plain, 64, 0, "teacher", 0, 1))
    assert [len(y) for _, y in first] == [64, 64, 2]
    everything = torch.cat([x for x, _ in first]).flatten(1).tolist()
    assert sorted(everything) == sorted(split.images.flatten(1).tolist())
    assert torch.equal(labels(0, "teacher", 0, 1), labels(0, "teacher", 0, 1))
    for other in ((1, "teacher", 0, 1), (0, "student", 0, 1), (0, "teacher", 1, 1), (0, "teacher", 0, 2)):
        assert not torch.equal(labels(0, "teacher", 0, 1), labels(*other))


def test_a_last_batch_of_one_image_is_left_out():
    split = Split(images(65), torch.arange(65) % 10)
    assert [len(y) for _, y in batches(split, Augmentation(0, False), 64, 0, "teacher", 0, 1)] == [64]
