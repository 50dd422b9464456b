"""Every mend in an error about a run's networks, a conversion or a set of arrays, followed to the letter, mends."""

import copy
import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from handed_over import GOOD, X, plain, refusal
from torch import nn
from training_runs import experiment, tiny

from divkd import DeepEnsemble, distill, load_model, member, merge, to_batch_ensemble
from divkd.empirical.data.datasets import load
from divkd.shared.files import read_json, write_json


class Net(nn.Module):
    """Two layers, and what lies between them."""

    def __init__(self, between):
        super().__init__()
        self.first, self.last, self.between = nn.Linear(192, 6), nn.Linear(6, 5), between

    def forward(self, x):
        return self.last(self.between(self.first(x.flatten(1))))


class Pair(nn.Module):
    def __init__(self, threads):
        super().__init__()
        self.first, self.second, self.threads = nn.Linear(192, 5), nn.Linear(192, 5), threads

    def forward(self, x):
        x, layers = x.flatten(1), (self.first, self.second)
        if not self.threads:
            return sum(layer(x) for layer in layers)
        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(lambda layer: layer(x), layers))


def batch(members=2):
    return to_batch_ensemble(plain(), members)


def converted(net):
    return to_batch_ensemble(net, 2, example=X).eval()(X)


@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        (
            "call them in the thread that calls the network",
            lambda: converted(Pair(True)),
            lambda: converted(Pair(False)),
        ),
        ("mixes rows", lambda: converted(Net(nn.Softmax(0))), lambda: converted(Net(nn.Softmax(1)))),
        ("mixes or drops rows", lambda: to_batch_ensemble(Net(Drops()), 2)(X[:2]), lambda: converted(Net(nn.ReLU()))),
        (
            "give one batch, or one a member",
            lambda: batch()(torch.stack([X] * 3)),
            lambda: batch()(torch.stack([X] * 2)),
        ),
        ("give one batch, or one a member", lambda: batch()(torch.stack([X] * 3)), lambda: batch()(X)),
        (
            "give one batch, or one a member",
            lambda: DeepEnsemble([plain(), plain(1)])(torch.stack([X] * 3)),
            lambda: DeepEnsemble([plain(), plain(1)])(torch.stack([X] * 2)),
        ),
        ("give a BatchEnsemble or a DeepEnsemble", lambda: member(plain(), 0), lambda: member(batch(), 0)),
        (
            "give a BatchEnsemble or a DeepEnsemble",
            lambda: member(plain(), 0),
            lambda: member(DeepEnsemble([plain()]), 0),
        ),
        ("from 0 to 1", lambda: member(batch(), 2), lambda: member(batch(), 1)),
        ("give a BatchEnsemble, whose members", lambda: merge(DeepEnsemble([plain()])), lambda: merge(batch())),
        (
            "give one teacher for each member, or a plain network",
            lambda: distill([plain(m) for m in range(3)], batch(), GOOD, 1, "kd"),
            lambda: distill([plain(m) for m in range(2)], batch(), GOOD, 1, "kd"),
        ),
        (
            "give one teacher for each member, or a plain network",
            lambda: distill([plain(m) for m in range(3)], batch(), GOOD, 1, "kd"),
            lambda: distill([plain(m) for m in range(3)], plain(4), GOOD, 1, "kd"),
        ),
        (
            "distill into a copy: copy.deepcopy",
            lambda: (net := plain(), distill([net], net, GOOD, 1, "kd")),
            lambda: (net := plain(), distill([net], copy.deepcopy(net), GOOD, 1, "kd")),
        ),
    ],
)
def test_what_is_advised_of_networks_mends(words, wrong, right):
    assert words in refusal(wrong)
    assert right() is not None


class Drops(nn.Module):
    def forward(self, x):
        return x[1:]


def short(**changes):
    found = tiny(train_images=64, students=("batch_ensemble", "single"), methods=("none", "kd"))
    one = dataclasses.replace(found.teacher, epochs=1)
    return dataclasses.replace(found, **{"teacher": one, "student": one, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on an .npz file of one's own, for which one network of another data set is no use."""
    folder = tmp_path_factory.mktemp("runs")
    data = load("digits", None, False, None)
    parts = {"train": slice(0, 200), "test": slice(200, 300)}
    arrays = {f"x_{part}": data.train.images[rows].permute(0, 2, 3, 1).numpy() for part, rows in parts.items()}
    np.savez(folder / "mine.npz", **arrays, **{f"y_{part}": data.train.labels[rows] for part, rows in parts.items()})
    experiment(short(dataset=str(folder / "mine.npz"), train_images=None), folder / "run")
    return folder / "run"


@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        ("methods of its students: none, kd", {"method": "ods"}, {"method": "kd"}),
        ("it has 0", {"seed": 5}, {"seed": 0}),
        ("leave it out or take a student", {"model": "deep_ensemble", "method": "kd"}, {"model": "deep_ensemble"}),
        ("leave it out or take a student", {"model": "deep_ensemble", "method": "kd"}, {"model": "single"}),
        ("leave members out", {"model": "single", "members": 2}, {"model": "single"}),
        ("give a whole number", {"model": "deep_ensemble", "members": 0}, {"model": "deep_ensemble", "members": 1}),
        ("give 'cpu', 'cuda' or 'cuda:N'", {"device": "tpu"}, {"device": "cpu"}),
        ("did you mean 'single'", {"model": "singel"}, {"model": "single"}),
    ],
)  # fmt: skip
def test_what_is_advised_of_a_network_of_a_run_mends(run, words, wrong, right):
    assert words in refusal(lambda: load_model(run, **wrong))
    assert load_model(run, **right).members


def test_what_is_advised_of_the_runs_files_mends(run):
    config = short(dataset=str(run.parent / "mine.npz"), train_images=None)
    kept = run / "checkpoints/seed0-single-kd-from2.safetensors"
    kept.write_bytes(kept.read_bytes()[:-5])
    assert "--resume of its run trains it again" in refusal(lambda: load_model(run, "single"))
    kept.unlink()
    assert "--resume goes on with the others" in refusal(lambda: load_model(run, "single"))
    experiment(config, run, resume=True)
    assert load_model(run, "single").members == 1

    data = run.parent / "mine.npz"
    whole = data.read_bytes()
    data.rename(run.parent / "away.npz")
    assert "mine.npz is gone; restore it" in refusal(lambda: load_model(run, "merged"))
    with np.load(run.parent / "away.npz") as arrays:
        np.savez(data, **{name: array[::-1] for name, array in arrays.items()})
    assert "mine.npz has changed; restore it" in refusal(lambda: load_model(run, "merged"))
    data.write_bytes(whole)
    assert load_model(run, "merged").members == 1

    content = read_json(run / "config.json")
    write_json(run / "config.json", {key: value for key, value in content.items() if key != "data"})
    assert f"delete it, and divkd train cifar --config {run}/manifest.jsonl --resume --out {run} writes it anew" in (
        refusal(lambda: load_model(run))
    )
    (run / "config.json").unlink()
    experiment(config, run, resume=True)
    assert load_model(run).members == 2


def test_teachers_of_other_data_are_made_again_or_a_student_is_taken(run, tmp_path):
    mine = short(dataset=str(run.parent / "mine.npz"), train_images=None)
    experiment(mine, tmp_path / "teachers")
    experiment(dataclasses.replace(mine, teachers=str(tmp_path / "teachers")), tmp_path / "students")
    experiment(short(), tmp_path / "teachers", overwrite=True)
    words = refusal(lambda: load_model(tmp_path / "students", "deep_ensemble"))
    assert "make it again, or take a student" in words
    assert load_model(tmp_path / "students", "single").members == 1
    experiment(mine, tmp_path / "teachers", overwrite=True)
    assert load_model(tmp_path / "students", "deep_ensemble").members == 2


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("give as many", lambda arrays: {"y_train": arrays["y_train"][:-1]}),
        ("array.argmax(1)", lambda arrays: {"y_test": arrays["y_test"][:, None].repeat(2, 1)}),
        ("make them alike", lambda arrays: {"x_test": arrays["x_test"][:, :6]}),
    ],
)
def test_what_is_advised_of_arrays_mends(run, tmp_path, words, wrong):
    with np.load(run.parent / "mine.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "mine.npz", **{**arrays, **wrong(arrays)})
    assert words in refusal(lambda: load(str(tmp_path / "mine.npz"), None, False, None))
    np.savez(tmp_path / "mine.npz", **arrays)
    assert len(load(str(tmp_path / "mine.npz"), None, False, None).test) == 100
