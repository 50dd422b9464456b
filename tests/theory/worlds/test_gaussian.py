"""Inputs without views: the gradient is that of the loss, members depend on no other, and one member gains nothing."""

import dataclasses
import json

import numpy as np
import pytest

from divkd.shared.errors import InputError, RunError
from divkd.shared.jobs import Workers
from divkd.shared.progress import Progress
from divkd.shared.run import open_run
from divkd.theory.worlds import gaussian
from divkd.theory.worlds.config import GaussianConfig

QUIET = Progress(quiet=True)
SHORT = GaussianConfig(seeds=(0,), members=4, dimension=4, train_samples=200, test_samples=150, width=8, epochs=2)


def simulated(config, path, **flags):
    run = open_run(path, "simulate gaussian", dataclasses.asdict(config), extendable=("seeds", "members"), **flags)
    return gaussian.run_gaussian(config, run, Workers(QUIET))


def test_gradients_are_those_of_the_mean_cross_entropy():
    weights = [weight.astype(np.float64) for weight in gaussian.start(SHORT, 0, range(2))]
    generator = np.random.default_rng(0)
    x, labels = generator.standard_normal((2, 30, 4)), generator.integers(4, size=(2, 30))

    def losses():
        outputs = gaussian.forward(weights, x)[1]
        own = np.take_along_axis(outputs, labels[:, :, None], 2)[:, :, 0]
        return (np.log(np.exp(outputs).sum(2)) - own).mean(1)

    for weight, slope in zip(weights, gaussian.gradients(weights, x, labels), strict=True):
        assert slope.shape == weight.shape
        for row, column in ((0, 0), (2, 3), (weight.shape[1] - 1, 1)):  # the last row holds biases
            there = weight[:, row, column].copy()
            ends = []
            for step in (1e-6, -1e-6):
                weight[:, row, column] = there + step
                ends.append(losses())
            weight[:, row, column] = there
            assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope[:, row, column], abs=1e-7)


def test_a_member_is_the_same_bits_whatever_is_trained_beside_it():
    x, labels = gaussian.draw(SHORT, gaussian.CELLS[0], 0, "train")
    few, more = (gaussian.start(SHORT, 0, range(m)) for m in (1, 3))
    for weights in (few, more):
        for epoch in range(2):
            gaussian.train_epoch(SHORT, weights, x, labels, 0, epoch)
    for one, of_three in zip(few, more, strict=True):
        assert np.array_equal(one[0], of_three[0])
        assert not np.array_equal(of_three[0], of_three[1])


def test_the_variance_of_independent_outputs_is_that_of_one_over_the_members():
    outputs = np.random.default_rng(0).standard_normal((12, 4000, 3)) + np.arange(3)
    left = gaussian.variances(outputs)
    # two of three directions are left without the mean over classes
    assert left == pytest.approx(2 / np.arange(1, 7), rel=0.03)
    assert gaussian.variances(outputs + np.random.default_rng(1).standard_normal((12, 4000, 1))) == pytest.approx(left)
    order = np.roll(np.arange(12), 5)
    assert gaussian.variances(outputs[order]) == pytest.approx(left)
    assert gaussian.variances(np.repeat(outputs[:1], 4, 0)) == pytest.approx([0, 0])
    assert len(gaussian.variances(outputs[:1])) == 0


def test_cells_share_inputs_and_target_and_differ_in_what_they_name():
    drawn = {cell: gaussian.draw(SHORT, cell, 3, "train") for cell in gaussian.CELLS}
    assert len(drawn) == 16
    for cell, (x, labels) in drawn.items():
        plain_x, plain_labels = drawn[cell._replace(noise=False)]
        assert len(x) == len(labels) == SHORT.train_samples
        assert np.array_equal(x, plain_x)
        changed = (labels != plain_labels).mean()
        assert 0.02 < changed < 0.15 if cell.noise else changed == 0  # 3 in 4 labels that are drawn anew are others
        test = gaussian.draw(SHORT, cell, 3, "test")
        for of, of_plain in zip(test, gaussian.draw(SHORT, cell._replace(noise=False), 3, "test"), strict=True):
            assert np.array_equal(of, of_plain)
    linear = [
        gaussian.draw(SHORT, gaussian.Cell("gaussian", "linear", margin, False), 3, "train")[0] for margin in (0, 1)
    ]
    assert not np.array_equal(*linear)


def test_one_member_gains_nothing_and_more_seeds_go_on(tmp_path):
    alone = simulated(dataclasses.replace(SHORT, members=1), tmp_path / "alone")
    assert {row["gain"] for row in alone["rows"]} == {0.0}
    assert all(cell["variance_left"] == [] for cell in alone["cells"])

    whole = simulated(dataclasses.replace(SHORT, seeds=(0, 1)), tmp_path / "whole")
    part = tmp_path / "part"
    first = simulated(SHORT, part)
    kept = {path.name: path.stat().st_mtime_ns for path in (part / "jobs").glob("*.json")}
    assert len(kept) == 16
    grown = simulated(dataclasses.replace(SHORT, seeds=(0, 1)), part, resume=True)
    assert all((part / "jobs" / name).stat().st_mtime_ns == when for name, when in kept.items())
    for results in (whole, grown):
        del results["seconds"]
    assert json.dumps(whole) == json.dumps(grown)
    assert whole["rows"][:16] == first["rows"]
    assert first["rows"][0]["acc_by_members"][0] == pytest.approx(first["rows"][0]["single_acc"])
    gains = [cell["gain"] for cell in whole["cells"]]
    assert whole["summary"]["median_gain"] == pytest.approx(np.median([gain["mean"] for gain in gains]))
    assert all(gain["se"] == pytest.approx(gain["std"] / 2**0.5) for gain in gains)


def test_a_network_that_diverges_ends_the_run_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(gaussian, "LR", 1e9)
    with np.errstate(all="ignore"), pytest.raises(RunError, match="diverged; lower --width"):
        simulated(SHORT, tmp_path / "run")


@pytest.mark.parametrize(
    "values", [{"members": 0}, {"margin": 1.0}, {"label_noise": -0.1}, {"classes": 1}, {"seeds": ()}]
)
def test_a_configuration_that_makes_no_sense_is_refused(values):
    with pytest.raises(InputError, match="give"):
        GaussianConfig.from_dict(values)
