"""How networks of the practice's kinds learn from the multi-view world's members, by all methods of the practice.

Member j of a BatchEnsemble learns from teacher j, a single network from all (Nam et al. 2021, section 3), by

    dL/dF = p - 1_y  on the samples,   and  -[q(T) - q(F)]^+ 1(F < c)   or   t (softmax(F / t) - softmax(T / t))

on the same samples ("kd") or on perturbed ones (`steps`): the clipped rule of Allen-Zhu and Li (theorem 3), which only
pushes up, or ordinary distillation at a temperature. A single network's targets are the means over teachers. Perturbed
samples serve for `redraw` steps of descent, then all are drawn anew, each by a teacher of its own.
"""

from typing import NamedTuple

import numpy as np

from divkd.shared.progress import Progress
from divkd.shared.seeds import rng
from divkd.theory import descent, evaluate
from divkd.theory.data import training_samples
from divkd.theory.distillation import clipped_probabilities
from divkd.theory.engines.rankone import Factors, Part, RankOneNetworks
from divkd.theory.worlds.config import StudentsConfig
from divkd.theory.worlds.steps import Moved, Teachers


class Draw(NamedTuple):
    """What students learn from for some steps: X (N, P, 2k), what is added to noise, targets (M or 1, N, k)."""

    coefficients: np.ndarray
    shift: np.ndarray | None
    wanted: np.ndarray
    floor: float


class School:
    """One seed's teachers, and what they say of the training samples, as they are or perturbed by a `method`."""

    def __init__(self, config: StudentsConfig, seed: int) -> None:
        self.config, self.seed, self.world = config, seed, config.world()
        self.samples = training_samples(self.world, seed)
        self.teachers = Teachers(self.world, self.samples, seed, config.teacher_time)
        self.learned = evaluate.learned_views(self.teachers.strengths)

    def soft(self, outputs: np.ndarray) -> np.ndarray:
        """q(F): what the rule makes of outputs (..., k)."""
        if self.config.rule == "clipped":
            return clipped_probabilities(outputs, self.config.clip, self.config.soft_temperature)
        return descent.softmax(outputs / np.float32(self.config.temperature))

    def slopes(self, wanted: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """d/dF (M, N, k) of what the rule adds to the labels' loss."""
        lacking = wanted - self.soft(outputs)
        if self.config.rule == "clipped":
            return np.asarray(-np.maximum(lacking, 0) * (outputs < self.config.clip))
        return np.asarray(-np.float32(self.config.temperature) * lacking)

    def draw(self, method: str, number: int, networks: RankOneNetworks) -> Draw:
        """The `number`-th draw of perturbed samples for `networks`."""
        config, teachers, shift = self.config, self.teachers, None
        coefficients, theirs = teachers.clean, teachers.outputs
        if method == "gaussian":
            norm = config.step_size / config.patches**0.5
            shift = networks.fresh_noise(rng(self.seed, "students/noise", epoch=number), norm)
            theirs = teachers.answers(coefficients, teachers.gaussian(norm, self.seed, number))[0]
        elif method != "kd":
            coefficients = self.moved(method, number).coefficients
            theirs = teachers.answers(coefficients)[0]
        wanted = self.soft(theirs)
        if networks.factors.members == 1:
            wanted = wanted.mean(0, keepdims=True)
        return Draw(
            coefficients,
            shift,
            wanted,
            float(np.abs(coefficients[..., : teachers.clean.shape[2]] - teachers.clean).max()),
        )

    def moved(self, method: str, number: int) -> Moved:
        """The training samples after a step of ODS or ConfODS."""
        config = self.config
        return self.teachers.step(config.step_size, config.temperature, method == "confods", self.seed, number)


def train(one: School, student: str, method: str, progress: Progress) -> tuple[RankOneNetworks, np.ndarray, np.ndarray]:
    """A trained student, the flow times of its steps (T,), and the strengths of its members' views (T, M, k, 2)."""
    config, labels = one.config, descent.cross_entropy(one.samples.labels)
    aligned, signs = "aligned" in config.factors, "signs" in config.factors
    mean, sd = (0.0, 1.0) if signs else (1.0, config.factor_sd)
    law = Factors(config.members, mean, sd, aligned, config.factor_rate)
    networks = RankOneNetworks(one.world, one.samples, Factors() if student == "single" else law, one.seed,
                               one.teachers.memory)  # fmt: skip
    clean, times, strengths = one.teachers.clean, [0.0], [descent.strengths(networks.weights, config.classes)]
    drawn: Draw | None = None
    with progress.task(f"seed {one.seed}: {student} by {method}", 1, networks=1) as task:
        for number in range(one.world.max_steps):
            outputs, u = networks.forward(clean)
            losses, slopes = labels(outputs)
            distilling = times[-1] < config.distill_time and number < config.max_steps
            if not distilling and losses.max() < np.log(2):
                break
            parts, floor = [Part(clean, u, slopes)], 0.0
            if distilling and method != "none":
                if drawn is None or (method != "kd" and number % config.redraw == 0):
                    drawn = one.draw(method, number // config.redraw, networks)
                if method == "kd":
                    slopes += one.slopes(drawn.wanted, outputs)
                else:
                    answers, there = networks.forward(drawn.coefficients, drawn.shift)
                    parts.append(Part(drawn.coefficients, there, one.slopes(drawn.wanted, answers)))
                    floor = drawn.floor
            rest = config.distill_time - times[-1] if distilling else np.inf
            times.append(times[-1] + networks.step(parts, rest, floor))
            strengths.append(descent.strengths(networks.weights, config.classes))
            if number % 50 == 0:
                task.update(0, note=f"step {number}, loss {losses.mean():.3g}")
    return networks, np.array(times), np.stack(strengths)
