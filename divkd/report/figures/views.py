"""Which views networks learn, when, and how they memorise the rest, from a simulation's results.json alone."""

from typing import Any

import numpy as np

from divkd.report.style import COLOURS, figure

TAUGHT = {"labels": "labels", "distilled": "distilled from the ensemble", "self_distilled": "self-distilled"}


def view_strengths(results: dict[str, Any]) -> Any:
    """Strength of every class's two views through flow time: on labels, distilled, self-distilled, side by side."""
    traces = {"labels": results["trace"], **results.get("traces", {})}
    fig, axes = figure(width=2.4 + 3.6 * len(traces), height=4.2, columns=len(traces))
    floor = 0.3 * results["config"]["init_scale"]
    top = 3 * max(np.max(trace["strengths"]) for trace in traces.values())
    for ax, (kind, trace) in zip(axes, traces.items(), strict=True):
        times, strengths = np.array(trace["times"]), np.array(trace["strengths"])  # (T,), (T, k, 2) in units of varrho
        stronger = strengths[-1].argmax(1)
        names = ("winning", "losing") if kind == "labels" else ("stronger", "weaker")
        lines = np.maximum(strengths, floor)
        for view, name, colour, style in zip((stronger, 1 - stronger), names, COLOURS[1:], ("-", "--"), strict=False):
            for i, one in enumerate(view):
                ax.plot(times, lines[:, i, one], color=colour, linestyle=style, linewidth=1.2, alpha=0.8,
                        label=None if i else f"{name} view")  # fmt: skip
        if kind == "labels":
            _foreseen(ax, trace, times[:1], lines[:1], stronger)
        ax.set(yscale="log", xlabel=r"flow time $t$", ylim=(floor * 0.8, top), xlim=(0, None))
        ax.set_title(TAUGHT[kind], fontsize="medium")
        ax.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
        # views arrive late on labels, and before the middle as a rule where there is a teacher
        if kind != "self_distilled":  # its lines are those of the panel beside it, and would lie under the legend
            ax.legend(loc="upper left" if kind == "labels" else "center right", fontsize="small")
    axes[0].set_ylabel(r"view strength $\Lambda_{i,\ell}\,/\,\varrho$")
    fig.suptitle(f"One line per class and view: seed {results['trace']['seed']}, one network each", fontsize="medium")
    return fig


def _foreseen(ax: Any, trace: dict[str, Any], start: np.ndarray, first: np.ndarray, won: np.ndarray) -> None:
    """The lottery: which view was foreseen to win, and when."""
    predicted = np.array(trace["predicted_winner"])
    look = {"color": COLOURS[0], "markersize": 5}
    for i in np.argsort(won != predicted, kind="stable"):  # who was right lies below
        ax.plot(start, first[:, i, predicted[i]], "o", clip_on=False, zorder=3, **look)
    hits = int((won == predicted).sum())
    ax.plot([], [], "o", label=f"foreseen to win\n(right in {hits} of {len(won)})", **look)
    due = np.array(trace["predicted_times"])
    ax.plot(due, np.ones(len(due)), "|", color=COLOURS[0], markersize=12, zorder=3, label="foreseen time")


def views_learned(results: dict[str, Any]) -> Any:
    """Heat map: network x class, the first view known, the second, both or none, before and after distillation."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    groups = results["learned"]
    titles = {"members": "members", "distilled": "distilled", "self_distilled": "self-distilled"}
    fig, axes = figure(width=2.0 + 2.9 * len(groups), height=4.2, columns=len(groups))
    colours = ["white", COLOURS[6], COLOURS[5], COLOURS[3]]
    for ax, (name, learned) in zip(axes, groups.items(), strict=True):
        known = np.array(learned)  # (n, k, 2)
        shade = {"cmap": ListedColormap(colours), "vmin": 0, "vmax": 3}
        known_views(ax, known, known[:, :, 0] + 2 * known[:, :, 1], shade, "small")
        ax.set_title(f"{titles[name]}: {known.mean():.0%} of the views", fontsize="medium")
    axes[0].set_ylabel("network")
    handles = [
        Patch(facecolor=colour, edgecolor="0.7", label=label)
        for colour, label in zip(colours[1:], ("first view", "second view", "both"), strict=True)
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    return fig


def known_views(ax: Any, known: np.ndarray, values: np.ndarray, shade: dict[str, Any], size: float | str) -> None:
    """Networks x classes, shaded by `values`: in each cell the numbers of the views (n, k, 2) that are known."""
    ax.imshow(values, aspect="auto", interpolation="nearest", **shade)
    for n, i in np.ndindex(values.shape):
        ax.text(i, n, ("–", "1", "2", "12")[known[n, i] @ (1, 2)], ha="center", va="center", fontsize=size)
    ax.grid(False)
    ax.set(xlabel="class", xticks=np.arange(0, known.shape[1], max(1, known.shape[1] // 10)))
    ax.set_yticks(np.arange(len(known)))


def memorisation(results: dict[str, Any]) -> Any:
    """p_y through flow time on training samples of three kinds: what is learned by views, and what by their noise."""
    trace = results["trace"]
    labels = {
        "multi_view": "multi-view",
        "single_view_known": "single-view, with the view that the network learned",
        "single_view_unknown": "single-view, with the other one",
    }
    fig, (ax,) = figure(width=6.4, height=4.0)
    for (name, values), colour, style in zip(
        trace["probability"].items(), COLOURS[1:], ("-", "--", "-."), strict=False
    ):
        ax.plot(trace["times"], values, color=colour, linestyle=style, linewidth=1.6, label=labels[name])
    times, values = np.array(trace["times"]), np.array(list(trace["probability"].values()))
    moved = (np.abs(values - values[:, :1]) > 0.01).any(0)
    began = times[moved.argmax()]  # the race before it leaves every p_y at 1 / k: 0 where none ever moves
    ax.set(xlabel=r"flow time $t$, from where $p_y$ moves", ylabel=r"$p_y$ on training samples (geometric mean)")
    ax.set(xlim=(max(0, began - 0.1 * (times[-1] - began)), None), ylim=(0, 1.02))
    ax.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
    ax.set_title(f"seed {trace['seed']}, member {trace['member']}", fontsize="medium")
    ax.legend(loc="best", fontsize="small")
    return fig
