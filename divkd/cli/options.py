"""Options that commands share, and how preset, --config and options become one configuration."""

import dataclasses
import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from divkd.shared.errors import InputError, unknown
from divkd.shared.files import read_json

Config = TypeVar("Config")
Command = Callable[..., Any]


def parse_seeds(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Whole numbers, comma-separated, ``0,1,2``, as a tuple."""
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError as error:
        raise InputError(f"--seeds {value!r} is not allowed; give whole numbers with commas, e.g. 0,1,2") from error


def common(presets: Mapping[str, Any]) -> Callable[[Command], Command]:
    """The options of every command that makes a run."""
    options = [
        click.option("--preset", metavar="|".join(presets), help="Where the values that you do not give come from."),
        click.option("--seeds", callback=parse_seeds, metavar="N,N,...", help="One whole experiment a seed: 0,1,2."),
        click.option("--members", type=int, metavar="M", help="Networks in the ensemble."),
        click.option("--device", metavar="cpu|cuda|cuda:N", help="Where to compute. [default: cpu, or cuda if there]"),
        click.option(
            "--config", type=click.Path(path_type=Path), metavar="FILE", help="Repeat a run: RUN/config.json."
        ),
        click.option(
            "--out", type=click.Path(path_type=Path), metavar="RUN", help="Run directory. [default: runs/...]"
        ),
        click.option(
            "--resume", is_flag=True, help="Go on with the run in --out; with more seeds (or members), add them."
        ),
        click.option("--overwrite", is_flag=True, help="Delete the run in --out first."),
    ]

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def parse_interval(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, float] | None:
    """Two numbers, ``low,high``, or one for both."""
    if value is None:
        return None
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise InputError(f"{param.opts[0]} {value!r} is not allowed; give low,high, e.g. 0.2,0.3")
    return numbers[0], numbers[-1]


def parameters(config: type) -> list[str]:
    """The fields of `config` that have a meaning in their metadata."""
    return [field.name for field in dataclasses.fields(config) if "meaning" in field.metadata]


def from_fields(config: type, without: Collection[str] = ()) -> Callable[[Command], Command]:
    """An option, --field-name, for every field with a meaning but those in `without`; its help is what it declares."""

    def decorate(command: Command) -> Command:
        names = [name for name in parameters(config) if name not in without]
        for field in reversed([field for field in dataclasses.fields(config) if field.name in names]):
            interval = isinstance(field.default, tuple)
            symbol = field.metadata["symbol"]
            shown = ",".join(f"{number:g}" for number in field.default) if interval else f"{field.default:g}"
            command = click.option(
                "--" + field.name.replace("_", "-"),
                type=str if interval else type(field.default),
                callback=parse_interval if interval else None,
                metavar="LOW,HIGH" if interval else "N" if isinstance(field.default, int) else "X",
                help=f"{symbol + ': ' if symbol else ''}{field.metadata['meaning']}. [default: {shown}]",
            )(command)
        return command

    return decorate


def resolve(
    presets: Mapping[str, Config],
    preset: str | None,
    file: Path | None,
    command: str,
    from_dict: Callable[[Mapping[str, Any]], Config],
    default: str,
    given: Mapping[str, Any],
) -> Config:
    """The configuration: the preset's values or the file's, then what was given (not None) on the command line."""
    if file is not None:
        if preset is not None:
            raise InputError("--preset and --config both give every value; give one of the two")
        content = read_json(file)
        if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
            raise InputError(f"--config {file} is no run's config.json; give the one in a run directory")
        if content.get("command") != command:
            raise InputError(
                f"--config {file} is of '{content.get('command')}', not of '{command}'; give one of its own"
            )
        base = from_dict(content["config"])
    else:
        name = preset or default
        if name not in presets:
            raise unknown("preset", name, presets)
        base = presets[name]
    values = {key: value for key, value in given.items() if value is not None}
    return dataclasses.replace(base, **values)  # type: ignore[type-var]


def check_device(device: str | None) -> str:
    """`device` if it is there; without one, the first GPU or else the CPU. Raises `InputError`."""
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()) or (kind == "cpu" and index):
        raise InputError(f"--device {device} is not allowed; give cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {device}: torch sees {torch.cuda.device_count()} GPUs here; give --device cpu")
    return device


def run_folder(out: Path | None, command: str, preset: str, resume: bool) -> Path:
    """`out`, or a fresh folder under runs/ named after the command, the preset and the time."""
    if out is None and resume:
        raise InputError("--resume needs --out: the folder of the run to go on with")
    name = re.sub(r"\W+", "-", f"{command}-{preset}-{time.strftime('%Y%m%d-%H%M%S')}")
    return out or Path("runs") / name


def check_file(out: Path, overwrite: bool, *endings: str) -> None:
    """Raise `InputError` unless a file of that name may be written to `out`; nothing is touched."""
    try:
        folder = out.is_dir()
    except OSError as error:
        raise InputError(f"--out {out} cannot be written ({error.strerror}); give another name") from error
    if folder:
        raise InputError(f"--out {out} is a folder; give a file")
    if endings and out.suffix not in endings:
        raise InputError(f"--out {out} does not end in {' or '.join(endings)}; name the file so")
    if out.exists() and not overwrite:
        raise InputError(f"--out {out} exists; --overwrite replaces it, or give another file")
    existing = next(parent for parent in out.absolute().parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"--out {out} cannot be written; give a file in a folder that you can write to")
