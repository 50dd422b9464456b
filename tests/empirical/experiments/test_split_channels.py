"""Split channels: which networks a run has, which parts they see, and what is compared."""

import dataclasses
from itertools import product

import numpy as np
import pytest
import torch

from divkd.empirical.data.datasets import load
from divkd.empirical.experiments import config as presets
from divkd.empirical.experiments.split_channels import channels, jobs, pairs_of, results
from divkd.empirical.training.work import Source
from divkd.shared.errors import InputError


def asked(**changes):
    return dataclasses.replace(presets.SPLIT_CHANNELS["smoke"], **changes)


@pytest.mark.parametrize(
    ("network", "members", "splits"),
    [("resnet8", 4, ((1, 2, 4),) * 2), ("resnet8", 8, ((1, 2, 4, 8),) * 2), ("resnet8", 3, ((1, 2),) * 2),
     ("resnet8w6", 8, ((1, 2), (1, 2, 4))), ("wrn16x2", 4, ((1, 2, 4),) * 2)],
)  # fmt: skip
def test_channels_are_halved_as_often_as_members_and_width_allow(network, members, splits):
    config = asked(network=network, members=members)
    config.validate()
    assert tuple(config.splits(cut) for cut in config.cuts) == splits


def test_a_run_trains_one_network_to_cut_and_members_for_each_split():
    config = asked(seeds=(0, 3), members=4)
    data = load("digits", None, False, config.train_images)
    made = jobs(Source(config, data))
    assert sum(job.networks for job in made) == 2 * (1 + 2 * 3 * 4)
    names = [job.name for job in made]
    assert len(set(names)) == len(names)
    for job in made:  # what a job waits for stands before it
        assert set(job.after) <= set(names[: names.index(job.name)])
    taught = jobs(Source(dataclasses.replace(config, teachers="run"), data))
    assert sum(job.networks for job in taught) == 2 * 2 * 3 * 4


def test_every_network_of_an_ensemble_sees_a_part_and_all_of_them_every_channel():
    for cut, split in product("ab", (1, 2, 4)):
        sets = channels(5, cut, 16, split)
        seen = torch.cat([sets[member % split] for member in range(4)])
        assert seen.bincount(minlength=16).tolist() == [4 // split] * 16
    assert channels(5, "a", 16, 2)[0].tolist() != channels(6, "a", 16, 2)[0].tolist()


def test_pairs_are_on_the_same_part_or_on_different_ones():
    assert pairs_of(2, 4) == {"pair_apart": [(0, 1), (0, 3), (1, 2), (2, 3)], "pair_same": [(0, 2), (1, 3)]}
    assert pairs_of(1, 4) == pairs_of(4, 4) == {}


def test_growth_is_the_gain_of_parts_less_the_gain_of_whole_layers():
    config, draw = asked(seeds=(0, 1, 2), members=2, cuts=("a",)), np.random.default_rng(0)
    accuracies = draw.random((3, 2, 3))  # seeds, splits, two networks and their ensemble
    rows = [
        {"model": model, "cut": "a", "split": split, "seed": seed, "networks": 1, "number": number,
         "acc": float(accuracies[seed, place, which])}
        for seed in range(3) for place, split in enumerate((1, 2))
        for which, (model, number) in enumerate((("part", 0), ("part", 1), ("parts", 0)))
    ]  # fmt: skip
    found = results(config, {"job": {"rows": rows}})
    gains = accuracies[:, :, 2] - accuracies[:, :, :2].mean(-1)
    (growth,) = found["growth"]
    assert growth["acc"]["mean"] == pytest.approx((gains[:, 1] - gains[:, 0]).mean())
    compared = {
        (row["model"], row["split"], row["against_model"], row["against_split"]) for row in found["differences"]
    }
    assert compared == {
        ("parts", 1, "part", 1),
        ("parts", 2, "part", 2),
        ("part", 2, "part", 1),
        ("parts", 2, "parts", 1),
    }
    assert found["width"] == {"a": 16}


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"network": "resnet18"}, "resnet18 is not cut; give resnetD"), ({"members": 1}, "--members 1 leaves nothing"),
     ({"network": "resnet8w3"}, "resnet8w3 has 3 channels at the cut a, which are not halved; give an even width")],
)  # fmt: skip
def test_what_cannot_be_split_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        asked(**changes).validate()
