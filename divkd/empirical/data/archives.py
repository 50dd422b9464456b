"""Published archives, unpacked whole or not at all; nothing that they say of names, kinds or sizes is trusted."""

import hashlib
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from divkd.shared.errors import InputError

LIMIT = 2**30  # bytes unpacked, several times what any data set here holds
OVERHEAD = 512  # what an entry counts beside its content, so that a million empty files are bounded too


@dataclass(frozen=True)
class _Entry:
    name: str
    size: int
    folder: bool
    regular: bool
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path, md5: str, limit: int = LIMIT) -> None:
    """Unpack `archive` (.tar.gz or .zip, with one top folder named as `folder`) so that `folder` appears, complete.

    Only plain files and folders are written, by this function's own `open`, below a temporary folder that takes its
    name at the end. Raises `InputError` where the md5 sum is not `md5`, an entry is a link or a device, leads outside
    the archive's folder or stands there twice, the content is damaged or more than `limit` bytes, or the disk refuses.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        check_md5(archive, md5)
        written = 0
        temporary.mkdir(parents=True)
        for entry in _zip(archive) if archive.suffix == ".zip" else _tar(archive):
            parts = re.split(r"[/\\]", entry.name.rstrip("/"))
            # A name with an empty part is absolute; a colon is a drive of Windows.
            if {"", ".."} & set(parts) or ":" in entry.name or not (entry.folder or entry.regular):
                raise InputError(
                    f"{archive} holds {entry.name!r}, which is a link, a device or leads outside; fetch it again"
                )
            written += entry.size + OVERHEAD
            if written > limit:
                raise InputError(f"{archive} holds more than {limit} bytes, the most that is unpacked; fetch it again")
            target = temporary.joinpath(*parts)
            if entry.folder:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            source = entry.open()
            assert source is not None
            with source, open(target, "xb") as file:
                shutil.copyfileobj(source, file, 2**20)
        if not (temporary / folder.name).is_dir():
            raise InputError(f"{archive} holds no {folder.name}/; fetch it again")
        os.replace(temporary / folder.name, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive} is damaged ({error}); fetch it again") from error
    except OSError as error:
        if not folder.is_dir():  # where it is there, another process was faster
            raise InputError(
                f"{archive} cannot be unpacked ({error.strerror or error}); make room, or unpack it yourself"
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_md5(file: Path, md5: str) -> None:
    """Raise `InputError` unless the md5 sum of `file` is `md5`."""
    with open(file, "rb") as content:
        found = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise InputError(f"{file} has the md5 sum {found}, and {md5} is published; fetch it again")


def _tar(archive: Path) -> Iterator[_Entry]:
    with tarfile.open(archive, "r:gz") as content:
        for member in content:
            extract = partial(content.extractfile, member)
            yield _Entry(member.name, member.size, member.isdir(), member.isreg(), extract)


def _zip(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as content:
        for info in content.infolist():
            # No kind at all is what archives made on Windows have.
            regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
            yield _Entry(info.filename, info.file_size, info.is_dir(), regular, partial(content.open, info))
