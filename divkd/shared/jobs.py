"""A run as a graph of jobs, and who carries them out: this process, worker processes or a Dask cluster.

A job is one network, one simulation or one analysis. One thread computes it, so that its bits depend neither on who
does, nor on the cores, nor on what runs beside it. What it gives is its record, RUN/jobs/NAME.json, written when all of
it is done: a run that was killed goes on with the jobs that have none.
"""

import heapq
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from divkd.shared.cluster import Cluster
from divkd.shared.errors import InputError, RunError
from divkd.shared.files import plain
from divkd.shared.machine import THREADS, available_memory, one_thread
from divkd.shared.progress import Progress, Task
from divkd.shared.run import Run

TRIES = 3  # of a job whose process dies under it
LOOK = 0.5  # seconds between two looks at what workers report, and at whether their parent lives
ONE = threading.Lock()  # a process's jobs take turns: threads, locks and the folder are the process's, not a thread's
PROCESS = 400_000_000  # bytes of a worker before it has done anything: Python, torch and its libraries

Record = dict[str, Any]
Work = Callable[[Run, Progress], Mapping[str, Any]]  # a partial of a module's function: other processes call it


class Job(NamedTuple):
    """One piece of a run's work."""

    name: str  # of its record
    work: Work
    after: tuple[str, ...] = ()  # names of jobs whose checkpoints or records it reads; they stand before it
    keeps: tuple[str, ...] = ()  # checkpoints that it leaves: where one is gone, it is done again
    networks: int = 0  # that it trains
    cost: float = 1.0  # beside the other jobs of a run, in any unit
    memory: int = 0  # bytes that it holds


@dataclass(frozen=True)
class Workers:
    """Who carries out the jobs of a run: `count` processes of one thread, or the Dask scheduler at `cluster`.

    One process is this one.
    """

    progress: Progress
    count: int = 1
    cluster: str | None = None

    def records(self, jobs: Sequence[Job], run: Run) -> dict[str, Record]:
        """The record of every job by name, of those that are done already and of those that are now carried out.

        A job whose process is killed is begun anew, from its last checkpoint. Raises what a job raises, its name in
        the message, and `RunError` where processes keep dying; what is finished stays.
        """
        self.progress.expect({job.name: (job.networks, job.cost) for job in jobs})
        records = {job.name: record for job in jobs if (record := _kept(job, run)) is not None}
        for name in records:
            self.progress.count(name, 1.0, given=True)
        rest = [job for job in jobs if job.name not in records]
        count = min(self.count, len(rest)) if self.cluster is None else len(rest)
        if self.cluster is None and count > 1:
            count = self._fitting(count, max(job.memory for job in rest))
        if self.cluster is None and count < 2:
            for job in rest:
                records[job.name] = _carry_out(job, run, self.progress)
        else:
            _Crew(self, rest, run, count).work(records)
        return {job.name: records[job.name] for job in jobs}

    def _fitting(self, count: int, memory: int) -> int:
        """As many of `count` jobs of so much `memory` as fit beside each other."""
        fitting = max(1, min(count, int(0.9 * available_memory()) // (memory + PROCESS)))
        if fitting < count:
            self.progress.say(
                f"{fitting} of {count} jobs at once, as one may take {(memory + PROCESS) / 1e9:.1f} GB and "
                f"{available_memory() / 1e9:.1f} GB are free"
            )
        return fitting


class _Crew:
    """Jobs under way in other processes."""

    def __init__(self, workers: Workers, jobs: Sequence[Job], run: Run, count: int) -> None:
        self.workers, self.run, self.count, self.progress = workers, run, count, workers.progress
        self.jobs = {job.name: job for job in jobs}
        self.waits = {job.name: {name for name in job.after if name in self.jobs} for job in jobs}
        self.order = {job.name: place for place, job in enumerate(jobs)}
        self.urgency = _longest_paths(jobs)
        self.tries = dict.fromkeys(self.jobs, 0)
        self.ready: list[tuple[float, int, str]] = []
        self.under_way: dict[Future[Record], Job] = {}
        self.shown: dict[tuple[str, str], Task] = {}
        self.heard: dict[str, int] = {}  # by job, the lines that its process said and were shown
        self.executor: Executor | None = None
        for name in [name for name, others in self.waits.items() if not others]:
            self._offer(name)

    def work(self, records: dict[str, Record]) -> None:
        """Carry out all jobs, and add their records to `records`."""
        finished = False
        try:
            while self.ready or self.under_way:
                self._submit()
                done, _ = wait(self.under_way, timeout=LOOK, return_when=FIRST_COMPLETED)
                for job in self.under_way.values():
                    self._show(job)
                for future in done:
                    self._take(future, records)
            finished = True
        finally:
            self._stop(kill=not finished)

    def _offer(self, name: str) -> None:
        heapq.heappush(self.ready, (-self.urgency[name], self.order[name], name))

    def _submit(self) -> None:
        self.executor = self.executor or self._start()
        while self.ready and len(self.under_way) < self.count:
            job = self.jobs[heapq.heappop(self.ready)[-1]]
            self.tries[job.name] += 1
            try:
                self.under_way[self.executor.submit(_elsewhere, job, str(self.run.path), os.getcwd())] = job
            except BrokenProcessPool:  # one has died since
                self._lost([job, *self.under_way.values()])
                return

    def _start(self) -> Executor:
        if self.workers.cluster is not None:
            cluster = Cluster(self.workers.cluster)
            self.progress.say(f"{cluster.workers} workers at {self.workers.cluster}; more may join")
            return cluster
        from joblib.externals.loky import ProcessPoolExecutor

        environment = dict.fromkeys(THREADS, "1")
        pool: Executor = ProcessPoolExecutor(self.count, initializer=_begin, initargs=(os.getpid(),), env=environment)
        return pool

    def _take(self, future: "Future[Record]", records: dict[str, Record]) -> None:
        job = self.under_way.pop(future, None)
        if job is None:  # it fell with the others of a broken pool
            return
        try:
            with _named(job.name):
                records[job.name] = future.result()
        except BrokenProcessPool:
            self._lost([job, *self.under_way.values()])
            return
        self._show(job, last=True)
        self.progress.count(job.name, 1.0)
        for name, others in self.waits.items():
            if job.name in others:
                others.remove(job.name)
                if not others:
                    self._offer(name)

    def _lost(self, jobs: Sequence[Job]) -> None:
        """A process was killed, and with it the pool: begin `jobs` anew, in another."""
        self.under_way.clear()
        self._stop(kill=True)
        names = ", ".join(job.name for job in jobs)
        if any(self.tries[job.name] >= TRIES for job in jobs):
            raise RunError(
                f"a process of {names} was killed {TRIES} times, by the system or somebody (is memory full?); what is "
                "finished is kept, and --resume with fewer --jobs goes on"
            )
        for job in jobs:
            self._show(job, last=True)
            self._offer(job.name)
        self.progress.say(f"a process was killed; {names} go on from their checkpoints")

    def _stop(self, *, kill: bool) -> None:
        executor, self.executor = self.executor, None
        if executor is not None:
            executor.shutdown(wait=True, kill_workers=kill)  # type: ignore[call-arg]

    def _show(self, job: Job, *, last: bool = False) -> None:
        """Show what the process of `job` reports of itself."""
        path = self.run.report(job.name)
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # nothing yet
            report = {"share": 0.0, "given": 0.0, "tasks": {}}
        self.progress.count(job.name, report["given"], given=True)
        self.progress.count(job.name, report["share"])
        for name, (done, total, note) in report["tasks"].items():
            key = (job.name, name)
            if key not in self.shown:
                self.shown[key] = self.progress.task(name, total)
            self.shown[key].update(done, note)
        for line in report.get("said", [])[self.heard.get(job.name, 0) :]:
            self.progress.say(line)
        self.heard[job.name] = len(report.get("said", []))
        if last:
            self.heard.pop(job.name)
            for key in [key for key in self.shown if key[0] == job.name]:
                self.shown.pop(key).__exit__(None)
            path.unlink(missing_ok=True)


def _carry_out(job: Job, run: Run, progress: Progress) -> Record:
    """Carry out `job` here, with one thread, unless another process that holds it does first."""
    with run.hold(job.name):
        record = _kept(job, run, progress)
        if record is None:
            with one_thread(), progress.within(job.name), _named(job.name):
                record = dict(plain(job.work(run, progress)))  # as it is read back
                if not record.get("failed"):  # else it is tried again on resume, perhaps with more steps
                    run.keep(job.name, {"record": record, "sha256": {name: run.digest(name) for name in job.keeps}})
    return record


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Put the `name` of the job into its errors."""
    try:
        yield
    except (InputError, RunError) as error:
        if name in str(error):
            raise
        raise type(error)(f"{name}: {error}") from error


def _kept(job: Job, run: Run, progress: Progress | None = None) -> Record | None:
    """The record of a job that is done, None where there is something left to do.

    What is damaged is done again; who holds the job gives the `progress` that says so.
    """
    if not all(run.checkpoint(name).exists() for name in job.keeps):
        return None
    try:
        content = run.kept(job.name)
    except InputError as error:
        if progress:
            progress.say(f"{error}: {job.name} is done again")
        return None
    if content is None:
        return None
    changed = [name for name in job.keeps if run.digest(name) != content["sha256"].get(name)]
    for name in changed:
        if progress:
            run.step_back(name)
            progress.say(f"{run.checkpoint(name)} is not what the run wrote and is set aside; {job.name} is done again")
    return None if changed else dict(content["record"])


def _longest_paths(jobs: Sequence[Job]) -> dict[str, float]:
    """By job, the cost of the longest chain that begins with it: what has to begin first for all to end early."""
    longest: dict[str, float] = {}
    after: dict[str, list[str]] = {}
    for job in jobs:
        for name in job.after:
            after.setdefault(name, []).append(job.name)
    for job in reversed(jobs):
        longest[job.name] = job.cost + max((longest[name] for name in after.get(job.name, [])), default=0.0)
    return longest


def _begin(parent: int) -> None:
    """Prepare a worker process: it leaves interrupts to its parent, and ends where that has died.

    Where psutil is installed, loky ends a worker that has grown by 300 MB, as one that leaks, and starts another, or
    waits for ever. Ours keep what a job frees for the next (`execution.keep_freed`).
    """
    from joblib.externals.loky import process_executor

    process_executor._USE_PSUTIL = False
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _elsewhere(job: Job, path: str, folder: str) -> Record:
    """Carry out `job` of the run in `path`, as seen from `folder`, in a process of its own."""
    with ONE, chdir(folder):
        run = Run(Path(path))
        progress = Progress(quiet=True, report=run.report(job.name))
        progress.expect({job.name: (job.networks, job.cost)})
        return _carry_out(job, run, progress)
