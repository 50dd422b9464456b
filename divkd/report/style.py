"""One look for every figure: colour-blind-safe colours, markers that survive grey; a figure as bytes."""

import io
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

# Okabe and Ito (2008), darkest first, so that neighbours differ in grey as well.
COLOURS = ["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
DPI = 150


def figure(
    width: float = 6.4, height: float = 4.0, columns: int = 1, rows: int = 1, heights: tuple[int, ...] | None = None
) -> tuple[Any, list[Any]]:
    """A figure of `width` x `height` inches with `columns` x `rows` axes in the house style, and these, row by row.

    `heights` are the rows' relative ones, equal by default.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    axes = list(fig.subplots(rows, columns, squeeze=False, gridspec_kw={"height_ratios": heights}).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(True, color="0.92", linewidth=0.8)
        ax.set_axisbelow(True)
    return fig, axes


def panels(count: int, across: int, width: float, row: float, rest: float) -> tuple[Any, list[Any]]:
    """As `figure`: `count` axes in rows of `across`, which are `row` inches high, and `rest` for all else."""
    rows = -(-count // across)
    fig, axes = figure(width, row * rows + rest, across, rows)
    for ax in axes[count:]:
        ax.set_visible(False)
    return fig, axes[:count]


def rendered(fig: Any, kind: str = "png") -> bytes:
    """`fig` as PNG at 150 dots an inch, or as "svg"; the same figure gives the same bytes."""
    import matplotlib

    how = {"dpi": DPI, "metadata": {"Software": None}} if kind == "png" else {"metadata": {"Date": None}}
    buffer = io.BytesIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": "divkd"}):
        # A name may be in a script that the font lacks: boxes in the figure, and no lines of a warning at the terminal.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        fig.savefig(buffer, format=kind, **how)
    return buffer.getvalue()


def mean_and_sd(summaries: Iterable[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """The means, and the lengths of their error bars: none where there is no spread."""
    rows = list(summaries)
    return [row["mean"] for row in rows], [row["std"] or 0.0 for row in rows]


def points(ax: Any, at: Any, summaries: Iterable[Mapping[str, Any]], sideways: bool = False, **look: Any) -> None:
    """The means of `summaries` at the places `at`, with bars of ± 1 sd: upright, or `sideways` with places on y."""
    means, deviations = mean_and_sd(summaries)
    if sideways:
        ax.errorbar(means, at, xerr=deviations, **look)
    else:
        ax.errorbar(at, means, yerr=deviations, **look)


def beside(index: int, count: int, step: float) -> float:
    """How far the marks of one of `count` networks are moved, so that they lie beside each other's."""
    return step * (index - (count - 1) / 2)


def look(index: int) -> dict[str, Any]:
    """Colour and marker by place; where there are more places than colours, these come again with other markers."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]}


def one_scale(axes: list[Any], least: float | None = None, sideways: bool = False) -> None:
    """The same limits for all of `axes`, that hold what each shows, upright or `sideways`; from `least` on."""
    lows, highs = zip(*(ax.get_xlim() if sideways else ax.get_ylim() for ax in axes), strict=True)
    ends = min(lows) if least is None else max(min(lows), least), max(highs)
    for ax in axes:
        (ax.set_xlim if sideways else ax.set_ylim)(*ends)


def legend_below(fig: Any, axes: list[Any], columns: int | None = None, size: float | str = 8) -> None:
    """One legend under the figure for everything that is named in `axes`, each name once."""
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns or len(handles),
               frameon=False, fontsize=size)  # fmt: skip


def marks(ax: Any, worth: Mapping[str, list[tuple[float, bool]]], top: int, room: float, **look: Any) -> None:
    """A line a network, a mark a deep ensemble equivalent (members, censored) on a ladder up to `top` members."""
    for place, values in enumerate(worth.values()):
        for value, censored in values:
            ax.plot(value, -place, marker=">" if censored else "o", alpha=0.7, **look)
    ax.set_yticks([-place for place in range(len(worth))], list(worth))
    ax.set_xlim(1 - room, top + room)
    ax.set_xticks(range(1, top + 1))
