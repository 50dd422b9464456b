"""The guides: short programs that run as they are written, and end in the table that their pages show."""

import re
import sys
from pathlib import Path

import pytest

GUIDES = sorted((Path(__file__).parents[1] / "docs" / "guides").glob("*.md"))
TIME = r"\d+\.\d\d ms \(\d+\.\d\d, \d+\.\d\d\)$"
TOLERANCE = {"accuracy": 0.03, "NLL": 0.1, "ECE": 0.03, "memory": 0.01}  # other machines sum in other orders

guides = pytest.mark.parametrize("page", GUIDES, ids=[page.stem for page in GUIDES])


def parts(page):
    """The program and what it prints, without the empty lines between tables."""
    (found,) = re.findall(r"```python\n(.*?)```.*?```text\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    return found[0], lines(found[1])


def lines(text):
    return [line for line in text.splitlines() if line.strip()]


def test_there_are_four():
    assert [page.stem for page in GUIDES] == ["five", "images", "table", "text"]


@guides
def test_a_guide_is_short_and_runs_in_one_epoch(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    program, shown = parts(page)
    assert len(lines(program)) < 40
    program, count = re.subn(r"(epochs=|train, |epoch in range\()(\d+)", r"\g<1>1", program)
    assert count >= 2
    if page.stem == "text":
        program = program.replace("[-1800:]", "[-240:]").replace("parts[:20], parts[20:]", "parts[:2], parts[2:]")
    if page.stem == "images":
        program = program.replace("range(1200))", "range(128))").replace("range(1200, 1797)", "range(1200, 1300)")
    exec(program, {})
    printed = lines(capsys.readouterr().out)
    names = [line.split("  ")[0] for line in printed]
    assert names[-3:] == ["ensemble", "student", "single"]
    assert names == [line.split("  ")[0] for line in shown]


@guides
@pytest.mark.slow
def test_a_guide_prints_what_its_page_shows(page, tmp_path, monkeypatch, capsys):
    """Times excepted, and the lines of another Python's library."""
    monkeypatch.chdir(tmp_path)
    program, shown = parts(page)
    exec(program, {})
    printed = lines(capsys.readouterr().out)
    assert len(printed) == len(shown)
    for mine, theirs in zip(printed, shown, strict=True):
        if mine.startswith(" "):
            assert mine == theirs or mine.split("  ")[-1] == theirs.split("  ")[-1]
            continue
        (name, *scores, took), (known, *values, _) = (re.split(r" {2,}", line) for line in (mine, theirs))
        assert name == known
        assert re.fullmatch(TIME, took)
        if page.stem == "text" and sys.version_info[:2] != (3, 11):
            continue
        for score, value, (what, most) in zip(scores, values, TOLERANCE.items(), strict=True):
            assert abs(float(score.split()[0]) - float(value.split()[0])) <= most, (name, what)
