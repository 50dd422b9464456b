"""A run directory: what was asked, what happened, what came out, and enough to go on after a kill.

RUN/config.json                 the resolved configuration, versions, device, git revision
RUN/log.jsonl                   one JSON record a line, in the order in which things happened
RUN/epochs.csv, tensorboard/    the curves of its networks (`divkd.shared.track`)
RUN/checkpoints/*.safetensors   one file a network: weights, the optimiser's state, how far it is
RUN/jobs/*.json                 one record a finished job, of which the results are made
RUN/manifest.jsonl              what it wrote: --overwrite deletes nothing else (`divkd.shared.manifest`)
RUN/.lock                       who writes into it
RUN/results.json                written last: a run that has it is finished
RUN/profile.json                of `train --profile`: where the time went
RUN/samples.csv                 of an evaluation: one line a sample
RUN/sweep.csv                   of a sweep, whose cells are runs in folders of their own: one line a cell, network, seed
RUN/figures/*.png

JSON files and checkpoints are sealed (`divkd.shared.files`): a bit that is flipped is found where they are read.
"""

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from divkd import __version__
from divkd.shared.errors import InputError, RunError
from divkd.shared.files import ZEROS, append, intact, plain, read_json, sealed, write_bytes, write_json
from divkd.shared.lock import Lock
from divkd.shared.machine import launched
from divkd.shared.manifest import LOCK, Manifest, begun, check_same, existing
from divkd.shared.track import Curves

HEAD, LENGTH = b'{"__metadata__":{"divkd":"{\\"digest\\": \\"', 8  # how a checkpoint begins, behind its header's length
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "numba", "scikit-learn", "safetensors")


class Run:
    """An open run directory. Open one with `open_run`."""

    def __init__(self, path: Path) -> None:
        self.path, self.figures, self.checkpoints = path, path / "figures", path / "checkpoints"
        self.jobs = path / "jobs"
        self.lock: Lock | None = None
        self.curves = Curves(path)
        self.manifest = Manifest(path)
        self.left: list[str] = []  # by --overwrite: what is not the run's

    def log(self, **record: Any) -> None:
        """Append one record to log.jsonl, stamped with the time in seconds since the epoch."""
        record = plain({"time": round(time.time(), 3), **record})
        self.manifest.add("log.jsonl")
        append(self.path / "log.jsonl", json.dumps(record, allow_nan=False))
        if "network" in record:
            self.manifest.add("epochs.csv")
            if self.curves.events.is_dir():
                self.manifest.add(f"tensorboard/{record['network']}/events.*")
        self.curves.add(record)

    def write(self, name: str, content: bytes | Mapping[str, Any]) -> None:
        """Write a file of the run, bytes or JSON, whole or not at all."""
        self.manifest.add(name)
        if isinstance(content, bytes):
            write_bytes(self.path / name, content, parents=False)
        else:
            write_json(self.path / name, content, parents=False)

    def save(self, name: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
        """Write one network's arrays and metadata to checkpoints/`name`.safetensors, whole or not at all.

        What was saved before stays beside it, until it is `settled`: a damaged one costs an epoch, not all of them.
        """
        path, previous = self.checkpoint(name), self.previous(name)
        content = {key: np.asarray(value, order="C") for key, value in arrays.items()}
        header = {"divkd": json.dumps({"digest": ZEROS.decode(), **plain(metadata)}, allow_nan=False)}
        self.manifest.add(f"checkpoints/{path.name}")
        if path.exists():
            previous.unlink(missing_ok=True)  # two are enough for a disk
        write_bytes(path, sealed(save(content, metadata=header), HEAD), previous, parents=False)

    def settled(self, name: str) -> None:
        """Say that checkpoint `name` is finished."""
        self.previous(name).unlink(missing_ok=True)

    def load(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Read a checkpoint back, or None where there is none. Nothing is unpickled.

        Raises `InputError` where the file is damaged or cannot be read.
        """
        path = self.checkpoint(name)
        if not path.exists():
            return None
        try:
            whole = intact(path, HEAD, LENGTH)
            with safe_open(path, framework="np") as file:
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
                header = dict(json.loads((file.metadata() or {})["divkd"]))
            if whole is False or ("digest" in header and not whole):
                raise ValueError("it is not what divkd wrote")
            header.pop("digest", None)
        except PermissionError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; make it readable") from error
        except (SafetensorError, KeyError, ValueError, TypeError, OSError, RecursionError) as error:
            raise self.damaged(name, str(error)) from error
        return arrays, header

    def resumed(self, name: str, say: Callable[[str], None]) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """As `load`, but where the checkpoint is damaged or gone, the one before it; what it found is said."""
        found, why = None, None
        try:
            found = self.load(name)
        except InputError as error:
            why = error.__cause__
        if found is None:
            self.step_back(name)
            with suppress(InputError):
                found = self.load(name)
        if why:
            then = f"it goes on from epoch {found[1].get('epoch')}" if found else "it is trained again"
            say(f"{self.checkpoint(name)} is damaged ({why}) and set aside; {then}")
        return found

    def checkpoint(self, name: str) -> Path:
        """Where checkpoint `name` lies."""
        return self.checkpoints / f"{name}.safetensors"

    def previous(self, name: str) -> Path:
        """Where the one before it lies."""
        return self.checkpoints / f"{name}.safetensors.previous"

    def step_back(self, name: str) -> None:
        """Set checkpoint `name` aside, where it is there, and put the one before it in its place."""
        path = self.checkpoint(name)
        for old, new in ((path, self.checkpoints / f"{path.name}.damaged"), (self.previous(name), path)):
            with suppress(FileNotFoundError):
                old.replace(new)

    def digest(self, name: str) -> str:
        """The SHA-256 of checkpoint `name`."""
        with open(self.checkpoint(name), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def damaged(self, name: str, why: str) -> InputError:
        """The error for a checkpoint that is not what the run would have written."""
        return InputError(f"{self.checkpoint(name)} is damaged ({why}); --resume of its run trains it again")

    def misfit(self, name: str, why: str) -> InputError:
        """The error for a checkpoint that may well be whole, and is not the one that config.json describes."""
        files = f"{self.checkpoint(name)} and {self.path / 'config.json'}"
        return InputError(f"{files} do not belong together ({why}); restore the one that was changed")

    def keep(self, job: str, record: Mapping[str, Any]) -> None:
        """Write the record of a finished job."""
        self.write(f"jobs/{job}.json", record)

    def kept(self, job: str) -> dict[str, Any] | None:
        """The record of a job, None where it is not finished; raises `InputError` where the file is damaged."""
        path = self.jobs / f"{job}.json"
        if not path.exists():
            return None
        content: dict[str, Any] = read_json(path, old=False)
        return content

    def report(self, job: str) -> Path:
        """Where another process says how far `job` is."""
        return self.jobs / f"{job}.progress"

    def hold(self, job: str) -> AbstractContextManager[Any]:
        """Have `job` alone, once every other process has left it: one whose parent was killed may be at it still."""
        self.manifest.add(f"jobs/{job}.json")
        self.jobs.mkdir(exist_ok=True)
        return Lock(self.jobs / f"{job}.lock", wait=True)

    def close(self) -> None:
        """Let other processes write into it."""
        if self.lock is not None:
            self.lock.__exit__()

    def finish(self, results: Mapping[str, Any]) -> None:
        """Write results.json, which marks the run as finished."""
        for name in self.manifest.files():
            if name.endswith((".lock", ".progress", ".part", ".previous")):
                (self.path / name).unlink(missing_ok=True)
        self.write("results.json", results)


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
    that the run wrote are deleted, and nothing else (`Run.left`). Call it last, when every other input has been
    checked: a refusal leaves the directory as it was.

    Raises `InputError` where `path` holds a run and neither flag is given, holds other files, holds a run of another
    command or configuration, holds none with `resume`, or cannot be created.
    """
    run = Run(path)
    try:
        known = check_run(path, command, config, resume=resume, overwrite=overwrite, extendable=extendable, data=data)
        path.mkdir(parents=True, exist_ok=True)
        run.lock = Lock(path / LOCK).__enter__()
        if overwrite or existing(path).get("overwrites"):
            run.left = run.manifest.delete(known)
        run.manifest.renew(known)
        run.write("config.json", {**known, **environment(known["config"])})
        for folder in (run.checkpoints, run.figures, run.jobs):
            folder.mkdir(exist_ok=True)
        for log in (path / "log.jsonl", path / "epochs.csv"):
            if log.exists() and not (content := log.read_bytes()).endswith(b"\n"):  # half a line, of a full disk
                write_bytes(log, content[: content.rfind(b"\n") + 1])
    except OSError as error:
        run.close()
        why = f"--out {path} cannot be written ({error.strerror})"
        if run.lock is None or not run.manifest.file.exists():
            raise InputError(f"{why}; give a folder that you can write to") from error
        instead = " instead of --overwrite" if overwrite else ""
        raise RunError(
            f"{why}; mend that, then the same command with --resume --out {path}{instead} goes on"
        ) from error
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
    known = {"command": command, "config": plain(config)} | ({} if data is None else {"data": plain(data)})
    old = existing(path)
    if old and not (resume or overwrite):
        state = "a finished run" if (path / "results.json").exists() else "an unfinished run"
        raise InputError(
            f"--out {path} holds {state}; --resume goes on with it, --overwrite deletes it, or give another folder"
        )
    if overwrite and old:
        if old.get("command") != command:
            raise InputError(f"--out {path} holds a run of '{old.get('command')}', which '{command}' does not delete")
        Manifest(path).check_links()
        Manifest(path).check_unnamed()
    if resume and not old and not begun(path):
        raise InputError(
            f"--resume: --out {path} holds no run; leave --resume out to start one, or give a run's folder"
        )
    if resume and old:
        check_same(path, old, known, set(extendable))
    return known


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
