"""Several processes that train one network give what one process gives; on gloo, two processes of this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rank_steps
import torch
from training_runs import arrays

import divkd
from divkd.cli.main import run as command
from divkd.empirical.training import ranks
from divkd.shared.kinds import METHODS
from divkd.shared.seeds import rng

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(divkd.__file__).parents[1]), *sys.path])}


def torchrun(*words, **how):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    return subprocess.Popen([*launcher, *map(str, words)], env=ENVIRONMENT, **how)


def test_float64_steps_equal_those_of_one_process(tmp_path):
    script = Path(rank_steps.__file__)
    assert torchrun(script, tmp_path / "made", ",".join(METHODS)).wait() == 0
    for method, (loss, accuracy, weights) in torch.load(tmp_path / "made").items():
        alone, alone_accuracy, theirs = rank_steps.epoch(method)
        assert (loss, accuracy) == pytest.approx((alone, alone_accuracy), rel=1e-12), method
        for name, value in weights.items():
            torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-9, msg=f"{method}: {name}")


@pytest.mark.parametrize(("count", "sizes"), [(2, [4, 3]), (3, [2, 2, 3]), (4, [2, 2, 3, 0])])
def test_a_process_has_two_rows_or_none_and_draws_as_one_does(monkeypatch, count, sizes):
    batch = [(torch.arange(7.0)[:, None], torch.arange(7))]
    whole, parts = rng(0, "draw"), []
    noise, weights = whole.standard_normal((7, 2), dtype=np.float32), whole.uniform(-1, 1, (7, 3))
    for rank in range(count):
        monkeypatch.setattr(ranks, "JOINED", [rank, count])
        batches, generator = ranks.own(batch, rng(0, "draw"))
        ((images, labels),) = batches
        n = len(labels)
        parts.append(
            (images[:, 0], generator.standard_normal((n, 2), dtype=np.float32), generator.uniform(-1, 1, (n, 3)))
        )
    own = [np.concatenate(values) for values in zip(*parts, strict=True)]
    for mine, all_of_it in zip(own, (np.arange(7.0), noise, weights), strict=True):
        np.testing.assert_array_equal(mine, all_of_it)
    assert sorted(len(part[0]) for part in parts) == sorted(sizes)


LINE = "train digits --preset smoke --device cpu --members 2 --ladder 0 --train-images 130 --method confods --epochs 3"


@pytest.mark.slow
def test_a_run_of_two_processes_is_killed_and_resumes_to_the_same_bits(tmp_path):
    line = ["-m", "divkd", *LINE.split(), "--out"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    assert torchrun(*line, tmp_path / "whole", **quiet).wait() == 0
    killed, folder = torchrun(*line, tmp_path / "killed", **quiet), tmp_path / "killed"
    table = folder / "epochs.csv"
    while not table.exists() or len(table.read_text().splitlines()) < 6:
        time.sleep(0.01)
    os.kill(json.loads((folder / ".lock").read_text())["process"], signal.SIGKILL)
    assert killed.wait() != 0  # torchrun ends the other
    assert not (folder / "results.json").exists()
    assert json.loads((folder / "config.json").read_text())["processes"] == 2
    assert torchrun(*line, folder, "--resume", **quiet).wait() == 0
    assert arrays(tmp_path / "whole") == arrays(tmp_path / "killed")
    results = [json.loads((tmp_path / name / "results.json").read_text())["rows"] for name in ("whole", "killed")]
    for row in (*results[0], *results[1]):
        del row["seconds"]
    assert results[0] == results[1]
    rows = [row.split(",")[:2] for row in table.read_text().splitlines()[1:]]
    assert len(rows) == len({tuple(row) for row in rows}) == 3 * 4


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--dry-run", "--dry-run is not for torchrun"),
        ("--download", "--download is not for torchrun"),
        ("--dask tcp://x:1", "--dask is not for torchrun"),
        ("--jobs 2", "--jobs 2: processes of torchrun train one network at a time"),
    ],
)
def test_what_several_processes_do_not_do_is_refused(monkeypatch, capsys, option, message):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command(f"train digits {option}".split()) == 2
    assert message in capsys.readouterr().err
