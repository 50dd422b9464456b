"""Every mend in a message about arrays, followed to the letter, mends."""

import re

import numpy as np
import pytest
import torch

from divkd.empirical.data.arrays import images_like
from divkd.empirical.data.datasets import load
from divkd.shared.errors import InputError

DRAW = np.random.default_rng(0)
BYTES = DRAW.integers(0, 256, (60, 12, 12, 3), dtype=np.uint8)
LABELS = np.arange(60) % 3
NAMES = np.array(["ant", "bee", "cat"])


def followed(message, array, labels):
    """`array` as the code in `message`, an expression of `array` after the last colon, makes it."""
    code = message.rsplit(": ", 1)[1]
    code = re.sub(
        r"^(?:undo what was done to the pixels, or|scale it down, e\.g\.|without transparency,|images \d.*:) ", "", code
    )
    code = re.sub(r" for (?:one image|all splits|the labels of every split)$", "", code)
    return eval(code, {"np": np, "array": array, "y_train": labels})


def mended(tmp_path, images, labels, times=3):
    """Images and labels after at most so many times of trying and doing what the message says."""
    for _ in range(times):
        test = slice(45, None)
        arrays = {"x_train": images[:45], "y_train": labels[:45], "x_test": images[test], "y_test": labels[test]}
        np.savez(tmp_path / "a.npz", **arrays)
        try:
            return load(str(tmp_path / "a.npz"), None, False, None), images, labels
        except InputError as error:
            message = str(error)
        if re.match(r"[xy]_train", message) is None and "x_" not in message and "y_" not in message:
            raise AssertionError(message)
        if re.match(r"(no label in )?y_", message):
            labels = followed(message, labels, labels[:45])
        else:
            images = followed(message, images, labels)
    raise AssertionError(f"not mended: {message}")


FLOATS = (BYTES / 255).astype(np.float32)
IMAGES = [
    (FLOATS, BYTES),
    (FLOATS.astype(np.float16), BYTES),
    (FLOATS * 2 - 1, BYTES),
    (BYTES.astype(float), BYTES),
    (BYTES.astype(np.int64), BYTES),
    (BYTES.astype(np.uint16) * 257, BYTES),
    (BYTES > 127, np.where(BYTES > 127, 255, 0)),
    ((BYTES > 127).astype(np.int32), np.where(BYTES > 127, 255, 0)),
    (BYTES[..., 0], BYTES[..., :1]),
    (BYTES[..., 0] / 255, BYTES[..., :1]),
    (BYTES[..., 0].reshape(60, -1), BYTES[..., :1]),
    (BYTES.transpose(0, 3, 1, 2).reshape(60, -1), BYTES),
    (np.concatenate((BYTES, BYTES[..., :1] * 0 + 255), 3), BYTES),
    (np.concatenate((BYTES[..., :1], BYTES[..., :1] * 0 + 255), 3), BYTES[..., :1]),
    (np.concatenate((BYTES, BYTES[..., :1] * 0 + 255), 3).transpose(0, 3, 1, 2), BYTES),
    (BYTES[:, :3], BYTES[:, :3].repeat(2, 1)),
    (BYTES.repeat(50, 1), BYTES.repeat(50, 1)[:, ::2, ::2]),
    (BYTES.transpose(0, 3, 1, 2).repeat(50, 2), BYTES.repeat(50, 1)[:, ::2, ::2]),
]  # fmt: skip


@pytest.mark.parametrize(("images", "wanted"), IMAGES)
def test_the_advice_about_images_gives_those_that_were_meant(tmp_path, images, wanted):
    data, _, _ = mended(tmp_path, images, LABELS)
    assert np.array_equal(data.test.images.permute(0, 2, 3, 1), wanted[45:])


def test_normalised_pixels_are_told_by_their_range(tmp_path):
    data, images, _ = mended(tmp_path, (FLOATS - 0.45) / 0.22, LABELS)
    assert np.abs(images.astype(int) - BYTES).max() <= 1
    assert len(data.train) == 41
    np.savez(tmp_path / "a.npz", x_train=FLOATS - 0.5, y_train=LABELS, x_test=FLOATS, y_test=LABELS)
    with pytest.raises(InputError, match=r"its values are -0\.5 to 0\.5: \(127\.5 \* "):
        load(str(tmp_path / "a.npz"), None, False, None)


@pytest.mark.parametrize(("labels", "wanted"), [
    (LABELS[:, None], LABELS), (np.eye(3)[LABELS], LABELS), (np.eye(3, dtype=int)[LABELS], LABELS),
    (LABELS * 1.0, LABELS), (LABELS > 0, LABELS > 0), (NAMES[LABELS], LABELS), (LABELS + 1, LABELS),
    (LABELS - 1, LABELS), (LABELS * 7, LABELS), (LABELS.astype(float)[:, None], LABELS),
    (LABELS.astype(np.uint64) + 2**63, LABELS), (np.char.encode(NAMES)[LABELS], LABELS),
])  # fmt: skip
def test_the_advice_about_labels_gives_those_that_were_meant(tmp_path, labels, wanted):
    data, _, _ = mended(tmp_path, BYTES, labels)
    assert data.test.labels.tolist() == wanted[45:].tolist()


def test_raw_bytes_of_bfloat16_are_told(tmp_path):
    tensor = torch.from_numpy(FLOATS).bfloat16()
    np.savez(
        tmp_path / "a.npz",
        x_train=tensor.view(torch.int16).numpy().view("V2"),
        y_train=LABELS,
        x_test=BYTES,
        y_test=LABELS,
    )
    with pytest.raises(InputError, match=r"raw bytes, as of bfloat16; write tensor\.float\(\)\.numpy\(\)"):
        load(str(tmp_path / "a.npz"), None, False, None)
    _, images, _ = mended(tmp_path, tensor.float().numpy(), LABELS)
    assert np.abs(images.astype(int) - BYTES).max() <= 1


@pytest.mark.parametrize(("images", "words"), [
    (BYTES * 0 + 99, r"all 41 training images are the same \(99 everywhere\)"),
    (np.repeat(BYTES[:1], 60, 0), "all 41 training images are the same; make them again"),
    (BYTES * 0, r"the same \(0 everywhere\)"),
    (BYTES % 2, r"no pixel of the 41 training images is above 1 of 255; scale them: 255 \* array"),
])  # fmt: skip
def test_constant_and_black_images_are_refused(tmp_path, images, words):
    np.savez(tmp_path / "a.npz", x_train=images[:45], y_train=LABELS[:45], x_test=images[45:], y_test=LABELS[45:])
    with pytest.raises(InputError, match=words):
        load(str(tmp_path / "a.npz"), None, False, None)
    np.savez(
        tmp_path / "a.npz", x_train=255 * (BYTES[:45] % 2), y_train=LABELS[:45], x_test=images[45:], y_test=LABELS[45:]
    )
    load(str(tmp_path / "a.npz"), None, False, None)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_get_the_channels_of_the_run_as_the_advice_says(last, channels):
    array = BYTES[..., : 4 - channels]
    array = array if last else array.transpose(0, 3, 1, 2)
    shape = (channels, 12, 12)
    with pytest.raises(InputError, match=r"x are 12 x 12 pixels with .* make them alike: np\.") as error:
        images_like("x", array, shape)
    images = images_like("x", followed(str(error.value), array, LABELS), shape)
    assert images.shape == (60, *shape)
    luma = BYTES @ np.array([0.299, 0.587, 0.114]) if channels == 1 else BYTES[..., 0]
    assert np.abs(images[:, 0] - luma).max() <= 0.5
    with pytest.raises(InputError, match=r"scale them to 9 x 8$"):
        images_like("x", array, (4 - channels, 8, 9))
