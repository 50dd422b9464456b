"""The report of `divkd simulate gaussian`: what ensembles gain on inputs without views, and how much they vary."""

from typing import Any

from divkd.report.record import Figure, Report, Results, Table
from divkd.report.style import figure, legend_below, look
from divkd.report.words import listed_seeds, spread
from divkd.shared.stats import show

LITTLE = 0.01  # a gain below it counts as none


def _sentence(results: Results, asked: Results) -> str:
    world, count = results["config"], len(results["cells"])
    return (
        f"Ensembles of {world['members']} networks on inputs without views: Gaussian and a mixture, {count} cells of "
        f"{world['train_samples']:,} training samples; {listed_seeds(results['seeds'])}."
    )


def _gain(gain: Results) -> str:
    return f"{gain['mean']:+.4f}" + ("" if gain["se"] is None else f" ± {gain['se']:.4f}")


def _tables(results: Results) -> list[Table]:
    """Every cell's accuracies and gain, and the variance of ensembles by their members."""
    members, lines = results["config"]["members"], []
    for cell in results["cells"]:
        error = 1 - cell["single_acc"]["mean"]
        share = f"{cell['gain']['mean'] / error:.2f}" if error else ""
        left = show(cell["variance_left"][-1]) if cell["variance_left"] else ""
        accuracies = [show(cell[key], 4) for key in ("single_acc", "ensemble_acc")]
        lines.append([cell["name"], *accuracies, _gain(cell["gain"]), share, left, show(cell["train_acc"])])
    half = max(members // 2, 1)
    heads = ["cell", "one network", f"ensemble of {members}", "gain ± its standard error", "of one's error",
             f"variance left by {half}", "train accuracy of one"]  # fmt: skip
    notes = (
        f"Gain: ensemble minus one, in accuracy on test samples without label noise. Median over cells "
        f"{results['summary']['median_gain']:.4f}.",
        f"Variance left: that of the outputs of ensembles of {half}, as a share of one network's, {1 / half:.3f} where "
        "members are independent.",
    )
    tables = [Table(f"Accuracy on inputs without views ({spread(results)})", heads, lines, notes=notes,
                    page_only=(heads[-1],))]  # fmt: skip
    by_cell = [[one["mean"] for one in cell["variance_left"]] for cell in results["cells"] if cell["variance_left"]]
    if by_cell:
        shares = [
            [str(k), *(f"{value:.3f}" for value in (sum(at) / len(at), min(at), max(at), 1 / k))]
            for k, at in enumerate(zip(*by_cell, strict=True), 1)
        ]
        caption = f"Variance of an ensemble's outputs, as a share of one network's ({spread(results, 'means over')})"
        tables.append(Table(caption, ["members", "mean over cells", "least", "most", "1 / members"], shares))
    return tables


def _summary(results: Results) -> list[str]:
    """Where ensembles gain, and where they do not."""
    summary, cells = results["summary"], results["cells"]
    more = [f"{cell['name']} ({_gain(cell['gain'])})" for cell in cells if cell["gain"]["mean"] >= LITTLE]
    removed = [
        cell["gain"]["mean"] / (1 - cell["single_acc"]["mean"]) for cell in cells if cell["single_acc"]["mean"] < 1
    ]
    ends = f"; of one network's error they remove {min(removed):.0%} to {max(removed):.0%}" if removed else ""
    return [
        f"On inputs without views, ensembles of {results['config']['members']} gain {summary['median_gain']:.4f} in "
        f"accuracy in the median of {len(cells)} cells and {summary['largest']['gain']:.4f} at most, in "
        f"{summary['largest']['cell']} ({spread(results, 'means over')}){ends}.",
        f"They gain {LITTLE} or more in {', '.join(more)}." if more else f"In no cell do they gain {LITTLE} or more.",
    ]


def gains(results: Results) -> Any:
    """Left every cell's gain with its standard error; right the variance of ensembles by members, a line a cell."""
    fig, (left, right) = figure(9.0, 4.6, columns=2)
    kinds = list(dict.fromkeys((cell["inputs"], cell["target"]) for cell in results["cells"]))
    for place, cell in enumerate(results["cells"]):
        kind = cell["inputs"], cell["target"]
        style = look(kinds.index(kind)) | {"markersize": 4, "label": f"{kind[0]} inputs, {kind[1]} target"}
        bar = cell["gain"]["se"] or 0.0
        left.errorbar(cell["gain"]["mean"], -place, xerr=bar, capsize=2, linestyle="", **style)
        shares = [one["mean"] for one in cell["variance_left"]]
        right.plot(range(1, len(shares) + 1), shares, linewidth=0.8, alpha=0.8, **style)
    for at in (0, LITTLE):
        left.axvline(at, color="0.4", linewidth=0.8, linestyle="-" if at == 0 else ":")
    more = [(name, key) for name, key in (("margin", "margin"), ("label noise", "noise"))]
    names = [" and ".join(name for name, key in more if cell[key]) or "neither" for cell in results["cells"]]
    left.set_yticks([-place for place in range(len(names))], names, fontsize=8)
    left.set_xlabel("gain in accuracy ± its standard error", fontsize=9)
    expected = range(1, max([2, *(len(cell["variance_left"]) for cell in results["cells"])]) + 1)
    right.plot(expected, [1 / k for k in expected], color="0.3", linestyle="--", linewidth=1.2, label="1 / members")
    right.set(xscale="log", yscale="log")
    right.minorticks_off()
    right.set_xticks(expected, [str(k) for k in expected])
    right.set_yticks([1, 0.5, 0.25, 0.125], ["1", "1/2", "1/4", "1/8"])
    right.set_xlabel("members", fontsize=9)
    right.set_ylabel("variance of outputs, share of one network's", fontsize=9)
    legend_below(fig, [left, right], columns=3)
    fig.suptitle(
        f"Ensembles of {results['config']['members']} on inputs without views; {spread(results, 'mean over')}",
        fontsize=9,
    )
    return fig


SHOWN = "What ensembles gain in each cell, and how the variance of their outputs falls with their members"
FIGURES = (Figure("gains", gains, SHOWN),)
REPORT = Report(("simulate gaussian",), _sentence, _tables, FIGURES, summary=_summary)
