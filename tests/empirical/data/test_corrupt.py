"""Corrupted images: laws of every kind, formulas against other implementations, and the reader of published arrays."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom
from sklearn.datasets import load_digits

from divkd.empirical.data.cifar_c import read_published
from divkd.empirical.data.corrupt import FAMILIES, STRENGTHS, corrupt, generated, stroke
from divkd.shared.errors import InputError

KINDS = tuple(STRENGTHS)
every_kind = pytest.mark.parametrize("kind", KINDS)


def smooth(count, channels, height, width, seed=0):
    """Smooth random images with edges: blurred noise, a part of each cut to a flat level."""
    x = gaussian_filter(np.random.default_rng(seed).standard_normal((count, channels, height, width)), (0, 0, 2, 2))
    x = np.where(x > 0.7 * x.std(), 0.9, 0.45 + 0.15 * x / x.std())
    return torch.from_numpy((np.clip(x, 0, 1) * 255).round().astype(np.uint8))


COLOUR = smooth(6, 3, 32, 32)
DIGITS = torch.from_numpy((load_digits().images[:40, None] * (255 / 16)).round().astype(np.uint8))


def distortion(images, kind):
    return [((corrupt(images, kind, s, 0).float() - images.float()) ** 2).mean().item() for s in range(1, 6)]


def test_four_families_hold_every_kind_once_with_five_strengths():
    assert [kind for kinds in FAMILIES.values() for kind in kinds] == list(KINDS)
    assert list(FAMILIES) == ["noise", "blur", "weather", "digital"]
    assert {len(row) for row in STRENGTHS.values()} == {5}


@every_kind
def test_a_prefix_of_the_images_is_corrupted_as_all_are(kind):
    whole = corrupt(COLOUR, kind, 3, 7)
    for count in (0, 1, 4):
        assert torch.equal(corrupt(COLOUR[:count], kind, 3, 7), whole[:count])
    assert torch.equal(corrupt(COLOUR, kind, 3, 7), whole)
    assert (whole.shape, whole.dtype, whole.device) == (COLOUR.shape, torch.uint8, COLOUR.device)


@every_kind
def test_only_kinds_that_draw_depend_on_seed_and_place(kind):
    draws = kind in {*FAMILIES["noise"], "motion_blur", "fog", "snow"}
    assert torch.equal(corrupt(COLOUR, kind, 4, 0), corrupt(COLOUR, kind, 4, 1)) != draws
    twice = corrupt(COLOUR[:1].expand(2, -1, -1, -1), kind, 4, 0)
    assert torch.equal(twice[0], twice[1]) != draws


@every_kind
@pytest.mark.parametrize("images", [COLOUR, DIGITS, smooth(3, 3, 64, 48)], ids=["32", "digits", "64x48"])
def test_distortion_grows_with_severity(kind, images):
    measured = distortion(images, kind)
    assert measured[0] > 0
    assert (np.diff(measured) > 0).all(), measured


@every_kind
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 9), (1, 33, 16)])
def test_small_grey_and_oblong_images_keep_their_shape(kind, shape):
    images = smooth(2, *shape)
    for severity in (1, 5):
        assert corrupt(images, kind, severity, 0).shape == images.shape
    turned = images.transpose(2, 3).contiguous().transpose(2, 3)  # the same values at other strides
    assert torch.equal(corrupt(turned, kind, 5, 0), corrupt(images, kind, 5, 0))


def test_all_kinds_differ():
    made = [corrupt(COLOUR, kind, 3, 0) for kind in KINDS]
    assert not any(torch.equal(a, b) for i, a in enumerate(made) for b in made[:i])


@pytest.mark.parametrize("kind", ["gaussian_blur", "defocus_blur", "motion_blur", "contrast", "pixelate"])
@pytest.mark.parametrize("level", [0, 77, 255])
def test_linear_kinds_keep_a_flat_image(kind, level):
    flat = torch.full((1, 3, 20, 20), level, dtype=torch.uint8)
    assert torch.equal(corrupt(flat, kind, 5, 0), flat)


@pytest.mark.gpu
def test_the_device_does_not_matter():
    for kind in KINDS:
        made = corrupt(COLOUR.cuda(), kind, 3, 0)
        assert made.is_cuda
        assert torch.equal(made.cpu(), corrupt(COLOUR, kind, 3, 0))


def near(images, expected):
    """Bytes within one level of the expected pixels (N, C, H, W) in [0, 1]: only rounding may differ."""
    assert np.abs(images.numpy() - np.clip(expected, 0, 1) * 255).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_closed_forms(severity):
    x = COLOUR.numpy() / 255
    near(corrupt(COLOUR, "brightness", severity, 0), x + STRENGTHS["brightness"][severity - 1])
    mean = x.mean((2, 3), keepdims=True)
    near(corrupt(COLOUR, "contrast", severity, 0), mean + STRENGTHS["contrast"][severity - 1] * (x - mean))


@pytest.mark.parametrize("scale", [1, 2])
def test_blurs_equal_a_dense_convolution_and_scale_with_the_image(scale):
    images = smooth(2, 3, 32 * scale, 40 * scale)
    sigma, radius = STRENGTHS["gaussian_blur"][3] * scale, STRENGTHS["defocus_blur"][3] * scale
    near_sigma = int(4 * sigma + 0.5)
    line = torch.exp(-(torch.arange(-near_sigma, near_sigma + 1).double() ** 2) / (2 * sigma**2))
    gauss = torch.outer(line, line) / line.sum() ** 2
    reach = int(radius + 1.5)
    square = torch.arange(-reach, reach + 1).double()
    disc = (radius + 0.5 - (square[:, None] ** 2 + square**2).sqrt()).clamp(0, 1)
    for kind, kernel in (("gaussian_blur", gauss), ("defocus_blur", disc / disc.sum())):
        pad = len(kernel) // 2
        x = np.pad(images.numpy() / 255, ((0, 0), (0, 0), (pad, pad), (pad, pad)), "symmetric").reshape(6, 1, -1)
        x = torch.from_numpy(x).view(6, 1, 32 * scale + 2 * pad, 40 * scale + 2 * pad)
        expected = torch.nn.functional.conv2d(x, kernel[None, None]).view(images.shape)
        near(corrupt(images, kind, 4, 0), expected.numpy())


def test_strokes_are_symmetric_averages_along_their_angle():
    for length, radius, angle in [(0, 1.2, 0), (5, 0.5, 0), (5, 0.5, 0.7), (2, 0.5, 2.0)]:
        kernel = stroke(length, radius, angle)
        assert kernel.sum() == pytest.approx(1)
        np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-12)
    np.testing.assert_allclose(stroke(4, 0.5, 0)[3], [0, *[0.2] * 5, 0], atol=1e-12)  # a level line of 5 pixels
    np.testing.assert_allclose(stroke(4, 0.5, np.pi / 2), stroke(4, 0.5, 0).T, atol=1e-12)


def test_pixelate_by_whole_pixels_is_mean_pooling():
    c = STRENGTHS["pixelate"][2]
    assert c == 2
    means = torch.nn.functional.avg_pool2d(COLOUR.double() / 255, 2).numpy()
    near(corrupt(COLOUR, "pixelate", 3, 0), zoom(means, (1, 1, 2, 2), order=0, grid_mode=True, mode="nearest"))


@pytest.mark.parametrize("images", [COLOUR, DIGITS[:3]])
def test_jpeg_is_what_pillow_writes(images):
    for image, made in zip(images, corrupt(images, "jpeg_compression", 2, 0), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy()).save(buffer, "JPEG", quality=60)
        read = np.array(Image.open(buffer)).reshape(*image.shape[1:], -1)
        np.testing.assert_array_equal(made.permute(1, 2, 0).numpy(), read)


@pytest.mark.parametrize("severity", [1, 5])
def test_noise_has_the_moments_of_its_formula(severity):
    grey = torch.full((12, 3, 32, 32), 128, dtype=torch.uint8)  # 36,864 pixels
    x, cell = 128 / 255, severity - 1
    c = {kind: STRENGTHS[kind][cell] for kind in FAMILIES["noise"]}
    made = {kind: corrupt(grey, kind, severity, 3).double() / 255 for kind in c}
    for kind, deviation in (("gaussian_noise", c["gaussian_noise"]), ("shot_noise", (x * c["shot_noise"]) ** 0.5)):
        assert made[kind].mean().item() == pytest.approx(x, abs=4 * deviation / 36_864**0.5)
        assert made[kind].std().item() == pytest.approx(deviation, rel=0.02)
    p = c["impulse_noise"] / 2
    for level in (0, 1):
        share = (made["impulse_noise"] == level).double().mean().item()
        assert share == pytest.approx(p, abs=4 * (p / 36_864) ** 0.5)


def test_fog_and_snow_whiten_a_dark_image_by_as_much_as_their_strength_allows():
    dark = torch.zeros((8, 3, 32, 32), dtype=torch.uint8)
    fog = corrupt(dark, "fog", 5, 0).double() / 255
    c = STRENGTHS["fog"][4]
    assert fog.amax((1, 2, 3)).tolist() == pytest.approx([c * 0.9] * 8, abs=0.002)
    assert fog.amin((1, 2, 3)).tolist() == pytest.approx([c * 0.45] * 8, abs=0.002)
    snow = corrupt(dark, "snow", 5, 0).double() / 255
    assert snow.max().item() == pytest.approx(0.8, abs=0.002)
    assert 0.05 < (snow > 0.1).double().mean().item() < 0.4
    for made in (fog, snow):
        assert torch.equal(made[:, 0], made[:, 2])  # grey


REFUSED = [
    (COLOUR, "fogg", 1, r"unknown corruption 'fogg'; choose one of: gaussian_noise, .*did you mean 'fog'"),
    (COLOUR, "fog", 0, "severity 0 of fog: choose one of 1 to 5"),
    (COLOUR, "fog", 6, "severity 6 of fog"),
    (COLOUR, "fog", 1.5, r"severity 1\.5 of fog"),
    (COLOUR.float(), "fog", 1, r"images to corrupt are torch.float32 of shape \(6, 3, 32, 32\); give torch.uint8"),
    (COLOUR[0], "fog", 1, r"shape \(3, 32, 32\); give .*\(N, C, H, W\)"),
    (COLOUR[:, :2], "fog", 1, "C = 1 or 3"),
    (COLOUR[..., :3], "fog", 1, "at least 4 pixels a side"),
]


@pytest.mark.parametrize(("images", "kind", "severity", "words"), REFUSED)
def test_what_cannot_be_corrupted_is_refused(images, kind, severity, words):
    with pytest.raises(InputError, match=words):
        corrupt(images, kind, severity, 0)


def test_own_corruptions_are_made_when_asked_for():
    labels = torch.arange(6)
    own = generated(COLOUR, labels, 5)
    assert (own.source, own.kinds, len(own)) == ("own generator", KINDS, 6)
    assert torch.equal(own.labels, labels)
    assert torch.equal(own.images("snow", 2), corrupt(COLOUR, "snow", 2, 5))
    with pytest.raises(InputError, match="severity 9"):
        own.images("snow", 9)
    with pytest.raises(InputError, match="6 images and 5 labels"):
        generated(COLOUR, labels[:5], 5)


ROWS = np.arange(15 * 4 * 5 * 3).reshape(15, 4, 5, 3).astype(np.uint8)  # 3 images at 5 severities
LABELS = np.array([2, 0, 1] * 5)


@pytest.fixture
def folder(tmp_path):
    for name, array in (("labels", LABELS), ("snow", ROWS), ("fog", ROWS[::-1])):
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "README.txt").write_text("not an array")
    return tmp_path


@pytest.mark.parametrize("limit", [None, 1, 2, 3])
def test_published_arrays_come_back_by_kind_and_severity(folder, limit):
    read = read_published(folder, limit)
    count = limit or 3
    assert (read.source, read.kinds, len(read)) == (f"published arrays in {folder}", ("fog", "snow"), count)
    assert (read.labels.tolist(), read.labels.dtype) == ([2, 0, 1][:count], torch.int64)
    for kind, rows in (("fog", ROWS[::-1]), ("snow", ROWS)):
        for severity in range(1, 6):
            images = read.images(kind, severity)
            assert images.is_contiguous()
            start = 3 * (severity - 1)
            np.testing.assert_array_equal(images.permute(0, 2, 3, 1).numpy(), rows[start : start + count])
    read.images("fog", 1).zero_()  # a copy: the file is never written
    np.testing.assert_array_equal(np.load(folder / "fog.npy"), ROWS[::-1])
    with pytest.raises(InputError, match="unknown corruption 'frost'; choose one of: fog, snow"):
        read.images("frost", 1)
    with pytest.raises(InputError, match="severity 6 of fog"):
        read.images("fog", 6)


def test_grey_arrays_in_other_integers_are_read(folder):
    for kind in ("fog", "snow"):
        np.save(folder / f"{kind}.npy", ROWS[..., :1])
    np.save(folder / "labels.npy", LABELS.astype(np.uint8))
    read = read_published(folder, 3)
    assert (read.images("fog", 5).shape, read.labels.tolist()) == ((3, 1, 4, 5), [2, 0, 1])


BAD = [
    ("labels", LABELS.astype(float), r"labels.npy has dtype float64 and shape \(15,\); whole numbers \(N,\)"),
    ("labels", LABELS[:, None], r"labels.npy has dtype int64 and shape \(15, 1\)"),
    ("labels", LABELS[:14], "labels.npy has 14 labels; a multiple of 5"),
    ("labels", LABELS[:0], "labels.npy"),
    ("labels", LABELS - 1, r"labels.npy\[1\] is -1; classes are numbered from 0"),
    ("labels", np.append(LABELS[:-1], 2), r"row 14 \(severity 5\) has label 2 and row 2 \(severity 1\) 1; all sever"),
    ("labels", np.tile(LABELS, 2)[:20], "row 4 .severity 2. has label 0 and row 0 .severity 1. 2"),
    ("labels", LABELS[:10].repeat(2)[:5] * 0, r"fog.npy is uint8 of shape \(15, 4, 5, 3\); uint8 of shape \(5, H, W,"),
    ("fog", ROWS / 255, r"fog.npy is float64 of shape \(15, 4, 5, 3\); uint8 of shape \(15, H, W, 1 or 3\)"),
    ("fog", ROWS[..., 0], r"fog.npy is uint8 of shape \(15, 4, 5\)"),
    ("fog", ROWS[:10], r"fog.npy is uint8 of shape \(10, 4, 5, 3\)"),
    ("fog", ROWS.transpose(0, 3, 1, 2), r"fog.npy is uint8 of shape \(15, 3, 4, 5\)"),
    ("snow", ROWS[:, :3], r"snow.npy is uint8 of shape \(15, 3, 5, 3\); uint8 of shape \(15, 4, 5, 3\) is .*restore"),
    ("snow", np.array([{}] * 15), "snow.npy cannot be read as an array of numbers"),
    ("labels", np.array([None] * 15), "labels.npy cannot be read as an array of numbers"),
]


@pytest.mark.parametrize(("name", "array", "words"), BAD)
def test_the_first_published_file_that_is_wrong_is_named(folder, name, array, words):
    np.save(folder / f"{name}.npy", array)
    with pytest.raises(InputError, match=words):
        read_published(folder, 1)


def test_damaged_absent_and_excess_are_refused(folder):
    def refused(words, limit=3):
        with pytest.raises(InputError, match=words):
            read_published(folder, limit)

    for limit in (0, 4):
        refused(f"limit {limit} is not .*allowed: 1 to 3", limit)
    whole = (folder / "snow.npy").read_bytes()
    for content in (b"", b"no array", whole[:40], whole[:-1]):
        (folder / "snow.npy").write_bytes(content)
        refused("snow.npy cannot be read as an array of numbers")
    (folder / "snow.npy").unlink()
    (folder / "fog.npy").unlink()
    refused("holds no KIND.npy beside labels.npy")
    (folder / "labels.npy").unlink()
    refused("holds no labels.npy; give the folder")
    with pytest.raises(InputError, match="is no folder"):
        read_published(folder / "absent", 3)
