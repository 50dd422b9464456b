"""What an error about predictions advises, done to the letter, mends: the file is read, as what it was meant to be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from divkd.shared.errors import InputError
from divkd.shared.metrics.checks import check_labels, check_log_probs
from divkd.shared.metrics.compare import check_files
from divkd.shared.metrics.predictions import load

Arrays = dict[str, Any]
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(3, 8, 4)) * 3
LABELS = np.array([3, 0, 1, 2, 0, 1, 2, 3])
LOG_PROBS = log_softmax(LOGITS, axis=-1)
PROBS = np.exp(LOG_PROBS)
BINARY = log_softmax(np.stack([0 * LOGITS[..., 0], LOGITS[..., 0]], -1), axis=-1)
NAMES = np.array(["ant", "bee", "cat", "dog"])
BFLOAT16 = torch.tensor(LOGITS).bfloat16()


def put(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


def code(name: str, advice: str) -> Callable[[Arrays], Arrays]:
    """The advice as code, whose value is saved as `name`."""
    known = {"np": np, "torch": torch, "columns": NAMES, "tensor": BFLOAT16}
    return lambda arrays: {**arrays, name: np.asarray(eval(advice, known | arrays))}


def renamed(name: str, to: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {to if key == name else key: value for key, value in arrays.items()}


def without(sample: int) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {
        name: np.delete(value, sample, axis=0 if name == "labels" else 1) for name, value in arrays.items()
    }


def said(arrays: Arrays, path: Path) -> str:
    np.savez(path, **arrays)
    with pytest.raises(InputError) as caught:
        load(path)
    return str(caught.value)


SAME: list[tuple[str, str, Any, str]] = [  # the array at fault, under which name it is saved, what it is, the advice
    ("logits", "bytes", BFLOAT16.view(torch.int16).numpy().view("V2"), "tensor.float().numpy()"),
    ("logits", "stacked", LOGITS.reshape(24, 4), "logits.reshape(3, 8, 4)"),
    ("logits", "stacked and deep", LOGITS.reshape(1, 24, 4), "logits.reshape(3, 8, 4)"),
    ("logits", "samples first", LOGITS.transpose(1, 0, 2), "logits.transpose(1, 0, 2)"),
    ("logits", "classes before samples", LOGITS.swapaxes(1, 2), "logits.swapaxes(-1, -2)"),
    ("logits", "deep", LOGITS[None], "logits.squeeze()"),
    ("logits", "complex", LOGITS + 0j, "logits.real"),
    ("labels", "column", LABELS[:, None], "labels.ravel()"),
    ("labels", "row", LABELS[None], "labels.ravel()"),
    ("labels", "one-hot floats", np.eye(4)[LABELS], "labels.argmax(1)"),
    ("labels", "one-hot", np.eye(4, dtype=int)[LABELS], "labels.argmax(1)"),
    ("labels", "one-hot booleans", np.eye(4)[LABELS] > 0, "labels.argmax(1)"),
    ("labels", "of each member", np.stack([LABELS] * 3), "labels[0]"),
    ("labels", "of each member in line", np.tile(LABELS, 3), "labels[:8]"),
    ("labels", "floats", LABELS * 1.0, "labels.astype('int64')"),
    ("labels", "from 1", LABELS + 1, "labels - 1"),
    ("labels", "words", NAMES[LABELS], "np.searchsorted(columns, labels)"),
]


@pytest.mark.parametrize(("name", "array", "advice"), [(a, c, d) for a, _, c, d in SAME], ids=[row[1] for row in SAME])
def test_code_that_is_advised_gives_what_was_meant(tmp_path: Path, name: str, array: Any, advice: str) -> None:
    arrays = {"logits": LOGITS, "labels": LABELS, name: array}
    assert advice in said(arrays, tmp_path / "x.npz")
    if array.dtype.kind == "V":
        with pytest.raises(ValueError, match="setting an array"):  # which is why it is not advised
            array.astype("float32")
    np.savez(tmp_path / "x.npz", **code(name, advice)(arrays))
    found = load(tmp_path / "x.npz").test
    assert found.labels.tolist() == LABELS.tolist()
    assert found.log_probs.numpy() == pytest.approx(LOG_PROBS, abs=0.05 if array.dtype.kind == "V" else 1e-12)


@pytest.mark.parametrize("kind", ["logits", "log_probs", "probs"])
@pytest.mark.parametrize("deep", [True, False])
def test_one_column_of_a_binary_problem_becomes_two(tmp_path: Path, kind: str, deep: bool) -> None:
    column = {"logits": LOGITS[0, :, 0], "log_probs": BINARY[0, :, 1], "probs": np.exp(BINARY[0, :, 1])}[kind]
    arrays = {kind: column[:, None] if deep else column, "labels": LABELS % 2}
    message = said(arrays, tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", **code(kind, message[message.index("np.") :])(arrays))
    assert load(tmp_path / "x.npz").test.log_probs[0].numpy() == pytest.approx(BINARY[0], abs=1e-12)


OTHERS: list[tuple[Arrays, str, Callable[[Arrays], Arrays]]] = [
    ({"logits": PROBS, "labels": LABELS}, "the logarithms of these", code("logits", "np.log(logits)")),
    ({"logits": PROBS, "labels": LABELS}, "in a file the name probs", renamed("logits", "probs")),
    ({"log_probs": PROBS, "labels": LABELS}, "take their logarithms", code("log_probs", "np.log(log_probs)")),
    ({"log_probs": PROBS, "labels": LABELS}, "save them as probs", renamed("log_probs", "probs")),
    ({"log_probs": LOGITS, "labels": LABELS}, "torch.log_softmax(logits, -1)",
     code("log_probs", "torch.log_softmax(torch.tensor(log_probs), -1).numpy()")),
    ({"log_probs": LOG_PROBS.astype("f2") * np.float16(1.01), "labels": LABELS}, "torch.log_softmax(logits, -1)",
     code("log_probs", "torch.log_softmax(torch.tensor(log_probs).float(), -1).numpy()")),
    ({"probs": LOG_PROBS, "labels": LABELS}, "under the name log_probs", renamed("probs", "log_probs")),
    ({"probs": LOGITS, "labels": LABELS}, "under the name logits", renamed("probs", "logits")),
    ({"probs": PROBS * 100, "labels": LABELS}, "divide each row by its sum",
     code("probs", "probs / probs.sum(-1, keepdims=True)")),
    ({"probs": put(PROBS, (1, 2, 0), np.nan), "labels": LABELS}, "or leave it out", without(2)),
    ({"probs": put(PROBS, (1, 2, 0), np.inf), "labels": LABELS}, "or leave it out", without(2)),
    ({"logits": put(LOGITS, (1, 2, 0), np.nan), "labels": LABELS}, "sample 2 again, in float32, or leave it out",
     without(2)),
    ({"logits": put(LOGITS, (1, 2, 0), np.inf), "labels": LABELS}, "or leave it out", without(2)),
    ({"logits": put(LOGITS, (1, 2), -np.inf), "labels": LABELS}, "or leave it out", without(2)),
    ({"log_probs": put(LOG_PROBS, (1, 2, 0), np.nan), "labels": LABELS}, "or leave it out", without(2)),
    ({"log_probs": put(LOG_PROBS, (1, 2, 0), np.inf), "labels": LABELS}, "sample 2 again", without(2)),
    ({"log_probs": put(LOG_PROBS, (1, 2), -np.inf), "labels": LABELS}, "or leave it out", without(2)),
    ({"logits": LOGITS, "labels": put(LABELS * 1.0, (2,), 0.5)}, "leave sample 2 out",
     lambda arrays: {name: value.astype("i8") if name == "labels" else value
                     for name, value in without(2)(arrays).items()}),
    ({"logits": LOGITS, "labels": put(LABELS, (2,), -1)}, "logits[..., labels >= 0, :] and labels[labels >= 0]",
     lambda arrays: {"logits": arrays["logits"][..., arrays["labels"] >= 0, :],
                     "labels": arrays["labels"][arrays["labels"] >= 0]}),
    ({"logits": LOGITS, "labels": LABELS * 5}, "np.searchsorted(columns, labels), columns the classes of the 4 columns",
     lambda arrays: {**arrays, "labels": np.searchsorted([0, 5, 10, 15], arrays["labels"])}),
    ({"logits": LOGITS, "labels": np.array(LABELS.tolist(), dtype=object)}, "np.asarray(labels.tolist())",
     code("labels", "np.asarray(labels.tolist())")),
    ({"logits": (LOGITS * 9).astype("i4"), "labels": LABELS}, "logits.astype('float32')",
     code("logits", "logits.astype('float32')")),
    ({"probs": np.eye(4)[None, LABELS].astype("i4"), "labels": LABELS}, "probs.astype('float32')",
     code("probs", "probs.astype('float32')")),
    ({"logits": LOGITS, "log_probs": LOG_PROBS, "labels": LABELS}, "keep one of the two",
     lambda arrays: {"logits": LOGITS, "labels": LABELS}),
    ({"logits": LOGITS, "labels": LABELS, "val_labels": LABELS}, "save both or neither",
     lambda arrays: {"logits": LOGITS, "labels": LABELS}),
    ({"logits": LOGITS, "y": LABELS}, "labels is required: one class number for each sample; the file also holds y",
     renamed("y", "labels")),
    ({"outputs": LOGITS, "labels": LABELS}, "np.savez(path, logits=..., labels=...)", renamed("outputs", "logits")),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid value encountered in log")
@pytest.mark.parametrize(("arrays", "advice", "mend"), OTHERS, ids=[f"{i}" for i in range(len(OTHERS))])
def test_what_is_advised_in_words_mends(
    tmp_path: Path, arrays: Arrays, advice: str, mend: Callable[[Arrays], Arrays]
) -> None:
    assert advice in said(arrays, tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", **mend(arrays))
    assert load(tmp_path / "x.npz").test.log_probs.shape[2] == 4


def test_what_is_advised_of_tensors_mends() -> None:
    logits, labels = torch.tensor(LOGITS), torch.tensor(LABELS)
    for given, mended, advice in [
        (torch.log_softmax(logits[0], -1), torch.log_softmax(logits[0], -1)[None], "log_probs[None]"),
        (logits.half(), torch.log_softmax(logits.half().float(), -1), "torch.log_softmax(logits.float(), -1)"),
    ]:
        with pytest.raises(InputError) as caught:
            check_log_probs(given)
        assert advice in str(caught.value)
        check_log_probs(mended)
    for given, advice in [(labels.double(), "labels.long()"), (labels[:, None], "labels.ravel()")]:
        with pytest.raises(InputError) as caught:
            check_labels(given, logits)
        assert advice in str(caught.value)
        assert torch.equal(check_labels(eval(advice, {"labels": given}), logits), labels)


def test_what_is_advised_of_files_mends(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with path.open("wb") as file:
        np.save(file, LOGITS)
    with pytest.raises(InputError) as caught:
        load(path)
    assert "use np.savez(path, logits=..., labels=...)" in str(caught.value)
    path.write_text("3,1,2")
    with pytest.raises(InputError) as caught:
        load(path)
    assert "write one with np.savez(path, logits=..., labels=...)" in str(caught.value)
    np.savez(path, logits=LOGITS, labels=LABELS)
    model = load(path)
    with pytest.raises(InputError) as caught:
        check_files({"x.npz": model}, model)
    assert "save val_logits and val_labels too, or leave --ensemble out" in str(caught.value)
    check_files({"x.npz": model}, None)
    np.savez(path, logits=LOGITS, labels=LABELS, val_logits=LOGITS, val_labels=LABELS)
    check_files({"x.npz": load(path)}, load(path))
