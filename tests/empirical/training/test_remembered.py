"""Teachers answer an image once where it comes again as it was: the same numbers in fewer passes, and no further."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from training_runs import arrays, experiment, job, kill, tiny

from divkd.empirical.data.datasets import load
from divkd.empirical.data.splits import Augmentation, batches, to_float
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training import distillation
from divkd.empirical.training.config import PRESETS
from divkd.empirical.training.distillation import Remembered, remembered, spared, train_student
from divkd.empirical.training.experiment import jobs
from divkd.shared.run import Run

IMAGES, EPOCHS, TEACHERS = 130, 5, 3


class Counted(nn.Module):
    """A teacher that counts the images which it is asked about."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(10, 64, generator=generator))
        self.asked = 0

    def forward(self, x):
        self.asked += len(x)
        return x.flatten(1) @ self.weight.T


@pytest.fixture(scope="module")
def data():
    return load("digits", None, False, IMAGES)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    return Run(tmp_path)


@pytest.fixture
def teachers():
    return DeepEnsemble([Counted(seed) for seed in range(TEACHERS)]).eval().requires_grad_(False)


@pytest.mark.parametrize("flip", [False, True])
def test_every_image_of_every_epoch_gets_the_answer_that_a_pass_gives(data, teachers, flip):
    memory = Remembered(teachers, data.train.images, flip).eval()
    for epoch in (1, 2, 3):
        for images, _ in batches(data.train, Augmentation(0, flip), 32, 7, "student", 0, epoch):
            torch.testing.assert_close(memory(to_float(images)), teachers(to_float(images)))


def test_images_that_are_alike_and_images_that_are_their_own_mirror_have_their_answers(data, teachers):
    images = data.train.images[:60]
    doubled = torch.cat([images[:20], images, torch.maximum(images, images.flip(-1)), images.flip(-1)])
    memory = Remembered(teachers, doubled, True).eval()
    for x in (to_float(doubled), to_float(doubled.flip(-1))):
        torch.testing.assert_close(memory(x), teachers(x))


def test_an_image_that_is_not_of_the_data_passes_through_the_networks(data, teachers):
    memory = Remembered(teachers, data.train.images, False).eval()
    x = to_float(data.train.images[:4])
    for other in (x * (1 - 1e-6), x.flip(-1), x.roll(1, 2), torch.cat([1 - x[:1], x])):
        assert torch.equal(memory(other), teachers(other))
        assert not torch.equal(memory(other)[:, :4], memory(x))


@pytest.mark.parametrize(("student", "flip", "versions"), [("single", False, 1), ("batch_ensemble", True, 2)])
def test_a_student_by_kd_asks_its_teachers_about_each_image_as_often_as_it_comes_in_versions(
    data, teachers, student, flip, versions, run
):
    short = dataclasses.replace(PRESETS["smoke"].student, epochs=EPOCHS)
    mine = job(run, data, members=TEACHERS, flip=flip, student=short, methods=("kd",))
    assert spared(mine.config, data, EPOCHS, TEACHERS) == TEACHERS * (EPOCHS - versions)
    train_student(mine, teachers, student, "kd")
    assert [net.asked for net in teachers.nets] == [IMAGES * versions] * TEACHERS


@pytest.mark.parametrize(
    "changes", [{"crop": 1}, {"crop": 0, "flip": True, "epochs": 2}, {"epochs": 1}, {"device": "cuda"}]
)
def test_teachers_are_asked_anew_where_memory_spares_nothing(data, teachers, changes, run):
    asked = {"crop": 0, "flip": False, "epochs": EPOCHS} | changes
    epochs = asked.pop("epochs")
    mine = job(run, data, **asked)
    assert spared(mine.config, data, epochs, TEACHERS) == 0
    assert remembered(mine, teachers, epochs) is teachers


def test_answers_that_would_not_fit_are_not_remembered(data, teachers, monkeypatch, run):
    mine, size = job(run, data), IMAGES * TEACHERS * 10 * 4
    for limit, memory in ((size, True), (size - 1, False)):
        monkeypatch.setattr(distillation, "REMEMBERED", limit)
        assert isinstance(remembered(mine, teachers, EPOCHS), Remembered) is memory
    assert remembered(mine, teachers, EPOCHS) is teachers


def test_a_student_learns_what_it_learns_from_teachers_that_are_asked_anew(tmp_path, monkeypatch):
    config = tiny(methods=("kd",), train_images=IMAGES)
    with_memory = experiment(config, tmp_path / "with")
    monkeypatch.setattr(distillation, "REMEMBERED", 0)
    without = experiment(config, tmp_path / "without")
    pairs = list(zip(with_memory["rows"], without["rows"], strict=True))
    assert len(pairs) > 2
    for one, other in pairs:
        assert one["nll"] == pytest.approx(other["nll"], rel=1e-3)
    mine, theirs = arrays(tmp_path / "with"), arrays(tmp_path / "without")
    assert mine.keys() == theirs.keys()
    taught = [name for name in mine if name.startswith("seed0-single") and name.endswith("weight")]
    for name in taught:
        one, other = (np.frombuffer(found[name], np.float32) for found in (mine, theirs))
        assert np.linalg.norm(one - other) <= 1e-3 * np.linalg.norm(one)


@pytest.mark.parametrize("moment", [30, 36])  # of 30 steps of teachers and 15 of the student
def test_a_student_killed_in_an_epoch_goes_on_to_the_same_bits_by_a_memory_made_anew(tmp_path, moment):
    config = tiny(methods=("kd",), students=("single",), train_images=IMAGES, flip=True)
    experiment(config, tmp_path / "whole")
    kill(config, tmp_path / "killed", moment)
    experiment(config, tmp_path / "killed", resume=True)
    assert arrays(tmp_path / "killed") == arrays(tmp_path / "whole")


def test_the_cost_of_a_job_counts_what_is_passed_and_no_more(data):
    def cost(**changes):
        config = tiny(methods=("kd",), students=("single",), members=TEACHERS, train_images=IMAGES, **changes)
        epochs = config.student.epochs
        found = {one.name: one.cost for one in jobs(config, data)}
        return found[f"seed0-single-kd-from{TEACHERS}"] / IMAGES, epochs

    memory, epochs = cost()
    assert memory == 3 * epochs + TEACHERS
    mirrored, epochs = cost(flip=True)
    assert mirrored == 3 * epochs + 2 * TEACHERS
    anew, epochs = cost(crop=2)
    assert anew == (3 + TEACHERS) * epochs
