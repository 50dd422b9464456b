"""One look for every figure: colour-blind-safe colours, markers that survive grey, PNG written whole."""

import io
from pathlib import Path
from typing import Any

from divkd.shared.files import write_bytes

# Okabe and Ito (2008), darkest first, so that neighbours differ in grey as well.
COLOURS = ["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
DPI = 150


def figure(width: float = 6.4, height: float = 4.0, columns: int = 1, rows: int = 1) -> tuple[Any, list[Any]]:
    """A figure of `width` x `height` inches with `columns` x `rows` axes, in the house style; axes row by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    axes = list(fig.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(True, color="0.92", linewidth=0.8)
        ax.set_axisbelow(True)
    return fig, axes


def save(fig: Any, path: Path) -> Path:
    """Write `fig` as PNG at 150 dots an inch, whole or not at all."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
    return path
