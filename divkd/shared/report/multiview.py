"""The pictures of a multi-view simulation, from its results.json alone."""

from pathlib import Path
from typing import Any

import numpy as np

from divkd.shared.report.style import COLOURS, figure, save


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write view_strengths.png and error_by_members.png into `folder`; `results` is the content of results.json."""
    return [view_strengths(results, folder), error_by_members(results, folder)]


def view_strengths(results: dict[str, Any], folder: Path) -> Path:
    """Strength of every class's two views through flow time, the lottery's predicted winner told apart."""
    trace = results["trace"]
    times = np.array(trace["times"])
    strengths = np.array(trace["strengths"])  # (T, k, 2), in units of varrho
    predicted = np.array(trace["predicted_winner"])
    won = strengths[-1].argmax(1)
    fig, (ax,) = figure(width=6.4, height=4.2)
    floor = 0.3 * results["config"]["init_scale"]
    labels: set[str] = set()
    for label, colour, style in (("winning view", COLOURS[1], "-"), ("losing view", COLOURS[2], "--")):
        for i in range(strengths.shape[1]):
            view = won[i] if label == "winning view" else 1 - won[i]
            line = np.maximum(strengths[:, i, view], floor)
            ax.plot(times, line, color=colour, linestyle=style, linewidth=1.2, alpha=0.8,
                    label=None if label in labels else label)  # fmt: skip
            labels.add(label)
            if predicted[i] == view:
                ax.plot(times[:1], line[:1], "o", color=COLOURS[0], markersize=5, clip_on=False, zorder=3)
    hits = int((won == predicted).sum())
    ax.plot([], [], "o", color=COLOURS[0], markersize=5, label=f"predicted to win (right in {hits} of {len(won)})")
    ax.set(yscale="log", xlabel=r"flow time $t$", ylabel=r"view strength $\Lambda_{i,\ell}\,/\,\varrho$")
    # linear time: the race ends in finite time, and its start at t = 0 belongs in the picture
    ax.set_ylim(floor * 0.8, 3 * strengths.max())
    ax.set_xlim(0, None)
    ax.set_title(f"One line per class and view: seed {trace['seed']}, member {trace['member']}", fontsize="medium")
    ax.legend(loc="upper left", bbox_to_anchor=(0.0, 0.86), fontsize="small")
    return save(fig, folder / "view_strengths.png")


def error_by_members(results: dict[str, Any], folder: Path) -> Path:
    """Single-view test error of ensembles by their number of members, beside the finite-size and asymptotic theory."""
    rows = results["claims"]["ensemble"]["by_members"]
    members = np.array([row["members"] for row in rows])
    measured = np.array([row["single_view_error"] for row in rows])
    spread = np.array([row["std"] or 0.0 for row in rows])
    predicted = np.array([row["predicted"] for row in rows])
    asymptotic = np.array([row["asymptotic"] for row in rows])
    floor = 0.5 * min(asymptotic.min(), predicted.min(), *measured[measured > 0])
    fig, (ax,) = figure(width=6.4, height=4.2)
    ax.plot(members, asymptotic, color="0.5", linestyle=":", label=r"asymptotic $2^{-K}$")
    ax.plot(members, predicted, "s--", color=COLOURS[1], markersize=4, label="finite-size prediction")
    given = np.array([row["predicted_from_views"] for row in rows])
    ax.plot(
        members,
        np.maximum(given, floor),
        "^-.",
        color=COLOURS[3],
        markersize=4,
        label="the same, given the views learned",
    )
    # an error of 0 has no place on a logarithmic axis: it is shown at the lower edge, hollow
    shown = np.maximum(measured, floor)
    n = rows[0]["n"]
    label = "simulated" + (f", ± 1 sd over {n} seeds" if n > 1 else ", one seed")
    ax.plot(members, shown, color=COLOURS[2], marker="o", label=label)
    if n > 1:
        whiskers = [np.minimum(spread, shown - floor), spread]
        ax.errorbar(members, shown, yerr=whiskers, color=COLOURS[2], capsize=3, linestyle="none")
    zero = measured <= 0
    if zero.any():
        ax.plot(members[zero], shown[zero], "o", markerfacecolor="white", color=COLOURS[2], linestyle="none", zorder=4,
                clip_on=False, label="0 errors")  # fmt: skip
    ax.set(yscale="log", xlabel="members of the ensemble $K$", ylabel="error on single-view test samples")
    ax.set_xticks(members)
    ax.set_ylim(floor, 1.0)
    ax.legend(loc="lower left", fontsize="small")
    return save(fig, folder / "error_by_members.png")
