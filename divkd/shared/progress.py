"""Progress for people: rich bars on a terminal, plain lines elsewhere; networks counted over the whole command."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

PLAIN_SECONDS = 15.0  # between two plain lines of one task: a log of a long run stays readable
REPORT_SECONDS = 0.5  # between two reports of a process


class Progress(AbstractContextManager["Progress"]):
    """Shows tasks as they advance. Use it as a context manager; `Progress(quiet=True)` shows nothing.

    Once it knows what jobs to `expect`, their networks (or they themselves, where none trains any) are counted in a
    line of their own, with the time that is left for all of them. With a `report`, a process says in that file how far
    its job is, for its parent to show.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False, report: Path | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.quiet = quiet
        self.file = report
        self.tasks: dict[str, tuple[int, int, str]] = {}  # of the report: done, total, note
        self.said: list[str] = []
        self.reported = self.began = time.monotonic()
        self.jobs: dict[str, tuple[int, float]] = {}  # networks and cost
        self.shares: dict[str, float] = {}  # of a job, how much of it is there
        self.given: dict[str, float] = {}  # and how much was so at the start
        self.job: str | None = None  # that is under way here
        self.overall: TaskID | None = None
        self.bars: Bars | None = None
        if self.console.is_terminal and not quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self.bars = Bars(*columns, TextColumn("{task.fields[note]}"), console=self.console)

    def __enter__(self) -> Self:
        if self.bars:
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars:
            self.bars.stop()

    def say(self, line: str) -> None:
        """Print a line between the bars."""
        self.said.append(line)
        if not self.quiet:
            self.console.print(f"divkd: {line}", highlight=False, markup=False, soft_wrap=True)

    def expect(self, jobs: Mapping[str, tuple[int, float]]) -> None:
        """Say what is going to be done: by job, the networks that it trains and its cost beside the others."""
        self.jobs |= jobs
        self.began = time.monotonic()
        if self.bars and self.overall is None:
            self.overall = self.bars.add_task(self.unit, total=self.total, note="")

    @contextmanager
    def within(self, job: str) -> Iterator[None]:
        """Count the networks of tasks for `job`, and all of it at the end."""
        self.job = job
        try:
            yield
            self.count(job, 1.0)
        finally:
            self.job = None
            self.report(last=True)

    def task(self, description: str, total: int, networks: int = 0) -> "Task":
        """A new task of `total` units, which trains so many `networks`; use it as a context manager."""
        return Task(self, description, total, networks)

    def there(self, networks: float) -> None:
        """Say that so many networks of the job under way are finished: an earlier sitting trained them."""
        self.advance(networks, given=True)

    def advance(self, networks: float, *, given: bool = False) -> None:
        """Count networks, or parts of one, of the job under way; `given` where it cost no time."""
        trains = self.jobs.get(self.job or "", (0, 0.0))[0]
        if self.job and trains:
            self.count(self.job, self.shares.get(self.job, 0.0) + networks / trains, given=given)

    def count(self, job: str, share: float, *, given: bool = False) -> None:
        """Say how much of a job is done."""
        before = self.shares.get(job, 0.0)
        self.shares[job] = max(before, min(share, 1.0))
        if given:
            self.given[job] = self.given.get(job, 0.0) + self.shares[job] - before
        if self.bars and self.overall is not None:
            self.bars.update(self.overall, completed=int(self.finished + 1e-9), note=self.left())
        self.report()

    @property
    def unit(self) -> str:
        """What is counted."""
        return "networks" if any(networks for networks, _ in self.jobs.values()) else "jobs"

    @property
    def total(self) -> int:
        """How many of these there are."""
        return sum(networks for networks, _ in self.jobs.values()) or len(self.jobs)

    @property
    def finished(self) -> float:
        """How many are done, those under way in parts."""
        jobs = self.unit == "jobs"
        return sum(share * (1 if jobs else self.jobs[job][0]) for job, share in self.shares.items())

    def left(self) -> str:
        """The time that the other jobs take if they go on as they did, in words; empty where it is not known."""
        whole, done, given = (
            sum(shares.get(job, 0.0) * cost for job, (_, cost) in self.jobs.items())
            for shares in (dict.fromkeys(self.jobs, 1.0), self.shares, self.given)
        )
        if done - given <= 1e-9 * whole or done >= whole * (1 - 1e-6):
            return ""
        return f"{lasting((time.monotonic() - self.began) * (whole - done) / (done - given))} left"

    def place(self) -> str:
        """How many networks are finished and the time left, for the head of a plain line."""
        if not self.jobs:
            return ""
        left = self.left()
        count = int(self.finished + 1e-9)  # a sum of shares
        return f"[{count} of {self.total} {self.unit}{', ' if left else ''}{left}] "

    def report(self, *, last: bool = False) -> None:
        """Write how far the job of this process is, at most every `REPORT_SECONDS` until the `last` time."""
        now = time.monotonic()
        if self.file is not None and (last or now - self.reported > REPORT_SECONDS):
            self.reported = now
            job = next(iter(self.jobs), "")
            share, given = self.shares.get(job, 0.0), self.given.get(job, 0.0)
            content = {"share": share, "given": given, "tasks": self.tasks, "said": self.said}
            temporary = self.file.with_suffix(".part")
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.replace(self.file)


class Task(AbstractContextManager["Task"]):
    """One line of progress. `update` is cheap enough to call every step."""

    def __init__(self, progress: Progress, description: str, total: int, networks: int = 0) -> None:
        self.progress, self.description, self.total = progress, description, total
        self.networks = networks
        self.bar = progress.bars.add_task(description, total=total, note="") if progress.bars else None
        self.printed = time.monotonic()
        self.last: tuple[int, str] | None = None

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` of the total units are finished, with a short note such as ``loss 0.12``.

        What a first update without a note has is from an earlier sitting.
        """
        given, before = self.last is None and not note, self.last[0] if self.last else 0
        self.last = (done, note)
        self.progress.tasks[self.description] = (done, self.total, note)
        if self.networks and self.total and done > before:
            self.progress.advance((done - before) / self.total * self.networks, given=given)
        self.progress.report()
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

    def __exit__(self, kind: object = None, *_: object) -> None:
        if self.bar is None and kind is None:
            self._print()
        if self.bar is not None and self.progress.bars and self.progress.jobs and kind is None:
            self.progress.bars.remove_task(self.bar)  # only what is under way stays beside the networks of all


def lasting(seconds: float) -> str:
    """A time in words, as exact as an estimate deserves: 40 s, 12 min, 3.5 h, 2.1 days."""
    for unit, size, most in (("s", 1.0, 90.0), ("min", 60.0, 5400.0), ("h", 3600.0, 172_800.0)):
        if seconds < most:
            amount = seconds / size
            return f"{amount:.0f} {unit}" if unit != "h" or amount >= 10 else f"{amount:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"
