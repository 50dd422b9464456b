"""The report of `divkd simulate plane`: teachers in two dimensions and the points that steps move."""

from typing import Any

import numpy as np

from divkd.report import summaries
from divkd.report.record import Figure, Report, Results, Table
from divkd.report.style import COLOURS, figure
from divkd.report.words import difference, listed_seeds, one_seed, spread
from divkd.shared.kinds import INPUTS
from divkd.shared.stats import show

NAMES = {"clean": "Training points", **{kind: INPUTS[kind] for kind in ("gaussian", "ods")}}
MARKERS = (("o", "black"), ("s", "white"))  # of the classes: shape and filling


def _sentence(results: Results, asked: Results) -> str:
    world = results["config"]
    return (
        f"The practice's premise in two dimensions: {world['members']} small teachers on {world['points']} points "
        f"of two moons, and those points moved by steps of {world['step_size']}; {listed_seeds(results['seeds'])}."
    )


def _tables(results: Results) -> list[Table]:
    """The teachers' pairwise KL by kind of point, what ODS adds to Gaussian steps, and how well the teachers fit."""
    config, rows, summary = results["config"], results["rows"], results["summary"]
    lines = []
    bases = [summary[base]["mean"] for base in ("clean", "gaussian")]
    for kind, kl in summary.items():
        ratios = [f"{kl['mean'] / base:.2f}" if base else "" for base in bases]
        apart = f"{sum(row['apart'][kind] for row in rows)} of {config['points'] * len(rows)}"
        lines.append([kind, show(kl, 4), *ratios, apart])
    heads = ["points", "pairwise KL", "times clean", "times Gaussian", f"above {results['apart_above']:g} nats"]
    void = [row["seed"] for row in rows if row["void"]]
    more = results["ods_minus_gaussian"]
    interval = "one seed" if more["low"] is None else "with a 95 % interval over seeds"
    notes = (
        f"ODS minus Gaussian, {interval}: {difference(more)} nats.",
        f"Lowest training accuracy of a teacher: {min(min(row['train_acc']) for row in rows):.3f}"
        + (f"; VOID for seeds {void}, whose teachers do not fit." if void else "."),
    )
    size = f"{config['members']} teachers, {config['points']} points"
    return [Table(f"Teachers' pairwise KL on two moons, nats ({size}, {spread(results)})", heads, lines, notes=notes)]


def planes(runs: list[Results]) -> Any:
    """The figure, a row a run: training points, then the points that Gaussian and ODS steps made of them."""
    fig, axes = figure(8.6, 0.4 + 4.1 * len(runs), columns=3, rows=len(runs))
    for row, results in enumerate(runs):
        handles = _row(fig, axes[3 * row : 3 * row + 3], results)
    fig.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 7), fontsize=8, frameon=False,
               columnspacing=1.2, handletextpad=0.4)  # fmt: skip
    config, row = runs[0]["config"], runs[0]["rows"][0]
    fitted = f"training accuracy {np.mean(row['train_acc']):.3f}{', VOID: they do not fit' if row['void'] else ''}"
    steps = f"steps of length {config['step_size'] * 2**0.5:.2g} (Gaussian: in the mean square)"
    fig.suptitle(f"{config['members']} teachers, {fitted}; {steps}; seed {row['seed']}", fontsize=9)
    return fig


def _row(fig: Any, axes: list[Any], results: Results) -> list[Any]:
    """The three panels of one run; returns the legend's handles."""
    from matplotlib.colors import LinearSegmentedColormap

    greys = LinearSegmentedColormap.from_list("greys", ["1.0", "0.5"])  # lines in colours stay legible on all of it
    shown, row = results["picture"], results["rows"][0]
    points, labels = np.array(shown["points"]), np.array(shown["labels"])
    kl = np.array([[float(value) for value in line.split()] for line in shown["grid"]["kl"]])
    top = float(np.quantile(kl, 0.95)) or 1.0
    for ax, (kind, name) in zip(axes, NAMES.items(), strict=True):
        shade = ax.imshow(kl, cmap=greys, vmin=0, vmax=top, origin="lower", extent=(0, 1, 0, 1), zorder=0)
        handles = _boundaries(ax, shown["grid"])
        mark: dict[str, Any] = {"markeredgecolor": "black", "linestyle": ""}
        for label, (marker, fill) in enumerate(MARKERS):
            handles += ax.plot(*points[labels == label].T, marker, color=fill, markersize=3.2, markeredgewidth=0.6,
                               label=f"class {label}", zorder=4, **mark)  # fmt: skip
        if kind != "clean":
            perturbed = np.array(shown["moved"][kind])
            ax.plot(*np.stack([points, perturbed], -1).transpose(1, 2, 0), color="0.25", linewidth=0.5, zorder=3)
            handles += ax.plot(*perturbed.T, "o", color=COLOURS[5], markersize=3.6, markeredgewidth=0.4, clip_on=False,
                               label="moved point", zorder=5, **mark)  # fmt: skip
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="$x_1$")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_ticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.tick_params(labelsize=8, labelleft=kind == "clean")
        ax.grid(False)
        times = f" ({row[kind] / row['clean']:.3g} x clean)" if kind != "clean" and row["clean"] else ""
        apart = f"{row['apart'][kind]} of {row['n']} above {results['apart_above']:g} nats"
        ax.set_title(f"{name}: {row[kind]:.2g} nats{times}\n{apart}", fontsize=9)
    axes[0].set_ylabel("$x_2$")
    bar = fig.colorbar(shade, ax=axes, location="bottom", extend="max", shrink=0.5, aspect=40, pad=0.02)
    bar.set_label("teachers' pairwise KL, nats", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return handles


def _boundaries(ax: Any, grid: Results) -> list[Any]:
    """A line of its own colour where each teacher's decision changes; returns the legend's handles."""
    from matplotlib.lines import Line2D

    axis = np.linspace(0, 1, grid["size"])
    handles = []
    for m, rows in enumerate(grid["decisions"]):
        votes = np.array([[int(digit) for digit in row] for row in rows])
        line = Line2D([], [], color=COLOURS[1 + m % 6], linestyle="-" if m < 6 else "--", label=f"teacher {m}")
        if votes.min() < votes.max():
            ax.contour(axis, axis, votes, levels=[0.5], colors=[line.get_color()], linestyles=[line.get_linestyle()],
                       linewidths=1.1, zorder=2)  # fmt: skip
        handles.append(line)
    return handles


SHOWN = "Teachers' decisions, training points, and the points that Gaussian and ODS steps make of them"
FIGURES = (Figure("plane", lambda results: planes([results]), SHOWN, one_seed),)
REPORT = Report(("simulate plane",), _sentence, _tables, FIGURES, vector=True, summary=summaries.plane)
