"""Time and memory of the theory's simulation in jobs of one thread: claims 1 to 4 of one seed, `default`, `large`.

Claims 1 to 4 are one seed of `default`: 10 members, 5 distilled and 5 self-distilled students, trained and tested.
`default` is three seeds with all controls, `large` one seed of 50 classes. Each runs in two processes of one thread,
started before the clock, with compiled code in the cache; the time of the first start, of the table and of figures is
not in it. CPU time is that of all jobs: beside other work it says more than the clock, though it grows with theirs.
Memory is the largest that a process has held, its program included. Compilation is what `quick` as a whole command
takes with an empty cache beyond what it takes with a full one.
Run: python benchmarks/simulation.py [--quick]
"""

import argparse
import dataclasses
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from tempfile import TemporaryDirectory

from divkd.shared.jobs import Job
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.theory.config import PRESETS, MultiViewConfig
from divkd.theory.descent import engine
from divkd.theory.experiment import seed_jobs
from divkd.theory.roster import KINDS

REPEATS, PROCESSES = 3, 2
Cost = tuple[float, float]  # CPU seconds, bytes


def one_job(job: Job, folder: str) -> Cost:
    """Do a job, and say what it took of CPU and the most memory that its process has held."""
    began = time.process_time()
    job.work(Run(Path(folder)), Progress(quiet=True))
    return time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def in_processes(pool: ProcessPoolExecutor, jobs: Sequence[Job]) -> tuple[float, float, float]:
    """Wall-clock and CPU seconds of `jobs`, and the most bytes of a process; what costs most begins first."""
    began, costs = time.perf_counter(), dict[str, Cost]()
    with TemporaryDirectory() as folder:
        (Path(folder) / "checkpoints").mkdir()
        left, under_way = sorted(jobs, key=lambda job: -job.cost), dict[Future[Cost], str]()
        while left or under_way:
            ready = [job for job in left if costs.keys() >= set(job.after)]
            for job in ready[: PROCESSES - len(under_way)]:
                left.remove(job)
                under_way[pool.submit(one_job, job, folder)] = job.name
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                costs[under_way.pop(future)] = future.result()
    return time.perf_counter() - began, sum(cpu for cpu, _ in costs.values()), max(most for _, most in costs.values())


def measured(name: str, config: MultiViewConfig, kinds: Sequence[str], repeats: int) -> None:
    """Print the time and memory of the seeds of `config`, in new processes."""
    jobs = [job for seed in config.seeds for job in seed_jobs(config, seed, kinds)]
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        begin = [job for seed in range(PROCESSES) for job in seed_jobs(PRESETS["quick"], seed)]
        in_processes(pool, begin)  # imports, and loads compiled code
        walls, cpus, most = zip(*(in_processes(pool, jobs) for _ in range(repeats)), strict=True)
    line = f"{statistics.median(walls):7.1f} s ({min(walls):.1f} to {max(walls):.1f})"
    line += f", CPU {statistics.median(cpus):6.1f} s ({min(cpus):.1f} to {max(cpus):.1f})"
    estimate = engine(config.engine).state_bytes(config)
    print(f"{name:28}{line}, {max(most) / 1e9:.2f} GB a process ({estimate / 1e9:.2f} estimated), n = {repeats}")


def command(cache: str) -> float:
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "divkd", "simulate", "multiview", "--preset", "quick", "--out", f"{folder}/run"],
            env={**os.environ, "NUMBA_CACHE_DIR": cache},
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="claims 1 to 4 of one seed alone, once")
    quick = parser.parse_args().quick
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")  # of the processes that are started
    print(f"{os.cpu_count()} cores, {PROCESSES} processes of one thread: median (smallest to largest)", flush=True)
    one = dataclasses.replace(PRESETS["default"], seeds=(0,))
    measured("claims 1 to 4 of one seed", one, ("distilled", "self_distilled"), 1 if quick else REPEATS)
    if quick:
        return
    measured("default, three seeds", PRESETS["default"], tuple(KINDS), REPEATS)
    measured("large", PRESETS["large"], tuple(KINDS), 1)
    with TemporaryDirectory() as cache:  # empty and then full
        cold, warm = command(cache), command(cache)
    print(f"compilation {cold - warm:.1f} s ({cold:.1f} with an empty cache, {warm:.1f} with a full one, n = 1)")


if __name__ == "__main__":
    main()
