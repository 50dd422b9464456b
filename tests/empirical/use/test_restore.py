"""A run's networks, read back: they predict what the run reported; what is not there is named."""

import dataclasses

import pytest
import torch
from training_runs import Killed, experiment, tiny

from divkd.empirical.data.datasets import load
from divkd.empirical.data.splits import to_float
from divkd.empirical.training import loop
from divkd.empirical.use.predict import predict
from divkd.empirical.use.restore import load_model
from divkd.shared.errors import InputError
from divkd.shared.files import read_json, write_json
from divkd.shared.metrics.quality import nll


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("restore") / "run"
    experiment(tiny(methods=("none", "kd"), seeds=(3,), teacher_network="resnet14"), folder)
    return folder


def test_each_network_predicts_what_its_row_says(run):
    test = load("digits", None, False, 130).test
    rows = [row for row in read_json(run / "results.json")["rows"] if row["model"] != "deep_ensemble"]
    assert {row["model"] for row in rows} == {"batch_ensemble", "single", "merged"}
    whole = read_json(run / "results.json")["rows"][1]
    for row in (whole, *rows):
        method = None if row is whole else row["method"]
        found = load_model(run, row["model"], method, 3)
        assert (found.model, found.method, found.members) == (row["model"], row["method"], row["members"])
        assert found.temperature == row["temperature"]
        assert (found.shape, found.class_names) == ((1, 8, 8), tuple("0123456789"))
        with torch.no_grad():
            log_probs = torch.log_softmax(found.net(to_float(test.images)), -1)
        assert nll(log_probs, test.labels) == pytest.approx(row["nll"], rel=1e-5)
        assert (predict(found.net, to_float(test.images)).classes == test.labels.numpy()).mean() == row["acc"]


def test_defaults_are_the_first_student_by_the_last_method(run, tmp_path):
    assert str(load_model(run)) == "batch_ensemble by kd, 2 members, seed 3"
    assert str(load_model(run, "deep_ensemble")) == "deep_ensemble, 2 members, seed 3"
    config = tiny(students=("single",), train_images=64)
    config = dataclasses.replace(config, teacher=dataclasses.replace(config.teacher, epochs=1), student=config.teacher)
    experiment(config, tmp_path / "one")
    assert str(load_model(tmp_path / "one")) == "single by confods, 1 member, seed 0"
    experiment(dataclasses.replace(config, students=(), teachers=str(tmp_path / "one")), tmp_path / "two")
    reused = load_model(tmp_path / "two")
    assert str(reused) == "deep_ensemble, 2 members, seed 0"
    own = load_model(tmp_path / "one", "deep_ensemble")
    assert all(torch.equal(a, b) for a, b in zip(reused.net.parameters(), own.net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("twins",), "unknown model 'twins'"),
        ((None, "odds"), "did you mean 'ods'"),
        ((None, "confods"), "no student by confods; methods of its students: none, kd"),
        ((None, None, 5), "no seed 5; it has 3"),
        (("deep_ensemble", "kd"), "'kd'"),
        ((5,), "unknown model '5'"),
        ((None, ["kd"]), "unknown method"),
        ((None, None, "3"), "no seed '3'; it has 3"),
        ((None, None, None, "cuda:99"), "give 'cpu', 'cuda' or 'cuda:N'"),
        ((None, None, None, "tpu"), "give 'cpu', 'cuda' or 'cuda:N'"),
        (("deep_ensemble", None, None, "cpu", 0), "members 0 is not allowed; give a whole number from 1"),
        (("single", None, None, "cpu", 2), "has 1 members, not 2; leave members out"),
    ],
)
def test_what_the_run_does_not_name_is_refused(run, arguments, words):
    with pytest.raises(InputError) as error:
        load_model(run, *arguments)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_folder_is_refused():
    for run in (None, 5, torch.zeros(2)):
        with pytest.raises(InputError, match="give the path of a folder that divkd train wrote"):
            load_model(run)


def test_unfinished_absent_damaged_and_old_runs_are_refused(tmp_path):
    config = tiny(methods=("none", "kd"), train_images=64)
    short = dataclasses.replace(config.teacher, epochs=1)
    folder = tmp_path / "run"
    experiment(dataclasses.replace(config, teacher=short, student=short), folder)
    (folder / "results.json").unlink()
    assert load_model(folder, "single").temperature is None  # not finished, but this network is
    content = read_json(folder / "config.json")
    kept = folder / "checkpoints" / "seed0-batch_ensemble2-kd.safetensors"
    whole = kept.read_bytes()

    def refusal(*arguments):
        with pytest.raises(InputError) as error:
            load_model(folder, *arguments)
        return str(error.value)

    kept.write_bytes(whole[:-5])
    assert "damaged" in refusal()
    kept.unlink()
    words = refusal()
    assert "no finished seed0-batch_ensemble2-kd" in words
    assert "finished are: batch_ensemble by none, single by none, single by kd, deep_ensemble;" in words
    kept.write_bytes(whole)
    content["data"]["sha256"] = "0"
    write_json(folder / "config.json", content)
    assert "changed" in refusal("merged")
    content["config"]["dataset"] = str(tmp_path / "gone")  # one's own images: the students do not need them
    write_json(folder / "config.json", content)
    assert load_model(folder).members == 2
    assert "is gone" in refusal("merged")
    del content["data"]
    write_json(folder / "config.json", content)
    assert "--resume" in refusal()
    with pytest.raises(InputError, match="no run of divkd train"):
        load_model(tmp_path)


def test_a_killed_run_gives_what_is_finished(tmp_path, monkeypatch):
    real, calls = loop.run_epoch, iter(range(100))

    def killed(*args):
        if next(calls) == 3:  # after two teachers of one epoch and a student's first
            raise Killed
        return real(*args)

    config = tiny(methods=("kd",), train_images=64)
    short = dataclasses.replace(config.teacher, epochs=1)
    monkeypatch.setattr(loop, "run_epoch", killed)
    with pytest.raises(Killed):
        experiment(dataclasses.replace(config, teacher=short), tmp_path / "run")
    assert load_model(tmp_path / "run", "deep_ensemble").members == 2
    with pytest.raises(InputError, match="only 1 of 3 epochs of it are there; finished are: deep_ensemble;"):
        load_model(tmp_path / "run")
