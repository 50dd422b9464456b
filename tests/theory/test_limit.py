import dataclasses
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from divkd.shared.seeds import rng
from divkd.theory import data, descent
from divkd.theory.data import NOISE, fresh_samples, training_samples
from divkd.theory.engines import dense, limit


def srelu(u, q):
    return np.clip(u, 0, 1) ** q / q + np.maximum(u - 1, 0)


def reference_outputs(config, samples, weights, g):
    """F by the definition, in float64, one sample, class, neuron and patch axis each; g is (M, k, m, N, P)."""
    a = weights.astype(np.float64)[:, :, :, np.maximum(samples.feature, 0)]
    u = np.where(samples.feature == NOISE, 0, samples.weight) * a + g
    return config.logit_scale * srelu(u, config.power).sum((2, 4)).transpose(0, 2, 1)


def unsorted(networks, samples):
    """g in the order (N, P)."""
    flat = np.empty_like(networks.noise, dtype=np.float64)
    flat[..., networks.layout.order] = networks.noise
    return flat.reshape(*networks.noise.shape[:3], *samples.feature.shape)


@pytest.fixture
def small(tiny):
    return dataclasses.replace(tiny, train_samples=40, init_scale=0.4, members=2)


@pytest.mark.parametrize("power", [2, 3, 4, 5])
def test_outputs_are_the_definition(small, power):
    config = dataclasses.replace(small, power=power)
    samples = training_samples(config, 0)
    networks = limit.create(config, samples, 0, [0, 1])
    expected = reference_outputs(config, samples, networks.weights, unsorted(networks, samples))
    np.testing.assert_allclose(networks.outputs(), expected, rtol=2e-5)


@pytest.mark.parametrize("power", [2, 3, 4])
def test_with_feature_noise_a_step_is_the_gradient_of_the_definition(small, power):
    """F and its derivatives by features' coordinates and by g, in float64 from X; u stays X a + g."""
    config = dataclasses.replace(small, power=power, feature_noise=0.2)
    samples = training_samples(config, 0)
    networks = limit.create(config, samples, 0, [0])
    shown = np.where(samples.feature == NOISE, 0, samples.weight)[..., None] * (
        samples.feature[..., None] == np.arange(2 * config.classes)
    )
    shown = (shown + samples.mixed).astype(np.float64)  # (N, P, 2k)
    assert 0 <= samples.mixed.min() < 0.01
    assert 0.19 < samples.mixed.max() <= 0.2

    def inner(a):
        return np.einsum("mirf,npf->mirnp", a, shown)

    def outputs(a, g):
        return config.logit_scale * srelu(inner(a) + g, config.power).sum((2, 4)).transpose(0, 2, 1)

    def u():
        return networks.noise.reshape(*networks.noise.shape[:3], *samples.feature.shape).astype(np.float64)

    loss, a = descent.cross_entropy(samples.labels), networks.weights.astype(np.float64)
    g = u() - inner(a)
    np.testing.assert_allclose(networks.outputs(), outputs(a, g), rtol=2e-5)
    eta = float(networks.step(loss(networks.outputs())[1], np.full(1, np.inf))[0])
    moved = networks.weights - a
    moved_g = u() - inner(networks.weights.astype(np.float64)) - g
    np.testing.assert_allclose(networks.outputs(), outputs(a + moved, g + moved_g), rtol=2e-5)
    generator = np.random.default_rng(0)
    for start, by, scale in ((a, moved, 1.0), (g, moved_g, config.noise**2)):
        for _ in range(3):
            direction = generator.standard_normal(start.shape)
            ends = [
                loss(outputs(a + sign * direction, g) if start is a else outputs(a, g + sign * direction))[0].mean()
                for sign in (1e-5, -1e-5)
            ]
            slope = (ends[0] - ends[1]) / 2e-5
            assert (by * direction).sum() == pytest.approx(-eta * scale * slope, rel=2e-3, abs=2e-6 * eta)


def test_no_feature_noise_is_the_limit_of_little(tiny):
    """The engine for feature noise ends where the blocks do as gamma vanishes; fresh samples are told alike."""
    ends = []
    for gamma in (0.0, 1e-7):
        config = dataclasses.replace(tiny, feature_noise=gamma)
        samples, tests = training_samples(config, 0), fresh_samples(config, 0, "multi")
        networks = limit.create(config, samples, 0, range(2))
        assert isinstance(networks, limit.MixedNetworks) == (gamma > 0)
        list(descent.descend(networks, descent.cross_entropy(samples.labels), max_steps=5000, flow_time=3e4))
        outputs = limit.fresh_outputs(config, networks.weights, tests, 0, "multi", range(2))
        ends.append((descent.strengths(networks.weights, config.classes), outputs))
    np.testing.assert_allclose(ends[0][0], ends[1][0], rtol=0.05, atol=0.02)
    assert np.abs(ends[0][1] - ends[1][1]).mean() < 0.02 * np.abs(ends[0][1]).mean()


@pytest.mark.parametrize("power", [2, 3, 4])
def test_a_step_is_the_gradient_of_the_loss_by_finite_differences(small, power):
    config = dataclasses.replace(small, power=power)
    samples = training_samples(config, 0)
    networks = limit.create(config, samples, 0, [0])
    weights, g = networks.weights.astype(np.float64), unsorted(networks, samples)
    loss = descent.cross_entropy(samples.labels)

    def value(weights, g):
        return loss(reference_outputs(config, samples, weights, g))[0].mean()

    slopes = loss(networks.outputs())[1]
    eta = float(networks.step(slopes, np.full(1, np.inf))[0])
    moved, moved_g = networks.weights - weights, unsorted(networks, samples) - g
    generator = np.random.default_rng(0)
    for _ in range(3):
        direction = generator.standard_normal(weights.shape)
        slope = (value(weights + 1e-5 * direction, g) - value(weights - 1e-5 * direction, g)) / 2e-5
        assert (moved * direction).sum() == pytest.approx(-eta * slope, rel=1e-3, abs=1e-6 * eta)
        direction = generator.standard_normal(g.shape) * (samples.feature != NOISE)  # the others move lazily
        slope = (value(weights, g + 1e-5 * direction) - value(weights, g - 1e-5 * direction)) / 2e-5
        # every coordinate g moves by nu^2 times its own derivative
        assert (moved_g * direction).sum() == pytest.approx(-eta * config.noise**2 * slope, rel=1e-3, abs=1e-6 * eta)


def test_outputs_are_those_of_the_state_and_lag_behind_by_no_more_than_their_tolerance(small):
    config = dataclasses.replace(small, init_scale=0.05, noise=2.0)
    samples = training_samples(config, 0)
    loss = descent.cross_entropy(samples.labels)
    networks = limit.create(config, samples, 0, [0])
    lagged = 0.0
    for _ in range(60):
        networks.step(loss(networks.outputs())[1], np.full(1, np.inf))
        exact = reference_outputs(config, samples, networks.weights, unsorted(networks, samples))
        np.testing.assert_allclose(networks.outputs(), exact, rtol=1e-4, atol=1e-5)
        before = networks.outputs().copy()
        networks.settle([0])
        lagged = max(lagged, np.abs(networks.outputs() - before).max())
        np.testing.assert_allclose(networks.outputs(), before, rtol=1e-2, atol=1e-2)
    assert lagged > 0  # something was left for later


def test_a_fresh_sample_meets_normal_noise_of_the_initial_weights_norm(small):
    """Mean and standard deviation of F over 200 networks' noise are those of the definition with noise of its own."""
    tests = fresh_samples(dataclasses.replace(small, test_samples=5), 0, "multi")
    weights = limit.create(small, training_samples(small, 0), 0, [0]).weights
    outputs = limit.fresh_outputs(small, np.repeat(weights, 200, 0), tests, 0, "multi", range(200))
    shape = (200, *weights.shape[1:3], *tests.feature.shape)
    noise = small.init_scale * small.noise * np.random.default_rng(0).standard_normal(shape)
    expected = reference_outputs(small, tests, weights, noise)
    error = expected.std(0) / 10  # of a mean of 200, and of their difference
    assert np.all(np.abs(outputs.mean(0) - expected.mean(0)) < 4 * error)
    np.testing.assert_allclose(outputs.std(0).mean(), expected.std(0).mean(), rtol=0.05)


def test_blocks_that_fresh_samples_do_not_hear_are_left_out_and_the_others_meet_the_same_noise(tiny, monkeypatch):
    samples, tests = training_samples(tiny, 0), fresh_samples(tiny, 0, "multi")  # of which none is undecided
    networks = limit.create(tiny, samples, 0, range(2))
    start = networks.weights.copy()
    list(descent.descend(networks, descent.cross_entropy(samples.labels), max_steps=5000))

    def answers(weights, numbers):
        drawn = []
        monkeypatch.setattr(limit, "rng", lambda *key: drawn.append(key) or rng(*key))
        return limit.fresh_outputs(tiny, weights, tests, 0, "multi", numbers), len(drawn)

    outputs, few = answers(networks.weights, [5, 6])
    beside, _ = answers(np.concatenate([networks.weights, start]), [5, 6, 5, 6])
    assert np.array_equal(beside[:2], outputs)  # whatever else the noise is drawn for
    monkeypatch.setattr(limit, "UNHEARD", -1.0)
    whole, every = answers(networks.weights, [5, 6])
    assert few < 0.25 * every == 0.25 * start[..., 0].size * (tiny.features + 1)
    assert 0 < np.abs(outputs - whole).max() < 1e-4


def test_descent_with_lazy_blocks_ends_where_it_ends_with_every_block_in_every_step(tiny, monkeypatch):
    samples = training_samples(tiny, 0)
    loss = descent.cross_entropy(samples.labels)
    ends = []
    for share, output in ((limit.LAZY_SHARE, limit.LAZY_OUTPUT), (1e-9, 1e-9)):
        monkeypatch.setattr(limit, "LAZY_SHARE", share)
        monkeypatch.setattr(limit, "LAZY_OUTPUT", output)
        networks = limit.create(tiny, samples, 0, range(3))
        *_, last = descent.descend(networks, loss, max_steps=5000, flow_time=3e4)
        assert last.times == pytest.approx(3e4)
        ends.append((descent.strengths(networks.weights, tiny.classes), networks.outputs().copy()))
    (strengths, outputs), (exact, exact_outputs) = ends
    assert exact.max() > 1  # the race is over
    np.testing.assert_allclose(strengths, exact, rtol=0.05, atol=0.01)
    assert np.abs(outputs - exact_outputs).mean() < 0.02 * np.abs(exact_outputs).mean()


def test_a_step_stays_inside_its_trust_region(tiny):
    samples = training_samples(tiny, 0)
    networks = limit.create(tiny, samples, 0, range(3))
    loss = descent.cross_entropy(samples.labels)
    for _ in range(80):
        networks.settle(range(3))  # what lagged behind would come on top
        before, noise = networks.weights.copy(), networks.noise.copy()
        networks.step(loss(networks.outputs())[1], np.full(3, np.inf))
        networks.settle(range(3))
        clamp = np.clip(np.abs(before), tiny.init_scale, tiny.trust_cap)
        assert np.max(np.abs(networks.weights - before) / clamp) <= tiny.trust * (1 + 1e-3)
        assert np.max(np.abs(networks.noise - noise)) <= tiny.trust / tiny.noise_trust * (1 + 1e-3)


def test_members_without_remaining_time_or_gradient_stand_still(tiny):
    samples = training_samples(tiny, 0)
    networks = limit.create(tiny, samples, 0, range(3))
    before = networks.weights.copy()
    times = networks.step(np.ones((3, len(samples), 4)), np.array([0.0, 1e-3, np.inf]))
    assert times[0] == 0
    assert times[1] == np.float32(1e-3)
    assert np.array_equal(networks.weights[0], before[0])
    assert not np.array_equal(networks.weights[1], before[1])
    assert not networks.step(np.zeros((3, len(samples), 4)), np.full(3, np.inf)).any()


def test_time_passes_for_a_member_that_hardly_moves_or_not_at_all(tiny, monkeypatch):
    """Where no block is due in all the time that remains, one step takes it, and what was pending is not lost."""
    config = dataclasses.replace(tiny, init_scale=0.3)
    samples = training_samples(config, 0)
    slopes = np.zeros((2, len(samples), 4))
    slopes[0] = 1e-5
    moved = []
    for share in (limit.LAZY_SHARE, 1e-9):
        monkeypatch.setattr(limit, "LAZY_SHARE", share)
        networks = limit.create(config, samples, 0, range(2))
        networks.step(slopes, np.full(2, 1e-3))  # every block moves in the first step
        before = networks.weights.copy()
        assert networks.step(slopes, np.full(2, 5.0)).tolist() == [5.0, 5.0]
        assert np.array_equal(networks.weights, before) == (share > 1e-9)
        networks.settle(range(2))
        moved.append(networks.weights - before)
    assert np.abs(moved[0][0]).max() > 1e-6
    np.testing.assert_allclose(moved[0][0], moved[1][0], atol=1e-7)
    assert not moved[0][1].any()


def trained(config, members):
    samples = training_samples(config, 0)
    networks = limit.create(config, samples, 0, members)
    *_, last = descent.descend(networks, descent.cross_entropy(samples.labels), max_steps=config.max_steps)
    return networks.weights, networks.noise, networks.outputs().copy(), last.times


def test_a_member_alone_equals_the_same_member_beside_others_bit_for_bit(tiny):
    beside = trained(tiny, [0, 1, 2])
    alone = trained(tiny, [1])
    for many, one in zip(beside, alone, strict=True):
        assert np.array_equal(many[1], one[0])


def test_bits_do_not_depend_on_the_number_of_threads():
    code = (
        "import hashlib, dataclasses; from divkd.theory import descent; from divkd.theory.engines import limit;"
        "from divkd.theory.data import *;"
        "from divkd.theory.config import PRESETS;"
        "c = dataclasses.replace(PRESETS['quick'], train_samples=100, members=3); s = training_samples(c, 0);"
        "n = limit.create(c, s, 0, range(3)); l = descent.cross_entropy(s.labels);"
        "list(zip(range(60), descent.descend(n, l, max_steps=1000)));"
        "print(hashlib.sha256(n.weights.tobytes() + n.noise.tobytes()).hexdigest())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "NUMBA_NUM_THREADS": str(threads)},
            capture_output=True, text=True, check=True,
        ).stdout
        for threads in (1, 2)
    }  # fmt: skip
    assert len(hashes) == 1


@pytest.mark.parametrize("gamma", [0.0, 0.01])
def test_the_dense_engine_approaches_the_limit_as_d_grows(gamma):
    """Both engines start from the same products <w, v> and <w, xi>; they part by what d leaves of the overlaps."""
    from divkd.theory.config import PRESETS

    base = dataclasses.replace(
        PRESETS["default"], classes=3, patches=8, train_samples=60, neurons=3, expected_others=1.0, own_patches=2,
        members=1, engine="dense", init_scale=0.01, trust=0.1,
        feature_noise=gamma,
    )  # fmt: skip
    samples = training_samples(base, 0)
    loss = descent.cross_entropy(samples.labels)
    distances = []
    for dimension in (30, 150, 1000):
        config = dataclasses.replace(base, dimension=dimension)
        full = dense.create(config, samples, 0, [0])
        patches = full.patches.numpy().copy()
        filled = samples.feature.ravel() != NOISE
        weights = full.weights
        coordinates = weights[..., : 2 * config.classes].copy()
        if gamma:  # these start from <w, x>
            exact = limit.MixedNetworks(config, samples, coordinates, np.ascontiguousarray(weights @ patches.T))
        else:
            patches[np.flatnonzero(filled), samples.feature.ravel()[filled]] -= samples.weight.ravel()[filled]
            layout = data.Layout.of(samples, 2 * config.classes)
            products = np.ascontiguousarray((weights @ patches.T)[..., layout.order])
            exact = limit.LimitNetworks(config, samples, coordinates, products)
        pair = []
        for networks in (full, exact):
            *_, last = descent.descend(networks, loss, max_steps=5000, flow_time=1000.0)
            assert last.times[0] == pytest.approx(1000.0)
            pair.append(descent.strengths(networks.weights, config.classes))
        distances.append(np.abs(pair[0] - pair[1]).mean())
    assert pair[1].max() > 1  # the race is over, so that agreement means something
    assert distances[2] < distances[1] < distances[0]
    assert distances[2] < 0.15, distances


@pytest.mark.gpu  # the limit engine is the CPU's alone
def test_the_dense_engine_moves_alike_on_a_gpu(tiny):
    weights, patches = [], []
    for device in ("cpu", "cuda"):
        config = dataclasses.replace(tiny, engine="dense", dimension=500, noise=0.2, init_scale=0.01, device=device)
        samples = training_samples(config, 0)
        networks = dense.create(config, samples, 0, range(config.members))
        list(itertools.islice(descent.descend(networks, descent.cross_entropy(samples.labels), max_steps=99), 30))
        weights.append(networks.weights)
        patches.append(networks.patches.cpu().numpy())
    assert np.array_equal(*patches)
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-3, atol=1e-4)
