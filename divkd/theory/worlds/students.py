"""BatchEnsembles and single networks that learn from the multi-view world's members: which views does each know?

`teaching` has them learn, `engines.rankone` is the network, `steps` perturbs: docs/theory/students.md derives them.
"""

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from divkd.shared.jobs import Job, Workers
from divkd.shared.kinds import METHODS, STUDENTS
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.stats import paired, summarise
from divkd.theory import evaluate
from divkd.theory.data import Samples, fresh_samples
from divkd.theory.engines import limit
from divkd.theory.worlds.config import StudentsConfig
from divkd.theory.worlds.steps import moved_by_kind
from divkd.theory.worlds.teaching import School, train

TEACHERS = "deep_ensemble"  # as the practice calls them, with the method "none"
FRESH = 1_000_000  # number of the students' test noise, beyond the members'
VIEWS = ("known_own", "known_rest", "apart", "arrival_own", "arrival_rest")
SEEN = ("alone_error", "error", "cal_nll_alone", "cal_nll", "pairwise_kl", "disagreement", "train_kl")

# What is scanned, one at a time, at the configuration that is otherwise asked for.
AXES: dict[str, tuple[dict[str, Any], ...]] = {
    "step_size": tuple({"step_size": value} for value in (0.1, 0.3, 0.6, 1.5)),
    "factors": (
        *({"factor_sd": value} for value in (0.0, 0.5, 2.0)),
        *({"factors": name} for name in ("signs", "aligned")),
    ),
    "temperature": tuple({"temperature": value} for value in (1.0, 4.0, 16.0)),
    "teacher_time": tuple({"teacher_time": value} for value in (0.0, 1e6)),
    "train_samples": tuple({"train_samples": value} for value in (60, 120)),
    "distill_time": tuple({"distill_time": value} for value in (300.0, 1e3, 3e3, 1e4)),
}
SCANNED = ("kd", "ods")  # of BatchEnsembles


def kinds() -> list[tuple[str, str]]:
    """Model and method of every student."""
    return list(itertools.product(STUDENTS, METHODS))


def run_students(config: StudentsConfig, run: Run, workers: Workers) -> dict[str, Any]:
    """Train students of both kinds by every method, scan what they depend on; the content of results.json.

    rows         of each seed, the teachers and every student: `measure`
    summary      by model and method, {mean, std, n} over seeds of what rows measure
    differences  by model and method, of each against "kd", and against the single network by the same method
                 (`over_single`): means of paired differences with 95 % intervals
    soft, moves  {mean, std, n} of the pairwise KL of teachers' answers by input, and of what steps move
    scan         by axis, cells {name, change, methods: {method: summary}, soft}
    """
    began = time.perf_counter()
    config.validate()
    pairs = [(TEACHERS, "none"), *kinds()]
    scanned = [(TEACHERS, "none"), *(("batch_ensemble", method) for method in SCANNED)]
    base = dataclasses.replace(config, distill_time=config.scan_time)
    cells = {axis: [dataclasses.replace(base, **change) for change in changes] for axis, changes in AXES.items()}
    few = config.seeds[: config.scan_seeds]
    wanted = [(config, seed, *pair) for seed in config.seeds for pair in pairs]
    wanted += [(cell, seed, *pair) for of in cells.values() for cell in of for seed in few for pair in scanned]
    named = {_named(config, *one): one for one in wanted}  # each once, where axes and seeds share it
    jobs = [Job(name, partial(measure, *one), networks=1) for name, one in named.items()]
    records = workers.records(jobs, run)

    def rows(cell: StudentsConfig, seeds: Sequence[int], model: str, method: str) -> list[dict[str, Any]]:
        return [records[_named(config, cell, seed, model, method)] for seed in seeds]

    main = {pair: rows(config, config.seeds, *pair) for pair in pairs}
    teachers = main[TEACHERS, "none"]
    return {
        "command": "simulate students",
        "config": {name: getattr(config, name) for name in config.__dataclass_fields__},
        "seeds": list(config.seeds),
        "rows": [row for of_pair in main.values() for row in of_pair],
        "summary": [{"model": model, "method": method, **_summary(of)} for (model, method), of in main.items()],
        "differences": [
            {"model": model, "method": method, **{key: _apart(of, main[model, "kd"], key) for key in (*VIEWS, *SEEN)},
             "over_single": {key: _apart(of, main["single", method], key) for key in SEEN}}
            for (model, method), of in main.items() if model != TEACHERS
        ],
        "soft": _soft_of(teachers),
        "moves": {method: {of: summarise(row["moves"][method][of] for row in teachers) for of in kinds}
                  for method, kinds in teachers[0]["moves"].items()},
        "scan": {
            axis: [
                {"name": _words(change), "change": change, "soft": _soft_of(rows(cell, few, TEACHERS, "none")),
                 "methods": {method: _summary(rows(cell, few, "batch_ensemble", method)) for method in SCANNED}}
                for cell, change in zip(of, AXES[axis], strict=True)
            ]
            for axis, of in cells.items() if few
        },
        "seconds": time.perf_counter() - began,
    }  # fmt: skip


def _words(change: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in change.items()
    )


def _named(base: StudentsConfig, config: StudentsConfig, seed: int, model: str, method: str) -> str:
    """A job's name: it says where it departs from the run's configuration, in what its method depends on."""
    names = [name for name in config.__dataclass_fields__ if getattr(config, name) != getattr(base, name)]
    names = [name for name in names if name != "step_size" or method not in ("none", "kd") or model == TEACHERS]
    cell = "".join(f"-{name}{getattr(config, name)}" for name in names)
    return f"seed{seed}-{model}-{method}-of{config.members}{cell}"


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{mean, std, n} over those rows that have a value; null where none has."""
    found = {key: [row[key] for row in rows if row[key] is not None] for key in (*VIEWS, *SEEN, "train_error")}
    return {key: summarise(values) if values else None for key, values in found.items()}


def _soft_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: summarise(row["soft"][name] for row in rows) for name in rows[0]["soft"]}


def _apart(rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any] | None:
    both = [(a[key], b[key]) for a, b in zip(rows, others, strict=True) if a[key] is not None and b[key] is not None]
    return paired(*zip(*both, strict=True)) if both else None


def measure(config: StudentsConfig, seed: int, student: str, method: str, _: Run, progress: Progress) -> dict[str, Any]:
    """The row of a student, or of the teachers: which views its members know, since when, and how they differ.

    learned      by member, class and view, whether it is known
    known_own    share of its own teacher's views that a member knows, known_rest of those that only others know (for a
                 single network, means over teachers); null where there are none
    apart        share of (class, view) pairs that one of two members knows alone, the mean over pairs
    arrival_...  median flow time from which such views are known for good, of those that are in the end
    the rest     on fresh single-view samples but for train_kl, the pairwise KL on training samples
    """
    one = School(config, seed)
    if student == TEACHERS:
        weights, strengths, outputs = one.teachers.weights, one.teachers.strengths[None], one.teachers.outputs
        row: dict[str, Any] = {"soft": _soft(one), "moves": _moves(one)}
        times, first = np.zeros(1), 0
    else:
        networks, times, strengths = train(one, student, method, progress)
        weights, outputs, first = networks.weights, networks.forward(one.teachers.clean)[0], FRESH
        row = {"steps": len(times) - 1, "flow_time": float(times[-1])}
    learned = evaluate.learned_views(strengths[-1])
    row |= {"model": student, "method": method, "seed": seed, "learned": learned.astype(int).tolist()}
    row["train_error"] = float((outputs.argmax(2) != one.samples.labels).mean())
    shared = np.broadcast_to(learned, one.learned.shape)
    rest = one.learned.any(0) & ~one.learned
    arrival = np.broadcast_to(arrivals(times, strengths), one.learned.shape)
    for name, of in (("own", one.learned), ("rest", rest)):
        came = arrival[of & shared]
        row[f"known_{name}"] = float(shared[of].mean()) if of.any() else None
        row[f"arrival_{name}"] = float(np.median(came)) if len(came) and student != TEACHERS else None
    row["apart"] = float(np.mean([(a != b).mean() for a, b in itertools.combinations(learned, 2)] or [0]))
    numbers = [first + j for j in range(len(weights))]

    def answers(samples: Samples, role: str) -> np.ndarray:
        return limit.fresh_outputs(one.world, weights, samples, seed, role, numbers)

    fresh = fresh_samples(one.world, seed, "single"), fresh_samples(one.world, seed, "single", "validation")
    return row | _seen(outputs, one.samples.labels, *((answers(f, f"s{i}"), f.labels) for i, f in enumerate(fresh)))


def arrivals(times: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """The flow times (M, k, 2) from which strengths (T, M, k, 2) stay a quarter of the class's last; inf: never."""
    there = strengths >= 0.25 * strengths[-1].max(-1, keepdims=True)
    lasting = np.logical_and.accumulate(there[::-1])[::-1]
    return np.where(lasting[-1], times[lasting.argmax(0)], np.inf)


def _soft(one: School) -> dict[str, float]:
    """Pairwise KL of the teachers' answers q on the training samples, as they are and by every perturbation."""
    outputs = {"clean": one.teachers.outputs}
    outputs |= {method: one.teachers.answers(one.moved(method, 0).coefficients)[0] for method in ("ods", "confods")}
    return {name: _kl(one.soft(of)) for name, of in outputs.items()}


def _moves(one: School) -> dict[str, dict[str, float]]:
    """What the first draw of steps does to the features that samples show, and its share in memorised noise."""
    found = {}
    for method in ("ods", "confods"):
        moved = one.moved(method, 0)
        of_kinds = moved_by_kind(one.samples, moved, one.teachers.clean, one.learned)
        found[method] = of_kinds | {"memorised": moved.memorised}
    return found


def _kl(p: np.ndarray) -> float:
    """Mean pairwise KL of probabilities (M, N, k), by the shared definition."""
    import torch

    from divkd.shared.metrics.quality import pairwise_kl

    return float(pairwise_kl(torch.from_numpy(np.ascontiguousarray(p)).double().log()))


def _seen(train: np.ndarray, labels: np.ndarray, test: Any, validation: Any) -> dict[str, float]:
    """`SEEN` of outputs on training samples, and on fresh ones: (outputs, labels) to measure and to fit on."""
    import torch

    from divkd.shared.metrics.diversity import profile
    from divkd.shared.metrics.evaluation import evaluate as judge

    logs = [torch.log_softmax(torch.from_numpy(np.ascontiguousarray(of)).double(), -1)
            for of in (train, test[0], validation[0])]  # fmt: skip
    truth = [torch.from_numpy(of).long() for of in (labels, test[1], validation[1])]
    together = judge(logs[2], truth[2], logs[1], truth[1])
    alone = [judge(logs[2][j : j + 1], truth[2], logs[1][j : j + 1], truth[1]) for j in range(len(train))]
    differ = profile(logs[1], truth[1])
    return {
        "alone_error": 1 - float(np.mean([row["acc"] for row in alone])),
        "error": 1 - together["acc"],
        "cal_nll_alone": float(np.mean([row["cal_nll"] for row in alone])),
        "cal_nll": together["cal_nll"],
        "pairwise_kl": differ["pairwise_kl"],
        "disagreement": differ["disagreement"],
        "train_kl": profile(logs[0], truth[0])["pairwise_kl"],
    }
