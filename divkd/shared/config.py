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
SEEDS = 2**31 - 1
Interval = tuple[float, float]


def field(
    default: Any = dataclasses.MISSING,
    meaning: str = "",
    low: float | None = None,
    high: float | None = None,
    symbol: str = "",
    *,
    above: float | None = None,
    choices: Collection[str] = (),
    hint: str = "",
    option: str = "",
    metavar: str = "",
) -> Any:
    """A field of a `Config`.

    default      its value where none is given; without one the field has to be given
    meaning      what it is, for ``--help``; a field without a meaning is no option of the command line
    low, high    the least and the greatest value that is allowed; `above`, instead of `low`, is not allowed itself
    symbol       of the paper
    choices      the names that are allowed
    hint         what an error says beside the allowed range, e.g. ``0 is no crop``
    option, metavar      of the command line; --the-name without one
    """
    about = {"meaning": meaning, "low": low, "high": high, "above": above, "symbol": symbol, "choices": choices,
             "hint": hint, "option": option, "metavar": metavar}  # fmt: skip
    return dataclasses.field(default=default, metadata=about)


@dataclasses.dataclass(frozen=True)
class Config:
    """A configuration: what a run depends on, checked before it starts."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that a run's config.json holds under ``config``; raises `InputError` on a misfit."""
        config = cls(**_parts(cls, values))
        config.validate()
        return config

    def validate(self) -> None:
        """Raise `InputError` for the first value that is not allowed: field by field, then by `rules`."""
        for one in dataclasses.fields(self):
            check(one, getattr(self, one.name))
        self.rules()

    def rules(self) -> None:
        """Raise `InputError` where values that are allowed alone do not fit each other."""


def option_of(one: "dataclasses.Field[Any]") -> str:
    """The command-line option of a field, ``--train-samples``."""
    return one.metadata.get("option") or "--" + one.name.replace("_", "-")


def optional(kind: Any) -> tuple[Any, bool]:
    """The type behind ``T | None``, and whether None is allowed."""
    if isinstance(kind, types.UnionType):
        inner = [part for part in typing.get_args(kind) if part is not types.NoneType]
        return inner[0], True
    return kind, False


def check(one: "dataclasses.Field[Any]", value: Any, name: str = "") -> None:
    """Raise `InputError` unless `value` is of the type of the field `one` and within its bounds."""
    kind, may_lack = optional(one.type)
    about, name = one.metadata, name or option_of(one)
    parts = typing.get_args(kind)
    if value is None and may_lack:
        pass
    elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
        _need(isinstance(value, kind), name, value, f"the fields of {kind.__name__}")
        for part in dataclasses.fields(kind):
            check(part, getattr(value, part.name), f"{one.name} {option_of(part)}")
    elif not parts:
        _single(kind, about, name, value)
    elif kind == Interval:
        fits = isinstance(value, tuple) and len(value) == 2 and all(map(_number, value))
        start, end = value if fits else (1, 0)
        low, high = about.get("low") or 0, MOST if about.get("high") is None else about["high"]
        _need(low <= start <= end <= high, name, value, f"two numbers low,high, {_within(about, 0)}")
    else:
        repeated = parts[-1] is Ellipsis
        fits = isinstance(value, tuple) and (repeated or len(value) == len(parts))
        wanted = "each value once" if parts[0] is str else "one or more, each once, e.g. 0,1,2"
        _need(fits and (parts[0] is str or len(value) > 0), name, value, wanted)
        for item in value:
            _single(parts[0], about, name, item)
        _need(not repeated or len(set(value)) == len(value), name, value, wanted)


def _single(kind: Any, about: Mapping[str, Any], name: str, value: Any) -> None:
    if kind is bool:
        _need(isinstance(value, bool), name, value, "true or false")
    elif kind is str:
        _need(isinstance(value, str), name, value, about.get("hint") or "a text")
        if about.get("choices") and value not in about["choices"]:
            raise unknown(name.removeprefix("--"), value, about["choices"])
    else:
        whole = kind is int
        fits = isinstance(value, int) and not isinstance(value, bool) if whole else _number(value)
        low, high, above = (about.get(key) for key in ("low", "high", "above"))
        # written so that NaN fails it
        inside = fits and (value > above if above is not None else value >= (low or 0))
        inside = inside and value <= (MOST if high is None else high)
        hint = f" ({about['hint']})" if about.get("hint") else ""
        _need(inside, name, value, f"{'a whole number' if whole else 'a number'} {_within(about, 0)}{hint}")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _within(about: Mapping[str, Any], least: float) -> str:
    low, high, above = (about.get(key) for key in ("low", "high", "above"))
    ends = f"above {above:g}" if above is not None else f"from {least if low is None else low:.10g}"
    join = " and at most" if above is not None else " to"
    return f"{ends}{join} {MOST if high is None else high:.10g}"


def _need(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise InputError(f"{name} {value} is not allowed; give {allowed}")


def _parts(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` of a JSON file as the arguments of `cls`: lists as tuples, names with one spelling."""
    fields = {one.name: one for one in dataclasses.fields(cls)}
    parts: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise unknown("parameter", name, sorted(fields))
        kind, _ = optional(fields[name].type)
        choices = fields[name].metadata.get("choices", ())
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            parts[name] = kind(**_parts(kind, value))
        elif isinstance(value, list):
            parts[name] = tuple(spelled(item, choices) for item in value)
        else:
            parts[name] = spelled(value, choices)
    lacking = [one.name for one in fields.values() if one.default is dataclasses.MISSING and one.name not in parts]
    if lacking:
        raise InputError(f"the configuration lacks {lacking[0]}; give a whole one")
    return parts


def spelled(value: Any, choices: Collection[str]) -> Any:
    """`value` with underscores for hyphens, where that is one of `choices`."""
    other = value.replace("-", "_") if isinstance(value, str) else value
    return other if value not in choices and other in choices else value
