"""Which views samples show, which networks learn, when, and how they memorise the rest: a simulation's figures."""

from typing import Any

import numpy as np

from divkd.report.style import COLOURS, figure, legend_below, panels
from divkd.report.words import views_of
from divkd.shared.kinds import CLAIMS

TAUGHT = {"labels": "labels", "distilled": "distilled from the ensemble", "self_distilled": "self-distilled"}


def view_strengths(results: dict[str, Any]) -> Any:
    """Strength of every class's views through flow time: on labels, distilled, self-distilled, side by side."""
    traces = {"labels": results["trace"], **results.get("traces", {})}
    fig, axes = figure(width=2.4 + 3.6 * len(traces), height=4.2, columns=len(traces))
    floor = 0.3 * results["config"]["init_scale"]
    top = 3 * max(np.max(trace["strengths"]) for trace in traces.values())
    for ax, (kind, trace) in zip(axes, traces.items(), strict=True):
        times, strengths = np.array(trace["times"]), np.array(trace["strengths"])  # (T,), (T, k, V) in units of varrho
        order, lines = strengths[-1].argsort(1, kind="stable")[:, ::-1], np.maximum(strengths, floor)
        stronger = order[:, 0]
        names = ("winning", "losing") if kind == "labels" else ("stronger", "weaker")
        for place, view in enumerate(order.T):
            colour, style, name = (COLOURS[1], "-", names[0]) if place == 0 else (COLOURS[2], "--", names[1])
            of_view = lines[:, range(len(view)), view]  # (T, k)
            label = [f"{name} view" if place < 2 else None, *[None] * (len(view) - 1)]
            ax.plot(times, of_view, color=colour, linestyle=style, linewidth=1.2, alpha=0.8, label=label)
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
    """Heat map: network x class, which views are known, before and after distillation."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    groups = results["learned"]
    fig, axes = panels(len(groups), min(len(groups), 3), 2.0 + 2.9 * min(len(groups), 3), 3.6, 0.6)
    colours, views = ["white", COLOURS[6], COLOURS[5], COLOURS[3]], views_of(results)
    for ax, (name, learned) in zip(axes, groups.items(), strict=True):
        known = np.array(learned)  # (n, k, V)
        if views == 2:
            known_views(ax, known, known @ (1, 2), ListedColormap(colours), "small")
        else:
            known_views(ax, known, known.sum(2), "Blues", "small" if views < 4 else "x-small")
        title = CLAIMS[name].short.replace("\n", " ") if name in CLAIMS else name
        ax.set_title(f"{title}: {known.mean():.0%} of the views", fontsize="medium")
    for ax in axes[::3]:
        ax.set_ylabel("network")
    if views == 2:  # of more, the shade is how many are known
        names = ("first view", "second view", "both")
        handles = [Patch(facecolor=colours[i], edgecolor="0.7", label=name) for i, name in enumerate(names, 1)]
        fig.legend(handles=handles, loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    return fig


def known_views(ax: Any, known: np.ndarray, values: np.ndarray, cmap: Any, size: float | str) -> None:
    """Networks x classes, shaded by `values`: in each cell the numbers of the views (n, k, V) that are known."""
    ax.imshow(values, aspect="auto", interpolation="nearest", cmap=cmap, vmin=0, vmax=max(3, 1.5 * known.shape[2]))
    for n, i in np.ndindex(values.shape):
        views = "".join(str(view + 1) for view in np.flatnonzero(known[n, i])) or "–"
        ax.text(i, n, views, ha="center", va="center", fontsize=size)
    ax.grid(False)
    ticks = np.arange(0, known.shape[1], max(1, known.shape[1] // 10))
    ax.set(xlabel="class", xticks=ticks, yticks=np.arange(len(known)))


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


def drawn_sample(results: dict[str, Any]) -> Any:
    """The P patches of a multi-view and of a single-view sample: which feature sits in which, with what coefficient."""
    samples, views = results["samples"], views_of(results)
    fig, axes = figure(width=9.6, height=4.6, columns=1, rows=len(samples))
    for ax, sample in zip(axes, samples, strict=True):
        feature, weight = np.array(sample["feature"]), np.array(sample["weight"])
        feature = np.where(weight > 0, feature, -1)  # of weight 0 it does not show
        own = (feature >= 0) & (feature // views == sample["label"])
        missing = own & (sample["view"] >= 0) & (feature % views != sample["view"])
        for rows, label, colour in (
            (own & ~missing, "own view", COLOURS[1]),
            (missing, "own view that is missing", COLOURS[2]),
            ((feature >= 0) & ~own, "another class's feature", COLOURS[5]),
        ):
            if rows.any():  # of no bars the legend would show another colour
                ax.bar(np.flatnonzero(rows), weight[rows], color=colour, label=label)
        for p in np.flatnonzero(feature >= 0):
            name = f"{feature[p] // views},{feature[p] % views + 1}"
            ax.text(p, weight[p] + 0.01, name, ha="center", va="bottom", fontsize=7)
        ax.set(xticks=np.arange(len(feature)), xlim=(-0.7, len(feature) - 0.3), ylim=(0, 1.25 * weight.max()))
        ax.set_ylabel("coefficient $z_p$")
        ax.tick_params(axis="x", labelsize=7)
        shown = "both views" if views == 2 else "all views"
        shown = shown if sample["view"] < 0 else f"view {sample['view'] + 1} only"
        ax.set_title(f"{sample['kind']} sample of class {sample['label']}: {shown}", fontsize="medium")
    axes[-1].set_xlabel("patch $p$ (above a bar: class, view; patches without a bar hold noise alone)")
    legend_below(fig, axes, 3, "small")
    return fig


def soft_labels(results: dict[str, Any]) -> Any:
    """What teachers say of the multi-view sample, class by class: the ensemble names the other classes that show."""
    sample = results["samples"][0]
    feature = np.array(sample["feature"])
    fig, axes = figure(width=9.6, height=3.6, columns=len(sample["soft_labels"]))
    for ax, (title, values) in zip(axes, sample["soft_labels"].items(), strict=True):
        classes = np.arange(len(values))
        shown = np.isin(classes, feature[feature >= 0] // views_of(results))
        own = classes == sample["label"]
        for rows, colour, label in (
            (own, COLOURS[1], "the sample's class"),
            (shown & ~own, COLOURS[5], "a class with a feature in the sample"),
            (~shown, "0.7", "no feature in the sample"),
        ):
            if rows.any():
                ax.bar(classes[rows], np.array(values)[rows], color=colour, label=label)
        ax.set(xlabel="class", ylim=(0, 1.02))
        ax.set_title(title, fontsize="medium")
    axes[0].set_ylabel("soft label")
    legend_below(fig, axes[:1], 3, "small")
    return fig
