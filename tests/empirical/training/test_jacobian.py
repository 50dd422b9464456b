"""The second order of distillation on moved images: against finite differences, whole Jacobians and its limits."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble, to_batch_ensemble
from divkd.empirical.training.distillation import kd_loss, student_loss
from divkd.empirical.training.jacobian import direction, expansion, fisher, jacobian_loss, jet, pushed
from divkd.empirical.training.perturb import PERTURBATIONS, Space, perturb

K, T, SHAPE, B = 4, 2.5, (2, 2, 2), 5
FREE = Space(None, None)


def small(seed, scale=1.0):
    """A smooth network in float64, all of whose derivatives differ from image to image."""
    draw = np.random.default_rng(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, K)).double()
    for parameter in net.parameters():
        parameter.data = torch.from_numpy(draw.normal(size=tuple(parameter.shape)) * scale)
    return net.eval().requires_grad_(False)


def draws(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


TEACHERS, STUDENT = DeepEnsemble([small(0), small(1)]), DeepEnsemble([small(2)])
X, N = draws(3, B, *SHAPE), draws(4, B, *SHAPE)


def kd(x, student=STUDENT, teachers=TEACHERS):
    return kd_loss(student(x), teachers(x), T).item()


def terms(x, n, student=STUDENT, teachers=TEACHERS):
    return {name: part.mean().item() for name, part in expansion(jet(student, x, n), jet(teachers, x, n), T).items()}


def test_the_second_derivative_is_that_of_finite_differences_and_of_a_double_backward_pass():
    found, h = terms(X, N)["second"], 1e-4
    assert found == pytest.approx((kd(X + h * N) + kd(X - h * N) - 2 * kd(X)) / (2 * h**2), rel=1e-5)
    s = torch.zeros(B, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    z = X + s * N
    (first,) = torch.autograd.grad(kd_loss(STUDENT(z), TEACHERS(z), T), s, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), s)
    assert found == pytest.approx(second.sum().item() / 2, rel=1e-10)


@pytest.mark.parametrize(("sides", "slope"), [((1, -1), 4), ((1,), 3)])
def test_the_remainder_falls_with_the_fourth_power_of_the_step_and_of_one_side_with_the_third(sides, slope):
    sizes = 0.1 * 2.0 ** -np.arange(5)
    n = 0.5 * N
    (first,) = torch.autograd.functional.jacobian(lambda s: kd_loss(STUDENT(X + s * n), TEACHERS(X + s * n), T),
                                                  torch.zeros(1, dtype=torch.float64))  # fmt: skip
    left = [
        abs(np.mean([kd(X + sign * h * n) - sign * h * first.item() for sign in sides]) - kd(X)
            - h**2 * terms(X, n)["second"])
        for h in sizes
    ]  # fmt: skip
    found = np.polyfit(np.log(sizes), np.log(left), 1)[0]
    assert found == pytest.approx(slope, abs=0.15)


def test_kinks_of_relus_add_to_the_mean_over_images_at_every_size_what_no_derivative_knows():
    """Fewer images have a kink within a smaller step, each with more weight: the square of the size remains."""
    nets = []
    for seed in (0, 1):
        draw = np.random.default_rng(seed)
        nets.append(nn.Sequential(nn.Flatten(), nn.Linear(1, 12), nn.ReLU(), nn.Linear(12, K)).double())
        for parameter in nets[-1].parameters():
            parameter.data = torch.from_numpy(draw.normal(size=tuple(parameter.shape)))
    student, teacher = (DeepEnsemble([net]).eval().requires_grad_(False) for net in nets)
    x = torch.linspace(-2, 2, 20_001, dtype=torch.float64)[:, None, None, None]
    n, sizes = torch.ones_like(x), (0.05, 0.01)
    found = [
        ((kd(x + h * n, student, teacher) + kd(x - h * n, student, teacher)) / 2 - kd(x, student, teacher)) / h**2
        for h in sizes
    ]
    assert found[0] == pytest.approx(found[1], rel=0.02)
    assert abs(found[1] / terms(x, n, student, teacher)["second"] - 1) > 0.1


def whole(net, x):
    """(M, B, K, D), by a backward pass for every logit."""
    jacobian = torch.autograd.functional.jacobian(net, x)  # (M, B, K, B, C, H, W)
    return torch.stack([jacobian[:, b, :, b] for b in range(len(x))], 1).flatten(3)


def test_one_random_projection_has_the_mean_of_the_exact_trace():
    """tr((J_S - J_T)^T F (J_S - J_T)) from whole Jacobians; of unit vectors exactly, of Gaussian ones in the mean."""
    apart, p = whole(STUDENT, X) - whole(TEACHERS, X), torch.softmax(TEACHERS(X) / T, -1)
    metric = torch.diag_embed(p) - p[..., None] * p[..., None, :]
    exact = torch.einsum("mbki,mbkl,mbli->mb", apart, metric, apart).mean().item() / 2
    units = torch.eye(8, dtype=torch.float64).reshape(8, 1, *SHAPE).expand(8, B, *SHAPE)
    assert 8 * terms(X.repeat(8, 1, 1, 1), units.flatten(0, 1))["jacobian"] == pytest.approx(exact, rel=1e-10)
    x, n = X.repeat(400, 1, 1, 1), draws(5, 400 * B, *SHAPE)
    random = expansion(jet(STUDENT, x, n), jet(TEACHERS, x, n), T)["jacobian"].unflatten(1, (400, B)).mean((0, 2))
    assert abs(random.mean() - exact) < 4 * random.std() / 20
    assert random.std() > 0


def test_the_cosine_follows_from_the_three_lengths():
    student, teacher = DeepEnsemble([small(0)]), DeepEnsemble([small(0)])
    teacher.nets[0][3].weight.data *= 3  # the same Jacobian, three times as long
    one = terms(X, N, student, teacher)
    cosine = (one["ours"] + one["theirs"] - one["jacobian"]) / (2 * (one["ours"] * one["theirs"]) ** 0.5)
    assert cosine == pytest.approx(1)
    assert one["theirs"] == pytest.approx(9 * one["ours"])


def test_a_student_that_is_its_teacher_has_no_term_and_one_that_differs_by_a_constant_neither():
    same = copy.deepcopy(TEACHERS)
    same.nets[0][3].bias.data += 7
    found = terms(X, N, same)
    assert found["theirs"] > 0
    assert found["ours"] == pytest.approx(found["theirs"])
    assert abs(found["jacobian"]) + abs(found["second"]) < 1e-25 + 1e-12 * found["theirs"]


def test_the_fisher_metric_is_the_variance_of_drawn_classes_whatever_is_added():
    logits, a = draws(6, 2, B, K), draws(7, 2, B, K)
    p = torch.softmax(logits / T, -1)
    literal = torch.einsum("mbk,mbkl,mbl->mb", a, torch.diag_embed(p) - p[..., None] * p[..., None, :], a)
    torch.testing.assert_close(fisher(a, logits, T), literal)
    torch.testing.assert_close(fisher(a + 3, logits, T), literal)


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_a_step_is_that_of_perturb_before_it_is_clipped(kind):
    how = (TEACHERS, T)
    n = direction(kind, X, *how, np.random.default_rng(0))
    torch.testing.assert_close(X + 0.3 * n, perturb(kind, X, *how, 0.3, np.random.default_rng(0), FREE))


def resnet(seed):
    return build("resnet8w4", K, (0.5,), (0.3,), np.random.default_rng(seed))


@pytest.fixture(scope="module")
def images():
    return torch.rand(6, 1, 8, 8, generator=torch.manual_seed(0)), torch.arange(6) % K


@pytest.fixture(scope="module")
def taught_by():
    return DeepEnsemble([resnet(0), resnet(1)]).eval().requires_grad_(False)


@pytest.mark.parametrize(
    "make", [lambda: DeepEnsemble([resnet(9)]), lambda: to_batch_ensemble(resnet(9), 2, 0, "ones")]
)
def test_a_penalty_of_weight_0_is_plain_kd_to_the_bit(make, images, taught_by):
    found = []
    for loss in (student_loss("kd", taught_by, T, 0.9, 0.0), jacobian_loss("gaussian", taught_by, T, 0.9, 0.0)):
        net = make().train()
        ((value, logits),) = loss(net, *images, np.random.default_rng(0))
        value.backward()
        found.append([value, logits, *(parameter.grad for parameter in net.parameters()), *net.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_in_train_mode_a_derivative_is_that_of_the_whole_batch_and_in_eval_mode_of_each_image(images):
    x, n = images[0].double(), draws(8, 6, 1, 8, 8)
    net, h = DeepEnsemble([resnet(9)]).double().train(), 1e-6
    _, along = pushed(net, x, n)
    with torch.no_grad():
        literal = (net(x + h * n) - net(x - h * n)) / (2 * h)
    torch.testing.assert_close(along.double(), literal, rtol=1e-4, atol=1e-5)
    alone = torch.zeros_like(n)
    alone[0] = n[0]
    assert pushed(net, x, alone)[1][0, 1:].abs().max() > 1e-3  # one row's step moves the others' logits
    assert pushed(net.eval(), x, alone)[1][0, 1:].abs().max() == 0


def test_the_loss_adds_the_weighted_penalty_of_the_draws_that_moved_images_get(images, taught_by):
    x, y = images
    net, a, eta = DeepEnsemble([resnet(9)]).train(), 0.7, 0.05
    kd_alone, whole_loss = (
        next(iter(loss(net, x, y, np.random.default_rng(1))))[0]
        for loss in (student_loss("kd", taught_by, T, a, 0.0), jacobian_loss("ods", taught_by, T, a, eta))
    )
    n = direction("ods", x, taught_by, T, np.random.default_rng(1))
    (targets, theirs), (_, ours) = pushed(taught_by, x, n), pushed(net, x, n)
    expected = a * eta**2 / 2 * fisher(ours - theirs, targets, T).mean()
    torch.testing.assert_close(whole_loss - kd_alone, expected, rtol=1e-3, atol=1e-6)
    assert expected > 1e-4
    parameter = next(net.parameters())
    (gradient,) = torch.autograd.grad(expected, parameter)
    assert gradient.abs().max() > 0  # the penalty reaches the weights
