"""Parameter counts of the published networks, and what a network must do with its input."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from divkd.empirical.networks import build as networks
from divkd.empirical.networks.build import architecture, build, parameters
from divkd.empirical.networks.ensembles import DeepEnsemble, to_batch_ensemble
from divkd.empirical.networks.names import EXAMPLES, parse
from divkd.shared.errors import InputError

MEAN, STD = (0.4915, 0.4821, 0.4464), (0.2472, 0.2437, 0.2617)


def resnet(name="resnet8", classes=10, seed=0):
    return build(name, classes, MEAN, STD, np.random.default_rng(seed))


def shapes(name, classes):
    """The network without storage: for counting."""
    with torch.device("meta"):
        return architecture(name, classes, MEAN, STD)


@pytest.mark.parametrize(
    ("name", "classes", "members", "single", "deep", "batch"),
    [
        ("resnet32", 10, 4, 464_154, 1_856_616, 473_324),
        ("resnet32", 10, 8, 464_154, 3_713_232, 482_504),
        ("wrn28x10", 100, 4, 36_536_884, 146_147_536, 36_615_868),
        ("wrn28x5", 100, 4, 9_161_524, None, 9_201_468),
        ("wrn28x5", 200, 4, 9_193_624, 36_774_496, 9_234_268),
        ("wrn28x10", 200, 4, None, 146_403_936, None),
        # Not in the paper: by hand. Stem 3*64*9, blocks, three projections, BatchNorm of 4,800 channels, classifier.
        ("resnet18", 10, 4, 1_728 + 10_985_472 + 172_032 + 2 * 4_800 + 5_130, None, None),
    ],
)
def test_parameter_counts_are_the_published_ones(name, classes, members, single, deep, batch):
    net = shapes(name, classes)
    ensemble = DeepEnsemble([shapes(name, classes) for _ in range(members)])
    assert single in (None, parameters(net))
    assert deep in (None, parameters(ensemble))
    assert batch in (None, parameters(to_batch_ensemble(net, members)))


def test_resnet18_is_torchvisions_with_another_stem():
    """Same weights, same logits, in float64: torchvision's network with a 3x3 stem of stride 1 and no max-pool."""
    from torchvision.models import resnet18

    theirs = resnet18(num_classes=10)
    theirs.conv1, theirs.maxpool = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False), torch.nn.Identity()
    ours = architecture("resnet18", 10, (0.0,) * 3, (1.0,) * 3)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(ours.double()(x), theirs.double()(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-9, atol=1e-9)


def test_wide_blocks_project_the_raw_input():
    """With the second convolution at zero a block is its shortcut: x itself, or a 1x1 convolution of x as it is."""
    net = build("wrn16x2", 10, MEAN, STD, np.random.default_rng(0))
    assert len(net.blocks) == 6
    x = torch.randn(2, 16, 8, 8)
    for block in net.blocks[:2]:
        torch.nn.init.zeros_(block.conv2.weight)
        projection = block.shortcut
        expected = x if projection is None else torch.einsum("oi,bihw->bohw", projection.weight[:, :, 0, 0], x)
        torch.testing.assert_close(block(x), expected)
        x = expected.detach()
    assert [block.shortcut is None for block in net.blocks] == [False, True] * 3


def test_a_wide_block_is_pre_activation():
    block = build("wrn16x1", 10, MEAN, STD, np.random.default_rng(0)).blocks[0].double().eval()
    x = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    inside = torch.conv2d(torch.relu(block.bn1(x)), block.conv1.weight, padding=1)
    residual = torch.conv2d(torch.relu(block.bn2(inside)), block.conv2.weight, padding=1)
    torch.testing.assert_close(block(x), x + residual)
    assert block.shortcut is None


@pytest.mark.parametrize("name", ["resnet14", "resnet18", "wrn10x1", "wrn16x2"])
def test_every_kind_takes_small_images(name):
    net = build(name, 7, (0.5,), (0.25,), np.random.default_rng(0))
    logits = net(torch.rand(2, 1, 8, 8))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


def test_networks_load_without_torchvision():
    for file in Path(networks.__file__).parent.glob("*.py"):
        assert not re.search(r"^(import|from) torchvision", file.read_text(encoding="utf-8"), re.M), file.name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "resnet9",
            "resnet2",
            "resnet",
            "resnet32x",
            "resnet8w0",
            "resnet8w",
            "resnet08",
            "resnet32x2",
            "Resnet32",
            "resnet\u0663\u0662",
            "",
        ),
        *("wrn28", "wrn26x10", "wrn4x1", "wrn28x0", "wrn28x", "wrn-28-10", "wrn28x1000", "resnet18 "),
    ],
)
def test_unknown_networks_are_refused_by_name(name):
    with pytest.raises(InputError, match=rf"unknown network '{name}'; give resnetD with D = 6n \+ 2"):
        resnet(name)


@pytest.mark.parametrize(
    ("name", "meant"), [("resnet9", "resnet8"), ("wrn28-10", "wrn28x10"), ("resnet-18", "resnet18")]
)
def test_a_near_miss_is_answered_with_what_was_meant(name, meant):
    with pytest.raises(InputError, match=f"did you mean '{meant}'"):
        parse(name)


def test_a_width_of_16_is_the_published_one_and_a_quarter_has_about_a_sixteenth_of_the_weights():
    published, same, narrow = (resnet(name) for name in ("resnet8", "resnet8w16", "resnet8w4"))
    assert all(torch.equal(a, b) for a, b in zip(published.parameters(), same.parameters(), strict=True))
    assert narrow.stem.weight.shape[0] == 4
    assert parameters(narrow) < parameters(published) / 14


def test_every_example_is_a_network():
    for name in EXAMPLES:
        shapes(name, 10)
