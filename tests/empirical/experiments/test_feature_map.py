"""Maps and known views: mass in a view's cell is that view's, a channel's purity is counted, bytes come back."""

import dataclasses

import numpy as np
import pytest
import torch
from training_runs import QUIET

from divkd.empirical.data.names import ViewsConfig
from divkd.empirical.data.views import draw, read_views
from divkd.empirical.experiments import config as presets
from divkd.empirical.experiments.feature_map import agreement, maps, peaks, pure
from divkd.empirical.experiments.looked_at import by_view, cells_of, known_shares, shown
from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training.seed_run import SeedRun
from divkd.shared.errors import InputError
from divkd.shared.files import packed, unpacked
from divkd.shared.run import Run

VIEWS = ViewsConfig(classes=3, others=2.0, single_view=0.5, test_images=24)


@pytest.fixture(scope="module")
def world():
    config = dataclasses.replace(presets.FEATURE_MAP["views"], views=VIEWS, network="resnet8w2", members=2, images=12)
    data = read_views(VIEWS, 12)
    nets = [build("resnet8w2", 3, data.mean, data.std, np.random.default_rng(m)).eval() for m in range(2)]
    return SeedRun(config, data, 0, Run.__new__(Run), QUIET), DeepEnsemble(nets), data.test[:12]


def test_all_of_a_map_in_the_cell_of_a_view_is_the_share_of_that_view(world):
    seed_run, networks, _ = world
    drawn = draw(VIEWS, "test", 12)
    found = torch.zeros(5, 12, 32, 32)  # two networks, their ensemble, and each without the other
    for n, (features, weights, label) in enumerate(zip(drawn.feature, drawn.weight, drawn.labels, strict=True)):
        for cell in np.flatnonzero((features == 2 * label) & (weights > 0)):
            row, column = divmod(int(cell), 4)
            found[0, n, 8 * row + 3, 8 * column + 4] = 2.5
    found[1] = 1.0
    found[2:] = torch.rand(3, 12, 32, 32)
    first, even, ensemble = by_view(seed_run, networks, found)
    assert [row["member"] for row in (first, even, ensemble)] == [0, 1, None]
    assert first["share"] == [[1.0, 0.0]] * 3
    assert np.allclose(even["share"], 1 / 16)
    for row in (even, ensemble):
        assert row["own"] + row["others"] + row["rest"] == pytest.approx(1)
    missing = (drawn.missing == 0).mean()  # images without the view have no map at all
    assert first["own"] == pytest.approx(1 - missing)
    assert np.shape(first["accuracy"]) == (3, 2)


def test_the_boxes_are_where_the_data_set_puts_the_views():
    features, labels = shown(VIEWS, 12)
    drawn = draw(VIEWS, "test", 12)
    for n, (one, label) in enumerate(zip(features, labels.tolist(), strict=True)):
        for view, cells in enumerate(cells_of(VIEWS, one, label)):
            assert [drawn.feature[n, cell] for cell in cells] == [2 * label + view] * len(cells)
            assert len(cells) == (drawn.missing[n] != view)


def test_shares_of_learned_and_missed_views_are_means_over_their_cells():
    rows = [{"seed": 0, "member": member, "accuracy": accuracy, "share": share, "own": 0.5, "others": 0.2, "rest": 0.3}
            for member, accuracy, share in ((0, [[0.9, 0.1]], [[0.4, 0.1]]), (1, [[0.5, 0.4]], [[0.2, None]]),
                                            (None, [[1.0, 0.6]], [[0.3, 0.2]]))]  # fmt: skip
    found = known_shares(rows)
    assert found["learned"]["mean"] == pytest.approx(0.3)
    assert found["missed"]["mean"] == pytest.approx(0.1)
    assert found["learned_minus_missed"]["mean"] == pytest.approx(0.2)
    assert found["ensemble_learned"]["mean"] == pytest.approx(0.25)
    assert "ensemble_missed" not in found
    assert (found["cells_learned"]["mean"], found["cells_missed"]["mean"]) == (2, 1)


def test_equal_networks_agree_and_the_others_are_the_ensemble(world):
    _, networks, test = world
    found, logs = maps(DeepEnsemble([networks.nets[0]] * 3), test)
    assert found.shape == (7, 12, 32, 32)
    assert logs.shape == (3, 12)
    measured = agreement(found)
    assert [measured[key] for key in ("between", "with_ensemble", "with_others")] == pytest.approx([1, 1, 1], abs=1e-5)
    different = agreement(maps(networks, test)[0])
    assert different["other_image"] < 1
    assert different["with_others"] == pytest.approx(different["between"], abs=1e-6)  # of two, the other


def test_purity_counts_the_commonest_class():
    assert pure(torch.tensor([[0, 0, 1, 2], [3, 3, 3, 3], [0, 1, 2, 3]])).tolist() == [0.5, 1.0, 0.25]


def test_a_peak_is_the_pixel_in_the_middle_of_what_answers_most():
    pool = torch.nn.AvgPool2d(4)
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    images[0, 0, 5, 2] = 9
    images[1, 0, 0, 7] = 9
    assert peaks(pool, images, 0) == [[5.5, 1.5], [1.5, 5.5]]


def test_bytes_come_back_and_damaged_ones_do_not():
    array = np.random.default_rng(0).integers(0, 256, (2, 3, 4), dtype=np.uint8)
    value = packed(array)
    assert np.array_equal(unpacked(value), array)
    with pytest.raises(ValueError, match="reshape"):
        unpacked({**value, "shape": [2, 3, 5]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"network": "resnet18"}, "resnet18 is not cut"), ({"members": 1}, "--members 1 is no ensemble; give at least 2"),
     ({"images": 5}, "--images 5 is not allowed; give a whole number from 12")],
)  # fmt: skip
def test_what_has_no_maps_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(presets.FEATURE_MAP["smoke"], **changes).validate()
