"""Curves: every epoch once, whole lines whoever writes, and the same numbers for TensorBoard."""

import multiprocessing

import numpy as np
import pytest

from divkd.cli.main import run as command
from divkd.shared import track
from divkd.shared.run import Run, open_run


def table(path):
    head, *rows = (path / "epochs.csv").read_text().splitlines()
    assert head == track.HEAD
    return [row.split(",") for row in rows]


def begun(path):
    return open_run(path, "test", {}, resume=path.exists())


def epoch(run, network, number, **values):
    run.log(
        **{"event": "epoch", "network": network, "epoch": number, "loss": 0.5, "acc": 0.25, "seconds": 1.0, **values}
    )


def test_an_epoch_stands_once_though_it_was_trained_again(tmp_path):
    run = begun(tmp_path / "run")
    for number in (1, 2):
        epoch(run, "a", number)
    epoch(run, "a2", 1)
    run = begun(tmp_path / "run")  # epoch 2 of a had no checkpoint when it was killed
    for number in (2, 3):
        epoch(run, "a", number, seconds=9.0)
    assert table(run.path) == [
        ["a", "1", "0.5", "0.25", "1.0"],
        ["a", "2", "0.5", "0.25", "1.0"],
        ["a2", "1", "0.5", "0.25", "1.0"],
        ["a", "3", "0.5", "0.25", "9.0"],
    ]
    assert len((run.path / "log.jsonl").read_text().splitlines()) == 5  # the log says all that happened


@pytest.mark.parametrize("damaged", [b"a,q,", b"a,9,", b"a\xff1", b"a,"])
def test_a_damaged_row_costs_that_row_alone(tmp_path, damaged):
    """It ends no command, and hides no epoch that comes after it."""
    run = begun(tmp_path / "run")
    epoch(run, "a", 1)
    table = run.path / "epochs.csv"
    table.write_bytes(table.read_bytes().replace(b"a,1,", damaged))
    run = begun(tmp_path / "run")
    for number in (2, 3):
        epoch(run, "a", number)
    assert table.read_text(errors="replace").splitlines()[-2:] == ["a,2,0.5,0.25,1.0", "a,3,0.5,0.25,1.0"]


def test_numbers_come_back_to_the_last_bit_and_none_is_an_empty_cell(tmp_path):
    run = begun(tmp_path / "run")
    epoch(run, "a", 1, loss=float("nan"), acc=np.float64(1 / 3))
    ((_, _, loss, acc, _),) = table(run.path)
    assert (loss, float(acc)) == ("", 1 / 3)


def write(path, network):
    run = Run(path)
    for number in range(1, 101):
        epoch(run, network, number, note="x" * 20_000)  # beyond what a buffer takes


def test_lines_of_several_processes_stay_whole(tmp_path):
    path = begun(tmp_path / "run").path
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write, args=(path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = (path / "log.jsonl").read_text().splitlines()
    assert len(lines) == 300
    assert all(line.startswith('{"time"') and line.endswith('x"}') for line in lines)
    rows = table(path)
    assert sorted((row[0], int(row[1])) for row in rows) == [(name, n) for name in "abc" for n in range(1, 101)]


def test_overwrite_deletes_the_curves(tmp_path):
    run = begun(tmp_path / "run")
    events = run.path / "tensorboard"
    for network in "ab":
        (events / network).mkdir(parents=True)
        (events / network / "events.out").write_text("")
    epoch(Run(run.path), "b", 1)
    run = open_run(run.path, "test", {}, overwrite=True)
    assert not (run.path / "epochs.csv").exists()
    assert [path.name for path in events.iterdir()] == ["a"]  # which this run did not write


def test_tensorboard_is_refused_where_it_is_not_installed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(track, "find_spec", lambda name: None)
    assert command(f"train digits --tensorboard --out {tmp_path}/run".split()) == 2
    assert "pip install 'divkd[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_tensorboard_shows_what_the_table_has(tmp_path):
    pytest.importorskip("tensorboard", reason="divkd does without TensorBoard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = begun(tmp_path / "run")
    run.curves.events.mkdir()
    for number in (1, 2):
        epoch(run, "a", number, loss=1 / number)
    run = begun(tmp_path / "run")
    epoch(run, "a", 2)
    epoch(run, "a", 3, loss=None)
    shown = EventAccumulator(str(run.path / "tensorboard" / "a"))
    shown.Reload()
    assert [(event.step, event.value) for event in shown.Scalars("loss")] == [(1, 1.0), (2, 0.5)]
    assert [event.step for event in shown.Scalars("acc")] == [1, 2, 3]
