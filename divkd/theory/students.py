"""Students and their controls: which networks learn from which, and the same without what the theory says they need.

Fresh students start from the same initial weights whatever they learn by, so that the rules are compared in pairs.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.theory import descent, distillation
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import Samples
from divkd.theory.engines import ENGINES
from divkd.theory.training import Arrays, Group, Phase, labels_only, train

# What a seed's ensemble can teach, and the controls: the methods of `Distillation`.
KINDS = (
    "distilled", "distilled_temperature", "distilled_mixed", "distilled_without_others", "self_distilled",
    "trained_jointly", "labels_only",
)  # fmt: skip
FRESH, JOINT = 1_000_000, 2_000_000  # numbers of networks beyond the ensemble: their randomness depends on them


class Students(NamedTuple):
    """Networks of one kind, trained: how they were configured, the numbers that their test noise is drawn by."""

    config: MultiViewConfig
    arrays: list[Arrays]
    numbers: Sequence[int]


class Members(NamedTuple):
    """The ensemble of a seed, trained; `again` trains members once more for the state that checkpoints do not hold."""

    arrays: list[Arrays]
    again: Callable[[Sequence[int]], descent.Networks]


def self_teacher(config: MultiViewConfig, row: int) -> int:
    """The member that member `row` is distilled towards: half the ensemble away, so that pairs are disjoint."""
    return (row + config.members // 2) % config.members


class Distillation:
    """All students of one seed's ensemble; each method trains one kind, or reads its checkpoints."""

    def __init__(
        self, config: MultiViewConfig, run: Run, progress: Progress, seed: int, samples: Samples, members: Members
    ) -> None:
        self.config, self.run, self.progress, self.seed = config, run, progress, seed
        self.samples, self.members = samples, members
        self.outputs = np.stack([arrays["train_outputs"] for arrays in members.arrays])

    def of(self, kinds: Sequence[str]) -> dict[str, Students]:
        """The students of `kinds` (some of `KINDS`), by the name of their claim."""
        config, found = self.config, {}
        for kind in kinds:
            if config.members == 1 and kind in ("self_distilled", "trained_jointly"):
                continue  # these need a second network
            found[kind] = getattr(self, kind)()
        if "trained_jointly" in found:
            joint = found["trained_jointly"]
            for row, name in enumerate(("trained_jointly", "trained_jointly_average")):
                found[name] = Students(joint.config, joint.arrays[row : row + 1], joint.numbers[row : row + 1])
        return found

    def distilled(self) -> Students:
        """Theorem 3: fresh networks by the clipped rule, from the sum of the members' outputs."""
        teacher = self.outputs.sum(0)
        return self._fresh("distilled", self.samples, self._clipped(teacher, self.samples.labels))

    def distilled_temperature(self) -> Students:
        """Fresh networks by ordinary distillation at temperature T, from the sum of the members' outputs."""
        loss = distillation.at_temperature(self.outputs.sum(0), self.samples.labels, self.config.temperature)
        return self._fresh("distilled_temperature", self.samples, loss, self.config.soft_steps)

    def distilled_mixed(self) -> Students:
        """Fresh networks by t CE + (1 - t) H(S, T), T the softmax of the mean of the members' outputs."""
        loss = distillation.mixed(self.outputs.mean(0), self.samples.labels, self.config.label_share)
        return self._fresh("distilled_mixed", self.samples, loss, self.config.soft_steps)

    def distilled_without_others(self) -> Students:
        """Control: as `distilled`, where no training sample shows another class's feature, to teacher or student."""
        stripped = distillation.without_others(self.samples)
        weights = np.stack([arrays["weights"] for arrays in self.members.arrays])
        # role "train": the dense engine's patches keep the noise that they had in training
        outputs = ENGINES[self.config.engine].fresh_outputs(
            self.config, weights, stripped, self.seed, "train", range(self.config.members)
        )
        return self._fresh("distilled_without_others", stripped, self._clipped(outputs.sum(0), stripped.labels))

    def self_distilled(self) -> Students:
        """Theorem 4: trained members that go on by the clipped rule, each towards another, independent member."""

        def loss(rows: Sequence[int]) -> descent.Loss:
            teachers = self.outputs[[self_teacher(self.config, row) for row in rows]]
            return self._clipped(teachers, self.samples.labels)

        return self._continued(
            "self_distilled", Phase(loss, self.config.distill_time, None), f"-of{self.config.members}"
        )

    def labels_only(self) -> Students:
        """Control: trained members that go on for the same flow time, on labels alone."""
        return self._continued("labels_only", labels_only(self.samples, flow_time=self.config.distill_time), "")

    def trained_jointly(self) -> Students:
        """Control: K networks as one of width m K: the sum of their outputs is trained, or (second) their average."""
        config, together = self.config, self.config.students
        wide = dataclasses.replace(config, neurons=config.neurons * together)
        numbers = [JOINT, JOINT + 1]
        kinds = ("sum", "average")

        def loss(rows: Sequence[int]) -> descent.Loss:
            scales = np.array([1.0, 1.0 / together])[list(rows)]
            return distillation.scaled_labels(self.samples.labels, scales)

        group = Group(
            f"seed {self.seed}: {together} trained jointly",
            [f"seed{self.seed}-trained_jointly-{kind}-of{together}" for kind in kinds],
            [{"seed": self.seed, "kind": f"trained_jointly-{kind}"} for kind in kinds],
            lambda rows: ENGINES[config.engine].create(wide, self.samples, self.seed, [numbers[row] for row in rows]),
            [Phase(loss)],
        )
        return Students(wide, train(config, self.run, self.progress, self.samples, group)[0], numbers)

    def _clipped(self, teachers: np.ndarray, labels: np.ndarray) -> descent.Loss:
        return distillation.clipped(teachers, labels, self.config.clip, self.config.soft_temperature)

    def _fresh(self, kind: str, samples: Samples, loss: descent.Loss, most_steps: int | None = None) -> Students:
        config = self.config
        numbers = [FRESH + row for row in range(config.students)]
        group = self._group(
            kind,
            config.students,
            f"-from{config.members}",
            lambda rows: ENGINES[config.engine].create(config, samples, self.seed, [numbers[row] for row in rows]),
            [Phase(lambda rows: loss, config.distill_time, None, most_steps), labels_only(samples)],
        )
        return Students(config, train(config, self.run, self.progress, samples, group)[0], numbers)

    def _continued(self, kind: str, phase: Phase, suffix: str) -> Students:
        rows = range(min(self.config.students, self.config.members))
        phases = [phase, labels_only(self.samples)]
        group = self._group(kind, len(rows), suffix, self.members.again, phases)
        return Students(self.config, train(self.config, self.run, self.progress, self.samples, group)[0], rows)

    def _group(
        self,
        kind: str,
        count: int,
        suffix: str,
        create: Callable[[Sequence[int]], descent.Networks],
        phases: Sequence[Phase],
    ) -> Group:
        # a checkpoint's name says what the network depends on, so that members can be added to a run
        names = [f"seed{self.seed}-{kind}{row}{suffix}" for row in range(count)]
        records = [{"seed": self.seed, "kind": kind, "student": row} for row in range(count)]
        return Group(f"seed {self.seed}: {count} {kind}", names, records, create, phases)
