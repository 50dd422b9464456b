"""What learns from teachers: one record a kind of student. Its name in tables stands in `divkd.shared.kinds.STUDENTS`.

A new kind is a file that says how it is made of a plain network, a record here and a name there: training, analysis,
cost, results and restoring ask the record.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from divkd.empirical.networks.ensembles import DeepEnsemble, Ensemble, to_batch_ensemble


@dataclass(frozen=True)
class Student:
    """A kind of student of M teachers."""

    name: str  # in configurations, in results.json as the model, and in the names of checkpoints
    create: Callable[[nn.Module, int, int], Ensemble]  # of a plain network, M and the seed; `rows` members
    alone: bool  # one row that learns from all teachers; else a row for each, M of them
    merges: bool = False  # into one plain network of mean factors, the model "merged"

    def rows(self, teachers: int) -> int:
        """The length of its member axis."""
        return 1 if self.alone else teachers

    def checkpoint(self, method: str, teachers: int, seed: int) -> str:
        """The name of its checkpoint."""
        if not self.alone:
            return f"seed{seed}-{self.name}{teachers}-{method}"
        # Without distillation the number of teachers makes no difference, and no other checkpoint.
        return f"seed{seed}-{self.name}-{method}" + ("" if method == "none" else f"-from{teachers}")


STUDENTS = {
    kind.name: kind
    for kind in (
        Student("batch_ensemble", partial(to_batch_ensemble, init="normal"), alone=False, merges=True),
        Student("single", lambda net, members, seed: DeepEnsemble([net]), alone=True),
    )
}


def student_of(model: str) -> Student:
    """The student whose checkpoint holds the `model`, a key of `divkd.shared.kinds.MODELS` but the deep ensemble."""
    return next(kind for kind in STUDENTS.values() if kind.name == model or (kind.merges and model == "merged"))


def rows_of(model: str, members: int) -> int:
    """The length of the member axis of a `model` of a run with `members` teachers."""
    if model == "merged":
        return 1
    return members if model == "deep_ensemble" else STUDENTS[model].rows(members)
