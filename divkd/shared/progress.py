"""Progress for people: rich bars on a terminal, plain lines elsewhere; networks counted over the whole command."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

PLAIN_SECONDS = 15.0  # between two plain lines of one task: a log of a long run stays readable


class Plan(NamedTuple):
    """What a command is going to train, said before it begins and counted while it runs.

    `work` says of networks by the name of their task what each takes beside the others, in any unit; without it, all
    take the same, and a task says itself of how many networks it is.
    """

    networks: int
    lines: tuple[str, ...] = ()  # in words: what, how many steps, how much memory
    work: Mapping[str, float] = {}


class Progress(AbstractContextManager["Progress"]):
    """Shows tasks as they advance. Use it as a context manager; `Progress(quiet=True)` shows nothing.

    With a `plan`, its networks are counted in a line of their own, with the time that is left for all of them.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False, plan: Plan | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.quiet = quiet
        self.plan = plan
        self.began = time.monotonic()
        self.finished = 0.0  # networks, those of the task that is under way in parts
        self.work = self.given = 0.0  # what they took, and the part of it that was there already
        self.bars: Bars | None = None
        if self.console.is_terminal and not quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            left = () if plan else (TimeRemainingColumn(),)  # one is enough
            self.bars = Bars(*columns, *left, TextColumn("{task.fields[note]}"), console=self.console)
        self.overall = self.bars.add_task("networks", total=plan.networks, note="") if self.bars and plan else None

    def __enter__(self) -> Self:
        if self.bars:
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars:
            self.bars.stop()

    def task(self, description: str, total: int, networks: int = 0) -> "Task":
        """A new task of `total` units, which trains so many `networks`; use it as a context manager."""
        return Task(self, description, total, networks)

    def there(self, networks: int) -> None:
        """Say that so many networks are finished without a task: an earlier sitting trained them."""
        self.advance(networks, networks, given=True)

    def advance(self, networks: float, work: float, *, given: bool) -> None:
        """Count networks, or parts of one, and the work that stands behind them; `given` where it cost no time."""
        self.finished += networks
        self.work += work
        self.given += work if given else 0.0
        if self.bars and self.overall is not None:
            self.bars.update(self.overall, completed=int(self.finished + 1e-9), note=self.left())

    def left(self) -> str:
        """The time that the rest of the plan takes if it goes on as it did, in words; empty where it is not known."""
        done = self.work - self.given
        if self.plan is None or done <= 0:
            return ""
        rest = sum(self.plan.work.values() or (self.plan.networks,)) - self.work
        return f"{lasting((time.monotonic() - self.began) * rest / done)} left" if rest > 1e-6 * self.work else ""

    def place(self) -> str:
        """How many networks are finished and the time left, for the head of a plain line."""
        if self.plan is None or not self.plan.networks:
            return ""
        left = self.left()
        count = int(self.finished + 1e-9)  # a sum of shares
        return f"[{count} of {self.plan.networks} networks{', ' if left else ''}{left}] "


class Task(AbstractContextManager["Task"]):
    """One line of progress. `update` is cheap enough to call every step."""

    def __init__(self, progress: Progress, description: str, total: int, networks: int = 0) -> None:
        self.progress, self.description, self.total = progress, description, total
        plan = progress.plan
        known = plan.work if plan else {}
        self.networks = (1 if description in known else 0) if known else networks if plan else 0
        self.work = known.get(description, float(self.networks))
        self.bar = progress.bars.add_task(description, total=total, note="") if progress.bars else None
        self.printed = time.monotonic()
        self.last: tuple[int, str] | None = None

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` of the total units are finished, with a short note such as ``loss 0.12``.

        What a first update without a note has is from an earlier sitting.
        """
        given, before = self.last is None and not note, self.last[0] if self.last else 0
        self.last = (done, note)
        if self.networks and self.total and done > before:
            share = (done - before) / self.total
            self.progress.advance(share * self.networks, share * self.work, given=given)
        if self.progress.bars and self.bar is not None:
            self.progress.bars.update(self.bar, completed=done, note=note)
        elif time.monotonic() - self.printed > PLAIN_SECONDS:
            self._print()

    def _print(self) -> None:
        if not self.progress.quiet:
            done, note = self.last or (0, "")
            line = f"{self.progress.place()}{self.description}: {done}/{self.total} {note}".rstrip()
            self.progress.console.print(line, highlight=False, markup=False, soft_wrap=True)
        self.printed = time.monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        if self.bar is None and kind is None:
            self._print()
        if self.bar is not None and self.progress.bars and self.progress.plan and kind is None:
            self.progress.bars.remove_task(self.bar)  # only what is under way stays beside the networks of all


def lasting(seconds: float) -> str:
    """A time in words, as exact as an estimate deserves: 40 s, 12 min, 3.5 h, 2.1 days."""
    for unit, size, most in (("s", 1.0, 90.0), ("min", 60.0, 5400.0), ("h", 3600.0, 172_800.0)):
        if seconds < most:
            amount = seconds / size
            return f"{amount:.0f} {unit}" if unit != "h" or amount >= 10 else f"{amount:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"
