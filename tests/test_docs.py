"""The how-to is run as it stands."""

import json
import re
from pathlib import Path

import pytest

from divkd.cli.main import run
from divkd.shared.report.cells import markdown
from divkd.shared.stats import show

DOCS = Path(__file__).parents[1] / "docs"
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
