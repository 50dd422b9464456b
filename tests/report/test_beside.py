"""Theory beside practice: what the figures plot, from numbers worked by hand."""

import json
from pathlib import Path

import pytest

from divkd.report.figures import beside, kept
from divkd.report.figures.beside import told_apart
from divkd.report.figures.manual import FIGURES, draw_all
from divkd.report.sources import Source
from divkd.shared.files import read_json

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def practice():
    """Two seeds: one network errs on .5 and .4, the ensemble of 2 on .4 and .3, its student on .45 and .2."""
    rows = []
    for seed, errors in ((0, (0.5, 0.4, 0.45)), (1, (0.4, 0.3, 0.2))):
        kinds = (("deep_ensemble", "none", 1), ("deep_ensemble", "none", 2), ("batch_ensemble", "kd", 2))
        for (model, method, members), error in zip(kinds, errors, strict=True):
            rows.append({"model": model, "method": method, "members": members, "seed": seed, "acc": 1 - error})
        rows[-1]["dee"] = {"value": 1.5 + seed / 2, "censored": seed == 1}
    curve = [{"members": 1, "mean": 2.0, "std": None}, {"members": 2, "mean": 1.0, "std": None}]
    return {
        "command": "train cifar", "dataset": "digits", "network": "resnet8", "split": {"train": 9, "test": 4},
        "seeds": [0, 1], "rows": rows, "ladders": [{"seed": seed, "curve": curve} for seed in (0, 1)],
    }  # fmt: skip


def theory():
    return read_json(RESULTS / "multiview-default" / "results.json")


def test_shares_are_of_the_same_seeds_first_network():
    found = beside.recovered_shares(practice())
    assert list(found) == ["one network", "deep ensemble of 2", "BatchEnsemble, kd"]
    assert found["one network"] == {"mean": 1.0, "std": 0.0, "n": 2}
    assert found["deep ensemble of 2"]["mean"] == pytest.approx((0.8 + 0.75) / 2)
    assert found["BatchEnsemble, kd"]["mean"] == pytest.approx((0.9 + 0.5) / 2)
    assert beside.practice_equivalents(practice()) == ({"BatchEnsemble, kd": [(1.5, False), (2.0, True)]}, 2)


def test_the_theorys_shares_and_equivalents_are_those_of_its_claims():
    results = theory()
    claims = results["claims"]
    shares = beside.theory_shares(results)
    assert shares["one network"]["mean"] == 1
    half = claims["self_distilled"]["single_view_error"]["mean"] / claims["single"]["single_view_error"]["mean"]
    assert shares["self-distilled"]["mean"] == pytest.approx(half)
    found, top = beside.theory_equivalents(results)
    assert top == len(claims["ensemble"]["by_members"])
    assert {name: len(marks) for name, marks in found.items()} == dict.fromkeys(found, len(results["seeds"]))
    assert found["distilled"] == [(10.0, True)] * 5  # it makes no error, as ten members make none
    # a self-distilled network knows the views of two: its marks lie about two members
    assert all(1.5 < members < 3 and not censored for members, censored in found["self-distilled"])


def test_a_column_a_run_and_what_is_missing_is_named(tmp_path):
    sources = [Source("mine", practice()), Source("world", theory())]
    paths, missing = draw_all(sources, tmp_path)
    assert [path.stem for path in paths] == [
        "ensemble_gain", "recovered", "diversity_by_confidence", "members", "equivalents", "kept"
    ]  # fmt: skip
    assert any(line.startswith("diversity_by_confidence.png lacks a column: no run of 'analyse'") for line in missing)
    captions = (tmp_path / "captions.md").read_text()
    assert "world (mean ± sd over 5 seeds: 0, 1, 2, 3, 4); mine (mean ± sd over 2 seeds: 0, 1)" in captions
    assert "![plane]" not in captions
    first = {path.name: path.read_bytes() for path in paths}
    draw_all(sources, tmp_path)
    assert first == {path.name: path.read_bytes() for path in paths}  # the same runs, the same bytes
    (tmp_path / "mine.png").write_bytes(b"somebody's")
    draw_all(sources[:1], tmp_path)  # what has no run any more goes with its caption
    assert {path.name for path in tmp_path.iterdir()} == {
        "captions.md", "ensemble_gain.png", "recovered.png", "equivalents.png", "mine.png"
    }  # fmt: skip
    assert draw_all([], tmp_path / "none")[0] == []
    assert not (tmp_path / "none").exists()
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)


def experiment():
    """Two seeds of two networks: their ensemble gains .1 and .2, their student .05 and .2, the average nothing."""
    rows = []
    for seed, errors in ((0, (0.5, 0.3, 0.3, 0.35, 0.4)), (1, (0.4, 0.4, 0.2, 0.2, 0.4))):
        kinds = ("network", "network", "ensemble", "distilled", "average")
        rows += [{"model": model, "seed": seed, "acc": 1 - error} for model, error in zip(kinds, errors, strict=True)]
    return {
        "command": "experiment mysteries", "dataset": "digits", "network": "resnet8", "split": {"train": 9, "test": 4},
        "seeds": [0, 1], "rows": rows,
    }  # fmt: skip


def test_shares_of_the_gain_are_of_means_and_of_each_seed(tmp_path):
    found = kept.shares(experiment())
    assert list(found) == ["their average, trained as one", "distilled, at a temperature"]
    assert found["distilled, at a temperature"].mean == pytest.approx(0.125 / 0.15)
    assert found["distilled, at a temperature"].seeds == pytest.approx([0.05 / 0.1, 0.2 / 0.2])
    assert found["their average, trained as one"].seeds == pytest.approx([0, 0])
    simulated = kept.shares(theory())
    claims = theory()["claims"]
    errors = {
        name: claims[name]["single_view_error"]["mean"] for name in ("single", "ensemble", "distilled_temperature")
    }
    share = (errors["single"] - errors["distilled_temperature"]) / (errors["single"] - errors["ensemble"])
    assert simulated["distilled, at a temperature"].mean == pytest.approx(share)
    assert simulated["ensemble of two"].seeds == []  # of which the run keeps the mean alone
    paths, missing = draw_all([Source("world", theory()), Source("asked", experiment())], tmp_path)
    assert "kept" in {path.stem for path in paths}
    assert not any(line.startswith("kept.png lacks a column: no run of 'experiment mysteries'") for line in missing)


@pytest.mark.parametrize("lost", ["gain", "ensemble", "students"])
def test_a_run_without_the_numbers_is_left_out(lost, tmp_path):
    results = experiment()
    if lost == "gain":
        for row in results["rows"]:
            row["acc"] = 0.5
    rest = {"ensemble": ("network", "distilled"), "students": ("network", "ensemble")}.get(lost)
    results["rows"] = [row for row in results["rows"] if rest is None or row["model"] in rest]
    assert not kept.fits(Source("asked", results))
    assert draw_all([Source("asked", results)], tmp_path)[0] == []


def test_a_world_without_errors_has_no_shares():
    results = json.loads(json.dumps(theory()))
    results["claims"]["single"]["single_view_error"]["mean"] = 0.0
    with pytest.raises(ValueError, match="no error"):
        beside.theory_shares(results)


def test_the_manuals_figures_are_of_the_committed_results(tmp_path):
    names = ("multiview-default", "plane", "cifar10-cpu-long", "cifar10-cpu-analysis", "mysteries", "ensemble-over-kd")
    paths, missing = draw_all([Source(name, read_json(RESULTS / name / "results.json")) for name in names], tmp_path)
    assert not missing
    shown = RESULTS.parent / "figures"
    assert {path.name for path in paths} == {path.name for path in shown.glob("*.png")}
    assert (tmp_path / "captions.md").read_text() == (shown / "captions.md").read_text()


def test_simulations_side_by_side_are_told_apart_by_what_differs():
    def run(name, preset="default", **fields):
        results = {"command": "simulate multiview", "preset": preset, "config": {"members": 10}, "seeds": [0]}
        return Source(name, results, {"config": fields})

    practice = Source("digits", {"command": "train cifar", "seeds": [0]})
    assert told_apart([run("a"), practice]) == ["Theory: ", "Practice: "]
    assert told_apart([run("a", power=3), run("b", power=4)]) == ["Theory, power=3\n", "Theory, power=4\n"]
    assert told_apart([run("a", "toy", power=3), run("b", power=4)])[0] == "Theory, preset=toy\n"
    assert told_apart([run("a"), run("b")]) == ["Theory, a\n", "Theory, b\n"]
