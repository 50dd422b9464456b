"""`simulate gaussian`, `ntk`, `convergence`, `students`: a run, its repetition, its growth, one line for bad input."""

import json

import pytest
from refusals import refused

from divkd.cli.main import run

pytestmark = pytest.mark.usefixtures("figures_undrawn")

SHORT = {
    "gaussian": "simulate gaussian --epochs 1 --train-samples 200 --test-samples 100 --width 8",
    "ntk": "simulate ntk --train-samples 60 --test-samples 50 --students 2",
    "convergence": "simulate convergence --dimension 320 --train-samples 40 --distill-time 100 --trust 0.3",
    "students": "simulate students --train-samples 30 --test-samples 40 --classes 2 --expected-others 1 --neurons 3 "
    "--distill-time 100 --max-steps 10 --scan-seeds 0",
}


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def results(folder):
    found = json.loads((folder / "results.json").read_text())
    del found["seconds"], found["digest"]
    return found


@pytest.mark.parametrize("name", SHORT)
def test_a_run_is_whole_repeats_and_grows(name, capsys, tmp_path):
    assert run(f"{SHORT[name]} --members 2 --seed 4 --out first".split()) == 0
    out = capsys.readouterr().out
    assert "one seed" in out
    assert "written to first" in out
    first = results(tmp_path / "first")
    assert run(f"simulate {name} --config first/config.json --out again".split()) == 0
    assert results(tmp_path / "again") == first
    assert run(f"{SHORT[name]} --members 3 --seeds 4,5 --out first --resume".split()) == 0
    grown = results(tmp_path / "first")
    assert {row["seed"] for row in grown["rows"]} == {4, 5}
    assert grown["config"]["members"] == 3
    assert run("report first again --out page.html".split()) == 0
    assert run("figures first again --out drawn".split()) == 0
    for name in ("first", "again"):
        drawn = {file.name for file in (tmp_path / "drawn" / name).glob("*.png")}
        assert drawn == {file.name for file in (tmp_path / name / "figures").glob("*.png")} != set()
        captions = (tmp_path / "drawn" / name / "captions.md").read_text()
        assert all(f"]({file})" in captions for file in drawn)
    (tmp_path / "other").mkdir()
    (tmp_path / "again").rename(tmp_path / "other/first")
    assert run("figures first other/first --out two".split()) == 2
    assert "rename one, or draw it apart" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "value", "mend"),
    [
        ("gaussian --members 0", "--members 0", "1 to 100"),
        ("gaussian --margin 0.95", "--margin 0.95", "0 to 0.9"),
        ("gaussian --label-noise nan", "--label-noise nan", "0 to 1"),
        ("gaussian --train-samples 99", "--train-samples 99", "100 to 1000000"),
        ("gaussian --seeds 0,0", "--seeds 0,0", "each once"),
        ("ntk --ridge 0", "--ridge 0", "above 0"),
        ("ntk --students 0", "--students 0", "1 to 100"),
        ("ntk --patches 4", "--patches 4", "raise --patches"),
        ("ntk --train-samples 12", "--train-samples 12", "raise it"),
        ("convergence --dimension 100", "--dimension 100", "raise it"),
        ("students --members 1", "--members 1", "2 to 100"),
        ("students --rule hard", "hard", "clipped"),
        ("students --patches 4", "--patches 4", "raise --patches"),
        ("gaussian --resume", "--resume", "--out"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_writes_nothing(line, value, mend, capsys, tmp_path):
    refused(f"simulate {line}", value, mend, capsys, tmp_path)
