"""The dense engine where features are not orthogonal."""

import dataclasses

import numpy as np
import pytest
import torch

from divkd.shared.errors import InputError
from divkd.theory import descent, experiment
from divkd.theory.data import training_samples
from divkd.theory.engines import dense


@pytest.fixture
def coherent(tiny):
    return dataclasses.replace(
        tiny, engine="dense", dimension=40, coherence=0.15, feature_noise=0.05, train_samples=40, init_scale=0.1
    )


@pytest.mark.parametrize("views", [2, 3])
def test_features_are_unit_vectors_of_that_coherence_and_both_signs(coherent, views):
    config = dataclasses.replace(coherent, views=views, coherence=0.1)
    basis = dense.basis_of(config, 0)
    gram = basis @ basis.T
    others = gram[~np.eye(config.features, dtype=bool)]
    np.testing.assert_allclose(np.diag(gram), 1)
    np.testing.assert_allclose(np.abs(others), 0.1)
    assert 0.2 < (others > 0).mean() < 0.8
    assert not np.array_equal(basis, dense.basis_of(config, 1))


def test_a_step_is_that_of_weights_and_patches_in_space(coherent):
    """Weights and patches put together from the features, and their gradient by autograd."""
    samples, features = training_samples(coherent, 0), coherent.features
    networks = dense.create(coherent, samples, 0, [0])
    basis = torch.from_numpy(dense.basis_of(coherent, 0))

    def weights():
        held = torch.from_numpy(networks.weights[0]).double().flatten(0, 1)
        held[:, :features] = torch.linalg.solve(basis, held[:, :features].T).T
        return held

    patches = networks.patches.double()
    patches[:, :features] = patches[:, :features] @ basis
    start = weights().requires_grad_()
    u = patches @ start.T
    value = u.clamp(0, 1) ** 3 / 3 + (u - 1).clamp(min=0)
    outputs = coherent.logit_scale * value.view(40, coherent.patches, 4, 4).sum((1, 3))
    np.testing.assert_allclose(networks.outputs()[0], outputs.detach(), rtol=1e-4, atol=1e-6)
    # as drawn: w ~ N(0, sigma_0^2), features of the stated products, noise of norm nu
    assert float(start.detach().std()) == pytest.approx(0.1, rel=0.1)
    empty = (samples.feature == -1).ravel()
    plain = dense.draw_patches(dataclasses.replace(coherent, coherence=0.0), samples, 0, "train")[empty].double()
    mixed = torch.from_numpy(samples.mixed).flatten(0, 1)[empty].double()
    noise = patches[empty].clone()
    noise[:, :features] -= mixed @ basis
    plain[:, :features] -= mixed
    np.testing.assert_allclose(noise, plain, atol=1e-6)

    torch.nn.functional.cross_entropy(outputs, torch.from_numpy(samples.labels)).backward()
    slopes = descent.cross_entropy(samples.labels)(networks.outputs())[1]
    (eta,) = networks.step(slopes, np.full(1, np.inf))
    np.testing.assert_allclose(start.detach() - weights(), eta * start.grad, rtol=1e-3, atol=1e-7)


def test_too_coherent_features_are_refused_in_one_line(coherent):
    with pytest.raises(InputError, match="give less than 0") as error:
        experiment.check(dataclasses.replace(coherent, coherence=0.6))
    assert "\n" not in str(error.value)
