"""Published archives, unpacked whole or not at all once their md5 sum is right."""

import hashlib
import os
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path

from divkd.shared.errors import InputError


def unpack(archive: Path, folder: Path, md5: str) -> None:
    """Unpack `archive` (.tar.gz or .zip, with one top folder named as `folder`) so that `folder` appears, complete.

    It is unpacked beside `folder`, which takes its name at the end. Raises `InputError` where the md5 sum is not `md5`,
    the content is damaged or would be written elsewhere, or the disk refuses.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        with open(archive, "rb") as content:
            actual = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if actual != md5:
            raise InputError(f"{archive} has the md5 sum {actual}, and {md5} is published; fetch it again")
        temporary.mkdir(parents=True)
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(temporary)
        else:
            with tarfile.open(archive, "r:gz") as packed:
                packed.extractall(temporary, filter="data")
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
