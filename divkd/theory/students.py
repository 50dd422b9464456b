"""The networks of one seed: members, students and their controls: which learn from which, or without what they need.

Fresh students start from the same initial weights whatever they learn by, so that the rules are compared in pairs.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.theory import descent, distillation
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import TESTS, VALIDATION, Samples, fresh_samples, training_samples
from divkd.theory.descent import engine
from divkd.theory.roster import CHAIN, FRESH, JOINT, KINDS, checkpoint, continued, pairs, rows_of, self_teachers
from divkd.theory.training import Arrays, Create, Phase, labels_only, train


class Students(NamedTuple):
    """Networks of one kind, trained: how they were configured, the numbers that their test noise is drawn by."""

    config: MultiViewConfig
    arrays: list[Arrays]
    numbers: Sequence[int]


class Seed:
    """One seed: its samples, its members, and by `students` those who learn from them.

    Networks are trained when they are asked for, or read from their checkpoints: any process may train any of them.
    `kinds` are those of its students (some of `KINDS`), as far as so many members can teach them. The method of a kind
    returns its networks `rows` by the claim that they serve. `validated`: fresh samples are drawn for validation too.
    """

    def __init__(
        self,
        config: MultiViewConfig,
        run: Run,
        progress: Progress,
        seed: int,
        kinds: Sequence[str] | None = None,
        *,
        validated: bool = True,
    ) -> None:
        self.config, self.run, self.progress, self.seed = config, run, progress, seed
        self.engine = engine(config.engine)
        self.kinds = [kind for kind in (KINDS if kinds is None else kinds) if rows_of(config, kind)]
        self.samples = training_samples(config, seed)
        self.validated = validated
        self._members: dict[int, Arrays] = {}
        self._beside: tuple[descent.Networks, list[int]] | None = None  # members that have just been trained

    @functools.cached_property
    def tests(self) -> dict[str, Samples]:
        """Fresh samples, by the name of the error on them, and those of validation."""
        drawn = {name: fresh_samples(self.config, self.seed, kind) for name, kind in TESTS.items()}
        for name, kind in TESTS.items() if self.validated else ():
            drawn[VALIDATION + name] = fresh_samples(self.config, self.seed, kind, "validation")
        return drawn

    @property
    def members(self) -> list[Arrays]:
        """All of them."""
        return self.train_members(range(self.config.members))

    @functools.cached_property
    def outputs(self) -> np.ndarray:
        """F of the members on the training samples, (M, N, k)."""
        return np.stack([arrays["train_outputs"] for arrays in self.members])

    def train_members(self, rows: Sequence[int]) -> list[Arrays]:
        """The members `rows`, and while they are in memory, what goes on from them with a teacher among them."""
        wanted = set(rows) - self._members.keys()
        order = [row for pair in pairs(self.config) for row in pair if row in wanted]
        for block in _blocks(order, 2 * max(1, self.engine.together(self.config) // 2)):
            about = {row: {"seed": self.seed, "member": row} for row in block}
            records = {row: (checkpoint(self.config, self.seed, "member", row), about[row]) for row in block}
            title = f"seed {self.seed}: {len(block)} members"
            arrays, networks, trained = train(
                self.config, self.run, self.progress, self.samples, title, records, self._start(),
                [labels_only(self.samples)],
            )  # fmt: skip
            self._members |= arrays
            if networks is not None:
                self._beside = networks, trained
                for kind in self.kinds:
                    self.train(kind, continued(self.config, kind, trained))
                self._beside = None
        return [self._members[row] for row in rows]

    def networks(self) -> dict[str, Students]:
        """All members and students, by the name of their claim."""
        everyone = {"single": Students(self.config, self.members, range(self.config.members))}
        for kind in self.kinds:
            everyone |= self.train(kind, rows_of(self.config, kind))
        return everyone

    def train(self, kind: str, rows: Sequence[int]) -> dict[str, Students]:
        """The networks `rows` of a kind, by the claim that they serve."""
        if kind in CHAIN:
            return self.chained(kind, rows)
        method: Callable[[Sequence[int]], dict[str, Students]] = getattr(self, kind)
        return method(rows)

    def distilled(self, rows: Sequence[int]) -> dict[str, Students]:
        """Theorem 3: fresh networks by the clipped rule, from the sum of the members' outputs."""
        return self._fresh("distilled", rows, self.samples, lambda: self._clipped(self.outputs.sum(0)))

    def distilled_temperature(self, rows: Sequence[int]) -> dict[str, Students]:
        """Fresh networks by ordinary distillation at temperature T, from the sum of the members' outputs."""

        def loss() -> descent.Loss:
            return distillation.at_temperature(self.outputs.sum(0), self.samples.labels, self.config.temperature)

        return self._fresh("distilled_temperature", rows, self.samples, loss, self.config.soft_steps)

    def distilled_mixed(self, rows: Sequence[int]) -> dict[str, Students]:
        """Fresh networks by t CE + (1 - t) H(S, T), T the softmax of the mean of the members' outputs."""

        def loss() -> descent.Loss:
            return distillation.mixed(self.outputs.mean(0), self.samples.labels, self.config.label_share)

        return self._fresh("distilled_mixed", rows, self.samples, loss, self.config.soft_steps)

    def distilled_without_others(self, rows: Sequence[int]) -> dict[str, Students]:
        """Control: as `distilled`, where no training sample shows another class's feature, to teacher or student."""
        config, stripped = self.config, distillation.without_others(self.samples, self.config.views)

        def loss() -> descent.Loss:
            weights = np.stack([arrays["weights"] for arrays in self.members])
            # role "train": the dense engine's patches keep the noise that they had in training
            outputs = self.engine.fresh_outputs(config, weights, stripped, self.seed, "train", range(config.members))
            return self._clipped(outputs.sum(0))

        return self._fresh("distilled_without_others", rows, stripped, loss)

    def self_distilled(self, rows: Sequence[int]) -> dict[str, Students]:
        """Theorem 4: trained members that go on by the clipped rule, each towards another, independent member."""
        teachers = self_teachers(self.config)

        def loss(rows: Sequence[int]) -> descent.Loss:
            others = self.train_members(teachers[list(rows)].tolist())
            return self._clipped(np.stack([arrays["train_outputs"] for arrays in others]))

        phase = Phase(loss, self.config.distill_time)
        return self._continued("self_distilled", rows, phase)

    def chained(self, kind: str, rows: Sequence[int]) -> dict[str, Students]:
        """Self-distillation as drawn: S_1 is fresh and learns by the clipped rule from a member, S_2 from S_1, ...

        The clip c is that of the ensemble's sum. Where another class shows a view that it knows, one network's output
        is 1.5 c in the median, so that min(F / c, 1) says of one what it says of a sum: whether some network knows it.
        """
        start, link = KINDS[kind].start, KINDS[kind].link

        def loss(rows: Sequence[int]) -> descent.Loss:
            before = self.chain_teachers(link, rows)
            return self._clipped(np.stack([arrays["train_outputs"] for arrays in before]))

        phases = [Phase(loss, self.config.distill_time), labels_only(self.samples)]
        arrays = self._train(kind, self.config, self.samples, rows, self._start(start), phases)
        return {kind: Students(self.config, list(arrays.values()), [start + row for row in rows])}

    def chain_teachers(self, link: int, rows: Sequence[int]) -> list[Arrays]:
        """The networks that a link's `rows` learn from: members, or the link before."""
        before = f"chain_{link - 1}"
        return self.train_members(rows) if link == 1 else self.chained(before, rows)[before].arrays

    def labels_only(self, rows: Sequence[int]) -> dict[str, Students]:
        """Control: trained members that go on for the same flow time, on labels alone."""
        return self._continued("labels_only", rows, labels_only(self.samples, self.config.distill_time))

    def trained_jointly(self, rows: Sequence[int]) -> dict[str, Students]:
        """Control: K networks as one of width m K: the sum of their outputs is trained, or (second) their average."""
        together, scales = self.config.joint, np.array([1.0, 1.0 / self.config.joint])
        wide = dataclasses.replace(self.config, neurons=self.config.neurons * together)
        phase = Phase(lambda rows: distillation.scaled_labels(self.samples.labels, scales[list(rows)]))
        create = self._start(JOINT, config=wide)
        arrays = self._train("trained_jointly", wide, self.samples, rows, create, [phase])
        names = ("trained_jointly", "trained_jointly_average")
        return {names[row]: Students(wide, [one], [JOINT + row]) for row, one in arrays.items()}

    def _clipped(self, teachers: np.ndarray) -> descent.Loss:
        return distillation.clipped(teachers, self.samples.labels, self.config.clip, self.config.soft_temperature)

    def _start(self, first: int = 0, samples: Samples | None = None, config: MultiViewConfig | None = None) -> Create:
        """Creates networks at their initial weights, numbered from `first`."""
        config, samples = config or self.config, samples or self.samples
        return lambda rows: self.engine.create(config, samples, self.seed, [first + row for row in rows])

    def _again(self, rows: Sequence[int]) -> descent.Networks:
        """Members as they were trained, with the state that checkpoints do not hold: products of weights and noise.

        They would be many MB a member. Where members are no longer in memory, their descent is redone.
        """
        if self._beside is not None and set(rows) <= set(self._beside[1]):
            networks, there = self._beside
            return networks.copy([there.index(row) for row in rows])
        redone = self._start()(rows)
        loss = descent.cross_entropy(self.samples.labels)
        for _ in descent.descend(redone, loss, max_steps=self.config.max_steps):
            pass
        return redone.copy(range(len(rows)))  # as above, so that both ways go on to the same bits

    def _fresh(
        self,
        kind: str,
        rows: Sequence[int],
        samples: Samples,
        loss: Callable[[], descent.Loss],
        most: int | None = None,
    ) -> dict[str, Students]:
        made = functools.cache(loss)  # when the first has to be trained
        phases = [Phase(lambda rows: made(), self.config.distill_time, most), labels_only(samples)]
        arrays = self._train(kind, self.config, samples, rows, self._start(FRESH, samples), phases)
        return {kind: Students(self.config, list(arrays.values()), [FRESH + row for row in rows])}

    def _continued(self, kind: str, rows: Sequence[int], phase: Phase) -> dict[str, Students]:
        """Through `phase` and then, until they fit, on labels."""
        phases = [phase, labels_only(self.samples)]
        arrays = self._train(kind, self.config, self.samples, rows, self._again, phases)
        return {kind: Students(self.config, list(arrays.values()), list(rows))}

    def _train(
        self,
        kind: str,
        config: MultiViewConfig,
        samples: Samples,
        rows: Sequence[int],
        create: Create,
        phases: Sequence[Phase],
    ) -> dict[int, Arrays]:
        """The networks `rows` of a kind, as many at once as memory is meant for."""
        arrays: dict[int, Arrays] = {}
        for block in _blocks(rows, self.engine.together(config)):
            title, about = f"seed {self.seed}: {len(block)} {kind}", {"seed": self.seed, "kind": kind}
            records = {row: (checkpoint(self.config, self.seed, kind, row), {**about, "student": row}) for row in block}
            arrays |= train(self.config, self.run, self.progress, samples, title, records, create, phases)[0]
        return arrays


def _blocks(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (rows[first : first + size] for first in range(0, len(rows), size))
