"""One network trained by several processes, which torchrun starts: each takes its rows of every batch.

    g = sum_r n_r g_r / sum_r n_r,    g_r the gradient of the mean loss of the n_r rows of process r,

is the gradient of the whole batch, however unevenly it is cut. It is summed in one all-reduce after the last backward
pass of a step. DistributedDataParallel would overlap that with the backward pass; but it weighs processes alike, wrong
in a last batch, and expects one backward pass a step through all parameters, where a perturbed student has two.

Order, augmentation and perturbations are drawn for the whole batch in every process, as one process would. BatchNorm
has the statistics of a process's own rows; those that are saved are the first process's.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from divkd.shared.errors import RunError
from divkd.shared.machine import launched
from divkd.shared.run import Run

PATIENCE = timedelta(days=7)  # others wait while the first process measures; one that dies is noticed at once
JOINED: list[int] = []  # the rank and number of the processes that train together, empty where it is this one alone


class Rows(np.random.Generator):
    """Draws for all `of` rows of a batch, and gives those of the process's own `rows`."""

    rows, of = slice(0), 0

    def _size(self, size: Any) -> Any:
        return (self.of, *size[1:])

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """As numpy's, for a size whose first axis is the rows."""
        return super().standard_normal(self._size(size), dtype)[self.rows]

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """As numpy's, for a size whose first axis is the rows."""
        return super().uniform(low, high, self._size(size))[self.rows]


Batches = Iterable[tuple[Tensor, Tensor]]


def own(batches: Batches, generator: np.random.Generator) -> tuple[Batches, np.random.Generator]:
    """This process's rows of whole `batches`, and of what is drawn for them; all where there is no other.

    A process has two rows at least, for BatchNorm, or none.
    """
    if not JOINED:
        return batches, generator
    rank, count = JOINED
    draws = Rows(generator.bit_generator)

    def cut() -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in batches:
            n = len(labels)
            parts = max(1, min(count, n // 2))
            ends = [n * part // parts for part in range(parts + 1)] + [n] * count
            draws.rows, draws.of = slice(ends[rank], ends[rank + 1]), n
            yield images[draws.rows], labels[draws.rows]

    return cut(), draws


def average(net: nn.Module, generator: np.random.Generator, rows: int) -> None:
    """Replace the gradients of the mean over this process's `rows` by those of the mean over all processes' rows."""
    if not isinstance(generator, Rows):
        return
    learned = [parameter for parameter in net.parameters() if parameter.requires_grad]
    parts = [torch.zeros_like(one) if one.grad is None else one.grad * rows for one in learned]
    flat = torch.cat([part.reshape(-1) for part in parts])
    _together(distributed.all_reduce, flat)
    for one, part in zip(learned, flat.div_(generator.of).split([one.numel() for one in learned]), strict=True):
        one.grad = torch.empty_like(one).copy_(part.view(one.shape))


def summed(generator: np.random.Generator, *numbers: Any) -> tuple[Any, ...]:
    """The sums of `numbers` over all processes."""
    if not isinstance(generator, Rows):
        return numbers
    device = next((number.device for number in numbers if isinstance(number, Tensor)), None)
    sums = torch.stack([torch.as_tensor(number, dtype=torch.float64, device=device) for number in numbers])
    _together(distributed.all_reduce, sums)
    return tuple(sums.tolist())


def leads() -> bool:
    """Whether this is the process that evaluates and writes: the only one, or the first."""
    return not JOINED or JOINED[0] == 0


def agree(epoch: int) -> None:
    """Raise `RunError` unless all processes go on from the same `epoch`."""
    if JOINED:
        ends = torch.tensor([epoch, -epoch])
        _together(distributed.all_reduce, ends, distributed.ReduceOp.MAX)
        if ends[0] != -ends[1]:
            raise RunError("the processes see different checkpoints; give an --out on a folder that all machines share")


class Silent(Run):
    """A run that another process writes."""

    def log(self, **record: Any) -> None:
        """Nothing."""

    def save(self, *_: Any) -> None:
        """Nothing."""

    def step_back(self, *_: Any) -> None:
        """Nothing."""

    def settled(self, *_: Any) -> None:
        """Nothing."""


def tell(*what: Any) -> None:
    """Have the other processes train what this, the first, begins to train; they are told nothing once all is done."""
    if JOINED and JOINED[0] == 0:
        _together(distributed.broadcast_object_list, [what], src=0, device=torch.device("cpu"))


def told() -> tuple[Any, ...]:
    """What the first process tells the others next."""
    message: list[Any] = [None]
    _together(distributed.broadcast_object_list, message, src=0, device=torch.device("cpu"))
    return tuple(message[0])


def _together(call: Callable[..., Any], *what: Any, **how: Any) -> None:
    try:
        call(*what, **how)
    except RuntimeError as error:
        raise RunError("another process of torchrun has ended; the same command with --resume goes on") from error


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Train together with the other processes that torchrun has started, if it has."""
    rank, count = launched()
    if count < 2:
        yield
        return
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    _together(distributed.init_process_group, "cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    JOINED[:] = rank, count
    try:
        yield
        tell()
        _together(distributed.barrier)  # nobody leaves while another still listens
        distributed.destroy_process_group()
    finally:
        JOINED.clear()
