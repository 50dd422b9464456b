"""The member axis: a BatchEnsemble against the formula, a deep ensemble against its networks."""

import numpy as np
import pytest
import torch
from torch import nn

from divkd.empirical.ensembles import (
    BatchEnsembleConv2d,
    BatchEnsembleLinear,
    DeepEnsemble,
    rank_one,
    to_batch_ensemble,
)
from divkd.empirical.networks import build
from divkd.shared.errors import InputError


def resnet(seed=0):
    return build("resnet8", 10, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), np.random.default_rng(seed))


@pytest.mark.parametrize(("channels", "out", "groups", "bias"), [(6, 8, 1, False), (6, 8, 2, True), (6, 12, 6, False)])
def test_convolution_is_the_formula_on_activations(channels, out, groups, bias):
    """y_m = s_m * W(r_m * x) + b_m, member by member, in float64; values and every gradient."""
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, out, 3, 2, 1, groups=groups, bias=bias).double()
    draws = np.random.default_rng(0).normal(1, 0.5, (3, channels + out))
    layer = BatchEnsembleConv2d(conv, 3, draws)
    x = torch.randn(3 * 2, channels, 9, 9, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    expected = []
    for m in range(3):
        inside = x[2 * m : 2 * m + 2] * layer.r[m][:, None, None]
        z = nn.functional.conv2d(inside, conv.weight, None, 2, 1, groups=groups) * layer.s[m][:, None, None]
        expected.append(z if layer.bias is None else z + layer.bias[m][:, None, None])
    formula = torch.cat(expected)
    torch.testing.assert_close(y, formula, rtol=1e-12, atol=1e-12)
    wanted = [x, *layer.parameters()]
    weights = torch.randn_like(y)
    mine = torch.autograd.grad((y * weights).sum(), wanted)
    theirs = torch.autograd.grad((formula * weights).sum(), wanted)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_linear_is_the_formula():
    torch.manual_seed(0)
    linear = nn.Linear(5, 4).double()
    layer = BatchEnsembleLinear(linear, 3, np.random.default_rng(0).normal(1, 0.5, (3, 9)))
    nn.init.normal_(layer.bias)
    x = torch.randn(3, 2, 5, dtype=torch.float64)
    y = layer(x.flatten(0, 1)).unflatten(0, (3, 2))
    for m in range(3):
        torch.testing.assert_close(y[m], layer.s[m] * (linear.weight @ (layer.r[m] * x[m]).T).T + layer.bias[m])


def test_factors_of_one_make_equal_members():
    model = to_batch_ensemble(resnet(), 3, seed=0).eval()
    for factor in rank_one(model):
        nn.init.ones_(factor)
    x = torch.rand(4, 3, 16, 16)
    logits, single = model(x), resnet().eval()(x)
    assert logits.shape == (3, 4, 10)
    for m in range(3):
        torch.testing.assert_close(logits[m], single)


def test_more_members_keep_the_first_ones_factors():
    two, five = (rank_one(to_batch_ensemble(resnet(), members, seed=7)) for members in (2, 5))
    for a, b in zip(two, five, strict=True):
        assert torch.equal(a, b[:2])


def test_one_batch_a_member_is_the_member_on_its_batch():
    for model in (DeepEnsemble([resnet(seed) for seed in range(3)]), to_batch_ensemble(resnet(), 3, seed=0)):
        model.eval()
        batches = torch.rand(3, 2, 3, 16, 16)
        own = model(batches)
        for m in range(3):
            torch.testing.assert_close(own[m], model(batches[m])[m], rtol=1e-4, atol=1e-5)


def test_what_has_nothing_to_convert_is_refused():
    with pytest.raises(InputError, match="Sequential has no convolution"):
        to_batch_ensemble(nn.Sequential(nn.ReLU()), 2, seed=0)
