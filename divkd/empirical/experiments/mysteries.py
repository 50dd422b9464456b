"""Three mysteries of Allen-Zhu and Li (ICLR 2023, section 1): ensembles, distillation, self-distillation.

Single networks F_1, ..., F_M of one architecture differ in nothing but what is random, and yet

    ensemble          (1 / M) sum_m softmax(F_m)    is better than each of them,
    trained as one    CE((1 / M) sum_m F_m, y)      is not, with the same initial weights,
    distilled         S of all F_m                  keeps a part of it in one network,
    self-distilled    S_1 of F_1 alone              is better than F_1, with the ensemble of F_1 and F_2 beside it,

each student by two losses: (1 - a) CE(S, y) + a KD at a temperature (`training.distillation`), and the paper's

    t CE(y, S) + (1 - t) H(T, S),     T = (1 / M) sum_m softmax(F_m),

which is the former at temperature 1 and a = 1 - t, up to a constant.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from divkd.empirical.experiments.config import MysteriesConfig, TaughtConfig
from divkd.empirical.experiments.experiment import Experiment
from divkd.empirical.experiments.networks import (
    Row,
    Student,
    average_job,
    average_name,
    averaged,
    differences,
    rows,
    student_job,
    summary,
    teacher_jobs,
    trained,
)
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training.distillation import finished, teachers_of
from divkd.empirical.training.seed_run import SeedRun
from divkd.empirical.training.work import Source
from divkd.shared.jobs import Job, Record
from divkd.shared.progress import Progress
from divkd.shared.run import Run

Pairs = tuple[tuple[str, str], ...]
# What is compared with what, over seeds: the mysteries, a line each.
PAIRS = (
    ("ensemble", "network"),
    ("average", "network"),
    ("average", "ensemble"),
    ("distilled", "network"),
    ("distilled_mixed", "network"),
    ("self_distilled", "network"),
    ("self_distilled_mixed", "network"),
    ("pair", "self_distilled"),
)


def students(config: MysteriesConfig) -> list[Student]:
    """What is distilled in `mysteries`, each named as its row."""
    everyone, soft = tuple(range(config.members)), (config.temperature, config.kd_weight)
    mixed = 1.0, 1 - config.label_share
    return [
        Student("distilled", everyone, *soft),
        Student("distilled_mixed", everyone, *mixed),
        Student("self_distilled", (0,), *soft),
        Student("self_distilled_mixed", (0,), *mixed),
    ]


def jobs(source: Source) -> list[Job]:
    """By seed the teachers, their average, the students, and the measure of all."""
    config, made = cast(MysteriesConfig, source.config), list[Job]()
    for seed in config.seeds:
        taught = [student_job(source, seed, student) for student in students(config)]
        networks = [*teacher_jobs(source, seed), average_job(source, seed), *taught]
        made += [*networks, measure_job(source, seed, networks, measure)]
    return made


def measure_job(source: Source, seed: int, networks: list[Job], ask: Any, of: str = "") -> Job:
    """The job that asks the finished `networks` of a seed; `of` says what beside the teachers there are so many of."""
    config = source.config
    answered = len(networks) * sum(len(split) for split in source.data.splits.values())
    return Job(
        f"seed{seed}-measure{config.members}{of}",
        partial(ask, source, seed),
        tuple(job.name for job in networks),
        cost=float(answered),
    )


def measure(source: Source, seed: int, run: Run, progress: Progress) -> Row:
    """The rows of `mysteries` of a seed."""
    config = cast(MysteriesConfig, source.config)
    seed_run = SeedRun(config, source.data, seed, run, progress)
    teachers, _ = teachers_of(seed_run, config.members)
    average = averaged(seed_run)
    finished(average, config.teacher.epochs, average_name(config, seed), run)
    found = rows(seed_run, "network", teachers, alone=True) + rows(seed_run, "ensemble", teachers)
    found += rows(seed_run, "pair", DeepEnsemble(list(teachers.nets[:2])).eval()) if config.members > 1 else []
    found += rows(seed_run, "average", average.eval())
    for student in students(config):
        found += rows(seed_run, student.name, trained(seed_run, [student]))
    return {"rows": found}


def results(pairs: Pairs, config: TaughtConfig, records: Mapping[str, Record]) -> dict[str, Any]:
    """rows, their summary by model over seeds, and the paired differences of `pairs`."""
    found = [row for record in records.values() for row in record.get("rows", [])]
    there = {row["model"] for row in found}
    compared = [((one,), (other,)) for one, other in pairs if {one, other} <= there]
    return {"rows": found, "summary": summary(found), "differences": differences(found, compared)}


EXPERIMENT = Experiment("experiment mysteries", jobs, partial(results, PAIRS))
