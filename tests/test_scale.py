"""The files of docs/scale are whole: shells parse them, every command of divkd in them is taken."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import divkd.cli.train
from divkd.cli.main import cli

SCALE = Path(__file__).parents[1] / "docs" / "scale"


def taken(words, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(divkd.cli.train.train, "callback", lambda **options: options)
        assert cli.main(words, standalone_mode=False)["dask"]


@pytest.mark.parametrize("name", ["ssh.sh", "slurm.sbatch"])
def test_a_script_is_one(name, monkeypatch):
    subprocess.run(["bash", "-n", SCALE / name], check=True)
    (line,) = re.findall(r"^(?:#.*ssh\.sh \"alpha beta\"|divkd) (train .*)", (SCALE / name).read_text(), re.M)
    words = shlex.split(line)
    taken(words if "--dask" in words else [*words, "--dask", "tcp://a:1"], monkeypatch)


def test_the_manifest_is_one(monkeypatch):
    yaml = pytest.importorskip("yaml", reason="divkd does without YAML")
    parts = {f"{part['kind']} {part['metadata']['name']}": part for part in yaml.safe_load_all(
        (SCALE / "kubernetes.yaml").read_text())}  # fmt: skip
    command = parts["Job divkd"]["spec"]["template"]["spec"]["containers"][0]["command"]
    taken(command[1:], monkeypatch)
    for name in ("Deployment divkd-scheduler", "Deployment divkd-workers"):
        spec = parts[name]["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    assert parts["Service divkd-scheduler"]["spec"]["selector"].items() <= (
        parts["Deployment divkd-scheduler"]["spec"]["selector"]["matchLabels"].items()
    )


SSH = """#!/bin/sh
shift
exec sh -c "$*"
"""


@pytest.mark.slow
def test_the_script_for_machines_runs_where_ssh_leads_to_this_one(tmp_path):
    pytest.importorskip("distributed", reason="divkd does without Dask")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "ssh").write_text(SSH)
    (bin_ / "dask").write_text(f'#!/bin/sh\nexec {sys.executable} -m dask "$@"\n')
    (bin_ / "divkd").write_text(f'#!/bin/sh\nexec {sys.executable} -m divkd "$@"\n')
    for file in bin_.iterdir():
        file.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "PYTHONPATH": str(SCALE.parents[1]),
        "HOST": "127.0.0.1",
        "PORT": port,
        "WORKERS": "1",
    }
    line = "train digits --members 2 --ladder 0 --train-images 130 --method kd --epochs 1 --device cpu --out run"
    script = [SCALE / "ssh.sh", "one two", *line.split()]
    done = subprocess.run(script, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "results.json").exists()
