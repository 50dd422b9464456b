"""Which views of generated images networks have learned: a training run's figures, from the probes' accuracies."""

from typing import Any

import numpy as np

from divkd.report.record import unique
from divkd.report.style import COLOURS, beside, figure, legend_below, look, panels, points
from divkd.report.words import learned, spread
from divkd.shared.kinds import MODELS

MISSED = 0.5
CLAIMED = (0.2, 0.05)  # the least that one network is to miss, and the most that the ensemble may


def called(row: dict[str, Any]) -> str:
    """The network or the ensemble that a row, or a summary of rows, is of."""
    if row["model"] == "deep_ensemble":
        return "one network" if row["members"] == 1 else f"deep ensemble of {row['members']}"
    return f"{MODELS[row['model']]}, {learned(row['method'])}"


def views_known(results: dict[str, Any]) -> Any:
    """Heat map of the first seed: networks and ensembles x (class, view), shaded by the accuracy on the view's probes.

    Members of one model stand below each other, and what they answer together above them; a dot is below `MISSED`.
    """
    size = max(row["members"] for row in results["views"]["rows"] if row["model"] == "deep_ensemble")
    rows = [row for row in results["views"]["rows"] if row["seed"] == results["seeds"][0]
            and (row["model"] != "deep_ensemble" or row["members"] in (1, size))]  # fmt: skip
    models = list(dict.fromkeys((row["model"], row["method"]) for row in rows))
    rows.sort(key=lambda row: (models.index((row["model"], row["method"])), row["members"] == 1, row["member"] or -1))
    values = np.array([row["accuracy"] for row in rows])  # (n, k, L)
    classes, views = values.shape[1:]
    flat = values.reshape(len(rows), -1)
    fig, (ax,) = figure(3.0 + 0.16 * flat.shape[1], 1.4 + 0.2 * len(rows))
    image = ax.imshow(flat, aspect="auto", interpolation="nearest", cmap="Blues", vmin=0, vmax=1)
    below = np.argwhere(flat < MISSED)
    ax.plot(below[:, 1], below[:, 0], ".", color=COLOURS[2], markersize=4)
    for place in range(1, classes):
        ax.axvline(views * place - 0.5, color="white", linewidth=2)
    for place in range(1, len(rows)):
        same = all(rows[place][key] == rows[place - 1][key] for key in ("model", "method"))
        ax.axhline(place - 0.5, color="white", linewidth=0.5 if same else 3)
    ax.grid(False)
    every = max(1, classes // 20)
    ax.set_xticks(views * np.arange(0, classes, every) + (views - 1) / 2, range(0, classes, every), fontsize=7)
    ax.set_yticks(range(len(rows)), [_named(row) for row in rows], fontsize=7)
    ax.set(xlabel=f"class, {views} views each")
    fig.colorbar(image, ax=ax, label="accuracy, one view alone", fraction=0.03, pad=0.01)
    ax.set_title(f"Views known, seed {results['seeds'][0]}; a dot: below {MISSED:g}", fontsize=9)
    return fig


def _named(row: dict[str, Any]) -> str:
    if row["member"] is None or (row["members"] == 1 and row["model"] != "deep_ensemble"):
        return called(row)
    return f"{'network' if row['model'] == 'deep_ensemble' else 'member'} {row['member']}"


def views_missed(results: dict[str, Any]) -> Any:
    """The share of (network, class) pairs with a view missed, of single networks, ensembles and students."""
    rows = [row for row in results["views"]["summary"] if not row["alone"] or row["members"] == 1]
    fig, (ax,) = figure(6.4, 1.0 + 0.27 * len(rows))
    for index, of_students in enumerate((False, True)):
        mine = [place for place, row in enumerate(rows) if (row["model"] != "deep_ensemble") == of_students]
        look = {"fmt": "os"[index], "color": COLOURS[index + 1], "capsize": 3}
        points(ax, [-place for place in mine], [rows[place]["missed"] for place in mine], sideways=True, **look)
    ax.set_yticks([-place for place in range(len(rows))], [called(row) for row in rows], fontsize=8)
    ax.set(xlabel=f"(network, class) pairs with a view below {MISSED:g}", xlim=(-0.02, None))
    ax.set_title(f"Views missed, {results['network']}, {spread(results)}", fontsize=9)
    return fig


def views_map(results: dict[str, Any]) -> Any:
    """Of a sweep: what one network, the teachers' ensemble and students miss against an option, a dot a seed.

    A panel for each combination of the other options. One network is the mean of all of its seed's. Dashed are
    `CLAIMED`.
    """
    against = results["against"]
    others = [name for name in results["vary"] if name not in (against, "seeds")]
    cells = {cell["name"]: cell for cell in results["cells"]}
    places = {value: place for place, value in enumerate(results["vary"].get(against, ()))}
    shares: dict[tuple[str, ...], dict[str, dict[int, list[float]]]] = {}
    for row in results["rows"]:
        cell = cells[row["cell"]]
        if "views_missed_member" not in row or (row["model"] == "deep_ensemble" and row["members"] != cell["members"]):
            continue
        panel = shares.setdefault(tuple(f"{name} {cell['changes'][name]}" for name in others), {})
        at = places[cell["changes"][against]]
        if row["model"] == "deep_ensemble":
            panel.setdefault("one network", {}).setdefault(at, []).append(row["views_missed_member"])
        panel.setdefault(called(row), {}).setdefault(at, []).append(row["views_missed"])
    named = unique(name for panel in shares.values() for name in panel)
    across = min(4, len(shares))
    fig, axes = panels(len(shares), across, max(2.3 * across, 6.0), 2.2, 0.6 + 0.1 * len(named))
    for ax, (title, lines) in zip(axes, shares.items(), strict=True):
        for name, found in lines.items():
            index = named.index(name)
            moved = beside(index, len(named), 0.08)
            means = [float(np.mean(found[place])) for place in sorted(found)]
            ax.plot(
                [place + moved for place in sorted(found)], means, markersize=4, linewidth=1, label=name, **look(index)
            )
            for place, values in found.items():
                ax.plot([place + moved] * len(values), values, ".", color=look(index)["color"], markersize=3, alpha=0.6)
        for limit in CLAIMED:
            ax.axhline(limit, color="0.6", linestyle="--", linewidth=0.8, zorder=0)
        ax.set_title(", ".join(title), fontsize=8)
        ax.set_xticks(range(len(places)), list(places), fontsize=8)
        ax.set(xlim=(-0.4, len(places) - 0.6), ylim=(-0.04, 1.04), xlabel=against)
    for ax in axes[::across]:
        ax.set_ylabel("classes with a view missed")
    legend_below(fig, axes, columns=2)
    return fig
