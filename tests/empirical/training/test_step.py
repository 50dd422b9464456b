"""What a training step does, counted and timed: passes, parts, compiled code, layouts."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from training_runs import experiment, tiny

from divkd.empirical.analysis.profile import profile
from divkd.empirical.data.datasets import load
from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble, to_batch_ensemble
from divkd.empirical.training import execution
from divkd.empirical.training.clock import PARTS, Clock, each, profiling, span
from divkd.empirical.training.config import PRESETS
from divkd.empirical.training.distillation import student_loss
from divkd.empirical.training.execution import decided
from divkd.empirical.training.loop import run_epoch, sgd
from divkd.shared.errors import InputError
from divkd.shared.files import read_json
from divkd.shared.kinds import METHODS
from divkd.shared.run import Run
from divkd.shared.seeds import rng

MEMBERS = 3
X = torch.from_numpy(rng(0, "images").random((4, 1, 8, 8), dtype=np.float32))
Y = torch.arange(4)


def network(seed=0):
    return build("resnet8", 10, (0.5,), (0.25,), np.random.default_rng(seed))


# passes of the student's network, of each teacher on the images that are taught, of the teacher that moves them
PASSES = {"none": (1, 0, 0), "kd": (1, 1, 0), "gaussian": (2, 1, 0), "ods": (2, 1, 1), "confods": (2, 1, 1)}


@pytest.mark.parametrize("method", METHODS)
def test_a_step_passes_each_network_as_often_as_its_loss_needs_and_no_more(method):
    teachers = DeepEnsemble([network(seed) for seed in range(MEMBERS)]).eval().requires_grad_(False)
    student = to_batch_ensemble(network(9), MEMBERS)
    calls = {"student": 0, "student back": 0, "teacher": 0, "teacher back": 0}

    def count(name):
        def hook(_, __, output):
            calls[name] += 1
            if output.requires_grad:
                output.register_hook(lambda _: calls.update({f"{name} back": calls[f"{name} back"] + 1}))

        return hook

    student.net.register_forward_hook(count("student"))
    for net in teachers.nets:
        net.register_forward_hook(count("teacher"))
    loss = student_loss(method, teachers, 4.0, 0.9, 1 / 255)
    optimiser = sgd(student, PRESETS["smoke"].student, 0.9, 0.5)
    run_epoch(student, loss, optimiser, [(X, Y)], rng(0, "moves"), "float32")
    own, taught, moves = PASSES[method]
    assert calls == {"student": own, "student back": own, "teacher": MEMBERS * taught + moves, "teacher back": moves}
    assert all(parameter.grad is None for parameter in teachers.parameters())


def test_gradients_of_a_residual_network_keep_channels_last():
    net = network()
    layouts = []
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, output: output.register_hook(layouts.append) and None)
    F.cross_entropy(net(X.contiguous(memory_format=torch.channels_last)), Y).backward()
    assert len(layouts) == 7
    assert all(gradient.is_contiguous(memory_format=torch.channels_last) for gradient in layouts)


@pytest.mark.slow  # it compiles
@pytest.mark.skipif(not execution.has_compiler(), reason="no C++ compiler")
@pytest.mark.parametrize("members", [1, 2])
def test_a_compiled_step_is_the_eager_one(members):
    def gradients(compiled):
        net = to_batch_ensemble(network(), members).train()
        called = torch.compile(net, dynamic=False) if compiled else net
        F.cross_entropy(called(X).flatten(0, 1), Y.repeat(members)).backward()
        # as one vector: a factor before a norm has no gradient but rounding
        return torch.cat([parameter.grad.flatten() for parameter in net.parameters()])

    own, other = gradients(False), gradients(True)
    assert float((own - other).norm() / own.norm()) < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(not execution.has_compiler(), reason="no C++ compiler")
def test_a_run_that_compiles_learns_what_the_eager_one_learns(tmp_path):
    one = {"members": 1, "methods": ("kd",), "students": ("single",)}
    runs = [experiment(tiny(**one, compile=way), tmp_path / way) for way in ("off", "on")]
    assert runs[0]["rows"][-1]["nll"] == pytest.approx(runs[1]["rows"][-1]["nll"], rel=1e-2)


@pytest.mark.parametrize(
    ("words", "lower"),
    [
        (("AuthenticAMD", "avx512_bf16"), True),
        (("AuthenticAMD", "avx2"), False),
        (("GenuineIntel", "avx512_bf16"), False),  # measured to lose
        ((), False),
    ],
)
def test_auto_is_decided_once_by_what_the_machine_is(monkeypatch, words, lower):
    monkeypatch.setattr(execution, "_processor", lambda: list(words))
    config = dataclasses.replace(PRESETS["smoke"], precision="auto")
    chosen = decided(config)
    assert (chosen.precision, chosen.compile) == ("bfloat16" if lower else "float32", "off")
    assert decided(chosen) == chosen
    assert decided(PRESETS["cpu"]).precision == chosen.precision
    assert {one.precision for one in PRESETS.values() if one.preset.startswith("nam2021")} == {"float32"}


def test_what_the_machine_lacks_is_refused_in_a_line(monkeypatch):
    monkeypatch.setattr(execution, "has_bfloat16", lambda device: False)
    monkeypatch.setattr(execution, "has_compiler", lambda: False)
    for changes, mend in (({"precision": "bfloat16"}, "float32 or auto"), ({"compile": "on"}, "off or auto")):
        with pytest.raises(InputError, match=mend):
            decided(dataclasses.replace(PRESETS["smoke"], **changes))
    assert decided(PRESETS["views"], asked=False).precision == "float32"  # a preset runs everywhere


def test_a_span_within_another_takes_its_time_from_it(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr("divkd.empirical.training.clock.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    clock = Clock()
    with clock.span("forward"), clock.span("teachers"):
        pass
    assert clock.read(5.0) == {**dict.fromkeys(PARTS, 0.0), "forward": 2, "teachers": 1, "other": 2.0}
    assert not any(clock.read(0.0).values())


def test_without_a_profile_spans_do_nothing():
    with span("data"):
        assert list(each("data", range(3))) == [0, 1, 2]
    with profiling():
        assert list(each("data", range(3))) == [0, 1, 2]


def test_a_profile_accounts_for_every_second_and_changes_nothing(tmp_path):
    config = tiny(methods=("ods",), students=("single",))
    plain = experiment(config, tmp_path / "plain")
    watched = experiment(config, tmp_path / "watched", profile=True)
    assert [row["nll"] for row in plain["rows"]] == [row["nll"] for row in watched["rows"]]
    run = Run(tmp_path / "watched")
    content = profile(config, load(config.dataset, None, False, config.train_images), run)
    assert read_json(run.path / "profile.json") == content
    deep, student = content["rows"]
    assert (deep["model"], deep["epochs"], student["method"], student["epochs"]) == ("deep_ensemble", 6, "ods", 3)
    assert sum(student["seconds"].values()) == pytest.approx(watched["rows"][-1]["seconds"], rel=1e-3)
    assert deep["seconds"]["teachers"] == deep["seconds"]["perturbation"] == 0
    assert min(student["seconds"][part] for part in PARTS) > 0
    assert 0 < deep["share_of_limit"] < 1
    assert content["threads"] == 1  # as many as trained, whatever the machine has
