"""One `divkd train` run: teachers, students by method, and a table of rows by seed."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

from divkd.empirical.analysis.cost import training_passes
from divkd.empirical.data.splits import ImageData
from divkd.empirical.training import known, work
from divkd.empirical.training.config import TrainConfig
from divkd.empirical.training.distillation import reused, spared, teacher_name
from divkd.empirical.training.plan import step_bytes
from divkd.empirical.training.students import STUDENTS
from divkd.shared.jobs import Job, Record, Workers
from divkd.shared.metrics.dee import Equivalent, equivalent, summarise_equivalents
from divkd.shared.run import Run
from divkd.shared.stats import paired, summarise

NAMES = ("model", "method", "members", "seed")  # of a row: what else is a number in it is a metric
# What no difference between methods is taken of: values that calibration changes, and what is not of predictions.
NOT_COMPARED = ("brier", "ece", "temperature", "train_acc", "params", "seconds")


def run_training(
    config: TrainConfig, data: ImageData, run: Run, workers: Workers, *, profile: bool = False
) -> dict[str, Any]:
    """Train what `config` asks for, or load what `run` holds already, and return the content of results.json.

    Every seed has its own teachers. Students of one seed share initial weights, data order and augmentation whatever
    their method, so that differences between methods are paired. With `profile`, log.jsonl says what each epoch spent
    where (see `clock`).
    """
    records = workers.records(jobs(config, data, profile), run)
    ensembles = {seed: records[_ensemble(config, seed)] for seed in config.seeds}
    rows, views, spent = list[dict[str, Any]](), list[dict[str, Any]](), 0.0
    for seed, measured in ensembles.items():
        rows += measured["rows"]
        views += measured.get("views", [])  # of a job of before there was this, none
        spent += measured["seconds"]
        for student, method in itertools.product(config.students, config.methods):
            record = records[STUDENTS[student].checkpoint(method, config.members, seed)]
            spent += record["seconds"]
            views += record.get("views", [])
            for row in record["rows"]:
                dee = equivalent(measured["curve"], row["cal_nll"])
                rows.append({**row, "dee": {"value": dee.value, "censored": dee.censored}})
    theirs = reused(config, data.facts()["sha256"])[1] if config.teachers else config
    sizes = {name: len(getattr(data, name)) for name in ("train", "validation", "test")}
    return {
        "command": "train cifar",
        "preset": config.preset,
        "dataset": data.name,
        "network": config.network,
        "teacher_network": theirs.teachers_network,
        "split": {"rule": data.rule, **sizes},
        "seeds": list(config.seeds),
        "members": config.members,
        "rows": rows,
        "summary": summary(rows),
        "differences": differences(rows),
        "teacher_diversity": [one["diversity"] for one in ensembles.values() if one["diversity"]],
        "ladders": [{"seed": seed, "curve": one["curve"]} for seed, one in ensembles.items()],
        **({"views": {"rows": views, "summary": known.summary(views)}} if config.views else {}),
        "networks": [row for one in ensembles.values() for row in one["networks"]],  # of the deep ensemble, one by one
        "seconds": spent,  # training of all networks, over all sittings of a resumed run
    }


def jobs(config: TrainConfig, data: ImageData, profile: bool = False) -> list[Job]:
    """The networks of a run, each a job: by seed the teachers, then the deep ensembles' measures and the students.

    A job's cost is counted in forward passes of one network for one image (`training_passes`).
    """
    source, images = work.Source(config, data, profile), len(data.train)
    memory = step_bytes(config, data)
    made = []

    def network(name: str, call: Callable[..., Record], *what: Any, after: tuple[str, ...], passes: int) -> None:
        call = functools.partial(call, source, *what)
        made.append(Job(name, call, after, (name,), networks=1, cost=float(passes * images), memory=memory))

    for seed in config.seeds:
        teachers = tuple(teacher_name(seed, m) for m in range(0 if config.teachers else config.networks))
        for member, name in enumerate(teachers):
            passes = training_passes("deep_ensemble", "none", 1) * config.teacher.epochs
            network(name, work.teacher, seed, member, after=(), passes=passes)
        answered = sum(len(getattr(data, name)) for name in ("train", "validation", "test"))
        measure = functools.partial(work.ensemble, source, seed)
        made.append(Job(_ensemble(config, seed), measure, teachers, cost=config.networks * answered, memory=memory))
        for student, method in itertools.product(config.students, config.methods):
            name = STUDENTS[student].checkpoint(method, config.members, seed)
            epochs = config.student.epochs
            passes = training_passes(student, method, config.members) * epochs
            passes -= spared(config, data, epochs, config.members) if method == "kd" else 0
            network(name, work.student, seed, student, method, after=teachers[: config.members], passes=passes)
    return made


def _ensemble(config: TrainConfig, seed: int) -> str:
    """The job that measures a seed's deep ensembles: of so many networks, of which so many teach."""
    return f"seed{seed}-deep_ensemble{config.networks}-teachers{config.members}"


def metrics(row: dict[str, Any]) -> list[str]:
    """The keys of the metrics of a row."""
    return [key for key, value in row.items() if key not in NAMES and type(value) in (int, float)]


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`rows` with every metric as {mean, std, n} over seeds, in the rows' order, and of students the DEE as
    {mean, std, n, censored}."""
    by: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        by.setdefault(tuple(row[name] for name in NAMES[:3]), []).append(row)
    lines = []
    for key, same in by.items():
        line: dict[str, Any] = dict(zip(NAMES, key, strict=False))
        line |= {metric: summarise(row[metric] for row in same) for metric in metrics(same[0])}
        if "dee" in same[0]:
            line["dee"] = summarise_equivalents(Equivalent(**row["dee"]) for row in same)
        lines.append(line)
    return lines


def differences(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Paired differences over seeds: every method of a model minus plain KD, and every student minus its control.

    `model`, `method`, `against_model`, `against_method`, and {mean, std, n, low, high} (see `stats.paired`) of
    what is compared. Rows of a seed share teachers, initial weights and data order, so the pairs are close.
    """
    by = {(row["model"], row["method"], row["seed"]): row for row in rows if row["model"] != "deep_ensemble"}
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    kinds = list(dict.fromkeys((model, method) for model, method, _ in by))
    compared = [metric for metric in metrics(rows[0]) if metric not in NOT_COMPARED]
    lines = []
    for model, method in kinds:
        for other in ((model, "kd"), ("single", method)):
            if other != (model, method) and other in kinds:
                ours, theirs = ([by[*kind, seed] for seed in seeds] for kind in ((model, method), other))
                line = {"model": model, "method": method, "against_model": other[0], "against_method": other[1]}
                pairs = {key: paired([row[key] for row in ours], [row[key] for row in theirs]) for key in compared}
                lines.append({**line, **pairs})
    return lines
