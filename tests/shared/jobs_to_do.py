"""Jobs for tests, which worker processes import."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np

from divkd.shared.errors import RunError
from divkd.shared.jobs import Job
from divkd.shared.seeds import rng


def draw(name, steps, seconds, run, progress):
    """Sum `steps` draws, a checkpoint each, and leave a line for every step that was made."""
    held = run.load(name)
    total, begin = (float(held[0]["total"][0]), held[1]["step"]) if held else (0.0, 0)
    with progress.task(name, steps, networks=1) as task:
        task.update(begin)
        for step in range(begin, steps):
            time.sleep(seconds)
            total += float(rng(0, name, step).standard_normal())
            with open(run.path / "made", "a") as file:
                file.write(f"{name} {step} {os.getpid()}\n")
            run.save(name, {"total": np.array([total])}, {"step": step + 1})
            task.update(step + 1, note=f"total {total:.2f}")
    return {"total": total}


def add(names, run, progress):
    """The sum of what other jobs gave."""
    return {"total": sum(run.kept(name)["record"]["total"] for name in names)}


def fail(message, run, progress):
    raise RunError(message)


def die(flag, times, run, progress):
    """Kill this process, so many times."""
    path = Path(run.path / flag)
    count = len(path.read_text()) if path.exists() else 0
    if count < times:
        path.write_text("x" * (count + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return {"total": 1.0}


KEPT: list[bytearray] = []  # by a worker, from job to job


def grow(run, progress):
    """A worker that holds 310 MB more than before, and its process."""
    KEPT.append(bytearray(b"x") * 310_000_000)
    time.sleep(1.1)  # loky looks at a worker's memory every second
    return {"pid": os.getpid()}


def graph(count=5, steps=3, seconds=0.0):
    """A few jobs that draw, and one that adds them up."""
    names = tuple(f"draw{number}" for number in range(count))
    drawn = [Job(name, partial(draw, name, steps, seconds), keeps=(name,), networks=1) for name in names]
    return [*drawn, Job("sum", partial(add, names), names)]
