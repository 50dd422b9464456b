"""Errors of the theory's claims and of its ensembles by members, from a simulation's results.json alone."""

from typing import Any

import numpy as np

from divkd.report.style import COLOURS, figure, mean_and_sd, points
from divkd.report.words import spread, views_of
from divkd.shared.kinds import CLAIMS
from divkd.shared.verdicts import verdicts


def misses(name: str, claim: dict[str, Any]) -> str:
    """What a claim misses, in words: its bound, its prediction, both, or nothing."""
    said = verdicts(name, claim)
    outside = said["why"] or ("outside the bound" if said["theorem"] else "not as expected")
    bound = outside if said["bound"] is False else ""
    return ", ".join(filter(None, (bound, "" if said["prediction"] else "not as predicted")))


def claims_bars(results: dict[str, Any]) -> Any:
    """Single-view test error of every claim, beside its bound and the finite-size prediction."""
    claims = {name: results["claims"][name] for name in CLAIMS if name in results["claims"]}
    fig, (ax,) = figure(width=7.2, height=1.2 + 0.42 * len(claims))
    rows = np.arange(len(claims))[::-1]
    means, deviations = mean_and_sd(claim["single_view_error"] for claim in claims.values())
    ax.barh(rows, means, color=COLOURS[6], height=0.62, label=_simulated(results))
    if len(results["seeds"]) > 1:
        ax.errorbar(means, rows, xerr=deviations, color=COLOURS[0], capsize=3, linestyle="none", linewidth=1)
    named: set[str] = set()
    views = views_of(results)
    expected = "expected of a control" if views == 2 else f"expected of {views} views"
    right = max(0.5, 1 - 1 / views)  # of the errors; the words come beyond
    for row, (name, claim) in zip(rows, claims.items(), strict=True):
        if claim["bound"] is not None:
            low, high = claim["bound"]
            label, style = ("theorem's bound", "-") if verdicts(name, claim)["theorem"] else (expected, ":")
            # an interval of 0 to 0.001 would be no wider than its own edge
            ax.barh(row, max(high - low, 0.004), left=low, height=0.86, facecolor="none", edgecolor=COLOURS[2],
                    linewidth=1.4, linestyle=style, label=None if label in named else label)  # fmt: skip
            named.add(label)
    predicted = [claim["predicted"] for claim in claims.values()]
    ax.plot(predicted, rows, "D", color=COLOURS[0], markersize=4, label="finite-size prediction", linestyle="none")
    alone = {row: claim["by_lotteries"] for row, claim in zip(rows, claims.values(), strict=True)
             if "by_lotteries" in claim}  # fmt: skip
    if alone:
        points(ax, [row - 0.4 for row in alone], alone.values(), sideways=True, fmt="|", color=COLOURS[3], markersize=5,
               linewidth=1, capsize=2, label="lotteries alone, ± 1 sd of a seed")  # fmt: skip
    for row, mean, (name, claim) in zip(rows, means, claims.items(), strict=True):
        ax.text(right + 0.045, row, f"{mean:.3f}", va="center", fontsize="small")
        ax.text(right + 0.105, row, misses(name, claim).replace(", ", "\n"), va="center", fontsize="x-small")
    ax.set(xlabel="error on single-view test samples", xlim=(0, right + 0.25))
    ax.set_xticks(np.arange(0, right + 0.01, 0.1))
    ax.set_yticks(rows, [CLAIMS[name].short for name in claims], fontsize="small")
    fig.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    return fig


def error_by_members(results: dict[str, Any]) -> Any:
    """Single-view test error of ensembles by their number of members, beside the finite-size and asymptotic theory."""
    rows = results["claims"]["ensemble"]["by_members"]
    keys = ("members", "single_view_error", "predicted", "predicted_from_views", "asymptotic")
    members, measured, predicted, given, asymptotic = (np.array([row[key] for row in rows]) for key in keys)
    deviations = np.array([row["std"] or 0.0 for row in rows])
    floor = 0.5 * np.concatenate([one[one > 0] for one in (asymptotic, predicted, measured)]).min(initial=1.0)
    fig, (ax,) = figure(width=6.4, height=4.2)
    ax.plot(members, asymptotic, color="0.5", linestyle=":", label=f"asymptotic ${law(views_of(results))}$")
    ax.plot(members, predicted, "s--", color=COLOURS[1], markersize=4, label="finite-size prediction")
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
    ax.plot(members, shown, color=COLOURS[2], marker="o", label=_simulated(results))
    if len(results["seeds"]) > 1:
        whiskers = [np.minimum(deviations, shown - floor), deviations]
        ax.errorbar(members, shown, yerr=whiskers, color=COLOURS[2], capsize=3, linestyle="none")
    zero = measured <= 0
    if zero.any():
        ax.plot(members[zero], shown[zero], "o", markerfacecolor="white", color=COLOURS[2], linestyle="none", zorder=4,
                clip_on=False, label="0 errors")  # fmt: skip
    ax.set(yscale="log", ylim=(floor, 1.0), xlabel="members of the ensemble $K$", xticks=members)
    ax.set_ylabel("error on single-view test samples")
    ax.legend(loc="lower left", fontsize="small")
    return fig


def law(views: int) -> str:
    """((V - 1)/V)^K, as a formula."""
    return "2^{-K}" if views == 2 else f"({views - 1}/{views})^K"


def _simulated(results: dict[str, Any]) -> str:
    return f"simulated, {spread(results, '± 1 sd over')}"
