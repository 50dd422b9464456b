"""The generated data set: images show what its definition says, and a probe lacks a view and nothing else."""

import dataclasses

import numpy as np
import pytest
import torch

from divkd.empirical.data.datasets import load
from divkd.empirical.data.names import ViewsConfig
from divkd.empirical.data.views import CELL, CELLS, NONE, PATCH, alone, draw, paint, probes, read_views, textures

SMALL = ViewsConfig(classes=5, test_images=100)


def changed(**values):
    return dataclasses.replace(SMALL, **values)


def test_images_are_a_function_of_the_seed_the_split_and_their_number():
    one, again, other = (read_views(config, 600) for config in (SMALL, SMALL, changed(data_seed=1)))
    assert one.facts() == again.facts()
    assert one.facts()["sha256"] != other.facts()["sha256"]
    fewer = load("views", None, False, 70, views=SMALL)
    assert torch.equal(fewer.train.images, one.train.images[:70])  # across a block too
    assert not torch.equal(one.train.images[:50], one.validation.images)


def test_labels_are_balanced_in_every_split():
    for split in read_views(SMALL, 200).splits.values():
        counts = split.labels.bincount(minlength=5)
        assert counts.max() - counts.min() <= 1


def test_every_view_of_the_label_shows_and_others_with_probability_s_over_k():
    drawn = draw(changed(classes=10, contrast=0.2, single_view=0.3), "train", 4000)
    shown = np.stack([(drawn.feature == one).sum(1) for one in range(20)], 1)
    assert shown.max() == 1
    own = np.arange(20)[None] // 2 == drawn.labels[:, None]
    assert (shown[own] == 1).all()
    assert shown[~own].mean() == pytest.approx(3 / 10, abs=0.01)
    assert np.mean(drawn.missing != NONE) == pytest.approx(0.3, abs=0.03)
    assert np.mean(drawn.missing == 0) == pytest.approx(0.15, abs=0.03)
    lost = drawn.feature == (2 * drawn.labels + drawn.missing)[:, None]
    lost &= (drawn.missing != NONE)[:, None]
    mine = (drawn.feature // 2 == drawn.labels[:, None]) & (drawn.feature != NONE) & ~lost
    assert (drawn.weight[lost] == 0).all()
    assert drawn.weight[mine].mean() == pytest.approx(0.2, abs=0.002)
    assert drawn.weight[(drawn.weight > 0) & ~mine].mean() == pytest.approx(0.4 * 0.2, abs=0.001)


def test_features_without_a_cell_are_others():
    drawn = draw(changed(others=5.0, class_views=8), "probe", 50)  # 40 features for 16 cells
    assert (drawn.feature != NONE).all()
    assert ((drawn.feature // 8 == drawn.labels[:, None]).sum(1) == 8).all()


@pytest.mark.parametrize("views", [2, 3])
def test_a_probe_is_its_image_without_the_patches_of_the_other_views(views):
    config = changed(class_views=views, noise=0.0, contrast=0.1)  # so dark that nothing is cut off
    drawn = draw(config, "probe", config.test_images)
    whole, features = paint(config, drawn), textures(config)
    for view, probe in enumerate(probes(config)):
        assert torch.equal(probe.labels, torch.from_numpy(drawn.labels))
        for n in range(len(whole)):
            expected = (whole[n] / 255).astype(float)
            for other in set(range(views)) - {view}:
                feature = drawn.labels[n] * views + other
                (cell,) = np.flatnonzero(drawn.feature[n] == feature)
                row, column = np.array(divmod(cell, 4)) * CELL + drawn.corner[n, cell]
                part = (slice(None), slice(row, row + PATCH), slice(column, column + PATCH))
                expected[part] -= drawn.weight[n, cell] * features[feature]
            assert np.abs(expected * 255 - probe.images[n].numpy()).max() <= 1  # both were rounded
            same = np.abs(expected - whole[n] / 255) < 1e-9
            assert (whole[n][same] == probe.images[n].numpy()[same]).all()


def test_a_network_of_all_views_is_right_on_a_probe_and_on_its_image():
    """Matched filters, the largest answer of a class's textures over all places, know every view."""
    config = changed(noise=0.0, clutter=0.0)
    filters = torch.from_numpy(textures(config))
    for probe in probes(config):
        found = torch.nn.functional.conv2d(probe.images.float() / 255 - 0.5, filters).amax((2, 3))
        assert (found.argmax(1) // 2 == probe.labels).all()


def test_contrast_0_gives_no_information():
    nothing = changed(contrast=0.0)
    drawn = draw(nothing, "train", 100)
    blank = drawn._replace(feature=np.full((100, CELLS), NONE), weight=np.zeros((100, CELLS)))
    assert (paint(nothing, drawn) == paint(nothing, blank)).all()
    assert (paint(nothing, drawn) == paint(nothing, alone(nothing, drawn, 0))).all()
