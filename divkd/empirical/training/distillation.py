"""Teachers, and the students that are distilled from them: who learns what by which loss."""

import dataclasses
import itertools
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from divkd.empirical.data.splits import ImageData, to_float
from divkd.empirical.networks.ensembles import BatchEnsemble, DeepEnsemble, Ensemble, merge
from divkd.empirical.networks.handed import choice
from divkd.empirical.training.clock import span
from divkd.empirical.training.config import NetworksConfig, TrainConfig
from divkd.empirical.training.diagnosis import check_loss
from divkd.empirical.training.loop import BatchLoss, Terms, epoch_of, load, train
from divkd.empirical.training.perturb import PIXELS, Space, perturb
from divkd.empirical.training.seed_run import EVALUATION_BATCH, SeedRun
from divkd.empirical.training.students import STUDENTS
from divkd.shared.errors import InputError
from divkd.shared.kinds import METHODS
from divkd.shared.manifest import bad_config, read_config
from divkd.shared.run import Run


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-1/(M B) sum_mb log softmax(logits_mb)[labels_b]. Logits (M, B, K), labels (B,) -> a scalar, in nats.

    Soft labels q (B, K): -1/(M B) sum_mbk q_bk log softmax(logits_mb)_k.
    """
    return F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits), *[1] * (labels.ndim - 1)))


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """t^2 / (M B) sum_mb KL( softmax(T_mb / t) || softmax(S_mb / t) )  (Nam et al. 2021, section 2.2, one-to-one).

    Student (M or 1, B, K), teacher (M, B, K) logits -> a scalar. A class that the teacher excludes (-inf) counts 0; one
    that the student alone excludes makes it +inf. One student row serves every teacher, which for its gradient equals
    distilling from the mean of the teachers' tempered probabilities (Hinton et al. 2015).
    """
    log_q, log_p = (F.log_softmax(logits / temperature, -1) for logits in (student, teacher))
    p = log_p.exp()
    kl = torch.where(p == 0, 0, p * (log_p - log_q)).sum(-1)  # 0 * -inf would be NaN
    return temperature**2 * kl.mean()


def label_loss(net: nn.Module, x: Tensor, y: Tensor, generator: np.random.Generator) -> Terms:
    """Cross-entropy on the labels, for teachers and for method "none"; nothing is drawn from `generator`."""
    logits = net(x).float()
    yield check_loss(cross_entropy(logits, y), x, logits), logits


def _weighed(weight: float, term: Tensor) -> Tensor:
    """weight * term, and 0 of any term where the weight is 0."""
    return weight * (term if weight else term.nan_to_num(posinf=0.0))


def train_teacher(seed_run: SeedRun, member: int) -> float:
    """Train network `member` of the deep ensemble, with weights, order and augmentation of its own; its seconds."""
    net = _teacher(seed_run, member)
    return train(
        seed_run, net, label_loss, seed_run.config.teacher, "teacher", member, teacher_name(seed_run.seed, member)
    )


def teachers_of(seed_run: SeedRun, count: int) -> tuple[DeepEnsemble, list[float]]:
    """The first `count` networks of the deep ensemble, trained, of this run or of that which `config.teachers` names.

    And the seconds that each took. Raises `InputError` where one is not finished.
    """
    if seed_run.config.teachers is not None:
        source, theirs = reused(seed_run.config, seed_run.data.facts()["sha256"])
        seed_run = dataclasses.replace(seed_run, config=theirs, run=source)
    nets, seconds, epochs = [], [], seed_run.config.teacher.epochs
    for member in range(count):
        net = _teacher(seed_run, member)
        seconds.append(finished(net, epochs, teacher_name(seed_run.seed, member), seed_run.run))
        nets.append(net.nets[0])
    return DeepEnsemble(nets).eval().requires_grad_(False), seconds


def finished(net: nn.Module, epochs: int, name: str, run: Run) -> float:
    """Put the finished checkpoint `name` into `net`; the seconds that it took. Raises `InputError` where it is none."""
    epoch, spent, _ = load(net, torch.optim.SGD(net.parameters(), lr=0.0), epochs, name, run)
    if epoch < epochs:
        raise InputError(f"{run.path} has {epoch} of {epochs} epochs of {name}; --resume trains the others")
    return spent


def _teacher(seed_run: SeedRun, member: int) -> DeepEnsemble:
    return DeepEnsemble([seed_run.plain(seed_run.config.teachers_network, "teacher", member)])


def teacher_name(seed: int, member: int) -> str:
    """The name of a teacher's checkpoint."""
    return f"seed{seed}-teacher{member}"


def reused(config: NetworksConfig, sha256: str) -> tuple[Run, TrainConfig]:
    """The run that `config.teachers` names, and how its first `config.networks` teachers were trained.

    Raises `InputError` where it holds no finished teachers for every seed, or they learned from other data than that of
    the sum `sha256`: these students' test images could be among the images that they learned from.
    """
    source = Run(Path(str(config.teachers)))
    content = read_config(source.path)
    if content["command"] != "train cifar":
        raise InputError(f"--teachers {source.path} is no run of divkd train; give one that holds teachers")
    if not isinstance(content.get("data"), dict):
        raise bad_config(source.path, f"data is {content.get('data')!r:.60}")
    try:
        theirs = TrainConfig.from_dict(content["config"])
    except InputError as error:
        raise bad_config(source.path, str(error)) from error
    if theirs.teachers is not None:
        raise InputError(f"--teachers {source.path} uses the teachers of {theirs.teachers}; give that run")
    if content["data"].get("sha256") != sha256:
        raise InputError(
            f"--teachers {source.path} learned from other images or another split of them; students learn from "
            "teachers of the same data: give its --dataset, --train-images and --image-size"
        )
    for seed, member in itertools.product(config.seeds, range(config.networks)):
        name = teacher_name(seed, member)
        checkpoint = source.load(name)
        epochs = theirs.teacher.epochs
        if checkpoint is None or epoch_of(checkpoint[1], epochs, name, source) != epochs:
            raise InputError(
                f"--teachers {source.path} has no finished {name}; train it there with --resume, or ask for less"
            )
    return source, dataclasses.replace(theirs, members=config.members, ladder=config.networks, device=config.device)


def student_loss(
    method: str,
    teachers: DeepEnsemble,
    temperature: float,
    kd_weight: float,
    step_size: float | Tensor,
    space: Space = PIXELS,
) -> BatchLoss:
    """The loss of a student (Nam et al. 2021, section 3), with t the temperature and a the weight of the KD term:

        loss = (1 - a) CE(S(x), y) + a KD(T(x~), S(x~)),    method "none": CE alone;  "kd": x~ = x, one forward pass

    Member m of a student learns from teacher m; a single network learns from all. The clean forward pass comes first,
    and with a perturbation its backward pass too: two graphs at once would take twice the memory. Raises `InputError`
    for an unknown method. Perturbed inputs move in their `space`.
    """
    choice("method", method, METHODS)
    if method == "none":
        return label_loss

    def loss(net: nn.Module, x: Tensor, y: Tensor, generator: np.random.Generator) -> Terms:
        def kd(images: Tensor, answers: Tensor) -> Tensor:
            with span("teachers"), torch.no_grad():
                targets = teachers(images).float()
            return check_loss(_weighed(kd_weight, kd_loss(answers, targets, temperature)), images, answers, targets)

        logits = net(x).float()
        ce = check_loss(_weighed(1 - kd_weight, cross_entropy(logits, y)), x, logits)
        if method == "kd":
            yield ce + kd(x, logits), logits
            return
        yield ce, logits.detach()
        del ce, logits  # and with them the clean pass's graph
        with span("perturbation"):
            perturbed = perturb(method, x, teachers, temperature, step_size, generator, space)
        yield kd(perturbed, net(perturbed).float()), None

    return loss


def train_student(seed_run: SeedRun, teachers: DeepEnsemble, student: str, method: str) -> tuple[Ensemble, float]:
    """One student of the kind `student` (a key of `STUDENTS`) by `method`, and its seconds."""
    config, kind = cast(TrainConfig, seed_run.config), STUDENTS[student]
    net = kind.create(seed_run.plain(config.network, "student"), config.members, seed_run.seed).to(
        torch.device(config.device)
    )
    loss = student_loss(method, teachers, config.temperature, config.kd_weight, config.step_size)
    name = kind.checkpoint(method, config.members, seed_run.seed)
    return net, train(seed_run, net, loss, config.student, "student", 0, name)


def merged(net: Ensemble, data: ImageData) -> DeepEnsemble:
    """One plain network with the mean of the factors of a `BatchEnsemble`, for one forward pass (Nam et al. 2022).

    BatchNorm's statistics are the members' pooled ones and not those of the mean: they are taken anew, as the average
    over the training images in order, as they are, without labels.
    """
    one = DeepEnsemble([merge(cast(BatchEnsemble, net))])
    blocks = data.train.images.split(EVALUATION_BATCH)
    torch.optim.swa_utils.update_bn((to_float(images) for images in blocks if len(images) > 1), one)
    return one.eval()
