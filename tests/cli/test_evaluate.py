"""``divkd evaluate``: a table, results.json and figures from one file, and refusals that write nothing."""

import json

import numpy as np
import pytest
from refusals import refused

from divkd.cli.main import run
from divkd.shared.metrics.predictions import load


def arrays(seed: int, members: int = 3, samples: int = 120, classes: int = 4):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(samples, classes)) * 2
    labels = (truth + rng.gumbel(size=truth.shape)).argmax(-1)
    return (2 * (truth + rng.normal(size=(members, samples, classes)))).astype("float32"), labels


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with whole.npz (everything), plain.npz (logits, labels) and one.npz (its first member)."""
    monkeypatch.chdir(tmp_path)
    (logits, labels), (val, val_labels) = arrays(0), arrays(1)
    np.savez(
        "whole.npz", logits=logits, labels=labels, val_logits=val, val_labels=val_labels, ood_logits=arrays(2)[0] / 4
    )
    np.savez("plain.npz", logits=logits, labels=labels)
    np.savez("one.npz", logits=logits[0], labels=labels, val_logits=val[0], val_labels=val_labels)
    return tmp_path


def results(folder):
    return json.loads((folder / "results.json").read_text())


ROW = "acc nll brier ece temperature temperature_at_bound cal_nll cal_brier cal_ece pairwise_kl members".split()


def test_everything_is_written_and_printed(folder, capsys):
    assert run("evaluate whole.npz --out out --bootstrap 20".split()) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for words in ("whole.npz: 3 members", "calibrated NLL", "AUROC", "energy", "temperature", "95% interval"):
        assert words in out, words
    found = results(folder / "out")
    assert found["command"] == "evaluate"
    assert set(ROW) <= set(found)
    assert all(np.isfinite(found[key]) for key in ROW)
    assert list(found["ood"]) == ["max_probability", "entropy", "mutual_information", "energy"]
    assert found["intervals"]["acc"][0] <= found["acc"] <= found["intervals"]["acc"][1]
    assert [row["members"] for row in found["dee"]["curve"]] == [1, 2, 3]
    assert found["versions"]["divkd"]
    assert found["seeds"] == [0]
    config = json.loads((folder / "out/config.json").read_text())
    assert config["command"] == "evaluate"
    assert config["config"] == {"file": "whole.npz", "ensemble": None, "bootstrap": 20, "seed": 0}
    names = {path.name for path in (folder / "out/figures").iterdir()}
    assert names == {
        f"{name}.{kind}"
        for name in ("reliability", "risk_coverage", "confusion", "diversity", "dee", "similarity")
        for kind in ("png", "svg")
    }
    assert all(path.stat().st_size > 5000 for path in (folder / "out/figures").iterdir())


@pytest.mark.usefixtures("coarse_figures")
def test_without_validation_it_says_that_nothing_is_calibrated(folder, capsys):
    assert run("evaluate plain.npz --out out".split()) == 0
    assert "no calibrated values and no DEE: the file has no val_* arrays" in " ".join(capsys.readouterr().out.split())
    assert not {"cal_nll", "temperature", "dee", "ood", "intervals"} & set(results(folder / "out"))


@pytest.mark.usefixtures("coarse_figures")
def test_one_model_on_the_curve_of_a_deep_ensemble(folder, capsys):
    assert run("evaluate one.npz --ensemble whole.npz --out out".split()) == 0
    out = capsys.readouterr().out
    assert "deep ensemble equivalent" in out
    assert "pairwise KL" not in out  # one model has none
    found = results(folder / "out")
    assert found["dee"]["ensemble"] == "whole.npz"
    assert 1 <= found["dee"]["value"] < 2
    assert {path.stem for path in (folder / "out/figures").iterdir()} == {
        "reliability",
        "risk_coverage",
        "confusion",
        "dee",
    }


@pytest.mark.usefixtures("coarse_figures")
def test_an_evaluation_repeats_to_the_bit_and_is_replaced_only_when_asked(folder, capsys):
    assert run("evaluate whole.npz --out out --bootstrap 5".split()) == 0
    first = {path: path.read_bytes() for path in sorted((folder / "out").rglob("*")) if path.is_file()}
    assert run("evaluate plain.npz --out out".split()) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert first == {path: path.read_bytes() for path in first}
    assert run("evaluate whole.npz --out out --bootstrap 5 --overwrite".split()) == 0
    again = {path: path.read_bytes() for path in first}
    for path in first:
        if path.name in ("results.json", "config.json"):
            same = {"seconds": 0, "digest": ""}
            assert {**json.loads(first[path]), **same} == {**json.loads(again[path]), **same}
        elif path.name == "log.jsonl":
            assert [json.loads(line)["event"] for line in again[path].splitlines()] == ["started", "finished"]
        elif path.name != ".lock":
            assert first[path] == again[path], path.name
    assert run("evaluate plain.npz --out out --overwrite".split()) == 0
    assert not (folder / "out/figures/dee.png").exists()  # a figure of the old evaluation is gone


@pytest.mark.usefixtures("coarse_figures")
def test_several_models_are_set_side_by_side(folder, capsys):
    (folder / "sub").mkdir()
    np.savez("sub/one.npz", logits=arrays(0)[0][1], labels=arrays(0)[1])
    assert run("evaluate whole.npz one.npz sub/one.npz --bootstrap 20 --out out".split()) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for words in ("3 files of predictions", "one.npz minus whole.npz", "sub/one.npz minus whole.npz", "AUROC"):
        assert words in out, words
    found = results(folder / "out")
    assert [one["file"] for one in found["models"]] == ["whole.npz", "one.npz", "sub/one.npz"]
    assert [(one["file"], one["base"]) for one in found["differences"]] == [
        ("one.npz", "whole.npz"), ("sub/one.npz", "whole.npz")
    ]  # fmt: skip
    assert "cal_nll" in found["differences"][0]["measures"]
    assert "cal_nll" not in found["differences"][1]["measures"]  # it has no val_* arrays
    assert json.loads((folder / "out/config.json").read_text())["config"]["files"][2] == "sub/one.npz"
    assert {path.stem for path in (folder / "out/figures").iterdir()} == {"risk_coverage"}
    lines = (folder / "out/samples.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 120
    assert lines[-1].startswith("sub/one.npz,119,")

    assert run("evaluate plain.npz --out alone".split()) == 0
    assert run("report out alone --out page.html".split()) == 0
    page = (folder / "page.html").read_text()
    assert "divkd evaluate whole.npz one.npz sub/one.npz --bootstrap 20 --seed 0" in page
    assert "Predictions side by side" in page
    assert run("evaluate whole.npz --out out --overwrite".split()) == 0
    assert len((folder / "out/samples.csv").read_text().splitlines()) == 121


@pytest.mark.usefixtures("coarse_figures")
def test_further_arrays_are_named_in_one_line(folder, capsys):
    logits, labels = arrays(0)
    np.savez("more.npz", logits=logits, labels=labels, inputs=logits, val_logit=logits)
    assert run("evaluate more.npz --out out".split()) == 0
    assert capsys.readouterr().err == "more.npz: not read: inputs, val_logit (did you mean val_logits?)\n"


@pytest.mark.usefixtures("coarse_figures")
def test_of_many_classes_the_worst_are_tabled(folder, capsys):
    logits, labels = arrays(0, samples=400, classes=120)
    labels[labels == 7] = 8  # a class that does not occur
    np.savez("many.npz", logits=logits, labels=labels)
    assert run("evaluate many.npz --out out".split()) == 0
    assert "The 10 of 120 classes with the lowest F1" in capsys.readouterr().out
    found = results(folder / "out")
    assert "confusion" not in found
    assert len(found["by_class"]) == 120
    assert found["by_class"][7]["recall"] is None
    assert run("report out --out page.html".split()) == 0


@pytest.mark.usefixtures("coarse_figures")
def test_a_certain_and_wrong_model_is_evaluated(folder, capsys):
    with np.errstate(divide="ignore"):
        certain = np.log(np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]))
    np.savez("certain.npz", log_probs=certain, labels=[1, 0], val_log_probs=certain, val_labels=[1, 0])
    assert run("evaluate certain.npz --out out --bootstrap 5".split()) == 0
    found = results(folder / "out")
    assert found["nll"] is None  # JSON has no infinity
    assert found["disagreement"] == 0.5
    assert "[inf, inf]" in capsys.readouterr().out  # and no tag of the table's


@pytest.mark.usefixtures("coarse_figures")
def test_odd_names_and_huge_numbers_stay_readable(folder, capsys):
    logits, labels = arrays(0)
    np.savez("[bold]x.npz", logits=logits * np.float32(1e30), labels=labels)
    assert run(["evaluate", "[bold]x.npz", "--out", "[red]out"]) == 0
    out = capsys.readouterr().out
    assert "[bold]x.npz" in out
    assert "[red]out" in out
    assert "e+29" in out
    assert max(map(len, out.splitlines())) < 100


@pytest.mark.parametrize(
    ("line", "value", "mend"),
    [
        ("evaluate absent.npz", "absent.npz", "give a .npz file"),
        ("evaluate", "FILE.npz", "Missing argument"),
        ("evaluate whole.npz --bootstrap -1", "--bootstrap -1", "at least 2"),
        ("evaluate whole.npz --bootstrap 1", "--bootstrap 1", "1000"),
        ("evaluate whole.npz --out whole.npz", "--out whole.npz", "folder"),
        ("evaluate whole.npz --out whole.npz/x", "--out whole.npz/x", "write to"),
        ("evaluate whole.npz --out .", "--out .", "new folder"),
        ("evaluate whole.npz --out . --overwrite", "--out .", "new folder"),
        ("evaluate whole.npz --ensemble plain.npz", "val_*", "calibrated"),
        ("evaluate plain.npz --ensemble whole.npz", "val_*", "calibrated"),
        ("evaluate bad.npz", "logits[1, 7, 2] is nan", "leave it out"),
        ("evaluate whole.npz plain.npz whole.npz", "whole.npz is given twice", "once"),
        ("evaluate whole.npz ./whole.npz", "whole.npz is given twice", "once"),
        ("evaluate whole.npz other.npz", "labels of whole.npz (120) and of other.npz (120) differ", "same samples"),
        ("evaluate whole.npz one.npz --bootstrap 1", "--bootstrap 1", "1000"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_writes_nothing(folder, capsys, line, value, mend):
    bad = load("whole.npz").test.log_probs.numpy().copy()
    bad[1, 7, 2] = np.nan
    np.savez("bad.npz", logits=bad, labels=arrays(0)[1])
    np.savez("other.npz", logits=arrays(0)[0], labels=arrays(3)[1])
    refused(line, value, mend, capsys, folder)


@pytest.mark.usefixtures("coarse_figures")
def test_failures_while_running_are_one_line(folder, capsys, monkeypatch):
    from divkd.shared.metrics import compare

    def failing(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(compare, "evaluated", failing)
    assert run("evaluate whole.npz --out out".split()) == 1
    err = capsys.readouterr().err
    assert "out of memory" in err
    assert not (folder / "out/results.json").exists()
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert run("evaluate whole.npz --out out --bootstrap 2 --resume".split()) == 2
    assert "bootstrap was 0" in capsys.readouterr().err
    assert run("evaluate whole.npz --out out --resume".split()) == 0
    assert (folder / "out/results.json").exists()
