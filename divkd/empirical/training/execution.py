"""How training is carried out on this machine: precision, compilation, and memory that is kept between steps."""

import ctypes
import functools
import os
import shutil
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from divkd.empirical.training.config import NetworksConfig
from divkd.shared.errors import InputError

Asked = TypeVar("Asked", bound=NetworksConfig)
TRIM, MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h


def decided(config: Asked, *, asked: bool = True) -> Asked:
    """`config` with "auto" replaced by what this machine does, so that config.json holds it and a resumed run does too.

    precision    bfloat16 where it is faster here, else float32
    compile      off: no compiled step was measured to earn its compilation (docs/performance.md)

    A function of the configuration and the machine's make: nothing is timed. Raises `InputError` where what is asked
    for cannot be had here; a bfloat16 that nobody `asked` for, but a preset names, is float32 then.
    """
    if config.precision == "bfloat16" and not has_bfloat16(config.device):
        if asked:
            without = f"precision bfloat16 is slow on {config.device} here, whose instructions lack it"
            raise InputError(f"{without}; give --precision float32 or auto")
        config = replace(config, precision="float32")
    if config.compile == "on" and config.device == "cpu" and not has_compiler():
        raise InputError("--compile on needs a C++ compiler and Python's headers, which are not here; give off or auto")
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if gains_by_bfloat16(config.device) else "float32"
    return replace(config, precision=precision, compile="off" if config.compile == "auto" else config.compile)


def has_bfloat16(device: str) -> bool:
    """Whether the hardware multiplies in bfloat16; what cannot be found out counts as no."""
    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(_processor())  # the last on ARM


def gains_by_bfloat16(device: str) -> bool:
    """Whether `auto` takes bfloat16: on CUDA where the device multiplies in it, of processors on AMD's alone.

    An Intel Xeon with avx512_bf16 and without AMX lost by it (docs/performance.md); others were not measured.
    """
    return has_bfloat16(device) and (device != "cpu" or "AuthenticAMD" in _processor())


def _processor() -> list[str]:
    """What Linux says of the processors, in words; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text("utf-8").split()
    except OSError:
        return []


def has_compiler() -> bool:
    """Whether torch.compile can make code for the CPU."""
    named = [os.environ.get("CXX") or "c++", "g++", "clang++"]
    return any(map(shutil.which, named)) and Path(sysconfig.get_path("include"), "Python.h").exists()


@functools.cache
def keep_freed() -> None:
    """Have glibc keep what a step frees for the next, up to 2 GB, instead of giving it back and clearing it anew.

    A step of ResNet-8 faulted in 8,000 pages, a tenth of its time (docs/performance.md).
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(TRIM, 2**31 - 1)
        libc.mallopt(MMAP, 2**25)  # the most that it takes: larger blocks still come and go
