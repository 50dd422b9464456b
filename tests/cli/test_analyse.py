"""divkd analyse: from a run to tables and figures; what it cannot do is one line, and harms no run."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from refusals import refused

from divkd.cli.main import run
from divkd.empirical.analysis import analysis
from divkd.empirical.data.datasets import load
from divkd.empirical.training import config as training
from divkd.report import draw
from divkd.shared.files import read_json

pytestmark = pytest.mark.usefixtures("coarse_figures_throughout")

COMMAND = "analyse run --images 20 --ood turned.npz --shift mirror.npz --device cpu"
FIGURES = ("by_members", "corruptions", "diversity_by_confidence", "entropy", "gradients", "transfer",
           "transfer_by_confidence")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a small run, foreign and mirrored images, and runs that are not finished."""
    folder = tmp_path_factory.mktemp("analyse")
    smoke = training.PRESETS["smoke"]
    short = dataclasses.replace(smoke.teacher, epochs=1)
    changes = {"teacher": short, "student": short, "members": 2, "ladder": 3, "train_images": 64, "methods": ("ods",)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(training.PRESETS, "smoke", dataclasses.replace(smoke, **changes))
        assert run(["train", "digits", "--device", "cpu", "--out", str(folder / "run")]) == 0
    test = load("digits", None, False, None).test
    np.savez(folder / "turned.npz", images=test.images[:30].transpose(2, 3).numpy())
    np.savez(folder / "mirror.npz", x=test.images[:25].flip(3).numpy(), y=test.labels[:25].numpy())
    np.savez(folder / "wide.npz", x=np.zeros((3, 8, 9, 1), np.uint8))
    shutil.copytree(folder / "run", folder / "unfinished")
    (folder / "unfinished" / "results.json").unlink()
    shutil.copytree(folder / "run", folder / "extended")  # as a kill leaves it after --resume --method ods --method kd
    content = read_json(folder / "run" / "config.json")
    content["config"]["methods"] = ["ods", "kd"]
    (folder / "extended" / "config.json").write_text(json.dumps(content))
    (folder / "notes").mkdir()
    (folder / "notes" / "list.txt").write_text("mine")
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(analysis, "BATCH", 2)


@pytest.fixture(scope="module")
def printed(folder):
    """What the command prints for the run; its results lie in analysis/."""
    import contextlib
    import io

    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.chdir(folder)
        patch.setattr(analysis, "BATCH", 2)
        assert run([*COMMAND.split(), "--out", "analysis"]) == 0
    return out.getvalue()


def test_results_hold_every_analysis_of_every_network(folder, printed):
    results = read_json(folder / "analysis" / "results.json")
    assert list(results) == [
        "command", "preset", "dataset", "network", "split", "seeds", "members", "images", "sets", "corruptions", "rows",
        "training_cost", "inference", "published",
    ]  # fmt: skip
    assert results["command"] == "analyse"
    assert [(one["name"], one["use"], one["n"]) for one in results["sets"]] == [
        ("turned", "ood", 20), ("mirror", "shift", 20)
    ]  # fmt: skip
    assert [(row["model"], row["method"]) for row in results["rows"]] == [
        ("deep_ensemble", "none"), ("batch_ensemble", "ods"), ("single", "ods")
    ]  # fmt: skip
    assert results["corruptions"]["source"] == "own generator"
    assert len(results["corruptions"]["kinds"]) == 12
    assert results["published"] == []  # the paper has no digits
    assert str(folder) not in json.dumps(results)
    assert read_json(folder / "analysis" / "config.json")["command"] == "analyse"


def test_the_table_shows_every_network_and_set(printed):
    text = " ".join(printed.split())
    for words in ("turned: entropy", "mirror: accuracy", "12 kinds of corruption", "train images: sibling",
                  "deep ensemble labels 2", "BatchEnsemble ods 2", "single network ods 1", "merged into one 1",
                  "written to analysis"):  # fmt: skip
        assert words in text


def test_every_figure_is_drawn_and_drawn_again_from_results_alone(folder, printed, tmp_path):
    assert sorted(file.stem for file in (folder / "analysis" / "figures").iterdir()) == list(FIGURES)
    again = draw(read_json(folder / "analysis" / "results.json"), tmp_path)
    assert sorted(path.stem for path in again) == list(FIGURES)
    for path in again:
        assert path.read_bytes() == (folder / "analysis" / "figures" / path.name).read_bytes()


def test_many_sets_and_single_networks_first_are_drawn_whole(folder, printed, tmp_path):
    """More foreign sets than there are colours; a legend for what the first network has not."""
    found = read_json(folder / "analysis" / "results.json")
    found["rows"].sort(key=lambda row: row["model"] != "single")
    for number in range(8):
        found["sets"].append({**found["sets"][0], "name": f"set{number}"})
        for row in found["rows"]:
            row["ood"][f"set{number}"] = row["ood"]["turned"]
    assert sorted(path.stem for path in draw(found, tmp_path)) == list(FIGURES)


def test_a_finished_analysis_goes_on_to_the_same_rows(folder, printed, capsys):
    before = read_json(folder / "analysis" / "results.json")
    assert run([*COMMAND.split(), "--out", "analysis", "--resume"]) == 0
    assert read_json(folder / "analysis" / "results.json")["rows"] == before["rows"]


@pytest.mark.parametrize(
    ("line", "value", "mend"),
    [
        ("analyse", "RUN", "Missing"),
        ("analyse absent", "absent", "the folder that it wrote"),
        ("analyse notes", "notes", "the folder that it wrote"),
        ("analyse analysis", "analysis", "the folder that it wrote"),
        ("analyse unfinished --out new", "unfinished is not finished", "--out unfinished --resume"),
        ("analyse extended --out new", "extended is not finished", "--out extended --resume"),
        ("analyse run --images 1", "--images 1", "at least 2"),
        ("analyse run --images few", "'few'", "integer"),
        ("analyse run --ood absent.npz", "absent.npz", "an .npz file with images"),
        ("analyse run --ood svhn --data-dir nowhere", "nowhere", "--data-dir"),
        ("analyse run --ood wide.npz", "9 x 8 pixels", "scale them to 8 x 8"),
        ("analyse run --ood mirror.npz --shift mirror.npz", "mirror", "rename"),
        ("analyse run --shift turned.npz", "turned.npz", "labels, y, y_test"),
        ("analyse run --shift digits", "--shift digits", "--ood"),
        ("analyse run --corruptions absent", "absent is no folder", "labels.npy"),
        ("analyse run --device tpu", "--device tpu", "cpu, cuda"),
        ("analyse run --resume", "--resume", "needs --out"),
        ("analyse run --out notes", "--out notes", "an empty or a new folder"),
        ("analyse run --out notes --overwrite", "--out notes", "an empty or a new folder"),
        ("analyse run --out run", "--out run", "give another folder"),
        ("analyse run --out ./run --overwrite", "--out run", "give another folder"),
        (f"{COMMAND} --out analysis", "--out analysis holds a finished run", "--resume goes on"),
        (f"{COMMAND.replace('20', '21')} --out analysis --resume", "images was 20", "is 21 now"),
        (f"{COMMAND} --out unfinished --resume", "'train cifar'", "give its own"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_writes_nothing(folder, printed, capsys, line, value, mend):
    refused(line, value, mend, capsys, folder)
