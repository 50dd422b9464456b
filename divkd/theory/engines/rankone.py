"""The limit engine of networks that share their weights and differ by rank-one factors (a BatchEnsemble's members).

Neuron w of member j (Wen, Tran and Ba 2020, equation 5), with input factors r_j in R^d and one output factor s_j:

    F^j = varrho sum_p sReLU(s_j <w, r_j o x_p>),   entries of r_j independent, of mean mu and standard deviation sd.

With features in general position (randomly rotated) r_j o x = mu x + sd x^j, and as d -> infinity the x^j are
orthogonal to every x and to those of the other members, with the products of the x themselves:

    <r_j o x, r_l o x'> = (mu^2 + sd^2 [j = l]) <x, x'>.

A neuron is then its coordinates a_f = <w, v_f>, what each member alone sees, b^j_f = <w, v_f^j>, and the same two of
every patch's noise, of which only g^j = mu g + sd h^j is kept. With A^j = mu a + sd b^j and u^j = X A^j + g^j

    da = -mu sum_l s_l X' c^l,   db^j = -sd s_j X' c^j,   dg^j = -nu^2 (mu^2 sum_l s_l c^l + sd^2 s_j c^j),
    ds_j = -rate sum_e c^j_e u^j_e,   c^j = varrho / (N M) dloss^j/dF sReLU'(s_j u^j),

as the loss is the mean over members. Input factors stand still: by themselves they move <w, r_j o x> at |w|^2 / d of
the weights' rate, which is sigma_0^2. Where features are axes of the input instead (`aligned`), member j gates each by
one factor, A^j_f = r_jf a_f, which learns: dr_jf = -rate sum_neurons s_j a_f (X' c^j)_f. docs/theory/students.md
derives it.

The same patches may be shown twice, as they are and moved: coefficients X of their own, and the same noise. A patch
that is moved may also show other patches' noise, the columns n = sum_e H_e xi_e / nu^2 of `memory` H (N P, C), as
further columns of X: <w, n> = H'g / nu^2, and c drives other patches' noise, c_e + (H X' c)_e / nu^2 in place of c_e.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from divkd.shared.seeds import rng
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import NOISE, Samples
from divkd.theory.engines.entries import compiled, srelu, srelu_slope

LEAST = np.float32(0.25)  # factors below it count as large as that in the trust region


class Factors(NamedTuple):
    """The law of rank-one factors: `members` rows with entries of `mean` and `sd`, or of random `signs` times them."""

    members: int = 1
    mean: float = 1.0
    sd: float = 0.0
    aligned: bool = False
    rate: float = 0.0  # of learning, beside the weights'

    def draw(self, generator: np.random.Generator, size: int) -> np.ndarray:
        """(members, size) float32; a mean of 0 is that of random signs."""
        drawn = generator.standard_normal((self.members, size))
        rows = self.mean + self.sd * (drawn if self.mean else np.sign(drawn))
        return rows.astype(np.float32)


class Activation(NamedTuple):
    """What makes outputs of neurons: `varrho` times a sum of sReLU, `power` as in `blocks.Constants`."""

    classes: int
    varrho: np.float32
    power: tuple[int, ...]

    @classmethod
    def of(cls, config: MultiViewConfig) -> "Activation":
        """That of a configuration."""
        return cls(config.classes, np.float32(config.logit_scale), (1,) * (config.power - 2))


class Part(NamedTuple):
    """What a step learns from: samples' coefficients, what `forward` gave for them, and dloss/dF (M, N, k)."""

    coefficients: np.ndarray
    u: np.ndarray
    slopes: np.ndarray


class RankOneNetworks:
    """M members with shared weights, or one plain network, on their training samples; `step` moves them in place.

    `shared` (2k, km) and `private` (M, 2k, km) are feature coordinates, `gates` (M, 2k) and `scales` (M, km) input and
    output factors, `noise` (M, N P, km) the members' g. Neurons of a class lie side by side.
    """

    def __init__(
        self,
        config: MultiViewConfig,
        samples: Samples,
        factors: Factors,
        seed: int,
        memory: np.ndarray | None = None,
    ) -> None:
        self.config, self.factors, self.activation = config, factors, Activation.of(config)
        self.memory, self.nu2 = memory, np.float32(config.noise**2)
        self.factor = self.activation.varrho / np.float32(len(samples) * factors.members)
        features, width, members = config.features, config.classes * config.neurons, factors.members
        generator = rng(seed, "students/init")
        self.shared = self._drawn(generator, (features, width), config.init_scale)
        noise = self._drawn(generator, (samples.feature.size, width), config.init_scale * config.noise)
        own = [rng(seed, "students/private", member) for member in range(members)]
        self.private = np.stack([self._drawn(one, self.shared.shape, config.init_scale) for one in own])
        scale = config.init_scale * config.noise * factors.sd
        self.noise = np.stack([np.float32(factors.mean) * noise + self._drawn(one, noise.shape, scale) for one in own])
        self.scales = factors.draw(rng(seed, "students/output"), width)
        self.gates = np.full((members, features), factors.mean, np.float32)
        if factors.aligned:
            self.gates, self.private = factors.draw(rng(seed, "students/input"), features), 0 * self.private

    @staticmethod
    def _drawn(generator: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
        return generator.standard_normal(shape, np.float32) * np.float32(scale)

    @property
    def coordinates(self) -> np.ndarray:
        """A (M, 2k, km): what each member's neurons see of every feature, before their output factors."""
        return np.asarray(self.gates[:, :, None] * self.shared + np.float32(self.factors.sd) * self.private)

    @property
    def weights(self) -> np.ndarray:
        """The coordinates (M, k, m, 2k) of plain networks that answer as the members do."""
        rows = self.coordinates * self.scales[:, None]
        return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(len(rows), self.config.classes, -1, rows.shape[1])

    def forward(self, coefficients: np.ndarray, shift: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """F (M, N, k) and u (M, N P, km) for X (N, P, 2k or 2k + C); `shift` (M, N P, km) is added to g."""
        coordinates = self.coordinates
        if self.memory is not None and coefficients.shape[2] > coordinates.shape[1]:
            seen = np.stack([self.memory.T @ one for one in self.noise]) / self.nu2
            coordinates = np.concatenate([coordinates, seen], 1)
        noise = self.noise if shift is None else self.noise + shift
        return outputs_of(coordinates, noise, self.scales, coefficients, self.activation)

    def fresh_noise(self, generator: np.random.Generator, norm: float) -> np.ndarray:
        """Products (M, N P, km) of the start with fresh noise of this `norm` on every patch."""
        scale, shape = self.config.init_scale * norm, self.noise.shape[1:]
        together = self._drawn(generator, shape, scale * self.factors.mean)
        return np.stack([together + self._drawn(generator, shape, scale * self.factors.sd) for _ in self.noise])

    def step(self, parts: Sequence[Part], remaining: float, floor: float = 0.0) -> float:
        """Move down the gradient of the losses of `parts`, the largest step in the trust region; its flow time.

        The region is that of `mixed.advance` for what every member sees, and factors move by at most `trust` times
        themselves. Coordinates below `floor` times their neuron's largest count as that large.
        """
        config, sd, mean = self.config, np.float32(self.factors.sd), np.float32(self.factors.mean)
        members, (features, width) = len(self.noise), self.shared.shape
        gradients, pull = np.zeros((members, features, width), np.float32), np.zeros((members, width), np.float32)
        for part in parts:
            for j in range(members):
                _drive(part.u[j], part.slopes[j], self.scales[j], self.factor, self.activation.power, pull[j])
                of_columns = part.coefficients.reshape(len(part.u[j]), -1).T @ part.u[j]
                gradients[j] += of_columns[:features]
                if self.memory is not None and len(of_columns) > features:
                    part.u[j] += self.memory @ (of_columns[features:] / self.nu2)
        drive = parts[0].u
        for part in parts[1:]:
            drive += part.u
        peak = _spread(drive, self.scales, mean * mean, sd * sd)
        gradients *= self.scales[:, None]
        down = (self.gates[:, :, None] * gradients).sum(0)
        rate = np.float32(self.factors.rate)
        gates = rate * (gradients * self.shared).sum(2) if self.factors.aligned else np.zeros_like(self.gates)
        moved = self.gates[:, :, None] * down + gates[:, :, None] * self.shared
        if not self.factors.aligned:
            moved += sd * sd * gradients
        seen = np.abs(self.coordinates)
        least = np.maximum(np.float32(floor) * seen.max(1, keepdims=True), np.float32(config.init_scale))
        clamp = np.minimum(np.maximum(seen, least), np.float32(config.trust_cap))
        steepest = max(
            float((np.abs(moved) / clamp).max()),
            config.noise_trust * float(self.nu2 * peak),
            float((rate * np.abs(pull) / np.maximum(np.abs(self.scales), LEAST)).max()),
            float((np.abs(gates) / np.maximum(np.abs(self.gates), LEAST)).max()),
        )
        if not steepest > 0:
            return remaining
        time = np.float32(min(config.trust / steepest, remaining))
        self.shared -= time * down
        if self.factors.aligned:
            self.gates -= time * gates
        else:
            self.private -= time * sd * gradients
        self.scales -= time * rate * pull
        drive *= time * self.nu2
        self.noise -= drive
        return float(time)


def outputs_of(
    coordinates: np.ndarray, noise: np.ndarray, scales: np.ndarray, coefficients: np.ndarray, activation: Activation
) -> tuple[np.ndarray, np.ndarray]:
    """F (M, N, k) and u = X A + g (M, N P, km) of A (M, 2k, km), g (M, N P, km), s (M, km), X (N, P, 2k)."""
    u = np.empty(noise.shape, np.float32)
    outputs = np.zeros((len(u), len(coefficients), activation.classes), np.float32)
    rows = coefficients.reshape(-1, coefficients.shape[2])
    for j, one in enumerate(u):
        np.matmul(rows, coordinates[j], out=one)
        one += noise[j]
        _answer(one, scales[j], outputs[j], activation.varrho, activation.power)
    return outputs, u


def coefficients_of(samples: Samples, features: int) -> np.ndarray:
    """X (N, P, 2k): what every patch shows of every feature."""
    shown = np.zeros((*samples.feature.shape, features), np.float32)
    n, p = np.nonzero(samples.feature != NOISE)
    shown[n, p, samples.feature[n, p]] = samples.weight[n, p]
    return shown if samples.mixed is None else shown + samples.mixed


@compiled(nogil=True)
def _answer(u: Any, scales: Any, outputs: Any, varrho: Any, q: Any) -> None:
    """F (N, k) of one member from its u (N P, km)."""
    count, classes = outputs.shape
    patches, width = len(u) // count, u.shape[1]
    sums = np.empty(width, np.float32)  # over a sample's patches, all neurons side by side
    for n in range(count):
        sums[:] = 0
        for e in range(n * patches, (n + 1) * patches):
            for r in range(width):
                sums[r] += srelu(scales[r] * u[e, r], q)
        for r in range(width):
            outputs[n, r // (width // classes)] += varrho * sums[r]


@compiled(nogil=True)
def _drive(u: Any, slopes: Any, scales: Any, factor: Any, q: Any, pull: Any) -> None:
    """Turn u (N P, km) of one member into c; add sum_e c_e u_e to `pull` (km)."""
    count, classes = slopes.shape
    patches, width = len(u) // count, u.shape[1]
    slope = np.empty(width, np.float32)
    for n in range(count):
        for r in range(width):
            slope[r] = factor * slopes[n, r // (width // classes)]
        for e in range(n * patches, (n + 1) * patches):
            for r in range(width):
                c = slope[r] * srelu_slope(scales[r] * u[e, r], q)
                pull[r] += c * u[e, r]
                u[e, r] = c


@compiled(nogil=True)
def _spread(drive: Any, scales: Any, shared: Any, own: Any) -> Any:
    """Turn c^j of all members (M, N P, km) into shared sum_l s_l c^l + own s_j c^j; the largest size."""
    members, entries, width = drive.shape
    peak, total = np.float32(0), np.empty(width, np.float32)
    for e in range(entries):
        total[:] = 0
        for j in range(members):
            for r in range(width):
                drive[j, e, r] *= scales[j, r]
                total[r] += drive[j, e, r]
        for j in range(members):
            for r in range(width):
                moved = shared * total[r] + own * drive[j, e, r]
                drive[j, e, r] = moved
                peak = max(peak, abs(moved))
    return peak
