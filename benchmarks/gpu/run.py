"""`make gpu`: tests, execution, step times and a CIFAR-10 table on a CUDA device, in pieces that go on where they were.

    python benchmarks/gpu/run.py [--seconds 1800] [--out docs/results] [--data-dir data]
    python benchmarks/gpu/run.py --piece forms --seconds 540

Every piece runs in a process of its own, for at most 9 minutes at a time, and writes OUT/gpu-NAME/: cases.json after
every case, and README.md. What is done is skipped; docs/gpu.md says how to use it. Exit codes: 0 all is done, 1
something failed, 2 there is no CUDA device, 3 there is more to do and the time is over: run it again. `--device cpu
--miniature` goes through all that a CPU can do, for a test: its numbers mean nothing, and are kept out of docs/.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from forms import forms
from measure import OutOfTime, Piece, Setting
from steps import steps
from table import ROOT, bounded, table, tests

PIECES = {"tests": tests, "forms": forms, "steps": steps, "table": table}
SLICE = 540.0  # seconds of a piece at a time
FAILED, NOWHERE, MORE = 1, 2, 3


def one(name: str, setting: Setting) -> int:
    """Carry out a piece, or as much of it as there is time for."""
    piece = Piece(name, setting)
    try:
        PIECES[name](piece)
    except OutOfTime:
        return MORE
    return FAILED if name in ("tests", "table") and any("failed" in case for case in piece.cases.values()) else 0


def every(setting: Setting) -> int:
    """All pieces in turn, each in a process, again until all is done or the time is over."""
    left, failed = list(PIECES), False
    while left and setting.left > 0:
        for name in list(left):
            seconds = min(SLICE, setting.left)
            if seconds <= 0:
                break
            command = [sys.executable, __file__, "--piece", name, "--seconds", str(seconds), "--device"]
            command += [str(setting.device), *(["--miniature"] if setting.miniature else [])]
            command += ["--out", str(setting.root), "--run", str(setting.run), "--data-dir", setting.data]
            code, _ = bounded(command, seconds)
            if code not in (None, MORE):
                left.remove(name)
                failed |= code != 0
            print(f"{name}: {'done' if code == 0 else 'more to do' if code in (None, MORE) else 'FAILED'}", flush=True)
    return FAILED if failed else MORE if left else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--piece", choices=PIECES, help="this one alone, in this process")
    parser.add_argument("--seconds", type=float, default=1800.0, help="of this call")
    parser.add_argument("--out", type=Path, help="default: docs/results; runs/gpu-miniature")
    parser.add_argument("--run", type=Path, help="of the table, with its checkpoints; default: runs/gpu-table")
    parser.add_argument("--data-dir", default="data", help="with CIFAR-10")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--miniature", action="store_true")
    arguments = parser.parse_args()
    if arguments.device == "cpu" and not arguments.miniature:
        parser.error("--device cpu goes with --miniature: there are no results of a CPU here")
    if arguments.device != "cpu" and not torch.cuda.is_available():
        print("no CUDA device: torch sees none here; --device cpu --miniature tries the code alone", file=sys.stderr)
        return NOWHERE
    out = (arguments.out or ROOT / ("runs/gpu-miniature" if arguments.miniature else "docs/results")).resolve()
    if arguments.miniature and ROOT / "docs" in out.parents:
        parser.error(f"--out {out}: a miniature has no results to publish; give a folder outside docs/")
    run = (arguments.run or (out / "run" if arguments.miniature else ROOT / "runs/gpu-table")).resolve()
    deadline = time.monotonic() + arguments.seconds
    setting = Setting(torch.device(arguments.device), arguments.miniature, out, run, arguments.data_dir, deadline)
    return one(arguments.piece, setting) if arguments.piece else every(setting)


if __name__ == "__main__":
    sys.exit(main())
