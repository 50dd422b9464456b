"""The networks of one seed: members, students and their controls: which learn from which, or without what they need.

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
from divkd.theory.data import Samples, test_samples, training_samples
from divkd.theory.engines import engine
from divkd.theory.training import Arrays, Create, Phase, labels_only, train

FRESH, JOINT = 1_000_000, 2_000_000  # numbers of networks beyond the ensemble: their randomness depends on them
TESTS = {"multi_view": "multi", "single_view": "single"}  # names of errors, and of test samples


class Students(NamedTuple):
    """Networks of one kind, trained: how they were configured, the numbers that their test noise is drawn by."""

    config: MultiViewConfig
    arrays: list[Arrays]
    numbers: Sequence[int]


class Seed:
    """One seed: its samples, its members, and by `students` those who learn from them.

    Networks are trained, or read from their checkpoints. The method of a kind of students returns them by the claim
    that they serve.
    """

    def __init__(self, config: MultiViewConfig, run: Run, progress: Progress, seed: int) -> None:
        self.config, self.run, self.progress, self.seed = config, run, progress, seed
        self.engine = engine(config.engine)
        self.samples = training_samples(config, seed)
        self.tests = {name: test_samples(config, seed, kind) for name, kind in TESTS.items()}
        title = f"seed {seed}: {config.members} members"
        records = {f"seed{seed}-member{member}": {"seed": seed, "member": member} for member in range(config.members)}
        self.members, self._networks, self._trained = train(
            config, run, progress, self.samples, title, records, self._start(), [labels_only(self.samples)]
        )
        self.outputs = np.stack([arrays["train_outputs"] for arrays in self.members])

    def students(self, kinds: Sequence[str]) -> dict[str, Students]:
        """The students of `kinds` (some of `KINDS`) that so many members can teach, by the name of their claim."""
        students: dict[str, Students] = {}
        for kind in kinds if self.config.students else ():
            if self.config.members >= KINDS[kind].least:
                students |= KINDS[kind].train(self)
        return students

    def distilled(self) -> dict[str, Students]:
        """Theorem 3: fresh networks by the clipped rule, from the sum of the members' outputs."""
        return self._fresh("distilled", self.samples, self._clipped(self.outputs.sum(0)))

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
        config, stripped = self.config, distillation.without_others(self.samples)
        weights = np.stack([arrays["weights"] for arrays in self.members])
        # role "train": the dense engine's patches keep the noise that they had in training
        outputs = self.engine.fresh_outputs(config, weights, stripped, self.seed, "train", range(config.members))
        return self._fresh("distilled_without_others", stripped, self._clipped(outputs.sum(0)))

    def self_distilled(self) -> dict[str, Students]:
        """Theorem 4: trained members that go on by the clipped rule, each towards another, independent member."""
        teachers = self.outputs[self_teachers(self.config)]
        phase = Phase(lambda rows: self._clipped(teachers[list(rows)]), self.config.distill_time)
        return self._continued("self_distilled", phase, f"-of{self.config.members}")

    def labels_only(self) -> dict[str, Students]:
        """Control: trained members that go on for the same flow time, on labels alone."""
        return self._continued("labels_only", labels_only(self.samples, self.config.distill_time), "")

    def trained_jointly(self) -> dict[str, Students]:
        """Control: K networks as one of width m K: the sum of their outputs is trained, or (second) their average."""
        config, seed, together = self.config, self.seed, self.config.students
        wide = dataclasses.replace(config, neurons=config.neurons * together)
        scales, labels = np.array([1.0, 1.0 / together]), self.samples.labels
        records = {
            f"seed{seed}-trained_jointly-{kind}-of{together}": {"seed": seed, "kind": f"trained_jointly-{kind}"}
            for kind in ("sum", "average")
        }
        title, create = f"seed {seed}: {together} trained jointly", self._start(JOINT, config=wide)
        phase = Phase(lambda rows: distillation.scaled_labels(labels, scales[list(rows)]))
        arrays, *_ = train(config, self.run, self.progress, self.samples, title, records, create, [phase])
        names = ("trained_jointly", "trained_jointly_average")
        return {name: Students(wide, arrays[row : row + 1], [JOINT + row]) for row, name in enumerate(names)}

    def _clipped(self, teachers: np.ndarray) -> descent.Loss:
        return distillation.clipped(teachers, self.samples.labels, self.config.clip, self.config.soft_temperature)

    def _start(self, first: int = 0, samples: Samples | None = None, config: MultiViewConfig | None = None) -> Create:
        """Creates networks at their initial weights, numbered from `first`."""
        config, samples = config or self.config, samples or self.samples
        return lambda rows: self.engine.create(config, samples, self.seed, [first + row for row in rows])

    def _again(self, rows: Sequence[int]) -> descent.Networks:
        """Members as they were trained, with the state that checkpoints do not hold: products of weights and noise.

        They would be some MB a member, and are redone in seconds.
        """
        if self._networks is not None and set(rows) <= set(self._trained):
            return self._networks.copy([self._trained.index(row) for row in rows])
        redone = self._start()(rows)
        loss = descent.cross_entropy(self.samples.labels)
        for _ in descent.descend(redone, loss, max_steps=self.config.max_steps):
            pass
        return redone.copy(range(len(rows)))  # as above, so that both ways go on to the same bits

    def _fresh(self, kind: str, samples: Samples, loss: descent.Loss, most: int | None = None) -> dict[str, Students]:
        config, numbers = self.config, range(FRESH, FRESH + self.config.students)
        phase = Phase(lambda rows: loss, config.distill_time, most)
        return self._train(kind, numbers, samples, self._start(FRESH, samples), phase, f"-from{config.members}")

    def _continued(self, kind: str, phase: Phase, suffix: str) -> dict[str, Students]:
        rows = range(min(self.config.students, self.config.members))
        return self._train(kind, rows, self.samples, self._again, phase, suffix)

    def _train(
        self, kind: str, numbers: range, samples: Samples, create: Create, phase: Phase, suffix: str
    ) -> dict[str, Students]:
        """Through `phase` and then, until they fit, on labels."""
        # a checkpoint's name says what the network depends on, so that members can be added to a run
        records = {
            f"seed{self.seed}-{kind}{row}{suffix}": {"seed": self.seed, "kind": kind, "student": row}
            for row in range(len(numbers))
        }
        title, phases = f"seed {self.seed}: {len(numbers)} {kind}", [phase, labels_only(samples)]
        arrays, *_ = train(self.config, self.run, self.progress, samples, title, records, create, phases)
        return {kind: Students(self.config, arrays, numbers)}


def self_teachers(config: MultiViewConfig) -> np.ndarray:
    """The member that each is distilled towards: half the ensemble away, so that pairs are disjoint."""
    return (np.arange(config.members) + config.members // 2) % config.members


class Kind(NamedTuple):
    """A kind of student."""

    train: Callable[[Seed], dict[str, Students]]
    least: int = 1  # members that it needs
    swept: bool = False  # whether maps and ablations train it


# What a seed's ensemble can teach, and the controls.
KINDS = {
    "distilled": Kind(Seed.distilled, swept=True),
    "distilled_temperature": Kind(Seed.distilled_temperature),
    "distilled_mixed": Kind(Seed.distilled_mixed),
    "distilled_without_others": Kind(Seed.distilled_without_others),
    "self_distilled": Kind(Seed.self_distilled, least=2, swept=True),
    "trained_jointly": Kind(Seed.trained_jointly, least=2),
    "labels_only": Kind(Seed.labels_only, swept=True),
}


def networks(config: MultiViewConfig, kinds: Sequence[str] = tuple(KINDS)) -> int:
    """How many networks a seed trains, members and those of `kinds`."""
    sizes = dict.fromkeys(kinds, config.students)
    sizes |= {"self_distilled": min(config.students, config.members)} if "self_distilled" in sizes else {}
    sizes |= {"labels_only": min(config.students, config.members)} if "labels_only" in sizes else {}
    sizes |= {"trained_jointly": 2} if "trained_jointly" in sizes else {}
    taught = [size for kind, size in sizes.items() if config.members >= KINDS[kind].least]
    return config.members + (sum(taught) if config.students else 0)
