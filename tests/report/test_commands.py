"""A record a command: every committed run has its sentence, tables and figures, and figures are listed once."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from divkd.report import commands, draw, style
from divkd.report.commands import REPORTS
from divkd.report.page import page
from divkd.report.record import Figure
from divkd.report.sources import Source
from divkd.shared.errors import InputError
from divkd.shared.files import read_json
from divkd.shared.manifest import OWN

pytestmark = pytest.mark.usefixtures("coarse_figures_throughout")

RESULTS = Path(__file__).parents[2] / "docs" / "results"
RUNS = sorted(path.parent for path in RESULTS.glob("*/results.json"))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_every_committed_run_is_read_and_drawn_again(run, tmp_path):
    results, config = read_json(run / "results.json"), read_json(run / "config.json")
    report = REPORTS[results["command"]]
    assert report.sentence(results, config["config"]).endswith((").", "."))
    assert report.sentence(results, {})
    line, remark = report.again(results, config["config"], run)
    assert line[:2] == ["divkd", results["command"].split()[0]]
    assert not remark
    tables = report.tables(results)
    assert tables
    for table in tables:
        assert table.lines
        assert {len(cells) for cells in table.lines} == {len(table.heads)}
        assert set(table.page_only) <= {*table.heads, "DEE censored"}
    paths = draw(results, tmp_path)
    assert {path.name for path in paths} >= {path.name for path in (run / "figures").iterdir()}
    for path in paths:
        assert any(path.match(pattern) for pattern in (own.rpartition("/")[2] for own in OWN))  # --overwrite deletes it
        assert path.read_bytes().startswith(b"\x89PNG" if path.suffix == ".png" else b"<?xml")
    assert report.comparison(["a", "b"], [results, results]) is not None
    for figure in report.figures_of(results):
        assert figure.caption
        assert str(results["seeds"][0]) in figure.of(results) or str(len(results["seeds"])) in figure.of(results)


def test_a_committed_run_of_every_command_but_one_is_drawn():
    assert {read_json(run / "results.json")["command"] for run in RUNS} == set(REPORTS) - {"evaluate"}


def test_no_two_figures_of_a_command_have_one_name():
    for report in REPORTS.values():
        assert len({figure.name for figure in report.figures}) == len(report.figures) > 0


def test_a_new_figure_needs_its_place_in_a_record_alone(monkeypatch, tmp_path):
    def drawn(results):
        fig, (ax,) = style.figure()
        ax.plot(results["seeds"])
        return fig

    report = REPORTS["simulate plane"]
    more = dataclasses.replace(report, figures=(*report.figures, Figure("new", drawn, "Something new")))
    monkeypatch.setitem(commands.REPORTS, "simulate plane", more)
    results = read_json(RESULTS / "plane" / "results.json")
    assert {path.name for path in draw(results, tmp_path)} == {"plane.png", "plane.svg", "new.png", "new.svg"}
    content = page([Source("plane", results)], "title")  # and without a config.json
    assert b"Something new; n = 3 seeds. Drawn from plane/results.json." in content
    assert b"divkd simulate plane --seeds 0,1,2 --out" in content


@pytest.mark.parametrize("command", REPORTS)
def test_what_lacks_the_numbers_is_incomplete_in_one_line(command):
    with pytest.raises(
        InputError, match=r"results.json is incomplete \(KeyError.*; restore it, or have its command write"
    ) as raised:
        page([Source("run", {"command": command, "seeds": [0]}, path=Path("run"))], "title")
    assert "\n" not in str(raised.value)


def test_a_figure_without_its_numbers_is_incomplete_where_the_tables_are_whole():
    results = read_json(RESULTS / "multiview-toy" / "results.json")
    del results["trace"]
    assert REPORTS["simulate multiview"].tables(results)
    with pytest.raises(InputError, match=r"run/results.json is incomplete \(KeyError\('trace'\)\)"):
        page([Source("run", results, path=Path("run"))], "title")


def test_the_package_is_light_to_import():
    code = "import sys, divkd.report; print({'torch', 'matplotlib', 'numpy', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
