"""The table of ``--profile``."""

from typing import Any

from rich.console import Console

from divkd.cli.tables import WIDTH, print_table
from divkd.report.record import Table
from divkd.shared.kinds import METHODS, MODELS


def print_profile(content: dict[str, Any]) -> None:
    """Print what profile.json holds: shares of the seconds by part, images a second, share of the limit, memory."""
    lines, parts = [], list(content["rows"][0]["seconds"]) if content["rows"] else []
    for row in content["rows"]:
        total = sum(row["seconds"].values())
        shares = [f"{100 * row['seconds'][part] / total:.0f} %" for part in parts]
        rest = [
            f"{row['images_per_s']:.0f}",
            f"{100 * row['share_of_limit']:.0f} %",
            f"{row['peak_bytes'] / 1e6:.0f} MB",
        ]
        lines.append([MODELS[row["model"]], METHODS[row["method"]], f"{total:.1f}", *shares, *rest])
    heads = ["model", "method", "seconds", *parts, "images/s", "of the limit", "peak memory"]
    note = f"Limit: {content['flops_per_s'] / 1e9:.0f} GFLOP/s, the best of a product and a convolution measured here."
    console = Console(width=None if Console().is_terminal else WIDTH, markup=False, highlight=False)
    print_table(Table("Where the time went, as measured by --profile", heads, lines, names=2, notes=(note,)), console)
