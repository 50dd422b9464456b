"""The member axis: BatchEnsemble layers against the formula; members, their mean, and deep ensembles."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from divkd.empirical.networks.build import build, parameters
from divkd.empirical.networks.ensembles import (
    IN_TURN,
    INITS,
    BatchEnsemble,
    DeepEnsemble,
    member,
    merge,
    rank_one,
    to_batch_ensemble,
)
from divkd.empirical.networks.layers import MEMBER, BatchEnsembleLayer
from divkd.shared.errors import InputError
from divkd.shared.seeds import rng

MEMBERS = 3


def resnet(seed=0, name="resnet8"):
    return build(name, 10, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), np.random.default_rng(seed))


def lived_in(name="resnet8", members=MEMBERS):
    """A BatchEnsemble in float64 and eval mode whose biases and BatchNorm statistics are not those of the start."""
    model = to_batch_ensemble(resnet(name=name), members, seed=1).double()
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, BatchEnsembleLayer) and layer.bias is not None:
            nn.init.normal_(layer.bias, generator=generator)
    model.train()(torch.rand(4, 3, 16, 16, dtype=torch.float64, generator=generator))
    return model.eval()


LAYERS = {
    "conv": lambda: nn.Conv2d(6, 8, 3, bias=False),
    "stride, padding": lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1),
    "dilation": lambda: nn.Conv2d(6, 8, (3, 2), dilation=(2, 1), padding=(2, 0)),
    "grouped": lambda: nn.Conv2d(6, 8, 3, groups=2),
    "depthwise": lambda: nn.Conv2d(6, 12, 3, groups=6, padding="same", bias=False),
    "circular": lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="circular"),
    "1d": lambda: nn.Conv1d(6, 8, 3, 2, 1, groups=2),
    "3d": lambda: nn.Conv3d(6, 4, 2, 2, 1, bias=False),
    "linear": lambda: nn.Linear(6, 5),
    "linear without bias": lambda: nn.Linear(6, 5, bias=False),
    "linear on tokens": lambda: nn.Linear(6, 5),
}
SIZES = {"1d": (6, 9), "3d": (6, 5, 5, 5), "linear": (6,), "linear without bias": (6,), "linear on tokens": (2, 7, 6)}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_is_the_formula_on_activations(kind):
    """y_m = s_m * W(r_m * x) + b_m, member by member, in float64: values and every gradient."""
    torch.manual_seed(0)
    plain = LAYERS[kind]().double()
    bias_free = copy.deepcopy(plain)
    bias_free.bias = None
    channels_out, channels_in = plain.weight.shape[0], 6
    layer = BatchEnsembleLayer(plain, torch.randn(MEMBERS, channels_in), torch.randn(MEMBERS, channels_out))
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    x = torch.randn(MEMBERS * 2, *SIZES.get(kind, (6, 9, 9)), dtype=torch.float64, requires_grad=True)
    y = layer(x)

    def channels(vector):
        """`vector` along the channel axis: the last one of linear layers, the second of convolutions."""
        return vector if isinstance(plain, nn.Linear) else vector.reshape(-1, *[1] * (x.ndim - 2))

    bias_free.weight = plain.weight
    formula = []
    for m in range(MEMBERS):
        z = bias_free(channels(layer.r[m]) * x[2 * m : 2 * m + 2]) * channels(layer.s[m])
        formula.append(z if layer.bias is None else z + channels(layer.bias[m]))
    formula = torch.cat(formula)
    torch.testing.assert_close(y, formula, rtol=1e-9, atol=1e-9)

    wanted, weights = [x, *layer.parameters()], torch.randn_like(y)
    assert len(wanted) == (4 if layer.bias is None else 5)
    mine = torch.autograd.grad((y * weights).sum(), wanted)
    theirs = torch.autograd.grad((formula * weights).sum(), wanted)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)

    for m in range(MEMBERS):
        one = member(BatchEnsemble(layer, MEMBERS), m)
        assert type(one) is type(plain)
        torch.testing.assert_close(one(x[2 * m : 2 * m + 2]), y[2 * m : 2 * m + 2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["resnet8", "wrn10x1", "resnet18"])
def test_factors_of_one_make_equal_members(name):
    single = resnet(name=name).eval()
    model = to_batch_ensemble(single, MEMBERS, init="ones")
    x = torch.rand(2, 3, 8, 8)
    logits = model(x)
    assert logits.shape == (MEMBERS, 2, 10)
    for m in range(MEMBERS):
        torch.testing.assert_close(logits[m], single(x))


@pytest.mark.parametrize("name", ["resnet8", "wrn10x1"])
def test_a_member_is_a_plain_network_with_the_members_outputs(name):
    model = lived_in(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.rand(5, 3, 16, 16, dtype=torch.float64)
    logits = model(x)
    for m in range(MEMBERS):
        plain = member(model, m)
        assert not rank_one(plain)
        assert parameters(plain) == parameters(resnet(name=name))
        assert list(plain.state_dict()) == list(resnet(name=name).state_dict())
        torch.testing.assert_close(plain(x), logits[m], rtol=1e-9, atol=1e-9)
        with torch.no_grad():
            for parameter in plain.parameters():
                parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_members_of_a_deep_ensemble_are_copies_of_its_networks():
    ensemble = DeepEnsemble([resnet(seed) for seed in range(2)]).eval()
    x = torch.rand(2, 3, 16, 16)
    one = member(ensemble, 1)
    assert torch.equal(one(x), ensemble(x)[1])
    assert one is not ensemble.nets[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["resnet8", "wrn10x1", "resnet18"])
def test_members_answer_in_turn_as_they_do_at_once(name, dtype):
    model = lived_in(name).to(dtype)
    shared, own = torch.rand(IN_TURN, 3, 16, 16, dtype=dtype), torch.rand(MEMBERS, IN_TURN, 3, 16, 16, dtype=dtype)
    for x in (shared, own):
        at_once = model(x)  # with gradients
        with torch.no_grad():
            torch.testing.assert_close(model(x), at_once, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)
    with torch.no_grad():  # BatchNorm pools the rows of all members in train mode
        copied, again = copy.deepcopy(model).train(), copy.deepcopy(model).train()
        pooled = copied(shared)
    torch.testing.assert_close(pooled, again(shared), rtol=0, atol=1e-5)
    copies = [copy.deepcopy(model).train() for _ in range(MEMBERS)]
    each = torch.stack([one._alone(m, shared, one._scaled()) for m, one in enumerate(copies)])
    assert not torch.allclose(pooled, each, atol=1e-3)  # so that the order matters there


def test_threads_that_share_a_model_do_not_mix_their_members():
    model, x = lived_in(), torch.rand(IN_TURN, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        alone = model(x)

    def answer(turn):
        with torch.set_grad_enabled(turn % 2 == 1):  # odd ones at once, even ones in turn
            return model(x)

    with ThreadPoolExecutor(4) as pool:
        assert all(torch.allclose(found, alone, atol=1e-10) for found in pool.map(answer, range(16)))


def test_a_member_that_fails_leaves_the_others_their_rows():
    model, x = lived_in(), torch.rand(IN_TURN, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        alone = model(x)
        with pytest.raises(RuntimeError, match="must match the size"):
            model(x[:, :2])
        assert torch.equal(model(x), alone)
    assert MEMBER.get() is None


@pytest.mark.parametrize("m", [-1, 3])
def test_a_member_that_is_not_there_is_refused(m):
    with pytest.raises(InputError, match=rf"member {m} is not allowed; give a whole number from 0 to 2"):
        member(to_batch_ensemble(resnet(), 3), m)


def test_merging_equal_members_gives_the_member_and_others_the_mean_factors():
    model = lived_in()
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    merged = merge(model)
    layer, plain = model.net.classifier, merged.classifier
    r, s = layer.r.mean(0), layer.s.mean(0)
    torch.testing.assert_close(plain.weight, s[:, None] * layer.plain.weight * r)
    torch.testing.assert_close(plain.bias, layer.bias.mean(0))
    assert parameters(merged) == parameters(resnet())
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, BatchEnsembleLayer):
                for rows in (layer.r, layer.s, *([] if layer.bias is None else [layer.bias])):
                    rows.copy_(rows[:1].clone().expand_as(rows))
    torch.testing.assert_close(merge(model)(x), member(model, 0)(x), rtol=1e-9, atol=1e-9)


def test_one_member_is_merged_to_itself():
    model = lived_in(members=1)
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(merge(model)(x)[None], model(x), rtol=1e-9, atol=1e-9)


def test_conversion_and_deepcopy_leave_the_original_untouched():
    net = resnet()
    before, x = copy.deepcopy(net), torch.rand(2, 3, 16, 16)
    model = to_batch_ensemble(net, 2)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    expected = model.eval()(x)
    assert not torch.equal(twin.eval()(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), expected)
    assert [str(module) for module in net.modules()] == [str(module) for module in before.modules()]
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before.parameters(), strict=True))


def test_state_dicts_go_there_and_back():
    one, other = lived_in(), to_batch_ensemble(resnet(5), MEMBERS, seed=5).double().eval()
    other.load_state_dict(one.state_dict())
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    assert torch.equal(one(x), other(x))


@pytest.mark.parametrize("init", INITS)
def test_factors_are_a_function_of_seed_and_member(init):
    two, five = (to_batch_ensemble(resnet(), members, seed=7, init=init) for members in (2, 5))
    for a, b in zip(rank_one(two), rank_one(five), strict=True):
        assert torch.equal(a, b[:2])
    other = rank_one(to_batch_ensemble(resnet(), 2, seed=8, init=init))
    same = [torch.equal(a, b) for a, b in zip(rank_one(two), other, strict=True)]
    assert all(same) == (init == "ones")


def test_factors_are_drawn_from_the_members_own_stream():
    """The first layer's r and s of member 1, written out: N(1, 0.02), N(1, 0.5), or the signs of the same numbers."""
    draws = rng(7, "student/rank-one", 1).standard_normal(3 + 16, dtype=np.float32)
    near = np.float32(0.02) * draws + 1
    for init, expected in (
        ("near", near),
        ("normal", 1 + draws / 2),
        ("signs", np.where(draws < 0, -1, 1).astype(np.float32)),
    ):
        stem = to_batch_ensemble(resnet(), 2, seed=7, init=init).net.stem
        assert np.array_equal(torch.cat([stem.r, stem.s], 1)[1].detach().numpy(), expected)


def test_factors_have_the_distribution_of_their_name():
    near, normal, signs, ones = (
        torch.cat([f.flatten() for f in rank_one(to_batch_ensemble(resnet(), 64, init=init))]) for init in INITS
    )
    assert near.std().item() == pytest.approx(0.02, rel=0.02)
    assert normal.mean().item() == pytest.approx(1, abs=0.01)
    assert normal.std().item() == pytest.approx(0.5, abs=0.01)
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert signs.mean().item() == pytest.approx(0, abs=0.02)
    assert bool((ones == 1).all())


def test_factors_take_dtype_and_frozen_biases_stay_frozen():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    net[0].requires_grad_(False)
    model = to_batch_ensemble(net, 2)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["net.0.bias", "net.0.plain.weight"]
    assert not member(model, 0)[0].weight.requires_grad


@pytest.mark.parametrize("layer", [nn.Conv1d(2, 4, 3), nn.Conv2d(2, 4, 3), nn.Conv3d(2, 4, 3)])
def test_one_batch_a_member_in_any_number_of_dimensions(layer):
    model = to_batch_ensemble(nn.Sequential(layer, nn.Flatten()), 3).double()
    batches = torch.rand(3, 2, 2, *[4] * (layer.weight.ndim - 2), dtype=torch.float64)
    own = model(batches)
    for m in range(3):
        torch.testing.assert_close(own[m], model(batches[m])[m])


def test_one_batch_a_member_is_the_member_on_its_batch():
    for model in (DeepEnsemble([resnet(seed) for seed in range(3)]), to_batch_ensemble(resnet(), 3, seed=0)):
        model.eval()
        batches = torch.rand(3, 2, 3, 16, 16)
        own = model(batches)
        for m in range(3):
            torch.testing.assert_close(own[m], model(batches[m])[m], rtol=1e-4, atol=1e-5)


def test_batches_of_another_number_of_members_are_refused():
    with pytest.raises(InputError, match="2 batches for 3 members"):
        to_batch_ensemble(resnet(), 3)(torch.rand(2, 6, 3, 8, 8))
