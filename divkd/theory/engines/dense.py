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
from torch import Tensor

from divkd.shared.errors import InputError
from divkd.shared.seeds import rng
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import NOISE, Samples
from divkd.theory.descent import Stepwise

SAMPLES = 256  # whose patches are drawn or tested at once


class DenseNetworks(Stepwise):
    """M networks on their training samples, members first; `step` moves them in place.

    `products` (M, N P, k m) are <w, x_p>, which move as the weights do and spare a product in every step; they are made
    where they are not given. One member is worked on at a time, so that its bits do not depend on M. What leaves the
    device in a step is what the loss and the traces are made of: outputs, feature coordinates and flow times.
    """

    def __init__(
        self,
        config: MultiViewConfig,
        patches: Tensor,
        weights: Tensor,
        products: Tensor | None = None,
        gram: Tensor | None = None,
    ) -> None:
        self.config, self.patches, self._weights = config, patches, weights  # (N P, d), (M, k m, d)
        self.products = torch.stack([patches @ w.T for w in weights]) if products is None else products
        self._gram = gram  # G (V k, V k); None for orthogonal features

    @property
    def weights(self) -> np.ndarray:
        """(M, k, m, d); the first V k numbers of a neuron are its feature coordinates."""
        return self._by_neuron(self._weights)

    @property
    def coordinates(self) -> np.ndarray:
        """(M, k, m, V k)."""
        return self._by_neuron(self._weights[..., : self.config.features])

    def _by_neuron(self, weights: Tensor) -> np.ndarray:
        return np.asarray(weights.unflatten(1, (self.config.classes, self.config.neurons)).cpu().numpy())

    def outputs(self) -> np.ndarray:
        """F on the training samples, (M, N, k)."""
        return np.asarray(torch.stack([_outputs(self.config, u) for u in self.products]).cpu().numpy())

    def step(self, slopes: np.ndarray, remaining: np.ndarray) -> np.ndarray:
        """Move every member down its gradient by a step of its own, and return the steps' flow times (M,).

        `slopes` (M, N, k) is dloss_n/dF. The trust region holds what the weights do, not each of their d numbers: a
        feature coordinate moves by at most `trust` * min(max(|a|, h, sigma_0), `trust_cap`), <w, x_p> by at most
        `trust` / `noise_trust`. h = max(gamma, nu / sqrt(d)) max_f |a_f| is what the noise of patches hides: a
        coordinate below it would be driven through 0 in steps of its own small size. A member with 0 `remaining` (M,)
        stands still.
        """
        config, device, features = self.config, self._weights.device, self.config.features
        slope = torch.from_numpy(np.ascontiguousarray(slopes, np.float32)).to(device)
        limits = torch.from_numpy(np.asarray(remaining, np.float32)).to(device)
        scale, hidden = (
            config.logit_scale / slope.shape[1],
            max(config.feature_noise, config.noise / config.dimension**0.5),
        )
        times = torch.zeros_like(limits)
        for row in np.flatnonzero(remaining > 0):
            weights, products = self._weights[row], self.products[row]
            drive = products.clamp(0, 1).pow_(config.power - 1).unflatten(1, (config.classes, config.neurons))
            drive.unflatten(0, (-1, config.patches)).mul_(scale * slope[row][:, None, :, None])
            gradient = drive.flatten(1).T @ self.patches
            if self._gram is not None:
                gradient[:, :features] = gradient[:, :features] @ self._gram
            moved = self.patches @ gradient.T
            size = weights[:, :features].abs()
            clamp = torch.maximum(size, hidden * size.amax(1, keepdim=True)).clamp(config.init_scale, config.trust_cap)
            relative = (gradient[:, :features].abs() / clamp).max()
            time = torch.minimum(
                config.trust / torch.maximum(relative, config.noise_trust * moved.abs().max()), limits[row]
            )
            times[row] = time.masked_fill(time.isinf(), 0)  # without a gradient and a limit there is nowhere to go
            weights -= times[row] * gradient
            products -= times[row] * moved
        return np.asarray(times.cpu().numpy())

    def settle(self, rows: Sequence[int]) -> None:
        """Nothing lags behind."""

    def copy(self, rows: Sequence[int]) -> "DenseNetworks":
        """Networks of their own that go on from where `rows` stand."""
        return DenseNetworks(
            self.config, self.patches, self._weights[list(rows)], self.products[list(rows)], self._gram
        )


def create(config: MultiViewConfig, samples: Samples, seed: int, members: Sequence[int]) -> DenseNetworks:
    """The networks `members` of `seed` at their initial weights."""
    gram = None
    if config.coherence:
        basis = basis_of(config, seed)
        gram = torch.from_numpy((basis @ basis.T).astype(np.float32)).to(config.device)
    return DenseNetworks(
        config, draw_patches(config, samples, seed, "train"), initial(config, seed, members), gram=gram
    )


def initial(config: MultiViewConfig, seed: int, members: Sequence[int]) -> Tensor:
    """w ~ N(0, sigma_0^2 I), (M, k m, d). Feature coordinates come first: whatever d is, those of the limit engine."""
    width, features = config.classes * config.neurons, config.features
    weights = np.empty((len(members), width, config.dimension), np.float32)
    for member, of_member in zip(members, weights, strict=True):
        generator = rng(seed, "init", member)
        for part in (of_member[:, :features], of_member[:, features:]):
            part[:] = generator.standard_normal(part.shape, np.float32)
    weights *= np.float32(config.init_scale)
    if config.coherence:
        weights[..., :features] = weights[..., :features] @ basis_of(config, seed).T
    return torch.from_numpy(weights).to(config.device)


def fresh_outputs(
    config: MultiViewConfig, weights: np.ndarray, samples: Samples, seed: int, role: str, members: Sequence[int]
) -> np.ndarray:
    """F on samples that were not trained on, (M, N, k), for `weights` (M, k, m, d); noise is drawn for `role`."""
    flat = torch.from_numpy(np.ascontiguousarray(weights)).to(config.device).flatten(1, 2)[: len(members)]
    outputs = [
        torch.stack([_outputs(config, patches @ w.T) for w in flat]).cpu()
        for patches in _patches(config, samples, seed, role)
    ]
    return np.asarray(torch.cat(outputs, 1).numpy())


def draw_patches(config: MultiViewConfig, samples: Samples, seed: int, role: str) -> Tensor:
    """x_p for every patch of `samples`, (N P, d), with the noise of `role`."""
    return torch.cat(list(_patches(config, samples, seed, role)))


def _patches(config: MultiViewConfig, samples: Samples, seed: int, role: str) -> Iterator[Tensor]:
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
    """The most memory that a part of a seed needs, in bytes: the patches, drawn in parts, and the widest networks.

    Members that are trained together keep <w, x_p>, and so do those that go on from them; or the two widest networks.
    """
    width = config.classes * config.neurons
    joint = width * (config.joint if config.students else 1)
    rows = config.patches * config.train_samples
    beside = sum(min(many, together(config)) for many in (config.members, config.students))
    kept = rows * width * max(beside, 2 * config.joint if config.students else 0)
    drawn = min(
        2 * rows, rows + config.patches * SAMPLES
    )  # the parts, and beside them the whole that they are put into
    testing = config.patches * min(SAMPLES, config.test_samples) * (config.dimension + 4 * joint)
    weights = (config.members + (7 + config.chain) * config.students) * joint * config.dimension
    return 4 * (max(drawn * config.dimension, rows * (config.dimension + 3 * joint) + kept, testing) + 2 * weights)


def _outputs(config: MultiViewConfig, u: Tensor) -> Tensor:
    """F (N, k) of one member from its <w, x_p> (N P, k m)."""
    value = u.clamp(0, 1) ** config.power / config.power + (u - 1).clamp_(min=0)
    return config.logit_scale * value.view(-1, config.patches, config.classes, config.neurons).sum((1, 3))
