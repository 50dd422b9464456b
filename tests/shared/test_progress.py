"""Networks of all are counted, and the time left is that of all, from the work that was done now."""

import io
import json

import pytest
from rich.console import Console

from divkd.shared import progress
from divkd.shared.progress import Progress, lasting


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def shown(jobs, **options):
    text = io.StringIO()
    bar = Progress(Console(file=text, width=200, **options))
    if jobs:
        bar.expect(jobs)
    return text, bar


def test_time_left_follows_the_cost_of_each_job(clock):
    text, bar = shown({"one": (1, 1.0), "two": (1, 1.0), "large": (1, 8.0)})
    with bar:
        for name in ("one", "two"):
            with bar.within(name), bar.task(name, 10, networks=1) as task:
                task.update(0)
                clock.now += 5
                task.update(10, note="loss 1")
        assert bar.left() == "40 s left"  # 8 of work at 2 in 10 s
        with bar.within("large"), bar.task("large", 4, networks=1) as task:
            clock.now += 20
            task.update(2, note="half")
            assert bar.left() == "20 s left"
            task.update(4, note="all")
    assert [line.split("]")[0] for line in text.getvalue().splitlines()] == [
        "[1 of 3 networks, 45 s left",
        "[2 of 3 networks, 40 s left",
        "[2 of 3 networks, 20 s left",  # after 15 s without a line
        "[3 of 3 networks",
    ]


def test_what_an_earlier_sitting_did_counts_and_took_no_time(clock):
    _, bar = shown({"group": (6, 6.0), "begun": (1, 1.0), "last": (1, 1.0)})
    with bar:
        with bar.within("group"):
            bar.there(2)
            assert bar.left() == ""
            with bar.task("a group", 4, networks=4) as task:
                clock.now += 30
                task.update(3, note="step 9")
                assert bar.left() == "30 s left"
                task.update(4, note="step 10")
        bar.count("begun", 0.5, given=True)
        assert bar.left() == "11 s left"
        assert bar.finished == 6.5


def test_two_jobs_at_once_are_counted_together(clock):
    _, bar = shown({"one": (1, 1.0), "two": (1, 1.0)})
    for job, share in (("one", 0.5), ("two", 0.25), ("two", 0.2)):  # a late report takes nothing back
        bar.count(job, share)
    clock.now += 30
    assert bar.left() == "50 s left"
    assert bar.finished == 0.75


def test_jobs_that_train_nothing_are_counted_themselves(clock):
    _, bar = shown({"a": (0, 1.0), "b": (0, 3.0)})
    clock.now += 10
    with bar.within("a"):
        pass
    assert bar.place() == "[1 of 2 jobs, 30 s left] "


def test_a_report_is_what_the_parent_shows(clock, tmp_path):
    child = Progress(quiet=True, report=tmp_path / "job.progress")
    child.expect({"job": (1, 5.0)})
    with child.within("job"), child.task("net", 4, networks=1) as task:
        task.update(1)
        clock.now += 1
        task.update(2, note="loss 2")
        report = json.loads((tmp_path / "job.progress").read_text())
    assert report == {"share": 0.5, "given": 0.25, "tasks": {"net": [2, 4, "loss 2"]}, "said": []}


def test_a_terminal_shows_the_networks_of_all_beside_the_one_under_way():
    _, bar = shown({"a": (1, 1.0), "b": (1, 1.0)}, force_terminal=True)
    with bar:
        bar.expect({})
        for name in "ab":
            with bar.within(name), bar.task(name, 2, networks=1) as task:
                task.update(2, note="loss 1")
                assert [one.description for one in bar.bars.tasks] == ["networks", name]
    assert [(one.description, one.completed) for one in bar.bars.tasks] == [("networks", 2)]


def test_without_jobs_nothing_is_counted(clock):
    text, bar = shown(None)
    with bar, bar.task("a cell", 3, networks=2) as task:
        clock.now += 1
        task.update(3, note="[so]")
    assert text.getvalue() == "a cell: 3/3 [so]\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (89, "89 s"),
        (91, "2 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (80_000, "22 h"),
        (200_000, "2.3 days"),
    ],
)
def test_a_time_is_as_exact_as_an_estimate(seconds, words):
    assert lasting(seconds) == words
