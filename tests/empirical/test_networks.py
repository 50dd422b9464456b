"""Parameter counts of the published networks, and what a network must do with its input."""

import numpy as np
import pytest
import torch

from divkd.empirical.ensembles import DeepEnsemble, to_batch_ensemble
from divkd.empirical.networks import build, parameters
from divkd.shared.errors import InputError

MEAN, STD = (0.4915, 0.4821, 0.4464), (0.2472, 0.2437, 0.2617)


def resnet(name="resnet8", classes=10, seed=0):
    return build(name, classes, MEAN, STD, np.random.default_rng(seed))


def test_parameter_counts_are_the_published_ones():
    assert parameters(resnet("resnet32")) == 464_154
    assert parameters(DeepEnsemble([resnet("resnet32") for _ in range(4)])) == 1_856_616
    assert parameters(to_batch_ensemble(resnet("resnet32"), 4, seed=0)) == 473_324
    assert parameters(to_batch_ensemble(resnet("resnet32"), 8, seed=0)) == 482_504


def test_shortcut_subsamples_and_appends_zero_channels():
    """With the residual branch at zero, a downsampling block is relu of every second pixel and zero new channels."""
    block = resnet().blocks[1].eval()
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 16, 8, 8)
    y = block(x)
    assert torch.equal(y[:, :16], torch.relu(x[:, :, ::2, ::2]))
    assert not y[:, 16:].any()


def test_initial_weights_are_kaiming_normal_by_fan_out():
    net = resnet("resnet110")
    for layer in (net.blocks[40].conv2, net.blocks[50].conv1):
        out, _, height, width = layer.weight.shape
        assert layer.weight.std().item() == pytest.approx((2 / (out * height * width)) ** 0.5, rel=0.03)
    assert not net.classifier.bias.any()


def test_normalisation_is_inside_the_network():
    net = resnet().eval()
    x = torch.rand(2, 3, 32, 32)
    by_hand = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(net.normalise(x), by_hand)


@pytest.mark.parametrize("name", ["resnet9", "resnet2", "resnet", "wrn28x10", "resnet32x"])
def test_unknown_networks_are_refused_by_name(name):
    with pytest.raises(InputError, match=name):
        resnet(name)
