"""A kind is stated once: records and names agree, and a new one is trained, analysed and restored like the others."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from training_runs import SERIAL, experiment, tiny

from divkd.empirical.analysis.analysis import AnalysisConfig, finished, read_sets, run_analysis
from divkd.empirical.analysis.cost import training_passes
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training import config as training
from divkd.empirical.training import distillation, perturb, students, work
from divkd.empirical.use.restore import load_model, load_run
from divkd.shared import kinds
from divkd.shared.errors import InputError
from divkd.shared.files import read_json
from divkd.shared.run import open_run


def test_every_name_has_its_record_and_every_record_its_name():
    assert list(students.STUDENTS) == [kind.name for kind in students.STUDENTS.values()] == list(kinds.STUDENTS)
    assert list(perturb.PERTURBATIONS) == list(kinds.PERTURBATIONS)
    assert {"deep_ensemble", "merged", *students.STUDENTS} == set(kinds.MODELS)
    assert {"none", "kd", *perturb.PERTURBATIONS} == set(kinds.METHODS)


def test_checkpoints_are_named_by_kind_teachers_method_and_seed():
    shared, single = students.STUDENTS["batch_ensemble"], students.STUDENTS["single"]
    assert shared.checkpoint("kd", 4, 0) == "seed0-batch_ensemble4-kd"
    assert shared.checkpoint("none", 4, 1) == "seed1-batch_ensemble4-none"
    assert single.checkpoint("kd", 4, 0) == "seed0-single-kd-from4"
    assert single.checkpoint("none", 4, 0) == "seed0-single-none"  # whatever their number
    assert [students.rows_of(model, 4) for model in kinds.MODELS] == [4, 4, 1, 1]


def test_what_is_no_kind_is_refused_and_nothing_is_taken_for_ods():
    teachers, x, rng = DeepEnsemble([torch.nn.Flatten()]), torch.rand(2, 1, 2, 2), np.random.default_rng(0)
    for kind in ("odds", "clean", "kd"):
        with pytest.raises(InputError, match=f"unknown perturbation '{kind}'; choose one of: gaussian, ods, confods"):
            perturb.perturb(kind, x, teachers, 1.0, 0.1, rng)
        with pytest.raises(InputError, match="unknown model"):
            training_passes(kind, "kd", 2)
    with pytest.raises(InputError, match="unknown method 'odds'"):
        distillation.student_loss("odds", teachers, 1.0, 0.9, 0.1)


def twins(net, members, seed):
    return DeepEnsemble([copy.deepcopy(net) for _ in range(members)])


def shrunk(x, teachers, temperature, rng):
    return -x


@pytest.fixture
def new(monkeypatch):
    """A student kind and a perturbation, each as one name and one record."""
    for names in (kinds.STUDENTS, kinds.MODELS):
        monkeypatch.setitem(names, "twins", "twins")
    monkeypatch.setitem(students.STUDENTS, "twins", students.Student("twins", twins, alone=False))
    for names in (kinds.PERTURBATIONS, kinds.INPUTS, kinds.METHODS):
        monkeypatch.setitem(names, "shrunk", "shrunk")
    monkeypatch.setitem(
        perturb.PERTURBATIONS, "shrunk", perturb.Perturbation(shrunk, unit=False, passes=0, draws="nothing")
    )
    monkeypatch.setattr(training, "STUDENTS", kinds.STUDENTS, raising=False)
    monkeypatch.setattr(training, "METHODS", kinds.METHODS, raising=False)


def test_a_new_student_and_a_new_perturbation_go_all_the_way(new, tmp_path):
    base = tiny(train_images=64, students=("twins",), methods=("kd", "shrunk"))
    config = dataclasses.replace(base, teacher=dataclasses.replace(base.teacher, epochs=1), student=base.student)
    results = experiment(config, tmp_path / "run")
    rows = [row for row in results["rows"] if row["model"] == "twins"]
    assert [(row["method"], row["members"]) for row in rows] == [("kd", 2), ("shrunk", 2)]
    assert results["teacher_diversity"][0]["shrunk"] >= 0
    assert (tmp_path / "run/checkpoints/seed0-twins2-shrunk.safetensors").exists()
    assert str(load_model(tmp_path / "run")) == "twins by shrunk, 2 members, seed 0"
    assert training_passes("twins", "shrunk", 2) == 3 * 2 * 2 + 2
    assert finished(config, read_json(tmp_path / "run/results.json"))

    trained, data = load_run(tmp_path / "run")
    settings = AnalysisConfig(str(tmp_path / "run"), 10, (), (), None, "cpu", trained)
    analysis = run_analysis(
        settings, data, read_sets(settings, data), open_run(tmp_path / "out", "analyse", {}), SERIAL
    )
    assert [(row["model"], row["method"]) for row in analysis["rows"]][1:] == [("twins", "kd"), ("twins", "shrunk")]
    assert "shrunk" in analysis["rows"][1]["diversity"]["test"]
    assert analysis["rows"][1]["gradients"]["test"]["other"] is not None
    assert [row["name"] for row in analysis["inference"]] == ["single", "deep_ensemble", "twins"]


def test_a_new_metric_is_in_rows_summaries_differences_and_curves(tmp_path, monkeypatch):
    from divkd.empirical.analysis import analysis
    from divkd.shared.metrics.evaluation import evaluate

    def more(*arrays):
        return {**evaluate(*arrays), "votes": 0.5}

    monkeypatch.setattr(work, "evaluate", more)
    monkeypatch.setattr(analysis, "evaluate", more)
    results = experiment(tiny(train_images=64, methods=("none", "kd")), tmp_path / "run")
    assert {row["votes"] for row in results["rows"]} == {0.5}
    assert results["summary"][0]["votes"]["mean"] == 0.5
    assert {row["votes"]["mean"] for row in results["differences"]} == {0.0}
    log_probs, labels = torch.log_softmax(torch.randn(2, 6, 3), -1), torch.tensor([0, 1, 2, 0, 1, 2])
    assert [row["votes"] for row in analysis.by_members(log_probs, labels, log_probs, labels)] == [0.5, 0.5]
