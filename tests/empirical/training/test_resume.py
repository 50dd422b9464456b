"""Runs that are killed, extended, or use what another run trained."""

import contextlib
import dataclasses

import numpy as np
import pytest
import torch
from training_runs import QUIET, Killed, arrays, experiment, job, kill, rows, tiny, weights

from divkd.empirical.data.datasets import load
from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training import loop
from divkd.empirical.training.config import Schedule
from divkd.empirical.training.distillation import cross_entropy, reused, teachers_of
from divkd.empirical.training.loop import train
from divkd.empirical.training.seed_run import SeedRun
from divkd.empirical.use.restore import load_model
from divkd.shared import files
from divkd.shared.errors import InputError
from divkd.shared.run import Run, open_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted, its folder and its results."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, experiment(tiny(train_images=100), folder)


@pytest.mark.parametrize("moment", [2, 7, 17])
def test_a_run_killed_anywhere_resumes_to_the_same_bits(tmp_path, whole, moment):
    """Killed inside optimiser step `moment` (of a teacher's second epoch, another's third, a student's first)."""
    config = tiny(train_images=100)
    kill(config, tmp_path / "killed", moment)
    resumed = experiment(config, tmp_path / "killed", resume=True)
    assert arrays(whole[0]) == arrays(tmp_path / "killed")
    assert rows(whole[1]) == rows(resumed)


def test_more_members_and_methods_train_only_what_is_missing(tmp_path, monkeypatch):
    experiment(tiny(), tmp_path / "run")
    before = weights(tmp_path / "run")
    trained = []
    monkeypatch.setattr(loop, "run_epoch", lambda *args, _epoch=loop.run_epoch: (trained.append(1), _epoch(*args))[1])
    results = experiment(tiny(members=3, methods=("confods", "none")), tmp_path / "run", resume=True)
    after = weights(tmp_path / "run")
    assert all(after[name] == content for name, content in before.items())
    # One teacher, the BatchEnsembles of 3 by both methods, the single networks from 3: 3 epochs each.
    assert len(trained) == 3 * 5
    sizes = [row["members"] for row in results["rows"] if row["model"] == "deep_ensemble"]
    assert sizes == [1, 2, 3]


def test_a_teacher_is_the_same_bits_whatever_the_number_of_members(tmp_path):
    few, many = tmp_path / "few", tmp_path / "many"
    experiment(tiny(members=1, students=()), few)
    experiment(tiny(members=3, students=()), many)
    assert weights(few).keys() <= weights(many).keys()
    assert {k: v for k, v in arrays(many).items() if k.startswith("seed0-teacher0")} == arrays(few)


@pytest.mark.parametrize(
    "damage",
    [
        lambda arrays, header: (arrays, {**header, "epoch": "x"}),
        lambda arrays, header: (arrays, {**header, "epoch": True}),
        lambda arrays, header: (arrays, {**header, "seconds": False}),
        lambda arrays, header: (arrays, {**header, "epoch": 99}),
        lambda arrays, header: (arrays, {**header, "chosen": 2}),
        lambda arrays, header: ({**arrays, "nets.0.stem.weight": np.zeros(3, np.float32)}, header),
        lambda arrays, header: ({key: value.astype(np.float64) for key, value in arrays.items()}, header),
        lambda arrays, header: ({key: value.astype(np.int8) for key, value in arrays.items()}, header),
        lambda arrays, header: ({**arrays, "more": np.zeros(1, np.float32)}, header),
        lambda arrays, header: ({}, header),
        lambda arrays, header: (arrays, {**header, "epoch": 1}),  # unfinished, yet without momentum
    ],
)
def test_a_checkpoint_of_something_else_is_refused_and_on_resume_trained_again(tmp_path, damage):
    config = tiny(members=1, students=(), train_images=64)
    experiment(config, tmp_path / "run")
    run = Run(tmp_path / "run")
    before = arrays(run.path)
    run.save("seed0-teacher0", *damage(*run.load("seed0-teacher0")))
    with pytest.raises(InputError, match=r"seed0-teacher0\.safetensors (is damaged|and .*config.json do not belong)"):
        load_model(run.path, "deep_ensemble")
    with pytest.raises(InputError, match=r"seed0-teacher0"):
        teachers_of(SeedRun(config, load("digits", None, False, 64), 0, run, QUIET), 1)
    experiment(config, run.path, resume=True)
    assert arrays(run.path) == before


def test_a_damaged_epoch_goes_on_from_the_one_before_to_the_same_bits(tmp_path, monkeypatch, capsys):
    config = tiny(members=1, students=(), train_images=64)
    experiment(config, tmp_path / "whole")
    assert not list((tmp_path / "whole/checkpoints").glob("*.previous"))
    real, epochs = loop.run_epoch, []

    def killed(*arguments):
        epochs.append(1)
        if len(epochs) == 3:
            raise Killed
        return real(*arguments)

    for lost in (1, 2):  # of the two epochs that are there
        epochs.clear()
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(loop, "run_epoch", killed)
            experiment(config, tmp_path / f"run{lost}")
        run = Run(tmp_path / f"run{lost}")
        for path in (run.checkpoint("seed0-teacher0"), run.previous("seed0-teacher0"))[:lost]:
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        said = []
        with pytest.raises(InputError, match="is damaged"):
            run.load("seed0-teacher0")
        assert (run.resumed("seed0-teacher0", said.append) is None) == (lost == 2)
        assert ("goes on from epoch 1" in said[0], "trained again" in said[0]) == (lost == 1, lost == 2)
        experiment(config, run.path, resume=True)
        assert arrays(run.path) == arrays(tmp_path / "whole")
        assert not run.previous("seed0-teacher0").exists()


@pytest.mark.slow
def test_a_hundred_interruptions_at_random_moments_resume_to_the_same_bits(tmp_path, monkeypatch):
    """Killed in a random optimiser step or while a random checkpoint is written, again and again, in one run."""
    config = tiny(train_images=100, methods=("kd", "confods"))
    whole = experiment(config, tmp_path / "whole")
    generator = np.random.default_rng(0)
    step, write = torch.optim.SGD.step, files.os.replace
    finished, kills = [], 0
    while True:
        path = tmp_path / f"run{len(finished)}"
        left = iter(range(int(generator.integers(1, 40)) if kills < 100 else 10**6, -1, -1))

        def killed_in_step(self, *args, left=left, **kwargs):
            if next(left) == 0:
                raise Killed
            return step(self, *args, **kwargs)

        def killed_in_write(*args, left=left):
            if next(left) == 0:
                raise Killed
            return write(*args)

        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.SGD, "step", killed_in_step)
            patch.setattr(files.os, "replace", killed_in_write)
            try:
                finished.append(experiment(config, path, resume=path.exists()))
            except Killed:
                kills += 1
                continue
        assert rows(finished[-1]) == rows(whole)
        assert arrays(path) == arrays(tmp_path / "whole")
        if kills >= 100:
            break


def test_validation_chooses_the_best_of_the_epochs_that_are_looked_at_and_survives_a_kill(tmp_path, monkeypatch):
    """Epoch 1, every 25th and the last n; the first of equals; a resumed run chooses the same."""
    data = load("digits", None, False, 64)
    schedule = Schedule(6, 64, 0.1, 4e-4, (0, 0.5, 1.0), choose_last=3)
    assert [epoch for epoch in range(1, 101) if Schedule(100, 1, 1, 0, (0, 1, 1), 3).looks_at(epoch)] == [
        1, 25, 50, 75, 98, 99, 100
    ]  # fmt: skip
    scores = {1: 0.1, 4: 0.8, 5: 0.8, 6: 0.5}

    def label(net, x, y, _):
        logits = net(x)
        yield cross_entropy(logits, y), logits

    def run_it(path, epochs, resume=False):
        net = DeepEnsemble([build("resnet8", 10, data.mean, data.std, np.random.default_rng(0))])
        run = open_run(path, "test", {}, resume=resume)
        seen = []

        def score(_, net):
            seen.append({name: value.clone() for name, value in net.state_dict().items()})
            return scores[[1, 4, 5, 6][len(seen) - 1 + first]]

        first = 0 if not resume else 2  # epochs 1 and 4 were looked at before the kill

        save = run.save

        def save_and_die(name, arrays, header):
            save(name, arrays, header)
            if header["epoch"] == epochs:
                raise Killed

        monkeypatch.setattr(run, "save", save_and_die)
        monkeypatch.setattr(SeedRun, "score", score)
        with contextlib.suppress(Killed):
            train(job(run, data), net, label, schedule, "teacher", 0, "x")
        return net, seen, run

    net, seen, run = run_it(tmp_path / "whole", 99)
    assert len(seen) == 4
    for name, value in net.state_dict().items():
        assert torch.equal(value, seen[1][name])
    kept, header = run.load("x")
    assert (header["chosen"], header["score"], header["epoch"]) == (4, 0.8, 6)
    run_it(tmp_path / "killed", 4)
    again, _, resumed = run_it(tmp_path / "killed", 99, resume=True)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in again.state_dict().items())
    found, header = resumed.load("x")
    assert header["chosen"] == 4
    assert all(np.array_equal(found[name], kept[name]) for name in kept)


def test_students_of_another_runs_teachers_are_those_of_a_run_that_trains_them(tmp_path):
    own = experiment(tiny(methods=("kd",)), tmp_path / "own")
    experiment(tiny(students=()), tmp_path / "teachers")
    config = tiny(methods=("kd",), teachers=str(tmp_path / "teachers"))
    reused = experiment(config, tmp_path / "students")
    strip = [[{k: v for k, v in row.items() if k != "seconds"} for row in found["rows"]] for found in (own, reused)]
    assert strip[0] == strip[1]
    assert not list((tmp_path / "students" / "checkpoints").glob("*teacher*"))


def test_teachers_of_a_run_that_has_none_of_its_own_and_damaged_runs_are_refused(tmp_path):
    experiment(tiny(students=()), tmp_path / "teachers")
    second = tiny(methods=("kd",), students=("single",), teachers=str(tmp_path / "teachers"))
    experiment(second, tmp_path / "students")
    with pytest.raises(InputError, match=r"uses the teachers of .*teachers; give that run"):
        reused(dataclasses.replace(second, teachers=str(tmp_path / "students")), "")
    for content in ("[]", "{}", '{"command": "train cifar"}', '{"command": "train cifar", "config": [1], "data": {}}'):
        (tmp_path / "teachers" / "config.json").write_text(content)
        with pytest.raises(InputError, match=r"config.json is damaged \(.*--config .*manifest.jsonl --resume --out"):
            reused(second, "")


@pytest.mark.parametrize(
    ("change", "words"),
    [({"members": 3}, "no finished seed0-teacher2"), ({"seeds": (5,)}, "no finished seed5-teacher0"),
     ({"train_images": 60}, "learned from other images")],
)  # fmt: skip
def test_teachers_that_are_not_there_are_refused_before_anything_is_trained(tmp_path, change, words):
    experiment(tiny(members=2, train_images=64, students=()), tmp_path / "teachers")
    config = tiny(**{"members": 2, "train_images": 64, **change}, teachers=str(tmp_path / "teachers"))
    with pytest.raises(InputError, match=words):
        reused(config, load(config.dataset, None, False, config.train_images).facts()["sha256"])
