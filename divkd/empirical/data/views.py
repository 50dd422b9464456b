"""Generated images whose classes have several visual features each: the multi-view distribution as pictures.

    x = clip(1/2 + sum_(f in V(X)) z_f T_f[cell_f] + sum_c b T'[c] + n, 0, 1),    n ~ N(0, noise^2) per pixel

following Allen-Zhu and Li (2020), definition of D, with the 16 cells of 8 x 8 pixels of an image as its patches. Each
of the k classes has L features (views), textures T_f of 6 x 6 pixels and 3 channels, drawn from N(0, 1) and scaled to a
mean square of 1. V(X) holds every view of the label y, and each feature of another class with probability s / k, as the
simulator's does. Each lies in a cell of its own, drawn at random, where it is moved by 0 to 2 pixels a side. z is
`contrast` times U[0.8, 1.2], and for other classes' features `other_contrast` times that. Of a share mu of the images
one own view, drawn at random, is missing: its z is `missing` times the others'. A cell without a feature holds, with
probability `clutter`, a texture T' that no other image has, at `contrast` times U[0.8, 1.2]. Of features for which
there are no cells, those of other classes stay out.

Which features an image shows is restated here and not shared with the simulator: `divkd.theory.data` draws for patches
that hold C_p shares of a feature, and a joint function would draw other bits for it.

An image is a function of (seed of the data, its split, its number), so that --train-images N is a prefix of more.
"""

from typing import NamedTuple

import numpy as np
import torch

from divkd.empirical.data.names import ViewsConfig
from divkd.empirical.data.splits import ImageData, Split, moments
from divkd.shared.seeds import rng

SIDE, CELL, PATCH, ACROSS = 32, 8, 6, 4  # pixels of an image, of a cell and of a texture; cells a side
CELLS = ACROSS**2
BLOCK = 500  # images that are drawn by one generator
SPREAD = (0.8, 1.2)  # of z
MOST_IMAGES = 10_000  # training images, where --train-images asks for no other number
NONE = -1  # no feature in a cell; no view is missing


class Drawn(NamedTuple):
    """What N images show, before it is painted."""

    labels: np.ndarray  # (N,)
    missing: np.ndarray  # (N,) the own view that is missing, or NONE
    feature: np.ndarray  # (N, CELLS) class * L + view of the feature in a cell, or NONE
    weight: np.ndarray  # (N, CELLS) its z, 0 where there is none
    corner: np.ndarray  # (N, CELLS, 2) where in its cell a texture begins
    rest: np.ndarray  # (N, 3, SIDE, SIDE) float32, clutter and noise


def textures(config: ViewsConfig) -> np.ndarray:
    """T (k L, 3, PATCH, PATCH), float32: the features, those of a class beside each other."""
    return _unit(rng(config.data_seed, "views/textures"), (config.classes * config.class_views, 3, PATCH, PATCH))


def draw(config: ViewsConfig, split: str, count: int) -> Drawn:
    """The first `count` images of `split`; those of "probe" show every view of their class."""
    blocks = [_block(config, split, number) for number in range(-(-count // BLOCK))]
    return Drawn(*(np.concatenate(parts)[:count] for parts in zip(*blocks, strict=True)))


def _block(config: ViewsConfig, split: str, number: int) -> Drawn:
    generator, views = rng(config.data_seed, f"views/{split}", number), config.class_views
    features, rows = config.classes * views, np.arange(BLOCK)
    labels = (BLOCK * number + rows) % config.classes  # balanced, in every prefix
    share = 0.0 if split == "probe" else config.single_view
    missing = np.where(generator.random(BLOCK) < share, generator.integers(views, size=BLOCK), NONE)
    own = np.arange(features)[None] // views == labels[:, None]
    present = own | (generator.random((BLOCK, features)) < config.others / config.classes)

    # the features present come first, the own ones before all others, and then nothing
    key = np.where(own, 0, np.where(present, 1, 2)) + generator.random((BLOCK, features))
    held = min(features, CELLS)
    chosen = key.argsort(1)[:, :held]
    here = np.take_along_axis(present, chosen, 1)
    cell = generator.random((BLOCK, CELLS)).argsort(1)[:, :held]  # cells are exchangeable
    feature = np.full((BLOCK, CELLS), NONE)
    np.put_along_axis(feature, cell, np.where(here, chosen, NONE), 1)

    z = config.contrast * generator.uniform(*SPREAD, (BLOCK, CELLS))
    mine = (feature != NONE) & (feature // views == labels[:, None])
    lost = mine & (missing != NONE)[:, None] & (feature % views == missing[:, None])
    weight = np.select([feature == NONE, lost, mine], [0, config.missing * z, z], config.other_contrast * z)
    corner = generator.integers(0, CELL - PATCH + 1, size=(BLOCK, CELLS, 2))

    rest = config.noise * generator.standard_normal((BLOCK, 3, SIDE, SIDE), np.float32)
    filled = (feature == NONE) & (generator.random((BLOCK, CELLS)) < config.clutter)
    image, where = np.nonzero(filled)
    fresh = _unit(generator, (len(image), 3, PATCH, PATCH)) * z[filled][:, None, None, None].astype(np.float32)
    _paint(rest, image, where, corner, fresh)
    return Drawn(labels, missing, feature, weight, corner, rest)


def paint(config: ViewsConfig, drawn: Drawn) -> np.ndarray:
    """The images (N, 3, SIDE, SIDE) uint8 of what was drawn."""
    canvas = drawn.rest + np.float32(0.5)
    image, where = np.nonzero(drawn.weight)
    z = drawn.weight[image, where].astype(np.float32)[:, None, None, None]
    _paint(canvas, image, where, drawn.corner, textures(config)[drawn.feature[image, where]] * z)
    return (canvas.clip(0, 1) * 255).round().astype(np.uint8)


def probes(config: ViewsConfig) -> list[Split]:
    """For each view, fresh images that show it alone of the views of their class: all others are left out.

    They are the same images for every view, with all that they hold beside.
    """
    drawn = draw(config, "probe", config.test_images)
    return [_split(config, alone(config, drawn, view)) for view in range(config.class_views)]


def alone(config: ViewsConfig, drawn: Drawn, view: int) -> Drawn:
    """What was `drawn`, with no own view but `view`."""
    others = (drawn.feature // config.class_views == drawn.labels[:, None]) & (drawn.feature != NONE)
    others &= drawn.feature % config.class_views != view
    return drawn._replace(weight=np.where(others, 0, drawn.weight))


def read_views(config: ViewsConfig, train_images: int | None = None) -> ImageData:
    """The data set: `train_images` (10,000 unless said) to learn from, half as many as test to validate."""
    counts = {"train": train_images or MOST_IMAGES, "validation": -(-config.test_images // 2)}
    counts["test"] = config.test_images
    train, validation, test = (_split(config, draw(config, name, count)) for name, count in counts.items())
    rule = f"generated, seed {config.data_seed}: each split by generators of its own"
    names = tuple(map(str, range(config.classes)))
    return ImageData("views", train, validation, test, names, *moments(train.images), rule)


def _split(config: ViewsConfig, drawn: Drawn) -> Split:
    return Split(torch.from_numpy(paint(config, drawn)), torch.from_numpy(drawn.labels))


def _unit(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Textures drawn from N(0, 1), each scaled to a mean square of 1."""
    drawn = generator.standard_normal(shape, np.float32)
    scaled: np.ndarray = drawn / np.sqrt(np.square(drawn).mean((1, 2, 3), keepdims=True))
    return scaled


def _paint(canvas: np.ndarray, image: np.ndarray, cell: np.ndarray, corner: np.ndarray, patches: np.ndarray) -> None:
    """Add `patches` (E, 3, PATCH, PATCH) to the canvas (N, 3, SIDE, SIDE), each to its image and cell."""
    at = np.stack(np.divmod(cell, ACROSS), 1) * CELL + corner[image, cell]  # (E, 2)
    rows, columns = (at[:, axis, None] + np.arange(PATCH) for axis in (0, 1))
    # no two of an image lie in one cell, so that no pixel comes twice
    canvas[image[:, None, None], :, rows[:, :, None], columns[:, None, :]] += patches.transpose(0, 2, 3, 1)
