"""The tables at a terminal: whole where there is room, and never a broken word or a column that is cut."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from divkd.cli import tables
from divkd.report.commands import REPORTS
from divkd.report.record import Table
from divkd.shared.files import read_json
from divkd.shared.metrics.compare import run_evaluation
from divkd.shared.metrics.predictions import load

RESULTS = Path(__file__).parents[2] / "docs" / "results"
RUNS = sorted(path.parent for path in RESULTS.glob("*/results.json"))


@pytest.fixture
def shown(monkeypatch, capsys):
    def show(run, width):
        monkeypatch.setattr(tables, "WIDTH", width)
        tables.print_tables(read_json(run / "results.json"), run)
        return capsys.readouterr().out

    return show


def built(run):
    results = read_json(run / "results.json")
    return REPORTS[results["command"]].tables(results)


def columns(table):
    """The places of the columns that vary, and what the others say."""
    shown = [place for place, head in enumerate(table.heads) if head not in table.page_only]
    same = tables.constant(table, shown)
    return [place for place in shown if place not in same], same


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_wide_terminal_shows_every_word_of_every_column_but_the_pages_own(run, shown):
    out = shown(run, 400)
    assert "No room" not in out
    words = set(out.split())
    for table in built(run):
        kept, same = columns(table)
        for line in (table.heads, *table.lines):
            assert {word for place in kept for word in line[place].split()} <= words
        for place, cell in same.items():
            assert f"{table.heads[place]} empty" in out if not cell else {*table.heads[place].split()} <= words


@pytest.mark.parametrize("width", [60, 80, 132])
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_narrow_one_breaks_no_word_and_names_the_columns_that_it_leaves_out(run, width, shown):
    out = shown(run, width)
    assert "…" not in out
    noted = 0
    for table in built(run):
        kept, _ = columns(table)
        if kept:
            part = out[out.index(table.caption) :].split("\n\n")[0]
            note = [line for line in part.splitlines() if line.startswith("No room here for ")]
            tails = {f"No room here for {', '.join(table.heads[p] for p in kept[n:])}; divkd report shows all.": n
                     for n in range(len(kept))}  # fmt: skip
            shown_columns = kept[: tails[note[0]]] if note else kept
            words = set(part.split())
            assert all(word in words for line in table.lines for p in shown_columns for word in line[p].split())
            noted += len(note)
    assert out.count("No room") == noted


def test_a_void_premise_is_said_at_any_width(shown, tmp_path):
    results = read_json(RESULTS / "cifar10-cpu" / "results.json")
    assert "VOID" not in shown(RESULTS / "cifar10-cpu", 40)
    results["teacher_diversity"][1]["void"] = True
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert "VOID as a test of the paper's premise: teachers of seed 1 do not fit" in shown(tmp_path, 40)


def test_one_seed_has_no_interval(shown, tmp_path):
    results = read_json(RESULTS / "plane" / "results.json")
    results["ods_minus_gaussian"] |= {"low": None, "high": None}
    (tmp_path / "results.json").write_text(json.dumps(results))
    out = shown(tmp_path, 100)
    assert "ODS minus Gaussian, one seed: +0.199 nats." in out


def test_a_column_that_says_the_same_everywhere_is_a_note_where_room_is_short(capsys):
    console = Console(width=26, markup=False, highlight=False)
    lines = [["a", "0.000 ± 0.000", "", "0.1"], ["b", "0.000 ± 0.000", "", "0.2"]]
    tables.print_table(Table("caption", ["name", "zero", "none", "value"], lines), console)
    out = capsys.readouterr().out
    assert "The same in every line: zero 0.000 ± 0.000; none empty." in out
    assert out.count("0.000 ± 0.000") == 1
    tables.print_table(
        Table("caption", ["name", "zero", "none", "value"], lines), Console(width=80, markup=False, highlight=False)
    )
    assert capsys.readouterr().out.endswith("The same in every line: none empty.\n\n")
    tables.print_table(Table("caption", ["name", "zero"], [["a", "0.000"]]), console)
    assert "The same" not in capsys.readouterr().out  # of one line nothing is constant


def test_a_number_its_spread_and_an_interval_are_never_broken(capsys):
    console = Console(width=34, markup=False, highlight=False)
    lines = [["a long name of two words", "-0.020 (-0.049 to +0.009)", "1"], ["b", "1.516 ± 0.034 (n = 8)", "2"],
             ["c", "0.8123 [0.7912, 0.8345]", "3"]]  # fmt: skip
    tables.print_table(Table("caption", ["name", "value", "more"], lines), console)
    out = capsys.readouterr().out
    cells = {cell.strip() for line in out.splitlines() for cell in line.split("  ")}
    assert {"-0.020", "(-0.049 to +0.009)", "1.516 ± 0.034", "(n = 8)", "[0.7912, 0.8345]"} <= cells


def test_an_evaluations_intervals_are_whole_at_80_columns(monkeypatch, capsys, tmp_path):
    draw = np.random.default_rng(0)
    logits, labels = draw.normal(size=(3, 60, 4)), np.arange(60) % 4
    np.savez(tmp_path / "x.npz", logits=logits, labels=labels, ood_logits=logits)
    model = {"x.npz": load(tmp_path / "x.npz")}
    results, _ = run_evaluation(model, None, None, resamples=20, seed=0)
    monkeypatch.setattr(tables, "WIDTH", 80)
    tables.print_tables({"command": "evaluate", **results}, tmp_path)
    out = capsys.readouterr().out
    assert out.count("[") > 8
    assert len(re.findall(r"\[\S+, \S+\]", out)) == out.count("[")


def test_wide_letters_take_two_places(capsys):
    console = Console(width=20, markup=False, highlight=False)
    tables.print_table(Table("caption", ["head"], [["日本語日本語日本語日本語"], ["日本語日本"]]), console)
    out = capsys.readouterr().out
    assert "…" not in out
    assert "No room here for head" in out


def test_a_name_that_looks_like_markup_is_printed_as_it_is(capsys):
    console = Console(width=80, markup=False, highlight=False)
    tables.print_table(Table("[bold]caption", ["[red]head"], [["[inf, inf]"]]), console)
    out = capsys.readouterr().out
    for words in ("[bold]caption", "[red]head", "[inf, inf]"):
        assert words in out
