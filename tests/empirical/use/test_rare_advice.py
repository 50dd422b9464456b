"""What errors of states that tests seldom meet advise, done to the letter, mends: devices, gradients, folders."""

import copy
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from handed_over import GOOD, X, plain, refusal
from PIL import Image
from torch import nn
from training_runs import experiment, tiny

from divkd import distill, export, load_model, to_batch_ensemble
from divkd.empirical.analysis.shift import read_set
from divkd.empirical.data.datasets import load
from divkd.empirical.data.inputs import read_inputs
from divkd.empirical.training import ranks, seed_run
from divkd.empirical.training.config import PRESETS
from divkd.empirical.use.restore import load_run
from divkd.shared.errors import RunError


class Rounded(nn.Sequential):
    """Its answers are steps: there is no gradient to its images."""

    def forward(self, x):
        return super().forward(x.round().detach())


class Steep(nn.Sequential):
    """Its answers are finite, their gradients to an image are not."""

    def forward(self, x):
        return super().forward(x) + (x.flatten(1).sum(1, keepdim=True) * 0).sqrt()


class Fails(nn.Sequential):
    """Its backward pass is not written."""

    def forward(self, x):
        return Once.apply(super().forward(x))


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("not written")


def layers(seed=0):
    return list(plain(seed).children())


def test_devices(tmp_path):
    elsewhere = plain(1).to("meta")
    words = refusal(lambda: distill([plain(), elsewhere], to_batch_ensemble(plain(), 2), GOOD, 1, "kd"))
    assert "move it: teacher.to('cpu')" in words
    distill([plain(), plain(1).to("cpu")], to_batch_ensemble(plain(), 2), GOOD, 1, "kd")
    assert "copy.deepcopy(net).cpu()" in refusal(lambda: export(elsewhere, tmp_path / "net.pt2", shape=(3, 8, 8)))
    export(copy.deepcopy(plain()).cpu(), tmp_path / "net.pt2", shape=(3, 8, 8))


@pytest.mark.parametrize("teacher", [Rounded, Steep])
def test_teachers_without_a_gradient_to_their_images(teacher):
    teachers = [teacher(*layers())]
    assert "take another method, such as kd" in refusal(lambda: distill(teachers, plain(1), GOOD, 1, "ods"))
    distill(teachers, plain(1), GOOD, 1, "kd")


def test_students_whose_backward_pass_fails():
    words = refusal(lambda: distill([plain()], Fails(*layers(1)), GOOD, 1, "kd"))
    assert "the student cannot learn from the first batch: not written" in words


def test_an_optimiser_of_parameters_that_get_no_gradient():
    student = plain(1)
    student.register_parameter("spare", nn.Parameter(torch.zeros(2)))
    words = refusal(lambda: distill([plain()], student, GOOD, 1, "kd", optimiser=torch.optim.SGD([student.spare], 0.1)))
    assert "make it of all student.parameters(), and let the student use them" in words
    student = plain(1)
    distill([plain()], student, GOOD, 1, "kd", optimiser=torch.optim.SGD(student.parameters(), 0.1))


def test_examples_of_a_conversion():
    for wrong in (X[:0], "x", 3):
        words = refusal(lambda wrong=wrong: to_batch_ensemble(plain(), 2, example=wrong))
        assert "give a batch, a tensor (B, ...) or several, e.g. B = 2" in words
    to_batch_ensemble(plain(), 2, example=X[:2])


def test_models_that_a_run_has_not(tmp_path):
    experiment(tiny(students=("single",), methods=("kd",), train_images=64), tmp_path / "run")
    words = refusal(lambda: load_model(tmp_path / "run", "batch_ensemble"))
    assert "its students: single; its deep ensemble is there too" in words
    for there in ("single", "deep_ensemble"):
        load_model(tmp_path / "run", there)


def test_the_data_of_a_run(tmp_path):
    source = tmp_path / "mine.npz"
    data = load("digits", None, False, None)
    images, labels = data.train.images[:90].permute(0, 2, 3, 1).numpy(), data.train.labels[:90].numpy()
    content = {"x_train": images[:64], "y_train": labels[:64], "x_test": images[64:], "y_test": labels[64:]}
    np.savez(source, **content)
    config = tiny(dataset=str(source), train_images=None, methods=("kd",), students=("single",))
    experiment(config, tmp_path / "run")
    source.write_bytes(b"no archive")
    assert "an analysis needs the data of" in refusal(lambda: load_run(tmp_path / "run"))
    np.savez(source, **content)
    assert load_run(tmp_path / "run")[0] == config


def test_images_that_do_not_fit(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 9, 8, 1), np.uint8))
    words = refusal(lambda: read_inputs([tmp_path / "x.npz"], (1, 8, 9), None, True))
    assert "scale yours first" in words
    (tmp_path / "none").mkdir()
    assert "there are no images; give files, folders or an .npz file with images=" in refusal(
        lambda: read_inputs([], (1, 8, 8), None, False)
    )
    np.savez(tmp_path / "y.npz", images=np.zeros((2, 8, 8, 1), np.uint8))
    read_inputs([tmp_path / "y.npz"], (1, 8, 8), None, False)
    (tmp_path / "ants").mkdir()
    for i in range(2):
        Image.new("L", (9, 8), 80 * i).save(tmp_path / "ants" / f"{i}.png")
    words = refusal(lambda: read_set(str(tmp_path / "ants"), (1, 8, 8), ("ant",), 5, None, False, None))
    assert "ants" in words
    read_set(str(tmp_path / "ants"), (1, 8, 9), ("ant",), 5, None, False, None)


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    for place in ("open", "closed"):
        (tmp_path / place).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / place / "x.png")
    listed = Path.iterdir

    def iterdir(self):
        if self.name == "closed":
            raise PermissionError(13, "Permission denied")
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    words = refusal(lambda: read_inputs([tmp_path], (1, 8, 8), None, False))
    assert "closed cannot be read (Permission denied); restore or remove it" in words
    monkeypatch.setattr(Path, "iterdir", listed)
    shutil.rmtree(tmp_path / "closed")
    assert len(read_inputs([tmp_path], (1, 8, 8), None, False)[0]) == 1


def test_a_network_that_predicts_nan_after_its_last_epoch():
    data = load("digits", None, False, 64)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        net[1].weight.fill_(3e38)
    with pytest.raises(RunError, match=r"predicts NaN; start a new --out with a lower --lr"):
        seed_run.predict(net, data.test)


def test_processes_that_do_not_agree(monkeypatch):
    monkeypatch.setattr(ranks, "JOINED", [0, 2])

    def other(tensor, *_):
        tensor[0] += 1  # another process has an epoch more

    monkeypatch.setattr(ranks.distributed, "all_reduce", other)
    with pytest.raises(RunError, match="give an --out on a folder that all machines share"):
        ranks.agree(3)

    def gone(*_):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(ranks.distributed, "all_reduce", gone)
    with pytest.raises(RunError, match="another process of torchrun has ended; the same command with --resume goes on"):
        ranks.agree(3)


def test_a_schedule_that_chooses_among_more_epochs_than_it_has():
    teacher = PRESETS["smoke"].teacher
    words = refusal(lambda: dataclasses.replace(teacher, choose_last=teacher.epochs + 1).validate())
    assert f"give 0 to --epochs {teacher.epochs}" in words
    dataclasses.replace(teacher, choose_last=teacher.epochs).validate()
