"""The two ways a command ends early: the input was wrong, or the run failed."""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Bad input (exit code 2): one line naming the value, what is allowed and the mend; nothing was written."""


class RunError(Exception):
    """A failure while running (exit code 1): what is finished stays usable and ``--resume`` goes on from it."""


def unknown(kind: str, value: str, allowed: Iterable[str]) -> InputError:
    """The error for a name outside a closed set, with the nearest allowed name.

    >>> str(unknown("method", "odds", ["none", "ods"]))
    "unknown method 'odds'; choose one of: none, ods (did you mean 'ods'?)"
    """
    names = list(allowed)
    close = difflib.get_close_matches(value, names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return InputError(f"unknown {kind} {value!r}; choose one of: {', '.join(names)}{hint}")
