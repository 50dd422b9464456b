"""What must hold on a CUDA device: the CPU's functions, draws and steps, in every execution; runs that are killed."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_runs import experiment, kill, tiny

from divkd.empirical.data.datasets import load
from divkd.empirical.data.splits import Augmentation, batches, to_float
from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble, to_batch_ensemble
from divkd.empirical.training.config import PRESETS
from divkd.empirical.training.distillation import student_loss
from divkd.empirical.training.experiment import run_training
from divkd.empirical.training.loop import run_epoch, sgd
from divkd.empirical.training.perturb import perturb
from divkd.empirical.training.students import STUDENTS
from divkd.shared.jobs import Workers
from divkd.shared.progress import Progress
from divkd.shared.run import open_run

# torch 2.9 and later warn where the older of its two interfaces to TF32 is used, which its own compiler does
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:Please use the new API")]
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Convolutions in float32, by the same algorithm each time."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def resnet(seed=0):
    return build("resnet8", 10, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), np.random.default_rng(seed))


def test_ensembles_compute_the_cpus_function():
    x = torch.rand(8, 3, 32, 32)
    for model in (DeepEnsemble([resnet(seed) for seed in range(3)]), to_batch_ensemble(resnet(), 3, seed=0)):
        model.eval()
        expected = model(x).detach()
        torch.testing.assert_close(model.to(CUDA)(x.to(CUDA)).cpu(), expected, rtol=1e-3, atol=1e-3)


def test_perturbations_draw_the_cpus_bits_and_keep_the_direction():
    teachers, x = DeepEnsemble([resnet(seed) for seed in range(2)]).eval(), torch.rand(8, 3, 32, 32)
    for kind in ("gaussian", "ods", "confods"):
        here = perturb(kind, x, teachers.cpu(), 4.0, 1 / 255, np.random.default_rng(0)) - x
        there = perturb(kind, x.to(CUDA), teachers.to(CUDA), 4.0, 1 / 255, np.random.default_rng(0)).cpu() - x
        assert torch.cosine_similarity(here.flatten(1), there.flatten(1)).min() > 0.999


def test_batches_are_the_cpus_bytes():
    data = load("digits", None, False, 100)
    key = (Augmentation(1, True), 64, 0, "teacher", 0, 1)
    for (x, y), (u, v) in zip(batches(data.train, *key), batches(data.to(CUDA).train, *key), strict=True):
        assert torch.equal(x, u.cpu())
        torch.testing.assert_close(to_float(x), to_float(u).cpu(), rtol=2e-7, atol=0)  # x / 255 there is x * (1 / 255)
        assert torch.equal(y, v.cpu())


def test_the_smoke_preset_runs_and_resumes(tmp_path):
    config = dataclasses.replace(PRESETS["smoke"], device="cuda")
    for resume in (False, True):
        run = open_run(tmp_path / "run", "train cifar", dataclasses.asdict(config), resume=resume)
        results = run_training(config, load("digits", None, False, None), run, Workers(Progress(quiet=True)))
    assert min(row["acc"] for row in results["rows"] if row["model"] != "merged") > 0.85


def change(student, method, device, precision="float32", compiled=False):
    """What one training step adds to the weights of a student, one after another."""
    teachers = DeepEnsemble([resnet(seed) for seed in range(3)]).eval().requires_grad_(False).to(device)
    net = STUDENTS[student].create(resnet(9), 3, 0).to(device)
    before = [weight.detach().clone() for weight in net.parameters()]
    loss = student_loss(method, teachers, 4.0, 0.9, 1 / 255)
    called = torch.compile(net, dynamic=False) if compiled else net
    x = torch.from_numpy(np.random.default_rng(0).random((16, 3, 32, 32), dtype=np.float32)).to(device)
    batch = x, (torch.arange(16) % 10).to(device)
    optimiser = sgd(net, PRESETS["smoke"].student, 0.9, 0.5)
    run_epoch(net, lambda _, *rest: loss(called, *rest), optimiser, [batch], np.random.default_rng(1), precision)
    assert all(weight.dtype == torch.float32 for weight in net.parameters())
    moved = [(own - old).flatten() for own, old in zip(net.parameters(), before, strict=True)]
    return torch.cat(moved).detach().double().cpu()


def distance(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("method", ["none", "kd", "confods"])
def test_a_students_step_is_the_cpus(student, method):
    assert distance(change(student, method, CUDA), change(student, method, torch.device("cpu"))) < 1e-3


@pytest.mark.parametrize("student", STUDENTS)
def test_a_step_in_bfloat16_goes_the_same_way(student):
    assert distance(change(student, "kd", CUDA, "bfloat16"), change(student, "kd", CUDA)) < 0.3


@pytest.mark.filterwarnings("ignore")  # the compiler's advice
@pytest.mark.parametrize("student", STUDENTS)
def test_a_compiled_step_is_the_eager_one(student):
    assert distance(change(student, "kd", CUDA, compiled=True), change(student, "kd", CUDA)) < 1e-3


@pytest.mark.parametrize("moment", [2, 7, 17])
def test_a_run_killed_on_the_device_resumes_to_the_same_weights(tmp_path, moment):
    config = tiny(train_images=100, device="cuda")
    experiment(config, tmp_path / "whole")
    kill(config, tmp_path / "run", moment)
    experiment(config, tmp_path / "run", resume=True)
    for file in sorted((tmp_path / "whole/checkpoints").glob("*.safetensors")):
        whole, resumed = load_file(file), load_file(tmp_path / "run/checkpoints" / file.name)
        for name, array in whole.items():
            torch.testing.assert_close(resumed[name], array, rtol=1e-3, atol=1e-4)
