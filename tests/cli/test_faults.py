"""Faults of the disk at any write: one line, nothing lost, and the same command with --resume ends as it would have."""

import dataclasses
import errno
import os
import shutil
from pathlib import Path

import pytest
from training_runs import arrays, rows

from divkd.cli.main import run
from divkd.empirical.training import config as training
from divkd.shared import files, track
from divkd.shared.files import read_json

TRAIN = "train digits --device cpu --out"
# What writes: a whole file, a file's name, a line, a folder.
CALLS = [(os, "fsync"), (os, "replace"), (files, "append"), (track, "append"), (Path, "mkdir"), (os, "pwrite")]


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path, coarse_figures):
    smoke = training.PRESETS["smoke"]
    short = dataclasses.replace(smoke.teacher, epochs=2)
    changes = {"members": 2, "ladder": 0, "train_images": 64, "methods": ("kd",), "students": ("single",)}
    one = dataclasses.replace(smoke, teacher=short, student=short, **changes)
    monkeypatch.setitem(training.PRESETS, "smoke", one)
    monkeypatch.chdir(tmp_path)


def faulty(patch, number, fault):
    """Have the writing call of that `number` and all after it meet the `fault`; how many there were before."""
    made = []

    def meets(call):
        def instead(*arguments, **options):
            made.append(call)
            if len(made) > number:
                fault()
            return call(*arguments, **options)

        return instead

    from divkd.shared import manifest, run

    for of, name in (*CALLS, (manifest, "append"), (run, "append")):
        patch.setattr(of, name, meets(getattr(of, name)))
    return made


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def gone():
    shutil.rmtree("run", ignore_errors=True)


def judged(code, err):
    """A fault is told in one line, after what was said before it."""
    last = err.splitlines()[-1]
    assert code in (1, 2)
    assert last.startswith("Error: ")
    assert "Traceback" not in err
    return last


@pytest.mark.parametrize("every", [25, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
@pytest.mark.parametrize("fault", [full, gone])
def test_a_fault_at_any_write_is_told_in_one_line_and_resume_ends_as_it_would_have(
    tmp_path, monkeypatch, capsys, fault, every
):
    assert run(f"{TRAIN} whole".split()) == 0
    whole, number = read_json(tmp_path / "whole/results.json"), 0
    while True:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            made = faulty(patch, number, fault)
            code = run(f"{TRAIN} run".split())
        if len(made) <= number:
            break
        err = capsys.readouterr().err
        finished = (tmp_path / "run/results.json").exists()
        if code:
            last = judged(code, err)
        flag = "--resume" if code and "with --resume --out run" in last else "--resume" if finished else ""
        assert run(f"{TRAIN} run {flag}".split()) == 0, (number, err)
        assert rows(read_json(tmp_path / "run/results.json")) == rows(whole)
        assert arrays(tmp_path / "run") == arrays(tmp_path / "whole")
        assert not [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".part", ".previous")]
        shutil.rmtree("run")
        number += every
    assert number > 20
    assert code == 0


def test_a_full_disk_while_overwriting_loses_nothing_that_was_to_stay(tmp_path, monkeypatch, capsys):
    assert run(f"{TRAIN} old".split()) == 0
    (tmp_path / "old/figures/holiday.png").write_text("mine")
    number = 0
    while True:
        shutil.copytree("old", "run")
        with monkeypatch.context() as patch:
            made = faulty(patch, number, full)
            code = run(f"{TRAIN} run --overwrite --lr 0.05".split())
        if len(made) <= number or number > 8:
            break
        judged(code, capsys.readouterr().err)
        assert run(f"{TRAIN} run --overwrite --lr 0.05 --print-config".split()) == 0
        assert (tmp_path / "run/figures/holiday.png").read_text() == "mine"
        assert run(f"{TRAIN} run --overwrite --lr 0.05".split()) == 0
        shutil.rmtree("run")
        number += 4


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder_is_told_in_one_line(tmp_path, capsys):
    assert run(f"{TRAIN} run".split()) == 0
    for path in (tmp_path / "run", tmp_path / "run/checkpoints"):
        path.chmod(0o500)
        for flag in ("--resume", "--overwrite"):
            code = run(f"{TRAIN} run {flag}".split())
            assert code == 0 or judged(code, capsys.readouterr().err)
        path.chmod(0o700)
    assert run(f"{TRAIN} run --resume".split()) == 0
