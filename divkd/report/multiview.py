"""The pictures of a multi-view simulation, from its results.json alone."""

from pathlib import Path
from typing import Any

import numpy as np

from divkd.report.drawn import drawn_sample, soft_labels
from divkd.report.style import COLOURS, figure, save
from divkd.report.views import memorisation, view_strengths, views_learned


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write every picture that `results`, the content of results.json, has the numbers for into `folder`."""
    paths = [
        view_strengths(results, folder),
        memorisation(results, folder),
        error_by_members(results, folder),
        claims_bars(results, folder),
    ]
    if "learned" in results:
        paths.append(views_learned(results, folder))
    return [*paths, drawn_sample(results, folder), soft_labels(results, folder)]


NAMES = {
    "single": "single",
    "ensemble": "ensemble",
    "trained_jointly": "trained jointly (sum)",
    "trained_jointly_average": "trained jointly (average)",
    "distilled": "distilled",
    "ensemble_of_distilled": "ensemble of distilled",
    "distilled_without_others": "distilled without\nother classes' features",
    "distilled_temperature": "distilled at\ntemperature T",
    "distilled_mixed": "distilled by\nt CE + (1 - t) H",
    "self_distilled": "self-distilled",
    "labels_only": "labels only,\nsame flow time",
}


def claims_bars(results: dict[str, Any], folder: Path) -> Path:
    """Single-view test error of every claim, beside the theorem's bound and the finite-size prediction."""
    claims = {name: results["claims"][name] for name in NAMES if name in results["claims"]}
    fig, (ax,) = figure(width=7.2, height=1.2 + 0.42 * len(claims))
    rows = np.arange(len(claims))[::-1]
    errors = [claim["single_view_error"] for claim in claims.values()]
    means = np.array([error["mean"] for error in errors])
    spread = np.array([error["std"] or 0.0 for error in errors])
    n = errors[0]["n"]
    label = "simulated" + (f", ± 1 sd over {n} seeds" if n > 1 else ", one seed")
    ax.barh(rows, means, color=COLOURS[6], height=0.62, label=label)
    if n > 1:
        ax.errorbar(means, rows, xerr=spread, color=COLOURS[0], capsize=3, linestyle="none", linewidth=1)
    drawn = False
    for row, claim in zip(rows, claims.values(), strict=True):
        if claim["bound"] is not None:
            low, high = claim["bound"]
            # an interval of 0 to 0.001 would be no wider than its own edge
            ax.barh(row, max(high - low, 0.004), left=low, height=0.86, facecolor="none", edgecolor=COLOURS[2],
                    linewidth=1.4, label=None if drawn else "theorem's bound, or that of a single network")  # fmt: skip
            drawn = True
    predicted = [claim["predicted"] for claim in claims.values()]
    ax.plot(predicted, rows, "D", color=COLOURS[0], markersize=4, label="finite-size prediction", linestyle="none")
    for row, mean, claim in zip(rows, means, claims.values(), strict=True):
        ax.text(
            0.545, row, f"{mean:.3f}" + ("" if claim["holds"] else "  does not hold"), va="center", fontsize="small"
        )
    ax.set(xlabel="error on single-view test samples", xlim=(0, 0.7))
    ax.set_xticks(np.arange(0, 0.51, 0.1))
    ax.set_yticks(rows, [NAMES[name] for name in claims], fontsize="small")
    fig.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    return save(fig, folder / "claims.png")


def error_by_members(results: dict[str, Any], folder: Path) -> Path:
    """Single-view test error of ensembles by their number of members, beside the finite-size and asymptotic theory."""
    rows = results["claims"]["ensemble"]["by_members"]
    members = np.array([row["members"] for row in rows])
    measured = np.array([row["single_view_error"] for row in rows])
    spread = np.array([row["std"] or 0.0 for row in rows])
    predicted = np.array([row["predicted"] for row in rows])
    asymptotic = np.array([row["asymptotic"] for row in rows])
    floor = 0.5 * np.concatenate([asymptotic, predicted[predicted > 0], measured[measured > 0]]).min()
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
