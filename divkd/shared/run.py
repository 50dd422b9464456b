"""A run directory: what was asked, what happened, what came out, and enough to go on after a kill.

RUN/config.json                 the resolved configuration, versions, device, git revision
RUN/log.jsonl                   one JSON record a line, in the order in which things happened
RUN/epochs.csv, tensorboard/    the curves of its networks (`divkd.shared.track`)
RUN/checkpoints/*.safetensors   one file a network: weights, the optimiser's state, how far it is
RUN/jobs/*.json                 one record a finished job, of which the results are made
RUN/.lock                       who writes into it
RUN/results.json                written last: a run that has it is finished
RUN/profile.json                of `train --profile`: where the time went
RUN/samples.csv                 of an evaluation: one line a sample
RUN/sweep.csv                   of a sweep, whose cells are runs in folders of their own: one line a cell, network, seed
RUN/figures/*.png
"""

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from divkd import __version__
from divkd.shared.errors import InputError
from divkd.shared.files import append, plain, read_json, write_bytes, write_json
from divkd.shared.lock import Lock
from divkd.shared.machine import launched
from divkd.shared.track import Curves

# What a run writes and --overwrite deletes; config.json makes a folder a run, so it goes last.
OWN = (
    "results.json",
    "samples.csv",
    "profile.json",
    "sweep.csv",
    "log.jsonl",
    "epochs.csv",
    "tensorboard/*/events.*",
    "checkpoints/*.safetensors",
    "jobs/*",
    "figures/*.png",
    "figures/*.svg",
    "config.json",
)
LOCK = ".lock"
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "numba", "scikit-learn", "safetensors")


class Run:
    """An open run directory. Open one with `open_run`."""

    def __init__(self, path: Path) -> None:
        self.path, self.figures, self.checkpoints = path, path / "figures", path / "checkpoints"
        self.jobs = path / "jobs"
        self.lock: Lock | None = None
        self.curves = Curves(path)

    def log(self, **record: Any) -> None:
        """Append one record to log.jsonl, stamped with the time in seconds since the epoch."""
        record = plain({"time": round(time.time(), 3), **record})
        append(self.path / "log.jsonl", json.dumps(record, allow_nan=False))
        self.curves.add(record)

    def save(self, name: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
        """Write one network's arrays and metadata to checkpoints/`name`.safetensors, whole or not at all."""
        content = {key: np.asarray(value, order="C") for key, value in arrays.items()}
        header = {"divkd": json.dumps(plain(metadata), allow_nan=False)}
        write_bytes(self.checkpoint(name), save(content, metadata=header))

    def load(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Read a checkpoint back, or None where there is none. Nothing is unpickled.

        Raises `InputError` where the file is damaged.
        """
        path = self.checkpoint(name)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="np") as file:
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
                header = dict(json.loads((file.metadata() or {})["divkd"]))
        except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
            raise self.damaged(name, str(error)) from error
        return arrays, header

    def checkpoint(self, name: str) -> Path:
        """Where checkpoint `name` lies."""
        return self.checkpoints / f"{name}.safetensors"

    def digest(self, name: str) -> str:
        """The SHA-256 of checkpoint `name`."""
        with open(self.checkpoint(name), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def damaged(self, name: str, why: str) -> InputError:
        """The error for a checkpoint that is not what the run would have written."""
        return InputError(f"{self.checkpoint(name)} is damaged ({why}); delete it and --resume trains it again")

    def keep(self, job: str, record: Mapping[str, Any]) -> None:
        """Write the record of a finished job."""
        write_json(self.jobs / f"{job}.json", record)

    def kept(self, job: str) -> dict[str, Any] | None:
        """The record of a job, None where it is not finished; raises `InputError` where the file is damaged."""
        path = self.jobs / f"{job}.json"
        if not path.exists():
            return None
        try:
            content = dict(json.loads(path.read_text(encoding="utf-8")))
            return (
                content if isinstance(content["record"], dict) and isinstance(content["sha256"], dict) else content[""]
            )
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(f"{path} is damaged ({error}); delete it and --resume makes it again") from error

    def report(self, job: str) -> Path:
        """Where another process says how far `job` is."""
        return self.jobs / f"{job}.progress"

    def hold(self, job: str) -> AbstractContextManager[Any]:
        """Have `job` alone, once every other process has left it: one whose parent was killed may be at it still."""
        self.jobs.mkdir(exist_ok=True)
        return Lock(self.jobs / f"{job}.lock", wait=True)

    def close(self) -> None:
        """Let other processes write into it."""
        if self.lock is not None:
            self.lock.__exit__()

    def finish(self, results: Mapping[str, Any]) -> None:
        """Write results.json, which marks the run as finished."""
        for file in (*self.jobs.glob("*.lock"), *self.jobs.glob("*.progress")):
            file.unlink()
        write_json(self.path / "results.json", results)


def open_run(
    path: Path,
    command: str,
    config: Mapping[str, Any],
    *,
    resume: bool = False,
    overwrite: bool = False,
    extendable: Iterable[str] = (),
    data: Mapping[str, Any] | None = None,
) -> Run:
    """Create the run directory `path`, or go on with the one that is there.

    With `resume`, the configuration must be the one that the directory holds, except for the fields in `extendable`
    (seeds, members: what is missing is then trained), which may grow, and `data` (what is known of the data that the
    run learns from; config.json keeps it) must have the same "sha256" and "weights_sha256". With `overwrite`, the files
    that a run writes are deleted, and nothing else. Call it last, when every other input has been checked: a refusal
    leaves the directory as it was.

    Raises `InputError` where `path` holds a run and neither flag is given, holds other files, holds a run of another
    command or configuration, holds none with `resume`, or cannot be created.
    """
    run = Run(path)
    try:
        known = check_run(path, command, config, resume=resume, overwrite=overwrite, extendable=extendable, data=data)
        path.mkdir(parents=True, exist_ok=True)
        run.lock = Lock(path / LOCK).__enter__()
        if overwrite:
            delete(path)
        write_json(path / "config.json", {**known, **environment(known["config"])})
        for folder in (run.checkpoints, run.figures, run.jobs):
            folder.mkdir(exist_ok=True)
        for log in (path / "log.jsonl", path / "epochs.csv"):
            if log.exists() and not (content := log.read_bytes()).endswith(b"\n"):  # half a line, of a full disk
                write_bytes(log, content[: content.rfind(b"\n") + 1])
    except OSError as error:
        why = f"cannot be written ({error.strerror}); give a folder that you can write to"
        raise InputError(f"--out {path} {why}") from error
    return run


def check_run(
    path: Path,
    command: str,
    config: Mapping[str, Any],
    *,
    resume: bool = False,
    overwrite: bool = False,
    extendable: Iterable[str] = (),
    data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What config.json is going to say was asked; raises the `InputError` of `open_run`, and touches nothing."""
    if resume and overwrite:
        raise InputError("--resume goes on with a run and --overwrite deletes it; give one of the two")
    known = {"command": command, "config": plain(config)} | ({} if data is None else {"data": data})
    old = _existing(path)
    if old and not (resume or overwrite):
        state = "a finished run" if (path / "results.json").exists() else "an unfinished run"
        raise InputError(
            f"--out {path} holds {state}; --resume goes on with it, --overwrite deletes it, or give another folder"
        )
    if resume and not old:
        raise InputError(
            f"--resume: --out {path} holds no run; leave --resume out to start one, or give a run's folder"
        )
    if resume:
        _check_same(path, old, known, set(extendable))
    return known


def delete(path: Path) -> None:
    """Delete what a run wrote into `path`, and nothing else."""
    for lock in path.glob("jobs/*.lock"):  # a cluster may be at a job still for a command that has ended
        Lock(lock).__enter__().__exit__()
    for file in [file for pattern in OWN for file in path.glob(pattern)]:
        file.unlink()
    for folder in (*path.glob("tensorboard/*"), path / "tensorboard"):
        with suppress(OSError):  # it is not there, or holds what is not the run's
            folder.rmdir()


def _existing(path: Path) -> dict[str, Any]:
    """The config.json of the run in `path`, {} where there is nothing; raises `InputError` where there is no run."""
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file; give a folder")
    # A .part file is what a kill left of a write that never happened.
    if not path.exists() or all(entry.suffix == ".part" or entry.name == LOCK for entry in path.iterdir()):
        return {}
    found = read_json(path / "config.json") if (path / "config.json").exists() else None
    if not isinstance(found, dict) or not all(isinstance(found.get(key), dict) for key in ("config", "versions")):
        raise InputError(f"--out {path} holds files that are no run of divkd; give an empty or a new folder")
    return found


def _check_same(path: Path, found: Mapping[str, Any], known: Mapping[str, Any], extendable: set[str]) -> None:
    """Raise `InputError` unless the run `found` in `path` goes on as `known`: command, configuration and data."""
    old, config, data = found["config"], known["config"], known.get("data")
    if found.get("command") != known["command"]:
        raise InputError(
            f"--out {path} holds a run of '{found.get('command')}', not of '{known['command']}'; give its own"
        )
    for key in sorted((set(config) | set(old)) - extendable):
        name, was, now = _difference(key, old.get(key), config.get(key))
        if was != now:
            again = f"go on with --config {path / 'config.json'} and no other values"
            # the commands that have a --config
            raise _changed(path, name, was, now, again if "seeds" in old else "give the first again")
    held = found["data"] if isinstance(found.get("data"), dict) else {}
    for key, what in (("sha256", f"images of {(data or {}).get('name')}"), ("weights_sha256", "weights of --weights")):
        if data is not None and held.get(key) != data.get(key):
            raise InputError(
                f"--resume: the {what} are not those that {path} was started with; restore them, or give another --out"
            )
    for key in extendable:
        was, now = old.get(key), config.get(key)
        shorter = isinstance(was, list) and isinstance(now, list) and any(value not in now for value in was)
        if shorter or (isinstance(was, int) and isinstance(now, int) and now < was):
            raise _changed(path, key, was, now, "name all that the run has (and more)")


def _changed(path: Path, key: str, was: Any, now: Any, mend: str) -> InputError:
    return InputError(f"--resume: {key} was {was!r} in {path} and is {now!r} now; {mend}, or give another --out")


def _difference(name: str, was: Any, now: Any) -> tuple[str, Any, Any]:
    """The first value that differs within the field `name`, named as in teacher.epochs."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted({*was, *now}):
            if was.get(key) != now.get(key):
                return _difference(f"{name}.{key}", was.get(key), now.get(key))
    return name, was, now


def environment(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a result depends on beside its configuration: versions, device, threads, source revision."""
    versions = {"divkd": __version__, "python": platform.python_version()}
    versions |= {package: metadata.version(package) for package in PACKAGES}
    return {
        "seeds": config.get("seeds"),
        "versions": versions,
        "device": device_name(str(config.get("device", "cpu"))),
        "cores": os.cpu_count(),
        "processes": launched()[1],  # that trained each network together: BatchNorm's statistics are of one's rows
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),  # the bits of a sum depend on the number of threads
        "git_revision": git_revision(),
    }


def device_name(device: str) -> str:
    """The hardware behind `device`, in words."""
    if device.startswith("cuda"):
        import torch

        return f"{device}: {torch.cuda.get_device_name(device)}"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return f"{device}: {names[0] if names else platform.machine()}"


def git_revision() -> str | None:
    """The commit of the source tree that runs, with `+changes` where files differ; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    describe = ["git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+changes"]
    try:
        return subprocess.run(describe, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
