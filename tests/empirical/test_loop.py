"""The loop: its arithmetic, its resume, its schedule, and what it does when the loss is lost."""

import contextlib
import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from divkd.empirical import loop
from divkd.empirical.config import PRESETS, Schedule, TrainConfig
from divkd.empirical.data import Augmentation, Split
from divkd.empirical.datasets import load
from divkd.empirical.distillation import reused, student_loss
from divkd.empirical.ensembles import DeepEnsemble, rank_one, to_batch_ensemble
from divkd.empirical.experiment import run_training, summary
from divkd.empirical.loop import train
from divkd.empirical.losses import cross_entropy
from divkd.empirical.networks import build
from divkd.empirical.perturb import perturb
from divkd.shared.errors import InputError, RunError
from divkd.shared.progress import Progress
from divkd.shared.run import open_run

QUIET = Progress(quiet=True)


def tiny(**changes):
    smoke = PRESETS["smoke"]
    short = dataclasses.replace(smoke.teacher, epochs=3)
    base = {"members": 2, "teacher": short, "student": short, "train_images": 130, "methods": ("confods",)}
    return dataclasses.replace(smoke, **{**base, **changes})


def experiment(config, path, **flags):
    data = load(config.dataset, None, False, config.train_images)
    run = open_run(path, "train cifar", dataclasses.asdict(config), extendable=("seeds", "members", "methods"), **flags)
    results = run_training(config, data, run, QUIET)
    run.finish(results)
    return results


def weights(path):
    return {file.name: file.read_bytes() for file in (path / "checkpoints").glob("*.safetensors")}


def rows(results):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in results["rows"]]


def arrays(path):
    """Every checkpoint's arrays, bytes for bytes (the headers hold seconds, which differ)."""
    return {
        f"{file.stem}/{key}": value.tobytes()
        for file in sorted((path / "checkpoints").glob("*.safetensors"))
        for key, value in load_file(file).items()
    }


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code catches it."""


@pytest.mark.parametrize("moment", [2, 7, 17])
def test_a_run_killed_anywhere_resumes_to_the_same_bits(tmp_path, monkeypatch, moment):
    """Killed inside optimiser step `moment` (of a teacher's second epoch, another's third, a student's first)."""
    config = tiny(train_images=100)
    whole = experiment(config, tmp_path / "whole")
    steps, step = iter(range(1000)), torch.optim.SGD.step

    def interrupted(self, *args, **kwargs):
        if next(steps) == moment:
            raise Killed
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", interrupted)
        with pytest.raises(Killed):
            experiment(config, tmp_path / "killed")
    resumed = experiment(config, tmp_path / "killed", resume=True)
    assert arrays(tmp_path / "whole") == arrays(tmp_path / "killed")
    assert rows(whole) == rows(resumed)


def test_more_members_and_methods_train_only_what_is_missing(tmp_path, monkeypatch):
    experiment(tiny(), tmp_path / "run")
    before = weights(tmp_path / "run")
    trained = []
    monkeypatch.setattr(loop, "_epoch", lambda *args, _epoch=loop._epoch: (trained.append(1), _epoch(*args))[1])
    results = experiment(tiny(members=3, methods=("confods", "none")), tmp_path / "run", resume=True)
    after = weights(tmp_path / "run")
    assert all(after[name] == content for name, content in before.items())
    # One teacher, the BatchEnsembles of 3 by both methods, the single networks from 3: 3 epochs each.
    assert len(trained) == 3 * 5
    sizes = [row["members"] for row in results["rows"] if row["model"] == "deep_ensemble"]
    assert sizes == [1, 2, 3]


def test_a_teacher_is_the_same_bits_whatever_the_number_of_members(tmp_path):
    few, many = tmp_path / "few", tmp_path / "many"
    experiment(tiny(members=1, students=()), few)
    experiment(tiny(members=3, students=()), many)
    assert weights(few).keys() <= weights(many).keys()
    assert {k: v for k, v in arrays(many).items() if k.startswith("seed0-teacher0")} == arrays(few)


def test_the_first_step_is_sgd_by_hand(tmp_path):
    """One step from rest: w - lr (grad + decay w), for plain weights; w - lr/2 grad, for rank-one factors."""
    torch.manual_seed(0)
    data = load("digits", None, False, 64)
    schedule = Schedule(1, 64, 0.1, 0.01, (0, 0.5, 1.0))
    net = to_batch_ensemble(build("resnet8", 10, data.mean, data.std, np.random.default_rng(0)), 2, seed=0)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    gradients = {}

    def loss(net, x, y, _):
        logits = net(x)
        value = cross_entropy(logits, y)
        for (name, _), g in zip(
            net.named_parameters(), torch.autograd.grad(value, list(net.parameters()), retain_graph=True), strict=True
        ):
            gradients[name] = g
        yield value, logits

    run = open_run(tmp_path / "run", "test", {})
    settings = {"momentum": 0.9, "rank_one_lr": 0.5, "seed": 0, "role": "student", "member": 0}
    train(net, loss, data.train, Augmentation(0, False), schedule, **settings, name="x", run=run, progress=QUIET)
    factors = {id(factor) for factor in rank_one(net)}
    lr = 0.1 * schedule.factor(1)
    for name, after in net.named_parameters():
        w, g = before[name], gradients[name]
        expected = w - lr / 2 * g if id(after) in factors else w - lr * (g + 0.01 * w)
        torch.testing.assert_close(after.detach(), expected, rtol=1e-5, atol=1e-6)


def test_divergence_stops_names_the_epoch_and_keeps_the_last_good_checkpoint(tmp_path):
    data = load("digits", None, False, 64)
    net = DeepEnsemble([build("resnet8", 10, data.mean, data.std, np.random.default_rng(0))])
    run = open_run(tmp_path / "run", "test", {})
    epochs = iter([1.0, 1.0, math.nan])

    def loss(net, x, y, _):
        logits = net(x)
        yield cross_entropy(logits, y) * next(epochs), logits

    schedule = Schedule(5, 64, 0.1, 0, (0, 0.5, 1.0))
    settings = {"momentum": 0.9, "rank_one_lr": 0.5, "seed": 0, "role": "teacher", "member": 0}
    with pytest.raises(RunError, match=r"diverged in epoch 3.*--lr below 0\.1"):
        train(net, loss, data.train, Augmentation(0, False), schedule, **settings, name="x", run=run, progress=QUIET)
    kept, header = run.load("x")
    assert header["epoch"] == 2
    assert all(np.isfinite(value).all() for value in kept.values())


def test_weights_lost_in_the_last_step_are_divergence_too(tmp_path):
    """A learning rate of 1e30 leaves a finite first loss and weights that nothing can be computed with."""
    config = tiny(members=1, methods=(), train_images=60)
    one = dataclasses.replace(config.teacher, epochs=1, lr=1e30)
    with pytest.raises(RunError, match="diverged"):
        experiment(dataclasses.replace(config, teacher=one), tmp_path / "run")


@pytest.mark.parametrize(
    "damage",
    [
        lambda arrays, header: (arrays, {**header, "epoch": "x"}),
        lambda arrays, header: (arrays, {**header, "epoch": 99}),
        lambda arrays, header: ({**arrays, "nets.0.stem.weight": np.zeros(3, np.float32)}, header),
        lambda arrays, header: ({}, header),
        lambda arrays, header: (arrays, {**header, "epoch": 1}),  # unfinished, yet without momentum
    ],
)
def test_a_checkpoint_of_something_else_is_damaged(tmp_path, damage):
    config = tiny(members=1, students=())
    experiment(config, tmp_path / "run")
    run = open_run(tmp_path / "run", "train cifar", dataclasses.asdict(config), resume=True)
    run.save("seed0-teacher0", *damage(*run.load("seed0-teacher0")))
    results = (tmp_path / "run" / "results.json").read_bytes()
    with pytest.raises(InputError, match=r"seed0-teacher0\.safetensors is damaged"):
        experiment(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "results.json").read_bytes() == results


def student_and_teachers(members=2):
    plain = [build("resnet8", 10, (0.5,), (0.25,), np.random.default_rng(seed)) for seed in range(members + 1)]
    teachers = DeepEnsemble(plain[1:]).eval().requires_grad_(False)
    return to_batch_ensemble(plain[0], members, seed=0).train(), teachers


@pytest.mark.parametrize("method", ["none", "kd", "ods", "confods", "gaussian"])
def test_the_students_loss_is_the_papers(method):
    """0.1 CE on clean images + 0.9 t^2 KL(T_m || S_m) on moved ones, written out pair by pair; none: CE alone."""
    student, teachers = student_and_teachers()
    config = dataclasses.replace(PRESETS["smoke"], temperature=3.0, kd_weight=0.9, step_size=0.1)
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 3, 9, 9])
    twin = copy.deepcopy(student)
    terms = list(student_loss(config, method, teachers, 10)(student, x, y, np.random.default_rng(5)))
    value, logits = sum(term for term, _ in terms), terms[0][1]

    clean = twin(x)
    torch.testing.assert_close(logits, clean)
    moved, answers = x, clean
    if method not in ("none", "kd"):
        moved = perturb(method, x, teachers, 10, 3.0, 0.1, np.random.default_rng(5))
        answers = twin(moved)
    ce = kd = 0.0
    for m in range(2):
        for b in range(4):
            ce -= torch.log_softmax(clean[m, b], -1)[y[b]] / 8
            p = torch.softmax(teachers.nets[m](moved)[b] / 3, -1)
            kd += 9 * (p * (p.log() - torch.log_softmax(answers[m, b] / 3, -1))).sum() / 8
    torch.testing.assert_close(value, ce if method == "none" else 0.1 * ce + 0.9 * kd, rtol=1e-4, atol=1e-5)
    # BatchNorm saw the clean batch, then the moved one, through the student alone.
    passes = 1 if method in ("none", "kd") else 2
    assert student.net.bn.num_batches_tracked == passes
    torch.testing.assert_close(student.net.bn.running_mean, twin.net.bn.running_mean)
    assert all(net.bn.num_batches_tracked == 0 for net in teachers.nets)


def test_the_temperature_is_fitted_on_the_validation_split(tmp_path):
    """Other validation labels change the temperature; other test labels do not."""
    config = tiny(members=1, students=())
    data = load("digits", None, False, config.train_images)
    run = open_run(tmp_path / "run", "train cifar", dataclasses.asdict(config))
    temperatures = []
    for validation, test in ((0, 0), (1, 0), (0, 1)):
        moved = dataclasses.replace(
            data,
            validation=Split(data.validation.images, (data.validation.labels + validation) % 10),
            test=Split(data.test.images, (data.test.labels + test) % 10),
        )
        temperatures.append(run_training(config, moved, run, QUIET)["rows"][0]["temperature"])
    assert temperatures[0] != temperatures[1]
    assert temperatures[0] == temperatures[2]


def test_the_schedule_is_the_published_one():
    """[5, 100, 180] of 200 epochs: warm-up from 1 %, full rate, linear decay, 1 %."""
    schedule = Schedule(200, 512, 0.4, 4e-4, (0.025, 0.5, 0.9))
    published = {1: 0.01, 2: 0.2575, 4: 0.7525, 5: 1.0, 99: 1.0, 100: 1.0, 140: 0.505, 180: 0.01, 200: 0.01}
    for epoch, factor in published.items():
        assert schedule.factor(epoch) == pytest.approx(factor)


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


def test_validation_chooses_the_best_of_the_epochs_that_are_looked_at_and_survives_a_kill(tmp_path, monkeypatch):
    """Epoch 1, every 25th and the last n; the first of equals; a resumed run chooses the same."""
    data = load("digits", None, False, 64)
    schedule = Schedule(6, 64, 0.1, 4e-4, (0, 0.5, 1.0), choose_last=3)
    assert [epoch for epoch in range(1, 101) if Schedule(100, 1, 1, 0, (0, 1, 1), 3).looks_at(epoch)] == [
        1, 25, 50, 75, 98, 99, 100
    ]  # fmt: skip
    scores = {1: 0.1, 4: 0.8, 5: 0.8, 6: 0.5}
    settings = {"momentum": 0.9, "rank_one_lr": 0.5, "seed": 0, "role": "teacher", "member": 0}

    def label(net, x, y, _):
        logits = net(x)
        yield cross_entropy(logits, y), logits

    def run_it(path, epochs, resume=False):
        net = DeepEnsemble([build("resnet8", 10, data.mean, data.std, np.random.default_rng(0))])
        run = open_run(path, "test", {}, resume=resume)
        seen = []

        def score(net):
            seen.append({name: value.clone() for name, value in net.state_dict().items()})
            return scores[[1, 4, 5, 6][len(seen) - 1 + first]]

        first = 0 if not resume else 2  # epochs 1 and 4 were looked at before the kill

        save = run.save

        def save_and_die(name, arrays, header):
            save(name, arrays, header)
            if header["epoch"] == epochs:
                raise Killed

        monkeypatch.setattr(run, "save", save_and_die)
        with contextlib.suppress(Killed):
            train(net, label, data.train, Augmentation(0, False), schedule, **settings, name="x", run=run,
                  progress=QUIET, score=score)  # fmt: skip
        return net, seen, run

    net, seen, run = run_it(tmp_path / "whole", 99)
    assert len(seen) == 4
    for name, value in net.state_dict().items():
        assert torch.equal(value, seen[1][name])
    kept, header = run.load("x")
    assert (header["chosen"], header["score"], header["epoch"]) == (4, 0.8, 6)
    run_it(tmp_path / "killed", 4)
    again, _, resumed = run_it(tmp_path / "killed", 99, resume=True)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in again.state_dict().items())
    found, header = resumed.load("x")
    assert header["chosen"] == 4
    assert all(np.array_equal(found[name], kept[name]) for name in kept)


def test_students_of_another_runs_teachers_are_those_of_a_run_that_trains_them(tmp_path):
    own = experiment(tiny(methods=("kd",)), tmp_path / "own")
    experiment(tiny(students=()), tmp_path / "teachers")
    config = tiny(methods=("kd",), teachers=str(tmp_path / "teachers"))
    reused = experiment(config, tmp_path / "students")
    strip = [[{k: v for k, v in row.items() if k != "seconds"} for row in found["rows"]] for found in (own, reused)]
    assert strip[0] == strip[1]
    assert not list((tmp_path / "students" / "checkpoints").glob("*teacher*"))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"members": 3}, "no finished seed0-teacher2"), ({"seeds": (5,)}, "no finished seed5-teacher0"),
     ({"train_images": 60}, "train_images 64 and this run 60")],
)  # fmt: skip
def test_teachers_that_are_not_there_are_refused_before_anything_is_trained(tmp_path, change, words):
    experiment(tiny(members=2, train_images=64, students=()), tmp_path / "teachers")
    config = tiny(**{"members": 2, "train_images": 64, **change}, teachers=str(tmp_path / "teachers"))
    with pytest.raises(InputError, match=words):
        reused(config)


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


def test_a_perturbed_student_holds_one_graph_at_a_time():
    """The clean graph is freed by its backward pass, before the perturbed forward pass makes the next."""
    student, teachers = student_and_teachers()
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 3, 9, 9])
    config = dataclasses.replace(PRESETS["smoke"], kd_weight=0.9)
    alive = peak = 0

    class Held:
        def __init__(self, tensor):
            nonlocal alive, peak
            self.tensor = tensor
            alive += tensor.numel()
            peak = max(peak, alive)

        def __del__(self):
            nonlocal alive
            alive -= self.tensor.numel()

    peaks = {}
    for method in ("kd", "confods"):
        alive = peak = 0
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            for value, _ in student_loss(config, method, teachers, 10)(student, x, y, np.random.default_rng(5)):
                value.backward()
                del value
        peaks[method] = peak
    assert peaks["confods"] < 1.2 * peaks["kd"]


@pytest.mark.slow
def test_smoke_preset_learns_the_digits(tmp_path):
    """Teachers fit, ensembling helps or does not hurt much, and every student is far above chance."""
    results = experiment(PRESETS["smoke"], tmp_path / "run")
    by = {(row["model"], row["method"], row["members"]): row for row in results["rows"]}
    assert by["deep_ensemble", "none", 1]["train_acc"] > 0.98
    assert all(row["acc"] > 0.9 for row in results["rows"])
