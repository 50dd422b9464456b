"""Every mend in an error of a conversion, followed to the letter, mends."""

import numpy as np
import pytest
import torch
from handed_over import GOOD, X, plain, refusal
from torch import nn
from torch.nn.utils import parametrizations, prune

from divkd import distill, member, to_batch_ensemble


class Bank(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.table = nn.Parameter(torch.ones(shape))
        self.head = plain()

    def forward(self, x):
        return self.head(x) * self.table


class OwnForward(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


def hooked():
    net = plain()
    handle = net[1].register_forward_hook(lambda *_: None)
    return net, handle


def pruned():
    net = plain()
    prune.l1_unstructured(net[1], "weight", 0.5)
    return net


def unpruned():
    net = pruned()
    prune.remove(net[1], "weight")
    return net


def unnormed():
    net = plain()
    parametrizations.weight_norm(net[1])
    torch.nn.utils.parametrize.remove_parametrizations(net[1], "weight", leave_parametrized=True)
    return net


def lazy(run):
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(5))
    if run:
        net(X)
    return net


def shared():
    one, two = nn.Linear(192, 192), nn.Linear(192, 192)
    two.weight = one.weight
    return nn.Sequential(nn.Flatten(), one, two, nn.Linear(192, 5))


def used_twice():
    one = nn.Linear(192, 192)
    return nn.Sequential(nn.Flatten(), one, one, nn.Linear(192, 5))


def tracked(track):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6, track_running_stats=track), nn.Linear(6, 5))


class Closure(nn.Module):
    def __init__(self, kept):
        super().__init__()
        self.a = nn.Linear(192, 5)
        self.parts = nn.ModuleList([self.a]) if kept else [self.a]

    def forward(self, x):
        return self.parts[0](x.flatten(1))


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        ("run one batch through the network first", lambda: lazy(False), lambda: lazy(True)),
        ("remove that, keeping the weight", pruned, unpruned),
        ("remove that, keeping the weight", lambda: parametrizations.weight_norm(plain()[1]), unnormed),
        (
            "use a plain Linear",
            lambda: nn.Sequential(nn.Flatten(), OwnForward(192, 5)),
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5)),
        ),
        ("remove them before the conversion", lambda: hooked()[0], lambda: [(p := hooked())[1].remove(), p[0]][1]),
        ("track them", lambda: tracked(False), lambda: tracked(True)),
        (
            "build it of linear layers",
            lambda: nn.Sequential(nn.Flatten(), nn.Bilinear(192, 192, 5)),
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5)),
        ),
        ("a leading axis of 1", lambda: Bank(8, 5), lambda: Bank(1, 5)),
        ("give each its own weight, or use one module twice", shared, used_twice),
        ("give one that has", lambda: nn.Sequential(nn.Flatten()), plain),
        ("member(net, 0)", lambda: to_batch_ensemble(plain(), 2), lambda: member(to_batch_ensemble(plain(), 2), 0)),
        ("give it an nn.ModuleList", lambda: Closure(False), lambda: Closure(True)),
        ("the network is None; give an nn.Module", lambda: None, plain),
    ],
)
def test_conversions(words, wrong, right):
    assert words in refusal(lambda: to_batch_ensemble(wrong(), 2, example=X))
    model = to_batch_ensemble(right(), 2, example=X).eval()
    assert model(X).shape == (2, 8, 5)


@pytest.mark.parametrize("members", [True, 0, "2", None, 2.0])
def test_counts_are_whole_numbers(members):
    assert "give a whole number from 1" in refusal(lambda: to_batch_ensemble(plain(), members))
    assert to_batch_ensemble(plain(), np.int64(2)).members == 2


def test_a_network_that_keeps_a_graph_cannot_be_copied_until_it_detaches():
    class Keeping(nn.Sequential):
        detached = False

        def forward(self, x):
            z = super().forward(x)
            self.kept = z.detach() if self.detached else z
            return z

    net = Keeping(*plain())
    net(X)
    assert "detach() the tensors that it keeps" in refusal(lambda: to_batch_ensemble(net, 2))
    assert "detach()" in refusal(lambda: distill([plain(1)], net, GOOD, 1, "kd"))
    net.detached = True
    net(X)
    assert distill([plain(1)], net, GOOD, 1, "kd")
