"""Which views of generated images networks have learned: a training run's figures, from the probes' accuracies."""

from typing import Any

import numpy as np

from divkd.report.style import COLOURS, figure, points
from divkd.report.words import learned, spread
from divkd.shared.kinds import MODELS

MISSED = 0.5


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
