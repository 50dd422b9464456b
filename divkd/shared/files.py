"""Files that are written whole or not at all, and JSON that any parser reads."""

import fcntl
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from divkd.shared.errors import InputError


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` through a temporary file in the same folder, synced to disk, then renamed over it.

    A kill at any moment leaves the old file or the new one. Raises OSError where the disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def writable(path: Path) -> bool:
    """Whether a file may be written to `path`, with the folders that it lacks; nothing is touched."""
    try:
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        return existing.is_dir() and os.access(existing, os.W_OK) and not path.is_dir()
    except OSError:  # a name that is too long
        return False


def append(path: Path, line: str, head: str | None = None) -> None:
    """Append `line`, after the `head` of a new file, in one write and while no other process does.

    Lines stay whole whoever is killed, on a network's file system too.
    """
    with open(path, "ab", buffering=0) as file:
        fcntl.lockf(file, fcntl.LOCK_EX)  # which on NFS also shows what others have appended
        lines = (line,) if head is None or os.fstat(file.fileno()).st_size else (head, line)
        file.write("".join(f"{one}\n" for one in lines).encode())


def plain(value: Any) -> Any:
    """`value` as JSON's own types: arrays become lists, infinities and NaN become null (JSON has neither)."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's arrays and numbers, without importing numpy for ``--help``
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_bytes(path, (json.dumps(plain(value), indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file; raises `InputError` where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give the path of an existing file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); restore it or run again with --overwrite") from error
