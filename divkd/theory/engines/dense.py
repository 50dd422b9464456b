"""The dense engine: the same network with weights and patches in R^d, the independent check of the limit engine.

F_i(X) = varrho sum_r sum_p sReLU(<w_{i,r}, x_p>), x_p = z_p v_{f(p)} + sum_v alpha_{p,v} v + xi_p,
xi_p ~ N(0, nu^2 / d I), following Allen-Zhu and Li, arXiv 2012.09816. The features are the first V k unit vectors,
which loses nothing: everything else is rotation invariant. Weights are in units of varrho.

With `coherence` c features are unit vectors v_f = sum_g B_fg e_g of <v_f, v_g> = c or -c, B B^T = G. A neuron is held
by its feature coordinates a = B w, a patch by B^-T x, both in place of their first V k numbers: products <w, x> are
what they were, a feature is a unit vector, and descent moves a by G times its gradient.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from divkd.shared.errors import InputError
from divkd.shared.seeds import rng
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import NOISE, Samples

SAMPLES = 256  # whose patches are drawn or tested at once


class DenseNetworks:
    """M networks on their training samples, members first; `step` moves them in place.

    One member is worked on at a time, so that its bits do not depend on M.
    """

    def __init__(
        self, config: MultiViewConfig, patches: torch.Tensor, weights: torch.Tensor, gram: torch.Tensor | None = None
    ) -> None:
        self.config, self.patches, self._weights = config, patches, weights  # (N P, d), (M, k m, d)
        self._gram = gram  # G (V k, V k); None for orthogonal features

    @property
    def weights(self) -> np.ndarray:
        """(M, k, m, d); the first V k numbers of a neuron are its feature coordinates."""
        return np.asarray(self._weights.unflatten(1, (self.config.classes, self.config.neurons)).cpu().numpy())

    def outputs(self) -> np.ndarray:
        """F on the training samples, (M, N, k)."""
        return np.stack([_forward(self.config, self.patches, w) for w in self._weights])

    def step(self, slopes: np.ndarray, remaining: np.ndarray) -> np.ndarray:
        """Move every member down its gradient by a step of its own, and return the steps' flow times (M,).

        `slopes` (M, N, k) is dloss_n/dF. The trust region holds what the weights do, not each of their d numbers: a
        feature coordinate moves by at most `trust` * min(max(|a|, sigma_0), `trust_cap`), <w, x_p> by at most
        `trust` / `noise_trust`. A member with 0 `remaining` (M,) stands still.
        """
        config, features = self.config, self.config.features
        times = np.zeros(len(self._weights), np.float32)
        for row, weights in enumerate(self._weights):
            if not remaining[row] > 0:
                continue
            slope = torch.as_tensor(np.ascontiguousarray(slopes[row]), dtype=torch.float32, device=weights.device)
            scale = config.logit_scale / len(slope)
            activation = (self.patches @ weights.T).clamp_(0, 1).pow_(config.power - 1)
            activation = activation.view(len(slope), config.patches, config.classes, config.neurons)
            coefficient = activation.mul_(scale * slope[:, None, :, None]).view(len(self.patches), -1)
            gradient = coefficient.T @ self.patches
            if self._gram is not None:
                gradient[:, :features] = gradient[:, :features] @ self._gram
            clamp = weights[:, :features].abs().clamp(config.init_scale, config.trust_cap)
            moved = (self.patches @ gradient.T).abs().max()
            steepest = torch.maximum((gradient[:, :features].abs() / clamp).max(), config.noise_trust * moved)
            if steepest > 0:
                times[row] = min(config.trust / float(steepest), float(remaining[row]))
                weights -= float(times[row]) * gradient
        return times

    def settle(self, rows: Sequence[int]) -> None:
        """Nothing lags behind."""

    def copy(self, rows: Sequence[int]) -> "DenseNetworks":
        """Networks of their own that go on from where `rows` stand."""
        return DenseNetworks(self.config, self.patches, self._weights[list(rows)], self._gram)


def create(config: MultiViewConfig, samples: Samples, seed: int, members: Sequence[int]) -> DenseNetworks:
    """The networks `members` of `seed` at their initial weights, w ~ N(0, sigma_0^2 I)."""
    width = config.classes * config.neurons
    weights = np.stack(
        [rng(seed, "init", member).standard_normal((width, config.dimension), np.float32) for member in members]
    )
    weights *= np.float32(config.init_scale)
    gram = None
    if config.coherence:
        basis = basis_of(config, seed)
        weights[..., : config.features] = weights[..., : config.features] @ basis.T
        gram = torch.from_numpy((basis @ basis.T).astype(np.float32)).to(config.device)
    start = torch.from_numpy(weights).to(config.device)
    return DenseNetworks(config, draw_patches(config, samples, seed, "train"), start, gram)


def fresh_outputs(
    config: MultiViewConfig, weights: np.ndarray, samples: Samples, seed: int, role: str, members: Sequence[int]
) -> np.ndarray:
    """F on samples that were not trained on, (M, N, k), for `weights` (M, k, m, d); noise is drawn for `role`."""
    flat = torch.from_numpy(np.ascontiguousarray(weights)).to(config.device).flatten(1, 2)[: len(members)]
    outputs = [
        np.stack([_forward(config, patches, w) for w in flat]) for patches in _patches(config, samples, seed, role)
    ]
    return np.concatenate(outputs, 1)


def draw_patches(config: MultiViewConfig, samples: Samples, seed: int, role: str) -> torch.Tensor:
    """x_p for every patch of `samples`, (N P, d), with the noise of `role`."""
    return torch.cat(list(_patches(config, samples, seed, role)))


def _patches(config: MultiViewConfig, samples: Samples, seed: int, role: str) -> Iterator[torch.Tensor]:
    """The same, the patches of `SAMPLES` samples at a time."""
    generator = rng(seed, f"noise/{role}")
    inverse = np.linalg.inv(basis_of(config, seed)) if config.coherence else None
    for first in range(0, len(samples), SAMPLES):
        some = slice(first, first + SAMPLES)
        feature, weight = samples.feature[some].ravel(), samples.weight[some].ravel()
        patches = generator.standard_normal((feature.size, config.dimension), np.float32)
        patches *= np.float32(config.noise / config.dimension**0.5)
        if inverse is not None:
            patches[:, : config.features] = patches[:, : config.features] @ inverse
        filled = np.flatnonzero(feature != NOISE)
        patches[filled, feature[filled]] += weight[filled]
        if samples.mixed is not None:
            patches[:, : config.features] += samples.mixed[some].reshape(len(patches), -1)
        yield torch.from_numpy(patches).to(config.device)


def basis_of(config: MultiViewConfig, seed: int) -> np.ndarray:
    """B (V k, V k), lower triangular, whose rows are the features: G = B B^T = I + c S, S of random signs off 0.

    Random directions in d dimensions have inner products of either sign, of size 1/sqrt(d). The larger V k, the smaller
    the c at which G is no longer positive: about 1 / (2 sqrt(V k)). Raises `InputError` there.
    """
    signs = np.triu(rng(seed, "features").choice((-1.0, 1.0), (config.features, config.features)), 1)
    signs += signs.T
    most = -1 / np.linalg.eigvalsh(signs)[0] if config.features > 1 else np.inf
    if config.coherence >= 0.999 * most:
        raise InputError(
            f"--coherence {config.coherence}: no {config.features} unit vectors have such products, of the signs of "
            f"seed {seed}; give less than {0.999 * most:.4f}"
        )
    return np.linalg.cholesky(np.eye(config.features) + config.coherence * signs)


def check_device(config: MultiViewConfig) -> None:
    """Raise `InputError` where the configured device is not there, or no features of that coherence are."""
    for seed in config.seeds if config.coherence else ():
        basis_of(config, seed)
    if config.device.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if torch.device(config.device).index not in {None, *range(count)} or not count:
            raise InputError(f"device {config.device!r}: this machine has {count} usable GPUs; give --device cpu")


def together(config: MultiViewConfig) -> int:
    """How many networks are trained at once: they share the patches, and each is worked on alone."""
    return 8


def state_bytes(config: MultiViewConfig) -> int:
    """The most memory that a part of a seed needs, in bytes: the patches, drawn in parts, and the widest networks."""
    joint = config.classes * config.neurons * max(config.students, 1)
    rows = config.patches * config.train_samples
    drawn = min(
        2 * rows, rows + config.patches * SAMPLES
    )  # the parts, and beside them the whole that they are put into
    testing = config.patches * min(SAMPLES, config.test_samples) * (config.dimension + 4 * joint)
    weights = (config.members + 7 * config.students) * joint * config.dimension
    return 4 * (max(drawn * config.dimension, rows * (config.dimension + 3 * joint), testing) + 2 * weights)


def _forward(config: MultiViewConfig, patches: torch.Tensor, weights: torch.Tensor) -> np.ndarray:
    """(N, k) outputs of one member."""
    u = patches @ weights.T
    value = u.clamp(0, 1) ** config.power / config.power + (u - 1).clamp_(min=0)
    total = value.view(-1, config.patches, config.classes, config.neurons).sum((1, 3))
    return np.asarray((config.logit_scale * total).cpu().numpy())
