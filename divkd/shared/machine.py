"""What this machine offers to compute with: cores, memory, and one compute thread."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
CGROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """The cores that this process may use, within its affinity and its container's share."""
    from joblib import cpu_count

    return int(cpu_count())


def available_memory() -> int:
    """Bytes that are free for new work, within the container's limit where it has one."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
    except (OSError, StopIteration, ValueError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, limit - used)
    except (OSError, ValueError):  # no such files, or no limit ("max")
        pass
    return max(free, 0)


def launched() -> tuple[int, int]:
    """This process's rank and how many there are, where torchrun has started several to train together; else 0 of 1."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: the bits of a sum depend on how many share it, and so does what a job costs others."""
    from threadpoolctl import threadpool_limits

    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))  # for what is imported later
    torch, numba = sys.modules.get("torch"), sys.modules.get("numba")
    threads = torch.get_num_threads() if torch else 0, numba.get_num_threads() if numba else 0
    try:
        with threadpool_limits(1):
            if torch:
                torch.set_num_threads(1)
            if numba:
                numba.set_num_threads(1)
            yield
    finally:
        if torch:
            torch.set_num_threads(threads[0])
        if numba:
            numba.set_num_threads(threads[1])
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
