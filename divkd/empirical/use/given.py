"""What callers give, checked where it enters: images, batches, networks; and networks come back as they were."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from divkd.empirical.networks.ensembles import DeepEnsemble, Ensemble
from divkd.shared.errors import InputError


def check_images(images: Tensor, name: str) -> Tensor:
    """`images` as float32; raises `InputError` unless they are (B, C, H, W) floats in [0, 1], with B > 0."""
    if not images.is_floating_point():
        raise InputError(f"{name} are {images.dtype}; pixels must be floats in [0, 1]: bytes / 255")
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(f"{name} have the shape {tuple(images.shape)}; (B, C, H, W) is needed")
    low, high = (float(end) for end in images.aminmax())  # both NaN where a pixel is
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"{name} hold pixels from {low:.4g} to {high:.4g}; they must lie in [0, 1]: normalise inside the network, "
            "e.g. nn.Sequential(torchvision.transforms.Normalize(mean, std), net)"
        )
    return images.float()


def pair(batch: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The checked images and the labels of a batch."""
    pair = list(batch) if isinstance(batch, tuple | list) else []
    if len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
        raise InputError(f"a batch is a {type(batch).__name__}; a pair of tensors (images, labels) is needed")
    images, labels = pair
    if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.is_complex():
        raise InputError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)} beside images {tuple(images.shape)}; whole "
            "numbers (B,) are needed"
        )
    return check_images(images, "images"), labels.long()


def checked(batches: Iterable[Sequence[Tensor]], classes: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Each batch on `device`, its images float32 and its labels int64; raises `InputError` for the first misfit."""
    empty = True
    for batch in batches:
        images, labels = pair(batch)
        low, high = (int(end) for end in labels.aminmax())
        if low < 0 or high >= classes:
            raise InputError(f"labels go from {low} to {high}; allowed: 0 to {classes - 1}, as the networks' logits")
        empty = False
        yield images.to(device), labels.to(device)
    if empty:
        raise InputError("batches gave no batch in an epoch; give at least one, each epoch anew")


@torch.no_grad()
def common_classes(teachers: DeepEnsemble, student: nn.Module, images: Tensor) -> int:
    """K, on which all must agree; and one student member for each teacher, or one alone."""
    for m, net in enumerate(teachers.nets):
        if isinstance(net, Ensemble):
            raise InputError(f"teacher {m} is an ensemble; give plain networks, e.g. member(model, 0)")
    theirs = [member_logits(net, images, f"teacher {m}").shape[2] for m, net in enumerate(teachers.nets)]
    with evaluating(student):
        members, _, classes = member_logits(student, images, "the student").shape
    for m, count in enumerate(theirs):
        if count != classes:
            raise InputError(f"teacher {m} has {count} classes and the student {classes}; they must agree")
    if members not in (1, len(theirs)):
        raise InputError(
            f"the student has {members} members and there are {len(theirs)} teachers; give one teacher for each "
            "member, or a plain network"
        )
    return int(classes)


def member_logits(net: nn.Module, images: Tensor, name: str) -> Tensor:
    """Member logits (M, B, K) of `net`, a plain network counting as one member."""
    try:
        logits = net(images)
    except (RuntimeError, ValueError) as error:
        if "out of memory" in str(error) or "can't allocate memory" in str(error):
            raise
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{name} fails on images of shape {tuple(images.shape)}: {why}") from error
    if isinstance(logits, Tensor) and logits.ndim == 2:
        logits = logits[None]
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[1] != len(images) or logits.shape[2] < 2:
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"{name} makes {given} of {len(images)} images; logits (B, K) or (M, B, K) with K > 1 are needed"
        )
    return logits


def check_numbers(epochs: int, lr: float, temperature: float, kd_weight: float, step_size: float) -> None:
    """Raise `InputError` for the first number that `distill` cannot use."""
    for holds, name, value, allowed in (
        (isinstance(epochs, int) and epochs >= 1, "epochs", epochs, "a whole number from 1"),
        (0 < lr < float("inf"), "lr", lr, "a finite number above 0, e.g. 0.1"),
        (0 < temperature < float("inf"), "temperature", temperature, "a finite number above 0"),
        (0 <= kd_weight <= 1, "kd_weight", kd_weight, "a number from 0 to 1"),
        (0 <= step_size <= 1, "step_size", step_size, "a number from 0 to 1 (pixels are in [0, 1])"),
    ):
        if not holds:
            raise InputError(f"{name} {value} is not allowed; give {allowed}")


def device_of(net: nn.Module, default: torch.device | None = None) -> torch.device:
    """Where the weights of `net` are; without any, `default` or the CPU."""
    parameter = next(net.parameters(), None)
    return (default or torch.device("cpu")) if parameter is None else parameter.device


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """`net` in eval mode and without gradients of its own; afterwards as it was."""
    was: list[tuple[nn.Module | Tensor, str, bool]] = [(part, "training", part.training) for part in net.modules()]
    was += [(parameter, "requires_grad", parameter.requires_grad) for parameter in net.parameters()]
    try:
        for part, name, _ in was:
            setattr(part, name, False)
        yield
    finally:
        for part, name, value in was:
            setattr(part, name, value)
