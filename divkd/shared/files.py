"""Files that are written whole or not at all and know their own sum, and JSON that any parser reads.

A file that is sealed holds, behind a fixed beginning, the SHA-256 of its bytes with zeros in the sum's own place. One
that was written before there were seals has neither the beginning nor a sum in that place, and is read as it is.
"""

import base64
import errno
import fcntl
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from divkd.shared.errors import InputError

SEAL = b'{\n "digest": "'  # how a JSON file begins that is sealed
ZEROS = b"0" * 64
BLOCK = 1 << 20


def sealed(content: bytes, beginning: bytes) -> bytes:
    """`content`, which has `ZEROS` behind its `beginning`, with its sum in their place."""
    place = content.index(beginning + ZEROS) + len(beginning)
    return content[:place] + hashlib.sha256(content).hexdigest().encode() + content[place + 64 :]


def intact(path: Path, beginning: bytes, start: int = 0) -> bool | None:
    """Whether the file is as it was sealed, with its `beginning` at byte `start`; None where it never was."""
    place = start + len(beginning)
    with open(path, "rb") as file:
        head = file.read(place + 64)
        if head[start:place] != beginning and not re.fullmatch(b"[0-9a-f]{64}", head[place:]):
            return None
        digest = hashlib.sha256(head[:place] + ZEROS)
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest().encode() == head[place:]


def write_bytes(path: Path, content: bytes, previous: Path | None = None, *, parents: bool = True) -> None:
    """Write `content` to `path` through a temporary file in the same folder, synced to disk, then renamed over it.

    A kill at any moment leaves the old file or the new one, and the old one as `previous` where that is named. Makes
    the folders that it lacks, unless `parents` is False. Raises OSError where the disk refuses.
    """
    if parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # the first error counts
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
        size = os.fstat(file.fileno()).st_size
        lines = (line,) if head is None or size else (head, line)
        content = "".join(f"{one}\n" for one in lines).encode()
        try:
            if file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            os.ftruncate(file.fileno(), size)
            raise


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


def packed(array: Any) -> dict[str, Any]:
    """An array of bytes (uint8) as JSON holds it, {shape, base64}."""
    return {"shape": list(array.shape), "base64": base64.b64encode(array.tobytes()).decode()}


def unpacked(value: Mapping[str, Any]) -> Any:
    """The array that `packed` was given; raises ValueError where the bytes are not those of its shape."""
    import numpy as np  # here, as ``--help`` reads this module

    flat = np.frombuffer(base64.b64decode(value["base64"], validate=True), np.uint8)
    return flat.reshape(value["shape"])


def write_json(path: Path, value: Mapping[str, Any], *, parents: bool = True) -> None:
    """Write `value` as indented JSON, sealed, whole or not at all."""
    content = json.dumps({"digest": ZEROS.decode(), **plain(value)}, indent=1, allow_nan=False) + "\n"
    write_bytes(path, sealed(content.encode(), SEAL), parents=parents)


def read_json(path: Path, mend: str = "restore it", *, old: bool = True) -> Any:
    """Read a JSON file, without its seal; raises `InputError` where it is missing, damaged or not as it was sealed.

    One that never was is read where it may be `old`. `mend` is said of a damaged one.
    """
    try:
        whole = intact(path, SEAL)
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give the path of an existing file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: not valid JSON ({error}); {mend}") from error
    if not (whole or (whole is None and old and not (isinstance(value, dict) and "digest" in value))):
        own = 'where the change is your own, take out its first entry, "digest"'
        raise InputError(f"{path} is damaged: it is not what divkd wrote; {mend}; {own}")
    if whole:
        del value["digest"]
    return value
