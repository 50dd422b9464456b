"""Finished runs: what their folders hold, what they were made with and how they were configured, as words."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from divkd.report.record import Results
from divkd.report.words import MEASURE, spread
from divkd.shared.errors import InputError
from divkd.shared.manifest import bad_config, read_config, read_results


class Source(NamedTuple):
    """A finished run: what it is called by, its results.json, its config.json ({}: none), and where it lies."""

    name: str
    results: Results
    config: Results = {}  # noqa: RUF012 (a NamedTuple's default, which nobody changes)
    path: Path = Path()

    @property
    def simulated(self) -> bool:
        """Whether it is theory."""
        return str(self.results["command"]).startswith("simulate")

    @property
    def asked(self) -> Results:
        """The configuration that was asked for, or empty."""
        return dict(self.config.get("config", {}))

    def __str__(self) -> str:
        seeds = ", ".join(map(str, self.results["seeds"]))
        return f"{self.name} ({spread(self.results)}: {seeds})"


def read_sources(paths: Sequence[Path], commands: Collection[str]) -> list[Source]:
    """The runs of `commands` in the folders `paths`. Raises `InputError` where one is none, damaged or given twice."""
    twice = [path for place, path in enumerate(paths) if path.resolve() in [p.resolve() for p in paths[:place]]]
    if twice:
        raise InputError(f"{twice[0]} is given twice; name each run once")
    names = [path.resolve().name for path in paths]
    return [
        Source(name if names.count(name) == 1 else str(path), *_read(path, commands), path)
        for path, name in zip(paths, names, strict=True)
    ]


def _read(path: Path, commands: Collection[str]) -> tuple[Results, Results]:
    try:
        found = (path / "results.json").is_file()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a folder that holds results.json") from error
    if not found:
        raise InputError(f"{path} is no finished run of divkd; give a folder that holds results.json")
    results = results_of(path)
    command = results.get("command") if isinstance(results, dict) else None
    if not isinstance(command, str) or command not in commands:
        one_of = f"a report is made of runs of {', '.join(commands)}"
        raise InputError(f"{path}/results.json is of the command {command!r}; {one_of}")
    return results, config_of(path, command)


def results_of(path: Path) -> Any:
    """The results.json in `path`; raises `InputError` where it is damaged, or a measure in it is no number.

    A figure would be drawn of what is none all the same: a text is a category to matplotlib, an empty list a mean of
    nothing.
    """
    results = read_results(path)
    for name, value in _measures(results):
        if not _of_numbers(value):
            raise _bad(path, f"{name} is {value!r:.60}, which is no number")
    if isinstance(results, dict) and not results.get("rows", True) and results.get("command") != "sweep":
        raise _bad(path, "it has no rows")
    return results


def _of_numbers(value: Any) -> bool:
    """Whether it is a number, or none is known, or a list of such, or a summary, whose own fields say what they are."""
    if isinstance(value, list) and value:
        return all(map(_of_numbers, value))
    return isinstance(value, dict) or type(value) in (int, float, type(None))


def _bad(path: Path, why: str) -> InputError:
    """The refusal of a results.json."""
    return InputError(
        f"{path}/results.json is damaged: {why}; restore it, or have its command write it anew with --resume"
    )


def _measures(value: Any) -> Iterator[tuple[str, Any]]:
    """Every field that is called as a measure is, but for a temperature, which is also what is set."""
    for key, below in value.items() if isinstance(value, dict) else ():
        if key in MEASURE and key != "temperature":
            yield key, below
        yield from _measures(below)
    for below in value if isinstance(value, list) else ():
        yield from _measures(below)


def config_of(path: Path, command: str) -> Results:
    """The config.json beside a results.json of `command`, {} where there is none; raises `InputError` for another."""
    config = read_config(path) if (path / "config.json").exists() else {}
    if config and config["command"] != command:
        differ = f"is of {config['command']!r} and results.json of {command!r}"
        raise InputError(f"{path}/config.json {differ}; restore the folder")
    if not isinstance(config.get("versions") or {}, dict):
        raise bad_config(path, f"versions is {config['versions']!r:.60}")
    return config


def made_with(results: Results, config: Results) -> list[tuple[str, str]]:
    """Hardware, versions and revision; what nobody wrote down is said to be unknown."""
    known = {**results, **config}
    threads = known.get("omp_num_threads")
    versions = known.get("versions") or {}
    pairs = {
        "hardware": known.get("device"),
        "cores": known.get("cores"),
        # where no versions were written, the threads were not either
        **({"OMP_NUM_THREADS": "not set" if threads is None else threads} if versions else {"versions": None}),
        "git revision": known.get("git_revision"),
        "seconds": None if results.get("seconds") is None else f"{results['seconds']:,.1f} in all, wall-clock",
        **versions,
    }
    return [(name, "not recorded" if value is None else str(value)) for name, value in pairs.items()]


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """The fields of a configuration, nested names joined by dots, values as JSON but text as it is."""
    if isinstance(value, Mapping) and value:
        return [pair for key, part in value.items() for pair in flat(part, f"{name}.{key}" if name else str(key))]
    return [(name, value if isinstance(value, str) else json.dumps(value))]
