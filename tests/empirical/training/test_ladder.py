"""A ladder of networks beyond the teachers measures, and changes nothing that it measures."""

import dataclasses
import shutil

import pytest
import torch
from training_runs import arrays, experiment, rows, tiny, weights

from divkd.empirical.data.datasets import load
from divkd.empirical.training import loop
from divkd.empirical.training.distillation import reused
from divkd.empirical.training.seed_run import predict
from divkd.empirical.use.restore import load_model
from divkd.shared.errors import InputError
from divkd.shared.files import read_json
from divkd.shared.metrics.dee import Equivalent, equivalent, equivalent_curve, summarise_equivalents


def config(**changes):
    found = tiny(train_images=64, methods=("none", "ods"))
    short = dataclasses.replace(found.teacher, epochs=1)
    return dataclasses.replace(found, **{"teacher": short, "student": short, **changes})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two teachers; the same with a ladder of four networks."""
    folder = tmp_path_factory.mktemp("ladder")
    experiment(config(), folder / "bare")
    experiment(config(ladder=4), folder / "tall")
    return folder / "bare", folder / "tall"


def students(results):
    found = [row for row in rows(results) if row["model"] != "deep_ensemble"]
    return [{key: value for key, value in row.items() if key != "dee"} for row in found]


def test_teachers_and_students_are_the_same_bits_with_and_without_a_ladder(runs):
    bare, tall = (arrays(run) for run in runs)
    beyond = {name for name in tall if name.startswith(("seed0-teacher2/", "seed0-teacher3/"))}
    assert beyond
    assert {name: value for name, value in tall.items() if name not in beyond} == bare
    bare, tall = (read_json(run / "results.json") for run in runs)
    assert students(bare) == students(tall)
    assert bare["teacher_diversity"] == tall["teacher_diversity"]
    assert [row["members"] for row in bare["rows"] if row["model"] == "deep_ensemble"] == [1, 2]
    assert [row["members"] for row in tall["rows"] if row["model"] == "deep_ensemble"] == [1, 2, 3, 4]
    assert rows(bare)[:2] == rows(tall)[:2]
    assert {row["members"] for row in tall["rows"] if row["model"] == "batch_ensemble"} == {2}


def test_a_ladder_added_later_trains_its_own_networks_alone(runs, tmp_path, monkeypatch):
    bare, tall = runs
    shutil.copytree(bare, tmp_path / "run")
    before, trained = weights(bare), []
    monkeypatch.setattr(loop, "run_epoch", lambda *args, _epoch=loop.run_epoch: (trained.append(1), _epoch(*args))[1])
    results = experiment(config(ladder=4), tmp_path / "run", resume=True)
    assert len(trained) == 2
    assert {name: value for name, value in weights(tmp_path / "run").items() if name in before} == before
    assert arrays(tmp_path / "run") == arrays(tall)
    assert rows(results) == rows(read_json(tall / "results.json"))
    with pytest.raises(InputError, match=r"ladder was 4 .* and is 3 now"):
        experiment(config(ladder=3), tmp_path / "run", resume=True)


def test_the_equivalent_of_a_row_is_that_of_its_predictions_on_that_ladder(runs):
    _, tall = runs
    data, results = load("digits", None, False, 64), read_json(tall / "results.json")
    ladder = load_model(tall, "deep_ensemble", members=4).net
    labels = data.validation.labels, data.test.labels
    with torch.no_grad():
        validation, test = (predict(ladder, split) for split in (data.validation, data.test))
    curve = equivalent_curve(validation, labels[0], test, labels[1])
    (found,) = results["ladders"]
    assert found["seed"] == 0
    assert [row["mean"] for row in found["curve"]] == pytest.approx([row["mean"] for row in curve], rel=1e-6)
    measured = [row for row in results["rows"] if row["model"] != "deep_ensemble"]
    assert len(measured) == 6  # two methods of a BatchEnsemble, merged and single
    for row in measured:
        expected = equivalent(found["curve"], row["cal_nll"])
        assert row["dee"] == {"value": expected.value, "censored": expected.censored}
    assert all("dee" not in row for row in results["rows"] if row["model"] == "deep_ensemble")
    for row in results["summary"]:
        same = [one["dee"] for one in measured if (one["model"], one["method"]) == (row["model"], row["method"])]
        assert row.get("dee") == (summarise_equivalents(Equivalent(**dee) for dee in same) if same else None)


def test_all_teachers_are_on_the_ladder_and_another_runs_must_reach_as_high(runs):
    assert [config(members=3, ladder=size).networks for size in (0, 2, 3, 5)] == [3, 3, 3, 5]
    _, tall = runs
    facts = load("digits", None, False, 64).facts()["sha256"]
    _, theirs = reused(config(ladder=4, teachers=str(tall)), facts)
    assert theirs.networks == 4
    with pytest.raises(InputError, match="no finished seed0-teacher4"):
        reused(config(ladder=5, teachers=str(tall)), facts)


@pytest.mark.parametrize("size", [-1, 65, 70, 2.0, True])
def test_a_ladder_of_another_length_is_refused(size):
    with pytest.raises(InputError, match=f"--ladder {size} is not allowed; give a whole number from 0 to 64"):
        config(ladder=size).validate()
