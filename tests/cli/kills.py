"""Commands in processes of their own, which a signal or a write ends, and what to compare of the runs that they make.

A server that has imported what commands need forks them: a start is as cheap as a function's.
"""

import contextlib
import json
import math
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from divkd.cli import main

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["kills", "divkd.cli.train", "divkd.empirical.training.experiment",
                               "divkd.empirical.experiments.mysteries",
                               "divkd.empirical.analysis.analysis", "divkd.theory.experiment",
                               "divkd.theory.engines.limit", "divkd.report.commands", "torch._dynamo"])  # fmt: skip
# A job's record has the sums of its checkpoints, which know the seconds that they took; a checkout may change.
TIMES = {"seconds", "time", "started", "since", "versions", "training_cost", "inference", "git_revision"}
TRAIN = "train digits --device cpu --train-images 60 --epochs 2 --members 2 --ladder 2 --method kd --student single"


def prepared(line, folder, out="run"):
    """The command with its --out, and beside it what it names: "base", a run of `TRAIN`, and "answers.npz"."""
    if "base" in line.split():
        assert go(f"{TRAIN} --out base", folder) == 0, (folder / "said").read_text()
    if "answers.npz" in line.split():
        answers = np.random.default_rng(0).normal(size=(3, 60, 4)) * 3
        np.savez(folder / "answers.npz", logits=answers[:, :40], labels=np.arange(40) % 4,
                 val_logits=answers[:, 40:], val_labels=np.arange(20) % 4)  # fmt: skip
    first, *rest = line.split(" -- ")
    return " -- ".join([f"{first} --out {out}", *rest])


def command(line, folder, die_before):
    """The command, as `divkd` runs it; with `die_before`, killed before that many whole files were put in place."""
    os.chdir(folder)
    replace, count = os.replace, 0

    def counted(source, target, **options):
        nonlocal count
        if Path(target).resolve().is_relative_to(folder):  # and not in Numba's cache
            if count == die_before:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
        return replace(source, target, **options)

    Figure.savefig, os.replace = curves_alone, counted
    signal.signal(signal.SIGTERM, main._terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    out = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(out, stream)
    code = main.run(line.split())
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, signal.SIG_IGN)
    Path("writes").write_text(f"{time.process_time()} {count}")
    os._exit(code)


def curves_alone(figure, file, *, format, metadata, **_):
    """Draw what data a figure has, coarse and once: ticks and their words are most of the time."""
    figure.set_layout_engine("none")
    figure.set_dpi(20)
    for axes in figure.axes:
        axes.set_axis_off()
    FigureCanvasAgg(figure).print_png(file, metadata=metadata)


def begin(line, folder, die_before=-1):
    process = SERVER.Process(target=command, args=(line, folder, die_before))
    process.start()
    return process


def go(line, folder, *, after=None, sign=signal.SIGKILL, die_before=-1, victim=None):
    """The exit code of the command, which gets the signal `after` it has computed so many seconds, if it does so long.

    Seconds of its own, so that signals fall on all of a run's life whatever else the machine does. `victim` chooses who
    gets it, by the number of the command's process; seconds are then those of the clock, as others compute.
    """
    process = begin(line, folder, die_before)
    while sign != signal.SIGKILL and process.is_alive() and not Path(folder, "said").exists():
        time.sleep(0.01)  # nobody listens yet
    if after is not None and victim is not None:
        process.join(after)
    while after is not None and victim is None and process.is_alive() and (left := after - computed(process.pid)) > 0:
        time.sleep(max(0.001, left / 2))
    if after is not None and process.is_alive():
        chosen = process.pid if victim is None else victim(process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(chosen, sign)
    process.join(600)
    assert not process.is_alive(), f"{line} does not end"
    return process.exitcode


def computed(number):
    """The seconds that a process has computed, as Linux counts them."""
    with contextlib.suppress(FileNotFoundError):
        return int(Path(f"/proc/{number}/schedstat").read_text().split()[0]) / 1e9
    return math.inf


def children(number):
    """The processes that a process has started, as Linux lists them."""
    found = []
    for task in Path(f"/proc/{number}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def finish(line, folder):
    """Go on as a user would: with --resume, or from the start where nothing has begun."""
    said = Path(folder, "said")
    said.unlink(missing_ok=True)
    code = go(f"{line} --resume" if " -- " not in line else line.replace(" -- ", " --resume -- "), folder)
    if code == 2 and "leave --resume out to start one" in said.read_text():
        code = go(line, folder)
    assert code == 0, said.read_text()
    assert "Traceback" not in said.read_text()


def timed(line, folder):
    """The seconds that an undisturbed command computes, and how many files it puts in place."""
    assert go(line, folder) == 0, Path(folder, "said").read_text()
    seconds, count = Path(folder, "writes").read_text().split()
    return float(seconds), int(count)


def made(run):
    """What a run leaves, but for times: results, records, weights, figures, the last word of the log on everything."""
    content = {}
    for file in sorted(run.rglob("*.json")):
        content[str(file.relative_to(run))] = timeless(json.loads(file.read_text(encoding="utf-8")))
    for file in sorted(run.rglob("*.safetensors")):
        arrays = load_file(file)
        content[str(file.relative_to(run))] = {name: array.tobytes() for name, array in arrays.items()}
    for file in sorted(run.rglob("log.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            event = timeless(json.loads(line))
            if event["event"] in ("epoch", "fitted", "tested", "evaluated"):
                known = [event.get(key) for key in ("event", "network", "epoch", "seed")]
                content[str(file.relative_to(run)), *map(str, known)] = event
    for file in [*run.rglob("*.png"), *run.rglob("*.csv")]:
        content[str(file.relative_to(run))] = file.suffix == ".csv" or file.read_bytes()
    return content


def timeless(value):
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if key not in TIMES and key != "digest"}
        return {key: timeless(item) for key, item in kept.items() if key != "sha256" or isinstance(item, str)}
    return [timeless(item) for item in value] if isinstance(value, list) else value
