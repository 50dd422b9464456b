"""The report of `divkd experiment feature-map`: where networks and ensembles look, and what channels respond to."""

from itertools import product
from typing import Any

from divkd.report.record import Figure, Report, Results, Table, counted, has
from divkd.report.style import COLOURS, figure
from divkd.report.words import difference, listed_seeds, one_seed, spread, trained_on
from divkd.shared.files import unpacked
from divkd.shared.stats import show

CELLS, ACROSS, CELL = 16, 4, 8  # of an image of `views`: its cells, those of a side, and their pixels
AGREEMENT = {
    "between": "two networks, one image",
    "with_others": "a network and the ensemble of all others, one image",
    "with_ensemble": "a network and the whole ensemble, one image",
    "other_image": "one network, two images",
}
LESS = {
    "between_minus_other_image": "two networks on one image less one network on two images",
    "with_others_minus_other_image": "a network and all others on one image less one network on two images",
}
SHARES = {
    "learned": "in the cell of a view that it has learned (one of 16)",
    "missed": "in the cell of a view that it misses (one of 16)",
    "own": "in the cells of all views of the class",
    "others": "in the cells of other classes' features",
    "rest": "in all other cells",
}
VIEW_COLOURS = (COLOURS[6], COLOURS[5], COLOURS[4], COLOURS[3])


def _sentence(results: Results, asked: Results) -> str:
    images = results["maps"][0]["images"]
    return (
        f"Maps of {results['members']} networks ({results['network']}) on {results['dataset']} and of their ensemble, "
        f"of {images:,} test images; {results['split']['train']:,} training images; {listed_seeds(results['seeds'])}."
    )


def _tables(results: Results) -> list[Table]:
    summary, of = results["summary"], f"mean over {results['maps'][0]['images']:,} test images ({spread(results)})"
    lines = [[words, show(summary[key])] for key, words in AGREEMENT.items()]
    lines += [[words, difference(summary[key])] for key, words in LESS.items()]
    tables = [Table(f"Correlation of maps over pixels, {of}", ["maps", "correlation"], lines)]
    lines = [["its top images", show(summary["purity"])], ["images drawn at random", show(summary["purity_chance"])]]
    heads = ["of", "share of the commonest class"]
    tables.append(Table(f"What channels respond to: mean over all channels ({spread(results)})", heads, lines))
    if "views" in results:
        known = results["views"]["summary"]
        lines = [
            [words, *(show(known[name]) if name in known else "" for name in (key, f"ensemble_{key}"))]
            for key, words in SHARES.items()
        ]
        cells = " and ".join(
            f"{show(known[f'cells_{key}'], 1)} {words}" for key, words in (("learned", "learned"), ("missed", "missed"))
        )
        notes = (
            "A cell has 1/16 = 0.062 of the pixels; learned: accuracy of 0.5 on images of the view alone, or more.",
            f"By seed, (network, class, view) cells: {cells}.",
        )
        caption = f"Share of a map that lies where, {spread(results)}"
        tables.append(Table(caption, ["where", "one network", "ensemble"], lines, notes=notes))
    return tables


def _summary(results: Results) -> list[str]:
    """How far maps agree, and of known views, whether networks look at what they have learned."""
    summary = results["summary"]
    lines = [
        f"Maps of two networks of the same image correlate by {show(summary['between'])}, those of one network of two "
        f"images by {show(summary['other_image'])}; a network's and that of the ensemble of all others by "
        f"{show(summary['with_others'])} ({spread(results)})."
    ]
    if "views" in results:
        known = results["views"]["summary"]
        missed = f", of one that it misses {show(known['missed'])}" if "missed" in known else ""
        lines.append(
            f"The cell of a view that a network has learned holds {show(known['learned'])} of its map{missed}; equal "
            f"shares would be {1 / CELLS:.3f} ({spread(results)})."
        )
    return lines


def _compared(names: list[str], runs: list[Results]) -> list[Table]:
    """Correlations of maps and purity, a column a run."""
    words = {**AGREEMENT, "purity": "share of the commonest class of a channel's top images"}
    lines = [[what, *(show(run["summary"][key]) for run in runs)] for key, what in words.items()]
    return [Table("Maps side by side, mean ± sd over seeds", ["correlation of maps of", *counted(names, runs)], lines)]


class Sheet:
    """Pictures (H, W) or (C, H, W) of bytes in rows and columns, each with a few words below, on one pair of axes."""

    def __init__(self, rows: int, columns: int, shape: list[int], left: float = 0.05) -> None:
        self.height = shape[-2] / shape[-1]  # of a picture, in widths
        self.shape, self.across, self.down = shape[-2:], 1.08, self.height + 0.24
        self.limits = (-left, columns * self.across), (-(rows - 1) * self.down - 0.2, self.height + 0.2)
        wide, high = (last - first for first, last in self.limits)
        self.fig, (self.ax,) = figure(1.1 * wide, 1.1 * high + 0.3)
        self.ax.grid(False)
        self.ax.axis("off")

    def corner(self, row: int, column: int) -> tuple[float, float]:
        """The lower left corner of a picture."""
        return column * self.across, -row * self.down

    def put(self, row: int, column: int, pixels: Any, below: str, **look: Any) -> None:
        """Draw one: by a colour map what has one channel or none."""
        if pixels.ndim == 3:
            pixels = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
        x, y = self.corner(row, column)
        look = {"cmap": "gray", "vmin": 0, "vmax": 255, "interpolation": "nearest", **look}
        self.ax.imshow(pixels, extent=(x, x + 1, y, y + self.height), **look)
        self.say(x + 0.5, y - 0.03, below, va="top")

    def say(self, x: float, y: float, words: str, **look: Any) -> None:
        """Write."""
        self.ax.text(x, y, words, **{"fontsize": 7, "ha": "center", **look})

    def box(self, row: int, column: int, top: float, left: float, side: float, colour: str) -> None:
        """A square of `side` pixels in a picture, whose upper left corner is at that pixel's, or as near as it fits."""
        from matplotlib.patches import Rectangle

        x, y = self.corner(row, column)
        high, wide = self.shape
        top, left = max(0, min(top, high - side)), max(0, min(left, wide - side))
        at = (x + left / wide, y + self.height * (1 - (top + side) / high))
        size = side / wide, self.height * side / high
        self.ax.add_patch(Rectangle(at, *size, fill=False, edgecolor=colour, linewidth=1.3))

    def finished(self, title: str) -> Any:
        """The figure."""
        self.ax.set(xlim=self.limits[0], ylim=self.limits[1], aspect="equal")
        self.fig.suptitle(title, fontsize=9)
        return self.fig


def saliency(results: Results) -> Any:
    """Images, and the maps of every network and of the ensemble, each scaled by itself; boxes are known views."""
    pictures = results["pictures"]
    images, maps, names = (unpacked(pictures["images"]), unpacked(pictures["maps"]), pictures["class_names"])
    heads = ["image", *(f"network {m}" for m in range(len(maps) - 1)), "ensemble"]
    sheet = Sheet(len(images), len(heads), pictures["images"]["shape"])
    for column, head in enumerate(heads):
        sheet.say(sheet.corner(0, column)[0] + 0.5, sheet.height + 0.06, head, fontsize=8)
    for row, pixels in enumerate(images):
        sheet.put(row, 0, pixels, names[pictures["labels"][row]])
        for place, of in enumerate(maps):
            sheet.put(row, 1 + place, of[row], f"p = {pictures['probability'][place][row]:.2f}", cmap="magma")
        for view, cells in enumerate(pictures["cells"][row] if pictures["cells"] else ()):
            for cell, column in product(cells, range(len(heads))):
                top, left = divmod(cell, ACROSS)
                sheet.box(row, column, CELL * top, CELL * left, CELL, VIEW_COLOURS[view % len(VIEW_COLOURS)])
    boxes = "; boxes: the views of the class" if pictures["cells"] else ""
    return sheet.finished(f"{trained_on(results)}; p: of the true class{boxes}")


def responses(results: Results) -> Any:
    """The test images to which single channels respond most, a row a channel."""
    channels, names = results["pictures"]["channels"], results["pictures"]["class_names"]
    shape = channels[0]["shape"]
    sheet, side = Sheet(len(channels), shape[0], shape, left=0.95), max(shape[-2:]) / 4
    for row, channel in enumerate(channels):
        for column, pixels in enumerate(unpacked(channel)):
            sheet.put(row, column, pixels, names[channel["labels"][column]])
            middle, across = channel["peaks"][column]
            sheet.box(row, column, middle + 0.5 - side / 2, across + 0.5 - side / 2, side, COLOURS[5])
        words = f"network {channel['network']}\nchannel {channel['channel']}\none class: {channel['purity']:.2f}"
        sheet.say(-0.06, sheet.corner(row, 0)[1] + sheet.height / 2, words, ha="right", va="center")
    return sheet.finished(trained_on(results))


def by_view(results: Results) -> Any:
    """The share of a map in the cell of a view against the accuracy on that view alone: a mark a (class, view)."""
    fig, axes = figure(8.6, 3.8, columns=2)
    for ax, alone, title in zip(axes, (True, False), ("single networks", "their ensemble"), strict=True):
        rows = [row for row in results["views"]["rows"] if (row["member"] is not None) == alone]
        pairs = [(accuracy, share) for row in rows for both in zip(row["accuracy"], row["share"], strict=True)
                 for accuracy, share in zip(*both, strict=True) if share is not None]  # fmt: skip
        ax.plot([one for one, _ in pairs], [other for _, other in pairs], linestyle="", marker="o", markersize=3.5,
                alpha=0.45 if alone else 0.8, markeredgewidth=0, color=COLOURS[1 if alone else 2])  # fmt: skip
        ax.axhline(1 / CELLS, color="0.35", linestyle=":", linewidth=0.9)
        ax.axvline(0.5, color="0.75", linewidth=0.8)
        ax.set(title=f"{title} (n = {len(pairs)})", xlim=(-0.03, 1.03), xlabel="accuracy on the view alone")
    top = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(0, top)
    axes[0].set_ylabel("share of the map in the view's cell")
    fig.suptitle(f"{trained_on(results)}; dotted: equal shares, 1/16", fontsize=9)
    return fig


FIGURES = (
    Figure("saliency", saliency, "Where each network and their ensemble look in the same test images: the gradient of "
           "the true class's log-probability, its size over colours, each map scaled by itself", one_seed),
    Figure("responses", responses, "The test images to which single channels of two networks respond most, boxed where "
           "they do; channels spread evenly from those whose images are most of one class on", one_seed),
    Figure("by_view", by_view, "How much of a map lies in the cell of a view, against the accuracy on images that show "
           "the view alone: a mark a network, class and view", fits=has("views")),
)  # fmt: skip
REPORT = Report(("experiment feature-map",), _sentence, _tables, FIGURES, _compared, summary=_summary)
