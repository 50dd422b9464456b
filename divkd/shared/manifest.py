"""What a run was asked and what it wrote: by this --overwrite deletes its files alone, and config.json can be mended.

RUN/manifest.jsonl    {"run": {command, config, data}, "sha256": of it}, the last of which counts, and {"file": name},
                      one line a file, added before the file is written

A run from before there were manifests is known by what it cannot but have written: files of fixed names at its top,
checkpoints with divkd's header and records of jobs. Its figures stay, until the new ones replace them.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from divkd.shared.errors import InputError
from divkd.shared.files import append, read_json, write_bytes
from divkd.shared.lock import Lock

MANIFEST, LOCK = "manifest.jsonl", ".lock"
TOP = ("results.json", "samples.csv", "profile.json", "sweep.csv", "log.jsonl", "epochs.csv", "config.json")
TAKEN = ("results.json", "log.jsonl", "epochs.csv")  # what a run goes on with, beside its checkpoints and records
FOLDERS = ("checkpoints", "figures", "jobs", "tensorboard")
# What a manifest may name at most, whoever wrote it: nothing else is ever deleted.
OWN = (*TOP, "checkpoints/*.safetensors", "jobs/*.json", "figures/*.png", "figures/*.svg", "tensorboard/*/events.*")


class Manifest:
    """The manifest of the run in `path`, there or not."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path / MANIFEST
        self.known: set[str] = set()

    def lines(self) -> Iterator[dict[str, Any]]:
        """What it holds; a line that is damaged is passed over."""
        with suppress(OSError):
            for line in self.file.read_bytes().splitlines():
                with suppress(ValueError, RecursionError):
                    if isinstance(content := json.loads(line), dict):
                        yield content

    def asked(self) -> dict[str, Any]:
        """What was asked last, {} where that is not known."""
        found: dict[str, Any] = {}
        for line in self.lines():
            if isinstance(line.get("run"), dict) and line.get("sha256") == _sum(line["run"]):
                found = line["run"]
        return found

    def add(self, name: str) -> None:
        """Take down that the run writes the file `name`, relative to its folder, if it is not there."""
        if name not in self.known:
            self.known |= {str(line.get("file")) for line in self.lines()}
            if name not in self.known:
                append(self.file, json.dumps({"file": name}))
            self.known.add(name)

    def files(self) -> list[str]:
        """What the run wrote and is there, with what a kill left of it, and what is beside the record of a job.

        results.json comes first, so that what is left never counts as finished.
        """
        names = {str(line.get("file")) for line in self.lines()}
        if not self.file.exists():
            names = {*TOP, *_known_by_content(self.path)}
        found = []
        for folder in (".", "checkpoints", "figures", "jobs", *map(self._name, self.path.glob("tensorboard/*"))):
            there = self.path / folder
            for entry in sorted(there.iterdir()) if there.is_dir() else ():
                name, of = self._name(entry), self._name(entry.with_name(_written_as(entry.name, folder)))
                if (
                    of in names
                    and any(_fits(of, pattern) for pattern in OWN)
                    and (entry.is_symlink() or entry.is_file())
                ):
                    found.append(name)
        return sorted(found, key=lambda name: name != "results.json")

    def _name(self, entry: Path) -> str:
        return entry.relative_to(self.path).as_posix()

    def check_links(self) -> None:
        """Raise `InputError` where a file of the run is a link or lies behind one: nothing is deleted through it."""
        for name in self.files():
            for one in (name, *map(str, PurePosixPath(name).parents)):
                if one != "." and (self.path / one).is_symlink():
                    raise InputError(
                        f"--out {self.path}: {one} is a link, and --overwrite deletes nothing behind one; "
                        "take the link away, or give another --out"
                    )

    def check_unnamed(self) -> None:
        """Raise `InputError` where it does not name what a new run would take for its own, as where it was damaged."""
        there = [name for name in TAKEN if (self.path / name).exists()]
        if unnamed := sorted({*there, *_known_by_content(self.path)}.difference(self.files())):
            raise InputError(
                f"--out {self.path}: its {MANIFEST} does not name {named(unnamed)}, which --overwrite therefore leaves "
                "and a new run would take for its own; move what is not named away, or give another --out"
            )

    def delete(self, known: Mapping[str, Any]) -> list[str]:
        """Delete what the run wrote, for the run that is `known` now; the names of what is left.

        The manifest stays, and says of who is killed here what it was going to be.
        """
        self.check_links()
        for name in self.files():
            if name.endswith(".lock"):  # a cluster may be at a job still for a command that has ended
                Lock(self.path / name).__enter__().__exit__()
        self.renew({**known, "overwrites": True})
        for name in self.files():
            (self.path / name).unlink(missing_ok=True)
        for folder in (*self.path.glob("tensorboard/*"), self.path / "tensorboard"):
            with suppress(OSError):  # it is not there, or holds what is not the run's
                folder.rmdir()
        write_bytes(self.file, f"{_line(known)}\n".encode())
        self.known = set()
        return self.others()

    def renew(self, known: Mapping[str, Any]) -> None:
        """Begin a manifest, or go on with one; of a run from before there were any, with the files that are known."""
        if self.file.exists():
            content = self.file.read_bytes()
            if not content.endswith(b"\n"):  # half a line, of a kill
                write_bytes(self.file, content[: content.rfind(b"\n") + 1])
        else:
            lines = [json.dumps({"file": name}) + "\n" for name in self.files()]
            write_bytes(self.file, "".join(lines).encode())
        if self.asked() != known:
            append(self.file, _line(known))

    def others(self) -> list[str]:
        """What lies in the folder beside the run's own, but for runs in folders of theirs."""
        found, own = [], {*self.files()}
        for entry in sorted(self.path.iterdir()):
            if entry.name in FOLDERS and entry.is_dir() and not entry.is_symlink():
                found += [self._name(file) for file in sorted(entry.rglob("*")) if not file.is_dir()]
            elif not _of_no_account(entry) and not (entry / "config.json").exists():
                found.append(entry.name)
        return [name for name in found if name not in own]


def existing(path: Path) -> dict[str, Any]:
    """What was asked of the run in `path`, {} where there is none; raises `InputError` where something else is there.

    Where config.json is gone or damaged, the manifest knows; a run that was killed while it deleted another is what it
    was going to be, with ``overwrites``.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file; give a folder")
    if not path.exists():
        return {}
    asked, file = Manifest(path).asked(), path / "config.json"
    if asked.get("overwrites"):
        return asked
    try:
        found = read_json(file, _mend(path)) if file.exists() else None
    except InputError:
        if not asked:
            raise
        return asked
    if isinstance(found, dict) and all(isinstance(found.get(key), dict) for key in ("config", "versions")):
        return found
    if asked:
        return asked
    entries = [entry for entry in path.iterdir() if not _of_no_account(entry)]
    if all(entry.is_dir() and entry.name in FOLDERS for entry in entries) and not list(_known_by_content(path)):
        return {}  # killed before anything was written
    raise InputError(f"--out {path} holds files that are no run of divkd; give an empty or a new folder")


def read_config(path: Path) -> dict[str, Any]:
    """The config.json of the run in `path`; raises `InputError` where it lacks a command or a configuration."""
    found = read_json(path / "config.json", _mend(path))
    if not isinstance(found, dict) or not isinstance(found.get("command"), str):
        raise bad_config(path, "no command")
    if not isinstance(found.get("config"), dict):
        raise bad_config(path, f"config is {found.get('config')!r:.60}")
    return found


def bad_config(path: Path, why: str) -> InputError:
    """The error for a config.json with something in it that no run has."""
    return InputError(f"{path / 'config.json'} is damaged ({why}); {_mend(path)}")


def _mend(path: Path) -> str:
    """What writes the config.json in `path` anew, which costs nothing else."""
    asked = Manifest(path).asked()
    if not asked:
        return "restore it"
    named = isinstance(asked.get("config"), dict) and "seeds" in asked["config"]  # the commands that have a --config
    again = f"divkd {asked.get('command')} --config {path / MANIFEST}" if named else "the same command"
    return f"delete it, and {again} --resume --out {path} writes it anew"


def read_results(path: Path) -> Any:
    """The results.json in `path`; raises `InputError` where it is damaged."""
    return read_json(path / "results.json", f"the command that made it, with --resume --out {path}, writes it anew")


def begun(path: Path) -> bool:
    """Whether a run began to write in `path`, and was killed before anything can be known of it."""
    return path.is_dir() and any(_of_no_account(entry) for entry in path.iterdir())


def named(names: list[str]) -> str:
    """Some names in words."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def check_same(path: Path, found: Mapping[str, Any], known: Mapping[str, Any], extendable: set[str]) -> None:
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


def _of_no_account(entry: Path) -> bool:
    """Whether a file says nothing of a run: a lock, half a write, a manifest."""
    return entry.name in (LOCK, MANIFEST) or entry.suffix == ".part"


def _fits(name: str, pattern: str) -> bool:
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _sum(known: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _line(known: Mapping[str, Any]) -> str:
    return json.dumps({"run": known, "sha256": _sum(known)})


def _written_as(name: str, folder: str) -> str:
    """The file whose writing leaves `name` too."""
    if half := re.fullmatch(r"\.(.+)\.\d+\.part", name):
        return half[1]
    if folder == "jobs":
        return re.sub(r"\.(lock|progress|part)$", ".json", name)
    if folder.startswith("tensorboard/"):
        return "events.*" if name.startswith("events.") else name
    return re.sub(r"\.(previous|damaged)$", "", name)


def _known_by_content(path: Path) -> Iterator[str]:
    """Checkpoints and records of jobs in `path` that divkd wrote."""
    for file in path.glob("checkpoints/*.safetensors"):
        with suppress(OSError), open(file, "rb") as content:
            if b'"__metadata__":{"divkd":' in content.read(1000):
                yield f"checkpoints/{file.name}"
    for file in path.glob("jobs/*.json"):
        with suppress(InputError):
            content = read_json(file)
            if isinstance(content, dict) and set(content) == {"record", "sha256"}:
                yield f"jobs/{file.name}"
