import dataclasses
import hashlib
import itertools

import numpy as np
import pytest

from divkd.shared.errors import InputError
from divkd.theory.config import PRESETS
from divkd.theory.data import NOISE, Layout, fresh_samples, training_samples


@pytest.fixture(scope="module")
def config():
    return PRESETS["default"]


def own_sums(samples, config):
    """(N, 2k) sum of z over every feature's patches."""
    sums = np.zeros((len(samples), 2 * config.classes))
    rows, patches = np.nonzero(samples.feature != NOISE)
    np.add.at(sums, (rows, samples.feature[rows, patches]), samples.weight[rows, patches])
    return sums


def test_training_set_has_the_same_number_of_single_views_of_every_class_and_view(config):
    samples = training_samples(config, 0)
    single = samples.views != NOISE
    assert len(samples) == config.train_samples
    pairs, counts = np.unique(2 * samples.labels[single] + samples.views[single], return_counts=True)
    assert list(pairs) == list(range(2 * config.classes))
    assert set(counts) == {config.single_views}


@pytest.mark.parametrize("kind", ["multi", "single"])
def test_weights_lie_in_the_intervals_of_their_kind(config, kind):
    samples = fresh_samples(config, 0, kind)
    sums = own_sums(samples, config)
    rows = np.arange(len(samples))
    drawn = sums[rows, 2 * samples.labels + np.maximum(samples.views, 0)]
    other = sums[rows, 2 * samples.labels + 1 - np.maximum(samples.views, 0)]
    low, high = np.float32(config.own_weight[0]), np.float32(config.own_weight[1])
    assert drawn.min() >= low * (1 - 1e-6)
    assert drawn.max() <= high * (1 + 1e-6)
    bounds = config.own_weight if kind == "multi" else config.missing_weight
    assert other.min() >= bounds[0] * (1 - 1e-6)
    assert other.max() <= bounds[1] * (1 + 1e-6)
    foreign = sums.copy()
    foreign[rows, 2 * samples.labels] = foreign[rows, 2 * samples.labels + 1] = 0
    bounds = config.other_weight if kind == "multi" else config.other_weight_single
    present = foreign[foreign > 0]
    assert present.min() >= bounds[0] * (1 - 1e-6)
    assert present.max() <= bounds[1] * (1 + 1e-6)
    share = (foreign > 0).sum() / (len(samples) * 2 * (config.classes - 1))
    assert share == pytest.approx(config.expected_others / config.classes, abs=0.02)


def test_an_own_view_fills_its_patches_and_others_fill_one(config):
    samples = fresh_samples(config, 1, "multi")
    for n in range(50):
        features, counts = np.unique(samples.feature[n][samples.feature[n] != NOISE], return_counts=True)
        own = features // 2 == samples.labels[n]
        assert own.sum() == 2
        assert set(counts[own]) == {config.own_patches}
        assert set(counts[~own]) <= {1}
    assert np.all((samples.weight > 0) == (samples.feature != NOISE))


def test_entries_of_a_feature_are_runs_over_its_samples_in_one_order_and_noise_keeps_its_own(config):
    samples, features = training_samples(config, 0), 2 * config.classes
    layout = Layout.of(samples, features)
    flat = np.where(samples.feature == NOISE, features, samples.feature).ravel()
    assert np.array_equal(layout.order[np.argsort(layout.drawn)], np.argsort(flat, kind="stable"))
    assert np.array_equal(flat[layout.order], np.repeat(np.arange(features + 1), np.diff(layout.start)))
    sample = layout.order // config.patches
    for f, (first, last) in enumerate(itertools.pairwise(layout.start)):
        of_feature = layout.sample[layout.begin[f] : layout.begin[f + 1]]
        assert np.array_equal(np.sort(of_feature), np.unique(sample[first:last]))
        assert layout.edges[f, layout.copies[f]] == last - first
        for begin, end in itertools.pairwise(layout.edges[f, : layout.copies[f] + 1]):
            assert np.array_equal(sample[first + begin : first + end], of_feature[: end - begin])


def test_a_draw_depends_on_its_seed_alone(config):
    first, again, other = (training_samples(config, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.weight, again.weight)
    assert not np.array_equal(first.weight, other.weight)


def test_few_redrawn_samples_are_counted_and_many_refused(config):
    # 6 patches of the own views and at most 17 others: rarely more than 22 in all
    few = training_samples(dataclasses.replace(config, expected_others=6.5, patches=22), 0)
    assert 0 < few.redrawn <= 0.01 * len(few)
    assert ((few.feature != NOISE).sum(1) <= 22).all()
    with pytest.raises(InputError, match="patches 10"):
        training_samples(dataclasses.replace(config, patches=10), 0)


@pytest.mark.parametrize("views", [1, 3, 4])
def test_any_number_of_views_shows_all_or_one_of_them(config, views):
    config = dataclasses.replace(config, views=views, patches=48)
    train, multi = training_samples(config, 0), fresh_samples(config, 0, "multi")
    single = train.views != NOISE
    pairs, counts = np.unique(views * train.labels[single] + train.views[single], return_counts=True)
    assert list(pairs) == list(range(config.features))
    assert set(counts) == {config.single_views}
    assert single.mean() == pytest.approx(config.single_share)
    for samples in (train, multi, fresh_samples(config, 0, "single")):
        sums = np.zeros((len(samples), config.features))
        rows, patches = np.nonzero(samples.feature != NOISE)
        np.add.at(sums, (rows, samples.feature[rows, patches]), samples.weight[rows, patches])
        sums = sums.reshape(len(samples), config.classes, views)
        own = np.take_along_axis(sums, samples.labels[:, None, None], 1)[:, 0]
        shown = (own > 1).sum(1)
        assert (shown == np.where(samples.views == NOISE, views, 1)).all()
        drawn = samples.views != NOISE
        assert (own[drawn].argmax(1) == samples.views[drawn]).all()
        lacking = own[drawn][own[drawn] < 1]
        assert len(lacking) == (views - 1) * drawn.sum()
        assert ((lacking > 0.0999) & (lacking < 0.1501)).all()
    # another class's feature is there with probability s / k, whatever V is
    of_others = (multi.feature != NOISE) & (multi.feature // views != multi.labels[:, None])
    expected = config.expected_others * views * (config.classes - 1) / config.classes
    assert of_others.sum(1).mean() == pytest.approx(expected, rel=0.02)


def test_two_views_are_drawn_as_they_ever_were(tiny):
    """The hash of revision 28f4628."""
    drawn = [training_samples(tiny, 0), *(fresh_samples(tiny, 0, kind) for kind in ("multi", "single"))]
    arrays = [array for one in drawn for array in (one.labels, one.views, one.feature, one.weight)]
    assert hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16] == "69e6cb968691c931"
