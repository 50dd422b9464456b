"""One `divkd train` run: teachers, students by method, and a table of rows by seed."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from divkd.empirical.data.splits import ImageData, to_float
from divkd.empirical.networks.build import parameters
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training.config import FITTED, TrainConfig
from divkd.empirical.training.distillation import merged, reused, train_student, train_teachers
from divkd.empirical.training.job import EVALUATION_BATCH, Job, log_probs
from divkd.empirical.training.perturb import perturbed
from divkd.empirical.training.students import STUDENTS, rows_of
from divkd.shared.metrics.dee import Equivalent, equivalent, equivalent_curve, summarise_equivalents
from divkd.shared.metrics.evaluation import evaluate
from divkd.shared.metrics.quality import accuracy, pairwise_kl
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.seeds import rng
from divkd.shared.stats import paired, summarise

NAMES = ("model", "method", "members", "seed")  # of a row: what else is a number in it is a metric
# What no difference between methods is taken of: values that calibration changes, and what is not of predictions.
NOT_COMPARED = ("brier", "ece", "temperature", "train_acc", "params", "seconds")


def run_training(config: TrainConfig, data: ImageData, run: Run, progress: Progress) -> dict[str, Any]:
    """Train what `config` asks for, or load what `run` holds already, and return the content of results.json.

    Every seed has its own teachers. Students of one seed share initial weights, data order and augmentation whatever
    their method, so that differences between methods are paired.
    """
    data = data.to(torch.device(config.device))
    labels = [split.labels.cpu() for split in (data.validation, data.test, data.train)]
    rows: list[dict[str, Any]] = []
    diversity: list[dict[str, Any]] = []
    ladders: list[dict[str, Any]] = []
    alone: list[dict[str, Any]] = []
    spent = 0.0
    for seed in config.seeds:
        job = Job(config, data, seed, run, progress)
        networks, seconds = train_teachers(job)
        teachers = DeepEnsemble(list(networks.nets[: config.members])).eval()
        spent += sum(seconds)
        predictions = job.predictions(networks)
        curve = equivalent_curve(predictions[0], labels[0], predictions[1], labels[1])
        ladders.append({"seed": seed, "curve": curve})
        for number in range(config.networks):
            train, test = (accuracy(predictions[part][number : number + 1], labels[part]) for part in (2, 1))
            alone.append({"seed": seed, "network": number, "train_acc": train, "acc": test})
        each = parameters(networks) // config.networks
        for size in range(1, config.networks + 1):
            scores = _scores([answers[:size] for answers in predictions], labels)
            names = {"model": "deep_ensemble", "method": "none", "members": size, "seed": seed}
            rows.append({**names, **scores, "params": each * size, "seconds": sum(seconds[:size])})
        if config.members > 1:
            diversity.append({"seed": seed, **perturbed_diversity(job, teachers)})
        for student, method in itertools.product(config.students, config.methods):
            net, taken = train_student(job, teachers, student, method)
            spent += taken
            models = {student: net, **({"merged": merged(net, data)} if STUDENTS[student].merges else {})}
            for model, one in models.items():
                scores = _scores(job.predictions(one), labels)
                dee = equivalent(curve, scores["cal_nll"])
                names = {"model": model, "method": method, "members": rows_of(model, config.members), "seed": seed}
                scores |= {"dee": {"value": dee.value, "censored": dee.censored}}
                rows.append({**names, **scores, "params": parameters(one), "seconds": taken})
                run.log(event="row", **rows[-1])
    theirs = reused(config, data.facts()["sha256"])[1] if config.teachers else config
    sizes = {name: len(getattr(data, name)) for name in ("train", "validation", "test")}
    return {
        "command": "train cifar",
        "preset": config.preset,
        "dataset": data.name,
        "network": config.network,
        "teacher_network": theirs.teacher_network or theirs.network,
        "split": {"rule": data.rule, **sizes},
        "seeds": list(config.seeds),
        "members": config.members,
        "rows": rows,
        "summary": summary(rows),
        "differences": differences(rows),
        "teacher_diversity": diversity,
        "ladders": ladders,
        "networks": alone,  # of the deep ensemble, one by one
        "seconds": spent,  # training of all networks, over all sittings of a resumed run
    }


def perturbed_diversity(job: Job, teachers: DeepEnsemble) -> dict[str, float]:
    """The teachers' mean pairwise KL on training images, clean and moved by each perturbation (one draw an image).

    The paper's premise in one row: teachers that fit their training data agree on it, and an ODS step makes them
    disagree. At most the first 1,000 training images, no crop, no flip, temperature 1; a teacher is drawn for each
    500. `train_acc` is the teachers' mean accuracy on them: below `FITTED` the ratios are `void`, as the paper is about
    teachers that fit their images.
    """
    config, train = job.config, job.data.train
    images, labels = train.images[:1000], train.labels[:1000].cpu()
    blocks = [to_float(block) for block in images.split(EVALUATION_BATCH)]
    step = config.temperature, config.step_size
    row = {"images": float(len(images))}
    for kind, parts in perturbed(blocks, teachers, *step, lambda _: rng(job.seed, "diversity/perturb")).items():
        answers = log_probs(teachers, parts)
        row[kind] = pairwise_kl(answers)
        if kind == "clean":
            row["train_acc"] = float((answers.argmax(-1) == labels).double().mean())
            row["void"] = row["train_acc"] < FITTED
    return row


def _scores(predictions: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, Any]:
    """What a row says of predictions of the validation, the test and the training images."""
    scores = evaluate(predictions[0], labels[0], predictions[1], labels[1])
    return {**scores, "train_acc": accuracy(predictions[2], labels[2])}


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
