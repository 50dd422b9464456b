"""Shared weights with rank-one factors in the limit: the dense network with actual factors converges to it."""

import dataclasses

import numpy as np
import pytest

from divkd.theory import descent
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import training_samples
from divkd.theory.engines.rankone import Factors, Part, RankOneNetworks, coefficients_of

WORLD = MultiViewConfig(classes=2, patches=8, train_samples=10, expected_others=1.0, neurons=2, init_scale=0.4)
SAMPLES = training_samples(WORLD, 0)
CLEAN = coefficients_of(SAMPLES, 4)
LOSS = descent.cross_entropy(SAMPLES.labels)


def created(factors, world=WORLD, memory=None):
    return RankOneNetworks(world, SAMPLES, factors, 0, memory)


def moved_patches():
    """Perturbed coefficients, with two columns of other patches' noise, and these columns (N P, 2)."""
    generator = np.random.default_rng(5)
    more = 0.2 * generator.standard_normal((*CLEAN.shape[:2], 2), np.float32)
    shifted = CLEAN + 0.1 * generator.standard_normal(CLEAN.shape, np.float32)
    return np.concatenate([shifted, more], 2), 0.3 * generator.standard_normal((CLEAN.size // 4, 2), np.float32)


def dense_gap(d, factors, steps=3):
    """RMS difference of outputs, clean and perturbed, after `steps` of descent in d dimensions and in the limit."""
    generator, (coefficients, memory) = np.random.default_rng(d), moved_patches()
    networks = created(factors, memory=memory)
    width, entries = networks.shared.shape[1], CLEAN.size // 4
    views = np.linalg.qr(generator.standard_normal((d, 4)))[0].T  # randomly rotated
    noise = WORLD.noise * generator.standard_normal((entries, d)) / d**0.5
    r = factors.mean + factors.sd * generator.standard_normal((factors.members, d))
    w = WORLD.init_scale * generator.standard_normal((width, d))
    scales = networks.scales.astype(np.float64)
    clean = CLEAN.reshape(entries, 4) @ views + noise
    rows = coefficients.reshape(entries, 6).astype(np.float64)
    perturbed = rows[:, :4] @ views + noise + rows[:, 4:] @ (memory.T @ noise) / WORLD.noise**2
    networks.shared = (views @ w.T).astype(np.float32)
    own = (r - factors.mean) / factors.sd
    networks.private = np.stack([(views * one) @ w.T for one in own]).astype(np.float32)
    networks.noise = np.stack([(noise * one) @ w.T for one in r]).astype(np.float32)

    def answers(x):
        u = np.stack([(x * one) @ w.T for one in r])
        z = scales[:, None] * u
        values = WORLD.logit_scale * (np.clip(z, 0, 1) ** 3 / 3 + np.maximum(z - 1, 0))
        return u, z, values.reshape(len(r), len(SAMPLES), -1, 2, 2).sum((2, 4))

    for _ in range(steps):
        outputs, u = networks.forward(CLEAN)
        answered, there = networks.forward(coefficients)
        parts = [Part(CLEAN, u, LOSS(outputs)[1]), Part(coefficients, there, LOSS(answered)[1])]
        time, gradient, pull = networks.step(parts, 1e9), 0.0, 0.0
        for x in (clean, perturbed):
            u, z, found = answers(x)
            slopes = np.repeat(np.repeat(LOSS(found)[1], 8, axis=1), 2, axis=2)
            c = WORLD.logit_scale / (len(SAMPLES) * len(r)) * slopes * np.clip(z, 0, 1) ** 2
            gradient += sum((s[:, None] * one.T) @ (x * factor) for s, one, factor in zip(scales, c, r, strict=True))
            pull += (c * u).sum(1)
        w -= time * gradient
        scales -= time * factors.rate * pull
    gaps = [networks.forward(of)[0] - answers(x)[2] for of, x in ((CLEAN, clean), (coefficients, perturbed))]
    return float(np.sqrt(np.mean(np.square(gaps)))), float(np.std(networks.forward(CLEAN)[0]))


def test_the_dense_network_with_actual_factors_converges_to_the_limit():
    factors = Factors(2, 1.0, 0.5, rate=0.5)
    (near, size), (far, _) = dense_gap(16_000, factors), dense_gap(500, factors)
    assert near < 0.03 * size
    assert near < 0.5 * far  # 32 times the dimensions: about 0.18 of the error


def test_input_factors_drive_neurons_at_the_rate_of_the_start_alone():
    d = 40_000
    w, x, other = np.random.default_rng(0).standard_normal((3, d)) * np.array([[0.1], [d**-0.5], [d**-0.5]])
    assert (w * x) @ (w * x) == pytest.approx(0.1**2 * (x @ x), rel=0.05)
    assert abs((w * x) @ (w * other)) < 5 * 0.1**2 / d**0.5


def stepped(factors, slopes, steps=1):
    networks = created(factors)
    before = networks.coordinates
    for _ in range(steps):
        _, u = networks.forward(CLEAN)
        networks.step([Part(CLEAN, u, slopes.copy())], 1e9)
    return networks.coordinates - before


@pytest.mark.parametrize(("mean", "sd", "share"), [(1.0, 0.5, 0.8), (1.0, 2.0, 0.2), (0.0, 1.0, 0.0)])
def test_what_one_member_is_taught_moves_the_others_by_the_kernels_share(mean, sd, share):
    slopes = np.zeros((2, len(SAMPLES), 2), np.float32)
    slopes[0] = -1
    taught, beside = stepped(Factors(2, mean, sd), slopes)
    assert np.abs(taught).max() > 0.01
    assert beside == pytest.approx(share * taught, abs=1e-6)


def test_without_spread_members_are_one_network():
    together, single = created(Factors(3, 1.0, 0.0)), created(Factors())
    for _ in range(5):
        times = []
        for networks in (together, single):
            outputs, u = networks.forward(CLEAN)
            times.append(networks.step([Part(CLEAN, u, LOSS(outputs)[1])], 1e9))
        assert times[0] == pytest.approx(times[1], rel=1e-4)
    found = together.forward(CLEAN)[0]
    assert (found[0] == found[2]).all()
    assert found[0] == pytest.approx(single.forward(CLEAN)[0][0], abs=1e-4)


def test_aligned_signs_gate_every_feature():
    networks = created(Factors(4, 0.0, 1.0, aligned=True, rate=0.5), dataclasses.replace(WORLD, neurons=3))
    assert set(np.unique(networks.gates)) == {-1.0, 1.0}
    assert (np.abs(networks.coordinates) == np.abs(networks.shared)).all()
