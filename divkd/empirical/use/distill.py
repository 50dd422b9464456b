"""Your models on your batches: distill them into one network, and predict with uncertainty."""

import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.networks.ensembles import DeepEnsemble, Ensemble
from divkd.empirical.networks.handed import check_network, described, memory, reason, whole
from divkd.empirical.training.config import Schedule
from divkd.empirical.training.diagnosis import flaw
from divkd.empirical.training.distillation import student_loss
from divkd.empirical.training.loop import run_epoch, set_rate, sgd
from divkd.empirical.training.seed_run import EVALUATION_BATCH
from divkd.empirical.use import given
from divkd.empirical.use.rehearsal import check_optimiser, check_teachers, rehearse, takes_one, unseen
from divkd.shared.errors import InputError, RunError
from divkd.shared.metrics.diversity import entropy, sample_diversity
from divkd.shared.metrics.quality import ensemble_log_probs
from divkd.shared.seeds import rng

MOST = sys.float_info.max
MILESTONES = (0.05, 0.5, 0.9)  # shares of the epochs: warm-up, full rate, decay, as in the preset cpu


def distill(
    teachers: Sequence[nn.Module],
    student: nn.Module,
    batches: Iterable[Sequence[Tensor]],
    epochs: int,
    method: str = "confods",
    *,
    lr: float = 0.1,
    weight_decay: float = 4e-4,
    momentum: float = 0.9,
    rank_one_lr: float = 0.5,
    optimiser: torch.optim.Optimizer | None = None,
    temperature: float = 4.0,
    kd_weight: float = 0.9,
    step_size: float = 1 / 255,
    seed: int = 0,
    each_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Train `student` in place, by the loss of ``divkd train`` (Nam et al. 2021, section 3):

        loss = (1 - a) CE(S(x), y) + a t^2 KL(softmax(T(x~) / t) || softmax(S(x~) / t)),   x~ = x moved by the method

    teachers     plain networks, images (B, C, H, W) in [0, 1] to logits (B, K). They answer in eval mode and come back
                 as they were
    student      a `BatchEnsemble` of as many members, whose member m learns from teacher m; or a plain network, the
                 control, which learns from all. It comes back in eval mode
    batches      (images, labels), iterated once an epoch: images (B, C, H, W) floats in [0, 1], augmented as you like
                 but not normalised, as the perturbations live in pixels; labels (B,) whole numbers 0 to K-1
    method       none (labels only), kd (clean images), gaussian, ods or confods (images on which the teachers disagree)
    optimiser    your own, on the student's parameters, with its own learning rate. Without one: SGD of `lr`, `momentum`
                 and `weight_decay` on the schedule of the preset cpu; rank-one factors get `rank_one_lr` times the rate
                 and no decay
    temperature, kd_weight, step_size       t, a and eta, the step of a perturbation in pixels of [0, 1]
    each_epoch   is called with each record, e.g. to print it, to save the student, to step your scheduler

    Returns a record {epoch, loss, acc} for each epoch, means over its images: the loss in nats, the members' mean
    accuracy in [0, 1]. Perturbations are a function of (seed, epoch); the order of the images is your loader's. A batch
    of one image is left out where the student cannot be trained on one, as with BatchNorm.

    A copy of the student takes the first step before it does. Raises `InputError` for the first thing that does not
    fit, and `RunError` with the epoch and the batch in which a network fails, or something is no longer finite.
    """
    epochs = whole("epochs", epochs, 1)
    for name, rate in (("lr", lr), ("temperature", temperature)):
        given.check_number(name, rate, 0, MOST, "a finite number above 0", above=True)
    for name, rate in (("weight_decay", weight_decay), ("momentum", momentum), ("rank_one_lr", rank_one_lr)):
        given.check_number(name, rate, 0, MOST, "a finite number from 0")
    for name, rate in (("kd_weight", kd_weight), ("step_size", step_size)):
        given.check_number(name, rate, 0, 1, "a number from 0 to 1")
    if not (optimiser is None or isinstance(optimiser, torch.optim.Optimizer)):
        raise InputError(f"the optimiser is {described(optimiser)}; give one of torch.optim on student.parameters()")
    if not (each_epoch is None or callable(each_epoch)):
        raise InputError(f"each_epoch is {described(each_epoch)}; give a function of a record, such as print")
    check_network(student, "the student")
    ensemble = _ensemble(teachers)
    net = student if isinstance(student, Ensemble) else DeepEnsemble([student])
    loss = student_loss(method, ensemble, temperature, kd_weight, step_size)
    if not set(ensemble.parameters()).isdisjoint(net.parameters()):
        raise InputError("the student shares weights with a teacher; distill into a copy: copy.deepcopy")
    device = given.device_of(net)
    for m, teacher in enumerate(ensemble.nets):
        if given.device_of(teacher, device) != device:
            raise InputError(
                f"teacher {m} is on {given.device_of(teacher)} and the student on {device}; move it: "
                f"teacher.to({str(device)!r})"
            )
    if not isinstance(batches, Iterable) or isinstance(batches, Tensor | str):
        raise InputError(f"batches are {described(batches)}; give a DataLoader, or a list of (images, labels)")
    first = iter(batches)
    if first is batches and epochs > 1:
        raise InputError("batches can be iterated once only; give a DataLoader, or a list of batches: list(batches)")
    schedule = Schedule(epochs, 0, lr, weight_decay, MILESTONES)
    driver = optimiser or sgd(net, schedule, momentum, rank_one_lr)
    if optimiser is None:
        set_rate(driver, schedule, 1)
    check_optimiser(net, driver)
    records: list[dict[str, Any]] = []
    with given.evaluating(ensemble), given.learning(student):
        peeked = list(itertools.islice(first, 1))
        classes, one = 0, True
        for images, labels in given.checked(peeked, None, device):
            with unseen(device):
                check_teachers(ensemble, method, images)
                classes = rehearse(net, ensemble, loss, driver, images, labels)
                one = takes_one(net, images)
        for epoch in range(1, epochs + 1):
            if optimiser is None:
                set_rate(driver, schedule, epoch)
            taken = itertools.count(1)
            stream: Iterable[Any] = itertools.chain(peeked, first) if epoch == 1 else batches
            pixels = given.checked((batch for batch in stream if next(taken)), classes, device, one)
            generator = rng(seed, "student/perturb", 0, epoch)
            try:
                mean_loss, accuracy = run_epoch(net, loss, driver, pixels, generator, "float32")
            except RunError as error:
                mend = "; lower the learning rate" if "diverged" in str(error) else ""
                raise RunError(f"epoch {epoch}, {error}{mend}") from error
            except Exception as error:  # whatever the caller's own code raises
                if memory(error):
                    raise
                kind = InputError if isinstance(error, InputError) else RunError
                raise kind(f"epoch {epoch}, batch {next(taken) - 1}: {reason(error)}") from error
            records.append({"epoch": epoch, "loss": mean_loss, "acc": accuracy})
            if each_epoch is not None:
                each_epoch(records[-1])
    return records


def _ensemble(teachers: Iterable[nn.Module]) -> DeepEnsemble:
    """The teachers as one ensemble; raises `InputError` unless they are networks, at least one."""
    try:
        return teachers if isinstance(teachers, DeepEnsemble) else DeepEnsemble(teachers)
    except InputError as error:
        raise InputError(f"teachers: {error}") from error


class Classification(NamedTuple):
    """What a network says of N images, and how sure it is: NumPy arrays, float64 but for `classes`."""

    probabilities: np.ndarray  # (N, K), the members' mean
    classes: np.ndarray  # (N,) int64, the most probable
    confidence: np.ndarray  # (N,), its probability
    entropy: np.ndarray  # (N,), of the mean, in nats, 0 to log K: all uncertainty
    mutual_information: np.ndarray  # (N,), between prediction and member, in nats, 0 to log M: the members' dissent


def predict(model: nn.Module, images: Tensor | np.ndarray, temperature: float = 1.0) -> Classification:
    """p = 1/M sum_m softmax(f_m(x)), its entropy H(p), and the mutual information H(p) - 1/M sum_m H(softmax(f_m(x))).

    images       (N, C, H, W), floats in [0, 1]
    model        a `BatchEnsemble`, a `DeepEnsemble` or a plain network: images to logits (M, B, K) or (B, K). A plain
                 network is an ensemble of one member, without mutual information. It answers in eval mode and comes
                 back as it was
    temperature  T, fitted on validation images (`evaluate`): p becomes softmax(log p / T); mutual information stays
                 that of the members as they are

    Returns a `Classification`: probabilities (N, K); classes, confidence, entropy and mutual_information (N,), the
    last two in nats. Raises `InputError` where the images are not as said, `RunError` where logits have no softmax.
    """
    check_network(model, "the model")
    images = given.check_images(given.tensor(images, "images"), "images")
    given.check_number("temperature", temperature, 0, MOST, "a finite number above 0", above=True)
    # Not inference_mode: what a network keeps of a pass must be of use in training.
    with given.evaluating(model), torch.no_grad():
        device = given.device_of(model)
        blocks = [given.member_logits(model, block.to(device), "the model") for block in images.split(EVALUATION_BATCH)]
        logits = torch.cat(blocks, 1).float().cpu()
        if words := flaw(logits, "the model"):
            raise RunError(words)
        log_probs = torch.log_softmax(logits, -1)
        pooled = ensemble_log_probs(log_probs)
        if temperature != 1:
            pooled = torch.log_softmax(pooled / temperature, -1)
        probabilities = pooled.exp()
        confidence, classes = probabilities.max(-1)
        information = sample_diversity(log_probs)["mutual_information"]
        arrays = (probabilities, classes, confidence, entropy(pooled[None]), information)
    return Classification(*(array.numpy() for array in arrays))
