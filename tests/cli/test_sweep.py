"""`divkd sweep`: a cell is the command alone, what cells share is trained once, and nothing is lost."""

import csv
import dataclasses
import json
from collections import Counter

import pytest
from refusals import refused
from scipy.stats import t, ttest_rel
from training_runs import Killed, arrays, rows

from divkd.cli.main import run
from divkd.empirical.training import config as training
from divkd.empirical.training import loop
from divkd.report import swept
from divkd.shared.errors import InputError
from divkd.shared.files import read_json

pytestmark = pytest.mark.usefixtures("coarse_figures_throughout")

TRAIN = "train digits --seeds 0,1"
GRID = "sweep --vary temperature=1,4 --vary kd-weight=0.5,0.9 --out sweep"
CELLS = [f"temperature={t},kd_weight={a}" for t in (1, 4) for a in (0.5, 0.9)]
PLANE = "simulate plane --points 20 --epochs 2 --members 2 --seeds 0,1,2"


@pytest.fixture(autouse=True)
def small_presets(monkeypatch, tmp_path):
    """The preset cut to a second; and a working folder of its own."""
    smoke = training.PRESETS["smoke"]
    short = dataclasses.replace(smoke.teacher, epochs=2)
    changes = {"teacher": short, "student": short, "members": 2, "ladder": 0, "train_images": 64}
    changes |= {"methods": ("none", "kd"), "students": ("single",)}
    monkeypatch.setitem(training.PRESETS, "smoke", dataclasses.replace(smoke, **changes))
    monkeypatch.chdir(tmp_path)


def results(folder):
    return read_json(folder / "results.json")


def epochs(folder):
    """How often each network's epochs were trained, over all cells in `folder`."""
    lines = [json.loads(line) for file in folder.glob("*/log.jsonl") for line in file.read_text().splitlines()]
    return Counter(line["network"] for line in lines if line["event"] == "epoch")


def test_cells_are_the_command_alone_and_share_what_is_the_same(tmp_path, capsys):
    assert run([*GRID.split(), "--", *TRAIN.split()]) == 0
    out = capsys.readouterr().out
    assert "95 % interval" in out
    assert sorted(path.name for path in (tmp_path / "sweep").glob("temp*")) == CELLS
    found = epochs(tmp_path / "sweep")
    assert {network: count // 2 for network, count in found.items()} == {  # of 2 epochs each
        **{f"seed{seed}-teacher{member}": 1 for seed in (0, 1) for member in (0, 1)},
        **{f"seed{seed}-single-none": 1 for seed in (0, 1)},
        **{f"seed{seed}-single-kd-from2": 4 for seed in (0, 1)},
    }
    # the last cell, which trained two of its eight networks: as if it had trained all
    assert run(f"{TRAIN} --temperature 4 --kd-weight 0.9 --out alone".split()) == 0
    alone, cell = tmp_path / "alone", tmp_path / "sweep" / CELLS[-1]
    assert arrays(cell) == arrays(alone)
    assert len(arrays(cell)) > 8
    assert rows(results(cell)) == rows(results(alone))
    assert json.loads((cell / "config.json").read_text())["config"] == json.loads(
        (alone / "config.json").read_text()
    )["config"]  # fmt: skip
    # and whole by itself
    for one in CELLS[:-1]:
        for file in (tmp_path / "sweep" / one).rglob("*.*"):
            file.unlink()
    assert run(["predict", str(cell), "images.npz"]) == 2  # of no images
    assert run([*TRAIN.split(), *"--temperature 4 --kd-weight 0.9 --resume --out".split(), str(cell)]) == 0
    assert epochs(tmp_path / "sweep") == {"seed0-single-kd-from2": 2, "seed1-single-kd-from2": 2}


def test_a_killed_sweep_goes_on_to_the_same_bits_and_grows(tmp_path, monkeypatch):
    line = "train digits --method kd".split()
    assert run(["sweep", "--vary", "temperature=1,4,8", "--out", "whole", "--", *line]) == 0
    once, left = loop.run_epoch, iter(range(7))  # two teachers and a student of 2 epochs are 6

    def killed(*args):
        if next(left, None) is None:
            raise Killed
        return once(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "run_epoch", killed)
        with pytest.raises(Killed):
            run(["sweep", "--vary", "temperature=1,4", "--out", "part", "--", *line])
    assert not (tmp_path / "part/results.json").exists()
    assert (tmp_path / "part/temperature=1/results.json").exists()
    assert not (tmp_path / "part/temperature=4/results.json").exists()
    assert run(["sweep", "--vary", "temperature=8,1,4", "--out", "part", "--resume", "--", *line]) == 0
    for cell in ("temperature=1", "temperature=4", "temperature=8"):
        assert arrays(tmp_path / "part" / cell) == arrays(tmp_path / "whole" / cell)
        started = (tmp_path / "part" / cell / "log.jsonl").read_text().count('"started"')
        assert started == (2 if cell == "temperature=4" else 1)
    assert epochs(tmp_path / "part") == epochs(tmp_path / "whole")
    assert run(["sweep", "--vary", "temperature=1,4", "--out", "part", "--resume", "--", *line]) == 2  # 8 is there


def test_the_figure_the_table_and_the_csv_have_the_same_numbers(tmp_path, monkeypatch):
    drawn = []
    errorbar = swept.panels

    def panels(*args):
        fig, axes = errorbar(*args)
        drawn.append(axes)
        return fig, axes

    monkeypatch.setattr(swept, "panels", panels)
    line = ["sweep", *"--vary noise=0,0.1 --vary width=3,6,9 --against width --measure clean --out out --".split()]
    assert run([*line, *PLANE.split()]) == 0
    with open(tmp_path / "out/sweep.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 18
    assert {(row["cell"], row["noise"], row["width"]) for row in table if row["width"] == "9"} == {
        ("noise=0,width=9", "0", "9"),
        ("noise=0.1,width=9", "0.1", "9"),
    }
    (ax,) = drawn[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["3", "6", "9"]
    for noise, bars in zip(("0", "0.1"), ax.containers, strict=True):
        middle, _, (lines,) = bars.lines
        assert bars.get_label() == f"noise {noise}"
        for place, width in enumerate(("3", "6", "9")):
            values = [float(row["clean"]) for row in table if (row["noise"], row["width"]) == (noise, width)]
            mean, sem = sum(values) / 3, (sum((v - sum(values) / 3) ** 2 for v in values) / 2 / 3) ** 0.5
            ends = t.interval(0.95, 2, mean, sem)
            assert middle.get_ydata()[place] == pytest.approx(mean, abs=1e-12)
            assert lines.get_segments()[place][:, 1] == pytest.approx(ends, abs=1e-9)
            (shown,) = (cells for cells in swept.REPORT.tables(results(tmp_path / "out"))[0].lines
                        if cells[:2] == [noise, width])  # fmt: skip
            assert shown[2].startswith(f"{mean:.4f}")
            assert shown[3] == f"[{ends[0]:.4f}, {ends[1]:.4f}]"
    # another picture of the same runs, of which none is made again
    again = [word.replace("clean", "ods") for word in line]
    assert run([*again[:-1], "--resume", "--", *PLANE.split()]) == 0
    assert results(tmp_path / "out")["measure"] == "ods"
    # and of their differences
    assert run([*again[:-1], "--minus", "noise=0", "--resume", "--", *PLANE.split()]) == 0
    found = {(row["noise"], row["width"], row["seed"]): float(row["ods"]) for row in table}
    shown = swept.REPORT.tables(results(tmp_path / "out"))[0].lines
    assert [line[:2] for line in shown] == [["0.1", width] for width in ("3", "6", "9")]
    for line in shown:
        pair = ([found[noise, line[1], seed] for seed in "012"] for noise in ("0.1", "0"))
        low, high = ttest_rel(*pair).confidence_interval(0.95)
        assert line[3] == f"[{low:.4f}, {high:.4f}]"
    assert all(file.read_text().count("started") == 1 for file in (tmp_path / "out").glob("*/log.jsonl"))


def test_a_difference_is_of_networks_that_are_alike_else():
    """By seed, model and cell; of two bounds none; and what has no partner is left out."""

    def row(cell, model, method, seed, **numbers):
        return {"cell": cell, "model": model, "method": method, "members": 1, "seed": seed, **numbers}

    rows = [row("a", "deep_ensemble", "none", 0, acc=0.5)]
    rows += [row(cell, model, method, seed, acc=acc + seed, dee=acc, **{"dee.censored": seed == 1})
             for cell, plus in (("a", 0.0), ("b", 0.25)) for model in ("single", "batch_ensemble")
             for method, acc in (("kd", 0.25), ("ods", 0.5 + plus)) for seed in (0, 1)]  # fmt: skip
    cells = [{"name": name, "changes": {"lr": name}, "members": 1} for name in "ab"]
    found = swept.points({"rows": rows, "cells": cells, "vary": {"lr": ["a", "b"]}, "minus": "method=kd"})
    assert set(found) == {((cell,), (model, "ods")) for cell in "ab" for model in ("single", "batch_ensemble")}
    assert [(one["acc"], one["dee"]) for one in found[("b",), ("single", "ods")]] == [(0.5, 0.5), (0.5, None)]
    found = swept.points({"rows": rows, "cells": cells, "vary": {"lr": ["a", "b"]}, "minus": "lr=a"})
    assert {of: [one["acc"] for one in pair] for (_, of), pair in found.items()} == {
        (model, method): [change] * 2
        for model in ("single", "batch_ensemble") for method, change in (("kd", 0), ("ods", 0.25))
    }  # fmt: skip
    with pytest.raises(InputError, match="no two numbers of a seed differ in method alone"):
        swept.points({"rows": rows, "cells": cells, "vary": {"lr": ["a", "b"]}, "minus": "method=gaussian"})


def test_seeds_that_are_varied_are_pooled(tmp_path):
    assert run([*"sweep --vary seeds=0,1:2 --vary width=3,6 --out out --".split(), *PLANE.split()[:-2]]) == 0
    found = results(tmp_path / "out")
    assert found["seeds"] == [0, 1, 2]
    assert found["against"] == "width"
    assert {key[0]: sorted(row["seed"] for row in one) for key, one in swept.points(found).items()} == {
        ("3",): [0, 1, 2],
        ("6",): [0, 1, 2],
    }


def test_a_cell_that_fails_is_a_row_and_the_others_go_on(tmp_path, capsys):
    line = ["sweep", "--vary", "student-epochs=1,2", "--vary", "lr=1e12,0.1", "--out", "out"]
    assert run([*line, "--", *"train digits --method kd".split()]) == 1
    said = capsys.readouterr()
    assert "2 of 4 cells failed" in said.err.splitlines()[-1]
    assert "student_epochs=1,lr=1e12 failed: seed0-teacher0" in said.out
    found = results(tmp_path / "out")
    assert [bool(cell["failed"]) for cell in found["cells"]] == [True, False, True, False]
    assert {row["cell"] for row in found["rows"]} == {"student_epochs=1,lr=0.1", "student_epochs=2,lr=0.1"}
    assert run(["report", "out"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "lr=1e12 failed" in page
    assert "--vary lr=1e12,0.1 --measure cal_nll --against student_epochs --out out-again -- train digits" in page
    assert run(["report", "out/student_epochs=1,lr=0.1", "--out", "cell.html"]) == 0


def test_where_every_cell_fails_the_table_says_why(capsys):
    assert run([*"sweep --vary lr=1e12,1e11 --out out --".split(), *"train digits --method kd".split()]) == 1
    assert "No cell has finished" in capsys.readouterr().out
    assert run(["report", "out"]) == 0


def test_claims_against_a_parameter(tmp_path, capsys):
    world = "--preset quick --classes 3 --patches 12 --expected-others 1 --train-samples 60 --test-samples 40"
    line = f"simulate multiview {world} --members 2 --seeds 0,1"
    assert run([*"sweep --vary noise=0.5,1 --out out --".split(), *line.split()]) == 0
    found = results(tmp_path / "out")
    assert found["measure"] == "single_view_error"
    cell = results(tmp_path / "out/noise=1")
    for claim, row in cell["claims"].items():
        values = [
            one["single_view_error"] for one in found["rows"] if (one["cell"], one["claim"]) == ("noise=1", claim)
        ]
        assert sum(values) / 2 == pytest.approx(row["single_view_error"]["mean"])
    assert "1 single network" in capsys.readouterr().out


def test_a_dry_run_lists_cells_and_what_they_share(tmp_path, capsys):
    assert run([*GRID.split(), "--dry-run", "--", *TRAIN.split()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"4 cells of divkd {TRAIN}"
    assert lines[1].startswith(f"{CELLS[0]}: 8 networks are trained")
    assert lines[3] == f"  but 6 of them are those of {CELLS[0]}"
    assert list(tmp_path.iterdir()) == []


def test_overwrite_deletes_what_a_sweep_wrote_and_nothing_else(tmp_path, capsys):
    line = ["--out", "out", "--", *PLANE.split()]
    assert run(["sweep", "--vary", "width=3,6", *line]) == 0
    assert run(["sweep", "--vary", "width=3,9", *line]) == 2
    (tmp_path / "out/mine").mkdir()
    for kept in ("out/mine/results.json", "out/width=3/notes.txt", "out/notes.txt"):
        (tmp_path / kept).write_text("mine")
    assert run([*PLANE.split(), "--width", "9", "--out", "out/width=9"]) == 0  # a run of somebody else
    assert run(["sweep", "--vary", "width=3,9", "--overwrite", *line]) == 2
    assert "out/width=9 holds a finished run" in capsys.readouterr().err
    assert (tmp_path / "out/width=6/results.json").exists()
    assert run(["sweep", "--vary", "width=3,12", "--overwrite", *line]) == 0
    assert not (tmp_path / "out/width=6").exists()
    assert (tmp_path / "out/width=9/results.json").exists()
    assert all((tmp_path / kept).exists() for kept in ("out/mine/results.json", "out/notes.txt"))
    assert (tmp_path / "out/width=3/notes.txt").exists()
    assert "run did not write it: notes.txt" in capsys.readouterr().err
    (tmp_path / "out/width=12").rename(tmp_path / "away")
    (tmp_path / "out/width=12").symlink_to(tmp_path / "away")
    assert run(["sweep", "--vary", "width=3,5", "--overwrite", *line]) == 0
    assert (tmp_path / "away/results.json").exists()
    assert "left as it was, for it is a link: out/width=12" in capsys.readouterr().err
    assert run(["sweep", "--vary", "temperature=1,2", "--overwrite", "--out", "out", "--", "train", "digits"]) == 0
    assert run(["sweep", "--vary", "temperature=1,2", "--overwrite", *line]) == 2  # cells of another command
    assert "holds a run of 'train cifar', which 'simulate plane' does not delete" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "value", "mend"),
    [
        ("--vary temperatur=1,2 -- train digits", "unknown option 'temperatur'", "did you mean 'temperature'"),
        ("--vary temperature=1,x -- train digits", "'x'", "float"),
        ("--vary temperature=1,0 -- train digits", "--temperature 0.0", "above 0"),
        ("--vary temperature=1,1 -- train digits", "temperature has 1 twice", "once"),
        ("--vary temperature=1,1.0 -- train digits", "temperature=1 and temperature=1.0 are the same run", "once"),
        ("--vary temperature=1 --vary temperature=2 -- train digits", "temperature is given twice", "in one"),
        ("--vary method=kd --vary methods=ods -- train digits", "methods is given twice", "in one"),
        ("--vary temperature -- train digits", "'temperature'", "temperature=value,value"),
        ("--vary temperature=1, -- train digits", "'temperature=1,'", "temperature=value,value"),
        ("--vary temperature=1,2 -- train digits --temperature 3", "--temperature is varied", "one of the two"),
        ("--vary temperature=1,2 --against lr -- train digits", "'lr'", "temperature"),
        ("--vary temperature=1,2 --measure accc -- train digits", "unknown measure 'accc'", "did you mean 'acc'"),
        ("--vary temperature=1,2 --minus temperature=3 -- train digits", "unknown temperature '3'", "1, 2"),
        ("--vary temperature=1,2 --minus lr=1 -- train digits", "'lr'", "temperature"),
        ("--vary temperature=1,2 --minus method=odss -- train digits", "'odss'", "did you mean 'ods'"),
        ("--vary temperature=1,2 --minus method -- train digits", "unknown method ''", "ods"),
        ("--vary noise=1,2 --minus method=kd -- simulate multiview --preset quick", "method=kd", "give another"),
        ("--vary noise=1,2 --minus model=single -- simulate multiview --preset quick", "model=single", "give another"),
        ("--vary temperature=1,2 --minus claim=single -- train digits", "claim=single", "give another"),
        ("--vary temperature=1,2 --minus method=kd -- train digits --method ods", "train by ods", "add --method"),
        ("--vary temperature=1,2 --minus method=kd -- train digits --method kd", "train by kd", "add --method"),
        ("--vary flip=perhaps -- train digits", "'perhaps'", "boolean"),
        ("--vary temperature=1,2 -- train digits --out x", "--out of a cell", "before the command"),
        ("--vary out=x,y -- train digits", "unknown option 'out'", "temperature"),
        ("--vary temperature=1,2 -- train digits --epochs 0", "--epochs 0", "from 1"),
        ("--vary seed=1,2 -- predict run images", "'predict' makes no run", "train"),
        ("--vary vary=1,2 -- sweep --vary lr=1 train digits", "'sweep' makes no run", "train"),
        ("--vary noise=1,2 -- simulate", "'simulate' is no whole command", "multiview"),
        ("--vary noise=1,2 -- simulate multivew", "multivew", "No such command"),
        ("-- train digits", "--vary", "Missing option"),
        ("--vary width=3,4 --resume -- simulate plane", "--resume", "--out"),
        ("--vary width=3,4 --resume --overwrite --out x -- simulate plane", "--resume", "one of the two"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_trained(line, value, mend, tmp_path, capsys):
    refused(f"sweep {line}", value, mend, capsys, tmp_path)


def test_a_run_that_goes_on_otherwise_is_refused_before_anything_is_trained(tmp_path, capsys):
    assert run(["sweep", "--vary", "width=3,6", "--out", "out", "--", *PLANE.split()]) == 0
    assert (
        run(["sweep", "--vary", "width=9,3,6", "--out", "out", "--resume", "--", *PLANE.split(), "--noise", "0"]) == 2
    )
    assert "noise was 0.01" in capsys.readouterr().err
    assert not (tmp_path / "out/width=9").exists()


def test_flags_and_what_is_repeatable_are_values(tmp_path):
    line = "sweep --vary flip=on,off --vary method=kd:none,none --out out --dry-run -- train digits"
    assert run(line.split()) == 0
