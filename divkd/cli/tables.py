"""The page's tables at a terminal, with the columns that it has room for."""

from itertools import accumulate
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable

from divkd.report.commands import REPORTS
from divkd.report.record import Table

WIDTH = 200  # where there is no terminal
GAP = 3  # between columns


def print_tables(results: dict[str, Any], folder: Path) -> None:
    """The tables of a results.json that a terminal shows, how long the run took, and where it lies."""
    # no markup, as "[inf, inf]" or a file's name could be read as a tag
    console = Console(width=None if Console().is_terminal else WIDTH, markup=False, highlight=False)
    for one in REPORTS[results["command"]].tables(results):
        _print(one, console)
    took = f"{results['seconds']:.1f} s; " if "seconds" in results else ""
    console.print(f"{took}written to {folder}", soft_wrap=True)


def _print(one: Table, console: Console) -> None:
    shown = [place for place, head in enumerate(one.heads) if head not in one.page_only]
    if not shown:
        return
    table = RichTable(box=SIMPLE_HEAD)
    kept = _widths(one, shown, console.width - 1)
    for place, width in kept.items():
        words = place < one.names or place >= len(one.heads) - one.words
        table.add_column(one.heads[place], justify="left" if words else "right", width=width)
    for line in one.lines:
        table.add_row(*(line[place] for place in kept))
    console.print(one.caption, style="bold", soft_wrap=True)
    console.print(table)
    if len(kept) < len(shown):
        left = ", ".join(one.heads[place] for place in shown[len(kept) :])
        console.print(f"No room here for {left}; divkd report shows all.", soft_wrap=True)
    for note in one.notes:
        console.print(note, soft_wrap=True)
    console.print()


def _widths(one: Table, shown: list[int], room: int) -> dict[int, int]:
    """The widths of the columns that fit into `room`, from the left: no word is broken, and lines where need be."""
    columns = list(zip(one.heads, *one.lines, strict=True))
    parts = {place: [cell.replace(" ±", "_±").split() for cell in columns[place]] for place in shown}
    least = {place: max(cell_len(word) for cell in cells for word in cell) for place, cells in parts.items()}
    taken = list(accumulate(width + GAP for width in least.values()))
    widths = {place: least[place] for place, end in zip(shown, taken, strict=True) if end <= room}
    spare = room - sum(widths.values()) - GAP * len(widths)
    for place in widths:
        more = min(spare, max(map(cell_len, columns[place])) - widths[place])
        widths[place] += more
        spare -= more
    return widths
