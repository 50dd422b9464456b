"""`make gpu` where there is no GPU: its pieces go on where they were, and all that a CPU can do of them is done."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
RUN = [sys.executable, str(ROOT / "benchmarks/gpu/run.py")]
CPU = ["--device", "cpu", "--miniature"]


def run(*words):
    return subprocess.run([*RUN, *map(str, words)], cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
                          capture_output=True, text=True)  # fmt: skip


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks/gpu")
    import measure

    return measure


def piece(measure, path, left=100.0):
    setting = measure.Setting(torch.device("cpu"), False, path, path, "data", time.monotonic() + left)
    return measure.Piece("mine", setting)


def test_a_case_is_done_once_and_one_that_failed_is_not_begun_again(measure, tmp_path):
    done = []
    for _ in range(2):
        mine = piece(measure, tmp_path)
        mine.case("one", lambda: done.append(1) or {"value": 3}, 10)
        mine.case("two", lambda: done.append(2) or {"value": 1 / 0}, 10)
    assert done == [1, 2]
    cases = json.loads((tmp_path / "gpu-mine/cases.json").read_text())["cases"]
    assert cases["one"]["value"] == 3
    assert cases["two"]["failed"] == "ZeroDivisionError: division by zero"
    assert cases["one"]["torch"] == torch.__version__


def test_a_case_that_is_killed_is_tried_again_and_then_left_out(measure, tmp_path):
    def killed():
        raise KeyboardInterrupt  # stands for SIGKILL: nothing in the code catches it

    for _ in range(measure.TRIES):
        with pytest.raises(KeyboardInterrupt):
            piece(measure, tmp_path).case("one", killed, 10)
    assert "failed" in piece(measure, tmp_path).case("one", killed, 10)


def test_no_case_begins_without_the_time_that_it_needs_and_none_is_lost_by_that(measure, tmp_path):
    def late():
        raise measure.OutOfTime

    for left, work in ((5.0, dict), (100.0, late), (100.0, late), (100.0, late)):
        with pytest.raises(measure.OutOfTime):
            piece(measure, tmp_path, left).case("one", work, 10)
    assert piece(measure, tmp_path).case("one", lambda: {"value": 3}, 10)["value"] == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so_in_a_line():
    ended = run()
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith("no CUDA device")


def test_a_miniature_is_kept_out_of_the_manual():
    assert run(*CPU, "--out", "docs/results").returncode == run("--device", "cpu").returncode == 2


@pytest.mark.slow
def test_all_pieces_in_miniature_on_a_cpu(tmp_path):
    assert run(*CPU, "--out", tmp_path, "--seconds", 3).returncode == 3  # killed in its first piece
    ended = run(*CPU, "--out", tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    counts = {}
    for name in ("tests", "forms", "steps", "table"):
        content = json.loads((tmp_path / f"gpu-{name}/cases.json").read_text())
        assert content["miniature"]
        assert not [case for case in content["cases"].values() if "failed" in case or "tries" in case]
        assert "numbers say nothing" in (tmp_path / f"gpu-{name}/README.md").read_text()
        counts[name] = len(content["cases"])
    assert counts == {"tests": 1, "forms": 18, "steps": 10, "table": 2}
    forms = json.loads((tmp_path / "gpu-forms/cases.json").read_text())["cases"]
    assert all(case["equal"] for case in forms.values())
    again = run(*CPU, "--out", tmp_path)
    assert again.returncode == 0
    assert again.stdout.split() == [word for name in counts for word in (f"{name}:", "done")]
