"""One `divkd train` run: teachers, students by method, and a table of rows by seed."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.config import TrainConfig
from divkd.empirical.data import Augmentation, ImageData, Split, to_float
from divkd.empirical.ensembles import DeepEnsemble, to_batch_ensemble
from divkd.empirical.loop import Loss, train
from divkd.empirical.losses import cross_entropy, distill
from divkd.empirical.networks import build, parameters
from divkd.empirical.perturb import perturb
from divkd.shared.errors import RunError
from divkd.shared.evaluation import evaluate
from divkd.shared.metrics import accuracy, pairwise_kl
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.seeds import rng
from divkd.shared.stats import summarise

EVALUATION_BATCH = 500
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
    for seed in config.seeds:
        teachers, seconds = train_teachers(config, data, seed, run, progress)
        spent += sum(seconds)
        found = [predict(teachers, split) for split in (data.validation, data.test, data.train)]
        for size in range(1, config.members + 1):
            part = [log_probs[:size] for log_probs in found]
            count = parameters(teachers) // config.members * size
            rows.append(_row("deep_ensemble", "none", size, seed, data, part, count, sum(seconds[:size])))
        if config.members > 1:
            diversity.append({"seed": seed, **perturbed_diversity(config, data, teachers, seed)})
        for student in config.students:
            for method in config.methods:
                net, taken = train_student(config, data, teachers, student, method, seed, run, progress)
                spent += taken
                found = [predict(net, split) for split in (data.validation, data.test, data.train)]
                model, size = ("single", 1) if student == "single" else ("batch_ensemble", config.members)
                rows.append(_row(model, method, size, seed, data, found, parameters(net), taken))
                run.log(event="row", **rows[-1])
    sizes = {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}
    return {
        "command": "train cifar",
        "preset": config.preset,
        "dataset": data.name,
        "network": config.network,
        "split": {"rule": data.rule, **sizes},
        "seeds": list(config.seeds),
        "rows": rows,
        "summary": summary(rows),
        "teacher_diversity": diversity,
        "seconds": spent,  # training of all networks, over all sittings of a resumed run
    }


def label_loss(net: nn.Module, x: Tensor, y: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Cross-entropy on the labels, for teachers and for method "none"; nothing is drawn from `generator`."""
    logits = net(x)
    return cross_entropy(logits, y), logits


def train_teachers(
    config: TrainConfig, data: ImageData, seed: int, run: Run, progress: Progress
) -> tuple[DeepEnsemble, list[float]]:
    """M plain networks, each with its own initial weights, data order and augmentation; and each one's seconds."""
    nets, seconds = [], []
    for member in range(config.members):
        net = DeepEnsemble([_plain(config, data, rng(seed, "teacher/init", member))])
        seconds.append(
            train(
                net,
                label_loss,
                data.train,
                Augmentation(config.crop, config.flip),
                config.teacher,
                momentum=config.momentum,
                rank_one_lr=config.rank_one_lr,
                seed=seed,
                role="teacher",
                member=member,
                name=f"seed{seed}-teacher{member}",
                run=run,
                progress=progress,
            )
        )
        nets.append(net.nets[0])
    return DeepEnsemble(nets).eval().requires_grad_(False), seconds


def student_loss(config: TrainConfig, method: str, teachers: DeepEnsemble, classes: int) -> Loss:
    """The loss of a student (Nam et al. 2021, section 3), with t the temperature and a the weight of the KD term:

        loss = (1 - a) CE(S(x), y) + a KD(T(x~), S(x~)),    method "none": CE alone;  "kd": x~ = x, one forward pass

    Member m of a student learns from teacher m; a single network learns from all. The clean forward pass comes first.
    """
    if method == "none":
        return label_loss

    def loss(net: nn.Module, x: Tensor, y: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        ce, logits = label_loss(net, x, y, generator)
        if method == "kd":
            moved, answers = x, logits
        else:
            moved = perturb(method, x, teachers, classes, config.temperature, config.step_size, generator)
            answers = net(moved)
        with torch.no_grad():
            targets = teachers(moved)
        kd = distill(answers, targets, config.temperature)
        return (1 - config.kd_weight) * ce + config.kd_weight * kd, logits

    return loss


def train_student(
    config: TrainConfig,
    data: ImageData,
    teachers: DeepEnsemble,
    student: str,
    method: str,
    seed: int,
    run: Run,
    progress: Progress,
) -> tuple[nn.Module, float]:
    """One student, a BatchEnsemble of as many members as there are teachers or a single network; and its seconds."""
    net: nn.Module = _plain(config, data, rng(seed, "student/init"))
    if student == "single":
        # Without distillation the number of teachers makes no difference, and no other checkpoint.
        teachers_used = "" if method == "none" else f"-from{config.members}"
        net, name = DeepEnsemble([net]), f"seed{seed}-single-{method}{teachers_used}"
    else:
        net, name = to_batch_ensemble(net, config.members, seed), f"seed{seed}-batch-ensemble{config.members}-{method}"
    net.to(torch.device(config.device))
    seconds = train(
        net,
        student_loss(config, method, teachers, data.classes),
        data.train,
        Augmentation(config.crop, config.flip),
        config.student,
        momentum=config.momentum,
        rank_one_lr=config.rank_one_lr,
        seed=seed,
        role="student",
        member=0,
        name=name,
        run=run,
        progress=progress,
    )
    return net, seconds


def _plain(config: TrainConfig, data: ImageData, generator: np.random.Generator) -> nn.Module:
    return build(config.network, data.classes, data.mean, data.std, generator).to(torch.device(config.device))


@torch.inference_mode()
def predict(net: nn.Module, split: Split) -> Tensor:
    """Member log-probabilities (M, N, K), float32, on the CPU, of the images as they are (no crop, no flip).

    Raises `RunError` where they are NaN: weights that are finite may still be too large to compute with.
    """
    net.eval()
    parts = [torch.log_softmax(net(to_float(images)), -1) for images in split.images.split(EVALUATION_BATCH)]
    log_probs = torch.cat(parts, 1).cpu()
    if log_probs.isnan().any():
        raise RunError("a network diverged in its last epoch and predicts NaN; start a new --out with a lower --lr")
    return log_probs


def perturbed_diversity(config: TrainConfig, data: ImageData, teachers: DeepEnsemble, seed: int) -> dict[str, float]:
    """The teachers' mean pairwise KL on training images, clean and moved by each perturbation (one draw an image).

    The paper's premise in one row: teachers that fit their training data agree on it, and an ODS step makes them
    disagree. At most the first 1,000 training images, no crop, no flip, temperature 1.
    """
    images = data.train.images[:1000]
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
        found[kind] = pairwise_kl(torch.cat(parts, 1).cpu())
    return found


def _row(
    model: str,
    method: str,
    members: int,
    seed: int,
    data: ImageData,
    log_probs: list[Tensor],
    count: int,
    seconds: float,
) -> dict[str, Any]:
    validation, test, training = log_probs
    scores = evaluate(validation, data.validation.labels.cpu(), test, data.test.labels.cpu())
    train_acc = accuracy(training, data.train.labels.cpu())
    head = {"model": model, "method": method, "members": members, "seed": seed}
    return {**head, **scores, "train_acc": train_acc, "params": count, "seconds": seconds}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`rows` with every metric as {mean, std, n} over seeds, in the rows' order."""
    keys = list(dict.fromkeys((row["model"], row["method"], row["members"]) for row in rows))
    result = []
    for model, method, members in keys:
        same = [row for row in rows if (row["model"], row["method"], row["members"]) == (model, method, members)]
        metrics = {metric: summarise(row[metric] for row in same) for metric in METRICS}
        result.append({"model": model, "method": method, "members": members, **metrics})
    return result
