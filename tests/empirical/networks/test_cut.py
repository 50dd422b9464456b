"""A network in two, and networks on parts of its channels: what they are together, and what each sees."""

import numpy as np
import pytest
import torch

from divkd.empirical.data.splits import Split
from divkd.empirical.networks.build import build
from divkd.empirical.networks.cut import Parts, above, below, blocks_below, fresh_above, partition
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.networks.names import channels_at
from divkd.empirical.training.seed_run import predict
from divkd.shared.errors import InputError
from divkd.shared.seeds import rng

STATS = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def trained(network):
    """A network whose every buffer and weight has been moved by a few steps."""
    net = build(network, 5, *STATS, rng(0, "net"))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        net(images(8)).logsumexp(-1).sum().backward()
        optimiser.step()
    return net.eval()


def images(count):
    drawn = torch.from_numpy(rng(1, "images").random((count, 3, 16, 16), dtype=np.float32))
    return drawn.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("cut", ["a", "b"])
@pytest.mark.parametrize("network", ["resnet8w4", "resnet14w4", "wrn10x1"])
def test_all_channels_and_the_networks_own_upper_weights_are_the_network_to_the_bit(network, cut):
    net, x, place = trained(network), images(6), blocks_below(network, cut)
    width = channels_at(network, cut)
    whole = Parts(below(net, place), [above(net, place)], partition(width, 1, rng(0, "parts"))).eval()
    assert below(net, place)(x).shape[1] == width
    with torch.no_grad():
        assert torch.equal(whole(x)[0], net(x))
    fresh = fresh_above(network, cut, width, 5, rng(0, "fresh"))
    fresh.load_state_dict(above(net, place).state_dict())
    split = Split((255 * x).to(torch.uint8), torch.zeros(6, dtype=torch.int64))
    same = Parts(below(net, place), [fresh], [torch.arange(width)])
    assert torch.equal(predict(same, split), predict(DeepEnsemble([net]), split))


@pytest.mark.parametrize(("channels", "parts"), [(16, 1), (16, 4), (12, 3), (6, 6)])
def test_parts_are_disjoint_and_hold_every_channel(channels, parts):
    found = partition(channels, parts, rng(0, "parts"))
    assert [len(one) for one in found] == [channels // parts] * parts
    assert sorted(torch.cat(found).tolist()) == list(range(channels))
    for one in found:
        assert one.tolist() == sorted(one.tolist())


def test_parts_of_a_finer_split_are_halves():
    wide, narrow = (partition(16, parts, rng(3, "parts")) for parts in (2, 4))
    for place, one in enumerate(wide):
        assert sorted(torch.cat(narrow[2 * place : 2 * place + 2]).tolist()) == one.tolist()


def test_a_network_depends_on_its_own_channels_alone():
    net = trained("resnet8w4")
    sets = partition(8, 4, rng(0, "parts"))
    lower, x = below(net, 2), images(3)
    uppers = [fresh_above("resnet8w4", "b", 2, 5, rng(0, "upper", member)) for member in range(4)]
    parts = Parts(lower, uppers, sets).eval()
    with torch.no_grad():
        before, features = parts(x), lower(x)
        alone = torch.stack([upper(features[:, one]) for upper, one in zip(uppers, sets, strict=True)])
        assert torch.allclose(before, alone, atol=1e-6)

        class Changed(torch.nn.Module):
            def forward(self, x):
                y = lower(x).clone()
                y[:, sets[1]] += 1
                return y

        after = Parts(Changed(), uppers, sets).eval()(x)
    changed = [not torch.equal(*pair) for pair in zip(before, after, strict=True)]
    assert changed == [False, True, False, False]


def test_training_leaves_the_lower_network_as_it_is():
    net = trained("resnet8w4").requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    parts = Parts(below(net, 1), [fresh_above("resnet8w4", "a", 2, 5, rng(0, "upper"))], [torch.tensor([0, 3])])
    optimiser = torch.optim.SGD(parts.parameters(), lr=0.1)
    parts.train()(images(4)).square().mean().backward()
    optimiser.step()
    assert not net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(name.startswith("uppers.0.") for name in parts.state_dict())


@pytest.mark.parametrize("network", ["resnet18", "torchvision:resnet18"])
def test_other_networks_are_not_cut(network):
    with pytest.raises(InputError, match=f"{network} is not cut; give resnetD with D = 6n \\+ 2 or wrnDxK"):
        channels_at(network, "a")
