"""One's own images: folders and arrays, in an order that is never that of the classes, and the first that is wrong."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from divkd.empirical.data.datasets import load
from divkd.empirical.data.images import mixed, spread
from divkd.shared.errors import InputError


def test_every_prefix_and_tail_of_spread_holds_each_class_in_proportion():
    labels = np.repeat([0, 1, 2], [300, 60, 7])
    order = spread(labels)
    assert sorted(order) == list(range(367))
    for count in range(1, 368):
        expected = count * np.array([300, 60, 7]) / 367
        assert np.abs(np.bincount(labels[order[:count]], minlength=3) - expected).max() <= 1
    for c in range(3):
        assert (np.diff(order[labels[order] == c]) > 0).all()  # within a class the order given
    np.testing.assert_array_equal(labels[spread(np.arange(12) // 4)[:3] * 0 + [0, 300, 360]], [0, 1, 2])
    np.testing.assert_array_equal((np.arange(12) // 4)[spread(np.arange(12) // 4)], [0, 1, 2] * 4)


def test_mixed_is_spread_and_always_the_same_but_not_the_order_within_a_class():
    labels = np.repeat([0, 1], [50, 50])
    np.testing.assert_array_equal(labels[mixed(labels)], [0, 1] * 50)
    np.testing.assert_array_equal(mixed(labels), mixed(labels))
    inside = mixed(labels)[labels[mixed(labels)] == 0]
    assert sorted(inside) == list(range(50))
    assert not (np.diff(inside) > 0).all()


def save(file, level, size=(6, 5), mode="RGB"):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level if mode != "RGB" else (level, 0, 255)).save(file)


@pytest.fixture
def folder(tmp_path):
    """photos/ of two classes, 20 and 10 to train and 3 each to test, 6 x 5 pixels, PNG; image i has red level i."""
    root = tmp_path / "photos"
    for name, count in (("cat", 20), ("ant", 10)):
        for i in range(count):
            save(root / f"train/{name}/{i:02}.png", i)
        for i in range(3):
            save(root / f"test/{name}/{i}.png", 100 + i)
    return root


def test_a_folder_is_read_with_classes_by_name_and_a_tenth_of_each_validates(folder):
    data = load(str(folder), None, False, None)
    assert data.name == "photos"
    assert data.class_names == ("ant", "cat")
    assert data.train.images.shape[1:] == (3, 5, 6)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [27, 3, 6]
    assert data.validation.labels.bincount().tolist() == [1, 2]
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.images[:, 0, 0, 0].tolist() == [100, 101, 102] * 2
    everything = [
        (int(y), int(x[0, 0, 0]))
        for s in (data.train, data.validation)
        for x, y in zip(s.images, s.labels, strict=True)
    ]
    assert sorted(everything) == [(0, i) for i in range(10)] + [(1, i) for i in range(20)]
    assert (data.mean[1], data.mean[2], data.std[2]) == (0, 1, 1)
    assert load(str(folder), None, False, None).facts() == data.facts()
    assert load(str(folder), None, False, 9).train.labels.bincount().tolist() == [3, 6]


def test_a_val_folder_validates_and_other_files_are_passed_over(folder):
    save(folder / "val/cat/0.jpg", 7)
    (folder / "train/cat/notes.txt").write_text("no image")
    (folder / "train/.hidden").mkdir()
    data = load(str(folder), None, False, None)
    assert (len(data.train), data.validation.labels.tolist()) == (30, [1])


def test_what_is_wrong_in_a_folder_is_named(folder, tmp_path):
    def refused(words):
        with pytest.raises(InputError, match=words):
            load(str(folder), None, False, None)

    save(folder / "test/cat/9.png", 0, (6, 6))
    refused(r"test/cat/9\.png is 6 x 6 pixels and the first image 6 x 5; .*--image-size")
    (folder / "test/cat/9.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    refused(r"test/cat/9\.png cannot be read as an image")
    whole = (folder / "test/cat/1.png").read_bytes()
    (folder / "test/cat/9.png").write_bytes(whole[: len(whole) // 2])
    refused(r"test/cat/9\.png cannot be read as an image")
    save(folder / "test/cat/9.png", 60_000, (6, 5), "I;16")
    refused(r"9\.png has more than 8 bits a channel \(mode I;16\)")
    (folder / "test/cat/9.png").unlink()
    save(folder / "test/dog/0.png", 0)
    refused(r"test/dog is a class that train/ has not; its classes: ant, cat")
    (folder / "test/dog/0.png").unlink()
    (folder / "test/dog").rename(folder / "train/dog")
    refused(r"train/dog holds no image; allowed: \.png")
    (folder / "train/dog").rmdir()
    (folder / "test").rename(folder / "tests")
    refused(r"photos holds no test/; images lie in .*photos/test/CLASS.* or give .*photos/train --split 0.2$")
    (folder / "test").mkdir()
    refused("test holds no folders; one for each class")
    with pytest.raises(InputError, match=r"photos is itself the place"):
        load(str(folder), "data", False, None)


def test_subfolders_of_a_class_are_walked_and_what_is_left_out_is_told(folder):
    whole = load(str(folder), None, False, None)
    assert whole.passed == ""
    assert whole.summary() == (
        "photos: 36 images of 6 x 5 in 2 classes of 13 to 23 images: 27 train, 3 validation, 6 test"
    )
    (folder / "train/cat/more").mkdir()
    (folder / "train/cat/more/00.png").symlink_to(folder / "train/cat/00.png")
    (folder / "train/cat/19.png").rename(folder / "train/cat/more/19.jfif")
    (folder / "train/cat/._0.png").write_bytes(b"\0\5\x16\7")
    (folder / "train/cat/notes.txt").write_text("no image")
    (folder / "train/.ipynb_checkpoints").mkdir()
    save(folder / "test/stray.png", 0)
    save(folder / "valid/cat/0.png", 0)
    data = load(str(folder), None, False, None)
    assert [len(split) for split in data.splits.values()] == [28, 3, 6]
    assert data.passed == (
        "passed over: 1 beside train/, val/ and test/, 2 hidden, 1 beside the class folders, "
        "1 without an image's ending (.txt)"
    )


def test_a_share_of_each_class_tests_and_it_is_always_the_same(folder):
    with pytest.raises(InputError, match=r"--split 0\.2 is for .*photos holds train/; leave it out"):
        load(str(folder), None, False, None, split=0.2)
    with pytest.raises(
        InputError, match=r"--split 0\.2 is for a folder of CLASS/\*; digits has a test split: leave it"
    ):
        load("digits", None, False, None, split=0.2)
    shutil.rmtree(folder / "test")
    with pytest.raises(InputError, match=r"--split 0\.2 is for .*photos holds train/; give .*photos/train with it"):
        load(str(folder), None, False, None, split=0.2)
    with pytest.raises(InputError, match=r"holds no test/.* or give .*train --split 0\.2$") as error:
        load(str(folder), None, False, None)
    flat = str(error.value).split("or give ")[1].split(" --split")[0]
    with pytest.raises(InputError, match=r"holds no train/.* or give --split 0\.2 where .*train is CLASS/\* alone"):
        load(flat, None, False, None)
    data = load(flat, None, False, None, split=0.2)
    assert [split.labels.bincount().tolist() for split in data.splits.values()] == [[7, 15], [1, 1], [2, 4]]
    seen = [(int(y), int(x[0, 0, 0])) for s in data.splits.values() for x, y in zip(s.images, s.labels, strict=True)]
    assert sorted(seen) == [(0, i) for i in range(10)] + [(1, i) for i in range(20)]
    levels = data.test.images[data.test.labels == 1, 0, 0, 0].tolist()
    assert levels not in ([0, 1, 2, 3], [16, 17, 18, 19])
    assert load(flat, None, False, None, split=0.2).facts() == data.facts()
    assert load(flat, None, False, None, split=0.01).test.labels.tolist() == [0, 1]
    assert data.rule == "a random 0.2 of each class tests; of train 22 train and 2 validate, each class in proportion"
    save(folder / "train/dog/0.png", 3)
    with pytest.raises(InputError, match=r"class dog has one image; --split 0\.2 needs at least two"):
        load(flat, None, False, None, split=0.2)


def test_images_of_any_size_are_scaled_on_demand(folder):
    save(folder / "train/cat/wide.png", 3, (900, 600))
    data = load(str(folder), None, False, None, 8)
    assert data.train.images.shape[1:] == (3, 8, 8)
    assert data.train.images[:, 2].min() == 255
    save(folder / "train/cat/wide.png", 3, (6, 5))
    with pytest.raises(InputError, match="--image-size 8"):
        load("digits", None, False, None, 8)
    for file in folder.rglob("*.png"):
        save(file, 0, (513, 4))
    with pytest.raises(InputError, match="is 513 x 4 pixels; give images of one size, at most 512"):
        load(str(folder), None, False, None)


DRAW = np.random.default_rng(0)
GOOD = {
    "x_train": DRAW.integers(0, 256, (40, 6, 7, 3), dtype=np.uint8),
    "y_train": np.repeat([0, 1, 2, 3], 10),
    "x_test": DRAW.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8),
    "y_test": np.array([3, 2, 1, 0, 0], np.uint8),
}


def written(path, arrays):
    np.savez(path, **arrays)
    return str(path)


def test_arrays_in_either_layout_are_the_same_data_in_mixed_order(tmp_path):
    data = load(written(tmp_path / "mine.npz", GOOD), None, False, None)
    first = {name: array.transpose(0, 3, 1, 2) if array.ndim == 4 else array for name, array in GOOD.items()}
    assert load(written(tmp_path / "mine.npz", first), None, False, None).facts() == data.facts()
    assert (data.name, data.class_names, data.train.images.shape) == ("mine", ("0", "1", "2", "3"), (36, 3, 6, 7))
    assert data.train.labels.tolist() == [0, 1, 2, 3] * 9
    assert data.validation.labels.tolist() == [0, 1, 2, 3]
    assert torch.equal(data.test.images.permute(0, 2, 3, 1), torch.from_numpy(GOOD["x_test"]))
    part = load(str(tmp_path / "mine.npz"), None, False, 8)
    assert part.train.labels.bincount().tolist() == [2, 2, 2, 2]
    grey = {name: array[..., :1] if array.ndim == 4 else array for name, array in GOOD.items()}
    given = {**grey, "x_val": grey["x_test"], "y_val": GOOD["y_test"]}
    data = load(written(tmp_path / "grey.npz", given), None, False, None)
    assert (data.train.images.shape, len(data.mean)) == ((40, 1, 6, 7), 1)
    assert data.validation.labels.tolist() == data.test.labels.tolist() == [3, 2, 1, 0, 0]


BAD = [
    ({"x_train": GOOD["x_train"] / 255.0}, "x_train has dtype float64; bytes from 0 to 255"),
    ({"x_test": GOOD["x_test"][..., 0]}, r"x_test has shape \(5, 6, 7\); \(N, H, W, C\) or"),
    ({"x_test": GOOD["x_test"].repeat(2, 3)}, r"x_test has shape \(5, 6, 7, 6\)"),
    ({"x_test": GOOD["x_test"][:, :3]}, r"x_test has shape \(5, 3, 7, 3\)"),
    ({"x_test": GOOD["x_test"][:, :, :4]}, r"mine test images are torch.uint8 of shape \(5, 3, 6, 4\)"),
    ({"x_test": GOOD["x_test"][:0]}, r"x_test has shape \(0, 6, 7, 3\)"),
    ({"x_train": np.zeros((40, 600, 2, 3), np.uint8)}, "at most 512 pixels a side"),
    ({"x_test": GOOD["x_test"][:4]}, "x_test has 4 images and y_test 5 labels"),
    ({"y_train": GOOD["y_train"].astype(float)}, "y_train has dtype float64 and shape"),
    ({"y_train": np.eye(4, dtype=int)[GOOD["y_train"]]}, r"y_train has dtype int64 and shape \(40, 4\)"),
    ({"y_train": GOOD["y_train"] - 1}, r"y_train\[0\] is -1; classes are numbered from 0"),
    ({"y_train": GOOD["y_train"] + 1}, "no label in y_train is 0 and the highest is 4"),
    ({"y_train": GOOD["y_train"] * 10**12}, "no label in y_train is 1 and the highest is 3000000000000"),
    ({"y_train": GOOD["y_train"] * 0}, "mine test has labels from 0 to 3; allowed: 0 to 0"),
    ({"y_test": GOOD["y_test"] + 1}, "mine test has labels from 1 to 4; allowed: 0 to 3"),
    ({"y_train": np.array([None] * 40)}, "y_train in .* holds Python objects"),
    ({"y_test": None}, "holds no y_test; required"),
    ({"x_val": GOOD["x_test"]}, "holds no y_val; required"),
    ({"y_val": GOOD["y_test"]}, "holds no x_val; required"),
    ({"x_tain": GOOD["x_test"]}, "unknown array 'x_tain'.*did you mean 'x_train'"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_the_first_array_that_is_wrong_is_named(tmp_path, change, words):
    arrays = {name: array for name, array in {**GOOD, **change}.items() if array is not None}
    with pytest.raises(InputError, match=words):
        load(written(tmp_path / "mine.npz", arrays), None, False, None)


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("no images")
    with pytest.raises(InputError, match=r"mine\.txt is no \.npz file; write one with np.savez\(path, x_train="):
        load(str(tmp_path / "mine.txt"), None, False, None)
