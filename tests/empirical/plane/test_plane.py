"""Teachers in two dimensions: they fit, they are functions of (seed, member), and ODS finds where they disagree."""

import dataclasses
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.plane.config import PlaneConfig
from divkd.empirical.plane.plane import GRID, kl_of, moons, perturb_all, run_plane, train_teacher
from divkd.report import draw
from divkd.shared.errors import InputError
from divkd.shared.files import plain
from divkd.shared.jobs import Workers
from divkd.shared.kinds import PERTURBATIONS
from divkd.shared.progress import Progress
from divkd.shared.run import Run

QUIET = Progress(quiet=True)


def planar(config):
    with TemporaryDirectory() as folder:
        return run_plane(config, Run(Path(folder)), Workers(QUIET))


SHORT = PlaneConfig(seeds=(0,), members=2, points=30, epochs=2)


@pytest.fixture(scope="module")
def default():
    """The default set-up, its first two seeds, as results.json holds it."""
    return json.loads(json.dumps(plain(planar(PlaneConfig(seeds=(0, 1))))))


def test_teachers_fit_and_ods_moves_points_to_where_they_disagree(default):
    for row in default["rows"]:
        assert row["train_acc"] == [1.0] * 4
        assert not row["void"]
        assert row["clean"] < 0.01
        assert row["clean"] < row["gaussian"] < row["ods"]
        assert row["gaussian"] < row["confods"]
        assert row["apart"]["clean"] == 0
        assert row["apart"]["gaussian"] < row["n"] / 4  # most Gaussian steps stay where teachers agree
        assert row["apart"]["ods"] > 1.5 * row["apart"]["gaussian"]
    difference = default["summary"]["ods"]["mean"] - default["summary"]["gaussian"]["mean"]
    assert default["ods_minus_gaussian"]["mean"] == pytest.approx(difference)


def test_the_figure_is_whole_small_and_what_the_numbers_say(default, tmp_path):
    assert len(json.dumps(default, indent=1)) < 400_000
    shown, config = default["picture"], default["config"]
    places = np.array([shown["points"], *(shown["moved"][kind] for kind in PERTURBATIONS)])
    assert places.shape == (4, config["points"], 2)
    assert places.min() >= 0
    assert places.max() <= 1
    steps = np.linalg.norm(places[1:] - places[0], axis=-1)
    longest = config["step_size"] * math.sqrt(2)
    assert steps[1].max() <= longest + 1e-4
    assert (steps[2] <= steps[1] + 1e-4).all()  # confidence is at most 1
    assert np.median(steps[1]) == pytest.approx(longest, abs=1e-4)
    votes = [[list(map(int, row)) for row in rows] for rows in shown["grid"]["decisions"]]
    kl = np.array([[float(value) for value in row.split()] for row in shown["grid"]["kl"]])
    assert np.shape(votes) == (4, GRID, GRID)
    assert kl.shape == (GRID, GRID)
    # where teachers decide otherwise they are further apart than where they decide alike
    split = np.std(votes, axis=0) > 0
    assert kl[split].min() > np.median(kl[~split])
    # the grid's [y][x] is the plane's: every teacher decides at the cell of a training point as the point's label says
    cells = np.rint(places[0] * (GRID - 1)).astype(int)
    for rows in np.array(votes):
        assert (rows[cells[:, 1], cells[:, 0]] == shown["labels"]).mean() > 0.98
    files = draw(default, tmp_path)
    assert [file.name for file in files] == ["plane.png", "plane.svg"]
    assert all(file.stat().st_size > 10_000 for file in files)


def test_the_same_seed_gives_the_same_bits_and_another_one_others():
    first, again, other = (planar(dataclasses.replace(SHORT, seeds=seeds)) for seeds in ((3, 0), (3, 5), (0, 3)))
    assert first["rows"][0] == again["rows"][0] == other["rows"][1]
    assert first["picture"] == again["picture"] != other["picture"]


def test_a_teacher_stays_the_same_when_members_are_added_and_points_follow_the_seed():
    points, labels = moons(7, 30, 0.01)
    few, more = (
        [train_teacher(dataclasses.replace(SHORT, members=m), points, labels, 7, i, QUIET) for i in range(m)]
        for m in (2, 3)
    )
    for net, same in zip(few, more[:2], strict=True):
        assert all(torch.equal(p, q) for p, q in zip(net.parameters(), same.parameters(), strict=True))
    assert not torch.equal(few[0](points), few[1](points))
    teachers = DeepEnsemble(few)
    assert torch.equal(perturb_all("ods", SHORT, points, teachers, 7), perturb_all("ods", SHORT, points, teachers, 7))
    assert torch.equal(perturb_all("ods", dataclasses.replace(SHORT, step_size=0.0), points, teachers, 7), points)


def test_equal_teachers_never_disagree():
    points, labels = moons(0, 30, 0.0)
    net = train_teacher(SHORT, points, labels, 0, 0, QUIET)
    assert kl_of(DeepEnsemble([net, net]), points).abs().max() < 1e-12


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_points_are_in_the_square_and_classes_are_even(noise):
    points, labels = moons(0, 501, noise)
    assert points.shape == (501, 2, 1, 1)
    assert 0 <= points.min() < points.max() <= 1
    assert torch.bincount(labels).tolist() == [251, 250]


def test_teachers_that_do_not_fit_are_void_and_the_figure_says_so(tmp_path):
    found = planar(dataclasses.replace(SHORT, noise=0.2, epochs=1))
    assert found["rows"][0]["void"]
    _, svg = draw(plain(found), tmp_path)
    assert svg.stat().st_size > 10_000


@pytest.mark.parametrize(
    "values",
    [{"members": 1}, {"points": 7.5}, {"noise": math.nan}, {"noise": True}, {"seeds": ()}, {"seeds": (0, 0)},
     {"seeds": ([0],)}, {"step_size": "0.1"}, {"stepsize": 0.1}, {"width": 0}, {"temperature": 0}],
)  # fmt: skip
def test_a_configuration_that_makes_no_sense_is_refused(values):
    with pytest.raises(InputError, match=r"give|choose"):
        PlaneConfig.from_dict(values)
