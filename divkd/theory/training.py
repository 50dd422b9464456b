"""Train networks through phases, save each as it finishes, and train only those that are missing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.theory import descent
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import NOISE, Samples

LOG_EVERY = 50  # steps

Arrays = dict[str, np.ndarray]
Create = Callable[[Sequence[int]], descent.Networks]  # from rows of a group
Record = tuple[str, dict[str, Any]]  # the name of a network's checkpoint, and what the log says of it


class Phase(NamedTuple):
    """One descent: the loss of the networks that are trained (their rows in the whole group), and when it ends.

    It lasts for `flow_time` or, where none is given, until the labels are fitted. `most_steps` ends it early, for a
    phase that others follow; without it, too many steps are an error.
    """

    loss: Callable[[Sequence[int]], descent.Loss]
    flow_time: float = np.inf
    most_steps: int | None = None


def labels_only(samples: Samples, flow_time: float = np.inf) -> Phase:
    """Cross-entropy on the labels."""
    return Phase(lambda rows: descent.cross_entropy(samples.labels), flow_time)


def train(
    config: MultiViewConfig,
    run: Run,
    progress: Progress,
    samples: Samples,
    title: str,
    records: Mapping[int, Record],
    create: Create,
    phases: Sequence[Phase],
) -> tuple[dict[int, Arrays], descent.Networks | None, list[int]]:
    """The arrays of networks by their row, and those that were trained now, side by side, and their rows (None: none).

    A checkpoint has `weights` (k, m, >= V k), `train_outputs` (N, k), and what figures need of every step: `times`
    (T,), `strengths` (T, k, V), `single_losses` (T, S) of the S single-view training samples, `multi_losses` (T,) the
    mean over the multi-view ones. A network's bits do not depend on the others beside it, so that a run that was killed
    ends as it would have.
    """
    saved = {row: run.resumed(name, progress.say) for row, (name, _) in records.items()}
    trained = {row: checkpoint[0] for row, checkpoint in saved.items() if checkpoint is not None}
    for row, arrays in trained.items():
        if not _fits(arrays, config, samples):
            raise run.misfit(records[row][0], "its arrays are not those of this configuration")
    missing = [row for row in records if row not in trained]
    progress.there(len(trained))
    if not missing:
        return trained, None, []

    networks = create(missing)
    single, multi = np.flatnonzero(samples.views != NOISE), np.flatnonzero(samples.views == NOISE)
    traces: list[Arrays] = []
    steps = -1  # the first record is the start
    with progress.task(title, len(missing), networks=len(missing)) as task:
        for phase in phases:
            began = traces[-1]["times"][-1] if traces else np.zeros(len(missing))
            for step in descent.descend(
                networks,
                phase.loss(missing),
                max_steps=config.max_steps,
                flow_time=phase.flow_time,
                most_steps=phase.most_steps,
                stretch=LOG_EVERY,
            ):
                times, losses, strengths = step.trace
                traces.append(
                    {
                        "times": began + times,
                        "strengths": strengths,
                        "single_losses": losses.take(single, 2),
                        "multi_losses": losses.take(multi, 2).mean(2),
                    }
                )
                steps += len(times)
                for place in step.finished if phase is phases[-1] else ():
                    outputs = np.ascontiguousarray(networks.outputs()[place])
                    arrays = {"weights": networks.weights[place].copy(), "train_outputs": outputs} | _of(place, traces)
                    wrong, (name, known) = float((outputs.argmax(1) != samples.labels).mean()), records[missing[place]]
                    record = {**known, "steps": len(arrays["times"]) - 1, "train_error": wrong}
                    # the line first: after a kill between the two it is written again, and never missing
                    run.log(
                        event="fitted",
                        **record,
                        network=name,
                        flow_time=float(arrays["times"][-1]),
                        loss=step.losses[place],
                    )
                    run.save(name, arrays, record)
                    trained[missing[place]] = arrays
                if step.number % LOG_EVERY == 0:
                    run.log(event="step", title=title, step=steps, losses=step.losses, active=step.active)
                finished = len(trained) + len(missing) - len(records)
                task.update(finished, note=f"step {steps}, loss {step.losses.max():.3g}")
    return {row: trained[row] for row in records}, networks, missing


def _fits(arrays: Arrays, config: MultiViewConfig, samples: Samples) -> bool:
    """Whether a checkpoint has the arrays that `train` documents."""
    shapes = {name: array.shape for name, array in arrays.items()}
    weights, steps = shapes.pop("weights", ()), shapes.get("times", (0,))[:1]
    expected = {
        "train_outputs": (len(samples), config.classes),
        "times": steps,
        "strengths": (*steps, config.classes, config.views),
        "single_losses": (*steps, int((samples.views != NOISE).sum())),
        "multi_losses": steps,
    }
    fits = shapes == expected and steps != (0,) and all(array.dtype.kind == "f" for array in arrays.values())
    return fits and len(weights) == 3 and weights[0] == config.classes and weights[2] >= config.features


def _of(row: int, traces: Sequence[Arrays]) -> Arrays:
    """What `traces` say of a network, without steps at which it stood still, waiting for others: they depend on who."""
    times = np.concatenate([part["times"][:, row] for part in traces])
    moved = np.append(True, np.diff(times) > 0)
    return {name: np.concatenate([part[name][:, row] for part in traces])[moved] for name in traces[0]}
