"""Your models on your batches: the loss is that of a run, networks come back as they were, misfits are one line."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from training_runs import job

from divkd.empirical.data.datasets import load
from divkd.empirical.data.splits import Augmentation, batches, to_float
from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble, to_batch_ensemble
from divkd.empirical.training.config import Schedule
from divkd.empirical.training.distillation import student_loss
from divkd.empirical.training.loop import train
from divkd.empirical.use.distill import distill
from divkd.empirical.use.predict import predict
from divkd.shared.errors import InputError, RunError
from divkd.shared.run import open_run

DATA = load("digits", None, False, 130)


def network(seed=0, classes=10):
    return build("resnet8", classes, DATA.mean, DATA.std, np.random.default_rng(seed))


class Epochs:
    """The batches of a run's student, epoch by epoch, as pixels."""

    def __init__(self, seed=0):
        self.epoch, self.seed = 0, seed

    def __iter__(self):
        self.epoch += 1
        cuts = batches(DATA.train, Augmentation(1, False), 64, self.seed, "student", 0, self.epoch)
        return iter([(to_float(images), labels) for images, labels in cuts])


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("method", ["kd", "confods"])
@pytest.mark.parametrize("members", [2, 1])
def test_distill_is_the_loop_of_a_run_to_the_bit(tmp_path, method, members):
    teachers = [network(1), network(2)]
    mine = to_batch_ensemble(network(), 2) if members == 2 else network()
    theirs = copy.deepcopy(mine) if members == 2 else DeepEnsemble([copy.deepcopy(mine)])
    options = {"temperature": 2.0, "kd_weight": 0.7, "step_size": 0.05, "optimiser": "sgd"}
    records = distill(teachers, mine, Epochs(), 3, method, **options)
    frozen = DeepEnsemble(copy.deepcopy(teachers)).eval().requires_grad_(False)
    loss = student_loss(method, frozen, 2.0, 0.7, 0.05)
    schedule = Schedule(3, 64, 0.1, 4e-4, (0.05, 0.5, 0.9))
    run = open_run(tmp_path / "run", "test", {})
    train(job(run, DATA, crop=1), theirs, loss, schedule, "student", 0, "student")
    assert same(mine, theirs)
    assert [record["epoch"] for record in records] == [1, 2, 3]


def test_without_weight_on_the_teachers_it_is_plain_training():
    """SGD on the cross-entropy, written out; and the record is the mean loss of the epoch."""
    data = [(to_float(DATA.train.images[i : i + 43]), DATA.train.labels[i : i + 43]) for i in (0, 43, 86)]
    mine, theirs = network(), network()
    own = torch.optim.SGD(mine.parameters(), 0.05)
    records = distill([network(1)], mine, data, 2, "kd", optimiser=own, kd_weight=0.0)
    optimiser = torch.optim.SGD(theirs.parameters(), 0.05)
    for record in records:
        losses = []
        for images, labels in data:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(theirs(images), labels)
            loss.backward()
            losses.append(loss.detach())
            optimiser.step()
        assert record["loss"] == pytest.approx(float(sum(losses)) / 3, rel=1e-6)
    for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_teachers_come_back_as_they_were_and_a_loader_is_enough():
    teachers = [network(1), network(2)]
    teachers[0].train()
    teachers[1].eval().stem.weight.requires_grad_(False)
    before = copy.deepcopy(teachers)
    loader = DataLoader(TensorDataset(to_float(DATA.train.images), DATA.train.labels), 50, shuffle=True)
    seen = []
    student = to_batch_ensemble(network(), 2)
    assert distill(teachers, student, loader, 2, "ods", each_epoch=seen.append) == seen
    assert not student.training
    for teacher, was in zip(teachers, before, strict=True):
        assert same(teacher, was)
        assert [m.training for m in teacher.modules()] == [m.training for m in was.modules()]
        assert [p.requires_grad for p in teacher.parameters()] == [p.requires_grad for p in was.parameters()]
        assert all(p.grad is None for p in teacher.parameters())


def test_predictions_obey_their_laws():
    model = to_batch_ensemble(network(), 3, init="normal")
    images = to_float(DATA.test.images)
    model.net.bn.eval()  # a mode that must come back
    found = predict(model, images)
    assert model.training
    assert not model.net.bn.training
    assert all(p.requires_grad for p in model.parameters())
    assert np.allclose(found.probabilities.sum(1), 1, atol=1e-12)
    assert np.array_equal(found.classes, found.probabilities.argmax(1))
    assert np.array_equal(found.confidence, found.probabilities.max(1))
    assert np.allclose(found.entropy, -(found.probabilities * np.log(found.probabilities)).sum(1))
    assert (found.entropy <= math.log(10) + 1e-12).all()
    assert (found.mutual_information <= np.minimum(math.log(3), found.entropy)).all()
    assert found.mutual_information.mean() > 0.01
    with torch.no_grad():
        mean = torch.softmax(model.eval()(images), -1).mean(0)
    assert np.allclose(found.probabilities, mean, atol=1e-6)
    warm = predict(model, images.numpy(), temperature=2.0)
    root = found.probabilities**0.5
    assert np.allclose(warm.probabilities, root / root.sum(1, keepdims=True))
    assert np.array_equal(warm.mutual_information, found.mutual_information)


def test_equal_members_have_no_mutual_information():
    net = network()
    images = to_float(DATA.test.images[:20])
    one = predict(net, images)
    two = predict(DeepEnsemble([net, net]), images)
    assert (one.mutual_information == 0).all()
    assert two.mutual_information.max() < 1e-6
    assert np.allclose(one.probabilities, two.probabilities, atol=1e-7)


X, Y = to_float(DATA.train.images[:8]), DATA.train.labels[:8]
BAD_BATCHES = [
    ([(X * 2, Y)], "from 0 to 2", "largest value"),
    ([(X - 1, Y)], "from -1", "[0, 1]"),
    ([(X / 0, Y)], "nan", "leave such rows out"),
    ([(DATA.train.images[:8], Y)], "uint8", "images / 255"),
    ([(X[0], Y)], "labels are torch.int64 of shape (8,)", "(B,)"),
    ([(X[:, 0], Y)], "(8, 8, 8)", "images[:, None]"),
    ([(X, Y[:3])], "(3,)", "(B,)"),
    ([(X, Y.float())], "torch.float32", "whole"),
    ([(X, Y + 5)], "from", "0 to 9"),
    ([(X.expand(-1, 2, -1, -1), Y)], "teacher 0 fails on images of shape (8, 2, 8, 8)", "channels"),
    ([X], "Tensor", "(inputs, labels)"),
    ([], "no batch", "at least one"),
]


@pytest.mark.parametrize(("given", "value", "mend"), BAD_BATCHES)
def test_batches_that_do_not_fit_are_refused_in_one_line(given, value, mend):
    student, teacher = network(), network(1).train()
    before = copy.deepcopy(student)
    with pytest.raises(InputError) as error:
        distill([teacher], student, given, 1)
    assert value in str(error.value)
    assert mend in str(error.value)
    assert "\n" not in str(error.value)
    assert same(student, before)
    assert teacher.training


def test_what_else_does_not_fit_is_refused():
    good, net = [(X, Y)], network()
    for arguments, options, words in (
        (([], net, good, 1), {}, "teachers: there are no networks"),
        (([network(1, 7)], net, good, 1), {}, "teacher 0 has 7 classes and the student 10"),
        (([network(1)] * 3, to_batch_ensemble(net, 2), good, 1), {}, "2 members and there are 3 teachers"),
        (([to_batch_ensemble(net, 2)], net, good, 1), {}, "member(model, 0)"),
        (([network(1), net], net, good, 1), {}, "shares weights"),
        (([network(1)], net, iter(good), 2), {}, "once only"),
        (([network(1)], net, good, 0), {}, "epochs 0"),
        (([network(1)], net, good, 1, "odds"), {}, "did you mean 'ods'"),
        (([network(1)], net, good, 1), {"lr": math.nan}, "lr nan"),
        (([network(1)], net, good, 1), {"kd_weight": 2}, "kd_weight 2"),
        (([network(1)], net, good, 1), {"temperature": 0}, "temperature 0"),
        (([network(1)], net, good, 1), {"step_size": -1}, "step_size -1"),
        (([nn.Flatten(0)], net, good, 1), {}, "logits (B, K)"),
    ):
        with pytest.raises(InputError) as error:
            distill(*arguments, **options)
        assert words in str(error.value)
    for images, words in ((X[:0], "(0, 1, 8, 8)"), (X * math.nan, "nan"), (DATA.test.images, "uint8")):
        with pytest.raises(InputError, match="images") as error:
            predict(net, images)
        assert words in str(error.value)
    with pytest.raises(InputError, match="temperature"):
        predict(net, X, temperature=0)


def test_divergence_is_told():
    with pytest.raises(RunError, match=r"epoch 1, batch 2: the network diverged.*lower the learning rate"):
        distill([network(1)], network(), [(X, Y)] * 5, 1, "none", lr=1e30)
    broken = network()
    with torch.no_grad():
        broken.stem.weight.fill_(math.nan)
    with pytest.raises(RunError, match="nan"):
        predict(broken, X)
