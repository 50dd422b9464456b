"""Teachers, and the students that are distilled from them: who learns what by which loss."""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

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
from divkd.empirical.training.seed_run import CACHED_BATCH, EVALUATION_BATCH, SeedRun
from divkd.empirical.training.students import STUDENTS
from divkd.shared.errors import InputError
from divkd.shared.kinds import METHODS
from divkd.shared.manifest import bad_config, read_config
from divkd.shared.run import Run

REMEMBERED = 2**28  # bytes of teachers' answers that a student keeps at most


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


class Remembered(DeepEnsemble):
    """f(x)_m = f_m(x) of networks that answer each of `images` once, as it is and, with `flip`, mirrored.

    All are answered when the first batch comes, in its precision and in the order of the data and not of the batches:
    a run that goes on has the same bits. What is none of them is passed through the networks.
    """

    def __init__(self, networks: DeepEnsemble, images: Tensor, flip: bool) -> None:
        super().__init__(networks.nets)
        self.images, self.flip = images, flip
        self.rows: dict[bytes, int] = {}
        self.answers = torch.empty(0)

    def forward(self, x: Any = None, /, *more: Any, **named: Any) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> logits (M, B, K), which carry no gradient where they are remembered."""
        if not self.rows:
            self._answer()
        rows = [self.rows.get(key) for key in _keys(x)]
        return super().forward(x, *more, **named) if None in rows else self.answers[:, rows]

    @torch.no_grad()
    def _answer(self) -> None:
        answers, places = [], itertools.count()
        for block in self.images.split(CACHED_BATCH):
            for images in (block, block.flip(-1)) if self.flip else (block,):
                x = to_float(images)
                for key in _keys(x):
                    self.rows[key] = next(places)  # of images that are alike, the last
                answers.append(super().forward(x))
        self.answers = torch.cat(answers, 1)


def _keys(x: Tensor) -> Iterator[bytes]:
    """A digest of each image's pixels."""
    for image in x.permute(0, 2, 3, 1).numpy():
        yield hashlib.sha1(image.tobytes(), usedforsecurity=False).digest()


def spared(config: NetworksConfig, data: ImageData, epochs: int, teachers: int) -> int:
    """Forward passes of teachers for each training image that a student by "kd" of so many `epochs` does without.

    So many `teachers` answer each image beforehand, as it is and, where `config.flip` asks for that, mirrored. 0 where
    they are asked in every epoch: epochs are too few, or nothing is kept (`answered_bytes`).
    """
    return teachers * max(0, epochs - 1 - config.flip) if answered_bytes(config, data, teachers) else 0


def answered_bytes(config: NetworksConfig, data: ImageData, teachers: int) -> int:
    """Bytes of the answers of so many `teachers` to every training image, mirrored ones too.

    0 where none are kept: images are cropped, or there are more than `REMEMBERED`, or on a GPU, where nothing was
    measured.
    """
    held = (1 + config.flip) * teachers * len(data.train) * data.classes * 4
    return held if config.device == "cpu" and not config.crop and held <= REMEMBERED else 0


def remembered(seed_run: SeedRun, teachers: DeepEnsemble, epochs: int) -> DeepEnsemble:
    """`teachers` of a student by "kd", which answer from memory where that is `spared` something."""
    config, data = seed_run.config, seed_run.data
    if not spared(config, data, epochs, teachers.members):
        return teachers
    return Remembered(teachers, data.train.images, config.flip).eval().requires_grad_(False)


def train_student(seed_run: SeedRun, teachers: DeepEnsemble, student: str, method: str) -> tuple[Ensemble, float]:
    """One student of the kind `student` (a key of `STUDENTS`) by `method`, and its seconds."""
    config, kind = cast(TrainConfig, seed_run.config), STUDENTS[student]
    net = kind.create(seed_run.plain(config.network, "student"), config.members, seed_run.seed).to(
        torch.device(config.device)
    )
    if method == "kd":
        teachers = remembered(seed_run, teachers, config.student.epochs)
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
