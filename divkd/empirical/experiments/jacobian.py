"""Is distillation on moved images KD with a Jacobian penalty? Nam et al. 2021, section 3.2 (`training.jacobian`).

By kind and size of step, students of

    kd         KD(x)
    noisy      KD(x + eta n), as `student_loss`, but that nothing is clipped: clipped noise has a mean
    penalty    KD(x) + eta^2 / 2 |(J_S - J_T) n|_F^2, n from the same draws

each beside (1 - a) CE, with the same initial weights and batches. Of each: its quality, whether its Jacobian is its
teachers', and its Taylor term around training and test images.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch

from divkd.empirical.analysis.probes import gradient_match
from divkd.empirical.experiments.config import JacobianConfig
from divkd.empirical.experiments.experiment import Experiment
from divkd.empirical.experiments.networks import Row, Rows, differences, network_job, rows, summary, teacher_jobs
from divkd.empirical.experiments.taylor import DRAWS, SIZES, Probe, exact, measured, probes
from divkd.empirical.networks.ensembles import DeepEnsemble, Ensemble
from divkd.empirical.training.distillation import finished, student_loss, teacher_name, teachers_of
from divkd.empirical.training.jacobian import jacobian_loss
from divkd.empirical.training.loop import BatchLoss, train
from divkd.empirical.training.perturb import PERTURBATIONS, Space
from divkd.empirical.training.seed_run import SeedRun
from divkd.empirical.training.students import STUDENTS
from divkd.empirical.training.work import Source
from divkd.shared.jobs import Job, Record
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.stats import summarise

TERMS = ("kd", "second", "jacobian", "ours", "theirs")
BY = ("student", "model", "step", "times")  # what makes rows of one kind
Probes = dict[tuple[str, str], Probe]


class Taught(NamedTuple):
    """A student: what it is, how it learns, by which kind of step, and its size as a multiple of the least; 0 of KD."""

    student: str
    model: str
    step: str = ""
    times: int = 0

    def checkpoint(self, config: JacobianConfig, seed: int) -> str:
        """The name of its checkpoint."""
        how = f"-{self.step}{self.times}" if self.times else ""
        return f"seed{seed}-{self.student}-{self.model}{how}-from{config.members}"

    def loss(self, config: JacobianConfig, teachers: DeepEnsemble) -> BatchLoss:
        """What it is trained on."""
        how = (teachers, config.temperature, config.kd_weight, self.times * config.step_size)
        if self.model == "penalty":
            return jacobian_loss(self.step, *how)
        return student_loss(self.step or "kd", *how, Space(None, None))

    def passes(self, members: int) -> int:
        """Forward passes of one network for an image: a pass in forward mode counts as two."""
        mine, drawn = STUDENTS[self.student].rows(members), PERTURBATIONS[self.step].passes if self.step else 0
        return (
            3 * mine + members if self.model == "kd" else 6 * mine + members * (1 + (self.model == "penalty")) + drawn
        )


def taught(config: JacobianConfig) -> list[Taught]:
    """The students of a seed."""
    return [
        one
        for student in config.students
        for one in (
            Taught(student, "kd"),
            *(Taught(student, model, step, times) for step in config.steps for times in config.times
              for model in ("noisy", "penalty")),
        )
    ]  # fmt: skip


def jobs(source: Source) -> list[Job]:
    """By seed the teachers, the students, and the measure of all."""
    config, made = cast(JacobianConfig, source.config), list[Job]()
    for seed in config.seeds:
        names = () if config.teachers else tuple(teacher_name(seed, member) for member in range(config.members))
        networks = teacher_jobs(source, seed)
        for one in taught(config):
            call, name = partial(learn, source, seed, one), one.checkpoint(config, seed)
            networks.append(network_job(source, name, call, one.passes(config.members) * config.student.epochs, names))
        of = "-".join((*config.steps, *config.students, f"{config.sizes}x{config.members}"))
        images = 2 * config.images * DRAWS * 2 * len(SIZES) * (len(config.steps) + 1) * len(networks)  # in float64
        after = tuple(job.name for job in networks)
        made += [*networks, Job(f"seed{seed}-measure-{of}", partial(measure, source, seed), after, cost=float(images))]
    return made


def fresh(seed_run: SeedRun, one: Taught) -> Ensemble:
    """A student before training."""
    config = seed_run.config
    plain = seed_run.plain(config.network, "student")
    return STUDENTS[one.student].create(plain, config.members, seed_run.seed).to(torch.device(config.device))


def learn(source: Source, seed: int, one: Taught, run: Run, progress: Progress) -> Row:
    """Train one student."""
    config = cast(JacobianConfig, source.config)
    seed_run = SeedRun(config, source.data, seed, run, progress)
    teachers, _ = teachers_of(seed_run, config.members)
    net, name = fresh(seed_run, one), one.checkpoint(config, seed)
    return {"seconds": train(seed_run, net, one.loss(config, teachers), config.student, "student", 0, name)}


def measure(source: Source, seed: int, run: Run, progress: Progress) -> Row:
    """The rows of a seed, of quality and of the Taylor term.

    The first teacher is set against the others, where there are some: what networks have in common that never met.
    """
    config = cast(JacobianConfig, source.config)
    seed_run = SeedRun(config, source.data, seed, run, progress)
    teachers, _ = teachers_of(seed_run, config.members)
    around = probes(seed_run, teachers, config)
    none: Row = dict.fromkeys(BY, "") | {"times": 0}
    names: Row = {key: value for key, value in none.items() if key != "model"}
    found, taylor = rows(seed_run, "ensemble", teachers, **names), Rows()
    if config.members > 1:
        first, others = (DeepEnsemble(list(teachers.nets[part])).eval() for part in (slice(1), slice(1, None)))
        lines = terms(first, around, {**none, "model": "network", "seed": seed}, slice(1, None))
        found += [row | match(seed_run, first, others, lines) for row in rows(seed_run, "network", first, **names)]
        taylor += lines
    for one in taught(config):
        net = fresh(seed_run, one)
        finished(net, config.student.epochs, one.checkpoint(config, seed), run)
        net.eval().requires_grad_(False)
        lines = terms(net, around, {**one._asdict(), "seed": seed})
        how = {key: value for key, value in one._asdict().items() if key != "model"}
        found += [row | match(seed_run, net, teachers, lines) for row in rows(seed_run, one.model, net, **how)]
        taylor += lines
    return {"rows": found, "taylor": taylor}


def terms(net: Ensemble, around: Probes, names: Row, whose: slice = slice(None)) -> Rows:
    """The Taylor term of a network by split: along Gaussian steps and its own, of KD along all."""
    student, own = exact(net), ("gaussian", names["step"])
    return [
        {**names, "split": split, "along": along, **measured(student, probe, whose)}
        for (split, along), probe in around.items()
        if along in own or names["model"] == "kd"
    ]


def match(seed_run: SeedRun, net: Ensemble, teachers: DeepEnsemble, lines: Rows) -> dict[str, float]:
    """Is the network's Jacobian its teachers'? By split, on the images of the Taylor term:

    cosine      `analysis.probes.gradient_match`, of random combinations of the probabilities' gradients
    norm        |J_S|_F / |J_T|_F, in the metric of `training.jacobian`, along Gaussian steps
    distance    |J_S - J_T|_F^2 / |J_T|_F^2 in the same: 0 where they are equal, 1 of a student that is constant
    """
    config, found = cast(JacobianConfig, seed_run.config), dict[str, float]()
    for split, images in (("train", seed_run.data.train.images), ("test", seed_run.data.test.images)):
        line = next(line for line in lines if (line["split"], line["along"]) == (split, "gaussian"))
        part = images[: config.images]
        cosine = gradient_match(net, teachers, part, config.temperature, seed_run.seed)["own"]
        norms = line["theirs"] or math.nan
        found |= {f"{split}_cosine": cosine, f"{split}_norm": math.sqrt(line["ours"] / norms)}
        found[f"{split}_distance"] = line["jacobian"] / norms
    return found


def results(config: JacobianConfig, records: Mapping[str, Record]) -> dict[str, Any]:
    """rows and their summary over seeds; paired differences, noisy minus penalty and each minus KD; the Taylor term."""
    found = [row for record in records.values() for row in record.get("rows", [])]
    lines = [row for record in records.values() for row in record.get("taylor", [])]
    pairs = []
    for one in taught(config):
        if one.model == "noisy":
            kinds = (one, one._replace(model="penalty")), (one, Taught(one.student, "kd"))
            pairs += [*kinds, (one._replace(model="penalty"), Taught(one.student, "kd"))]
    return {
        "step_size": config.step_size,
        "times": list(config.times),
        "measured": [times * config.step_size for times in SIZES],
        "temperature": config.temperature,
        "images": config.images,
        "draws": 2 * DRAWS,
        "rows": found,
        "summary": summary(found, BY),
        "differences": differences(found, pairs, BY),
        "taylor": over_seeds(lines, [times * config.step_size for times in SIZES]),
        "taylor_rows": lines,
    }


def over_seeds(lines: Rows, sizes: Sequence[float]) -> Rows:
    """The Taylor terms of each kind over seeds, {mean, std, n} each, those of every size in lists.

    ratio       extra / (size^2 second), and
    matched     extra / (size^2 jacobian): 1 where the expansion holds, and where its rest is nothing
    """
    kinds: dict[tuple[Any, ...], Rows] = {}
    for line in lines:
        kinds.setdefault(tuple(line[name] for name in (*BY, "split", "along")), []).append(line)
    found = []
    for key, same in kinds.items():
        row: Row = dict(zip((*BY, "split", "along"), key, strict=True))
        row |= {name: summarise(line[name] for line in same) for name in TERMS}
        row["extra"] = [summarise(line["extra"][place] for line in same) for place in range(len(sizes))]
        for name, term in (("ratio", "second"), ("matched", "jacobian")):
            row[name] = [
                summarise(line["extra"][place] / (size**2 * line[term] or math.nan) for line in same)
                for place, size in enumerate(sizes)
            ]
        found.append(row)
    return found


EXPERIMENT = Experiment("experiment jacobian", jobs, results)
