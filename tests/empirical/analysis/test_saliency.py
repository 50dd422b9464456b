"""Gradients of log-probabilities: a linear network's are its weights, an ensemble's its members' mean."""

import numpy as np
import pytest
import torch

from divkd.empirical.analysis.saliency import correlations, gradients, magnitude, of_ensemble
from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble

SHAPE, CLASSES = (3, 4, 4), 5
STATS = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def linear(seed, scale=1.0, kind=torch.float64):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, CLASSES, dtype=kind))
    torch.nn.init.normal_(net[1].weight, std=scale, generator=torch.Generator().manual_seed(seed))
    return net


def images(count=6, shape=SHAPE, kind=torch.float64):
    drawn = np.random.default_rng(0).random((count, *shape))
    return torch.from_numpy(drawn).to(kind), torch.arange(count) % CLASSES


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_of_a_linear_network_it_is_its_weights():
    """d log p_y / dx = sum_k (1[k = y] - p_k) W_k; of two classes, p_other times the difference of their weights."""
    net, (x, y) = linear(0), images()
    weight, bias = (parameter.detach().numpy() for parameter in net[1].parameters())
    p = softmax(x.flatten(1).numpy() @ weight.T + bias)
    (found,), (logs,) = gradients(DeepEnsemble([net]), x, y)
    expected = (np.eye(CLASSES)[y] - p) @ weight
    np.testing.assert_allclose(found.flatten(1), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(logs, np.log(p[np.arange(6), y]), rtol=1e-12)
    sizes = np.sqrt((expected.reshape(6, *SHAPE) ** 2).sum(1))
    np.testing.assert_allclose(magnitude(found), sizes, rtol=1e-12)


def test_an_ensembles_is_that_of_the_log_of_its_mean_probability():
    nets = [build("resnet8w4", CLASSES, *STATS, np.random.default_rng(m)).double().eval() for m in range(3)]
    x, y = images(4, (3, 8, 8))
    each, logs = gradients(DeepEnsemble(nets), x, y)
    pixels = x.clone().requires_grad_()
    p = torch.stack([net(pixels).softmax(-1) for net in nets]).mean(0)
    (expected,) = torch.autograd.grad(p.log().gather(-1, y[:, None]).sum(), pixels)
    torch.testing.assert_close(of_ensemble(each, logs), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(of_ensemble(each[[1, 1]], logs[[1, 1]]), each[1])


@pytest.mark.parametrize("scale", [30.0, 300.0])
def test_a_network_that_is_sure_still_has_a_direction(scale):
    """Where 1 - p is 0 in float32: the direction is that of float64."""
    (x, _), net = images(kind=torch.float32), linear(0, scale, torch.float32)
    y = net(x).argmax(-1)
    (found,), (logs,) = gradients(DeepEnsemble([net]), x, y)
    assert (net(x).softmax(-1).amax(-1) == 1).any()
    weight = net[1].weight.detach().double().numpy()
    others = softmax(net(x).detach().double().numpy())
    others[np.arange(6), y] = 0
    expected = others.sum(-1, keepdims=True) * weight[y] - others @ weight
    for one, wanted in zip(found.flatten(1).numpy(), expected, strict=True):
        norms = np.linalg.norm(one) * np.linalg.norm(wanted)
        assert norms == 0 or one @ wanted / norms > 0.9999
    assert logs.dtype == torch.float64


def test_correlations_are_numpys_and_a_constant_map_has_none():
    draw = np.random.default_rng(0)
    first, second = (torch.from_numpy(draw.random((2, 5, 4, 3))) for _ in range(2))
    expected = [[np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(*both, strict=True)]
                for both in zip(first.numpy(), second.numpy(), strict=True)]  # fmt: skip
    np.testing.assert_allclose(correlations(first, second), expected, rtol=1e-12)
    torch.testing.assert_close(correlations(first, 3 * first + 1), torch.ones(2, 5, dtype=torch.float64))
    assert correlations(first, torch.ones_like(first)).eq(0).all()
