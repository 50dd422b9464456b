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
    """All students of one seed's ensemble; the method of a kind trains it, or reads its checkpoints.

    What a method returns is named by the claim that it serves.
    """

    def __init__(
        self, config: MultiViewConfig, run: Run, progress: Progress, seed: int, samples: Samples, members: Members
    ) -> None:
        self.config, self.run, self.progress, self.seed = config, run, progress, seed
        self.samples, self.members = samples, members
        self.engine = ENGINES[config.engine]
        self.outputs = np.stack([arrays["train_outputs"] for arrays in members.arrays])

    def of(self, kinds: Sequence[str]) -> dict[str, Students]:
        """The students of `kinds` (some of `KINDS`) that so many members can teach, by the name of their claim."""
        students: dict[str, Students] = {}
        for kind in kinds:
            if self.config.members >= KINDS[kind].least:
                students |= KINDS[kind].train(self)
        return students

    def distilled(self) -> dict[str, Students]:
        """Theorem 3: fresh networks by the clipped rule, from the sum of the members' outputs."""
        teacher = self.outputs.sum(0)
        return self._fresh("distilled", self.samples, self._clipped(teacher, self.samples.labels))

    def distilled_temperature(self) -> dict[str, Students]:
        """Fresh networks by ordinary distillation at temperature T, from the sum of the members' outputs."""
        loss = distillation.at_temperature(self.outputs.sum(0), self.samples.labels, self.config.temperature)
        return self._fresh("distilled_temperature", self.samples, loss, self.config.soft_steps)

    def distilled_mixed(self) -> dict[str, Students]:
        """Fresh networks by t CE + (1 - t) H(S, T), T the softmax of the mean of the members' outputs."""
        loss = distillation.mixed(self.outputs.mean(0), self.samples.labels, self.config.label_share)
        return self._fresh("distilled_mixed", self.samples, loss, self.config.soft_steps)

    def distilled_without_others(self) -> dict[str, Students]:
        """Control: as `distilled`, where no training sample shows another class's feature, to teacher or student."""
        stripped = distillation.without_others(self.samples)
        weights = np.stack([arrays["weights"] for arrays in self.members.arrays])
        # role "train": the dense engine's patches keep the noise that they had in training
        outputs = self.engine.fresh_outputs(
            self.config, weights, stripped, self.seed, "train", range(self.config.members)
        )
        return self._fresh("distilled_without_others", stripped, self._clipped(outputs.sum(0), stripped.labels))

    def self_distilled(self) -> dict[str, Students]:
        """Theorem 4: trained members that go on by the clipped rule, each towards another, independent member."""

        def loss(rows: Sequence[int]) -> descent.Loss:
            teachers = self.outputs[[self_teacher(self.config, row) for row in rows]]
            return self._clipped(teachers, self.samples.labels)

        phase = Phase(loss, self.config.distill_time, None)
        return self._continued("self_distilled", phase, f"-of{self.config.members}")

    def labels_only(self) -> dict[str, Students]:
        """Control: trained members that go on for the same flow time, on labels alone."""
        return self._continued("labels_only", labels_only(self.samples, flow_time=self.config.distill_time), "")

    def trained_jointly(self) -> dict[str, Students]:
        """Control: K networks as one of width m K: the sum of their outputs is trained, or (second) their average."""
        config, together = self.config, self.config.students
        wide = dataclasses.replace(config, neurons=config.neurons * together)
        kinds = ("sum", "average")

        def loss(rows: Sequence[int]) -> descent.Loss:
            scales = np.array([1.0, 1.0 / together])[list(rows)]
            return distillation.scaled_labels(self.samples.labels, scales)

        group = Group(
            f"seed {self.seed}: {together} trained jointly",
            [f"seed{self.seed}-trained_jointly-{kind}-of{together}" for kind in kinds],
            [{"seed": self.seed, "kind": f"trained_jointly-{kind}"} for kind in kinds],
            lambda rows: self.engine.create(wide, self.samples, self.seed, [JOINT + row for row in rows]),
            [Phase(loss)],
        )
        arrays = train(config, self.run, self.progress, self.samples, group)[0]
        names = ("trained_jointly", "trained_jointly_average")
        return {name: Students(wide, arrays[row : row + 1], [JOINT + row]) for row, name in enumerate(names)}

    def _clipped(self, teachers: np.ndarray, labels: np.ndarray) -> descent.Loss:
        return distillation.clipped(teachers, labels, self.config.clip, self.config.soft_temperature)

    def _fresh(
        self, kind: str, samples: Samples, loss: descent.Loss, most_steps: int | None = None
    ) -> dict[str, Students]:
        config = self.config
        numbers = range(FRESH, FRESH + config.students)

        def create(rows: Sequence[int]) -> descent.Networks:
            return self.engine.create(config, samples, self.seed, [numbers[row] for row in rows])

        phase = Phase(lambda rows: loss, config.distill_time, None, most_steps)
        return self._train(kind, numbers, samples, create, phase, f"-from{config.members}")

    def _continued(self, kind: str, phase: Phase, suffix: str) -> dict[str, Students]:
        rows = range(min(self.config.students, self.config.members))
        return self._train(kind, rows, self.samples, self.members.again, phase, suffix)

    def _train(
        self,
        kind: str,
        numbers: range,
        samples: Samples,
        create: Callable[[Sequence[int]], descent.Networks],
        phase: Phase,
        suffix: str,
    ) -> dict[str, Students]:
        """Through `phase` and then, until they fit, on labels."""
        # a checkpoint's name says what the network depends on, so that members can be added to a run
        names = [f"seed{self.seed}-{kind}{row}{suffix}" for row in range(len(numbers))]
        records = [{"seed": self.seed, "kind": kind, "student": row} for row in range(len(numbers))]
        title = f"seed {self.seed}: {len(numbers)} {kind}"
        group = Group(title, names, records, create, [phase, labels_only(samples)])
        return {kind: Students(self.config, train(self.config, self.run, self.progress, samples, group)[0], numbers)}


class Kind(NamedTuple):
    """A kind of student."""

    train: Callable[[Distillation], dict[str, Students]]
    least: int = 1  # members that it needs
    swept: bool = False  # whether maps and ablations train it


# What a seed's ensemble can teach, and the controls.
KINDS = {
    "distilled": Kind(Distillation.distilled, swept=True),
    "distilled_temperature": Kind(Distillation.distilled_temperature),
    "distilled_mixed": Kind(Distillation.distilled_mixed),
    "distilled_without_others": Kind(Distillation.distilled_without_others),
    "self_distilled": Kind(Distillation.self_distilled, least=2, swept=True),
    "trained_jointly": Kind(Distillation.trained_jointly, least=2),
    "labels_only": Kind(Distillation.labels_only, swept=True),
}
