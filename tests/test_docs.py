"""The how-tos are run as they stand."""

import dataclasses
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import divkd
from divkd.cli.main import run
from divkd.empirical.training import config as training
from divkd.report.sweep import markdown
from divkd.shared.stats import show

DOCS = Path(__file__).parents[1] / "docs"
USE = DOCS / "use.md"
HOWTO = DOCS / "evaluate.md"
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", HOWTO.read_text(encoding="utf-8"), re.M | re.S))


def code(section: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", SECTIONS[section], re.S)
    return block


@pytest.mark.parametrize(("section", "members"), [("From scikit-learn", 4), ("From PyTorch", 3), ("From JAX", 3)])
def test_arrays_of_a_framework_are_evaluated(section, members, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if section == "From JAX":
        pytest.importorskip("jax", reason="divkd does without JAX")
    exec(code(section), {})
    assert run("evaluate predictions.npz --out runs/mine".split()) == 0
    assert f"{members} members" in capsys.readouterr().out
    found = json.loads((tmp_path / "runs/mine/results.json").read_text())
    named = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in SECTIONS["What comes out"].splitlines()
                                               if line.startswith("| `"))))  # fmt: skip
    assert named - set(found) <= {"ood", "intervals"}  # every key of the table is there
    if section == "From scikit-learn":
        assert found["acc"] > 0.9
        assert found["ood"]["entropy"]["auroc"] > 0.7
    else:
        assert found["ood_samples"] == 0


@pytest.mark.parametrize("name", ["ablations", "window"])
def test_the_tables_of_the_theory_are_those_of_its_runs(name):
    results = json.loads((DOCS / "results" / f"multiview-{name}" / "results.json").read_text(encoding="utf-8"))
    assert markdown(results) in (DOCS / "theory.md").read_text(encoding="utf-8")


def test_the_claims_that_the_manual_prints_are_those_of_its_runs():
    text = (DOCS / "theory.md").read_text(encoding="utf-8")
    for run_name in ("default", "heldout", "20seeds", "q4", "large"):
        results = json.loads((DOCS / "results" / f"multiview-{run_name}" / "results.json").read_text(encoding="utf-8"))
        for claim in results["claims"].values():
            assert f"| {show(claim['single_view_error'])} |" in text


def test_python_block_runs(capsys):
    exec(code("In Python"), {})
    assert len(capsys.readouterr().out.split()) == 2


@pytest.fixture
def short_run(tmp_path, monkeypatch):
    """A working folder with images, where `divkd train digits` takes seconds."""
    smoke = training.PRESETS["smoke"]
    short = dataclasses.replace(smoke.teacher, epochs=1)
    changes = {"teacher": short, "student": short, "members": 2, "ladder": 0, "train_images": 130}
    monkeypatch.setitem(training.PRESETS, "smoke", dataclasses.replace(smoke, **changes))
    monkeypatch.chdir(tmp_path)
    digits = (load_digits().images[-3:] * 255 / 16).astype(np.uint8)
    (tmp_path / "scans").mkdir()
    for number, image in enumerate(digits):
        Image.fromarray(image).save(tmp_path / f"scans/{number}.png")
    np.savez("images.npz", images=digits[..., None])
    return tmp_path


def test_the_page_on_use_runs_as_it_stands(short_run, capsys):
    """Python blocks and commands of docs/use.md, in order; its students learn, and its last block reads the export."""
    torch.manual_seed(0)
    names = {}
    for kind, block in re.findall(r"```(python|sh)\n(.*?)```", USE.read_text(encoding="utf-8"), re.S):
        if kind == "python":
            exec(block, names)
            continue
        for line in block.splitlines():
            command, _, file = line.removeprefix("divkd ").partition(" > ")
            capsys.readouterr()
            assert run(command.split()) == 0, line
            if file:
                (short_run / file).write_text(capsys.readouterr().out)
    assert (names["answer"].classes == names["labels"][1200:].numpy()).mean() > 0.9
    wrong = names["answer"].classes != names["labels"][1200:].numpy()
    assert names["answer"].entropy[wrong].mean() > 2 * names["answer"].entropy[~wrong].mean()
    assert 0.05 < names["row"]["temperature"] < 20
    assert names["logits"].shape == (2, 4, 10)
    for file in ("predictions.csv", "calibrated.csv"):
        assert (short_run / file).read_text().startswith("file,class,confidence,entropy,mutual_information\n")
        assert (short_run / file).read_text().count("\n") == 4


def test_the_table_on_distill_names_its_arguments():
    section = USE.read_text(encoding="utf-8").split("## Distill")[1].split("##")[0]
    named = re.findall(
        r"`(\w+)`", "".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `"))
    )
    assert set(named) == set(inspect.signature(divkd.distill).parameters) - {"epochs"}
