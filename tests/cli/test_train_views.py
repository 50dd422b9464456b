"""`divkd train views`: its parameters reach config.json and resume, and what was learned the report."""

import json

import numpy as np
import pytest
from refusals import refused

from divkd.cli.main import run
from divkd.empirical.data.names import ViewsConfig
from divkd.empirical.training import execution, known
from divkd.empirical.use.restore import load_run
from divkd.report import swept
from divkd.report.figures.known import views_map

pytestmark = pytest.mark.usefixtures("coarse_figures_throughout")
TINY = (
    "train views --classes 3 --contrast 0.3 --test-images 12 --members 2 --ladder 2 --epochs 1 --train-images 24 "
    "--method kd --device cpu --precision float32 --batch-size 12"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        assert run([*TINY.split(), "--out", str(folder)]) == 0
    return folder


def test_views_are_measured_member_by_member(trained):
    results = json.loads((trained / "results.json").read_text())
    rows = results["views"]["rows"]
    named = [(row["model"], row["members"], row["member"]) for row in rows]
    assert named == [
        *(("deep_ensemble", 1, 0), ("deep_ensemble", 2, None), ("deep_ensemble", 1, 1)),
        *(("batch_ensemble", 2, None), ("batch_ensemble", 2, 0), ("batch_ensemble", 2, 1)),
        *(("merged", 1, 0), ("single", 1, 0)),
    ]
    accuracies = np.array([row["accuracy"] for row in rows])
    assert accuracies.shape == (8, 3, 2)
    assert np.isin(accuracies * 4, range(5)).all()  # 12 probes of 3 classes
    for row in results["rows"]:
        (same,) = [one for one in rows if (one["model"], one["members"]) == (row["model"], row["members"])
                   and one["member"] in (None, 0) and (one["member"] is None or one["members"] == 1)]  # fmt: skip
        assert row["views_missed"] == np.mean(np.min(same["accuracy"], 1) < 0.5)
        own = [one for one in rows if one["member"] is not None and one["method"] == row["method"]]
        own = [one for one in own if one["model"] == row["model"]][: row["members"]]
        assert row["views_missed_member"] == pytest.approx(np.mean([known.missed(one) for one in own]))
    single = results["views"]["summary"][0]
    assert single["networks"] == 2
    assert single["missed"]["mean"] == np.mean(accuracies[[0, 2]].min(2) < known.MISSED)
    for name in ("views_known", "views_missed"):
        assert (trained / f"figures/{name}.png").stat().st_size > 0


def test_the_report_says_what_is_missed(trained):
    page = trained.parent / "page.html"
    assert run(["report", str(trained), "--out", str(page)]) == 0
    assert "Views known: single-view probes" in page.read_text(encoding="utf-8")


def test_a_sweep_is_drawn_by_what_is_missed(trained):
    """A line a network over the option: the mean over networks of one, their ensemble, and each student."""
    results = json.loads((trained / "results.json").read_text())
    cells = [{"name": f"contrast={value}", "changes": {"contrast": value}, "members": 2} for value in ("0.1", "0.3")]
    rows = [{"cell": cell["name"], **row} for cell in cells for row in swept.gather(results)]
    swept_results = {"vary": {"contrast": ["0.1", "0.3"]}, "against": "contrast", "cells": cells, "rows": rows}
    assert "views_map" in [figure.name for figure in swept.FIGURES if figure.fits(swept_results)]
    (ax,) = views_map(swept_results).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in ax.lines if not line.get_label().startswith("_")}
    by = {(row["model"], row["members"]): row for row in results["rows"]}
    assert drawn == {
        "one network": [by["deep_ensemble", 2]["views_missed_member"]] * 2,
        "deep ensemble of 2": [by["deep_ensemble", 2]["views_missed"]] * 2,
        "BatchEnsemble, kd": [by["batch_ensemble", 2]["views_missed"]] * 2,
        "BatchEnsemble merged into one, kd": [by["merged", 1]["views_missed"]] * 2,
        "single network, kd": [by["single", 1]["views_missed"]] * 2,
    }


def test_the_parameters_are_kept_and_given_again(trained, capsys):
    content = json.loads((trained / "config.json").read_text())
    assert content["config"]["views"]["contrast"] == 0.3
    assert load_run(trained)[1].facts() == content["data"]
    again = ["train", "--config", str(trained / "config.json"), "--print-config"]
    assert run(again) == 0
    assert json.loads(capsys.readouterr().out)["config"] == content["config"]
    assert run([*again, "--contrast", "0.1"]) == 0
    changed = json.loads(capsys.readouterr().out)["config"]["views"]
    assert changed == {**content["config"]["views"], "contrast": 0.1}
    assert run("train digits --preset views --print-config".split()) == 0
    assert json.loads(capsys.readouterr().out)["config"]["views"] is None


def test_a_run_goes_on_with_the_same_images_alone(trained, capsys):
    before = json.loads((trained / "results.json").read_text())
    assert run([*TINY.split(), "--out", str(trained), "--resume"]) == 0
    assert json.loads((trained / "results.json").read_text()) == before
    capsys.readouterr()
    line = f"{TINY.replace('0.3', '0.2')} --out {trained} --resume"
    refused(line, "views.contrast was 0.3", "and is 0.2 now", capsys, trained)


@pytest.mark.parametrize(
    ("line", "value", "mend"),
    [
        ("train digits --contrast 0.2", "--contrast 0.2", "of the data set views, not of digits; leave it out"),
        ("train --preset smoke --views 3", "--views 3", "leave it out"),
        ("train views --contrast 2", "--contrast 2", "from 0 to 1"),
        ("train views --classes 2", "--others 3", "more than --classes 2; give at most as many"),
        ("train views --test-images 10", "--test-images 10", "give two each"),
        ("train views --image-size 8", "--image-size 8", "leave it out"),
    ],
)
def test_bad_parameters_are_one_line(line, value, mend, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(line, value, mend, capsys, tmp_path)


def test_the_presets_values_are_the_data_sets_own(capsys):
    assert run("train views --print-config".split()) == 0
    values = json.loads(capsys.readouterr().out)["config"]
    assert ViewsConfig.from_dict(values["views"]) == ViewsConfig()
    assert (values["preset"], values["dataset"]) == ("views", "views")


def test_a_preset_of_bfloat16_runs_where_there_is_none_and_says_so(capsys, monkeypatch):
    monkeypatch.setattr(execution, "has_bfloat16", lambda device: False)
    line = [*TINY.replace(" --precision float32", "").split(), "--dry-run"]
    assert run(line) == 0
    assert "the preset views is of bfloat16, for which cpu here has no instructions: float32" in capsys.readouterr().out
    monkeypatch.setattr(execution, "has_bfloat16", lambda device: True)
    assert run(line) == 0
    assert "bfloat16" not in capsys.readouterr().out
    monkeypatch.setattr(execution, "has_bfloat16", lambda device: False)
    assert run([*line, "--precision", "float32"]) == 0
    assert "bfloat16" not in capsys.readouterr().out
    assert run([*line, "--precision", "bfloat16"]) == 2
    assert "give --precision float32 or auto" in capsys.readouterr().err
