"""Several students of one ensemble, and their own ensemble: (1 / K) sum_k softmax(S_k) beside the teachers'.

After a talk by Allen-Zhu and Li on their paper (ICLR 2023): what all students have learned of the ensemble, averaging
them cannot add, so that together they should gain little. Students differ in initial weights and data order alone.
"""

from functools import partial
from typing import cast

from divkd.empirical.experiments.config import OverKdConfig
from divkd.empirical.experiments.experiment import Experiment
from divkd.empirical.experiments.mysteries import measure_job, results
from divkd.empirical.experiments.networks import Row, Student, rows, student_job, teacher_jobs, trained
from divkd.empirical.training.distillation import teachers_of
from divkd.empirical.training.seed_run import SeedRun
from divkd.empirical.training.work import Source
from divkd.shared.jobs import Job
from divkd.shared.progress import Progress
from divkd.shared.run import Run

# What is compared with what, over seeds.
PAIRS = (("ensemble", "network"), ("distilled", "network"), ("ensemble_over_kd", "distilled"),
        ("ensemble_over_kd", "ensemble"))  # fmt: skip


def students(config: OverKdConfig) -> list[Student]:
    """K students of all teachers."""
    taught = tuple(range(config.members)), config.temperature, config.kd_weight
    return [Student("distilled", *taught, member) for member in range(config.students)]


def jobs(source: Source) -> list[Job]:
    """By seed the teachers, the students, and the measure of both."""
    config, made = cast(OverKdConfig, source.config), list[Job]()
    for seed in config.seeds:
        networks = [*teacher_jobs(source, seed), *(student_job(source, seed, student) for student in students(config))]
        made += [*networks, measure_job(source, seed, networks, measure, f"-{config.students}")]
    return made


def measure(source: Source, seed: int, run: Run, progress: Progress) -> Row:
    """The rows of a seed."""
    config = cast(OverKdConfig, source.config)
    seed_run = SeedRun(config, source.data, seed, run, progress)
    teachers, _ = teachers_of(seed_run, config.members)
    taught = trained(seed_run, students(config))
    found = rows(seed_run, "network", teachers, alone=True) + rows(seed_run, "ensemble", teachers)
    found += rows(seed_run, "distilled", taught, alone=True) + rows(seed_run, "ensemble_over_kd", taught)
    return {"rows": found}


EXPERIMENT = Experiment("experiment ensemble-over-kd", jobs, partial(results, PAIRS))
