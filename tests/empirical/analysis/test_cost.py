"""What networks cost: passes against counted arithmetic, exact counts, memory known by hand; no time is judged."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from divkd.empirical.analysis.cost import (
    COUNTS,
    inference_cost,
    peak_activation_bytes,
    peak_training_bytes,
    training_passes,
    weight_bytes,
)
from divkd.empirical.networks.build import build, parameters
from divkd.empirical.networks.ensembles import DeepEnsemble, merge, to_batch_ensemble
from divkd.empirical.training.distillation import student_loss
from divkd.shared.errors import InputError
from divkd.shared.kinds import METHODS, STUDENTS

M = 4
SHAPE = (3, 16, 16)
TIMES = ("latency_s", "images_per_s")


def resnet(seed=0):
    return build("resnet8", 10, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), np.random.default_rng(seed))


def kinds():
    batch_ensemble = to_batch_ensemble(resnet(), M)
    return {
        "single": DeepEnsemble([resnet()]),
        "deep_ensemble": DeepEnsemble([resnet(seed) for seed in range(M)]),
        "batch_ensemble": batch_ensemble,
        "merged": DeepEnsemble([merge(batch_ensemble)]),
    }


@pytest.fixture(scope="module")
def rows():
    found = inference_cost(kinds(), SHAPE, batch=8, rounds=3, baseline="single")
    return {row["name"]: row for row in found}


def tiny(inplace=False):
    return DeepEnsemble([nn.Sequential(nn.Flatten(), nn.Linear(16, 100), nn.ReLU(inplace), nn.Linear(100, 7))])


class Flops(TorchDispatchMode):
    """torch's counts without its FlopCounterMode, whose hooks on modules do not bear autograd.grad."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=out) if count else 0
        return out


def flops(work):
    with Flops() as counter:
        work()
    return counter.total


# The published counts for a BatchEnsemble of 4.
@pytest.mark.parametrize(("method", "passes"), list(zip(METHODS, (12, 16, 28, 30, 30), strict=True)))
def test_passes_of_a_batch_ensemble_of_4(method, passes):
    assert training_passes("batch_ensemble", method, 4) == passes


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("student", STUDENTS)
def test_passes_are_the_arithmetic_of_the_loss(student, method):
    """Up to what no one computes: the gradient of the images, in the first convolution of each of the graphs."""
    net = DeepEnsemble([resnet()]) if student == "single" else to_batch_ensemble(resnet(), M)
    teachers = DeepEnsemble([resnet(seed) for seed in range(M)]).eval().requires_grad_(False)
    x, y = torch.rand(2, *SHAPE), torch.tensor([1, 2])
    loss = student_loss(method, teachers, 4.0, 0.9, 1 / 255)

    def step():
        for term, _ in loss(net, x, y, np.random.default_rng(0)):
            term.backward()

    one, stem = flops(lambda: teachers.nets[0](x)), flops(lambda: teachers.nets[0].stem(x))
    graphs = (1 if student == "single" else M) * (1 if method in ("none", "kd") else 2)
    assert flops(step) == training_passes(student, method, M) * one - graphs * stem


def test_a_deep_ensembles_passes_are_its_members():
    assert training_passes("deep_ensemble", "none", M) == M * training_passes("single", "none", 1) == 3 * M


@pytest.mark.parametrize("method", METHODS)
def test_one_member_costs_what_a_single_network_does(method):
    assert training_passes("batch_ensemble", method, 1) == training_passes("single", method, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("batch-ensemble", "kd", 4), "did you mean 'batch_ensemble'"),
        (("single", "odds", 4), "did you mean 'ods'"),
        (("deep_ensemble", "kd", 4), "a deep ensemble is not distilled by 'kd'"),
        (("single", "kd", 0), "members 0 is not allowed"),
        (("single", "kd", True), "members True is not allowed"),
    ],
)
def test_passes_of_what_is_not_trained_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        training_passes(*arguments)


def test_arithmetic_is_the_members(rows):
    single = rows["single"]["macs"]
    assert single == flops(lambda: resnet()(torch.rand(1, *SHAPE))) // 2
    assert {name: row["macs_ratio"] for name, row in rows.items()} == {
        "single": 1, "deep_ensemble": M, "batch_ensemble": M, "merged": 1
    }  # fmt: skip
    assert [row["members"] for row in rows.values()] == [1, M, M, 1]


def test_arithmetic_of_a_linear_network_is_its_products():
    (row,) = inference_cost({"tiny": tiny()}, (1, 4, 4), 3, 1, baseline="tiny")
    assert row["macs"] == 16 * 100 + 100 * 7


def test_weights_are_counted_exactly(rows):
    norms = [module for module in resnet().modules() if isinstance(module, nn.BatchNorm2d)]
    buffers = sum(4 * 2 * norm.num_features + 8 for norm in norms) + 4 * 2 * 3  # statistics, a count; mean and std
    assert rows["single"]["weight_bytes"] == rows["merged"]["weight_bytes"] == 4 * parameters(resnet()) + buffers
    assert rows["deep_ensemble"]["weight_bytes_ratio"] == M
    extra = 4 * (parameters(to_batch_ensemble(resnet(), M)) - parameters(resnet()))
    assert rows["batch_ensemble"]["weight_bytes"] == rows["single"]["weight_bytes"] + extra
    assert 1 < rows["batch_ensemble"]["weight_bytes_ratio"] < 1.06


def test_a_shared_weight_counts_once():
    layer = nn.Linear(5, 5)
    assert weight_bytes(nn.Sequential(layer, layer)) == weight_bytes(layer) == 4 * 30


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("batch", [1, 8])
def test_peak_memory_is_that_found_by_hand(batch, inplace):
    # Without inplace both sides of the ReLU are held; with it, hidden units and logits are. And a copy of the images.
    hand = 4 * batch * (16 + (100 + 7 if inplace else 200))
    assert peak_activation_bytes(tiny(inplace), torch.rand(batch, 1, 4, 4)) == hand


def test_peak_memory_frees_what_is_freed():
    deep = nn.Sequential(*[nn.Linear(50, 50) for _ in range(20)])
    assert peak_activation_bytes(deep, torch.rand(6, 50)) == 2 * 4 * 6 * 50


def test_peak_memory_sees_what_a_step_drops_at_once():
    class Drops(nn.Module):
        def forward(self, x):
            torch.zeros(1000)
            return x + 1

    assert peak_activation_bytes(Drops(), torch.rand(3)) == 4000


def test_views_of_the_input_and_in_place_steps_take_no_memory():
    class Looks(nn.Module):
        def forward(self, x):
            return x.flatten(1).add_(1)[None]

    assert peak_activation_bytes(Looks(), torch.rand(3, 2, 4, 4)) == 0


def test_members_that_answer_in_turn_hold_one_networks_activations(rows):
    assert rows["merged"]["peak_activation_bytes_ratio"] == 1
    logits = 4 * 8 * 10
    peak = {name: row["peak_activation_bytes"] - rows["single"]["peak_activation_bytes"] for name, row in rows.items()}
    assert peak["deep_ensemble"] == (M - 1) * logits  # of the members that have answered
    scaled = peak["batch_ensemble"] - (M - 1) * logits  # all layers' weights for all members
    assert 0 <= scaled < M * rows["single"]["weight_bytes"]


def test_members_that_answer_at_once_hold_all_their_activations():
    nets = kinds()
    one, all_at_once = (
        peak_activation_bytes(nets[name].eval(), torch.rand(2, *SHAPE)) for name in ("single", "batch_ensemble")
    )
    assert all_at_once >= M * one


def test_a_plain_networks_activations_grow_with_the_batch():
    net = resnet().eval()
    one, six = (peak_activation_bytes(net, torch.rand(batch, *SHAPE)) for batch in (1, 6))
    assert six == 6 * one


def test_counts_do_not_depend_on_the_order_of_the_networks(rows):
    nets = kinds()
    turned = inference_cost({name: nets[name] for name in reversed(nets)}, SHAPE, batch=8, rounds=1, baseline="single")
    assert [row["name"] for row in turned] == list(reversed(nets))
    keys = ["members", *COUNTS, *(f"{key}_ratio" for key in COUNTS)]
    assert {row["name"]: [row[key] for key in keys] for row in turned} == {
        name: [row[key] for key in keys] for name, row in rows.items()
    }


def test_the_baseline_is_one_and_every_time_has_its_rounds(rows):
    for name, row in rows.items():
        for key in itertools.chain(TIMES, (f"{key}_ratio" for key in TIMES)):
            low, high = row[key]["quartiles"]
            assert 0 < low <= row[key]["median"] <= high
            assert row[key]["n"] == 3
        assert row["baseline"] == "single"
        assert row["device"].startswith("cpu")
        if name == "single":
            assert [row[f"{key}_ratio"] for key in COUNTS] == [1] * len(COUNTS)
            assert all(row[f"{key}_ratio"] == {"median": 1, "quartiles": [1, 1], "n": 3} for key in TIMES)


def test_in_one_round_the_ratio_is_that_of_the_values():
    tiny_row, other = inference_cost({"tiny": tiny(), "other": tiny(True)}, (1, 4, 4), 2, 1, baseline="tiny")
    for key in TIMES:
        expected = other[key]["median"] / tiny_row[key]["median"]
        assert other[f"{key}_ratio"]["median"] == pytest.approx(expected)


def test_a_baseline_without_weights_leaves_no_ratio():
    nets = {"flat": DeepEnsemble([nn.Flatten()]), "tiny": tiny()}
    row = inference_cost(nets, (1, 4, 4), 2, 1, baseline="flat")[1]
    assert row["macs_ratio"] is row["weight_bytes_ratio"] is None
    assert row["latency_s_ratio"]["median"] > 0


@pytest.mark.parametrize(
    ("nets", "changes", "message"),
    [
        ({"tiny": tiny()}, {"baseline": "tinny"}, "did you mean 'tiny'"),
        ({"tiny": tiny()}, {"batch": 0}, "batch 0 is not allowed"),
        ({"tiny": tiny()}, {"rounds": 0}, "rounds 0 is not allowed"),
        ({"tiny": tiny().nets[0]}, {}, r"the logits of tiny are \(1, 7\)"),
    ],
)
def test_what_cannot_be_measured_is_refused(nets, changes, message):
    with pytest.raises(InputError, match=message):
        inference_cost(nets, (1, 4, 4), **{"batch": 2, "rounds": 1, "baseline": "tiny", **changes})


@pytest.mark.gpu
def test_cuda_counts_as_the_cpu_does_and_holds_no_less(rows):
    for row in inference_cost(kinds(), SHAPE, batch=8, rounds=2, device="cuda", baseline="single"):
        cpu = rows[row["name"]]
        assert [row[key] for key in ("members", "macs", "weight_bytes")] == [
            cpu[key] for key in ("members", "macs", "weight_bytes")
        ]
        assert row["peak_activation_bytes"] >= cpu["peak_activation_bytes"]


def test_a_training_step_holds_activations_and_gradients_at_once():
    net = nn.Linear(50, 4, bias=False)
    before = net.weight.clone()

    def loss(net, images, labels, generator):
        yield (net(images) ** 2).sum(), None

    held = peak_training_bytes(DeepEnsemble([net]), loss, torch.rand(6, 50), torch.zeros(6, dtype=torch.int64))
    assert held >= 4 * 50 * 4 + 4 * 6 * 4  # the weights' gradient beside the logits
    assert net.weight.equal(before)
    assert net.weight.grad is None


def test_a_perturbed_student_holds_one_graph_at_a_time():
    teachers = DeepEnsemble([resnet(seed) for seed in range(2)]).eval().requires_grad_(False)
    student, images, labels = DeepEnsemble([resnet(9)]), torch.rand(8, *SHAPE), torch.zeros(8, dtype=torch.int64)
    peaks = {
        method: peak_training_bytes(student, student_loss(method, teachers, 4.0, 0.9, 1 / 255), images, labels)
        for method in ("none", "kd", "gaussian", "ods")
    }
    assert peaks["none"] <= peaks["kd"]
    assert peaks["ods"] < 1.5 * peaks["kd"]
