"""The report of `divkd experiment split-channels`: networks on parts of a layer's channels, and their ensembles."""

from typing import Any

from divkd.report.published import split_channels, split_table
from divkd.report.record import Figure, Report, Results, Table, counted, unique
from divkd.report.style import COLOURS, figure, legend_below, one_scale, points
from divkd.report.words import MEASURE, difference, labels, listed_seeds, spread, trained_on
from divkd.shared.kinds import PARTS
from divkd.shared.stats import show

KEYS = ("acc", "cal_nll", "views_missed", "train_acc", "nll")
CUT = {"a": "a, behind the first group", "b": "b, behind the second group"}
LOOKS = {"part": ("o", "alone"), "parts": ("s", "ensemble")}  # marker and name of what is drawn


def _sentence(results: Results, asked: Results) -> str:
    split = results["split"]
    return (
        f"{results['members']} fresh networks for every split of the channels of a trained {results['network']} on "
        f"{results['dataset']}, cut at {' and '.join(results['width'])}; {split['train']:,} training, "
        f"{split['validation']:,} validation, {split['test']:,} test images; {listed_seeds(results['seeds'])}."
    )


def _tables(results: Results) -> list[Table]:
    keys = [key for key in KEYS if key in results["summary"][0]]
    lines = []
    for row in results["summary"]:
        place = ["", "", ""] if row["cut"] is None else _place(results, row)
        values = (show(row[key], MEASURE[key].digits) for key in keys)
        lines.append([PARTS[row["model"]], *place, str(row["networks"]), *values])
    heads = ["answer", "cut", "channels at the cut", "of which a network sees", "networks", *labels(*keys)]
    caption = f"{results['dataset']}, {results['network']}: test images ({spread(results)})"
    notes = ("Of networks alone and of pairs: the mean of a seed's, so that sd is over seeds.",)
    page_only = tuple(labels("nll"))
    quality = Table(caption, heads, lines, 4, notes, page_only=page_only)
    lines = []
    for row in results["differences"]:
        against = {**{name: row[f"against_{name}"] for name in ("model", "cut", "split")}}
        other = PARTS[against["model"]] + (f", 1/{against['split']}" if against["split"] != row["split"] else "")
        values = (difference(row[key]) for key in keys)
        lines.append([PARTS[row["model"]], row["cut"], f"1/{row['split']}", other, *values])
    caption = "Paired differences over seeds, mean and 95 % interval (none where n is 1)"
    heads = ["answer", "cut", "of which a network sees", "minus", *labels(*keys)]
    growth = [[row["cut"], f"1/{row['split']}", difference(row["acc"])] for row in results["growth"]]
    more = "Gain of the ensemble in accuracy, less the gain where all networks see all channels"
    return [
        quality,
        Table(caption, heads, lines, 4, page_only=page_only),
        Table(more, ["cut", "of which a network sees", "gain minus gain"], growth, 2),
    ]


def _place(results: Results, row: Results) -> list[str]:
    return [row["cut"], str(results["width"][row["cut"]]), f"1/{row['split']}"]


def by_kind(results: Results) -> dict[tuple[str, str | None, int | None], Results]:
    """The summary's rows by model, cut and split."""
    return {(row["model"], row["cut"], row["split"]): row for row in results["summary"]}


def splits(results: Results, cut: str) -> list[int]:
    """The splits of a cut."""
    return [row["split"] for row in results["summary"] if (row["model"], row["cut"]) == ("part", cut)]


def _summary(results: Results) -> list[str]:
    """What a network loses with its channels, and what the ensemble loses, by cut."""
    of, lines = by_kind(results), []
    for cut in results["width"]:
        last = splits(results, cut)[-1]
        alone, together = (
            f"{of[model, cut, 1]['acc']['mean']:.3f} to {of[model, cut, last]['acc']['mean']:.3f}" for model in LOOKS
        )
        (growth,) = (row["acc"] for row in results["growth"] if (row["cut"], row["split"]) == (cut, last))
        told = "one seed, no interval" if growth["low"] is None else "95 % interval in brackets"
        lines.append(
            f"Cut {cut}, from all channels to 1/{last} of them: the accuracy of one network goes from {alone}, that of "
            f"an ensemble of {results['members']} from {together} ({spread(results, 'means over')}); its gain grows by "
            f"{difference(growth)} ({told})."
        )
    return lines


def _published(results: Results) -> list[Table]:
    of, own = by_kind(results), []
    for cut, width in results["width"].items():
        for split in splits(results, cut):
            single, ensemble = (of[model, cut, split]["acc"] for model in LOOKS)
            own.append({"dataset": results["dataset"], "network": results["network"], "cut": cut, "split": split,
                        "input_channels": width, "single": single, "ensemble": ensemble})  # fmt: skip
    return [split_table(own)]


def _compared(names: list[str], runs: list[Results]) -> list[Table]:
    """The accuracy of every answer, a column a run."""
    found = [by_kind(run) for run in runs]
    kinds = unique(kind for one in found for kind in one)
    lines = [
        [PARTS[model], cut or "", f"1/{split}" if split else "",
         *(show(one[model, cut, split]["acc"]) if (model, cut, split) in one else "" for one in found)]
        for model, cut, split in kinds
    ]  # fmt: skip
    heads = ["answer", "cut", "of which a network sees", *counted(names, runs)]
    return [Table("Accuracy side by side, mean ± sd over seeds", heads, lines, 3)]


def split_errors(results: Results) -> Any:
    """Test error against n, a column a cut; above the run's own, below relative to one network's at n = 1."""
    cuts, of = list(results["width"]), by_kind(results)
    fig, axes = figure(4.2 * len(cuts) + 1.2, 6.6, columns=len(cuts), rows=2)
    above, under = axes[: len(cuts)], axes[len(cuts) :]
    whole = 1 - of["network", None, None]["acc"]["mean"]
    for cut, ax, relative in zip(cuts, above, under, strict=True):
        parts = splits(results, cut)
        one = 1 - of["part", cut, 1]["acc"]["mean"]
        for place, (model, (marker, name)) in enumerate(LOOKS.items()):
            rows = [of[model, cut, split]["acc"] for split in parts]
            errors = [{**row, "mean": 1 - row["mean"]} for row in rows]
            look: Any = {"marker": marker, "color": COLOURS[place + 1], "capsize": 3, "label": f"here, {name}"}
            points(ax, parts, errors, **look)
            relatives = [{"mean": error["mean"] / one, "std": None} for error in errors]
            points(relative, parts, relatives, **look, linewidth=2, zorder=3)
        for model, marker in (("pair_same", "v"), ("pair_apart", "^")):
            places = [split for split in parts if (model, cut, split) in of]
            pairs = [of[model, cut, split]["acc"] for split in places]
            ax.plot(places, [1 - row["mean"] for row in pairs], linestyle="", marker=marker, color=COLOURS[3],
                    markerfacecolor="none", label=f"here, {PARTS[model]}")  # fmt: skip
        ax.axhline(whole, color="0.35", linestyle=":", linewidth=0.9, label=f"here, {PARTS['network']}")
        _beside(relative, cut)
        for which in (ax, relative):
            which.set_xscale("log", base=2)
            which.set_xticks(ticks := sorted({*parts, 1, 2, 4, 8}), [str(tick) for tick in ticks])
            which.set_xlim(0.9, ticks[-1] * 1.1)
        ax.set(title=f"cut {CUT[cut]}", ylabel="test error")
        relative.set(
            xlabel="n: a network sees 1/n of the channels", ylabel="test error, relative to\none network, n = 1"
        )
    for together in (above, under):
        one_scale(together)
    legend_below(fig, axes, 3)
    fig.suptitle(f"{trained_on(results)}; {spread(results)}; ensembles of {results['members']}", fontsize=9)
    return fig


def _beside(ax: Any, cut: str) -> None:
    """The published errors of a cut, relative to one network's of each width at n = 1."""
    rows = [row for row in split_channels() if row["cut"] == cut]
    widths = list(dict.fromkeys(row["network"] for row in rows))
    for place, network in enumerate(widths):
        of_width = [row for row in rows if row["network"] == network]
        one = 1 - of_width[0]["single"]["mean"]
        for key, style in (("single", "-"), ("ensemble", "--")):
            ax.plot([row["split"] for row in of_width], [(1 - row[key]["mean"]) / one for row in of_width],
                    linestyle=style, color=str(0.4 + 0.12 * place), linewidth=1,
                    label=f"published, {network} (ensemble: dashed)" if key == "single" else None)  # fmt: skip


SHOWN = (
    "Test error of networks that see 1/n of the channels at a cut, alone and in ensembles of one size for all n; "
    "below, relative to one network that sees all, beside the published ones (CIFAR-100)"
)
REPORT = Report(
    ("experiment split-channels",), _sentence, _tables, (Figure("split_errors", split_errors, SHOWN),),
    _compared, summary=_summary, published=_published,
)  # fmt: skip
