"""The simulation: train members, save each, test single models and ensembles, compare with what the theory expects."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from divkd.shared.errors import InputError
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.stats import summarise
from divkd.theory import dense, descent, evaluate, limit, predict
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import Samples, test_samples, training_samples

LOG_EVERY = 50  # steps
TRACE_POINTS = 200


class Engine(NamedTuple):
    """What an engine offers an experiment."""

    create: Callable[[MultiViewConfig, Samples, int, Sequence[int]], descent.Networks]
    fresh_outputs: Callable[[MultiViewConfig, np.ndarray, Samples, int, str, Sequence[int]], np.ndarray]
    state_bytes: Callable[[MultiViewConfig], int]


ENGINES = {
    "limit": Engine(limit.create, limit.fresh_outputs, limit.state_bytes),
    "dense": Engine(dense.create, dense.fresh_outputs, dense.state_bytes),
}


def check(config: MultiViewConfig) -> None:
    """Raise `InputError` for a configuration that cannot run here: values, device, memory, features without room."""
    config.validate()
    if config.engine == "dense":
        dense.check_device(config)
    needed = ENGINES[config.engine].state_bytes(config)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.9 * available:
        lower = "members, train_samples, neurons or patches"
        raise InputError(
            f"the {config.engine} engine needs {needed / 1e9:.1f} GB and this machine has {available / 1e9:.1f} GB; "
            f"lower {lower if config.engine == 'limit' else 'dimension, train_samples, test_samples or members'}"
        )
    training_samples(config, config.seeds[0])


def simulate(config: MultiViewConfig, run: Run, progress: Progress) -> dict[str, Any]:
    """Theorems 1 and 2 of Allen-Zhu and Li (arXiv 2012.09816) at finite size: the content of results.json.

    Every seed is a world of its own: one training set, `members` networks, fresh multi-view and single-view test
    samples. Errors are fractions, averaged over a seed's members; means, standard deviations and n are over seeds.
    Members are saved to `run` as they finish (checkpoints/seed<S>-member<I>), and those that are there are not
    trained again. Raises `InputError` (nothing was trained) or `RunError` (finished members stay saved).
    """
    began = time.perf_counter()
    check(config)
    worlds = [_world(config, run, progress, seed) for seed in config.seeds]
    views = {
        name: summarise(world[name] for world in worlds)
        for name in ("one_view_fraction", "lottery_accuracy", "redrawn_fraction")
    }
    return {
        "command": "simulate multiview",
        "preset": config.preset,
        "seeds": list(config.seeds),
        "claims": _claims(config, worlds),
        "views": {**{name: summary["mean"] for name, summary in views.items()}, "spread": views},
        "trace": worlds[0]["trace"],
        "config": {name: getattr(config, name) for name in ("engine", "members", "classes", "init_scale")},
        "seconds": time.perf_counter() - began,
    }


def _world(config: MultiViewConfig, run: Run, progress: Progress, seed: int) -> dict[str, Any]:
    """Train and test one seed."""
    engine = ENGINES[config.engine]
    samples = training_samples(config, seed)
    trained = _train(config, run, progress, seed, samples)
    members = range(config.members)
    weights = np.stack([arrays["weights"] for arrays in trained])
    errors = {"train": evaluate.errors_by_members(np.stack([a["train_outputs"] for a in trained]), samples.labels)}
    redrawn = samples.redrawn / len(samples)
    for kind in ("multi", "single"):
        fresh = test_samples(config, seed, kind)
        outputs = engine.fresh_outputs(config, weights, fresh, seed, kind, members)
        errors[kind] = evaluate.errors_by_members(outputs, fresh.labels)
        redrawn = max(redrawn, fresh.redrawn / len(fresh))

    strength = descent.strengths(weights, config.classes)
    learned = evaluate.learned_views(strength)
    one = learned.sum(2) == 1
    start = np.stack([arrays["strengths"][0] for arrays in trained])
    foreseen = predict.lottery_winners(start, samples, config)
    run.log(event="tested", seed=seed, errors={kind: values.tolist() for kind, values in errors.items()})
    return {
        "errors": errors,
        "learned": learned,
        "uncovered": evaluate.uncovered_by_members(learned),
        "one_view_fraction": float(one.mean()),
        "lottery_accuracy": float((foreseen == strength.argmax(2)).mean()),
        "strength": float(strength[learned].mean()),
        "redrawn_fraction": redrawn,
        "trace": _trace(trained[0]) | {"seed": seed, "member": 0, "predicted_winner": foreseen[0].tolist()},
    }


def _trace(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Strengths (T, k, 2) through flow time for the figures, thinned to what a picture can show."""
    last = len(arrays["times"]) - 1
    kept = np.unique(np.linspace(0, last, TRACE_POINTS).round().astype(int))
    return {
        name: np.vectorize(lambda x: float(f"{x:.4g}"))(arrays[name][kept]).tolist() for name in ("times", "strengths")
    }


def _train(
    config: MultiViewConfig, run: Run, progress: Progress, seed: int, samples: Samples
) -> list[dict[str, np.ndarray]]:
    """The arrays of every member's checkpoint; members without one are trained, and saved as they finish."""
    found = {member: run.load(f"seed{seed}-member{member}") for member in range(config.members)}
    missing = [member for member, checkpoint in found.items() if checkpoint is None]
    trained = {member: checkpoint[0] for member, checkpoint in found.items() if checkpoint is not None}
    if not missing:
        return [trained[member] for member in range(config.members)]

    networks = ENGINES[config.engine].create(config, samples, seed, missing)
    times, strengths, finished = [], [], 0
    with progress.task(f"seed {seed}: {len(missing)} members", len(missing)) as task:
        for step in descent.descend(networks, descent.cross_entropy(samples.labels), max_steps=config.max_steps):
            weights = networks.weights
            times.append(step.times)
            strengths.append(descent.strengths(weights, config.classes))
            for row in step.finished:
                arrays = {
                    "weights": weights[row].copy(),
                    "train_outputs": np.ascontiguousarray(networks.outputs()[row]),
                    "times": np.array([time[row] for time in times]),
                    "strengths": np.array([strength[row] for strength in strengths]),
                }
                wrong = float((arrays["train_outputs"].argmax(1) != samples.labels).mean())
                state = {"seed": seed, "member": missing[row], "steps": step.number, "train_error": wrong}
                run.save(f"seed{seed}-member{missing[row]}", arrays, state)
                run.log(event="fitted", **state, flow_time=float(step.times[row]), loss=float(step.losses[row]))
                trained[missing[row]] = arrays
                finished += 1
            if step.number % LOG_EVERY == 0:
                run.log(event="step", seed=seed, step=step.number, losses=step.losses.tolist(), active=step.active)
            task.update(finished, note=f"step {step.number}, loss {step.losses.max():.3g}")
    return [trained[member] for member in range(config.members)]


def _claims(config: MultiViewConfig, worlds: list[dict[str, Any]]) -> dict[str, Any]:
    """claims.single and claims.ensemble, measured beside predicted.

    The finite-size prediction takes two numbers from the networks, averaged over seeds: the share of classes with both
    views known, and the strength of a learned view.
    """
    ties = 1 - float(np.mean([world["one_view_fraction"] for world in worlds]))
    strength = float(np.mean([world["strength"] for world in worlds]))

    def claim(index: int) -> dict[str, Any]:
        return {
            f"{name}_error": summarise(float(world["errors"][kind][index]) for world in worlds)
            for name, kind in (("train", "train"), ("multi_view", "multi"), ("single_view", "single"))
        }

    covered = [predict.coverage_errors(config, world["learned"], world["strength"]) for world in worlds]
    by_members = []
    for index in range(config.members):
        summary = summarise(float(world["errors"]["single"][index]) for world in worlds)
        by_members.append(
            {
                "members": index + 1,
                "single_view_error": summary["mean"],
                "std": summary["std"],
                "n": summary["n"],
                "predicted": predict.ensemble_error(config, index + 1, ties, strength),
                "predicted_from_views": float(np.mean([given[index] for given in covered])),
                "asymptotic": 0.5 ** (index + 1),
                "uncovered": float(np.mean([world["uncovered"][index] for world in worlds])),
            }
        )
    single = claim(0) | {"predicted": predict.single_error(config, ties), "bound": [0.49, 0.51]}
    ensemble = claim(config.members - 1) | {"members": config.members, "predicted": by_members[-1]["predicted"]}
    return {"single": single, "ensemble": ensemble | {"bound": [0.0, 0.001], "by_members": by_members}}
