"""What the pieces of `make gpu` share: a state on disk that a killed piece goes on from, interleaved times, a page."""

import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from divkd.shared.files import write_bytes, write_json
from divkd.shared.run import device_name, git_revision

TRIES = 2  # of a case that the clock ended: it is left out then
Record = dict[str, Any]


class Setting(NamedTuple):
    """Where a piece computes, and how much: in miniature all of it takes seconds, and no time means anything."""

    device: torch.device
    miniature: bool
    root: Path  # of the results, a folder a piece
    run: Path  # of the table's run
    data: str  # folder of CIFAR-10
    deadline: float  # of time.monotonic

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()


class OutOfTime(Exception):
    """There is more to do, and no time for it in this call."""


class Piece:
    """ROOT/gpu-NAME/cases.json, {case: record}, written whole after every case."""

    def __init__(self, name: str, setting: Setting) -> None:
        self.setting, self.folder = setting, setting.root / f"gpu-{name}"
        self.path = self.folder / "cases.json"
        content = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {"cases": {}}
        self.cases: dict[str, Record] = content["cases"]
        self.where = {"device": device_name(str(setting.device)), "revision": git_revision()}
        self.where |= {"python": platform.python_version(), "torch": torch.__version__}
        self.where |= {"torchvision": metadata.version("torchvision"), "cuda": torch.version.cuda}

    def case(self, name: str, work: Callable[[], Record], needs: float, again: bool = False) -> Record:
        """The record of a case: what `work` gives, or {"failed": why}, which with `again` is tried in every call.

        Raises `OutOfTime` where fewer seconds are left than it `needs`, or `work` does.
        """
        known = self.cases.get(name, {"tries": 0})
        if "tries" not in known and not (again and "failed" in known):
            return known
        if self.setting.left < (0 if self.setting.miniature else needs):
            raise OutOfTime
        tries = known.get("tries", 0)
        if tries >= TRIES and not again:
            self.cases[name] = {"failed": f"not done when its time was over, {tries} times", **self.where}
        else:
            self.cases[name] = {"tries": tries + 1}
            self.write()
            try:
                self.cases[name] = {**work(), **self.where}
            except OutOfTime:
                self.cases[name] = known  # it goes on where it is: no try was lost
                raise
            except Exception as error:  # a form that the compiler, the device or its memory refuses is no end
                self.cases[name] = {"failed": f"{type(error).__name__}: {error}".split("\n")[0][:300], **self.where}
            finally:
                self.write()
        print(f"{self.folder.name}: {name}: {self.cases[name].get('failed', 'done')}", flush=True)
        if "failed" in self.cases[name]:
            try:
                torch.zeros(1, device=self.setting.device).item()
            except RuntimeError:  # the failure took the device's context with it: a new process goes on
                raise OutOfTime from None
        return self.cases[name]

    def write(self) -> None:
        """Write the state."""
        write_json(self.path, {"miniature": self.setting.miniature, "cases": self.cases})

    def page(self, title: str, text: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """README.md: what was measured, where, and a table."""
        done = [case for case in self.cases.values() if "tries" not in case]
        places = dict.fromkeys(
            f"{case['device']}; torch {case['torch']}, CUDA {case['cuda']}, torchvision {case['torchvision']}, "
            f"Python {case['python']}; revision {case['revision']}" for case in done
        )  # fmt: skip
        failed = [f"- {name}: {case['failed']}" for name, case in self.cases.items() if "failed" in case]
        mini = ["**Miniature: these numbers say nothing.**", ""] if self.setting.miniature else []
        lines = [f"# {title}", "", *mini, *(f"Measured on {place}." for place in places), "", text, ""]
        lines += [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
        lines += ["", "Not counted:", "", *failed] if failed else []
        write_bytes(self.folder / "README.md", ("\n".join(lines) + "\n").encode())


def spread(values: "list[float] | np.ndarray") -> Record:
    """Median, quartiles and n."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {"median": middle, "quartiles": [low, high], "n": len(values)}


def shown(value: Record, digits: int = 3) -> str:
    """A spread in a cell."""
    low, high = value["quartiles"]
    return f"{value['median']:.{digits}g} ({low:.{digits}g} to {high:.{digits}g})"


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(works: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, np.ndarray]:
    """Wall-clock seconds of each of `works`, all once a round; the first round, which warms up, is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            synchronise(device)
            began = time.perf_counter()
            work()
            synchronise(device)
            if number:
                times[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in times.items()}


def peaks(device: torch.device, precision: str, miniature: bool) -> Record:
    """The best of 20: flops a second of a square product (float32: in TF32), bytes a second of a copy, both ways."""
    size, count = (256, 2**20) if miniature else (8192, 2**30)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with tf32(True):
        times = interleaved({"product": lambda: a @ b, "copy": lambda: target.copy_(source)}, 20, device)
    return {"flops_per_s": 2 * size**3 / times["product"].min(), "bytes_per_s": 2 * count / times["copy"].min()}


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Within, products and convolutions in float32 use TF32, or do not.

    By the older of torch's two interfaces, as torch 2.11 compiles nothing after a word of the newer one.
    """
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |b|; infinite where it is no number."""
    value = float((a - b).norm() / b.norm())
    return value if math.isfinite(value) else math.inf
