"""Time and memory of the theory's simulation: claims 1 to 4 of one seed, the preset `default`, compilation.

Claims 1 to 4 are one seed of `default`: 10 members, 5 distilled and 5 self-distilled students, trained and tested, with
compiled code in the cache. `default` is the whole command with controls, figures and table, as a process of its own;
compilation is what a process with an empty cache takes beyond one with a full one.
Run: python benchmarks/simulation.py
"""

import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.theory.config import PRESETS
from divkd.theory.experiment import measure
from divkd.theory.students import Seed

REPEATS = 3


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def claims() -> None:
    config = dataclasses.replace(PRESETS["default"], seeds=(0,))
    with TemporaryDirectory() as folder:
        run = Run(Path(folder))
        run.checkpoints.mkdir()
        measure(Seed(config, run, Progress(quiet=True), 0, ("distilled", "self_distilled")))


def command(preset: str, cache: str | None = None) -> None:
    with TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "divkd", "simulate", "multiview", "--preset", preset, "--out", f"{folder}/run"],
            env={**os.environ, **({"NUMBA_CACHE_DIR": cache} if cache else {})},
            check=True,
            capture_output=True,
        )


def main() -> None:
    claims()
    command("quick")
    with TemporaryDirectory() as first:  # a cache of its own, empty and then full
        cold = timed(lambda: command("quick", first))
        warm = timed(lambda: command("quick", first))
    seed = [timed(claims) for _ in range(REPEATS)]
    whole = [timed(lambda: command("default")) for _ in range(REPEATS)]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"{os.cpu_count()} cores, n = {REPEATS}: median (smallest to largest)")
    for name, values in (("claims 1 to 4 of one seed", seed), ("default, three seeds, whole command", whole)):
        print(f"{name:38}{statistics.median(values):7.1f} s ({min(values):.1f} to {max(values):.1f})")
    print(f"{'default, largest resident memory':38}{peak:7.2f} GB")
    print(f"{'compilation':38}{cold - warm:7.1f} s ({cold:.1f} with an empty cache, {warm:.1f} with a full one, n = 1)")


if __name__ == "__main__":
    main()
