"""The map of the window and the ablations, from a results.json of `divkd simulate window` or `ablations` alone."""

from pathlib import Path
from typing import Any

import numpy as np

from divkd.report.style import COLOURS, MARKERS, figure, save_both
from divkd.shared.stats import show

CLAIMS = {
    "single": "single",
    "ensemble": "ensemble",
    "distilled": "distilled",
    "self_distilled": "self-distilled",
    "labels_only": "labels only, same time",
}
SHARES = {
    "one_view_fraction": "one view",
    "distilled_views": "views distilled",
    "learned_inside_union": "inside union",
    "learned_outside_union": "outside union",
}
COLUMNS = 3


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write the picture of these cells into `folder`, as PNG and SVG."""
    groups = by_parameter(results)
    return save_both(
        _map(results, groups) if groups else _bars(results), folder / ("window" if groups else "ablations")
    )


def by_parameter(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows of a map by the one parameter that they change; empty for ablations."""
    groups: dict[str, list[dict[str, Any]]] = {}
    if results["command"] == "simulate window":
        for row in results["cells"]:
            groups.setdefault(next(iter(row["changes"])), []).append(row)
    return groups


def shown(value: Any) -> str:
    """A parameter's value: a number, or the two ends of an interval."""
    if isinstance(value, (list, tuple)):
        return shown(value[0]) if value[0] == value[1] else " to ".join(shown(part) for part in value)
    return f"{value:g}"


def columns(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table: headings and one line a cell, errors on single-view samples and shares of views, ± 1 sd over seeds.

    A cell that failed has "none" there; `failures` says why.
    """
    heads = ["cell", *CLAIMS.values(), *SHARES.values()]
    lines = []
    for row in results["cells"]:
        if row["failed"] is not None:
            lines.append([row["name"], "none", *[""] * (len(heads) - 2)])
            continue
        found = [row["errors"].get(name) for name in CLAIMS] + [row["views"].get(name) for name in SHARES]
        lines.append([row["name"], *["" if one is None else show(one) for one in found]])
    return heads, lines


def markdown(results: dict[str, Any]) -> str:
    """The table and why cells failed, as Markdown: what the manual holds."""
    heads, lines = columns(results)
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join(["| " + " | ".join(row) + " |" for row in rows] + [f"\n{why}" for why in failures(results)])


def failures(results: dict[str, Any]) -> list[str]:
    """Why cells failed, one line each."""
    return [f"{row['name']}: {row['failed']}" for row in results["cells"] if row["failed"] is not None]


def _map(results: dict[str, Any], groups: dict[str, list[dict[str, Any]]]) -> Any:
    """One panel a parameter: error on single-view samples of every claim at each of its values."""
    across = min(COLUMNS, len(groups))
    rows = -(-len(groups) // across)
    fig, axes = figure(width=max(3.6 * across, 7.2), height=0.9 + 2.3 * rows, columns=across, rows=rows)
    for ax in axes[len(groups) :]:
        ax.set_visible(False)
    for ax, (name, cells) in zip(axes, groups.items(), strict=False):
        places = np.arange(len(cells))
        base = [
            place for place, row in zip(places, cells, strict=True) if row["changes"][name] == results["base"][name]
        ]
        for place in base:
            ax.axvspan(place - 0.4, place + 0.4, color="0.9", zorder=0)
        for (claim, label), colour, marker in zip(CLAIMS.items(), COLOURS, MARKERS, strict=False):
            found = [row["errors"].get(claim) for row in cells]
            at = [place for place, one in zip(places, found, strict=True) if one is not None]
            means = [one["mean"] for one in found if one is not None]
            spread = [one["std"] or 0.0 for one in found if one is not None]
            # beside each other, because several lie on 0
            ax.errorbar(np.array(at) + 0.05 * (list(CLAIMS).index(claim) - 2), means, yerr=spread, color=colour,
                        marker=marker, markersize=4, linewidth=1, capsize=2, label=label)  # fmt: skip
        for place, row in zip(places, cells, strict=True):
            if row["failed"] is not None:
                ax.text(place, 0.25, "cannot be\ntrained", rotation=90, ha="center", va="center", fontsize="x-small")
        symbol = results["symbols"].get(name, "")
        ax.set_title(f"{name} {symbol}".strip(), fontsize="medium")
        ax.set_xticks(
            places, [shown(row["changes"][name]).replace(" to ", "\nto ") for row in cells], fontsize="x-small"
        )
        ax.set(xlim=(-0.5, len(cells) - 0.5), ylim=(-0.03, 0.6))
    for ax in axes[::across]:
        ax.set_ylabel("single-view error")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(CLAIMS), fontsize="small", frameon=False)
    fig.suptitle(f"One parameter at a time, the others as in `{results['preset']}` (shaded); {_seeds(results)}",
                 fontsize="medium")  # fmt: skip
    return fig


def _bars(results: dict[str, Any]) -> Any:
    """Error on single-view samples of every claim, one group of bars a cell."""
    cells = results["cells"]
    fig, (ax,) = figure(width=7.2, height=1.2 + 0.75 * len(cells))
    height = 0.8 / len(CLAIMS)
    for index, (claim, label) in enumerate(CLAIMS.items()):
        rows = [(place, row["errors"][claim]) for place, row in enumerate(cells) if claim in row["errors"]]
        at = np.array([-place - (index - 2) * height for place, _ in rows])
        means = [one["mean"] for _, one in rows]
        ax.barh(at, means, height=0.9 * height, color=COLOURS[index], label=label)
        ax.errorbar(means, at, xerr=[one["std"] or 0.0 for _, one in rows], color="0.4", linestyle="none", linewidth=1)
        for place, (_, one) in zip(at, rows, strict=True):
            ax.text(
                one["mean"] + (one["std"] or 0.0) + 0.008, place, f"{one['mean']:.3f}", va="center", fontsize="x-small"
            )
    for place, row in enumerate(cells):
        if row["failed"] is not None:
            ax.text(0.02, -place, "cannot be trained", va="center", fontsize="small")
    ax.set_yticks(-np.arange(len(cells)), [row["name"] for row in cells])
    ax.set(xlabel=f"error on single-view test samples ({_seeds(results)})", xlim=(0, 0.62))
    fig.legend(loc="outside lower center", ncols=len(CLAIMS), fontsize="small", frameon=False)
    return fig


def _seeds(results: dict[str, Any]) -> str:
    n = len(results["seeds"])
    return f"mean ± 1 sd over {n} seeds" if n > 1 else "one seed"
