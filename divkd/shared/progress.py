"""Progress for people: rich bars on a terminal, plain lines elsewhere."""

import time
from contextlib import AbstractContextManager
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

PLAIN_SECONDS = 15.0  # between two plain lines of one task: a log of a long run stays readable


class Progress(AbstractContextManager["Progress"]):
    """Shows tasks as they advance. Use it as a context manager; `Progress(quiet=True)` shows nothing."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True)
        self.quiet = quiet
        self.bars: Bars | None = None
        if self.console.is_terminal and not quiet:
            name, note = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
            columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
            self.bars = Bars(*columns, console=self.console)

    def __enter__(self) -> Self:
        if self.bars:
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars:
            self.bars.stop()

    def task(self, description: str, total: int) -> "Task":
        """A new task of `total` units; use it as a context manager."""
        return Task(self, description, total)


class Task(AbstractContextManager["Task"]):
    """One line of progress. `update` is cheap enough to call every step."""

    def __init__(self, progress: Progress, description: str, total: int) -> None:
        self.progress, self.description, self.total = progress, description, total
        self.bar = progress.bars.add_task(description, total=total, note="") if progress.bars else None
        self.printed = time.monotonic()
        self.last = (0, "")

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` of the total units are finished, with a short note such as ``loss 0.12``."""
        self.last = (done, note)
        if self.progress.bars and self.bar is not None:
            self.progress.bars.update(self.bar, completed=done, note=note)
        elif time.monotonic() - self.printed > PLAIN_SECONDS:
            self._print()

    def _print(self) -> None:
        if not self.progress.quiet:
            done, note = self.last
            self.progress.console.print(f"{self.description}: {done}/{self.total} {note}".rstrip(), highlight=False)
        self.printed = time.monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        if self.bar is None and kind is None:
            self._print()
