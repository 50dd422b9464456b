"""Where the time of a training step goes: spans of its parts, which do nothing where nobody asked for a profile."""

import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from itertools import islice
from typing import TypeVar

import torch

T = TypeVar("T")
PARTS = ("data", "forward", "teachers", "perturbation", "backward", "optimiser")  # forward: the losses counted in


class Clock:
    """Seconds of each part since the last `read`. A span within another takes its time from the outer one's."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.open: list[str] = []
        self.last = 0.0

    def switch(self) -> None:
        """Give the seconds since the last switch to the innermost open span."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # its work is not done when the call returns
        now = time.perf_counter()
        if self.open:
            self.seconds[self.open[-1]] += now - self.last
        self.last = now

    @contextmanager
    def span(self, part: str) -> Iterator[None]:
        """Count what is done within as `part`."""
        self.switch()
        self.open.append(part)
        try:
            yield
        finally:
            self.switch()
            self.open.pop()

    def read(self, total: float) -> dict[str, float]:
        """Seconds by part since the last reading, and of the `total` what is left as "other": scores of an epoch."""
        seconds, self.seconds = {part: self.seconds[part] for part in PARTS}, defaultdict(float)
        return {**seconds, "other": max(0.0, total - sum(seconds.values()))}


CLOCK: ContextVar[Clock | None] = ContextVar("clock", default=None)


@contextmanager
def profiling(wanted: bool = True) -> Iterator[None]:
    """Within, `train` logs what each epoch spent where. A job in another process opens its own."""
    token = CLOCK.set(Clock() if wanted else None)
    try:
        yield
    finally:
        CLOCK.reset(token)


def span(part: str) -> AbstractContextManager[None]:
    """Count what is done within as `part`, where a profile is asked for."""
    clock = CLOCK.get()
    return nullcontext() if clock is None else clock.span(part)


def each(part: str, items: Iterable[T]) -> Iterator[T]:
    """`items`, whose making counts as `part`."""
    iterator = iter(items)
    while True:
        with span(part):
            made = list(islice(iterator, 1))
        if not made:
            return
        yield made[0]


def peak_bytes() -> int:
    """The most memory that this process has held: the device's where training is on one."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
