"""One look for every figure: colour-blind-safe colours, markers that survive grey, PNG written whole."""

import io
import warnings
from pathlib import Path
from typing import Any

from divkd.shared.files import write_bytes

# Okabe and Ito (2008), darkest first, so that neighbours differ in grey as well.
COLOURS = ["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
DPI = 150


def figure(width: float = 6.4, height: float = 4.0, columns: int = 1, rows: int = 1) -> tuple[Any, list[Any]]:
    """A figure of `width` x `height` inches with `columns` x `rows` axes, in the house style; axes row by row."""
    fig, grid = stacked(width, height, columns, (1,) * rows)
    return fig, [ax for row in grid for ax in row]


def stacked(width: float, height: float, columns: int, heights: tuple[int, ...]) -> tuple[Any, list[list[Any]]]:
    """A figure as `figure` makes it with one row of axes for each of `heights`, which are relative."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    rows = fig.subplots(len(heights), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for ax in rows.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(True, color="0.92", linewidth=0.8)
        ax.set_axisbelow(True)
    return fig, [list(row) for row in rows]


def save_both(fig: Any, path: Path) -> list[Path]:
    """Write `fig` as `path`.png and `path`.svg, each whole or not at all; the same figure gives the same bytes."""
    import matplotlib

    vector = path.with_name(f"{path.name}.svg")
    with matplotlib.rc_context({"svg.hashsalt": "divkd"}):
        write_bytes(vector, _bytes(fig, format="svg", metadata={"Date": None}))
    return [save(fig, path.with_name(f"{path.name}.png")), vector]


def save(fig: Any, path: Path) -> Path:
    """Write `fig` as PNG at 150 dots an inch, whole or not at all."""
    write_bytes(path, _bytes(fig, format="png", dpi=DPI, metadata={"Software": None}))
    return path


def _bytes(fig: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name may be in a script that the font lacks: boxes in the figure, and no lines of a warning at the terminal.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        fig.savefig(buffer, **options)
    return buffer.getvalue()
