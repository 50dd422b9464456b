"""The multi-view distribution: which feature sits in which patch, and with what weight."""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from divkd.shared.errors import InputError
from divkd.shared.seeds import rng
from divkd.theory.config import MultiViewConfig

NOISE = -1  # in `Samples.feature`: a patch without a feature
MAX_REDRAWN = 0.01
TESTS = {"multi_view": "multi", "single_view": "single"}  # names of errors, and of test samples
VALIDATION = "validation_"  # before the name of test samples: those that only a temperature is fitted on


@dataclass(frozen=True)
class Samples:
    """N samples as the network meets them: x_p = z_p v_(feature of p) + sum_v' alpha_{p,v'} v' + xi_p.

    The noise xi_p is not here: the limit engine keeps only its products with the weights, the dense engine draws it.
    """

    labels: np.ndarray  # (N,) y
    views: np.ndarray  # (N,) the drawn own view, 0 to V - 1; NOISE for a multi-view sample, which shows them all
    feature: np.ndarray  # (N, P) V * class + view of the feature in the patch, or NOISE
    weight: np.ndarray  # (N, P) z_p, float32, 0 in a patch without a feature
    redrawn: int  # samples that were drawn again because their features needed more than P patches
    mixed: np.ndarray | None = (
        None  # (N, P, V k) alpha, float32: what every patch shows of every feature; None: nothing
    )

    def __len__(self) -> int:
        return len(self.labels)


class Layout(NamedTuple):
    """The patches of N samples as entries sorted by feature; those without one come last, as feature V k.

    The samples that show a feature stand in one order, those with most patches of it first. A feature's entries are
    these samples' first patches of it, then the second ones, and so on: runs, each as long as there are samples with so
    many. Entry p of every run belongs to the p-th of its samples, so that loops need no table of samples.
    """

    sample: np.ndarray  # (S,) the samples that show a feature, feature by feature
    begin: np.ndarray  # (V k + 2,) those of feature f are begin[f]:begin[f + 1]
    edges: np.ndarray  # (V k + 1, P + 1) its runs' first entries and behind the last one, counted from its first
    weight: np.ndarray  # (E,) z
    start: np.ndarray  # (V k + 2,) the entries of feature f are start[f]:start[f + 1]
    order: np.ndarray  # (E,) the entry's position n * P + p
    drawn: np.ndarray  # (E,) its place in the order of feature, sample, patch, in which noise is drawn
    weight_in: np.ndarray  # (V k + 1, N) sum of z over a sample's patches of a feature
    shows: np.ndarray  # (V k + 1, N) 1 where it has one, else 0
    copies: np.ndarray  # (V k + 1,) the most patches that a sample has of a feature: its runs
    largest: np.ndarray  # (V k + 1,) the largest z

    @classmethod
    def of(cls, samples: Samples, features: int) -> "Layout":
        """The layout of `samples` for `features` = V k features."""
        flat = np.where(samples.feature == NOISE, features, samples.feature)
        count, patches = flat.shape
        size, shape = (features + 1) * count, (features + 1, count)
        order = np.argsort(flat, axis=None, kind="stable")
        feature, sample = flat.ravel()[order], order // patches
        pairs = feature * count + sample
        counts = np.bincount(pairs, minlength=size)
        copy = np.arange(len(order)) - np.searchsorted(pairs, pairs)  # how many of its kind come before it
        drawn = np.lexsort((-counts[pairs], copy, feature))
        order, pairs, copy = order[drawn], pairs[drawn], copy[drawn]
        sample = (order // patches)[copy == 0].astype(np.uint32)
        begin, start = (np.searchsorted(of, np.arange(features + 2)) for of in (feature[copy == 0], feature))
        runs = np.bincount(feature * patches + copy, minlength=(features + 1) * patches).reshape(-1, patches)
        edges = np.pad(runs.cumsum(1), ((0, 0), (1, 0)))
        weight = samples.weight.ravel()[order]
        weights = np.bincount(pairs, weight, size).reshape(shape).astype(np.float32)
        largest = np.array([weight[a:b].max(initial=0) for a, b in itertools.pairwise(start)], np.float32)
        counts = counts.reshape(shape)
        shows = np.minimum(counts, 1).astype(np.float32)
        return cls(sample, begin, edges, weight, start, order, drawn, weights, shows, counts.max(1), largest)


def training_samples(config: MultiViewConfig, seed: int) -> Samples:
    """N samples of which the last V k `single_views` are single-view: the same number for every (class, view)."""
    generator = rng(seed, "train")
    pairs = np.tile(np.arange(config.features), config.single_views)
    labels = generator.integers(config.classes, size=config.train_samples - len(pairs))
    views = np.full(len(labels), NOISE)
    of_pairs = pairs // config.views, pairs % config.views
    return _draw(config, generator, np.concatenate([labels, of_pairs[0]]), np.concatenate([views, of_pairs[1]]))


def fresh_samples(config: MultiViewConfig, seed: int, kind: str, role: str = "test") -> Samples:
    """Fresh samples that all show every own view (`kind` "multi") or one ("single"); for "validation", half as many."""
    generator = rng(seed, f"{role}/{kind}")
    count = config.test_samples if role == "test" else -(-config.test_samples // 2)
    labels = generator.integers(config.classes, size=count)
    views = generator.integers(config.views, size=count)
    return _draw(config, generator, labels, views if kind == "single" else np.full_like(views, NOISE))


def _draw(config: MultiViewConfig, generator: np.random.Generator, labels: np.ndarray, views: np.ndarray) -> Samples:
    """Draw V(X), the weights and the patches, following Allen-Zhu and Li, Definition of D.

    V(X) holds all V views of y and every other class's feature with probability s / k, whatever V is: another class
    shows a view that a network knows as often as with two views. An own view's weight is spread evenly over C_p
    patches. Another class's feature, and each of the V - 1 own views that a single-view sample lacks, show in one
    patch: the definition's z_p >= 0 may vanish on some of a feature's patches. Feature noise alpha is uniform in
    [0, gamma], for every patch and feature.
    """
    count, features = len(labels), config.features
    own = np.arange(features)[None, :] // config.views == labels[:, None]
    single = views != NOISE
    missing = single[:, None] & own & (np.arange(features)[None, :] != (config.views * labels + views)[:, None])
    copies = np.where(own & ~missing, config.own_patches, 1)

    present = own.copy()
    pending = np.arange(count)
    redrawn = 0
    while len(pending):
        others = generator.random((len(pending), features)) < config.expected_others / config.classes
        present[pending] = own[pending] | others
        pending = pending[(copies * present).sum(1)[pending] > config.patches]
        redrawn += len(pending)
        if redrawn > max(MAX_REDRAWN * count, 1):
            raise InputError(
                f"patches {config.patches}: the features of more than {MAX_REDRAWN:.0%} of the samples do not fit; "
                f"raise patches, or lower expected_others ({config.expected_others}) or own_patches"
            )

    weight = generator.uniform(*config.other_weight, (count, features))
    weight[single] = generator.uniform(*config.other_weight_single, (single.sum(), features))
    weight[own] = generator.uniform(*config.own_weight, own.sum())
    weight[missing] = generator.uniform(*config.missing_weight, missing.sum())
    weight[:, 1::2] *= config.second_view  # other than 1 for two views alone

    # patches are exchangeable: the occupied ones are the first of a random order
    order = generator.random((count, config.patches)).argsort(1)
    sample, feature = np.nonzero(present)
    sample, feature = np.repeat([sample, feature], copies[sample, feature], axis=1)
    position = np.arange(len(sample)) - np.searchsorted(sample, sample)
    patch = order[sample, position]
    placed = np.full((count, config.patches), NOISE, dtype=np.int32)
    z_placed = np.zeros((count, config.patches), dtype=np.float32)
    placed[sample, patch] = feature
    z_placed[sample, patch] = (weight / copies)[sample, feature]
    mixed = None
    if config.feature_noise:
        mixed = generator.random((count, config.patches, features), np.float32) * np.float32(config.feature_noise)
    return Samples(labels, views, placed, z_placed, redrawn, mixed)
