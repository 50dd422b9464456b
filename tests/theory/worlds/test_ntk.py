"""The tangent-kernel world: the kernel is that of the network's gradients, the closed form is where descent ends."""

import dataclasses
import json

import numpy as np
import pytest

from divkd.shared.jobs import Workers
from divkd.shared.progress import Progress
from divkd.shared.run import open_run
from divkd.theory.data import NOISE, fresh_samples, training_samples
from divkd.theory.worlds import ntk
from divkd.theory.worlds.config import NtkConfig

TINY = NtkConfig(seeds=(0,), members=3, students=2, classes=3, patches=12, train_samples=40, test_samples=60,
                 expected_others=1.0)  # fmt: skip


def simulated(config, path, **flags):
    run = open_run(path, "simulate ntk", dataclasses.asdict(config), extendable=("seeds", "members"), **flags)
    return ntk.run_ntk(config, run, Workers(Progress(quiet=True)))


@pytest.fixture(scope="module")
def drawn():
    """Samples, targets and the kernels of four networks of the tiny world."""
    world = TINY.world()
    sets = {"train": training_samples(world, 0), "single_view": fresh_samples(world, 0, "single")}
    targets = (np.arange(3) == sets["train"].labels[:, None]) - 1 / 3
    return sets, targets, [ntk.kernel(world, sets, 0, number) for number in range(4)]


def test_the_kernel_is_the_product_of_gradients_in_many_dimensions():
    """Patches with their noise, as vectors of d = 20,000, and the network's gradients by their definition."""
    world, d = dataclasses.replace(TINY, train_samples=14, noise=0.7, init_scale=0.5).world(), 20_000
    samples, generator = training_samples(world, 1), np.random.default_rng(0)
    start = world.init_scale * generator.standard_normal((world.neurons, d))
    patches = generator.standard_normal((14, world.patches, d)) * world.noise / d**0.5
    n, p = np.nonzero(samples.feature != NOISE)
    noise_part = patches @ start.T
    patches[n, p, samples.feature[n, p]] += samples.weight[n, p]
    slopes = np.clip(patches @ start.T, 0, 1) ** (world.power - 1)  # of sReLU
    gradients = np.einsum("npr,npd->nrd", slopes, patches).reshape(14, -1)

    class Drawn:
        """In place of a generator: the products of that noise."""

        def standard_normal(self, shape, _):
            return (noise_part / (world.init_scale * world.noise)).reshape(shape)

    found, memory = ntk.features(world, start[:, :6], samples, Drawn())
    expected = gradients @ gradients.T
    assert found @ found.T + np.diag(memory) == pytest.approx(expected, abs=0.05 * expected.diagonal().mean())


def test_the_closed_form_is_where_gradient_descent_ends(drawn):
    _, targets, (own, *_) = drawn
    outputs = ntk.fit(own, targets, ridge=0.3)
    for i, square in enumerate(own["train"]):
        shift = 0.3 * np.trace(square) / len(square)
        # w - w(0) = sum_n alpha_n phi(X_n): each step moves alpha by the slopes of the loss
        alpha, rate = np.zeros(len(square)), 1 / (np.linalg.eigvalsh(square)[-1] + shift)
        for _ in range(3000):
            alpha -= rate * (square @ alpha - targets[:, i] + shift * alpha)
        assert square @ alpha == pytest.approx(outputs["train"][:, i], abs=1e-8)
        assert own["single_view"][i] @ alpha == pytest.approx(outputs["single_view"][:, i], abs=1e-8)


def test_the_fit_is_linear_in_its_targets_and_blind_to_the_scale_of_outputs(drawn):
    _, targets, (own, other, *_) = drawn
    taught = [ntk.fit(other, part, 0.1) for part in (targets, own["train"][:3].sum(1).T, targets[::-1])]
    mean = ntk.fit(other, (targets + own["train"][:3].sum(1).T + targets[::-1]) / 3, 0.1)
    for of in mean:  # a student of the mean is the mean of the students
        assert mean[of] == pytest.approx(np.mean([one[of] for one in taught], 0), abs=1e-9)
        scaled = ntk.fit({key: 7 * one for key, one in own.items()}, targets, 0.1)
        assert scaled[of] == pytest.approx(ntk.fit(own, targets, 0.1)[of], abs=1e-9)


def test_without_a_ridge_samples_are_fitted_and_a_student_learns_what_labels_teach(drawn):
    _, targets, (own, other, *_) = drawn
    teacher = ntk.fit(own, targets, 1e-9)
    assert teacher["train"] == pytest.approx(targets, abs=1e-5)
    by_teacher, by_labels = (ntk.fit(other, of, 1e-9)["single_view"] for of in (teacher["train"], targets))
    assert by_teacher == pytest.approx(by_labels, abs=1e-4)


def test_one_member_is_its_ensemble_and_its_joint_average(tmp_path):
    found = simulated(dataclasses.replace(TINY, members=1), tmp_path / "run")["summary"]
    assert found["single"] == found["ensemble"] == found["trained_jointly_average"]
    assert found["distilled"] == found["self_distilled"]


def test_the_order_of_members_changes_nothing(drawn):
    sets, targets, kernels = drawn
    joint = [
        ntk.fit({of: sum(one[of] for one in some) for of in sets}, targets, 0.1) for some in (kernels, kernels[::-1])
    ]
    assert joint[0]["single_view"] == pytest.approx(joint[1]["single_view"], abs=1e-9)
    again = ntk.kernel(TINY.world(), sets, 0, 2)
    assert all(np.array_equal(again[of], kernels[2][of]) for of in sets)


def test_more_seeds_go_on_from_what_is_there(tmp_path):
    whole = simulated(dataclasses.replace(TINY, seeds=(0, 1)), tmp_path / "whole")
    simulated(TINY, tmp_path / "part")
    grown = simulated(dataclasses.replace(TINY, seeds=(0, 1)), tmp_path / "part", resume=True)
    for results in (whole, grown):
        del results["seconds"]
    assert json.dumps(whole) == json.dumps(grown)


def test_an_ensemble_helps_and_distillation_does_not(tmp_path):
    found = simulated(NtkConfig(seeds=(300,), students=2, train_samples=300), tmp_path / "run")
    for of in ("multi_view", "single_view"):
        errors = {kind: one[of]["mean"] for kind, one in found["summary"].items()}
        assert errors["ensemble"] < errors["single"] / 2
        assert errors["distilled"] > (errors["single"] + errors["ensemble"]) / 2
