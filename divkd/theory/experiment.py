"""The simulation: train members and students, test them, compare with what the theory expects."""

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from divkd.shared.errors import InputError
from divkd.shared.jobs import Job, Work, Workers
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.theory import claims, descent, evaluate, predict, traces
from divkd.theory.claims import SeedResult
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import TESTS, training_samples
from divkd.theory.descent import engine
from divkd.theory.roster import CHAIN, JOINT, KINDS, checkpoint, continued, pairs, rows_of, self_teachers
from divkd.theory.students import Seed, Students
from divkd.theory.training import Arrays

SHARE = 5.0  # what a job is to take at most, in trainings of a member of `default`
TESTING = 0.2  # what testing a network of a member's width takes, in trainings of a member


def check(config: MultiViewConfig) -> None:
    """Raise `InputError` for a configuration that cannot run here: values, device, memory, features without room."""
    config.validate()
    if config.engine == "dense":
        from divkd.theory.engines import dense

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


def simulate(config: MultiViewConfig, run: Run, workers: Workers) -> dict[str, Any]:
    """Theorems 1 to 4 of Allen-Zhu and Li (arXiv 2012.09816) at finite size: the content of results.json.

    Every seed is a world of its own: one training set, `members` networks, `students` of every kind, fresh multi-view
    and single-view test samples. Errors are fractions, averaged over a seed's networks of a kind; means, standard
    deviations and n are over seeds. Networks are saved to `run` as they finish (checkpoints/seed<S>-member<I>,
    seed<S>-<kind><I>...), and those that are there are not trained again. Raises `InputError` (nothing was trained) or
    `RunError` (finished networks stay saved).
    """
    began = time.perf_counter()
    check(config)
    parts = [seed_jobs(config, seed, with_traces=seed == config.seeds[0]) for seed in config.seeds]
    records = workers.records([job for jobs in parts for job in jobs], run)
    seeds = [SeedResult(**records[jobs[-1].name]) for jobs in parts]
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
        "judged": evaluate.over_seeds(dict(zip(config.seeds, (seed.judged for seed in seeds), strict=True))),
        **seeds[0].traces,
        "config": {
            name: getattr(config, name) for name in ("engine", "members", "classes", "views", "init_scale", "clip")
        },
        "seconds": time.perf_counter() - began,
    }


def seed_jobs(
    config: MultiViewConfig, seed: int, kinds: Sequence[str] = tuple(KINDS), *, with_traces: bool = False
) -> list[Job]:
    """The parts of `seed`: members in pairs with what goes on from them, students, their tests, the measurement.

    They leave all that others read of them in checkpoints. The record of the last is a `SeedResult`.
    """
    memory, size = engine(config.engine).state_bytes(config), _size(config) / _size(MultiViewConfig())
    jobs: list[Job] = []

    def add(name: str, work: Work, after: Sequence[Job], cost: float, keeps: Sequence[str] = (), many: int = 0) -> None:
        name = f"seed{seed}-{name}-{_groups(config)}"
        before = tuple(job.name for job in after)
        jobs.append(Job(name, work, before, tuple(keeps), networks=many, cost=cost * size, memory=memory))

    rest = {kind: list(rows_of(config, kind)) for kind in kinds}
    each = {kind: KINDS[kind].cost * (config.joint if kind == "trained_jointly" else 1) for kind in kinds}
    after = {kind: continued(config, kind, range(config.members)) for kind in kinds}
    member = 1 + sum(each[kind] * len(rows) for kind, rows in after.items()) / config.members
    for some in _dealt(pairs(config), 2 * member, size):
        rows = [row for pair in some for row in pair]
        now = {kind: continued(config, kind, rows) for kind in kinds}
        rest = {kind: [row for row in left if row not in now[kind]] for kind, left in rest.items()}
        keeps = [checkpoint(config, seed, kind, row) for kind, of in {"member": rows, **now}.items() for row in of]
        work = partial(_train, config, seed, kinds, {"member": rows, **now})
        add(f"members{rows[0]}", work, (), member * len(rows), keeps, len(keeps))
    members = tuple(jobs)
    for kind, left in rest.items():
        teachers = () if kind == "trained_jointly" else tuple(jobs) if KINDS[kind].link > 1 else members
        for some in _dealt(left, each[kind], size):
            keeps = [checkpoint(config, seed, kind, row) for row in some]
            work = partial(_train, config, seed, kinds, {kind: some})
            add(f"{kind}{some[0]}", work, teachers, each[kind] * len(some), keeps, len(some))
    trained = tuple(jobs)
    joint = [JOINT + row for row in rest.get("trained_jointly", ())]
    drawn = [KINDS[kind].start + row for kind in kinds for row in rows_of(config, kind)]
    same = [number for number in dict.fromkeys([*range(config.members), *drawn]) if number not in joint]
    for numbers, cost in ((same, TESTING), (joint, TESTING * config.joint)):
        for some in _dealt(numbers, cost, size):
            keeps = [_tested_name(config, seed, number) for number in some]
            add(f"tested{some[0]}", partial(_test, config, seed, kinds, some), trained, cost * len(some), keeps)
    last = "traced" if with_traces else "measured"
    add(last, partial(_measure, config, seed, kinds, with_traces), tuple(jobs), 0.1)
    return jobs


def _size(config: MultiViewConfig) -> float:
    return float(config.train_samples * config.patches * config.neurons * config.classes)


def _dealt(rows: Sequence[Any], cost: float, size: float) -> list[list[Any]]:
    """`rows` of some `cost` each, in a world of some `size`, in parts as even as can be."""
    parts = max(1, min(len(rows), round(cost * len(rows) * size / SHARE)))
    ends = [len(rows) * part // parts for part in range(parts + 1)]
    return [list(rows[low:high]) for low, high in itertools.pairwise(ends) if low < high]


def _train(
    config: MultiViewConfig,
    seed: int,
    kinds: Sequence[str],
    rows: Mapping[str, Sequence[int]],
    run: Run,
    progress: Progress,
) -> dict[str, Any]:
    """Train networks of a seed: the `rows` of its members ("member"), and of kinds of students."""
    one = Seed(config, run, progress, seed, kinds)
    for kind, some in rows.items():
        if kind == "member":
            one.train_members(some)
        elif some:
            one.train(kind, some)
    return {}


def _test(
    config: MultiViewConfig, seed: int, kinds: Sequence[str], numbers: Sequence[int], run: Run, progress: Progress
) -> dict[str, Any]:
    one = Seed(config, run, progress, seed, kinds)
    _tested(one, one.networks(), numbers)
    return {}


def _measure(
    config: MultiViewConfig, seed: int, kinds: Sequence[str], with_traces: bool, run: Run, progress: Progress
) -> dict[str, Any]:
    return measure(Seed(config, run, progress, seed, kinds), with_traces=with_traces)._asdict()


def measure(seed: Seed, *, with_traces: bool = False) -> SeedResult:
    """Measure the members and students of `seed`, trained here or read; `with_traces` adds what figures show."""
    config, samples, members = seed.config, seed.samples, seed.members
    everyone = seed.networks()
    taught = {name: kind for name, kind in everyone.items() if name != "single"}
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
    taught_by = learned
    for name in [name for name in CHAIN if name in students]:
        start = np.stack([one["strengths"][0] for one in taught[name].arrays])
        lottery = np.eye(config.views, dtype=bool)[predict.lottery_winners(start, samples, config)]
        unions[name], taught_by = taught_by[: len(lottery)] | lottery, students[name]
    if "chain_1" in students:
        views |= evaluate.handed_on([learned, *(students[name] for name in CHAIN if name in students)])

    errors: dict[str, dict[str, float]] = {}
    outputs = _outputs(seed, everyone)
    labels = {"train": samples.labels, **{of: fresh.labels for of, fresh in seed.tests.items()}}
    by_members = {name: _errors(config, of_kind, labels) for name, of_kind in outputs.items()}
    for name, ensembles in by_members.items():
        errors[name] = {of: float(values[0]) for of, values in ensembles.items()}
        if name in evaluate.TOGETHER:
            errors[evaluate.TOGETHER[name]] = {of: float(values[-1]) for of, values in ensembles.items()}
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
        judged=evaluate.judged(outputs, labels) if seed.validated else {},
        at_most=[float((learned.sum(2) <= count).mean()) for count in range(1, config.views)],
    )


def _outputs(seed: Seed, kinds: Mapping[str, Students]) -> dict[str, dict[str, np.ndarray]]:
    """F of the networks of every kind, (M, N, k), by "train" and by the names of fresh samples."""
    outputs: dict[str, dict[str, np.ndarray]] = {}
    for name, kind in kinds.items():
        outputs[name] = {"train": np.stack([one["train_outputs"] for one in kind.arrays])}
        tested = _tested(seed, kinds, kind.numbers)
        for of in seed.tests:
            outputs[name][of] = np.stack([tested[number][f"{name}/{of}"] for number in kind.numbers])
    return outputs


def _errors(
    config: MultiViewConfig, outputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Errors of ensembles of 1, 2, ... networks of a kind, per kind of samples."""
    errors = {of: evaluate.errors_by_members(outputs[of], labels[of]) for of in ("train", *TESTS)}
    share = config.single_share
    return errors | {"test": (1 - share) * errors["multi_view"] + share * errors["single_view"]}


def _tested(seed: Seed, kinds: Mapping[str, Students], numbers: Sequence[int]) -> dict[int, Arrays]:
    """F on the test samples of the networks of these `numbers`, saved or computed: <claim>/<samples> (N, k) by number.

    Networks of the same number meet the same noise, which is drawn once.
    """
    names = {number: _tested_name(seed.config, seed.seed, number) for number in numbers}
    there = {number: seed.run.resumed(name, seed.progress.say) for number, name in names.items()}
    tested = {number: {} if saved is None else saved[0] for number, saved in there.items()}
    for config in dict.fromkeys(kind.config for kind in kinds.values()):
        met = [
            (name, number, arrays["weights"])
            for name, kind in kinds.items()
            for number, arrays in zip(kind.numbers, kind.arrays, strict=True)
            if kind.config == config and number in there and there[number] is None
        ]
        for of, samples in seed.tests.items() if met else ():
            weights, of_networks = np.stack([one for *_, one in met]), [number for _, number, _ in met]
            role = TESTS.get(of, of)
            outputs = seed.engine.fresh_outputs(config, weights, samples, seed.seed, role, of_networks)
            for (name, number, _), one in zip(met, outputs, strict=True):
                tested[number][f"{name}/{of}"] = one
    for number, name in names.items():
        shapes = {key: array.shape for key, array in tested[number].items()}
        whose = [kind for kind, networks in kinds.items() if number in networks.numbers]
        expected = {
            f"{kind}/{of}": (len(fresh), seed.config.classes) for kind in whose for of, fresh in seed.tests.items()
        }
        if shapes != expected:
            raise seed.run.misfit(name, "its arrays are not those of this configuration")
        if there[number] is None:
            seed.run.save(name, tested[number], {"seed": seed.seed, "tested": number})
    return tested


def _tested_name(config: MultiViewConfig, seed: int, number: int) -> str:
    return f"seed{seed}-tested{number}-{_groups(config)}"


def _groups(config: MultiViewConfig) -> str:
    """How many networks there are of what: on which it depends whose test outputs have the same number."""
    return f"of{config.members}-{config.students}-{config.joint}-{config.chain}"


def _strengths(arrays: Sequence[Arrays], config: MultiViewConfig) -> np.ndarray:
    return descent.strengths(np.stack([one["weights"] for one in arrays]), config.classes, config.views)
