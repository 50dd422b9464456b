"""What jobs cost and gain: overhead of the workers; a training run in one process, in two, and beside a busy one.

    python benchmarks/jobs.py [--repeats 3] [--against CHECKOUT]

The run is the preset `cpu` with random images of CIFAR's size, 1,000 to learn from, a 25th of its epochs and of the
images that it is measured on: the same kinds of networks and steps. With --against, the same command of another
checkout of divkd, which then has no --jobs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from divkd.shared.jobs import Job, Workers
from divkd.shared.machine import cores
from divkd.shared.progress import Progress
from divkd.shared.run import open_run

SECONDS = 10.0  # of a job whose overhead is measured
EPOCHS = "--teacher-epochs 4 --student-epochs 2"  # the preset's 100 and 50 in little


def spin(seconds: float, *_: object) -> dict[str, Any]:
    """Compute for so many seconds of CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))
    return {}


def overhead(count: int) -> float:
    """Wall-clock of `count` processes with three jobs each over that of the jobs alone, less one."""
    jobs = [Job(f"spin{number}", partial(spin, SECONDS)) for number in range(3 * count)]
    with TemporaryDirectory() as folder:
        run = open_run(Path(folder) / "run", "benchmark", {})
        began = time.perf_counter()
        Workers(Progress(quiet=True), count).records(jobs, run)
        return (time.perf_counter() - began) / (3 * SECONDS) - 1


def images(path: Path) -> None:
    """Random images of CIFAR's shape: as many to learn from as in the preset `cpu`, a part of the others."""
    generator = np.random.default_rng(0)
    parts: dict[str, np.ndarray] = {}
    for part, count in (("train", 1000), ("val", 200), ("test", 400)):
        parts[f"x_{part}"] = generator.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        parts[f"y_{part}"] = np.arange(count) % 10
    np.savez(path, allow_pickle=False, **parts)


def trained(data: Path, options: str, root: Path, **environment: str) -> float:
    """Seconds of a whole `divkd train`, of the checkout at `root`."""
    with TemporaryDirectory() as out:
        command = f"-m divkd train {data} --preset cpu --device cpu {EPOCHS} {options} --out {out}/run"
        own = {key: value for key, value in os.environ.items() if key != "DIVKD_JOBS"}
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, *command.split()], check=True, capture_output=True, cwd=root, env={**own, **environment}
        )
        return time.perf_counter() - began


@contextmanager
def busy() -> Any:
    """One process that computes beside."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Measure in interleaved rounds, and print medians and the range of ratios within rounds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--against", type=Path)
    given = parser.parse_args()
    here, two = Path(__file__).parents[1], f"--jobs {cores()}"
    with TemporaryDirectory() as folder:
        data = Path(folder) / "random.npz"
        images(data)

        def beside() -> float:
            with busy():
                return trained(data, two, here)

        ways: dict[str, Callable[[], float]] = {
            two: lambda: trained(data, two, here),
            "--jobs 1": lambda: trained(data, "--jobs 1", here),
            f"{two} beside a busy process": beside,
            f"{two} --precision auto": lambda: trained(data, f"{two} --precision auto", here),
        }
        if given.against:
            ways["the other checkout"] = lambda: trained(data, "", given.against, PYTHONPATH=str(given.against))
        rounds = []
        for _ in range(given.repeats):
            rounds.append(one := dict.fromkeys(ways, 0.0))
            for name, way in ways.items():
                one[name] = way()
                print(f"{name}: {one[name]:.1f} s", flush=True)
    print(f"{os.cpu_count()} cores, n = {given.repeats} rounds; preset cpu, {EPOCHS}")
    report(rounds, two)
    shares = [overhead(cores()) for _ in range(given.repeats)]
    print(
        f"overhead of jobs of {SECONDS:.0f} s: {statistics.median(shares):.1%} ({min(shares):.1%} to {max(shares):.1%})"
    )


def report(rounds: Sequence[Mapping[str, float]], base: str) -> None:
    """A line for each way: seconds, and the ratio to `base` within a round."""
    for name in rounds[0]:
        seconds = [one[name] for one in rounds]
        ratios = [one[name] / one[base] for one in rounds]
        line = f"{statistics.median(seconds):7.1f} s, {statistics.median(ratios):5.2f} times"
        print(f"{name:32}{line} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
