"""Both engines on the same networks: the same start, one law of how they part, and less of it as d grows."""

import dataclasses

import numpy as np
import pytest

from divkd.shared.jobs import Workers
from divkd.shared.progress import Progress
from divkd.shared.run import open_run
from divkd.theory import descent
from divkd.theory.data import training_samples
from divkd.theory.engines import dense, limit
from divkd.theory.worlds import convergence
from divkd.theory.worlds.config import ConvergenceConfig

TINY = ConvergenceConfig(seeds=(0, 1), members=2, dimension=1600, classes=3, patches=14, train_samples=40,
                         expected_others=1.0, neurons=3, init_scale=0.01, trust=0.1, distill_time=0)  # fmt: skip


def test_engines_start_from_the_same_network_and_the_dense_one_from_the_limits_tickets_in_any_dimension():
    for d in TINY.dimensions:
        world = TINY.world(d)
        samples = training_samples(world, 0)
        full = dense.create(world, samples, 0, [0, 1])
        exact = convergence.in_limit(world, samples, full)
        np.testing.assert_allclose(exact.outputs(), full.outputs(), rtol=1e-4)
        assert np.array_equal(full.coordinates, limit.create(world, samples, 0, [0, 1]).weights)


def test_the_overlaps_that_are_foreseen_are_those_of_patches_as_vectors():
    """Weights moved by hand along features and patches' noise; outputs on new noise, in 20,000 dimensions."""
    world = dataclasses.replace(TINY.world(20_000), train_samples=14, init_scale=1e-4, noise=0.7)
    samples = training_samples(world, 0)
    full = dense.create(world, samples, 0, [0])
    start = convergence.in_limit(world, samples, full)
    generator = np.random.default_rng(0)
    moved = np.zeros((9, world.dimension), np.float32)
    moved[:, :6] = generator.uniform(0, 6, (9, 6))
    outside = generator.standard_normal((9, world.dimension - 6), np.float32)
    moved[:, 6:] = 3 * outside / np.linalg.norm(outside, axis=1, keepdims=True)
    end = start.copy([0])
    end.weights += moved[:, :6].reshape(end.weights.shape)
    memory = generator.standard_normal(end.noise.shape).astype(np.float32)
    memory *= 3 * world.noise / np.linalg.norm(memory, axis=-1, keepdims=True)
    end.noise += memory  # as large as what the vectors moved by
    foreseen = convergence.predicted(world, samples, start, limit.LimitNetworks(world, samples, end.weights, end.noise))
    without = limit.LimitNetworks(world, samples, end.weights, start.noise)
    there = dense.DenseNetworks(world, full.patches, full._weights + dense.torch.from_numpy(moved))
    assert convergence._rms(there.outputs() - without.outputs()) == pytest.approx(foreseen, rel=0.1)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    run = open_run(tmp_path_factory.mktemp("run") / "run", "simulate convergence", dataclasses.asdict(TINY))
    return convergence.run_convergence(TINY, run, Workers(Progress(quiet=True)))


def test_engines_approach_each_other_as_predicted(results):
    summary = [results["summary"][str(d)] for d in TINY.dimensions]
    rmse = [one["rmse"]["mean"] for one in summary]
    assert rmse[2] < rmse[1] < rmse[0]
    assert results["slopes"]["rmse"]["mean"] < -0.45
    assert summary[2]["same_views"]["mean"] > max(0.9, summary[0]["same_views"]["mean"])
    assert rmse[2] == pytest.approx(summary[2]["predicted"]["mean"], rel=0.4)
    assert summary[2]["limit_views"]["mean"] > 0.3  # the race is over, so that agreement means something
    assert summary[2]["steps"]["mean"] < rmse[2]


def test_a_student_of_either_engine_is_compared(tmp_path):
    config = dataclasses.replace(TINY, seeds=(0,), dimension=320, distill_time=50.0)
    run = open_run(tmp_path / "run", "simulate convergence", dataclasses.asdict(config))
    found = convergence.run_convergence(config, run, Workers(Progress(quiet=True)))
    assert {"student_rmse", "student_same_views"} <= found["summary"]["320"].keys()
    assert "student_rmse" in found["slopes"]


def test_descent_is_what_it_was_without_products_that_move_along():
    """<w, x> of a network in the midst of its descent, from scratch."""
    world = TINY.world(200)
    samples = training_samples(world, 0)
    full = dense.create(world, samples, 0, [0])
    for step in descent.descend(full, descent.cross_entropy(samples.labels), max_steps=999, flow_time=100.0):
        assert step.number < 999
    np.testing.assert_allclose(full.products[0], full.patches @ full._weights[0].T, rtol=1e-3, atol=1e-4)
