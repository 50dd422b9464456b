"""What errors of rarer states advise, done to the letter, mends: sweeps, processes, folders, teachers, full disks."""

import dataclasses
import json
import shutil
import sys
from importlib import metadata

import numpy as np
import pytest

from divkd.cli.main import run
from divkd.cli.train import _together
from divkd.empirical.training import config as training
from divkd.empirical.use import export
from divkd.shared import track
from divkd.shared.errors import InputError
from divkd.shared.files import read_json
from divkd.shared.run import Run

pytestmark = pytest.mark.usefixtures("figures_undrawn")
PLANE = "simulate plane --points 20 --epochs 1 --width 4 --members 2 --seeds 0"


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """A preset of seconds, and a working folder of its own."""
    smoke = training.PRESETS["smoke"]
    short = dataclasses.replace(smoke.teacher, epochs=2)
    changes = {"teacher": short, "student": short, "members": 2, "ladder": 0, "train_images": 64, "methods": ("kd",)}
    monkeypatch.setitem(training.PRESETS, "smoke", dataclasses.replace(smoke, **changes, students=("single",)))
    monkeypatch.chdir(tmp_path)


def told(line, capsys, code=2):
    """The one line that a wrong command gets."""
    capsys.readouterr()
    assert run(line.split()) == code
    err = capsys.readouterr().err
    if code == 2:
        assert err.count("\n") == 1, err
    return err.splitlines()[-1]


def test_a_configuration_of_another_command(capsys, tmp_path):
    assert run(f"{PLANE} --print-config".split()) == 0
    (tmp_path / "plane.json").write_text(capsys.readouterr().out)
    assert "give one of its own" in told("simulate multiview --config plane.json", capsys)
    assert run("simulate plane --config plane.json --dry-run".split()) == 0


@pytest.mark.parametrize(
    ("line", "mend", "followed"),
    [
        ("sweep --vary noise=0,0.0 --out s --", "give each value once", "sweep --vary noise=0,0.1 --out s --"),
        ("sweep --vary noise=0,0.1 --measure sharpness --out s --", "choose one of: ",
         "sweep --vary noise=0,0.1 --measure clean --out s --"),
        ("sweep --vary noise=0,0.1 --against width --out s --", "choose one of: noise",
         "sweep --vary noise=0,0.1 --against noise --out s --"),
    ],
)  # fmt: skip
def test_sweeps(line, mend, followed, capsys, tmp_path):
    assert mend in told(f"{line} {PLANE}", capsys)
    shutil.rmtree(tmp_path / "s", ignore_errors=True)
    assert run(f"{followed} {PLANE}".split()) == 0


def test_a_sweep_of_what_makes_no_run(capsys, tmp_path):
    assert run(f"{PLANE} --out one".split()) == 0
    advice = told("sweep --vary overwrite=1,2 --out s -- report one --out page.html", capsys)
    assert "give train, experiment, simulate, analyse or evaluate" in advice
    assert run(f"sweep --vary noise=0,0.1 --out s -- {PLANE}".split()) == 0


def test_figures_where_nobody_can_write(capsys, tmp_path):
    assert run(f"{PLANE} --out one".split()) == 0
    (tmp_path / "file").touch()
    assert "give a folder you can write to" in told("figures one --out file/inside", capsys)
    assert run("figures one --out inside".split()) == 0


@pytest.mark.parametrize(
    ("more", "mend", "mended"),
    [
        ("--device cpu --dry-run", "give it to divkd alone", None),
        ("--device cpu --print-config", "give it to divkd alone", None),
        ("--device cpu --jobs 2", "leave it out", "--device cpu"),
    ],
)
def test_processes_of_torchrun(more, mend, mended, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "x"}.items():
            patch.setenv(name, value)
        patch.setenv("TORCHELASTIC_RUN_ID", "none")
        assert mend in told(f"train digits {more}", capsys)
    if mend == "give it to divkd alone":
        assert run(f"train digits {more}".split()) == 0


def test_processes_of_torchrun_are_told_which_gpu_each_takes():
    given = dict.fromkeys(("dry_run", "print_config", "download", "dask"), False) | {"jobs": None}
    with pytest.raises(InputError, match=r"give --device cuda$"):
        _together(given | {"device": "cuda:1"})
    assert _together(given | {"device": "cuda"})["jobs"] == 1


def test_a_run_that_is_deleted_while_it_is_made(capsys, tmp_path, monkeypatch):
    def deleting(self, *arguments, **options):
        shutil.rmtree(tmp_path / "one")
        raise FileNotFoundError(2, "No such file or directory")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish", deleting)
        assert "one is gone, and with it what it held; the same command begins anew" in told(
            f"{PLANE} --out one", capsys, 1
        )
    assert run(f"{PLANE} --out one".split()) == 0


def test_teachers_of_what_is_no_training_or_not_finished(capsys, tmp_path):
    line = "train digits --device cpu --out new --teachers"
    assert run(f"{PLANE} --out plane".split()) == 0
    assert "give one that holds teachers" in told(f"{line} plane", capsys)
    assert run("train digits --device cpu --out whole".split()) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    (tmp_path / "part/checkpoints/seed0-teacher1.safetensors").unlink()
    for job in (tmp_path / "part/jobs").glob("*teacher1*"):
        job.unlink()
    (tmp_path / "part/results.json").unlink()
    advice = told(f"{line} part", capsys)
    assert "no finished seed0-teacher1; train it there with --resume, or ask for less" in advice
    assert run("train digits --device cpu --out part --resume".split()) == 0
    assert run(f"{line} part".split()) == 0
    (tmp_path / "part/checkpoints/seed0-teacher1.safetensors").unlink()
    assert run(f"{line.replace('new', 'less')} part --members 1".split()) == 0


def test_calibration_of_a_run_that_is_not_finished(capsys, tmp_path):
    assert run("train digits --device cpu --out run".split()) == 0
    np.savez("images.npz", images=np.zeros((2, 8, 8, 1), np.uint8))
    (tmp_path / "run/results.json").unlink()
    line = "predict run images.npz --model deep_ensemble"
    assert "leave it out" in told(f"{line} --calibrated", capsys)
    assert run(line.split()) == 0


def test_a_disk_that_is_full_when_an_export_is_written(capsys, monkeypatch):
    assert run("train digits --device cpu --out run".split()) == 0

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(export, "write_bytes", full)
        assert "make room and run again" in told("export run --out net.pt2", capsys, 1)
    assert run("export run --out net.pt2".split()) == 0


def test_an_unknown_preset_in_a_configuration(capsys, tmp_path):
    assert run("train digits --print-config".split()) == 0
    content = json.loads(capsys.readouterr().out)
    content["config"]["preset"] = "smok"
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert "did you mean 'smoke'" in told("train --config c.json", capsys)
    content["config"]["preset"] = "smoke"
    content["config"]["teacher"]["choose_last"] = 9
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert "choose_last 9 is not allowed; give 0 to --epochs 2" in told("train --config c.json", capsys)
    content["config"]["teacher"]["choose_last"] = 2
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert run("train --config c.json --dry-run".split()) == 0


@pytest.mark.parametrize("lr", ["1e7", "1e12"])
def test_networks_that_diverge(lr, capsys, tmp_path):
    """Whenever they do, in an epoch or in what they predict after the last: a new --out with a lower --lr mends."""
    line = "train digits --device cpu --teacher-epochs 1 --student-epochs 1"
    assert "a new --out with a lower --lr" in told(f"{line} --lr {lr} --out a", capsys, 1)
    assert run(f"{line} --lr 0.01 --out b".split()) == 0
    assert read_json(tmp_path / "b/results.json")["rows"]


def test_dask_and_tensorboard_that_are_not_installed(capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "distributed", None)
        assert "pip install 'divkd[dask]'" in told(f"{PLANE} --dask tcp://127.0.0.1:1 --out one", capsys)
    with monkeypatch.context() as patch:
        patch.setattr(track, "find_spec", lambda name: None)
        assert "pip install 'divkd[tensorboard]'" in told("train digits --device cpu --tensorboard --out run", capsys)
    extras = metadata.metadata("divkd").get_all("Provides-Extra")
    assert {"dask", "tensorboard"} <= set(extras)
