"""What callers give, checked where it enters: images, batches, networks; and networks come back as they were."""

import numbers
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from divkd.empirical.networks.handed import answer, described, memory, reason
from divkd.empirical.training.diagnosis import flaw
from divkd.shared.errors import InputError

BEYOND = 0.25  # so far beyond [0, 1] pixels may have been carried by interpolation
DEPTHS = (255, 1023, 4095, 65535)  # the largest values of 8, 10, 12 and 16 bits
CHANNELS = (1, 3)


def tensor(value: Any, name: str) -> Tensor:
    """A tensor or a NumPy array as a tensor, off any graph; an array that torch cannot share is copied."""
    try:
        if isinstance(value, np.ndarray):
            value = np.ascontiguousarray(value, value.dtype.newbyteorder("="))
            value = value if value.flags.writeable else value.copy()
        return torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        what = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else described(value)
        raise InputError(f"{name} are {what}; give numbers in a tensor or a NumPy array") from error


def check_images(images: Tensor, name: str) -> Tensor:
    """`images` as float32; raises `InputError` unless they are (B, C, H, W) floats in [0, 1], with B > 0."""
    if images.ndim != 4 or 0 in images.shape:
        more = {3: ": images[None] for one image (C, H, W), images[:, None] for grey ones (B, H, W)"}
        raise InputError(
            f"{name} have the shape {tuple(images.shape)}; (B, C, H, W) is needed{more.get(images.ndim, '')}"
        )
    if images.is_complex():
        raise InputError(f"{name} are {images.dtype}; pixels must be floats in [0, 1]: images.abs() or images.real")
    if not (finite := images.isfinite().flatten(1).all(1)).all():
        raise InputError(
            f"{name} hold pixels that are not finite, nan or inf, the first in image {int((~finite).nonzero()[0])}; "
            "pixels lie in [0, 1]: leave such images out, images[images.isfinite().flatten(1).all(1)]"
        )
    low, high = (float(end) for end in images.aminmax())
    if not images.is_floating_point():
        mend = "images.float()" if low >= 0 and high <= 1 else _mend(low, high)
        raise InputError(f"{name} are {images.dtype}; pixels must be floats in [0, 1]: {mend}")
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"{name} hold pixels from {low:.4g} to {high:.4g}; they must lie in [0, 1]: {_mend(low, high)}"
        )
    return images.float()


def _mend(low: float, high: float) -> str:
    """What brings pixels from `low` to `high` into [0, 1]."""
    if low >= -BEYOND and high <= 1 + BEYOND:
        return "images.clamp(0, 1)"
    if low >= 0 and high > 16:
        most = next((depth for depth in DEPTHS if high <= depth), high)
        return f"images / {most:.6g}"
    if low >= 0:
        return "divide them by the largest value that a pixel can have, e.g. images / 16"
    return (
        "undo your normalisation, images * std + mean, and let the network do it: "
        "nn.Sequential(torchvision.transforms.Normalize(mean, std), net)"
    )


def pair(batch: Any) -> tuple[Tensor, Tensor]:
    """The checked images and the labels of a batch."""
    parts = list(batch) if isinstance(batch, tuple | list) else []
    if len(parts) != 2 or not all(isinstance(part, Tensor) for part in parts):
        what = f"{described(batch)} of {', '.join(map(described, parts))}" if parts else described(batch)
        raise InputError(
            f"a batch is {what}; a pair of tensors (images, labels) is needed: let the loader's collate_fn make it"
        )
    images, labels = (part.detach() for part in parts)
    if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.is_complex():
        mend = ""
        if labels.ndim == 2 and len(labels) == len(images):
            mend = ": labels[:, 0]" if labels.shape[1] == 1 else ": labels.argmax(1), if a row marks its class"
        elif labels.shape == images.shape[:1] and not labels.is_complex():
            mend = ": labels.long()"
        raise InputError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)} beside images {tuple(images.shape)}; whole "
            f"numbers (B,) are needed{mend}"
        )
    return check_images(images, "images"), labels.long()


def checked(
    batches: Iterable[Any], classes: int | None, device: torch.device, one: bool = True
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each batch on `device`, images float32, labels int64 of `classes`; a batch of one image only with `one`.

    Raises `InputError` for the first misfit, and where no batch is left.
    """
    empty = True
    for batch in batches:
        images, labels = pair(batch)
        if classes is not None:
            check_labels(labels, classes)
        if one or len(labels) > 1:
            empty = False
            yield images.to(device), labels.to(device)
    if empty:
        least = "" if one else " of two images or more"
        raise InputError(f"batches gave no batch{least} in an epoch; give at least one, each epoch anew: a DataLoader")


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise `InputError` unless the labels are 0 to `classes` - 1."""
    low, high = (int(end) for end in labels.aminmax())
    if low < 0 or high >= classes:
        mend = "labels - 1" if (low, high) == (1, classes) else "give networks with a logit for each class"
        raise InputError(f"labels go from {low} to {high}; allowed: 0 to {classes - 1}, as the logits: {mend}")


def member_logits(net: nn.Module, images: Tensor, name: str) -> Tensor:
    """Member logits (M, B, K) of `net`, a plain network counting as one member; `images` stay as they are.

    Raises `InputError` where it makes something else of them; what they hold is not looked at (`check_flaw`).
    """
    try:
        logits = answer(net, images)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except Exception as error:  # whatever the network's own code raises
        if memory(error):
            raise
        raise InputError(
            f"{name} fails on images of shape {tuple(images.shape)}: {reason(error)}{_hint(net, images)}"
        ) from error
    if logits.ndim == 2:
        logits = logits[None]
    if logits.ndim != 3 or logits.shape[1] != len(images) or logits.shape[2] < 2:
        raise InputError(
            f"{name} makes {tuple(logits.shape)} of {len(images)} images; logits (B, K) or (M, B, K) with K > 1 are "
            "needed"
        )
    if not logits.is_floating_point():
        raise InputError(f"{name} makes {logits.dtype}; logits are floats, the numbers before the softmax")
    return logits


def _hint(net: nn.Module, images: Tensor) -> str:
    """A likely reason why `net` fails on `images`; empty without one."""
    weight = next((p for p in net.parameters() if p.is_floating_point() and p.dtype != images.dtype), None)
    if weight is not None:
        return f"; images come as float32 and its weights are {weight.dtype}: net.float()"
    if len(images) == 1 and net.training:
        return "; in train mode it may need batches of two images or more"
    if images.shape[1] not in CHANNELS and images.shape[3] in CHANNELS:
        return "; are channels last? images.permute(0, 3, 1, 2)"
    return ""


def check_flaw(logits: Tensor, name: str) -> Tensor:
    """`logits` (M, B, K), if each row has a softmax; raises `InputError` otherwise."""
    if words := flaw(logits, name):
        raise InputError(words)
    return logits


def check_number(name: str, value: Any, low: float, high: float, allowed: str, above: bool = False) -> None:
    """Raise `InputError` unless `value` is a number from `low` (or above it) to `high`, which `allowed` says."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and (low < value if above else low <= value) and value <= high):
        raise InputError(f"{name} {value} is not allowed; give {allowed}")


def device_of(net: nn.Module, default: torch.device | None = None) -> torch.device:
    """Where the weights of `net` are; without any, `default` or the CPU."""
    parameter = next(net.parameters(), None)
    return (default or torch.device("cpu")) if parameter is None else parameter.device


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """`net` in eval mode and without gradients of its own; afterwards modes, buffers and gradients as they were."""
    was: list[tuple[nn.Module | Tensor, str, bool]] = [(part, "training", part.training) for part in net.modules()]
    was += [(parameter, "requires_grad", parameter.requires_grad) for parameter in net.parameters()]
    buffers = [
        (part, name, buffer, buffer.clone())
        for part in net.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None and not is_lazy(buffer)
    ]
    try:
        for part, name, _ in was:
            setattr(part, name, False)
        yield
    finally:
        for part, name, value in was:
            setattr(part, name, value)
        for module, name, buffer, before in buffers:
            if module._buffers.get(name) is not buffer:
                module._buffers[name] = buffer
            if not torch.equal(buffer, before):
                buffer.data.copy_(before)


@contextmanager
def learning(student: nn.Module) -> Iterator[None]:
    """`student` in training, and in eval mode afterwards; where an exception ends it, in the modes that it had.

    Gradients that it held before are its own again.
    """
    modes = [(part, part.training) for part in student.modules()]
    gradients = [(parameter, parameter.grad) for parameter in student.parameters()]
    try:
        for parameter, _ in gradients:
            parameter.grad = None
        yield
        student.eval()
    except BaseException:
        for part, training in modes:
            part.training = training
        raise
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
