"""The distillation loss and the perturbations against literal float64 formulas, and at their limits."""

import numpy as np
import pytest
import torch
from torch import nn

from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training.distillation import cross_entropy, kd_loss
from divkd.empirical.training.perturb import ods_direction, perturb


class Affine(nn.Module):
    """z = A x + b: a teacher whose gradients are known by hand."""

    def __init__(self, margin=0.0, classes=5, seed=0, dtype=torch.float32):
        super().__init__()
        draw = np.random.default_rng(seed)
        self.a = torch.from_numpy(draw.normal(size=(classes, 3 * 4 * 4))).to(dtype)
        self.b = torch.zeros(classes, dtype=dtype)
        self.b[0] = margin

    def forward(self, x):
        return x.flatten(1) @ self.a.T * 0.1 + self.b


def by_hand(teacher, x, w, t):
    """The ODS direction by float64 algebra: J^T (diag p - p p^T) w, normalised."""
    z = (x.double().flatten(1) @ teacher.a.double().T * 0.1 + teacher.b.double()) / t
    z = z - z.max(-1, keepdim=True).values
    p = z.exp() / z.exp().sum(-1, keepdim=True)
    others = p.clone()
    top = p.argmax(-1)
    others[range(len(p)), top] = 0
    lead = w - w.gather(-1, top[:, None])
    g = (p * (lead - (others * lead).sum(-1, keepdim=True))) @ teacher.a.double()
    return g / g.norm(dim=-1, keepdim=True), p.max(-1).values


def test_losses_are_means_over_member_image_pairs():
    torch.manual_seed(0)
    s, t, y = torch.randn(3, 4, 5).double(), torch.randn(3, 4, 5).double(), torch.tensor([0, 4, 2, 2])
    ce = kd = 0.0
    for m in range(3):
        for b in range(4):
            p, q = torch.softmax(t[m, b] / 2.5, -1), torch.softmax(s[m, b] / 2.5, -1)
            kd += 2.5**2 * float((p * (p / q).log()).sum()) / 12
            ce -= float(torch.softmax(s[m, b], -1)[y[b]].log()) / 12
    assert kd_loss(s, t, 2.5).item() == pytest.approx(kd, rel=1e-12)
    assert cross_entropy(s, y).item() == pytest.approx(ce, rel=1e-12)
    assert kd_loss(t, t, 4.0).item() == pytest.approx(0, abs=1e-14)


def test_one_student_row_learns_from_the_teachers_mean():
    """Its gradient under one-to-one targets is that of the KL to the teachers' mean tempered probability."""
    torch.manual_seed(0)
    student, teachers = torch.randn(1, 4, 5).double().requires_grad_(), torch.randn(3, 4, 5).double()
    (mine,) = torch.autograd.grad(kd_loss(student, teachers, 3.0), student)
    target = torch.softmax(teachers / 3, -1).mean(0)
    loss = 9 * -(target * torch.log_softmax(student[0] / 3, -1)).sum(-1).mean()
    (mean,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(mine, mean)


def test_saturated_teachers_give_finite_losses():
    s, t = torch.zeros(1, 2, 3, requires_grad=True), torch.tensor([[[300.0, 0, 0], [0, -300, 0]]])
    loss = kd_loss(s, t, 1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize("margin", [0.0, 5.0, 15.0, 30.0, 100.0])
def test_ods_direction_survives_confident_teachers_in_float32(margin):
    teacher = Affine(margin)
    x, w = torch.rand(6, 3, 4, 4), torch.rand(6, 5).double() * 2 - 1
    direction, confidence = ods_direction(teacher, x, w, 1.0)
    expected, sure = by_hand(teacher, x, w, 1.0)
    cosine = (direction.flatten(1).double() * expected).sum(-1)
    assert (cosine > 0.9999).all()
    torch.testing.assert_close(confidence, sure, rtol=1e-6, atol=1e-6)


def test_ods_direction_in_float64_is_the_formula():
    teacher = Affine(2.0, dtype=torch.float64)
    x, w = torch.rand(6, 3, 4, 4).double(), torch.rand(6, 5).double() * 2 - 1
    direction, _ = ods_direction(teacher, x, w, 4.0)
    torch.testing.assert_close(direction.flatten(1), by_hand(teacher, x, w, 4.0)[0], rtol=1e-9, atol=1e-9)


def test_whole_steps_in_float64_are_the_literal_formulas():
    """Draws, teacher, direction, length, confidence and clipping, written out; some pixels end at 0 and 1."""
    teachers = DeepEnsemble([Affine(2.0, seed=seed, dtype=torch.float64) for seed in range(3)])
    x, eta, t = torch.rand(6, 3, 4, 4).double(), 0.3, 4.0
    for seed in range(5):
        draws = np.random.default_rng(seed)
        teacher = teachers.nets[int(draws.random() * 3)]
        w = torch.from_numpy(draws.uniform(-1, 1, (6, 5)))
        direction, confidence = by_hand(teacher, x, w, t)
        step = eta * (3 * 4 * 4) ** 0.5 * direction
        noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((6, 48), dtype=np.float32)).double()
        for kind, moved in (("ods", step), ("confods", step * confidence[:, None]), ("gaussian", eta * noise)):
            expected = (x.flatten(1) + moved).clamp(0, 1)
            found = perturb(kind, x, teachers, t, eta, np.random.default_rng(seed)).flatten(1)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
            assert ((found == 0) | (found == 1)).any()


def test_where_the_gradient_is_zero_there_is_no_step():
    """A margin of 2000 nats leaves no other class any probability, even in float64."""
    x = torch.rand(2, 3, 4, 4)
    teachers = DeepEnsemble([Affine(2000.0)])
    for kind in ("ods", "confods"):
        assert torch.equal(perturb(kind, x, teachers, 1.0, 1 / 255, np.random.default_rng(0)), x)


def inner(shape=(8, 3, 4, 4)):
    return torch.rand(shape) * 0.5 + 0.25  # far enough from 0 and 1 that nothing is clipped


def test_step_norms_are_the_papers():
    """ODS: eta sqrt(D); ConfODS: that times the same teacher's confidence on clean x; Gaussian: that in expectation."""
    teachers, eta = DeepEnsemble([Affine(3.0)]), 1 / 255
    x = inner()
    steps = {
        kind: (perturb(kind, x, teachers, 4.0, eta, np.random.default_rng(1)) - x).flatten(1)
        for kind in ("ods", "confods")
    }
    full = eta * (3 * 4 * 4) ** 0.5
    torch.testing.assert_close(steps["ods"].norm(dim=-1), torch.full((8,), full), rtol=1e-4, atol=1e-6)
    confidence = torch.softmax(teachers(x)[0] / 4, -1).max(-1).values
    torch.testing.assert_close(steps["confods"], steps["ods"] * confidence[:, None], rtol=1e-3, atol=1e-6)
    x = inner((64, 3, 32, 32))
    noise = perturb("gaussian", x, teachers, 4.0, eta, np.random.default_rng(1)) - x
    assert noise.flatten(1).norm(dim=-1).mean().item() == pytest.approx(eta * 3072**0.5, rel=0.01)


def test_perturbed_images_are_pixels_without_gradient_and_teachers_keep_none():
    nets = [build("resnet8", 10, (0.5,) * 3, (0.25,) * 3, np.random.default_rng(m)) for m in range(2)]
    teachers = DeepEnsemble(nets).eval().requires_grad_(False)
    x = torch.randint(0, 2, (4, 3, 16, 16)).float()
    for kind in ("gaussian", "ods", "confods"):
        moved = perturb(kind, x, teachers, 4.0, 0.1, np.random.default_rng(0))
        assert moved.min() >= 0
        assert moved.max() <= 1
        assert not moved.requires_grad
        assert not torch.equal(moved, x)
    assert all(parameter.grad is None for parameter in teachers.parameters())


def test_draws_do_not_depend_on_the_number_of_teachers():
    """The weights w are the same bits for 1 and for 4 equal teachers, so the steps are."""
    x = inner()
    one, four = (
        perturb("ods", x, DeepEnsemble([Affine(1.0)] * count), 1.0, 0.01, np.random.default_rng(3)) for count in (1, 4)
    )
    assert torch.equal(one, four)


def test_every_teacher_is_drawn_equally_often():
    """r ~ U{1..M}, once a batch: the steps of three different teachers come up a third of the time each."""
    teachers = DeepEnsemble([Affine(1.0, seed=seed) for seed in range(3)])
    x, counts = inner((1, 3, 4, 4)), [0, 0, 0]
    for draw in range(300):
        step = perturb("ods", x, teachers, 1.0, 0.01, np.random.default_rng(draw)) - x
        generator = np.random.default_rng(draw)
        r = int(generator.random() * 3)
        w = torch.from_numpy(generator.uniform(-1, 1, (1, 5)))
        own = [by_hand(net, x, w, 1.0)[0] @ step.flatten().double() for net in teachers.nets]
        counts[r] += 1
        assert np.argmax([float(value) for value in own]) == r
    assert min(counts) > 70
