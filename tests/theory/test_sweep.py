import dataclasses
import json

import numpy as np
import pytest

from divkd import report
from divkd.report.sweep import REPORT
from divkd.shared.files import plain
from divkd.shared.jobs import Workers
from divkd.shared.progress import Progress
from divkd.shared.run import open_run
from divkd.theory import experiment, sweep


def measured(config, cells, path, **flags):
    run = open_run(path, "simulate window", dataclasses.asdict(config), extendable=("seeds",), **flags)
    return sweep.run_sweep(config, "simulate window", cells, run, Workers(Progress(quiet=True)))["cells"]


def test_a_cell_without_changes_is_the_simulation(tiny, tmp_path):
    (row,) = measured(tiny, {"as it is": {}}, tmp_path / "cells")
    run = open_run(tmp_path / "run", "simulate multiview", dataclasses.asdict(tiny))
    results = experiment.simulate(tiny, run, Workers(Progress(quiet=True)))
    for claim in sweep.CLAIMS:
        assert row["errors"][claim]["mean"] == results["claims"][claim]["single_view_error"]["mean"]
        assert row["errors"][f"{claim}_multi_view"]["mean"] == results["claims"][claim]["multi_view_error"]["mean"]
    for view in sweep.VIEWS:
        if view in row["views"]:
            assert row["views"][view]["mean"] == results["views"][view]


def test_a_cell_that_cannot_be_is_a_row_that_says_why_and_the_others_go_on(tiny, tmp_path):
    cells = sweep.one_at_a_time({"patches": (6, 12), "max_steps": (3,), "power": (3,)})
    rows = {row["name"]: row for row in measured(tiny, cells, tmp_path / "run")}
    assert "do not fit" in rows["patches=6"]["failed"]
    assert "max_steps 3" in rows["max_steps=3"]["failed"]
    assert rows["power=3"]["failed"] is None
    assert rows["power=3"]["errors"] == rows["patches=12"]["errors"]


def test_resume_simulates_nothing_twice_and_gives_the_same_rows(tiny, tmp_path, monkeypatch):
    config = dataclasses.replace(tiny, seeds=(0, 1))
    cells = sweep.one_at_a_time({"own_weight": ((1.0, 1.0), (1.0, 1.2))})
    first = measured(dataclasses.replace(config, seeds=(0,)), cells, tmp_path / "run")
    seeds = []
    whole = sweep.Seed

    def counted(config, run, progress, seed, kinds, **more):
        seeds.append(seed)
        return whole(config, run, progress, seed, kinds, **more)

    monkeypatch.setattr(sweep, "Seed", counted)
    rows = measured(config, cells, tmp_path / "run", resume=True)
    assert seeds == [1, 1]
    assert [row["errors"]["single"]["n"] for row in rows] == [2, 2]
    fresh = measured(config, cells, tmp_path / "fresh")
    assert [row | {"seconds": 0} for row in fresh] == [row | {"seconds": 0} for row in rows]
    assert first[0]["name"] == "own_weight=1"
    assert not list(tmp_path.glob("run/checkpoints/*"))  # a cell's networks are not kept


def test_the_ablations_do_what_the_theory_predicts(tiny, tmp_path):
    config = dataclasses.replace(tiny, seeds=(0, 1), students=1)
    rows = {row["name"]: row for row in measured(config, sweep.ABLATIONS, tmp_path / "run")}
    assert all(row["failed"] is None for row in rows.values())

    def share(name):
        return rows[name]["views"]["one_view_fraction"]["mean"]

    def error(name, claim):
        return rows[name]["errors"][claim]["mean"]

    assert share("as it is") > 0.9
    assert share("q = 2") < 0.1
    assert share("plain ReLU") < 0.1
    assert error("q = 2", "single") < 0.05
    assert error("plain ReLU", "single") < 0.05
    assert share("rho = 0") < share("as it is") - 0.2
    assert share("no single-view samples") > 0.9
    # there is nothing to collect where every network knows the same view
    assert error("one view per class", "ensemble") == pytest.approx(error("one view per class", "single"), abs=0.01)
    assert error("as it is", "ensemble") < 0.7 * error("as it is", "single")
    assert error("one view stronger", "ensemble") > error("as it is", "ensemble")


def test_the_second_view_shows_with_its_share(tiny):
    from divkd.theory.data import NOISE, training_samples

    whole, part = training_samples(tiny, 0), training_samples(dataclasses.replace(tiny, second_view=0.25), 0)
    second = (whole.feature != NOISE) & (whole.feature % 2 == 1)
    np.testing.assert_allclose(part.weight, np.where(second, 0.25, 1) * whole.weight, rtol=1e-6)


def test_figures_and_table_are_made_from_results_alone(tiny, tmp_path):
    config = dataclasses.replace(tiny, seeds=(0, 1))
    vary = {"patches": (6, 12), "missing_weight": ((0.0, 0.0), (0.1, 0.15))}
    run = open_run(tmp_path / "run", "simulate window", dataclasses.asdict(config))
    results = sweep.run_sweep(config, "simulate window", sweep.one_at_a_time(vary), run, Workers(Progress(quiet=True)))
    assert results["symbols"]["patches"] == "P"
    assert results["base"]["missing_weight"] == config.missing_weight
    results = json.loads(json.dumps(plain(results), allow_nan=False))
    assert [path.name for path in report.draw(results, tmp_path)] == ["window.png", "window.svg"]
    (table,) = REPORT.tables(results)
    heads, lines = table.heads, table.lines
    assert {len(line) for line in lines} == {len(heads)}
    assert [line[0] for line in lines] == ["patches=6", "patches=12", "missing_weight=0", "missing_weight=0.1:0.15"]
    assert len(table.notes) == 1
    results["command"] = "simulate ablations"
    assert [path.name for path in report.draw(results, tmp_path)] == ["ablations.png", "ablations.svg"]


def test_cells_of_one_configuration_are_simulated_once(tiny, tmp_path):
    cells = sweep.one_at_a_time({"noise": (1.0, 2.0), "power": (3,), "own_weight": ((1.1, 1.3),)})
    rows = measured(tiny, cells, tmp_path / "run")
    assert [job.name for job in sweep.sweep_jobs(tiny, cells)] == ["base-seed0", "noise=2-seed0"]
    assert {path.name for path in tmp_path.glob("run/jobs/*.json")} == {"base-seed0.json", "noise=2-seed0.json"}
    assert [row["name"] for row in rows] == list(cells)
    assert [row["changes"] for row in rows] == list(cells.values())
    assert rows[0]["errors"] == rows[2]["errors"] == rows[3]["errors"] != rows[1]["errors"]
    assert rows[0]["seconds"] > 0 == rows[2]["seconds"] == rows[3]["seconds"]


def test_a_grid_has_every_pair_and_a_heat_map(tiny, tmp_path):
    cells = sweep.pairs({"patches": (6, 12), "missing_weight": ((0.05, 0.05), (0.1, 0.15))})
    assert next(iter(cells)) == "patches=6, missing_weight=0.05"
    assert len(cells) == 4
    run = open_run(tmp_path / "run", "simulate window", dataclasses.asdict(tiny))
    results = sweep.run_sweep(tiny, "simulate window", cells, run, Workers(Progress(quiet=True)))
    results = json.loads(json.dumps(plain(results), allow_nan=False))
    assert [row["failed"] is None for row in results["cells"]] == [False, False, True, True]  # 6 patches have no room
    assert "Two parameters" in REPORT.sentence(results, {})
    assert [path.name for path in report.draw(results, tmp_path)] == ["grid.png", "grid.svg"]
    (table,) = REPORT.tables(results)
    assert [line[0] for line in table.lines] == list(cells)
    for row in results["cells"]:  # where nothing can be trained there is nothing to shade, and it says so
        row |= {"errors": {}, "views": {}, "failed": "seed 0: no room"}
    assert len(report.draw(results, tmp_path)) == 2
