"""Presets, schedules, precision, the merged network, and what a step holds in memory."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from training_runs import experiment, loss_of, tiny

from divkd.empirical.data.datasets import load
from divkd.empirical.networks.build import architecture, build
from divkd.empirical.networks.ensembles import DeepEnsemble, to_batch_ensemble
from divkd.empirical.training.config import PRESETS, Schedule, TrainConfig
from divkd.empirical.training.distillation import merged
from divkd.empirical.training.experiment import summary
from divkd.shared.errors import InputError


def test_the_schedule_is_the_published_one():
    """[5, 100, 180] of 200 epochs: warm-up from 1 %, full rate, linear decay, 1 %."""
    schedule = Schedule(200, 512, 0.4, 4e-4, (0.025, 0.5, 0.9))
    published = {1: 0.01, 2: 0.2575, 4: 0.7525, 5: 1.0, 99: 1.0, 100: 1.0, 140: 0.505, 180: 0.01, 200: 0.01}
    for epoch, factor in published.items():
        assert schedule.factor(epoch) == pytest.approx(factor)


WIDE = ((300, 256, 0.2, 5e-4, (5, 150, 270), 30), (300, 64, 0.05, 5e-4, (5, 150, 270), 30))
PUBLISHED = {  # epochs, images a batch, rate, decay, [warm-up, hold, decay], looked at, of teacher and student; t
    "nam2021-cifar10-resnet32": ((200, 512, 0.4, 4e-4, (5, 100, 180), 25), (250, 128, 0.1, 4e-4, (5, 125, 225), 25), 4),
    "nam2021-cifar100-wrn28x10": (*WIDE, 1),
    "nam2021-cifar100-wrn28x5": (*WIDE, 1),
    "nam2021-tinyimagenet-wrn28x10": (*WIDE, 1),
    "nam2021-tinyimagenet-wrn28x5": (*WIDE, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_papers_presets_are_its_protocols(name):
    config, (teacher, student, temperature) = PRESETS[name], PUBLISHED[name]
    config.validate()
    assert (config.temperature, config.kd_weight, config.step_size) == (temperature, 0.9, 1 / 255)
    crop = 8 if config.dataset == "tinyimagenet" else 4
    assert (config.crop, config.flip, config.train_images, config.momentum) == (crop, True, None, 0.9)
    for schedule, (epochs, batch, lr, decay, (p, q, s), last) in ((config.teacher, teacher), (config.student, student)):
        found = (schedule.epochs, schedule.batch_size, schedule.lr, schedule.weight_decay, schedule.choose_last)
        assert found == (epochs, batch, lr, decay, last)
        looks = [1, *range(last, epochs - last, last), *range(epochs - last, epochs + 1)]  # VALID_FREQUENCY and _FINALE
        assert [epoch for epoch in range(1, epochs + 1) if schedule.looks_at(epoch)] == looks
        for epoch in range(1, epochs + 1):
            if epoch < p:
                factor = 0.01 + 0.99 * (epoch - 1) / (p - 1)
            elif epoch < q:
                factor = 1.0
            elif epoch < s:
                factor = 1.0 - 0.99 * (epoch - q) / (s - q)
            else:
                factor = 0.01
            assert schedule.factor(epoch) == pytest.approx(factor, abs=1e-12)


PARAMETERS = {  # of the published presets: million parameters of four teachers, and of the BatchEnsemble of four
    "nam2021-cifar10-resnet32": (10, 1.86, 0.47),
    "nam2021-cifar100-wrn28x10": (100, 146.15, 36.62),
    "nam2021-cifar100-wrn28x5": (100, 146.15, 9.20),
    "nam2021-tinyimagenet-wrn28x10": (200, 146.40, None),  # not in the paper: its students there are WRN-28-5
    "nam2021-tinyimagenet-wrn28x5": (200, 146.40, 9.23),
}


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("nam2021")])
def test_teachers_and_students_of_the_papers_presets_have_its_sizes(name):
    config, (classes, teachers, student) = PRESETS[name], PARAMETERS[name]

    def net(network):
        with torch.device("meta"):
            return architecture(network, classes, (0.5,) * 3, (0.25,) * 3)

    assert config.members == 4
    deep = DeepEnsemble([net(config.teacher_network or config.network) for _ in range(config.members)])
    batch = to_batch_ensemble(net(config.network), config.members)
    assert round(sum(p.numel() for p in deep.parameters()) / 1e6, 2) == teachers
    assert student in (None, round(sum(p.numel() for p in batch.parameters()) / 1e6, 2))


def test_merging_averages_the_members_and_takes_its_own_statistics(tmp_path):
    """A row of its own; equal members merge into the member itself, but for statistics of clean training images."""
    results = experiment(tiny(methods=("kd", "ods"), students=("batch_ensemble",)), tmp_path / "run")
    kinds = [(row["model"], row["method"]) for row in results["rows"] if row["model"] != "deep_ensemble"]
    assert kinds == [(model, method) for method in ("kd", "ods") for model in ("batch_ensemble", "merged")]
    single = next(row["params"] for row in results["rows"] if row["members"] == 1)
    assert {row["params"] for row in results["rows"] if row["model"] == "merged"} == {single}

    data = load("digits", None, False, 130)
    plain = build("resnet8", 10, data.mean, data.std, np.random.default_rng(0))
    one = merged(to_batch_ensemble(plain, 2, init="ones"), data)
    twin = DeepEnsemble([copy.deepcopy(plain)])
    means = []

    def keep(module, inputs):
        means.append(inputs[0].mean((0, 2, 3)))

    handle = twin.nets[0].bn.register_forward_pre_hook(keep)
    twin.train()(data.train.images.float() / 255)
    handle.remove()
    torch.testing.assert_close(one.nets[0].bn.running_mean, means[0])
    for name, value in one.nets[0].named_parameters():
        torch.testing.assert_close(value, plain.get_parameter(name))


@pytest.mark.slow
def test_a_step_of_the_wide_networks_student_saves_at_most_8_gb():
    """ConfODS, 4 members: activations grow with the images, so two small batches give the line of a batch of 64."""
    config = PRESETS["nam2021-cifar100-wrn28x10"]
    nets = [build("wrn28x10", 100, (0.5,) * 3, (0.25,) * 3, np.random.default_rng(seed)) for seed in range(4)]
    teachers = DeepEnsemble(nets).eval().requires_grad_(False)
    student = to_batch_ensemble(nets[0].train(), 4).requires_grad_(True).train()
    own = {p.untyped_storage().data_ptr() for p in (*student.parameters(), *student.buffers(), *teachers.parameters())}
    peaks = []
    for images in (1, 2):
        alive, peak = {}, 0

        def pack(tensor, alive=alive):
            nonlocal peak
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                alive[storage.data_ptr()] = storage.nbytes()
                peak = max(peak, sum(alive.values()))
            return tensor

        x, y = torch.rand(images, 3, 32, 32), torch.zeros(images, dtype=torch.int64)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            terms = loss_of(config, "confods", teachers)(student, x, y, np.random.default_rng(5))
            for value, _ in terms:
                value.backward()
                alive.clear()  # the backward pass frees what its graph saved
        peaks.append(peak)
    whole = peaks[0] + 63 * (peaks[1] - peaks[0])
    assert 3e9 < whole <= 8e9


def test_a_configuration_survives_json():
    config = PRESETS["cpu"]
    assert TrainConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    whole = dataclasses.asdict(config)
    for broken in (
        {"members": 2},
        {**whole, "teacher": {}},
        {"memebers": 2},
        {**whole, "members": 2.5},
        {**whole, "lr": 1},
    ):
        with pytest.raises(InputError):
            TrainConfig.from_dict(broken)


def test_summary_is_mean_and_sample_deviation_over_seeds():
    base = dict.fromkeys(("acc", "nll", "brier", "ece", "temperature", "cal_nll", "cal_brier", "cal_ece"), 1.0)
    base |= {"pairwise_kl": 0.0, "train_acc": 1.0, "params": 5, "seconds": 1.0}
    table = [
        {**base, "model": "single", "method": "kd", "members": 1, "seed": seed, "acc": acc}
        for seed, acc in ((0, 0.4), (1, 0.6))
    ]
    (line,) = summary(table)
    assert line["acc"] == {"mean": 0.5, "std": pytest.approx(0.1414, abs=1e-4), "n": 2}
    assert summary(table[:1])[0]["acc"]["std"] is None


def test_a_small_student_learns_from_larger_teachers(tmp_path):
    results = experiment(tiny(methods=("kd",), teacher_network="resnet14"), tmp_path / "run")
    count = {(row["model"], row["members"]): row["params"] for row in results["rows"]}
    assert count["deep_ensemble", 1] > 2 * count["single", 1]


def test_bfloat16_computes_in_it_and_keeps_weights_and_statistics_in_float32(tmp_path):
    seen = []
    original = torch.nn.functional.conv2d

    def spy(x, weight, *rest):
        out = original(x, weight, *rest)
        seen.append(out.dtype)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "conv2d", spy)
        experiment(tiny(members=2, methods=("ods",), precision="bfloat16"), tmp_path / "run")
    assert torch.bfloat16 in seen  # in training
    assert torch.float32 in seen  # in evaluation
    saved = [load_file(file) for file in (tmp_path / "run" / "checkpoints").iterdir()]
    assert {value.dtype.name for found in saved for value in found.values()} == {"float32", "int64"}


@pytest.mark.slow
def test_smoke_preset_learns_the_digits(tmp_path):
    """Teachers fit and disagree: an ensemble and distillation help, and every student is far above chance."""
    results = experiment(PRESETS["smoke"], tmp_path / "run")
    by = {(row["model"], row["method"], row["members"]): row for row in results["rows"]}
    assert by["deep_ensemble", "none", 1]["train_acc"] > 0.98
    assert all(row["acc"] > (0.5 if row["model"] == "merged" else 0.7) for row in results["rows"])
    nll = {key: row["cal_nll"] for key, row in by.items()}
    assert nll["deep_ensemble", "none", 4] < nll["deep_ensemble", "none", 1]
    for student, rows in (("batch_ensemble", 4), ("single", 1)):
        assert nll[student, "kd", rows] < nll[student, "none", rows]
