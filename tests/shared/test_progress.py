"""Networks of all are counted, and the time left is that of all, from the work that was done now."""

import io

import pytest
from rich.console import Console

from divkd.shared import progress
from divkd.shared.progress import Plan, Progress, lasting


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def shown(plan, **options):
    text = io.StringIO()
    return text, Progress(Console(file=text, width=200, **options), plan=plan)


def test_time_left_follows_the_work_of_each_network(clock):
    text, bar = shown(Plan(3, work={"one": 1.0, "two": 1.0, "large": 8.0}))
    with bar:
        for name, seconds in (("one", 5), ("two", 5)):
            with bar.task(name, 10, networks=1) as task:
                task.update(0)
                clock.now += seconds
                task.update(10, note="loss 1")
        with bar.task("another", 1, networks=1) as task:  # of another run: no part of the plan
            task.update(1)
        assert bar.left() == "40 s left"  # 8 of work at 2 in 10 s
        with bar.task("large", 4, networks=1) as task:
            clock.now += 20
            task.update(2, note="half")
            assert bar.left() == "20 s left"
            task.update(4, note="all")
    assert [line.split("]")[0] for line in text.getvalue().splitlines()] == [
        "[1 of 3 networks, 45 s left",
        "[2 of 3 networks, 40 s left",
        "[2 of 3 networks, 40 s left",
        "[2 of 3 networks, 20 s left",  # after 15 s without a line
        "[3 of 3 networks",
    ]


def test_what_an_earlier_sitting_trained_counts_and_took_no_time(clock):
    _, bar = shown(Plan(8))
    with bar:
        bar.there(2)
        assert bar.left() == ""
        with bar.task("a group", 4, networks=4) as task:
            clock.now += 30
            task.update(3, note="step 9")
            assert bar.left() == "30 s left"
        with bar.task("begun", 10, networks=1) as task:
            task.update(5)
            assert bar.left() == "25 s left"
        assert bar.finished == 5.5


def test_a_terminal_shows_the_networks_of_all_beside_the_one_under_way():
    _, bar = shown(Plan(2, work={"a": 1.0, "b": 1.0}), force_terminal=True)
    with bar:
        for name in "ab":
            with bar.task(name, 2, networks=1) as task:
                task.update(2, note="loss 1")
                assert [one.description for one in bar.bars.tasks] == ["networks", name]
    assert [(one.description, one.completed) for one in bar.bars.tasks] == [("networks", 2)]


def test_without_a_plan_nothing_is_counted(clock):
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
