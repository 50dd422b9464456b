"""Simulations on the command line: maps that go on and repeat, worlds without a lottery, runs that need more steps."""

import json

import pytest

from divkd.cli.main import run

pytestmark = pytest.mark.usefixtures("coarse_figures_throughout")


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


WORLD = "--preset quick --classes 3 --patches 12 --expected-others 1 --train-samples 60 --test-samples 50 --members 2"


def test_a_map_goes_on_with_its_grid_and_is_repeated_by_its_config(capsys, tmp_path):
    def cells(folder):
        rows = json.loads((tmp_path / folder / "results.json").read_text())["cells"]
        return {row["name"]: row["errors"] for row in rows}

    assert run(f"simulate window {WORLD} --vary noise=1,1.00000001 --vary power=2 --out map".split()) == 0
    first = cells("map")
    assert list(first) == ["noise=1", "noise=1.00000001", "power=2"]
    (tmp_path / "map/results.json").unlink()
    assert run(f"simulate window {WORLD} --out map --resume".split()) == 0
    assert cells("map") == first
    assert run("simulate window --config map/config.json --out again".split()) == 0
    assert cells("again") == first
    assert run(f"simulate window {WORLD} --vary noise=2 --out map --resume".split()) == 2
    assert "--resume: vary.noise was" in capsys.readouterr().err
    assert run(f"simulate window {WORLD} --grid noise=1 --grid power=2,3 --out grid".split()) == 0
    assert run("simulate window --config grid/config.json --out grid2".split()) == 0
    assert cells("grid2") == cells("grid")
    assert list(cells("grid")) == ["noise=1, power=2", "noise=1, power=3"]
    next((tmp_path / "map/jobs").glob("*.json")).write_bytes(b"half")
    assert run(f"simulate window {WORLD} --out map --resume".split()) == 0
    assert "is done again" in " ".join(capsys.readouterr().err.split())
    assert cells("map") == first


def test_no_lottery_is_a_result_like_any_other(tmp_path):
    assert run(f"simulate multiview {WORLD} --power 2 --students 1 --soft-steps 20 --out square".split()) == 0
    assert (tmp_path / "square/figures/view_strengths.png").exists()


def test_a_run_that_ran_out_of_steps_goes_on_with_more(capsys, tmp_path):
    command = "simulate multiview --preset quick --train-samples 200 --members 1 --out theory"
    assert run(f"{command} --max-steps 20".split()) == 1
    assert "raise max_steps" in capsys.readouterr().err
    assert run(f"{command} --max-steps 5000 --resume".split()) == 0
    assert (tmp_path / "theory/results.json").exists()


def test_mu_or_the_number_of_single_views(capsys):
    def single_views(options):
        assert run(f"simulate multiview --preset quick {options} --print-config".split()) == 0
        told = capsys.readouterr()
        return json.loads(told.out)["config"]["single_views"], told.err

    assert single_views("--mu 0.1") == (3, "")
    assert single_views("--mu 0.1 --single-views 3") == (3, "")
    assert single_views("--mu 0.1 --views 3 --patches 40")[0] == 2
    rounded, said = single_views("--mu 0.11")
    assert rounded == 3
    assert "mu = 0.1" in said
    for options, words in (("--mu 0.001", "multiple of V k / N = 0.03333"), ("--mu 0.1 --single-views 2", "give one")):
        assert run(f"simulate multiview --preset quick {options}".split()) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1


def test_a_map_of_views_has_the_ensembles_by_members(tmp_path):
    assert run(f"simulate window {WORLD} --own-patches 2 --vary views=1,2,3 --out views".split()) == 0
    results = json.loads((tmp_path / "views/results.json").read_text())
    rows = {row["changes"]["views"]: row for row in results["cells"]}
    assert all(list(row["members"]) == list(row["predicted"]) == ["1", "2"] for row in rows.values())
    assert rows[1]["members"]["1"]["mean"] == rows[1]["predicted"]["2"]["mean"] == 0
    assert rows[3]["errors"]["single"]["mean"] == rows[3]["members"]["1"]["mean"] > 0.3
    assert (tmp_path / "views/figures/members.png").exists()


def test_three_views_are_told_as_no_theorem(capsys, tmp_path):
    world = f"{WORLD} --own-patches 2 --views 3 --students 1 --soft-steps 20"
    assert run(f"simulate multiview {world} --out three".split()) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "expected: 0.657 to 0.677" in told
    assert "theorem:" not in told
    claims = json.loads((tmp_path / "three/results.json").read_text())["claims"]
    assert claims["single"]["accepted"] == "within 0.02 of the prediction"
    assert claims["ensemble"]["by_members"][1]["asymptotic"] == pytest.approx(4 / 9)
    assert (tmp_path / "three/figures/views_learned.png").exists()
