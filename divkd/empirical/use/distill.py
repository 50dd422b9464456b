"""Your models on your batches: distill them into one network, and predict with uncertainty."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.networks.ensembles import DeepEnsemble, Ensemble
from divkd.empirical.training.config import Schedule
from divkd.empirical.training.distillation import student_loss
from divkd.empirical.training.job import EVALUATION_BATCH
from divkd.empirical.training.loop import finite, run_epoch, set_rate, sgd
from divkd.empirical.use import given
from divkd.shared.errors import InputError, RunError
from divkd.shared.metrics.diversity import entropy, sample_diversity
from divkd.shared.metrics.quality import ensemble_log_probs
from divkd.shared.seeds import rng

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
    accuracy in [0, 1]. Perturbations are a function of (seed, epoch); the order of the images is your loader's. Raises
    `InputError` for the first thing that does not fit, and `RunError` when the loss or a weight is no longer finite.
    """
    given.check_numbers(epochs, lr, temperature, kd_weight, step_size)
    teachers = [*teachers.nets] if isinstance(teachers, DeepEnsemble) else list(teachers)
    if not teachers:
        raise InputError("there are no teachers; give at least one network")
    ensemble, net = DeepEnsemble(teachers), student if isinstance(student, Ensemble) else DeepEnsemble([student])
    loss = student_loss(method, ensemble, temperature, kd_weight, step_size)
    if not set(ensemble.parameters()).isdisjoint(net.parameters()):
        raise InputError("the student shares weights with a teacher; distill into a copy: copy.deepcopy")
    device = given.device_of(net)
    for m, teacher in enumerate(teachers):
        if given.device_of(teacher, device) != device:
            raise InputError(
                f"teacher {m} is on {given.device_of(teacher)} and the student on {device}; move them to one"
            )

    first = iter(batches)
    if first is batches and epochs > 1:
        raise InputError("batches can be iterated once only; give a DataLoader, or a list of batches")
    schedule = Schedule(epochs, 0, lr, weight_decay, MILESTONES)
    driver = optimiser or sgd(net, schedule, momentum, rank_one_lr)
    records: list[dict[str, Any]] = []
    with given.evaluating(ensemble):
        peeked = [given.pair(batch) for batch in itertools.islice(first, 1)]
        classes = given.common_classes(ensemble, net, peeked[0][0][:2].to(device)) if peeked else 0
        for epoch in range(1, epochs + 1):
            if optimiser is None:
                set_rate(driver, schedule, epoch)
            stream: Iterable[Sequence[Tensor]] = itertools.chain(peeked, first) if epoch == 1 else batches
            pixels = given.checked(stream, classes, device)
            generator = rng(seed, "student/perturb", 0, epoch)
            mean_loss, accuracy = run_epoch(net, loss, driver, pixels, generator, "float32")
            if not finite(net, mean_loss):
                raise RunError(f"the student diverged in epoch {epoch} (mean loss {mean_loss:.4g}); lower lr")
            records.append({"epoch": epoch, "loss": mean_loss, "acc": accuracy})
            if each_epoch is not None:
                each_epoch(records[-1])
    student.eval()
    return records


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
    last two in nats. Raises `InputError` where the images are not as said, `RunError` where the model predicts NaN.
    """
    images = given.check_images(torch.as_tensor(images), "images")
    if not 0 < temperature < float("inf"):
        raise InputError(f"temperature {temperature} is not allowed; give a finite number above 0")
    with given.evaluating(model), torch.inference_mode():
        device = given.device_of(model)
        blocks = [given.member_logits(model, block.to(device), "the model") for block in images.split(EVALUATION_BATCH)]
        log_probs = torch.log_softmax(torch.cat(blocks, 1).float(), -1).cpu()
        if log_probs.isnan().any():
            raise RunError("the model predicts NaN; its weights are too large or not finite")
        pooled = ensemble_log_probs(log_probs)
        if temperature != 1:
            pooled = torch.log_softmax(pooled / temperature, -1)
        probabilities = pooled.exp()
        confidence, classes = probabilities.max(-1)
        information = sample_diversity(log_probs)["mutual_information"]
        arrays = (probabilities, classes, confidence, entropy(pooled[None]), information)
    return Classification(*(array.numpy() for array in arrays))
