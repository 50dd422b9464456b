"""The page's tables at a terminal, with the columns that it has room for."""

import re
from itertools import accumulate
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable

from divkd.report.commands import REPORTS
from divkd.report.record import Table
from divkd.shared.kinds import METHODS, MODELS

WIDTH = 200  # where there is no terminal
GAP = 3  # between columns
WHOLE = re.compile(r"\S+ ± \S+|\(\S+ (?:to|=) \S+\)|\[\S+, \S+\]|\S+ to \S+$")
SPACE = "\0"


def print_tables(results: dict[str, Any], folder: Path) -> None:
    """The tables of a results.json that a terminal shows, how long the run took, and where it lies."""
    # no markup, as "[inf, inf]" or a file's name could be read as a tag
    console = Console(width=None if Console().is_terminal else WIDTH, markup=False, highlight=False)
    for one in REPORTS[results["command"]].tables(results):
        print_table(one, console)
    took = f"{results['seconds']:.1f} s; " if "seconds" in results else ""
    console.print(f"{took}written to {folder}", soft_wrap=True)


def print_table(one: Table, console: Console) -> None:
    """One table: its caption, the columns that there is room for, and its notes."""
    columns = list(zip(one.heads, *one.lines, strict=True))
    shown = [place for place, head in enumerate(one.heads) if head not in one.page_only]
    same = constant(one, shown)
    full = [place for place in shown if same.get(place) != ""]
    if len(_widths(columns, full, console.width - 1)) == len(full):  # there is room for all that say anything
        same = {place: cell for place, cell in same.items() if not cell}
    shown = [place for place in shown if place not in same]
    if not shown:
        return
    table = RichTable(box=SIMPLE_HEAD)
    kept = _widths(columns, shown, console.width - 1)
    for place, width in kept.items():
        words = place < one.names or place >= len(one.heads) - one.words
        table.add_column(_lines(one.heads[place], width), justify="left" if words else "right", min_width=width)
    for line in one.lines:
        table.add_row(*(_lines(line[place], width) for place, width in kept.items()))
    console.print(one.caption, style="bold", soft_wrap=not console.is_terminal)
    console.print(table)
    if len(kept) < len(shown):
        left = ", ".join(one.heads[place] for place in shown[len(kept) :])
        console.print(f"No room here for {left}; divkd report shows all.", soft_wrap=not console.is_terminal)
    if same:
        everywhere = "; ".join(f"{one.heads[place]} {cell or 'empty'}" for place, cell in same.items())
        console.print(f"The same in every line: {everywhere}.", soft_wrap=not console.is_terminal)
    for note in one.notes:
        console.print(note, soft_wrap=not console.is_terminal)
    console.print()


def constant(one: Table, shown: list[int]) -> dict[int, str]:
    """The columns, of several lines, that say the same in each, and what: a note has room for them."""
    return {place: one.lines[0][place] for place in shown[1:]
            if len(one.lines) > 1 and len({line[place] for line in one.lines}) == 1}  # fmt: skip


def _parts(cell: str) -> list[str]:
    """What no line breaks within: a number with its spread, what is in brackets, a word."""
    return [part.replace(SPACE, " ") for part in WHOLE.sub(lambda found: found[0].replace(" ", SPACE), cell).split(" ")]


def _lines(cell: str, width: int) -> str:
    """`cell` in lines of at most `width`, broken between its parts."""
    lines: list[str] = []
    for part in _parts(cell):
        if lines and cell_len(f"{lines[-1]} {part}") <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return "\n".join(lines)


def _widths(columns: list[tuple[str, ...]], shown: list[int], room: int) -> dict[int, int]:
    """The widths of the columns that fit into `room`, from the left: no part is broken, and lines where need be."""
    least = {place: max(cell_len(part) for cell in columns[place] for part in _parts(cell)) for place in shown}
    taken = list(accumulate(width + GAP for width in least.values()))
    widths = {place: least[place] for place, end in zip(shown, taken, strict=True) if end <= room}
    spare = room - sum(widths.values()) - GAP * len(widths)
    for place in widths:
        more = min(spare, max(map(cell_len, columns[place])) - widths[place])
        widths[place] += more
        spare -= more
    return widths


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
    peak = f"{content['flops_per_s'] / 1e9:.0f} GFLOP/s"
    note = f"Limit: {peak}, the best of a product and a convolution measured here; of a processor, on one thread."
    console = Console(width=None if Console().is_terminal else WIDTH, markup=False, highlight=False)
    print_table(Table("Where the time went, as measured by --profile", heads, lines, names=2, notes=(note,)), console)
