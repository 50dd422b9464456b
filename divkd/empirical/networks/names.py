"""The names of networks: what ``--network`` takes. Imports no torch."""

import difflib
import re

from divkd.shared.errors import InputError

RULE = "resnetD with D = 6n + 2, wrnDxK with D = 6n + 4, resnet18, or torchvision:NAME"
EXAMPLES = (
    *("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet18"),
    *("wrn16x1", "wrn16x2", "wrn16x4", "wrn28x1", "wrn28x5", "wrn28x10", "wrn40x2"),
)


def parse(name: str) -> tuple[str, int, int]:
    """(kind, n, k) of a network: "resnet" and "wrn" have n blocks a stage, the latter k times the width.

    Of torchvision:NAME the kind is the whole name; whether torchvision has it shows when the network is built.

    Raises `InputError` for a name that is none.

    >>> parse("resnet32"), parse("wrn28x10"), parse("resnet18")
    (('resnet', 5, 1), ('wrn', 4, 10), ('resnet18', 2, 1))
    """
    if re.fullmatch(r"torchvision:\w+", name, re.ASCII):
        return name, 0, 1
    if name == "resnet18":
        return "resnet18", 2, 1
    if match := re.fullmatch(r"(resnet)([1-9]\d{0,3})|(wrn)([1-9]\d{0,3})x([1-9]\d{0,2})", name, re.ASCII):
        kind, depth, width = match[1] or match[3], int(match[2] or match[4]), int(match[5] or 1)
        blocks, rest = divmod(depth - (2 if kind == "resnet" else 4), 6)
        if blocks > 0 and not rest:
            return kind, blocks, width
    close = difflib.get_close_matches(name, EXAMPLES, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise InputError(f"unknown network {name!r}; give {RULE}, e.g. resnet32, wrn16x2 or wrn28x10{hint}")
