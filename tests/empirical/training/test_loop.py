"""The loop: its arithmetic, its losses, and what it does when the loss is lost."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from training_runs import SERIAL, experiment, job, loss_of, tiny

from divkd.empirical.data.datasets import load
from divkd.empirical.data.splits import Split
from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble, rank_one, to_batch_ensemble
from divkd.empirical.training.config import PRESETS, Schedule
from divkd.empirical.training.distillation import cross_entropy
from divkd.empirical.training.experiment import run_training
from divkd.empirical.training.loop import train
from divkd.empirical.training.perturb import perturb
from divkd.shared.errors import RunError
from divkd.shared.run import open_run


def test_the_first_step_is_sgd_by_hand(tmp_path):
    """One step from rest: w - lr (grad + decay w), for plain weights; w - lr/2 grad, for rank-one factors."""
    torch.manual_seed(0)
    data = load("digits", None, False, 64)
    schedule = Schedule(1, 64, 0.1, 0.01, (0, 0.5, 1.0))
    net = to_batch_ensemble(build("resnet8", 10, data.mean, data.std, np.random.default_rng(0)), 2, seed=0)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    gradients = {}

    def loss(net, x, y, _):
        logits = net(x)
        value = cross_entropy(logits, y)
        for (name, _), g in zip(
            net.named_parameters(), torch.autograd.grad(value, list(net.parameters()), retain_graph=True), strict=True
        ):
            gradients[name] = g
        yield value, logits

    run = open_run(tmp_path / "run", "test", {})
    train(job(run, data), net, loss, schedule, "student", 0, "x")
    factors = {id(factor) for factor in rank_one(net)}
    lr = 0.1 * schedule.factor(1)
    for name, after in net.named_parameters():
        w, g = before[name], gradients[name]
        expected = w - lr / 2 * g if id(after) in factors else w - lr * (g + 0.01 * w)
        torch.testing.assert_close(after.detach(), expected, rtol=1e-5, atol=1e-6)


def test_divergence_stops_names_the_epoch_and_keeps_the_last_good_checkpoint(tmp_path):
    data = load("digits", None, False, 64)
    net = DeepEnsemble([build("resnet8", 10, data.mean, data.std, np.random.default_rng(0))])
    run = open_run(tmp_path / "run", "test", {})
    epochs = iter([1.0, 1.0, math.nan])

    def loss(net, x, y, _):
        logits = net(x)
        yield cross_entropy(logits, y) * next(epochs), logits

    schedule = Schedule(5, 64, 0.1, 0, (0, 0.5, 1.0))
    with pytest.raises(RunError, match=r"x, epoch 3, by batch 1 the network diverged.*--lr below 0\.1"):
        train(job(run, data), net, loss, schedule, "teacher", 0, "x")
    kept, header = run.load("x")
    assert header["epoch"] == 2
    assert all(np.isfinite(value).all() for value in kept.values())


def test_weights_lost_in_the_last_step_are_divergence_too(tmp_path):
    """A learning rate of 1e30 leaves a finite first loss and weights that nothing can be computed with."""
    config = tiny(members=1, methods=(), train_images=60)
    one = dataclasses.replace(config.teacher, epochs=1, lr=1e30)
    with pytest.raises(RunError, match="diverged"):
        experiment(dataclasses.replace(config, teacher=one), tmp_path / "run")


def student_and_teachers(members=2):
    plain = [build("resnet8", 10, (0.5,), (0.25,), np.random.default_rng(seed)) for seed in range(members + 1)]
    teachers = DeepEnsemble(plain[1:]).eval().requires_grad_(False)
    return to_batch_ensemble(plain[0], members, seed=0).train(), teachers


@pytest.mark.parametrize("method", ["none", "kd", "ods", "confods", "gaussian"])
def test_the_students_loss_is_the_papers(method):
    """0.1 CE on clean images + 0.9 t^2 KL(T_m || S_m) on moved ones, written out pair by pair; none: CE alone."""
    student, teachers = student_and_teachers()
    config = dataclasses.replace(PRESETS["smoke"], temperature=3.0, kd_weight=0.9, step_size=0.1)
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 3, 9, 9])
    twin = copy.deepcopy(student)
    terms = list(loss_of(config, method, teachers)(student, x, y, np.random.default_rng(5)))
    value, logits = sum(term for term, _ in terms), terms[0][1]

    clean = twin(x)
    torch.testing.assert_close(logits, clean)
    moved, answers = x, clean
    if method not in ("none", "kd"):
        moved = perturb(method, x, teachers, 3.0, 0.1, np.random.default_rng(5))
        answers = twin(moved)
    ce = kd = 0.0
    for m in range(2):
        for b in range(4):
            ce -= torch.log_softmax(clean[m, b], -1)[y[b]] / 8
            p = torch.softmax(teachers.nets[m](moved)[b] / 3, -1)
            kd += 9 * (p * (p.log() - torch.log_softmax(answers[m, b] / 3, -1))).sum() / 8
    torch.testing.assert_close(value, ce if method == "none" else 0.1 * ce + 0.9 * kd, rtol=1e-4, atol=1e-5)
    # BatchNorm saw the clean batch, then the moved one, through the student alone.
    passes = 1 if method in ("none", "kd") else 2
    assert student.net.bn.num_batches_tracked == passes
    torch.testing.assert_close(student.net.bn.running_mean, twin.net.bn.running_mean)
    assert all(net.bn.num_batches_tracked == 0 for net in teachers.nets)


def test_the_temperature_is_fitted_on_the_validation_split(tmp_path):
    """Other validation labels change the temperature; other test labels do not."""
    config = tiny(members=1, students=())
    data = load("digits", None, False, config.train_images)
    temperatures = []
    for validation, test in ((0, 0), (1, 0), (0, 1)):
        moved = dataclasses.replace(
            data,
            validation=Split(data.validation.images, (data.validation.labels + validation) % 10),
            test=Split(data.test.images, (data.test.labels + test) % 10),
        )
        run = open_run(tmp_path / f"run{validation}{test}", "train cifar", dataclasses.asdict(config))
        temperatures.append(run_training(config, moved, run, SERIAL)["rows"][0]["temperature"])
    assert temperatures[0] != temperatures[1]
    assert temperatures[0] == temperatures[2]


def test_a_perturbed_student_holds_one_graph_at_a_time():
    """The clean graph is freed by its backward pass, before the perturbed forward pass makes the next."""
    student, teachers = student_and_teachers()
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 3, 9, 9])
    config = dataclasses.replace(PRESETS["smoke"], kd_weight=0.9)
    alive = peak = 0

    class Held:
        def __init__(self, tensor):
            nonlocal alive, peak
            self.tensor = tensor
            alive += tensor.numel()
            peak = max(peak, alive)

        def __del__(self):
            nonlocal alive
            alive -= self.tensor.numel()

    peaks = {}
    for method in ("kd", "confods"):
        alive = peak = 0
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            for value, _ in loss_of(config, method, teachers)(student, x, y, np.random.default_rng(5)):
                value.backward()
                del value
        peaks[method] = peak
    assert peaks["confods"] < 1.2 * peaks["kd"]
