"""One holder at a time: a file's lock, which the system takes back when its holder dies."""

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Self

from divkd.shared.errors import InputError


class Lock:
    """The lock of the file `path`, which names its holder: process, machine and time. Use it as a context manager.

    A POSIX record lock: it survives no process, is seen by every machine that shares the folder (NFS included), and a
    process may take what it holds already. Raises `InputError` where another process has it, unless it is to `wait`.
    """

    def __init__(self, path: Path, *, wait: bool = False) -> None:
        self.path, self.wait = path, wait
        self.file = -1

    def __enter__(self) -> Self:
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | (0 if self.wait else fcntl.LOCK_NB))
        except OSError as error:
            holder = os.read(self.file, 1000).decode(errors="replace")
            self.__exit__()
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise InputError(
                f"--out {self.path.parent} is in use by {_described(holder)}; wait until it ends, or give another"
            ) from error
        os.ftruncate(self.file, 0)
        who = {"process": os.getpid(), "machine": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.pwrite(self.file, json.dumps(who).encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    __del__ = __exit__


def _described(holder: str) -> str:
    try:
        who = json.loads(holder)
        return f"process {who['process']} on {who['machine']} since {who['since']}"
    except (ValueError, KeyError, TypeError):  # it is just being written
        return "another process"
