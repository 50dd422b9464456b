"""A trained network that is converted keeps what it knows; the commands' students start as in the paper."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from divkd import merge, predict, to_batch_ensemble
from divkd.empirical.networks.ensembles import rank_one
from divkd.empirical.training.students import STUDENTS

DIGITS = load_digits()
X, Y = torch.tensor(DIGITS.images / 16, dtype=torch.float32)[:, None], torch.tensor(DIGITS.target)


def convolutions():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)
    )


def perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


@pytest.mark.parametrize("make", [convolutions, perceptron])
def test_a_trained_network_keeps_its_accuracy_and_its_members_differ(make):
    torch.manual_seed(0)
    net = make()
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for x, y in [(X[i : i + 60], Y[i : i + 60]) for _ in range(4) for i in range(0, 1200, 60)]:
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    net.eval()

    def right(model):
        return float((predict(model, X[1200:]).classes == Y[1200:].numpy()).mean())

    for seed in range(3):
        model = to_batch_ensemble(net, 4, seed)
        assert abs(right(model) - right(net)) <= 0.01
        assert abs(right(merge(model)) - right(net)) <= 0.01
        assert predict(model, X[1200:]).mutual_information.mean() > 1e-5


def test_the_students_of_a_run_start_as_in_the_paper():
    net = perceptron()
    mine, theirs = to_batch_ensemble(net, 2, init="normal"), STUDENTS["batch_ensemble"].create(net, 2, 0)
    assert all(torch.equal(a, b) for a, b in zip(rank_one(mine), rank_one(theirs), strict=True))
