"""The simulation: train members and students, test them, compare with what the theory expects."""

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from divkd.shared.errors import InputError
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.theory import claims, descent, evaluate, predict, traces
from divkd.theory.claims import SeedResult
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import training_samples
from divkd.theory.engines import engine
from divkd.theory.students import KINDS, TESTS, Seed, Students, continued, networks, pairs, rows_of, self_teachers
from divkd.theory.training import Arrays

SHARE = (
    8.0  # of a seed's work, in trainings of a member: about what a job takes at most, where networks can be dealt out
)
TESTING = 0.2  # what testing a network takes
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
    records = {}
    for seed in config.seeds:
        for job in seed_jobs(config, seed, with_traces=seed == config.seeds[0]):
            records[job.name] = job.work(run, progress)
    seeds = [SeedResult(**records[_measured(seed)]) for seed in config.seeds]
    views = claims.view_shares(seeds)
    return {
        "command": "simulate multiview",
        "preset": config.preset,
        "seeds": list(config.seeds),
        "claims": claims.table(config, seeds),
        "views": {**{name: summary["mean"] for name, summary in views.items()}, "spread": views},
        **seeds[0].traces,
        "config": {name: getattr(config, name) for name in ("engine", "members", "classes", "init_scale", "clip")},
        "seconds": time.perf_counter() - began,
    }


class Job(NamedTuple):
    """A part of a seed's work; any process can do it when those that it comes `after` are done."""

    name: str
    work: Callable[[Run, Progress], dict[str, Any]]  # returns a record of JSON's types
    after: tuple[str, ...] = ()
    networks: int = 0  # that it trains
    cost: float = 1.0  # in trainings of a member of `default`
    memory: int = 0  # bytes


def seed_jobs(config: MultiViewConfig, seed: int, *, with_traces: bool = False) -> list[Job]:
    """The parts of `seed`: its members in pairs with what goes on from them, its students, and the measurement.

    All leave their networks in checkpoints, and what they read of others they read there; the record of the last is a
    `SeedResult`.
    """
    memory = engine(config.engine).state_bytes(config)
    jobs: list[Job] = []

    def add(name: str, kind: str | None, rows: Sequence[int], networks: int, cost: float, after: Sequence[Job]) -> None:
        work = partial(_train, config, seed, kind, tuple(rows))
        jobs.append(Job(name, work, tuple(job.name for job in after), networks, cost, memory))

    rest = {kind: list(rows_of(config, kind)) for kind in KINDS}
    taught = {kind: continued(config, kind, range(config.members)) for kind in KINDS}
    each = 1 + sum(KINDS[kind].cost * len(rows) for kind, rows in taught.items()) / config.members
    for some in _dealt(pairs(config), 2 * each):
        rows = [row for pair in some for row in pair]
        taught = {kind: continued(config, kind, rows) for kind in KINDS}
        rest = {kind: [row for row in left if row not in taught[kind]] for kind, left in rest.items()}
        name = f"seed{seed}-members{rows[0]}-of{config.members}"
        add(name, None, rows, len(rows) + sum(map(len, taught.values())), each * len(rows), ())
    members = tuple(jobs)
    for kind, left in rest.items():
        cost = KINDS[kind].cost * (config.students if kind == "trained_jointly" else 1)
        for rows in _dealt(left, cost):
            name = f"seed{seed}-{kind}{rows[0]}-of{config.members}"
            add(name, kind, rows, len(rows), cost * len(rows), () if kind == "trained_jointly" else members)
    work, cost = partial(_measure, config, seed, with_traces), TESTING * networks(config)
    jobs.append(Job(_measured(seed), work, tuple(job.name for job in jobs), 0, cost, memory))
    return jobs


def _dealt(rows: Sequence[Any], cost: float) -> list[list[Any]]:
    """`rows` of some `cost` each in parts as even as can be."""
    parts = max(1, min(len(rows), round(cost * len(rows) / SHARE)))
    ends = [len(rows) * part // parts for part in range(parts + 1)]
    return [list(rows[low:high]) for low, high in itertools.pairwise(ends) if low < high]


def _measured(seed: int) -> str:
    return f"seed{seed}-measured"


def _train(
    config: MultiViewConfig, seed: int, kind: str | None, rows: Sequence[int], run: Run, progress: Progress
) -> dict[str, Any]:
    """Train the members `rows` (no `kind`), or students of a kind."""
    one = Seed(config, run, progress, seed)
    if kind is None:
        one.train_members(rows)
    else:
        KINDS[kind].train(one, rows)
    return {}


def _measure(config: MultiViewConfig, seed: int, with_traces: bool, run: Run, progress: Progress) -> dict[str, Any]:
    return measure(Seed(config, run, progress, seed), with_traces=with_traces)._asdict()


def measure(seed: Seed, *, with_traces: bool = False) -> SeedResult:
    """Measure the members and students of `seed`, trained here or read; `with_traces` adds what figures show."""
    config, samples, members = seed.config, seed.samples, seed.members
    taught = seed.students()
    strength = _strengths(members, config)
    learned = evaluate.learned_views(strength)
    known = float(strength[learned].mean())
    foreseen = predict.lottery_winners(np.stack([one["strengths"][0] for one in members]), samples, config)
    views: dict[str, Any] = {
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
        views["learned_outside_union"] = float(outside.mean()) if outside.size else None

    errors: dict[str, dict[str, float]] = {}
    by_members = _errors(seed, {"single": Students(config, members, range(config.members)), **taught})
    for name, ensembles in by_members.items():
        errors[name] = {of: float(values[0]) for of, values in ensembles.items()}
        if name in TOGETHER:
            errors[TOGETHER[name]] = {of: float(values[-1]) for of, values in ensembles.items()}
    seed.run.log(event="tested", seed=seed.seed, errors=errors)
    return SeedResult(
        errors=errors,
        by_members=by_members["single"]["single_view"].tolist(),
        covered=predict.coverage_errors(config, learned, known).tolist(),
        uncovered=evaluate.uncovered_by_members(learned).tolist(),
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
