"""One `divkd train` run: teachers, students by method, and a table of rows by seed."""

from typing import Any

import torch
from torch import Tensor

from divkd.empirical.data.splits import ImageData, to_float
from divkd.empirical.networks.build import parameters
from divkd.empirical.networks.ensembles import BatchEnsemble, DeepEnsemble
from divkd.empirical.training.config import FITTED, TrainConfig
from divkd.empirical.training.distillation import EVALUATION_BATCH, merged, predict, train_student, train_teachers
from divkd.empirical.training.perturb import perturb
from divkd.shared.metrics.dee import Equivalent, equivalent, equivalent_curve, summarise_equivalents
from divkd.shared.metrics.evaluation import evaluate
from divkd.shared.metrics.quality import accuracy, pairwise_kl
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.seeds import rng
from divkd.shared.stats import paired, summarise

COMPARED = ("acc", "nll", "cal_nll", "cal_brier", "cal_ece", "pairwise_kl")
METRICS = (
    *("acc", "nll", "brier", "ece", "temperature", "cal_nll", "cal_brier", "cal_ece", "pairwise_kl", "train_acc"),
    *("params", "seconds"),
)


def run_training(config: TrainConfig, data: ImageData, run: Run, progress: Progress) -> dict[str, Any]:
    """Train what `config` asks for, or load what `run` holds already, and return the content of results.json.

    Every seed has its own teachers. Students of one seed share initial weights, data order and augmentation whatever
    their method, so that differences between methods are paired.
    """
    device = torch.device(config.device)
    data = data.to(device)
    rows: list[dict[str, Any]] = []
    spent = 0.0
    diversity: list[dict[str, Any]] = []
    ladders: list[dict[str, Any]] = []
    for seed in config.seeds:
        networks, seconds = train_teachers(config, data, seed, run, progress)
        teachers = DeepEnsemble(list(networks.nets[: config.members])).eval()
        spent += sum(seconds)
        found = [predict(networks, split) for split in (data.validation, data.test, data.train)]
        curve = ladder(data, *found[:2])
        ladders.append({"seed": seed, "curve": curve})
        for size in range(1, config.networks + 1):
            part = [log_probs[:size] for log_probs in found]
            count = parameters(networks) // config.networks * size
            rows.append(_row("deep_ensemble", "none", size, seed, data, part, count, sum(seconds[:size])))
        if config.members > 1:
            diversity.append({"seed": seed, **perturbed_diversity(config, data, teachers, seed)})
        for student in config.students:
            for method in config.methods:
                net, taken = train_student(config, data, teachers, student, method, seed, run, progress)
                spent += taken
                model, size = ("single", 1) if student == "single" else ("batch_ensemble", config.members)
                found = [predict(net, split) for split in (data.validation, data.test, data.train)]
                rows.append(_row(model, method, size, seed, data, found, parameters(net), taken, curve))
                run.log(event="row", **rows[-1])
                if isinstance(net, BatchEnsemble):
                    one = merged(net, data)
                    found = [predict(one, split) for split in (data.validation, data.test, data.train)]
                    rows.append(_row("merged", method, 1, seed, data, found, parameters(one), taken, curve))
                    run.log(event="row", **rows[-1])
    sizes = {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}
    return {
        "command": "train cifar",
        "preset": config.preset,
        "dataset": data.name,
        "network": config.network,
        "split": {"rule": data.rule, **sizes},
        "seeds": list(config.seeds),
        "members": config.members,
        "rows": rows,
        "summary": summary(rows),
        "differences": differences(rows),
        "teacher_diversity": diversity,
        "ladders": ladders,
        "seconds": spent,  # training of all networks, over all sittings of a resumed run
    }


def perturbed_diversity(config: TrainConfig, data: ImageData, teachers: DeepEnsemble, seed: int) -> dict[str, float]:
    """The teachers' mean pairwise KL on training images, clean and moved by each perturbation (one draw an image).

    The paper's premise in one row: teachers that fit their training data agree on it, and an ODS step makes them
    disagree. At most the first 1,000 training images, no crop, no flip, temperature 1; a teacher is drawn for each
    500. `train_acc` is the teachers' mean accuracy on them: below `FITTED` the ratios are `void`, as the paper is about
    teachers that fit their images.
    """
    images, labels = data.train.images[:1000], data.train.labels[:1000].cpu()
    found = {"images": float(len(images))}
    for kind in ("clean", "gaussian", "ods", "confods"):
        generator = rng(seed, "diversity/perturb")
        parts = []
        for block in images.split(EVALUATION_BATCH):
            x = to_float(block)
            if kind != "clean":
                x = perturb(kind, x, teachers, data.classes, config.temperature, config.step_size, generator)
            with torch.no_grad():
                parts.append(torch.log_softmax(teachers(x), -1))
        log_probs = torch.cat(parts, 1).cpu()
        found[kind] = pairwise_kl(log_probs)
        if kind == "clean":
            found["train_acc"] = float((log_probs.argmax(-1) == labels).double().mean())
            found["void"] = found["train_acc"] < FITTED
    return found


def ladder(data: ImageData, validation: Tensor, test: Tensor) -> list[dict[str, Any]]:
    """The curve of calibrated NLL of 1, 2, ... of these networks, on which a student's DEE is read."""
    return equivalent_curve(validation, data.validation.labels.cpu(), test, data.test.labels.cpu())


def _row(
    model: str,
    method: str,
    members: int,
    seed: int,
    data: ImageData,
    log_probs: list[Tensor],
    count: int,
    seconds: float,
    curve: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    validation, test, training = log_probs
    scores = evaluate(validation, data.validation.labels.cpu(), test, data.test.labels.cpu())
    train_acc = accuracy(training, data.train.labels.cpu())
    row = {"model": model, "method": method, "members": members, "seed": seed, **scores, "train_acc": train_acc}
    if curve is not None:
        found = equivalent(curve, scores["cal_nll"])
        row["dee"] = {"value": found.value, "censored": found.censored}
    return row | {"params": count, "seconds": seconds}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`rows` with every metric as {mean, std, n} over seeds, in the rows' order, and of students the DEE as
    {mean, std, n, censored}."""
    keys = list(dict.fromkeys((row["model"], row["method"], row["members"]) for row in rows))
    result = []
    for model, method, members in keys:
        same = [row for row in rows if (row["model"], row["method"], row["members"]) == (model, method, members)]
        metrics = {metric: summarise(row[metric] for row in same) for metric in METRICS}
        if "dee" in same[0]:
            metrics["dee"] = summarise_equivalents(Equivalent(**row["dee"]) for row in same)
        result.append({"model": model, "method": method, "members": members, **metrics})
    return result


def differences(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Paired differences over seeds: every method of a model minus plain KD, and every student minus its control.

    `model`, `method`, `against_model`, `against_method`, and {mean, std, n, low, high} (see `stats.paired`) of
    what is compared. Rows of a seed share teachers, initial weights and data order, so the pairs are close.
    """
    by = {(row["model"], row["method"], row["seed"]): row for row in rows if row["model"] != "deep_ensemble"}
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    kinds = list(dict.fromkeys((model, method) for model, method, _ in by))
    found = []
    for model, method in kinds:
        for other in ((model, "kd"), ("single", method)):
            if other != (model, method) and other in kinds:
                pairs = [(by[model, method, seed], by[(*other, seed)]) for seed in seeds]
                compared = {
                    metric: paired([one[metric] for one, _ in pairs], [two[metric] for _, two in pairs])
                    for metric in COMPARED
                }
                names = {"model": model, "method": method, "against_model": other[0], "against_method": other[1]}
                found.append({**names, **compared})
    return found
