"""Foreign, shifted and corrupted images: what is read and refused, and scores against the shared functions."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import log_softmax

from divkd.empirical.analysis import shift
from divkd.empirical.analysis.shift import read_set
from divkd.empirical.data.corrupt import Corruptions, generated
from divkd.empirical.data.datasets import load
from divkd.empirical.data.inputs import read_inputs
from divkd.empirical.data.splits import Split
from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training.seed_run import predict
from divkd.shared.errors import InputError
from divkd.shared.metrics.calibration import fit_temperature
from divkd.shared.metrics.diversity import entropy
from divkd.shared.metrics.evaluation import evaluate
from divkd.shared.metrics.ood import ood_scores, separation

SHAPE = (3, 8, 6)
PIXELS = np.random.default_rng(0).integers(0, 256, (7, *SHAPE), dtype=np.uint8)
LABELS = np.array([0, 4, 1, 2, 3, 4, 0])


def image_set(path, labelled=False, limit=100, **arrays):
    np.savez(path, **arrays)
    return read_set(str(path), SHAPE, "01234", limit, None, labelled)


@pytest.mark.parametrize("key", ["images", "x", "x_test"])
@pytest.mark.parametrize("last", [False, True])
def test_a_file_of_images_is_read_under_any_name_in_either_layout(tmp_path, key, last):
    array = PIXELS.transpose(0, 2, 3, 1) if last else PIXELS
    found = image_set(tmp_path / "photos.npz", **{key: array})
    assert found.name == "photos"
    assert np.array_equal(found.images.numpy(), PIXELS)
    assert found.labels is None
    split = found.split(torch.device("cpu"))
    assert torch.equal(split.images, found.images)
    assert split.labels.tolist() == [0] * 7


@pytest.mark.parametrize("key", ["labels", "y", "y_test"])
@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_labels_are_read_where_classes_are_the_runs(tmp_path, key, kind):
    found = image_set(tmp_path / "a.npz", labelled=True, x=PIXELS, **{key: LABELS.astype(kind)})
    assert found.labels.dtype == torch.int64
    assert found.labels.tolist() == LABELS.tolist()
    assert found.split(torch.device("cpu")).labels.tolist() == LABELS.tolist()


def test_labels_of_other_classes_are_not_read(tmp_path):
    """What the file of foreign images says of its own classes may be anything."""
    plain = image_set(tmp_path / "a.npz", x=PIXELS)
    for labels in (LABELS + 100, np.zeros((2, 2)), np.array(["cat", "dog"])):
        found = image_set(tmp_path / "a.npz", x=PIXELS, y=labels)
        assert found.labels is None
        assert found.sha256() == plain.sha256()


def test_the_first_so_many_and_the_sum_of_exactly_those(tmp_path):
    few = image_set(tmp_path / "a.npz", labelled=True, limit=3, x=PIXELS, y=LABELS)
    assert np.array_equal(few.images.numpy(), PIXELS[:3])
    assert few.labels.tolist() == LABELS[:3].tolist()
    assert few.sha256() == image_set(tmp_path / "b.npz", labelled=True, x=PIXELS[:3], y=LABELS[:3]).sha256()
    assert few.sha256() == hashlib.sha256(PIXELS[:3].tobytes() + LABELS[:3].tobytes()).hexdigest()
    last = image_set(tmp_path / "b.npz", labelled=True, x=PIXELS[:3].transpose(0, 2, 3, 1), y=LABELS[:3])
    assert few.sha256() == last.sha256()
    for images, labels in ((PIXELS[:3] ^ 1, LABELS[:3]), (PIXELS[:3], LABELS[1:4]), (PIXELS[:2], LABELS[:2])):
        assert few.sha256() != image_set(tmp_path / "c.npz", labelled=True, x=images, y=labels).sha256()


def test_a_data_set_by_name_gives_its_test_images():
    found = read_set("digits", (1, 8, 8), "0123456789", 20, None, False)
    assert (found.name, found.labels) == ("digits", None)
    assert torch.equal(found.images, load("digits", None, False, None).test.images[:20])


@pytest.mark.parametrize(("shape", "size"), [((3, 8, 6), None), ((1, 8, 6), None), ((3, 4, 4), 4)])
def test_a_folder_is_walked_as_in_training_and_prediction(tmp_path, shape, size):
    folder = tmp_path / "photos"
    places = [f"{'bcd'[i % 3]}/{'deep/' * (i % 2)}{i}.png" for i in range(7)]
    for place, pixels in zip(places, PIXELS, strict=True):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / place)
    (folder / "b/._0.png").write_bytes(b"")
    (folder / "b/notes.txt").write_bytes(b"")
    names, images = read_inputs([folder], shape, size, False)
    names = [str(Path(name).relative_to(folder)) for name in names]
    plain = read_set(str(folder), shape, "abcde", 100, None, False, size)
    few = read_set(str(folder), shape, "abcde", 3, None, True, size)
    shifted = read_set(str(folder), shape, "abcde", 100, None, True, size)
    assert (plain.name, plain.labels, shifted.name) == ("photos", None, "photos")
    assert plain.passed == shifted.passed == f"{folder}: passed over: 1 hidden, 1 without an image's ending (.txt)"
    assert sorted(few.labels.tolist()) == [1, 2, 3]  # the first so many are of all classes
    assert torch.equal(few.images, shifted.images[:3])
    given = sorted((images[i].tobytes(), "abcde".index(names[i][0])) for i in range(7))
    pairs = zip(shifted.images, shifted.labels, strict=True)
    assert sorted((image.numpy().tobytes(), int(label)) for image, label in pairs) == given
    assert sorted(image.numpy().tobytes() for image in plain.images) == [one[0] for one in given]
    with pytest.raises(
        InputError, match=r"photos/d is a class that the run has not; its classes: a, b, c: move it out"
    ):
        read_set(str(folder), shape, "abc", 100, None, True, size)
    with pytest.raises(InputError, match=r"png is \d x \d pixels and the run's 9 x 9; scale it to that"):
        read_set(str(folder), (3, 9, 9), "abcde", 100, None, False, size)


@pytest.mark.parametrize(
    ("labelled", "arrays", "words"),
    [
        (False, {"x": PIXELS[:, :, :4]}, ("x in", "6 x 4 pixels with 3", "6 x 8 pixels", "scale them to 6 x 8")),
        (False, {"x": PIXELS[:, :1]}, ("x in", "with 1 channel", "with 3", "np.repeat(array, 3, axis=1)")),
        (False, {"x": PIXELS / 255}, ("x in", "float64", "astype('uint8')")),
        (False, {"x": PIXELS[0]}, ("x in", "(3, 8, 6)", "(N, H, W, C)")),
        (False, {"x": PIXELS[:0]}, ("x in", "(0, 3, 8, 6)", "is needed")),
        (False, {"x": PIXELS, "images": PIXELS}, ("holds x, images", "one of images, x, x_test")),
        (False, {"y": LABELS}, ("holds y", "one of images, x, x_test")),
        (False, {}, ("holds nothing", "one of images, x, x_test")),
        (False, {"pictures": PIXELS}, ("'pictures'", "images")),
        (True, {"x": PIXELS}, ("holds x", "one of labels, y, y_test", "--shift")),
        (True, {"x": PIXELS, "y": LABELS, "labels": LABELS}, ("holds x, y, labels", "one of labels")),
        (True, {"x": PIXELS, "y": LABELS[:6]}, ("y in", "6 labels", "7 images")),
        (True, {"x": PIXELS, "y": LABELS[:, None]}, ("y in", "(7, 1)", "array.ravel()")),
        (True, {"x": PIXELS, "y": LABELS * 1.0}, ("y in", "float64", "whole numbers")),
        (True, {"x": PIXELS, "y": LABELS - 1}, ("y in", "[0] is -1", "numbered from 0")),
        (True, {"x": PIXELS, "y": LABELS + 1}, ("y in", "1 to 5", "0 to 4")),
    ],
)
def test_what_does_not_fit_is_refused_with_what_is_allowed(tmp_path, labelled, arrays, words):
    with pytest.raises(InputError) as error:
        image_set(tmp_path / "a.npz", labelled, **arrays)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_what_is_no_file_of_images_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no arrays")
    for source, labelled, words in (
        ("absent.npz", False, ("absent.npz", ".npz file with images", "cifar10")),
        (str(tmp_path), False, ("holds no image", ".npz", "allowed: .png")),
        (str(tmp_path), True, ("holds no folders", "CLASS/*")),
        (str(tmp_path / "text.npz"), False, ("no .npz file", "np.savez")),
        ("digits", True, ("--shift digits", "--ood", ".npz file")),
    ):
        with pytest.raises(InputError) as error:
            read_set(source, SHAPE, "01234", 10, None, labelled)
        assert all(word in str(error.value) for word in words), str(error.value)


def drawn(seed, members=3, samples=60, classes=5, scale=2.0):
    logits = scale * np.random.default_rng(seed).standard_normal((members, samples, classes))
    return torch.from_numpy(log_softmax(logits, axis=-1)).float()


def test_images_like_ones_own_cannot_be_told_apart():
    own = drawn(0)
    found = shift.out_of_distribution(own, {"same": own, "turned": own.flip(1)})
    for name in ("same", "turned"):
        assert list(found[name]["scores"]) == ["max_probability", "entropy", "mutual_information"]
        for scores in found[name]["scores"].values():
            assert scores["auroc"] == pytest.approx(0.5, abs=1e-12)
        assert found[name]["entropy"] == found["test"]["entropy"]
    single = shift.out_of_distribution(own[:1], {"same": own[:1]})
    assert list(single["same"]["scores"]) == ["max_probability", "entropy"]


def test_foreign_images_are_the_positive_class_and_entropies_are_shares():
    own, vague = drawn(0, scale=6.0), drawn(1, samples=40, scale=0.3)
    found = shift.out_of_distribution(own, {"vague": vague})
    assert (found["test"]["n"], found["vague"]["n"]) == (60, 40)
    assert found["vague"]["scores"]["entropy"]["auroc"] > 0.9
    mine, theirs = ood_scores(own), ood_scores(vague)
    for score, values in found["vague"]["scores"].items():
        assert values == separation(mine[score], theirs[score])
    for name, log_probs in (("test", own), ("vague", vague)):
        shares = found[name]["entropy"]
        assert len(shares) == 20
        assert sum(shares) == pytest.approx(1, abs=1e-12)
        counts, _ = np.histogram(entropy(log_probs).numpy() / np.log(5), bins=20, range=(0, 1))
        assert shares == pytest.approx((counts / counts.sum()).tolist(), abs=1e-12)


def test_the_ends_of_the_entropy_are_in_the_first_and_the_last_bin():
    certain = torch.full((2, 3, 4), -torch.inf)
    certain[..., 1] = 0
    uniform = torch.full((2, 3, 4), 0.25).log()
    found = shift.out_of_distribution(certain, {"uniform": uniform})
    assert found["test"]["entropy"] == [1.0] + [0.0] * 19
    assert found["uniform"]["entropy"] == [0.0] * 19 + [1.0]


@pytest.mark.parametrize("members", [1, 3])
def test_with_the_temperature_of_ones_own_validation_it_is_the_runs_own_row(members):
    validation, test = drawn(0, members), drawn(1, members)
    generator = np.random.default_rng(2)
    val_labels, labels = (torch.from_numpy(generator.integers(0, 5, 60)) for _ in range(2))
    found = shift.evaluated(test, labels, fit_temperature(validation, val_labels))
    expected = evaluate(validation, val_labels, test, labels)
    kept = {key: value for key, value in expected.items() if not key.startswith("temperature")}
    assert found == {**kept, "n": 60}


def test_corrupted_cells_are_a_table_by_metric_kind_and_severity():
    data = load("digits", None, False, None)
    nets = [build("resnet8", 10, data.mean, data.std, np.random.default_rng(m)) for m in range(2)]
    net = DeepEnsemble(nets).eval().requires_grad_(False)
    test = shift.first(data.test, 12)
    assert torch.equal(test.images, data.test.images[:12])
    assert torch.equal(test.labels, data.test.labels[:12])
    temperature = fit_temperature(predict(net, test), test.labels)
    made = generated(test.images, test.labels, seed=0)
    two = Corruptions(made.source, ("fog", "contrast"), made.labels, made.images)
    cells = shift.corrupted(two, torch.device("cpu"))
    assert list(cells) == [(kind, severity) for kind in ("fog", "contrast") for severity in range(1, 6)]
    table = shift.corruption_cells(net, cells, temperature)
    assert list(table) == ["acc", "nll", "ece", "cal_nll", "cal_ece"]
    for kind in ("fog", "contrast"):
        for severity in range(1, 6):
            images = made.images(kind, severity)
            row = shift.evaluated(predict(net, Split(images, test.labels)), test.labels, temperature)
            assert torch.equal(cells[kind, severity].images, images)
            assert {metric: table[metric][kind][severity - 1] for metric in table} == {
                metric: row[metric] for metric in table
            }
    assert {len(values) for by_kind in table.values() for values in by_kind.values()} == {5}
