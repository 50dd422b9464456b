"""A full disk, in earnest: one line, nothing lost, and --resume ends as it would have."""

import shutil
import subprocess

import numpy as np
import pytest
from kills import finish, go, made, prepared
from test_kills import COMMANDS

from divkd.shared.files import read_json
from divkd.shared.run import Run

LARGE = 64 << 20
DISK = ["plane", *(pytest.param(name, marks=pytest.mark.slow) for name in ("train", "multiview", "analyse", "sweep"))]


def sized(folder, size, *flags):
    """Mount a file system of `size` bytes on `folder`."""
    command = ["mount", "-t", "tmpfs", "-o", ",".join([*flags, f"size={size}"]), "divkd", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system of a limited size can be mounted here: {getattr(error, 'stderr', None) or error}")


@pytest.fixture(scope="module", params=DISK)
def disk(request, tmp_path_factory):
    """A command with its --out on a disk of its own, what it makes, and how much room that takes."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "disk").mkdir()
    sized(folder / "disk", LARGE)
    try:
        line = prepared(COMMANDS[request.param], folder, "disk/run")
        assert go(line, folder) == 0, (folder / "said").read_text()
        yield line, folder, made(folder / "disk/run"), shutil.disk_usage(folder / "disk").used
    finally:
        subprocess.run(["umount", str(folder / "disk")], check=True)


def whole(folder):
    """Read all that knows its sum: a write that failed left nothing in half."""
    for file in folder.rglob("*.json"):
        read_json(file, old=False)
    for file in folder.rglob("*.safetensors"):
        assert Run(file.parent.parent).load(file.stem)


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_full_disk_is_told_in_one_line_and_resume_ends_as_it_would_have(disk, times):
    line, folder, expected, used = disk
    ends = []
    for share in np.random.default_rng(times).uniform(0.05, 0.95, times):
        shutil.rmtree(folder / "disk/run", ignore_errors=True)
        (folder / "said").unlink()
        sized(folder / "disk", int(share * used), "remount")
        code, said = go(line, folder), (folder / "said").read_text()
        ends.append(code)
        last = said.splitlines()[-1]
        assert "Traceback" not in said
        assert last.startswith("Error: ")
        assert "No space left on device" in last
        assert code == 1 or (code == 2 and "give a folder that you can write to" in last)
        whole(folder / "disk/run")
        sized(folder / "disk", LARGE, "remount")
        finish(line, folder)
        assert made(folder / "disk/run") == expected
        left = [path for path in (folder / "disk/run").rglob("*") if path.suffix in (".part", ".previous")]
        assert left == []
    assert 1 in ends
