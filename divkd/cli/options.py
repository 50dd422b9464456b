"""Options that commands share, and how preset, --config and options become one configuration."""

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from divkd.shared.config import MOST, Config, described, kind_of, option_of, stored
from divkd.shared.errors import InputError, unknown
from divkd.shared.files import plain, read_json, writable
from divkd.shared.manifest import MANIFEST, Manifest, read_config

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]
Chosen = TypeVar("Chosen", bound=Config)
PATH = click.Path(path_type=Path)


def parse_seeds(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Whole numbers, comma-separated, ``0,1,2``, as a tuple."""
    try:
        return None if value is None else tuple(int(part) for part in value.split(","))
    except ValueError as error:
        raise InputError(f"--seeds {value!r} is not allowed; give whole numbers with commas, e.g. 0,1,2") from error


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


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order of their help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def placed(resume: str) -> Decorator:
    """Where a run goes, and what becomes of one that is there; `resume` is the help of --resume."""
    return together(
        click.option("--out", type=PATH, metavar="RUN", help="Run directory. [default: runs/...]"),
        click.option("--resume", is_flag=True, help=resume),
        click.option("--overwrite", is_flag=True, help="Delete the run in --out first."),
    )


seeds = click.option(
    "--seeds", "--seed", "seeds", callback=parse_seeds, metavar="N,N,...", help="One whole experiment a seed: 0,1,2."
)
repeatable = click.option(
    "--config", type=PATH, metavar="FILE", help="Repeat a run: RUN/config.json, or what --print-config wrote."
)
asked_first = together(
    click.option("--print-config", is_flag=True, help="Print every value, as --config takes it, and do nothing else."),
    click.option(
        "--dry-run", is_flag=True, help="Say what would be trained, how long and in what memory; write nothing."
    ),
)
by_jobs = together(
    click.option(
        "--jobs",
        type=click.IntRange(1, 1024),
        envvar="DIVKD_JOBS",
        metavar="N",
        help="Compute N jobs at once, each in a process of one thread. [default: the cores, or 1 on a GPU]",
    ),
    click.option("--dask", metavar="ADDRESS", help="Have the workers of this Dask scheduler compute the jobs instead."),
)
on_device = click.option(
    "--device", metavar="cpu|cuda|cuda:N", help="Where to compute. [default: cpu, or cuda if there]"
)


# The options of every command that has presets.
common = together(
    click.option(
        "--preset",
        metavar="NAME",
        help="Where the values that you do not give come from, see above; --print-config shows all.",
    ),
    seeds,
    click.option("--members", type=int, metavar="M", help="Networks in the ensemble."),
    on_device,
    repeatable,
    asked_first,
    placed("Go on with the run in --out; with more seeds (or members), add them."),
)


def from_fields(config: type[Config], without: Collection[str] = (), *, defaults: bool = True) -> Decorator:
    """An option for every field with a meaning but those in `without`; its help is what the field declares.

    `defaults` says whether the help shows the fields' own, which is so where no preset brings others.
    """
    return together(*(_option(one, defaults) for one in described(config) if one.name not in without))


def _option(one: "dataclasses.Field[Any]", defaults: bool) -> Decorator:
    kind, about, name = kind_of(one)[0], one.metadata, option_of(one)
    notes = []
    if kind in (int, float) and about["high"] < MOST:
        notes.append(f"{about['low']:g} to {about['high']:g}")
    if defaults:
        values = one.default if isinstance(one.default, tuple) else (one.default,)
        notes.append(f"default: {','.join(value if isinstance(value, str) else f'{value:g}' for value in values)}")
    meaning, symbol = about["meaning"], about["symbol"]
    text = f"{symbol}: {meaning}." if symbol else f"{meaning[0].upper()}{meaning[1:]}."
    shown: dict[str, Any] = {"help": f"{text} [{'; '.join(notes)}]" if notes else text}
    if kind is bool:
        return click.option(f"{name}/--no-{name[2:]}", one.name, default=None, **shown)
    shown["metavar"] = about["metavar"] or "|".join(about["choices"])
    if not get_args(kind):
        shown["metavar"] = shown["metavar"] or ("N" if kind is int else "X")
        return click.option(name, one.name, type=kind, **shown)
    if about["choices"]:
        return click.option(name, one.name, multiple=True, **shown)
    return click.option(name, one.name, callback=parse_interval, **shown | {"metavar": "LOW,HIGH"})


def given(config: type[Config], options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `config`, but the preset, that the command line gives."""
    values = {one: options.get(one.name) for one in dataclasses.fields(config) if one.name != "preset"}
    return {one.name: stored(one, value) for one, value in values.items() if value not in (None, ())}


def resolve(
    presets: Mapping[str, Chosen], command: str, options: Mapping[str, Any], default: str, beside: Collection[str] = ()
) -> Chosen:
    """The configuration of --config or of --preset, else of the preset `default`: what `given` then changes.

    A run's config.json may hold more than fields: what is in `beside`.
    """
    file, preset = options["config"], options.get("preset")
    if file is None:
        name = preset or default
        if name not in presets:
            raise unknown("preset", name, presets)
        return presets[name]
    if preset is not None:
        raise InputError("--preset and --config both give every value; give one of the two")
    content = asked(file)
    if content.get("command") != command:
        raise InputError(f"--config {file} is of '{content.get('command')}', not of '{command}'; give one of its own")
    values = {name: value for name, value in content["config"].items() if name not in beside}
    return type(presets[default]).from_dict(values)


def asked(file: Path) -> dict[str, Any]:
    """What --config names: a run's config.json, its manifest, or what --print-config wrote."""
    if file.name == "config.json" and Manifest(file.parent).asked():
        return read_config(file.parent)
    content = Manifest(file.parent).asked() if file.name == MANIFEST else read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise InputError(f"--config {file} is no run's config.json; give one, or a file of what --print-config wrote")
    return content


def printed(command: str, config: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Print `config` as a file that --config takes, where --print-config asks for it; whether it did."""
    if options["print_config"]:
        if options["dry_run"]:
            raise InputError("--print-config and --dry-run are both given; give one of the two")
        click.echo(json.dumps(plain({"command": command, "config": config}), indent=1))
    return bool(options["print_config"])


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


def device_of(config: Any, options: Mapping[str, Any]) -> str:
    """The device of a run: that of --device, else that of the run which --config repeats, else what is there."""
    return check_device(options["device"] or (config.device if options["config"] else None))


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
    if not writable(out):
        raise InputError(f"--out {out} cannot be written; give a file in a folder that you can write to")
