"""One way to describe a configuration: a frozen dataclass whose fields say what they mean and what they may be.

The command line makes its options of the fields, `validate` checks them, and `from_dict` reads them back from a run's
config.json; theory, plane and training differ in their fields alone. Imports nothing heavy: ``--help`` reads it.
"""

import dataclasses
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, Self

from divkd.shared.errors import InputError, unknown

MOST = 10**12  # of anything: far above what fits, far below what overflows
SEEDS = 2**31 - 1  # the last
Interval = tuple[float, float]


def field(
    default: Any = dataclasses.MISSING,
    meaning: str = "",
    low: float = 0,
    high: float = MOST,
    symbol: str = "",
    *,
    above: bool = False,
    choices: Collection[str] = (),
    hint: str = "",
    option: str = "",
    metavar: str = "",
) -> Any:
    """A field of a `Config`: a number, text or flag, a rising tuple of fixed length, or a tuple without repeats.

    default      its value where none is given; without one the field has to be given
    meaning      what it is, for ``--help``; a field without a meaning is no option of the command line
    low, high    the least and the greatest number that is allowed; with `above`, low itself is not
    symbol       of the paper
    choices      the names that are allowed
    hint         what an error says beside the range of a number, e.g. ``0: no crop``, or what a text is
    option, metavar      of the command line; --the-name without one
    """
    about = {"meaning": meaning, "low": low, "high": high, "symbol": symbol, "above": above, "choices": choices}
    about |= {"hint": hint, "option": option, "metavar": metavar}
    return dataclasses.field(default=default, metadata=about)


@dataclasses.dataclass(frozen=True)
class Config:
    """A configuration: what a run depends on, checked before it starts."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that a run's config.json holds under ``config``; raises `InputError` on a misfit."""
        fields = {one.name: one for one in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                raise unknown("parameter", name, sorted(fields))
        for one in fields.values():
            if one.default is dataclasses.MISSING and one.name not in values:
                raise InputError(f"the configuration lacks {one.name}; give a whole one, as --print-config writes it")
        config = cls(**{name: stored(fields[name], value) for name, value in values.items()})
        config.validate()
        return config

    def validate(self) -> None:
        """Raise `InputError` for the first value that is not allowed: field by field, then by `rules`."""
        for one in dataclasses.fields(self):
            _check(one, getattr(self, one.name))
        self.rules()

    def rules(self) -> None:
        """Raise `InputError` where values that are allowed alone do not fit each other."""


def described(config: "type[Config] | Config") -> "list[dataclasses.Field[Any]]":
    """The fields with a meaning: those that the command line offers."""
    return [one for one in dataclasses.fields(config) if one.metadata["meaning"]]


def option_of(one: "dataclasses.Field[Any]") -> str:
    """The command-line option of a field, ``--train-samples``."""
    return one.metadata["option"] or "--" + one.name.replace("_", "-")


def kind_of(one: "dataclasses.Field[Any]") -> tuple[Any, bool]:
    """The type of a field without ``| None``, and whether it may be None."""
    parts = typing.get_args(one.type) if isinstance(one.type, types.UnionType) else (one.type,)
    return parts[0], types.NoneType in parts


def stored(one: "dataclasses.Field[Any]", value: Any) -> Any:
    """A value from a JSON file or the command line as the field `one` holds it: tuples, names in their one spelling."""
    kind, _ = kind_of(one)
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return kind.from_dict(value)  # type: ignore[union-attr]
    if isinstance(value, (list, tuple)):
        return tuple(spelled(item, one.metadata["choices"]) for item in value)
    return spelled(value, one.metadata["choices"])


def spelled(value: Any, choices: Collection[str]) -> Any:
    """`value` with underscores for hyphens, where that is one of `choices`."""
    other = value.replace("-", "_") if isinstance(value, str) else None
    return other if other in choices else value


def shown(value: Any) -> str:
    """`value` as one types it: 0,1,2 for a tuple."""
    return ",".join(map(str, value)) if value and isinstance(value, tuple) else str(value)


def _check(one: "dataclasses.Field[Any]", value: Any) -> None:
    """Raise `InputError` unless `value` is what the field `one` may hold."""
    kind, may_lack = kind_of(one)
    if value is None and may_lack:
        return
    if isinstance(value, Config) and isinstance(value, kind):
        value.validate()
        return
    parts, choices = typing.get_args(kind), one.metadata["choices"]
    kind, items = (parts[0], value if isinstance(value, tuple) else ()) if parts else (kind, (value,))
    for item in items:
        if choices and isinstance(item, str) and item not in choices:
            raise unknown(option_of(one).removeprefix("--"), item, choices)
    fits = isinstance(value, tuple) == bool(parts) and all(_fits(kind, one.metadata, item) for item in items)
    if parts and parts[-1] is Ellipsis:
        fits = fits and len(set(items)) == len(items) and (len(items) > 0 or kind is str)
    elif parts:
        fits = fits and len(items) == len(parts) and list(items) == sorted(items)
    if not fits:
        raise InputError(f"{option_of(one)} {shown(value)} is not allowed; give {_allowed(kind, parts, one.metadata)}")


def _fits(kind: Any, about: Mapping[str, Any], value: Any) -> bool:
    if kind not in (int, float):
        return isinstance(value, kind)
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        return False
    # written so that NaN fails it
    return about["low"] <= value <= about["high"] and not (about["above"] and value == about["low"])


def _allowed(kind: Any, parts: tuple[Any, ...], about: Mapping[str, Any]) -> str:
    """What a field may hold, in words: a number from 0 to 1."""
    if kind not in (int, float):
        flag = "true or false" if kind is bool else f"the fields of {kind.__name__}"
        text = f"each of {', '.join(about['choices'])} at most once" if parts else about["hint"] or "a text"
        return text if kind is str else flag
    noun = "whole number" if kind is int else "number"
    limits = f"{bounds(about)} ({about['hint']})" if about["hint"] else bounds(about)
    if not parts:
        return f"a {noun} {limits}"
    if parts[-1] is Ellipsis:
        return f"one or more {noun}s {limits}, each once"
    return f"{len(parts)} {noun}s {limits}, the lower first"


def bounds(about: Mapping[str, Any]) -> str:
    """The range of a number in words, from a field's metadata."""
    least, most = f"{about['low']:.10g}", f"{about['high']:.10g}"
    return f"above {least} and at most {most}" if about["above"] else f"from {least} to {most}"
