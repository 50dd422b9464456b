"""The report of `divkd simulate window` and `divkd simulate ablations`: cells, each with its errors and views."""

from typing import Any

import numpy as np

from divkd.report import summaries
from divkd.report.record import Figure, Report, Results, Table, unique
from divkd.report.style import COLOURS, figure, legend_below, look, mean_and_sd, panels, points
from divkd.report.words import listed_seeds, spread
from divkd.shared import kinds
from divkd.shared.stats import show

CLAIMS = {
    name: kinds.CLAIMS[name].short.replace("\n", " ")
    for name in ("single", "ensemble", "distilled", "self_distilled", "labels_only")
}
VIEWS = {name: words.short for name, words in kinds.VIEWS.items() if name != "lottery_accuracy"}
COLUMNS = 3  # of panels
MOST = 0.5  # the error at the dark end of a grid's scale: of a network that misses half


def _sentence(results: Results, asked: Results) -> str:
    what = "Ablations"
    if _is_map(results):
        what = "Two parameters are changed together" if _is_grid(results) else "One parameter at a time is changed"
    members = f", ensembles of {asked['members']} networks" if "members" in asked else ""
    return (
        f"{what}, in the multi-view theory: {len(results['cells'])} cells around preset {results['preset']}{members}, "
        f"{results['base']['classes']} classes unless changed; {listed_seeds(results['seeds'])}."
    )


def _tables(results: Results) -> list[Table]:
    """Every cell: errors on single-view samples and shares of views, ± 1 sd over seeds.

    A cell that failed has "none" there; a note says why.
    """
    lines, failures = [], []
    for row in results["cells"]:
        values = [row["errors"].get(name) for name in CLAIMS] + [row["views"].get(name) for name in VIEWS]
        cells = ["" if one is None else show(one) for one in values]
        if row["failed"] is not None:
            failures.append(f"{row['name']}: {row['failed']}")
            cells = ["none", *[""] * (len(values) - 1)]
        lines.append([row["name"], *cells])
    failures += [
        f"Predicted to end by {name}: {', '.join(f'{CLAIMS[claim]} at {at:.3f}' for claim, at in limits.items())}."
        for name, limits in results.get("limits", {}).items()
    ]
    caption = f"Errors on single-view test samples and shares of views ({spread(results)})"
    table = Table(caption, ["cell", *CLAIMS.values(), *VIEWS.values()], lines, notes=tuple(failures))
    curves = [
        [
            str(views),
            members,
            show(error, 4),
            show(row["predicted"][members], 4),
            f"{(1 - 1 / views) ** int(members):.4f}",
        ]
        for views, row in _by_views(results).items()
        for members, error in row["members"].items()
    ]
    heads = ["views", "members", "measured", "predicted here", "asymptotic"]
    caption = f"Single-view test error of ensembles by views and members ({spread(results)})"
    return [table, *([Table(caption, heads, curves)] if curves else [])]


def _by_views(results: Results) -> dict[int, Results]:
    """The cells of a map that differ in the views of a class, as far as they could be trained."""
    cells = (row for row in results["cells"] if list(row["changes"]) == ["views"] and row.get("members"))
    return {row["changes"]["views"]: row for row in cells}


def _is_map(results: Results) -> bool:
    return bool(results["command"] == "simulate window")


def _is_grid(results: Results) -> bool:
    return _is_map(results) and all(len(row["changes"]) == 2 for row in results["cells"])


def shown(value: Any) -> str:
    """A parameter's value: a number, or the two ends of an interval."""
    if isinstance(value, (list, tuple)):
        return shown(value[0]) if value[0] == value[1] else " to ".join(shown(part) for part in value)
    return f"{value:g}"


def window(results: Results) -> Any:
    """One panel a parameter: error on single-view samples of every claim at each of its values."""
    groups: dict[str, list[Results]] = {}
    for row in results["cells"]:
        groups.setdefault(next(iter(row["changes"])), []).append(row)
    across = min(3, len(groups))
    fig, axes = panels(len(groups), across, max(3.6 * across, 7.2), 2.3, 0.9)
    for ax, (name, cells) in zip(axes, groups.items(), strict=True):
        for place, row in enumerate(cells):
            if row["changes"][name] == results["base"][name]:
                ax.axvspan(place - 0.4, place + 0.4, color="0.9", zorder=0)
            if row["failed"] is not None:
                ax.text(place, 0.25, "cannot be\ntrained", rotation=90, ha="center", va="center", fontsize="x-small")
        for index, (claim, label) in enumerate(CLAIMS.items()):
            errors = {place: row["errors"][claim] for place, row in enumerate(cells) if claim in row["errors"]}
            # beside each other, because several lie on 0
            points(ax, np.array(list(errors)) + 0.05 * (index - 2), errors.values(), markersize=4, linewidth=1,
                   capsize=2, label=label, **look(index))  # fmt: skip
        given = [row["changes"][name] for row in cells]
        for claim, limit in results.get("limits", {}).get(name, {}).items():  # dotted, where a claim is to end
            at = np.interp(limit, sorted(given), np.argsort(given), np.nan, np.nan)
            ax.axvline(at, color=COLOURS[list(CLAIMS).index(claim)], linestyle=":", linewidth=1.2, zorder=0)
        ax.set_title(_named(name, results), fontsize="medium")
        values = [shown(row["changes"][name]).replace(" to ", "\nto ") for row in cells]
        ax.set_xticks(range(len(cells)), values, fontsize="x-small")
        tops = [one["mean"] + (one["std"] or 0) for row in cells for of, one in row["errors"].items() if of in CLAIMS]
        ax.set(xlim=(-0.5, len(cells) - 0.5), ylim=(-0.03, max([0.6, *(top + 0.03 for top in tops)])))
    for ax in axes[::across]:
        ax.set_ylabel("single-view error")
    legend_below(fig, axes[:1], size="small")
    what = f"One parameter at a time, the others as in `{results['preset']}` (shaded)"
    foreseen = "\ndotted: where claims are foreseen to end" if results.get("limits") else ""
    fig.suptitle(f"{what}; {spread(results, 'mean ± 1 sd over')}{foreseen}", fontsize="medium")
    return fig


def members(results: Results) -> Any:
    """Error on single-view samples of ensembles by their members, a colour a number of views."""
    fig, (ax,) = figure(width=6.8, height=4.6)
    least, none = 1.0, []
    for index, (views, row) in enumerate(_by_views(results).items()):
        at = np.array([int(number) for number in row["members"]])
        errors, deviations = map(np.array, mean_and_sd(row["members"].values()))
        law, some, colour = (1 - 1 / views) ** at, errors > 0, look(index)["color"]
        # an error of 0 has no place on a logarithmic axis, nor the part of a bar that reaches below
        bars = [np.minimum(deviations, 0.9 * errors)[some], deviations[some]]
        ax.errorbar(at[some], errors[some], yerr=bars, linestyle="none", capsize=2, markersize=5,
                    label=f"$V = {views}$", **look(index))  # fmt: skip
        none.append((at[~some], look(index)))
        if views > 1:
            ax.plot(at, mean_and_sd(row["predicted"].values())[0], "--", color=colour, linewidth=1.2)
            ax.plot(at, law, ":", color=colour, linewidth=1.2)
            least = min(least, *errors[some], law.min())
        ax.set_xticks(at)
    for places, how in (one for one in none if len(one[0])):
        ax.plot(places, np.full(len(places), 0.5 * least), linestyle="none", markerfacecolor="white", markersize=5,
                clip_on=False, zorder=4, **how)  # fmt: skip
    ax.plot([], [], "o", color="0.3", markerfacecolor="white", markersize=5, label="no errors")
    ax.plot([], [], "--", color="0.3", label="finite-size prediction")
    ax.plot([], [], ":", color="0.3", label="$((V - 1)/V)^K$")
    ax.set(yscale="log", ylim=(0.5 * least, 1.0), xlabel="members of the ensemble $K$")
    ax.set_ylabel("error on single-view test samples")
    ax.set_title(f"Ensembles by the views of a class; {spread(results, 'mean ± 1 sd over')}", fontsize="medium")
    legend_below(fig, [ax], 3, "small")
    return fig


def grid(results: Results) -> Any:
    """Heat maps: error on single-view samples over the values of two parameters, a panel a claim."""
    cells = results["cells"]
    first, second = cells[0]["changes"]
    # a value in JSON may be a list, that a dictionary does not take as a key
    rows, columns = (unique(shown(row["changes"][name]) for row in cells) for name in (first, second))
    claims = {name: label for name, label in CLAIMS.items() if any(name in row["errors"] for row in cells)}
    claims = claims or dict(list(CLAIMS.items())[:1])  # where no cell can be trained
    fig, axes = panels(len(claims), COLUMNS, 1.6 + 2.7 * COLUMNS, 0.7 + 0.4 * len(rows), 0.9)
    shaded = None
    for ax, (name, label) in zip(axes, claims.items(), strict=False):
        errors = np.full((len(rows), len(columns)), np.nan)
        for row in cells:
            at = rows.index(shown(row["changes"][first])), columns.index(shown(row["changes"][second]))
            errors[at] = row["errors"][name]["mean"] if name in row["errors"] else np.nan
            text = "none" if np.isnan(errors[at]) else f"{errors[at]:.3f}"
            ax.text(*at[::-1], text, ha="center", va="center", fontsize="small",
                    color="white" if errors[at] > 0.6 * MOST else "black")  # fmt: skip
            if all(row["changes"][of] == results["base"][of] for of in (first, second)):
                ax.plot(at[1], at[0] - 0.32, "v", color=COLOURS[2], markersize=5)
        shaded = ax.imshow(errors, cmap="Blues", vmin=0, vmax=MOST, aspect="auto")
        ax.grid(False)
        ax.set_xticks(range(len(columns)), [name.replace(" to ", "\nto ") for name in columns], fontsize="x-small")
        ax.set_yticks(range(len(rows)), rows, fontsize="x-small")
        ax.set_title(label, fontsize="medium")
    for place, ax in enumerate(axes[: len(claims)]):
        if place % COLUMNS == 0:
            ax.set_ylabel(_named(first, results))
        if place + COLUMNS >= len(claims):
            ax.set_xlabel(_named(second, results))
    fig.colorbar(shaded, ax=axes, label="single-view error", extend="max")
    what = f"The other parameters as in `{results['preset']}`, whose own pair is marked where it is in the grid"
    fig.suptitle(f"{what}; {spread(results, 'mean over')}", fontsize="medium")
    return fig


def _named(parameter: str, results: Results) -> str:
    """A parameter with its symbol."""
    return f"{parameter} {results['symbols'].get(parameter, '')}".strip()


def ablations(results: Results) -> Any:
    """Error on single-view samples of every claim, one group of bars a cell."""
    cells = results["cells"]
    fig, (ax,) = figure(width=7.2, height=1.2 + 0.75 * len(cells))
    height = 0.8 / len(CLAIMS)
    for index, (claim, label) in enumerate(CLAIMS.items()):
        errors = {place: row["errors"][claim] for place, row in enumerate(cells) if claim in row["errors"]}
        at = -np.array(list(errors)) - (index - 2) * height
        means, deviations = mean_and_sd(errors.values())
        ax.barh(at, means, height=0.9 * height, color=COLOURS[index], label=label)
        ax.errorbar(means, at, xerr=deviations, color="0.4", linestyle="none", linewidth=1)
        for place, mean, deviation in zip(at, means, deviations, strict=True):
            ax.text(mean + deviation + 0.008, place, f"{mean:.3f}", va="center", fontsize="x-small")
    for place, row in enumerate(cells):
        if row["failed"] is not None:
            ax.text(0.02, -place, "cannot be trained", va="center", fontsize="small")
    ax.set_yticks(-np.arange(len(cells)), [row["name"] for row in cells])
    ax.set(xlabel=f"error on single-view test samples ({spread(results, 'mean ± 1 sd over')})", xlim=(0, 0.62))
    fig.legend(loc="outside lower center", ncols=len(CLAIMS), fontsize="small", frameon=False)
    return fig


FIGURES = (
    Figure("window", window, "Errors on single-view samples as one parameter at a time is changed",
           fits=lambda results: _is_map(results) and not _is_grid(results)),
    Figure("members", members,
           "Errors of ensembles on single-view samples by their members, for several numbers of views",
           fits=lambda results: len(_by_views(results)) > 1),
    Figure("grid", grid, "Errors on single-view samples as two parameters are changed together", fits=_is_grid),
    Figure("ablations", ablations, "Errors on single-view samples of every ablation, by claim",
           fits=lambda results: not _is_map(results)),
)  # fmt: skip
REPORT = Report(
    ("simulate window", "simulate ablations"), _sentence, _tables, FIGURES, vector=True, summary=summaries.sweep
)
