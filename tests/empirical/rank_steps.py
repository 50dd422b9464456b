"""What test_ranks.py has torchrun start: an epoch of float64 steps, whose losses and weights are saved."""

import os
import sys
from unittest import mock

import numpy as np
import torch

from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble, to_batch_ensemble
from divkd.empirical.training import ranks
from divkd.empirical.training.distillation import student_loss
from divkd.empirical.training.loop import run_epoch
from divkd.shared.seeds import rng

SIZES = (10, 7, 3, 2)  # of whole batches: cut evenly, unevenly, and too small for two processes


def network(member, frozen=True):
    """A ResNet-8 in float64, whose BatchNorm, where it is frozen, does not couple the rows of a batch."""
    net = build("resnet8", 5, (0.5,), (0.25,), rng(0, "net", member)).double()
    if frozen:
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
                module.train = lambda mode=True, module=module: module
    return net


def epoch(method, frozen=True):
    """The loss, the accuracy and the weights after an epoch of steps of a BatchEnsemble by `method`."""
    torch.set_num_threads(1)
    teachers = DeepEnsemble([network(member) for member in (1, 2)]).eval().requires_grad_(False)
    student = to_batch_ensemble(network(0, frozen), 2, 0)
    optimiser = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
    draw = np.random.default_rng(1)
    batches = [
        (torch.from_numpy(draw.random((size, 1, 8, 8))), torch.from_numpy(draw.integers(0, 5, size))) for size in SIZES
    ]
    mine, generator = ranks.own(batches, rng(0, "perturb"))
    loss = student_loss(method, teachers, 2.0, 0.9, 0.1)
    with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):  # the loss too in float64
        found = run_epoch(student, loss, optimiser, mine, generator, "float32")
    return *found, {name: value.detach() for name, value in student.state_dict().items()}


if __name__ == "__main__":
    with ranks.joined("cpu"):
        made = {method: epoch(method) for method in sys.argv[2].split(",")}
        if ranks.leads():
            torch.save(made, sys.argv[1])
        else:
            assert ranks.told() == ()
    os._exit(0)  # as divkd.cli.main ends
