"""The report of `divkd experiment feature-map`: where networks and ensembles look, and what channels respond to."""

from typing import Any

from divkd.report.record import Figure, Report, Results, Table, has
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


def _bare(ax: Any) -> None:
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)


def _image(ax: Any, pixels: Any) -> None:
    """An image (C, H, W) of bytes, in gray where it has one channel."""
    gray = {"cmap": "gray", "vmin": 0, "vmax": 255} if len(pixels) == 1 else {}
    ax.imshow(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0), **gray)
    _bare(ax)


def saliency(results: Results) -> Any:
    """Images, and the maps of every network and of the ensemble, each scaled by itself; boxes are known views."""
    pictures = results["pictures"]
    images, maps, names = (unpacked(pictures["images"]), unpacked(pictures["maps"]), pictures["class_names"])
    columns = 1 + len(maps)
    fig, axes = figure(1.15 * columns + 0.6, 1.32 * len(images) + 0.5, columns, len(images))
    for row, pixels in enumerate(images):
        _image(axes[row * columns], pixels)
        axes[row * columns].set_ylabel(names[pictures["labels"][row]], fontsize=8)
        for place, of in enumerate(maps):
            ax = axes[row * columns + 1 + place]
            ax.imshow(of[row], cmap="magma", vmin=0, vmax=255)
            _bare(ax)
            ax.set_xlabel(f"p = {pictures['probability'][place][row]:.2f}", fontsize=7, labelpad=1)
        for ax in axes[row * columns : (row + 1) * columns] if pictures["cells"] else ():
            _boxes(ax, pictures["cells"][row])
    for ax, title in zip(axes, ["image", *(f"network {m}" for m in range(len(maps) - 1)), "ensemble"], strict=False):
        ax.set_title(title, fontsize=8)
    boxes = "; boxes: the views of the class" if pictures["cells"] else ""
    fig.suptitle(f"{trained_on(results)}; p: of the true class{boxes}", fontsize=9)
    return fig


def _boxes(ax: Any, cells: list[list[int]]) -> None:
    for view, places in enumerate(cells):
        for cell in places:
            row, column = divmod(cell, ACROSS)
            _box(ax, CELL * column - 0.5, CELL * row - 0.5, CELL, VIEW_COLOURS[view % len(VIEW_COLOURS)])


def _box(ax: Any, left: float, top: float, side: float, colour: str) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor=colour, linewidth=1.3))


def responses(results: Results) -> Any:
    """The test images to which single channels respond most, a row a channel."""
    channels, names = results["pictures"]["channels"], results["pictures"]["class_names"]
    columns = channels[0]["shape"][0]
    fig, axes = figure(1.05 * columns + 1.4, 1.12 * len(channels) + 0.5, columns, len(channels))
    for row, channel in enumerate(channels):
        for place, pixels in enumerate(unpacked(channel)):
            ax = axes[row * columns + place]
            _image(ax, pixels)
            row_of, column_of = channel["peaks"][place]
            side = max(pixels.shape[1:]) / 4
            _box(ax, column_of - side / 2, row_of - side / 2, side, COLOURS[5])
            ax.set_xlabel(names[channel["labels"][place]], fontsize=7, labelpad=1)
        label = f"network {channel['network']}\nchannel {channel['channel']}\none class: {channel['purity']:.2f}"
        axes[row * columns].set_ylabel(label, fontsize=7, rotation=0, ha="right", va="center")
    fig.suptitle(f"{trained_on(results)}", fontsize=9)
    return fig


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
REPORT = Report(("experiment feature-map",), _sentence, _tables, FIGURES, summary=_summary)
