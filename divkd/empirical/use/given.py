"""What callers give, checked where it enters: inputs, batches, networks; and networks come back as they were."""

import numbers
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from divkd.empirical.networks.handed import answer, described, mapped, memory, reason, shape_of, shown, tensors
from divkd.empirical.training.diagnosis import flaw
from divkd.shared.errors import InputError

BEYOND = 0.25  # so far beyond [0, 1] pixels may have been carried by interpolation
DEPTHS = (255, 1023, 4095, 65535)  # the largest values of 8, 10, 12 and 16 bits
CHANNELS = (1, 3)
MOST = sys.float_info.max
SUM = 1e-3  # by which the sum of a row of probabilities may differ from 1

Prepare = Callable[[Any], tuple[Any, Tensor]]  # a batch -> (inputs, labels)


def tensor(value: Any, name: str) -> Tensor:
    """A tensor or a NumPy array as a tensor, off any graph; an array that torch cannot share is copied."""
    try:
        if isinstance(value, np.ndarray):
            value = np.ascontiguousarray(value, value.dtype.newbyteorder("="))
            value = value if value.flags.writeable else value.copy()
        found = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        what = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else described(value)
        raise InputError(f"{name} are {what}; give numbers in a tensor or a NumPy array") from error
    if found.is_sparse or found.is_meta:
        raise InputError(f"{name} are sparse, or have no values (meta); give a dense tensor: {name}.to_dense()")
    return found


def check_inputs(x: Any, low: float | None = None, high: float | None = None) -> Any:
    """Inputs with their floats as float32; raises `InputError` unless they are tensors of equal length B > 0.

    Where they are one tensor it holds no complex number, and floats that are finite and in [low, high].
    """
    parts = tensors(x)
    if any(part.is_sparse or part.is_meta for part in parts):
        raise InputError("inputs are sparse, or have no values (meta); give dense tensors: inputs.to_dense()")
    if (
        not parts
        or any(0 in part.shape or not part.ndim for part in parts)
        or len({len(part) if part.ndim else 0 for part in parts}) > 1
    ):
        raise InputError(
            f"{kind_of(x)} have the shape {shape_of(x)}; give a tensor (B, ...) with B > 0, or several of the same B"
        )
    if len(parts) == 1:
        _check_values(parts[0], low, high)
    return mapped(lambda part: part.float() if part.is_floating_point() else part, x)


def _check_values(x: Tensor, low: float | None, high: float | None) -> None:
    name = kind_of(x)
    if x.is_complex():
        raise InputError(
            f"{name} are {x.dtype}; give real numbers, such as floats in [0, 1]: images.abs() or images.real"
        )
    if not (finite := x.isfinite().flatten(1).all(1) if x.ndim > 1 else x.isfinite()).all():
        raise InputError(
            f"{name} hold numbers that are not finite, nan or inf, the first in row {int((~finite).nonzero()[0])}; "
            f"leave such rows out, {name}[{name}.isfinite().flatten(1).all(1)]"
        )
    if low is None and high is None:
        return
    least, most = (float(end) for end in x.aminmax())
    if not x.is_floating_point():
        if name == "images":
            mend = "images.float()" if least >= 0 and most <= 1 else _mend(least, most)
            raise InputError(f"images are {x.dtype}; pixels must be floats in [0, 1]: {mend}")
    elif (low is not None and least < low) or (high is not None and most > high):
        ends = f"[{'-inf' if low is None else f'{low:g}'}, {'inf' if high is None else f'{high:g}'}]"
        mend = f": {_mend(least, most)}" if (low, high) == (0, 1) and name == "images" else ""
        raise InputError(
            f"{name} hold numbers from {least:.4g} to {most:.4g}; they must lie in {ends}{mend}; or say where "
            "else they live: low, high, None for no end"
        )


def kind_of(x: Any) -> str:
    """What to call inputs in a sentence."""
    return "images" if isinstance(x, Tensor) and x.ndim == 4 else "inputs"


def is_picture(x: Any) -> bool:
    """Whether `x` looks like images, grey or in colours."""
    return isinstance(x, Tensor) and x.ndim == 4 and (x.shape[1] in CHANNELS or x.shape[3] in CHANNELS)


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


def pair(batch: Any, prepare: Prepare | None = None) -> tuple[Any, Tensor]:
    """The inputs of a batch and its labels, whole numbers (B,) or probabilities (B, K)."""
    source = "a batch is"
    if prepare is not None:
        source = "prepare makes of a batch"
        try:
            batch = prepare(batch)
        except Exception as error:  # whatever the caller's own code raises
            if memory(error):
                raise
            raise InputError(f"prepare fails on {described(batch)}: {reason(error)}") from error
    parts = list(batch) if isinstance(batch, tuple | list) else []
    if len(parts) != 2 or not isinstance(parts[1], Tensor) or not tensors(parts[0]):
        what = f"{described(batch)} of {', '.join(map(described, parts))}" if parts else described(batch)
        raise InputError(
            f"{source} {what}; a pair (inputs, labels) of tensors is needed: give prepare, a function that makes it of "
            "a batch, or let the loader's collate_fn make it"
        )
    inputs, labels = mapped(Tensor.detach, parts[0]), parts[1].detach()
    return inputs, _labels(labels, inputs)


def _labels(labels: Tensor, inputs: Any) -> Tensor:
    rows = rows_of(inputs)
    soft = labels.ndim == 2 and len(labels) == rows and labels.is_floating_point() and labels.shape[1] > 1
    if soft:
        if not bool(((labels >= 0).all(1) & ((labels.sum(1) - 1).abs() < SUM)).all()):
            raise InputError("soft labels (B, K) must be probabilities, rows that sum to 1; give labels.softmax(1)")
        return labels.float()
    if labels.shape != (rows,) or labels.is_floating_point() or labels.is_complex():
        mend = ""
        if labels.ndim == 2 and len(labels) == rows:
            mend = ": labels[:, 0]" if labels.shape[1] == 1 else ": labels.argmax(1), if a row marks its class"
        elif labels.shape == (rows,) and not labels.is_complex():
            mend = ": labels.long()"
        raise InputError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)} beside {kind_of(inputs)} {shape_of(inputs)}; "
            f"whole numbers (B,), or probabilities (B, K), are needed{mend}"
        )
    return labels.long()


def rows_of(x: Any) -> int:
    """B of inputs."""
    first = tensors(x)[0]
    return len(first) if first.ndim else 0


def checked(
    batches: Iterable[Any],
    classes: int | None,
    device: torch.device,
    one: bool = True,
    bounds: tuple[float | None, float | None] = (None, None),
    prepare: Prepare | None = None,
) -> Iterator[tuple[Any, Tensor]]:
    """Each batch on `device`, floats as float32, labels of `classes`; a batch of one row only with `one`.

    Raises `InputError` for the first misfit, and where no batch is left.
    """
    empty = True
    for batch in batches:
        inputs, labels = pair(batch, prepare)
        inputs = check_inputs(inputs, *bounds)
        if classes is not None:
            check_labels(labels, classes)
        if one or len(labels) > 1:
            empty = False
            yield mapped(lambda part: part.to(device), inputs), labels.to(device)
    if empty:
        least = "" if one else " of two rows or more"
        raise InputError(f"batches gave no batch{least} in an epoch; give at least one, each epoch anew: a DataLoader")


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise `InputError` unless the labels are 0 to `classes` - 1, or probabilities of `classes`."""
    if labels.ndim == 2:
        if labels.shape[1] != classes:
            raise InputError(f"soft labels have {labels.shape[1]} classes and the logits {classes}; they must agree")
        return
    low, high = (int(end) for end in labels.aminmax())
    if low < 0 or high >= classes:
        mend = "labels - 1" if (low, high) == (1, classes) else "give networks with a logit for each class"
        raise InputError(f"labels go from {low} to {high}; allowed: 0 to {classes - 1}, as the logits: {mend}")


def member_logits(net: nn.Module, inputs: Any, name: str) -> Tensor:
    """Member logits (M, B, K) of `net`, a plain network counting as one member; `inputs` stay as they are.

    Raises `InputError` where it makes something else of them; what they hold is not looked at (`check_flaw`).
    """
    try:
        logits = answer(net, inputs)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except Exception as error:  # whatever the network's own code raises
        if memory(error):
            raise
        raise InputError(
            f"{name} fails on {kind_of(inputs)} of shape {shape_of(inputs)}: {reason(error)}{_hint(net, inputs)}"
        ) from error
    if logits.ndim == 2:
        logits = logits[None]
    if logits.ndim != 3 or logits.shape[1] != rows_of(inputs) or logits.shape[2] < 2:
        raise InputError(
            f"{name} makes {tuple(logits.shape)} of {rows_of(inputs)} {kind_of(inputs)}; logits (B, K) or (M, B, K) "
            "with K > 1 are needed"
        )
    if not logits.is_floating_point():
        raise InputError(f"{name} makes {logits.dtype}; logits are floats, the numbers before the softmax")
    return logits


def _hint(net: nn.Module, inputs: Any) -> str:
    """A likely reason why `net` fails on `inputs`; empty without one."""
    parts = tensors(inputs)
    floats = [part for part in parts if part.is_floating_point()]
    weight = next((p for p in net.parameters() if p.is_floating_point() and p.dtype != torch.float32), None)
    if weight is not None and floats:
        return f"; inputs come as float32 and its weights are {weight.dtype}: net.float()"
    if len(parts[0]) == 1 and net.training:
        return "; in train mode it may need batches of two images or more"
    if len(parts) > 1 or not isinstance(inputs, Tensor):
        return "; a tuple is given by place, net(*inputs), and a dict by name, net(**inputs)"
    if not floats and inputs.ndim == 4:
        return "; pixels are floats, images / 255"
    if inputs.ndim == 3:
        return (
            "; a batch of images is (B, C, H, W): images[None] for one image, images[:, None] for grey ones (B, H, W)"
        )
    if inputs.ndim == 4 and inputs.shape[1] not in CHANNELS and inputs.shape[3] in CHANNELS:
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
        raise InputError(f"{name} {shown(value)} is not allowed; give {allowed}")


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
