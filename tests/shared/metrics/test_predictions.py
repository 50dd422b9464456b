"""Files of predictions: what is read, and what is refused with the index of the first offender."""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp

from divkd.shared.errors import InputError
from divkd.shared.metrics import checks
from divkd.shared.metrics import quality as metrics
from divkd.shared.metrics.predictions import load

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(2, 6, 3)).astype("float32") * 3
LABELS = np.array([0, 1, 2, 0, 1, 2])


def saved(folder: Path, **arrays: Any) -> Path:
    path = folder / "predictions.npz"
    np.savez(path, **arrays)
    return path


def test_logits_become_float64_log_probabilities(tmp_path: Path) -> None:
    found = load(saved(tmp_path, logits=LOGITS, labels=LABELS, ood_logits=LOGITS[:, :2]))
    expected = log_softmax(LOGITS.astype("f8"), axis=-1)
    assert found.test.log_probs.numpy() == pytest.approx(expected, abs=1e-13)
    assert found.test.energy.numpy() == pytest.approx(-logsumexp(LOGITS.astype("f8"), axis=-1).mean(0), abs=1e-13)
    assert found.test.labels.tolist() == LABELS.tolist()
    assert found.val is None
    assert found.ood.labels is None
    assert found.ood.log_probs.shape == (2, 2, 3)


def test_one_model_may_leave_the_member_axis_out(tmp_path: Path) -> None:
    log_probs = log_softmax(LOGITS, axis=-1)
    flat = load(saved(tmp_path, log_probs=log_probs[0], labels=LABELS))
    deep = load(saved(tmp_path, log_probs=log_probs[:1], labels=LABELS))
    assert torch.equal(flat.test.log_probs, deep.test.log_probs)
    assert flat.test.log_probs.dtype == torch.float32
    assert flat.test.energy is None  # log-probabilities carry none


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", ">f8", "f2", "g"])
@pytest.mark.parametrize("label_kind", ["u1", "i2", ">i4", "u8"])
def test_any_float_and_any_integer_is_read(tmp_path: Path, kind: str, label_kind: str) -> None:
    array = np.asfortranarray(LOGITS.astype(kind))
    found = load(saved(tmp_path, logits=array, labels=LABELS.astype(label_kind)))
    tolerance = 5e-3 if kind == "f2" else 1e-6
    assert found.test.log_probs.numpy() == pytest.approx(log_softmax(LOGITS, axis=-1), abs=tolerance)
    assert metrics.accuracy(found.test.log_probs, found.test.labels) >= 0


def test_minus_infinity_and_huge_logits_are_legal(tmp_path: Path) -> None:
    logits = np.array([[1e30, 0.0, -np.inf], [5.0, 5.0, -1e30]], dtype="float32")
    found = load(saved(tmp_path, logits=logits, labels=[0, 1])).test.log_probs[0]
    assert found[0].tolist() == [0.0, pytest.approx(-1e30), -np.inf]
    assert not found.isnan().any()
    assert found.exp().sum(-1).tolist() == pytest.approx([1.0, 1.0])


def test_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, logits=LOGITS, labels=LABELS)
    whole = load(path).test
    monkeypatch.setattr(checks, "BLOCK", 12)
    assert torch.equal(load(path).test.log_probs, whole.log_probs)


def put(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


PROBS = np.exp(log_softmax(LOGITS, axis=-1))
GOOD = {"logits": LOGITS, "labels": LABELS}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"logits": put(LOGITS, (1, 4, 2), np.nan), "labels": LABELS}, "logits[1, 4, 2] is nan"),
    ({"logits": put(LOGITS, (0, 3, 1), np.inf), "labels": LABELS}, "logits[0, 3, 1] is inf"),
    ({"logits": put(LOGITS, (1, 2), -np.inf), "labels": LABELS}, "logits[1, 2] is -inf in every class"),
    ({"logits": LOGITS[0, 0], "labels": LABELS}, "logits has shape (3,)"),
    ({"logits": LOGITS[None], "labels": LABELS}, "logits has shape (1, 2, 6, 3)"),
    ({"logits": LOGITS[:, :0], "labels": LABELS[:0]}, "logits has shape (2, 0, 3)"),
    ({"logits": LOGITS[..., :1], "labels": LABELS * 0}, "(2, 6, 1), one class"),
    ({"logits": LOGITS.astype("i4"), "labels": LABELS}, "logits has dtype int32"),
    ({"logits": LOGITS.transpose(1, 0, 2), "labels": LABELS}, "members come first"),
    ({"logits": PROBS, "labels": LABELS}, "logits[0, 0] and every other row sums to 1"),
    ({"log_probs": PROBS, "labels": LABELS}, "log_probs[0, 0] holds probabilities"),
    ({"log_probs": LOGITS, "labels": LABELS}, "log_probs[0, 0] is no row"),
    ({"log_probs": put(np.log(PROBS), (1, 5, 0), 0.5), "labels": LABELS}, "log_probs[1, 5] is no row"),
    ({"log_probs": put(np.log(PROBS), (1, 3, 1), np.nan), "labels": LABELS}, "log_probs[1, 3, 1] is nan"),
    ({"logits": LOGITS, "labels": put(LABELS, (3,), 3)}, "labels[3] is 3"),
    ({"logits": LOGITS, "labels": put(LABELS, (2,), -1)}, "labels[2] is -1"),
    ({"logits": LOGITS, "labels": put(LABELS * 1.0, (4,), 0.5)}, "labels[4] is 0.5"),
    ({"logits": LOGITS, "labels": LABELS * 1.0}, "labels has dtype float64"),
    ({"logits": LOGITS, "labels": put(LABELS * 1.0, (2,), np.inf)}, "labels[2] is inf"),
    ({"logits": LOGITS, "labels": LABELS > 0}, "labels has dtype bool"),
    ({"logits": LOGITS, "labels": np.eye(3)[LABELS]}, "labels.argmax(1)"),
    ({"logits": LOGITS, "labels": LABELS[:, None]}, "labels.ravel()"),
    ({"logits": LOGITS, "labels": LABELS[None]}, "labels.ravel()"),
    ({"logits": LOGITS, "labels": 1}, "labels has shape ()"),
    ({"logits": LOGITS, "labels": np.full(6, 2**64 - 1, "u8")}, "labels[0] is 9223372036854775807"),
    (
        {"logits": put(LOGITS.astype("g"), (0, 1, 2), np.longdouble("1e4000")), "labels": LABELS},
        "logits[0, 1, 2] is inf",
    ),
    ({"logits": LOGITS, "labels": LABELS[:5]}, "labels has shape (5,); (6,)"),
    ({"logits": LOGITS, "labels": np.array(["cat"] * 6)}, "labels has dtype <U3"),
    ({"logits": np.array([{}, []], dtype=object), "labels": LABELS}, "logits in"),
    ({"logits": LOGITS}, "logits has no labels"),
    ({"labels": LABELS}, "logits, log_probs or probs is required"),
    ({"logits": LOGITS, "log_probs": LOGITS, "labels": LABELS}, "say the same twice"),
    ({"logits": LOGITS, "lables": LABELS}, "the file also holds lables"),
    ({**GOOD, "val_logits": LOGITS}, "val_labels is required"),
    ({**GOOD, "val_labels": LABELS}, "val_labels stands alone"),
    ({**GOOD, "val_logits": LOGITS[:1], "val_labels": LABELS}, "val_predictions have 1 members"),
    ({**GOOD, "val_logits": put(LOGITS, (0, 1, 2), np.nan), "val_labels": LABELS}, "val_logits[0, 1, 2]"),
    ({**GOOD, "ood_logits": LOGITS[..., :2]}, "ood_predictions have 2 members and 2 classes"),
]


def test_probabilities_are_read_and_zero_is_legal(tmp_path: Path) -> None:
    found = load(saved(tmp_path, probs=PROBS, labels=LABELS, ood_probs=PROBS.astype("f2"))).test
    assert found.log_probs.numpy() == pytest.approx(log_softmax(LOGITS.astype("f8"), axis=-1), rel=1e-5)
    certain = np.array([[1.0, 0.0, 0.0]] * 5 + [[0.0, -0.0, 1.0]])
    found = load(saved(tmp_path, probs=certain, labels=LABELS)).test
    assert found.log_probs[0, 0].tolist() == [0.0, -np.inf, -np.inf]
    assert metrics.nll(found.log_probs, found.labels) == np.inf
    assert metrics.brier(found.log_probs, found.labels) == pytest.approx(2 * 3 / 6)


def test_further_arrays_are_named_and_not_read(tmp_path: Path) -> None:
    further = {"val_logit": LOGITS, "names": np.array([{}], dtype=object), "logitss": LOGITS}
    found = load(saved(tmp_path, **GOOD, **further))
    assert found.ignored == ("val_logit (did you mean val_logits?)", "names", "logitss")
    assert found.val is None


@pytest.mark.parametrize(("arrays", "message"), BAD, ids=[message for _, message in BAD])
def test_what_cannot_be_predictions_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load(saved(tmp_path, **arrays))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, **GOOD)
    whole = path.read_bytes()
    for content, message in [
        (b"", "no .npz file"),
        (b"hello", "no .npz file"),
        (whole[: len(whole) // 2], "no .npz file"),
        (whole.replace(LOGITS.tobytes()[:24], b"x" * 24), "logits in .* is damaged"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            load(path)
    np.save(tmp_path / "one.npy", LOGITS)
    with pytest.raises(InputError, match="one array without a name"):
        load(tmp_path / "one.npy")
    with pytest.raises(InputError, match="No such file"):
        load(tmp_path / "absent.npz")
    with pytest.raises(InputError, match="directory"):
        load(tmp_path)


def header(shape: str) -> bytes:
    """The beginning of an .npy file that claims `shape`."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no array"),
        (b"some words", "no array"),
        (header("(2, 6, 3)"), "damaged"),
        (header("(-2, 6, 3)"), "damaged"),
        (header(f"(2, {10**30}, 3)"), "damaged"),
        (header("(2, 6, ["), "damaged"),
    ],
)
def test_archives_of_something_else_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as archive:
        archive.writestr("logits.npy", content)
    with pytest.raises(InputError, match=f"logits in .* {message}"):
        load(tmp_path / "odd.npz")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bytes_are_read_or_refused_and_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(saved(tmp_path, **GOOD).read_bytes())
    ends = [*range(120), *range(len(content) - 260, len(content))]  # where the archive's own fields are
    for place in data.draw(st.lists(st.sampled_from(ends), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    (tmp_path / "flipped.npz").write_bytes(content)
    try:
        load(tmp_path / "flipped.npz")
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017  # both ways are right


def test_log_probabilities_under_the_name_of_logits_have_no_energy(tmp_path: Path) -> None:
    log_probs = log_softmax(LOGITS, axis=-1).astype("float32")
    found = load(saved(tmp_path, logits=log_probs, labels=LABELS, ood_logits=LOGITS))
    assert found.test.energy is None  # it would be 0 for every sample, and its AUROC that of rounding
    assert found.ood.energy is not None


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    path = saved(tmp_path, logits=np.array([Trap()], dtype=object), labels=LABELS)
    with pytest.raises(InputError, match="Python objects"):
        load(path)
    assert not (tmp_path / "sprung").exists()
