"""The practice's perturbations, through simulated teachers: what a step does to the features that patches show.

A plain teacher's answer changes with patch p of its input by

    grad_{x_p} F_i = varrho sum_r sReLU'(u_{i,r,p}) w_{i,r},

which lies in the span of the features that its weights have learned, w = sum_f a_f v_f, and of the noise that it has
memorised, sum_e (g_e - g_e(0)) / nu^2 xi_e; its initial weights have norm sigma_0 sqrt(d), which is taken to be small
beside both. The ODS step (Nam et al. 2021, section 3) of norm eta on a sample is then

    x_p -> x_p + eta D_p / |D|,   D_p = sum_i g_i sum_r sReLU'(u_{i,r,p}) w_{i,r},   g = grad_F <w, softmax(F / t)>

with w ~ U(-1, 1)^k, one teacher drawn for every sample, and |D| over all patches. A patch's coefficients X on features
move, and it shows some of what a teacher's neurons have memorised: further columns of X, one for each neuron of a
teacher that has, whose directions are the columns of `memory` (see `engines.rankone`). ConfODS takes max softmax(F / t)
of the step. Nothing is clipped: coefficients may be negative. A Gaussian step of the same norm meets initial weights
alone: N(0, (sigma_0 eta)^2 / P).
"""

from typing import NamedTuple

import numpy as np

from divkd.shared.seeds import rng
from divkd.theory import descent
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import NOISE, Samples
from divkd.theory.engines import limit
from divkd.theory.engines.rankone import Activation, coefficients_of, outputs_of

FORGOTTEN = 1e-4  # share of the largest squared norm below which what a neuron has memorised is left out


class Moved(NamedTuple):
    """Perturbed samples: their coefficients, the share of the steps' squared norm that lies in memorised noise."""

    coefficients: np.ndarray  # (N, P, 2k + columns of `Teachers.memory`)
    teachers: np.ndarray  # (N,) whose answers a sample's step moves
    memorised: float


class Teachers:
    """M members of the multi-view simulator, trained on `samples` until they fit, then for `more` flow time."""

    def __init__(self, config: MultiViewConfig, samples: Samples, seed: int, more: float) -> None:
        self.config, self.activation = config, Activation.of(config)
        self.clean = coefficients_of(samples, config.features)
        loss = descent.cross_entropy(samples.labels)
        networks = limit.create(config, samples, seed, range(config.members))
        start = self._in_order(networks)
        for time in (np.inf, *([more] if more else [])):
            for _ in descent.descend(networks, loss, max_steps=config.max_steps, flow_time=time):
                pass
        self.noise = self._in_order(networks)
        self.weights = networks.weights  # (M, k, m, 2k)
        self.strengths = descent.strengths(self.weights, config.classes)
        self._features = self.weights.reshape(len(self.weights), -1, config.features)
        learned = self.noise - start
        self._gram = learned.swapaxes(1, 2) @ learned / np.float32(config.noise**2)
        size = np.diagonal(self._gram, axis1=1, axis2=2)
        self._kept = size > FORGOTTEN * size.max()  # (M, km)
        self.memory = np.concatenate([one[:, kept] for one, kept in zip(learned, self._kept, strict=True)], 1)
        seen = self.memory.T @ self.noise / np.float32(config.noise**2)
        self._coordinates = np.concatenate([self._features.swapaxes(1, 2), seen], 1)
        self.outputs, u = self.answers(self.clean)
        self._open = np.clip(u, 0, 1) ** (config.power - 1)  # (M, N P, km) sReLU'

    @staticmethod
    def _in_order(networks: limit.LimitNetworks) -> np.ndarray:
        """g (M, N P, km) in the order of the samples."""
        of_networks = networks.noise.reshape(len(networks.noise), -1, networks.noise.shape[-1])
        ordered = np.empty_like(of_networks)
        ordered[..., networks.layout.order] = of_networks
        return np.ascontiguousarray(ordered.swapaxes(1, 2))

    def answers(self, coefficients: np.ndarray, shift: np.ndarray | float = 0) -> tuple[np.ndarray, np.ndarray]:
        """F (M, N, k) and u (M, N P, km) for X (N, P, 2k or more) and what is added to products with noise."""
        scales = np.ones((len(self.noise), self.noise.shape[2]), np.float32)
        coordinates = np.ascontiguousarray(self._coordinates[:, : coefficients.shape[2]])
        return outputs_of(coordinates, self.noise + shift, scales, coefficients, self.activation)

    def gaussian(self, norm: float, seed: int, draw: int) -> np.ndarray:
        """Products (M, N P, km) of the teachers' start with fresh noise of this `norm` on every patch."""
        drawn = [rng(seed, "students/teacher-noise", m, draw).standard_normal(self.noise.shape[1:], np.float32)
                 for m in range(len(self.noise))]  # fmt: skip
        return np.stack(drawn) * np.float32(self.config.init_scale * norm)

    def step(self, length: float, temperature: float, confident: bool, seed: int, draw: int) -> Moved:
        """The samples after an ODS step of this `length`, or where `confident` a ConfODS step: the `draw`-th."""
        generator, (count, patches, features) = rng(seed, "students/ods", epoch=draw), self.clean.shape
        whose = np.asarray(generator.integers(len(self.noise), size=count))
        wanted = generator.uniform(-1, 1, (count, self.config.classes))
        p = descent.softmax(self.outputs[whose, np.arange(count)].astype(np.float64) / temperature)
        cotangent = p * (wanted - (p * wanted).sum(1, keepdims=True))
        confidence = p.max(1)
        moves = np.zeros((count, patches, features + self.memory.shape[1]), np.float32)
        memorised, ends = np.zeros(count), features + np.cumsum([0, *self._kept.sum(1)])
        for m in range(len(self.noise)):
            n = np.flatnonzero(whose == m)
            through = self._open[m].reshape(count, patches, self.config.classes, -1)[n]
            through = through * cotangent[n, None, :, None].astype(np.float32)
            through = through.reshape(len(n), patches, -1)
            moves[n, :, :features] = through @ self._features[m]
            moves[n, :, ends[m] : ends[m + 1]] = through[..., self._kept[m]]
            memorised[n] = np.einsum("npr,npr->n", through @ self._gram[m], through)
        squared = (moves[..., :features].astype(np.float64) ** 2).sum((1, 2))
        norms = np.sqrt(np.maximum(squared + memorised, np.finfo(np.float32).tiny))
        moves *= (length * (confidence if confident else 1) / norms).astype(np.float32)[:, None, None]
        moves[..., :features] += self.clean
        return Moved(moves, whose, float(np.mean(memorised / norms**2)))


def moved_by_kind(samples: Samples, moved: Moved, clean: np.ndarray, learned: np.ndarray) -> dict[str, float]:
    """Mean size of what steps add to features that a sample shows, summed over their patches, by kind of feature.

    Own views and other classes', that the step's teacher knows or does not; `rest`, the largest that is added to a
    patch of a feature that it does not show. clean X (N, P, 2k), learned (M, k, 2).
    """
    features = clean.shape[2]
    moves = moved.coefficients[..., :features] - clean
    n, p = np.nonzero(samples.feature != NOISE)
    f = samples.feature[n, p]
    size, shown = np.zeros((len(samples), features)), np.zeros((len(samples), features), bool)
    np.add.at(size, (n, f), moves[n, p, f])
    shown[n, f] = True
    own = np.arange(features) // 2 == samples.labels[:, None]
    known = learned.reshape(len(learned), -1)[moved.teachers]
    kinds = {"own_known": own & known, "own_unknown": own & ~known,
             "other_known": ~own & known, "other_unknown": ~own & ~known}  # fmt: skip
    moves = np.abs(moves)
    moves[n, p, f] = 0
    found = {kind: float(np.abs(size[shown & of]).mean()) if (shown & of).any() else 0.0 for kind, of in kinds.items()}
    return found | {"rest": float(moves.max())}
