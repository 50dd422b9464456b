"""Train networks through phases, save each as it finishes, and train only those that are missing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.theory import descent
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import NOISE, Samples

LOG_EVERY = 50  # steps

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Phase:
    """One descent: the loss of the networks that are trained (their rows in the whole group), and when it ends.

    `most_steps` ends it early, for a phase that others follow; without it, too many steps are an error.
    """

    loss: Callable[[Sequence[int]], descent.Loss]
    flow_time: float = np.inf
    done: Callable[[np.ndarray], np.ndarray] | None = descent.fitted
    most_steps: int | None = None


@dataclass(frozen=True)
class Group:
    """Networks that are trained side by side: `names` of their checkpoints, what the log says of each, a title."""

    title: str
    names: Sequence[str]
    records: Sequence[dict[str, Any]]
    create: Callable[[Sequence[int]], descent.Networks]  # from rows of `names`
    phases: Sequence[Phase]


def labels_only(samples: Samples, *, flow_time: float = np.inf) -> Phase:
    """Cross-entropy on the labels: until they are fitted or, where one is given, for a flow time."""
    done = descent.fitted if np.isinf(flow_time) else None
    return Phase(lambda rows: descent.cross_entropy(samples.labels), flow_time, done)


def train(
    config: MultiViewConfig, run: Run, progress: Progress, samples: Samples, group: Group
) -> tuple[list[Arrays], descent.Networks | None, list[int]]:
    """The arrays of every network of `group`, and the networks that were trained now with their rows (None: all saved).

    A checkpoint holds `weights` (k, m, >= 2k), `train_outputs` (N, k), and what figures need of every step: `times`
    (T,), `strengths` (T, k, 2), `single_losses` (T, S) of the S single-view training samples, `multi_losses` (T,) the
    mean over the multi-view ones. A network's bits do not depend on the others beside it, so that a run that was
    killed ends as it would have.
    """
    saved = [run.load(name) for name in group.names]
    trained = {row: checkpoint[0] for row, checkpoint in enumerate(saved) if checkpoint is not None}
    for row, arrays in trained.items():
        if not _fits(arrays, config, samples):
            raise run.damaged(group.names[row], "its arrays are not those of this configuration")
    missing = [row for row in range(len(saved)) if row not in trained]
    if not missing:
        return list(trained.values()), None, []

    networks = group.create(missing)
    traces = _Traces(config, samples, len(missing))
    finished, number = 0, 0
    with progress.task(group.title, len(missing)) as task:
        for phase in group.phases:
            last = phase is group.phases[-1]
            traces.new_phase()
            loss = phase.loss(missing)
            for step in descent.descend(
                networks, loss, max_steps=config.max_steps, done=phase.done, flow_time=phase.flow_time
            ):
                traces.add(step, networks.weights)
                for row in step.finished if last else ():
                    outputs = np.ascontiguousarray(networks.outputs()[row])
                    arrays = {"weights": networks.weights[row].copy(), "train_outputs": outputs} | traces.of(row)
                    wrong = float((outputs.argmax(1) != samples.labels).mean())
                    steps = len(arrays["times"]) - 1
                    record = {**group.records[missing[row]], "steps": steps, "train_error": wrong}
                    run.save(group.names[missing[row]], arrays, record)
                    run.log(event="fitted", **record, flow_time=float(arrays["times"][-1]), loss=step.losses[row])
                    trained[missing[row]] = arrays
                    finished += 1
                if number % LOG_EVERY == 0:
                    run.log(event="step", title=group.title, step=number, losses=step.losses, active=step.active)
                task.update(finished, note=f"step {number}, loss {step.losses.max():.3g}")
                number += 1
                if step.number == phase.most_steps:
                    break
    return [trained[row] for row in range(len(saved))], networks, missing


def _fits(arrays: Arrays, config: MultiViewConfig, samples: Samples) -> bool:
    """Whether a checkpoint has the arrays that `train` documents."""
    shapes = {name: array.shape for name, array in arrays.items()}
    weights, steps = shapes.pop("weights", ()), shapes.get("times", (0,))[:1]
    single = int((samples.views != NOISE).sum())
    expected = {
        "train_outputs": (len(samples), config.classes),
        "times": steps,
        "strengths": (*steps, config.classes, 2),
        "single_losses": (*steps, single),
        "multi_losses": steps,
    }
    return (
        shapes == expected
        and steps != (0,)
        and len(weights) == 3
        and weights[0] == config.classes
        and weights[2] >= 2 * config.classes
    )


class _Traces:
    """What the figures need of every step, kept for every network; phases follow each other in time."""

    def __init__(self, config: MultiViewConfig, samples: Samples, networks: int) -> None:
        self.classes, self.single = config.classes, samples.views != NOISE
        self.began = np.zeros(networks)  # when the phase began, per network
        self.records: list[Arrays] = []

    def new_phase(self) -> None:
        if self.records:
            self.began = self.records[-1]["times"]

    def add(self, step: descent.Step, weights: np.ndarray) -> None:
        self.records.append(
            {
                "times": self.began + step.times,
                "strengths": descent.strengths(weights, self.classes),
                "single_losses": np.ascontiguousarray(step.sample_losses[:, self.single]),
                # contiguous: else a sum's order, and with it the bits, would depend on the number of networks
                "multi_losses": np.ascontiguousarray(step.sample_losses[:, ~self.single]).mean(1),
            }
        )

    def of(self, row: int) -> Arrays:
        """Without the steps at which the network stood still, waiting for others: they depend on who they were."""
        times = np.array([record["times"][row] for record in self.records])
        moved = [0, *(1 + np.flatnonzero(np.diff(times) > 0)).tolist()]
        return {name: np.array([self.records[step][name][row] for step in moved]) for name in self.records[0]}
