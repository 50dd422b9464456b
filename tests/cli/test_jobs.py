"""`--jobs`: the same bits whatever their number, through the command line and its worker processes."""

import subprocess
import sys

import pytest
from safetensors.numpy import load_file

from divkd.cli.main import run
from divkd.shared.files import read_json

WORLD = "--preset quick --classes 3 --patches 12 --expected-others 1 --train-samples 60 --test-samples 50 --members 4"
COMMANDS = {
    "train": "train digits --train-images 60 --epochs 2 --members 2 --ladder 2 --method kd --student single",
    "simulate": f"simulate multiview {WORLD} --students 2 --soft-steps 20 --seeds 0,1",
}
PLANE = "simulate plane --seeds 0,1 --members 2 --epochs 2 --points 20"
SLOW = {
    "plane": PLANE,
    "mysteries": "experiment mysteries digits --train-images 60 --epochs 1 --members 2 --network resnet8w4",
}


def timeless(value):
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("command", [*COMMANDS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_one_job_at_a_time_and_two_give_the_same_bits(command, tmp_path, monkeypatch, capsys, coarse_figures):
    monkeypatch.chdir(tmp_path)
    line = {**COMMANDS, **SLOW}[command]
    for count in (1, 2):
        assert run(f"{line} --jobs {count} --out run{count}".split()) == 0, capsys.readouterr().err
    one, two = (read_json(tmp_path / f"run{count}/results.json") for count in (1, 2))
    assert timeless(one) == timeless(two)
    for file in (tmp_path / "run1/checkpoints").iterdir():
        other = load_file(tmp_path / "run2/checkpoints" / file.name)
        assert {key: array.tobytes() for key, array in load_file(file).items()} == {
            key: array.tobytes() for key, array in other.items()
        }
    assert "finished job" not in capsys.readouterr().err


def test_a_run_in_use_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(f"{PLANE} --jobs 1 --out run".split()) == 0
    code = "from divkd.shared.lock import Lock; lock = Lock(pathlib.Path('run/.lock')).__enter__()"
    code = f"import pathlib, sys; {code}; print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"held\n"
        capsys.readouterr()
        for flag in ("--resume", "--overwrite"):
            assert run(f"{PLANE} --out run {flag}".split()) == 2
            assert f"--out run is in use by process {holder.pid} on" in capsys.readouterr().err
        assert (tmp_path / "run/results.json").exists()
        holder.kill()
    assert run(f"{PLANE} --out run --overwrite".split()) == 0


@pytest.mark.parametrize("count", ["0", "x", "-1"])
def test_a_number_of_jobs_that_is_none_is_refused(count, capsys):
    assert run(["train", "digits", "--jobs", count]) == 2
    assert "--jobs" in capsys.readouterr().err
