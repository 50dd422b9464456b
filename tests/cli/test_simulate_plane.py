"""`divkd simulate plane`: a whole run, its repetitions, and one line for bad input."""

import pytest
from refusals import refused

from divkd.cli.main import run
from divkd.shared.files import read_json

pytestmark = pytest.mark.usefixtures("figures_undrawn")

SHORT = "simulate plane --points 40 --epochs 3 --width 16"


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def results(folder):
    found = read_json(folder / "results.json")
    del found["seconds"]
    return found


def test_a_run_is_whole_repeats_and_grows(capsys, tmp_path):
    assert run(f"{SHORT} --members 2 --seed 4 --out first".split()) == 0
    out = capsys.readouterr().out
    for words in ("gaussian", "ods", "confods", "one seed", "written to first"):
        assert words in out
    first = results(tmp_path / "first")
    assert first["seeds"] == [4]
    assert run("simulate plane --config first/config.json --out again".split()) == 0
    assert results(tmp_path / "again") == first
    assert run(f"{SHORT} --members 2 --seed 4 --out first".split()) == 2
    assert "--resume" in capsys.readouterr().err
    assert run(f"{SHORT} --members 3 --seeds 4,5 --out first --resume".split()) == 0
    grown = results(tmp_path / "first")
    assert [row["seed"] for row in grown["rows"]] == [4, 5]
    assert grown["picture"]["grid"]["decisions"][:2] == first["picture"]["grid"]["decisions"]
    assert grown["rows"][0]["clean"] != first["rows"][0]["clean"]
    assert run(f"{SHORT} --members 2 --noise 0.05 --seed 4 --out first --resume".split()) == 2
    assert "noise was 0.01" in capsys.readouterr().err
    assert run(f"{SHORT} --members 2 --noise 0.05 --seed 4 --out first --overwrite".split()) == 0
    assert results(tmp_path / "first")["picture"]["points"] != first["picture"]["points"]


def test_every_option_changes_what_it_names(tmp_path):
    """Of the figure's content, what --noise, --step-size, --temperature and --points move."""
    base = "simulate plane --epochs 3 --width 16 --members 2 --seed 0"
    found = {}
    for name, extra in {"": "", "noise": "--noise 0", "step": "--step-size 0.02", "temper": "--temperature 1",
                        "points": "--points 20"}.items():  # fmt: skip
        extra = extra if name == "points" else f"{extra} --points 40"
        assert run([*base.split(), *extra.split(), "--out", f"run{name}"]) == 0
        found[name] = results(tmp_path / f"run{name}")["picture"]
    assert found["noise"]["points"] != found[""]["points"]
    assert found["step"]["points"] == found[""]["points"]
    assert found["step"]["moved"]["gaussian"] != found[""]["moved"]["gaussian"]
    assert found["temper"]["grid"] == found[""]["grid"]
    assert found["temper"]["moved"]["confods"] != found[""]["moved"]["confods"]
    assert len(found["points"]["labels"]) == 20


@pytest.mark.parametrize(
    ("line", "value", "mend"),
    [
        ("--members 1", "--members 1", "2 to 12"),
        ("--members two", "'two'", "integer"),
        ("--points 7", "--points 7", "8 to 2000"),
        ("--noise -0.1", "--noise -0.1", "0 to 0.2"),
        ("--noise nan", "--noise nan", "0 to 0.2"),
        ("--step-size 2", "--step-size 2", "0 to 0.5"),
        ("--temperature 0", "--temperature 0", "0.01 to 1000"),
        ("--width 0", "--width 0", "1 to 1024"),
        ("--epochs 0", "--epochs 0", "1 to 10000"),
        ("--seed x", "'x'", "0,1,2"),
        ("--seed -1", "--seeds -1", "from 0"),
        ("--seeds 0,0", "--seeds 0,0", "each once"),
        ("--config absent.json", "absent.json", "existing"),
        ("--resume", "--resume", "--out"),
        ("--resume --overwrite --out run", "--resume", "one of the two"),
        ("--preset moons", "--preset", "No such option"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_writes_nothing(line, value, mend, capsys, tmp_path):
    refused(f"simulate plane {line}", value, mend, capsys, tmp_path)


def test_help_says_what_each_option_means(capsys):
    assert run("simulate plane --help".split()) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "--step-size X eta: a step's length is eta sqrt(2)" in out
    assert "[0 to 0.5; default: 0.07]" in out
