"""The names of networks: what ``--network`` takes. Imports no torch."""

import difflib
import re

from divkd.shared.errors import InputError

RULE = "resnetD with D = 6n + 2 (resnetDwC: of C channels), wrnDxK with D = 6n + 4, resnet18, or torchvision:NAME"
EXAMPLES = (
    *("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet18", "resnet8w8"),
    *("wrn16x1", "wrn16x2", "wrn16x4", "wrn28x1", "wrn28x5", "wrn28x10", "wrn40x2"),
)


def parse(name: str) -> tuple[str, int, int]:
    """(kind, n, k) of a network: both families have n blocks a stage, k channels in the first or k times the width.

    Of torchvision:NAME the kind is the whole name; whether torchvision has it shows when the network is built.

    Raises `InputError` for a name that is none.

    >>> parse("resnet32"), parse("resnet8w8"), parse("wrn28x10"), parse("resnet18")
    (('resnet', 5, 16), ('resnet', 1, 8), ('wrn', 4, 10), ('resnet18', 2, 1))
    """
    if re.fullmatch(r"torchvision:\w+", name, re.ASCII):
        return name, 0, 1
    if name == "resnet18":
        return "resnet18", 2, 1
    pattern = r"(resnet)([1-9]\d{0,3})(?:w([1-9]\d{0,2}))?|(wrn)([1-9]\d{0,3})x([1-9]\d{0,2})"
    if match := re.fullmatch(pattern, name, re.ASCII):
        kind, depth, width = match[1] or match[4], int(match[2] or match[5]), int(match[3] or match[6] or 16)
        blocks, rest = divmod(depth - (2 if kind == "resnet" else 4), 6)
        if blocks > 0 and not rest:
            return kind, blocks, width
    close = difflib.get_close_matches(name, EXAMPLES, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise InputError(f"unknown network {name!r}; give {RULE}, e.g. resnet32, wrn16x2 or wrn28x10{hint}")


# Where a network of three groups of blocks is cut: how many of them lie below. The letters of the published table.
CUTS = {"a": 1, "b": 2}


def channels_at(network: str, cut: str) -> int:
    """The channels of `network` between the groups of blocks that a `cut` parts; raises `InputError` for another kind.

    >>> channels_at("resnet8", "a"), channels_at("resnet8w8", "b"), channels_at("wrn28x10", "b")
    (16, 16, 320)
    """
    kind, _, width = parse(network)
    if kind not in ("resnet", "wrn"):
        raise InputError(f"{network} is not cut; give resnetD with D = 6n + 2 or wrnDxK, e.g. resnet8 or wrn16x2")
    return (width if kind == "resnet" else 16 * width) << (CUTS[cut] - 1)
