"""Arithmetic at the border: excluded classes, saturation, weights of zero; and what was not finite first is named."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training.config import Schedule
from divkd.empirical.training.distillation import cross_entropy, kd_loss, label_loss, student_loss
from divkd.empirical.training.loop import run_epoch, sgd
from divkd.empirical.training.perturb import ods_direction, perturb
from divkd.shared.errors import InputError, RunError

OUT = torch.tensor([0.0, 0, 0, 0, -math.inf])


class Head(nn.Module):
    """Affine logits plus a constant: an excluded class, a NaN."""

    def __init__(self, add=0.0, seed=0, scale=1.0):
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Linear(48, 5)
        self.add, self.scale = add, scale

    def forward(self, x):
        return self.head(x.flatten(1)) * self.scale + self.add


@pytest.mark.parametrize("student_out", [False, True])
def test_kd_with_an_excluded_class_is_torchs_kl_of_the_others(student_out):
    torch.manual_seed(0)
    teacher, student = torch.randn(1, 3, 5) + OUT, torch.randn(1, 3, 5).add(OUT if student_out else 0).requires_grad_()
    q = (student[0] / 4).log_softmax(-1)[:, :4]
    p = (teacher[0, :, :4] / 4).softmax(-1)
    truth = 16 * nn.functional.kl_div(q, p, reduction="batchmean")
    loss = kd_loss(student, teacher, 4.0)
    assert loss.item() == pytest.approx(truth.item(), rel=1e-6)
    mine, theirs = (torch.autograd.grad(value, student, retain_graph=True)[0] for value in (loss, truth))
    assert mine.isfinite().all()
    assert torch.allclose(mine, theirs, atol=1e-6)


def test_what_the_student_excludes_and_the_teacher_does_not_is_infinite():
    s, t = torch.zeros(1, 2, 5) + OUT, torch.zeros(1, 2, 5)
    assert kd_loss(s, t, 2.0) == math.inf
    assert cross_entropy(s, torch.tensor([0, 4])) == math.inf
    assert cross_entropy(s, torch.tensor([0, 3])).item() == pytest.approx(math.log(4))
    same = torch.tensor([[[1e4, 0.0, -1e4]]])  # a softmax that is 1, 0, 0
    assert kd_loss(same, same, 1.0) == 0


def test_the_direction_of_an_excluding_teacher_is_that_of_the_others():
    x, w = torch.rand(4, 3, 4, 4), torch.rand(4, 5).double() * 2 - 1
    net, without = Head(OUT), Head()
    without.head.weight.data[4] = 0  # the class's logit: a constant, and never probable
    without.add = torch.tensor([0.0, 0, 0, 0, -1e4])
    mine, theirs = (ods_direction(teacher, x, w, 2.0) for teacher in (net, without))
    assert torch.allclose(mine[0], theirs[0], atol=1e-6)
    assert torch.allclose(mine[1], theirs[1])
    assert torch.linalg.vector_norm(mine[0], dim=(1, 2, 3)).allclose(torch.ones(4), atol=1e-5)


@pytest.mark.parametrize("method", ["kd", "gaussian", "ods", "confods"])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_a_student_of_excluding_teachers_trains(method, weight):
    """Labels of the excluded class too, where they have no weight."""
    loss = student_loss(method, DeepEnsemble([Head(OUT), Head(OUT, 1)]).eval(), 4.0, weight, 1 / 255)
    net = DeepEnsemble([Head(OUT if weight == 1 else 0.0, 2)])
    data = [(torch.rand(8, 3, 4, 4), torch.arange(8) % 5)]
    optimiser = sgd(net, Schedule(1, 8, 0.1, 0.0, (0, 0.5, 1.0)), 0.9, 0.5)
    value, _ = run_epoch(net, loss, optimiser, data, np.random.default_rng(0), "float32")
    assert math.isfinite(value)
    assert all(p.isfinite().all() for p in net.parameters())


class NaNGradient(Head):
    """log(softmax) with an excluded class: 0 / 0 in the gradient."""

    def forward(self, x):
        return torch.log((super().forward(x) + OUT).softmax(-1))


class Frozen(Head):
    def forward(self, x):
        return super().forward(x).detach()


NAN = torch.tensor([0.0, math.nan, 0, 0, 0])


@pytest.mark.parametrize(
    ("teachers", "student", "method", "words"),
    [
        ([Head(), Head(NAN)], Head(), "kd", r"batch 2: teacher 1's logits\[0, 0, 1\] is nan"),
        ([Head(), Head(math.inf)], Head(), "gaussian", r"teacher 1's logits\[0, 0, 0\] is inf"),
        ([Head(-math.inf)], Head(), "kd", r"teacher 0's logits\[0, 0\] is -inf in every class"),
        ([Head()], Head(NAN), "kd", r"the network diverged: the network's logits\[0, 0, 1\] is nan"),
        ([Head()], Head(OUT), "kd", r"excludes the label's class"),
        ([Head()], Head(OUT[[4, 0, 0, 0, 0]]), "ods", r"excludes a class that its teacher holds possible"),
        ([NaNGradient(), NaNGradient()], Head(), "confods", r"the perturbed images are not finite: the gradient"),
        (
            [Head()],
            Head(torch.tensor([0.0, *[-3e38] * 4])),
            "none",
            "the loss diverged to inf, of finite logits up to 3e\\+38",
        ),
    ],
)
def test_what_was_not_finite_first_is_named(teachers, student, method, words):
    loss = student_loss(method, DeepEnsemble(teachers).eval(), 1.0, 0.5, 0.1)
    net = DeepEnsemble([student])
    x, y = torch.rand(4, 3, 4, 4), torch.tensor([1, 2, 3, 4])
    fine = DeepEnsemble([Head(), Head()])
    first = student_loss("kd", fine, 1.0, 0.5, 0.1)

    def second(net, images, labels, generator):
        good = DeepEnsemble([Head()])
        yield from first(good, images, labels, generator) if next(calls) == 0 else loss(net, images, labels, generator)

    calls = iter(range(9))
    optimiser = sgd(net, Schedule(1, 8, 0.1, 0.0, (0, 0.5, 1.0)), 0.9, 0.5)
    with pytest.raises(RunError, match=words) as error:
        run_epoch(net, second, optimiser, [(x, y), (x, y)], np.random.default_rng(0), "float32")
    assert "\n" not in str(error.value)


def test_a_teacher_without_a_gradient_is_told_and_its_advice_followed():
    x = torch.rand(2, 3, 4, 4)
    with pytest.raises(InputError, match=r"without a gradient to its images.*another method, such as kd"):
        perturb("ods", x, DeepEnsemble([Frozen()]), 1.0, 0.1, np.random.default_rng(0))
    loss = student_loss("kd", DeepEnsemble([Frozen()]), 1.0, 0.5, 0.1)
    assert all(term.isfinite() for term, _ in loss(DeepEnsemble([Head()]), x, torch.tensor([0, 1]), None))


class Centred(Head):
    """Writes into its images."""

    def forward(self, x):
        return super().forward(x.sub_(0.5).div_(0.25))


@pytest.mark.parametrize("method", ["none", "kd", "gaussian", "ods", "confods"])
def test_networks_that_write_into_their_images_train_as_those_that_copy_them(method):
    class Copying(Head):
        def forward(self, x):
            return super().forward((x - 0.5) / 0.25)

    ends = []
    for kind in (Centred, Copying):
        x = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        before, net = x.clone(), DeepEnsemble([kind(seed=9)])
        loss = student_loss(method, DeepEnsemble([kind(seed=1), kind(seed=2)]).eval(), 2.0, 0.7, 0.05)
        optimiser = sgd(net, Schedule(1, 8, 0.1, 0.0, (0, 0.5, 1.0)), 0.9, 0.5)
        run_epoch(net, loss, optimiser, [(x, torch.arange(8) % 5)] * 3, np.random.default_rng(0), "float32")
        assert torch.equal(x, before)
        ends.append(net.state_dict())
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ends[0].values(), ends[1].values(), strict=True))


def test_labels_alone_are_the_cross_entropy():
    net, x, y = DeepEnsemble([Head()]), torch.rand(4, 3, 4, 4), torch.tensor([0, 1, 2, 3])
    ((value, _),) = label_loss(net, x, y, None)
    assert torch.equal(value, cross_entropy(net(x), y))
