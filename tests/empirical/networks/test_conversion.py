"""Which networks become BatchEnsembles, and which are refused by the name of a module."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from divkd.empirical.networks.build import architecture
from divkd.empirical.networks.ensembles import member, rank_one, to_batch_ensemble
from divkd.empirical.networks.layers import BatchEnsembleLayer
from divkd.shared.errors import InputError

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ViT(nn.Module):
    """A vision transformer of plain linear layers, with a class token and a position table of its own."""

    def __init__(self, width=12, attention=Attention):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 17, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = attention(width, 2)
        self.mlp = nn.Sequential(nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width))
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        x = x + self.attention(self.norms[0](x))
        return self.head((x + self.mlp(self.norms[1](x)))[:, 0])


def network(name):
    if name == "vit":
        return ViT()
    if name == "wrn10x2":
        return architecture(name, 10, (0.5,) * 3, (0.25,) * 3)
    from torchvision import models

    if name == "bottlenecks":  # of resnet50 and resnext50, one a stage
        return models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], 10, groups=4, width_per_group=8)
    return getattr(models, name)(num_classes=10)


@pytest.mark.parametrize("name", ["vit", "wrn10x2", "resnet18", "bottlenecks", "mobilenet_v2", "mobilenet_v3_small"])
def test_nested_networks_are_converted_whole(name):
    """Every layer is replaced, and each member of the folded network is its plain one, in float64."""
    torch.manual_seed(0)
    net = network(name).double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    x = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    net.train()(x)  # running statistics under which no activation vanishes
    net.eval()
    count = sum(isinstance(module, LAYERS) for module in net.modules())
    model = to_batch_ensemble(net, 2, example=x)
    assert len(rank_one(model)) == 2 * count
    with torch.no_grad():
        logits = model(x)
        assert logits.shape == (2, 4, 10)
        assert (logits[0] - logits[1]).abs().max() > 1e-3
        for m in range(2):
            plain = member(model, m)
            assert not any(isinstance(module, BatchEnsembleLayer) for module in plain.modules())
            torch.testing.assert_close(plain(x), logits[m], rtol=1e-9, atol=1e-9)


def test_every_factor_of_a_converted_network_learns():
    model = to_batch_ensemble(ViT(), 2)
    model(torch.rand(3, 3, 16, 16)).square().sum().backward()
    assert all(factor.grad is not None and bool(factor.grad.any()) for factor in rank_one(model))


class Scaled(nn.Conv2d):
    """A convolution that standardises its weight."""

    def forward(self, x):
        return F.conv2d(x, self.weight / self.weight.std(), self.bias)


class Matrix(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 4))


def hooked():
    layer = nn.Linear(4, 4)
    layer.register_forward_hook(lambda *_: None)
    return layer


def tied():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return nn.Sequential(first, second)


REFUSED = {
    "attention, bias k": (
        lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True),
        "1 (MultiheadAttention)",
        "weights of its own",
    ),
    "transformer": (lambda: nn.TransformerEncoderLayer(4, 2), "1 (TransformerEncoderLayer)", "batch_first=True"),
    "recurrent": (lambda: nn.LSTM(4, 4), "1 (LSTM)", "write its steps with nn.Linear"),
    "recurrent cell": (lambda: nn.GRUCell(4, 4), "1 (GRUCell)", "weights of its own"),
    "bilinear": (lambda: nn.Bilinear(4, 4, 4), "1 (Bilinear)", "weights of its own"),
    "subclass of one": (lambda: type("Mine", (nn.GRU,), {})(4, 4), "1 (Mine)", "weights of its own"),
    "lazy layer": (lambda: nn.LazyLinear(4), "1 (LazyLinear)", "lazy"),
    "lazy norm": (lambda: nn.LazyBatchNorm2d(), "1 (LazyBatchNorm2d)", "lazy"),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(4, 4)), "1 (ParametrizedLinear)", "computed"),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(4, 4)), "1 (ParametrizedLinear)", "computed"),
    "pruned": (lambda: prune.random_unstructured(nn.Conv2d(4, 4, 1), "weight", 0.5), "1 (Conv2d)", "computed"),
    "own forward": (lambda: Scaled(4, 4, 1), "1 (Scaled)", "use a plain Conv2d"),
    "hooks": (hooked, "1 (Linear)", "hooks"),
    "functional matrix": (Matrix, "1 (Matrix)", "parameter matrix (4, 4)"),
    "list of matrices": (lambda: nn.ParameterList([torch.ones(2, 2)]), "1 (ParameterList)", "parameter 0 (2, 2)"),
    "tied weights": (tied, "1.1 and 1.0", "share one weight"),
    "no statistics": (lambda: nn.BatchNorm2d(4, track_running_stats=False), "1 (BatchNorm2d)", "running statistics"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_batch_ensemble_form_is_refused_by_name(kind):
    make, name, why = REFUSED[kind]
    net = nn.Sequential(nn.Linear(4, 4), make())
    with pytest.raises(
        InputError, match=f"^{re.escape(name)} ha(s|ve) no BatchEnsemble form: .*{re.escape(why)}"
    ) as caught:
        to_batch_ensemble(net, 2)
    assert "\n" not in str(caught.value)
    assert type(net[0]) is nn.Linear


def test_what_shares_its_parameters_is_accepted():
    parts = (nn.BatchNorm1d(4), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.RMSNorm(4), nn.PReLU(4))
    layers = (nn.Linear(4, 4), type("Mine", (nn.Linear,), {})(4, 4))
    model = to_batch_ensemble(nn.Sequential(*layers, *parts), 2, example=torch.rand(3, 4))
    assert len(rank_one(model)) == 4


def test_a_network_of_one_layer_and_a_layer_under_two_names():
    x = torch.rand(3, 4)
    model = to_batch_ensemble(nn.Linear(4, 4), 2, example=x)
    assert isinstance(model.net, BatchEnsembleLayer)
    torch.testing.assert_close(member(model, 1)(x), model(x)[1])
    layer = nn.Linear(4, 4)
    model = to_batch_ensemble(nn.Sequential(layer, nn.ReLU(), nn.Sequential(layer), layer), 2, example=x)
    assert len(rank_one(model)) == 2
    torch.testing.assert_close(member(model, 1)(x), model(x)[1])


class Net(nn.Module):
    """A network of two layers around `between`; what `forward` does with them is the test's."""

    def __init__(self, between=None):
        super().__init__()
        self.first, self.between, self.last = nn.Linear(4, 4), between or nn.Identity(), nn.Linear(4, 2)
        self.spare = [self.last]

    def forward(self, x):
        return self.last(self.between(self.first(x)))


class Center(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Rows(nn.Module):
    """Reshapes over the batch: two rows become one, and back."""

    def forward(self, x):
        return x.view(2, -1, 4).transpose(0, 1).reshape(-1, 4)


class Sequences(nn.Module):
    """Steps first, rows second, through a layer that takes the first axis for rows."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(1, 1)

    def forward(self, x):
        return self.inner(x.mT[:, :, None]).squeeze(-1).mT


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return F.linear(x, self.inner.weight)


class Drops(nn.Module):
    def forward(self, x):
        return x[: max(len(x) // 2, 3)]


class Spare(Net):
    def forward(self, x):
        return self.spare[0](self.first(x))


class Mixing(Net):
    def forward(self, x):
        return self.last(self.first(x).cumsum(0))


@pytest.mark.parametrize(
    ("net", "name"),
    [
        (Net(Center()), "between (it mixes rows"),
        (Net(nn.Sequential(nn.ReLU(), nn.Softmax(0))), "between.1 (it mixes rows"),
        (Net(Rows()), "between (it mixes rows"),
        (Net(Sequences()), "between (it mixes rows"),
        (Net(Drops()), "between (it mixes rows of several members, or drops some)"),
        (Net(Functional()), "between ('BatchEnsembleLayer' object has no attribute 'weight')"),
        (Mixing(), "Mixing (it mixes rows"),
        (Spare(), "Spare (a converted layer is called without its rank-one factors"),
    ],
    ids=["mean", "softmax", "view", "sequence", "drops", "functional", "root", "list"],
)
@pytest.mark.parametrize("init", ["normal", "ones"])
def test_an_example_finds_the_module_that_mixes_members(net, name, init):
    with pytest.raises(InputError, match=re.escape(name)):
        to_batch_ensemble(net, 2, init=init, example=torch.rand(4, 4))


def test_what_bypasses_the_factors_is_never_ignored():
    """Without an example too: it fails when it runs."""
    with pytest.raises(InputError, match="called without its rank-one factors"):
        to_batch_ensemble(Spare(), 2)(torch.rand(3, 4))
    with pytest.raises(AttributeError, match="weight"):
        to_batch_ensemble(Net(Functional()), 2)(torch.rand(3, 4))


def test_rows_that_are_not_the_members_are_refused():
    with pytest.raises(InputError, match="5 rows are not those of 2 members"):
        to_batch_ensemble(nn.Linear(4, 4), 2).net(torch.rand(5, 4))


def test_an_example_that_does_not_fit_is_not_blamed_on_the_conversion():
    with pytest.raises(InputError, match=r"fails on the example, one member alone, in first \("):
        to_batch_ensemble(Net(), 2, example=torch.rand(3, 5))


def test_the_check_leaves_modes_and_statistics_alone():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    net[1].eval()
    model = to_batch_ensemble(net, 2, example=torch.rand(3, 4))
    assert [module.training for module in model.net] == [True, False, True, True]
    assert model.net[1].num_batches_tracked == 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"net": nn.Sequential(nn.ReLU())}, "Sequential has no convolution"),
        ({"members": 0}, "members 0 is not allowed"),
        ({"members": 1.5}, "members 1.5 is not allowed"),
        ({"init": "normall"}, "did you mean 'normal'"),
        ({"net": to_batch_ensemble(nn.Linear(4, 4), 2)}, "is a BatchEnsemble already"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        to_batch_ensemble(**{"net": nn.Linear(4, 4), "members": 2, **arguments})


@pytest.mark.parametrize("members", [2, 3])
def test_layers_that_run_in_threads_of_the_network_are_refused(members):
    """A thread does not know whose rows it is given, where members answer in turn."""

    class Threaded(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            with ThreadPoolExecutor(2) as pool:
                return sum(pool.map(lambda layer: layer(x), (self.first, self.second)))

    with pytest.raises(InputError, match="threads of its own"):
        to_batch_ensemble(Threaded(), members, example=torch.rand(6, 4))
