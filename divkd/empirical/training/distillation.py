"""Teachers, and the students that are distilled from them: who learns what by which loss."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.data.splits import Augmentation, ImageData, Split, to_float
from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import BatchEnsemble, DeepEnsemble, merge, to_batch_ensemble
from divkd.empirical.training.config import Schedule, TrainConfig
from divkd.empirical.training.loop import Loss, train
from divkd.empirical.training.losses import cross_entropy, distill
from divkd.empirical.training.perturb import perturb
from divkd.shared.errors import InputError, RunError
from divkd.shared.files import read_json
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.seeds import rng

EVALUATION_BATCH = 500
CACHED_BATCH = 50  # on a CPU: the activations of more leave the cache (benchmarks/predict_batch.py)


def label_loss(
    net: nn.Module, x: Tensor, y: Tensor, generator: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Cross-entropy on the labels, for teachers and for method "none"; nothing is drawn from `generator`."""
    logits = net(x).float()
    yield cross_entropy(logits, y), logits


def train_teachers(
    config: TrainConfig, data: ImageData, seed: int, run: Run, progress: Progress
) -> tuple[DeepEnsemble, list[float]]:
    """All networks of the deep ensemble, of which the first `config.members` teach; and each one's seconds.

    Each has its own initial weights, data order and augmentation, whatever their number.
    """
    source, config = (run, config) if config.teachers is None else reused(config, data.facts()["sha256"])
    nets, seconds = [], []
    for member in range(config.networks):
        net = DeepEnsemble([_plain(config, data, rng(seed, "teacher/init", member), teacher=True)])
        seconds.append(
            _train(config, data, net, label_loss, config.teacher, "teacher", member, f"seed{seed}-teacher{member}",
                   seed, source, progress)
        )  # fmt: skip
        nets.append(net.nets[0])
    return DeepEnsemble(nets).eval().requires_grad_(False), seconds


def reused(config: TrainConfig, sha256: str) -> tuple[Run, TrainConfig]:
    """The run that `config.teachers` names, and how its first `config.networks` teachers were trained.

    Raises `InputError` where it holds no finished teachers for every seed, or they learned from other data than that of
    the sum `sha256`: these students' test images could be among the images that they learned from.
    """
    source = Run(Path(str(config.teachers)))
    content = read_json(source.path / "config.json")
    whole = isinstance(content, dict) and all(isinstance(content.get(key), dict) for key in ("config", "data"))
    if not whole or content.get("command") != "train cifar":
        raise InputError(f"--teachers {source.path} is no run of divkd train; give one that holds teachers")
    theirs = TrainConfig.from_dict(content["config"])
    if theirs.teachers is not None:
        raise InputError(f"--teachers {source.path} uses the teachers of {theirs.teachers}; give that run")
    if content["data"].get("sha256") != sha256:
        raise InputError(
            f"--teachers {source.path} learned from other images or another split of them; students learn from "
            "teachers of the same data: give its --dataset, --train-images and --image-size"
        )
    for seed, member in itertools.product(config.seeds, range(config.networks)):
        name = f"seed{seed}-teacher{member}"
        found = source.load(name)
        if found is None or found[1].get("epoch") != theirs.teacher.epochs:
            raise InputError(
                f"--teachers {source.path} has no finished {name}; train it there with --resume, or ask for less"
            )
    return source, dataclasses.replace(theirs, members=config.members, ladder=config.ladder, device=config.device)


def student_loss(
    method: str, teachers: DeepEnsemble, classes: int, temperature: float, kd_weight: float, step_size: float
) -> Loss:
    """The loss of a student (Nam et al. 2021, section 3), with t the temperature and a the weight of the KD term:

        loss = (1 - a) CE(S(x), y) + a KD(T(x~), S(x~)),    method "none": CE alone;  "kd": x~ = x, one forward pass

    Member m of a student learns from teacher m; a single network learns from all. The clean forward pass comes first,
    and with a perturbation its backward pass too: two graphs at once would take twice the memory.
    """
    if method == "none":
        return label_loss
    a = kd_weight

    def loss(
        net: nn.Module, x: Tensor, y: Tensor, generator: np.random.Generator
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        def kd(moved: Tensor, answers: Tensor) -> Tensor:
            with torch.no_grad():
                targets = teachers(moved).float()
            return a * distill(answers, targets, temperature)

        logits = net(x).float()
        ce = (1 - a) * cross_entropy(logits, y)
        if method == "kd":
            yield ce + kd(x, logits), logits
            return
        yield ce, logits.detach()
        del ce, logits  # and with them the clean pass's graph
        moved = perturb(method, x, teachers, classes, temperature, step_size, generator)
        yield kd(moved, net(moved).float()), None

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
    net = DeepEnsemble([net]) if student == "single" else to_batch_ensemble(net, config.members, seed)
    name = student_name(student, method, config.members, seed)
    net.to(torch.device(config.device))
    loss = student_loss(method, teachers, data.classes, config.temperature, config.kd_weight, config.step_size)
    return net, _train(config, data, net, loss, config.student, "student", 0, name, seed, run, progress)


def student_name(student: str, method: str, members: int, seed: int) -> str:
    """The name of a student's checkpoint."""
    if student == "single":
        # Without distillation the number of teachers makes no difference, and no other checkpoint.
        return f"seed{seed}-single-{method}" + ("" if method == "none" else f"-from{members}")
    return f"seed{seed}-batch_ensemble{members}-{method}"


def _train(
    config: TrainConfig, data: ImageData, net: nn.Module, loss: Loss, schedule: Schedule, role: str, member: int,
    name: str, seed: int, run: Run, progress: Progress,
) -> float:  # fmt: skip
    def score(net: nn.Module) -> float:
        """Mean member accuracy on validation."""
        return float((predict(net, data.validation).argmax(-1) == data.validation.labels.cpu()).double().mean())

    return train(
        net,
        loss,
        data.train,
        Augmentation(config.crop, config.flip),
        schedule,
        momentum=config.momentum,
        rank_one_lr=config.rank_one_lr,
        seed=seed,
        role=role,
        member=member,
        name=name,
        run=run,
        progress=progress,
        score=score,
        precision=config.precision,
    )


def _plain(config: TrainConfig, data: ImageData, generator: np.random.Generator, teacher: bool = False) -> nn.Module:
    network = (config.teacher_network if teacher else None) or config.network
    return build(network, data.classes, data.mean, data.std, generator).to(torch.device(config.device))


def merged(net: BatchEnsemble, data: ImageData) -> DeepEnsemble:
    """One plain network with the mean of the members' factors, for one forward pass (Nam et al. 2022, LatentBE).

    BatchNorm's statistics are the members' pooled ones and not those of the mean: they are taken anew, as the average
    over the training images in order, as they are, without labels.
    """
    found = DeepEnsemble([merge(net)])
    blocks = data.train.images.split(EVALUATION_BATCH)
    torch.optim.swa_utils.update_bn((to_float(images) for images in blocks if len(images) > 1), found)
    return found.eval()


@torch.inference_mode()
def predict(net: nn.Module, split: Split) -> Tensor:
    """Member log-probabilities (M, N, K), float32, on the CPU, of the images as they are (no crop, no flip).

    Raises `RunError` where they are NaN: weights that are finite may still be too large to compute with.
    """
    net.eval()
    size = CACHED_BATCH if split.images.device.type == "cpu" else EVALUATION_BATCH
    parts = [torch.log_softmax(net(to_float(images)), -1) for images in split.images.split(size)]
    log_probs = torch.cat(parts, 1).cpu()
    if log_probs.isnan().any():
        raise RunError("a network diverged in its last epoch and predicts NaN; start a new --out with a lower --lr")
    return log_probs
