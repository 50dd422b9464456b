"""The simulation: train members and students, test them, compare with what the theory expects."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from divkd.shared.errors import InputError
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.theory import claims, descent, evaluate, predict, traces
from divkd.theory.claims import SeedResult
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import training_samples
from divkd.theory.engines import engine
from divkd.theory.students import KINDS, TESTS, Seed, Students, self_teachers
from divkd.theory.training import Arrays

TOGETHER = {"single": "ensemble", "distilled": "ensemble_of_distilled"}  # the claim of all networks of a kind


def check(config: MultiViewConfig) -> None:
    """Raise `InputError` for a configuration that cannot run here: values, device, memory, features without room."""
    config.validate()
    if config.engine == "dense":
        from divkd.theory import dense

        dense.check_device(config)
    needed = engine(config.engine).state_bytes(config)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.9 * available:
        lower = "members, train_samples, neurons or patches"
        raise InputError(
            f"the {config.engine} engine needs {needed / 1e9:.1f} GB and this machine has {available / 1e9:.1f} GB; "
            f"lower {lower if config.engine == 'limit' else 'dimension, train_samples, test_samples or members'}"
        )
    training_samples(config, config.seeds[0])


def simulate(config: MultiViewConfig, run: Run, progress: Progress) -> dict[str, Any]:
    """Theorems 1 to 4 of Allen-Zhu and Li (arXiv 2012.09816) at finite size: the content of results.json.

    Every seed is a world of its own: one training set, `members` networks, `students` of every kind, fresh multi-view
    and single-view test samples. Errors are fractions, averaged over a seed's networks of a kind; means, standard
    deviations and n are over seeds. Networks are saved to `run` as they finish (checkpoints/seed<S>-member<I>,
    seed<S>-<kind><I>...), and those that are there are not trained again. Raises `InputError` (nothing was trained) or
    `RunError` (finished networks stay saved).
    """
    began = time.perf_counter()
    check(config)
    first = config.seeds[0]
    seeds = [measure(Seed(config, run, progress, seed), with_traces=seed == first) for seed in config.seeds]
    views = claims.view_shares(seeds)
    return {
        "command": "simulate multiview",
        "preset": config.preset,
        "seeds": list(config.seeds),
        "claims": claims.table(config, seeds),
        "rows": [
            {"claim": claim, "seed": seed, **{f"{of}_error": error for of, error in errors.items()}}
            for seed, one in zip(config.seeds, seeds, strict=True)
            for claim, errors in one.errors.items()
        ],
        "views": {**{name: summary["mean"] for name, summary in views.items()}, "spread": views},
        **seeds[0].traces,
        "config": {name: getattr(config, name) for name in ("engine", "members", "classes", "init_scale", "clip")},
        "seconds": time.perf_counter() - began,
    }


def measure(seed: Seed, kinds: Sequence[str] = tuple(KINDS), *, with_traces: bool = False) -> SeedResult:
    """Measure the members of `seed` and the `kinds` of students; `with_traces` adds what figures show."""
    config, samples = seed.config, seed.samples
    taught = seed.students(kinds)
    strength = _strengths(seed.members, config)
    learned = evaluate.learned_views(strength)
    known = float(strength[learned].mean())
    foreseen = predict.lottery_winners(np.stack([one["strengths"][0] for one in seed.members]), samples, config)
    views = {
        "one_view_fraction": float((learned.sum(2) == 1).mean()),
        "lottery_accuracy": float((foreseen == strength.argmax(2)).mean()),
        "redrawn_fraction": max(s.redrawn / len(s) for s in (samples, *seed.tests.values())),
    }
    unions: dict[str, np.ndarray] = {"union": np.asarray(learned.any(0))[None]}  # what teachers know between them
    students = {name: evaluate.learned_views(_strengths(kind.arrays, config)) for name, kind in taught.items()}
    if "distilled" in students:
        views["distilled_views"] = float(students["distilled"].mean())
    if "self_distilled" in students:
        after = students["self_distilled"]
        pair = unions["pair"] = (learned | learned[self_teachers(config)])[: len(after)]
        outside = after[~pair]
        views["learned_inside_union"] = float(after[pair].mean())
        views["learned_outside_union"] = float(outside.mean()) if outside.size else float("nan")

    errors: dict[str, dict[str, float]] = {}
    by_members = _errors(seed, {"single": Students(config, seed.members, range(config.members)), **taught})
    for name, ensembles in by_members.items():
        errors[name] = {of: float(values[0]) for of, values in ensembles.items()}
        if name in TOGETHER:
            errors[TOGETHER[name]] = {of: float(values[-1]) for of, values in ensembles.items()}
    seed.run.log(event="tested", seed=seed.seed, errors=errors)
    return SeedResult(
        errors=errors,
        by_members=by_members["single"]["single_view"],
        covered=predict.coverage_errors(config, learned, known),
        uncovered=evaluate.uncovered_by_members(learned),
        strength=known,
        views=views,
        predicted={of: float(predict.coverage_errors(config, union, known)[0]) for of, union in unions.items()},
        traces=traces.of_seed(seed, taught) if with_traces else {},
    )


def _errors(seed: Seed, kinds: Mapping[str, Students]) -> dict[str, dict[str, np.ndarray]]:
    """Errors of ensembles of 1, 2, ... of the networks of every kind, per kind of samples."""
    errors: dict[str, dict[str, np.ndarray]] = {}
    for name, kind in kinds.items():
        trained = np.stack([one["train_outputs"] for one in kind.arrays])
        errors[name] = {"train": evaluate.errors_by_members(trained, seed.samples.labels)}
    for config in dict.fromkeys(kind.config for kind in kinds.values()):
        # together, because networks of the same number meet the same noise, which is drawn once
        same = {name: kind for name, kind in kinds.items() if kind.config == config}
        weights = np.stack([one["weights"] for kind in same.values() for one in kind.arrays])
        numbers = [number for kind in same.values() for number in kind.numbers]
        ends = np.cumsum([len(kind.arrays) for kind in same.values()])
        for of, samples in seed.tests.items():
            outputs = seed.engine.fresh_outputs(config, weights, samples, seed.seed, TESTS[of], numbers)
            for name, part in zip(same, np.split(outputs, ends[:-1]), strict=True):
                errors[name][of] = evaluate.errors_by_members(part, samples.labels)
    share = seed.config.single_share
    for of_kind in errors.values():
        of_kind["test"] = (1 - share) * of_kind["multi_view"] + share * of_kind["single_view"]
    return errors


def _strengths(arrays: Sequence[Arrays], config: MultiViewConfig) -> np.ndarray:
    return descent.strengths(np.stack([one["weights"] for one in arrays]), config.classes)
