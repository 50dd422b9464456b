"""A bit flipped in any file of a run, finished or killed: found where it is read, or of no account."""

import shutil

import numpy as np
import pytest
from kills import go, made, prepared, timed
from test_kills import COMMANDS, GAUSSIAN, SLOW

from divkd.cli.main import run
from divkd.shared.errors import InputError
from divkd.shared.files import read_json
from divkd.shared.run import Run

pytestmark = pytest.mark.usefixtures("figures_undrawn")

LONG = [(name, share) for name in ("train", "multiview", "analyse", "sweep", "evaluate") for share in (1, 0.6)]
STATES = [("gaussian", 0.6), *(pytest.param(state, marks=pytest.mark.slow) for state in LONG)]
UNREAD = (".png", ".csv", ".jsonl", ".lock")  # no command takes results from these


@pytest.fixture(scope="module", params=STATES, ids=lambda state: f"{state[0]}-{state[1]}")
def state(request, tmp_path_factory):
    """A command, the folder in which its run is "kept", whole or killed, and what a whole one has."""
    name, share = request.param
    folder = tmp_path_factory.mktemp(name)
    line = prepared({**COMMANDS, **SLOW}[name], folder)
    _, writes = timed(line, folder)
    shutil.move(folder / "run", folder / "whole")
    if share == 1:
        shutil.copytree(folder / "whole", folder / "kept")
    else:
        go(line, folder, die_before=int(share * writes))
        shutil.move(folder / "run", folder / "kept")
    return line, folder, content(folder / "whole")


def content(folder):
    """Results, records and weights of a run, of which its figures and tables are made."""
    for log in folder.rglob("log.jsonl"):
        log.unlink()
    return {name: held for name, held in made(folder).items() if not name.endswith(UNREAD)}


def flip(file, place):
    held = bytearray(file.read_bytes())
    held[place // 8] ^= 1 << place % 8
    file.write_bytes(held)


def damaged(file):
    """Whether commands that read the file refuse it; None where it knows no sum."""
    try:
        if file.suffix == ".safetensors":
            return Run(file.parent.parent).load(file.stem) is None
        return read_json(file) is None if file.suffix == ".json" else None
    except InputError as error:
        return f"{file} is damaged" in str(error)


@pytest.mark.parametrize("count", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_found_or_changes_nothing(state, monkeypatch, capsys, count):
    line, folder, whole = state
    monkeypatch.chdir(folder)
    generator, goes_on = np.random.default_rng(count), line.replace("--out run", "--out run --resume", 1).split()
    for _ in range(count):
        shutil.copytree(folder / "kept", folder / "run")
        files = [file for file in sorted(folder.glob("run/**/*")) if file.is_file() and file.stat().st_size]
        file = files[generator.integers(len(files))]
        name = str(file.relative_to(folder))
        flip(file, int(generator.integers(8 * file.stat().st_size)))
        assert damaged(file) is not False, name
        capsys.readouterr()
        if name in ("run/config.json", "run/results.json") and (folder / "run/results.json").exists():
            assert run("report run --out page.html --overwrite".split()) == 2
            assert capsys.readouterr().err.startswith(f"Error: {name} is damaged")
        assert run(goes_on) == 0, (name, capsys.readouterr().err)
        err = " ".join(capsys.readouterr().err.split())
        if file.exists() and damaged(file):  # nothing read it, and what will is going to refuse it
            assert file.parent.name != "run"
            shutil.copy(folder / "whole" / file.relative_to(folder / "run"), file)
        elif file.parent.name in ("checkpoints", "jobs") and file.suffix in (".safetensors", ".json"):
            assert name in err
        assert content(folder / "run") == whole, name
        shutil.rmtree(folder / "run")


@pytest.mark.parametrize("count", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_overwrite_takes_nothing_that_a_damaged_manifest_no_longer_names(tmp_path, monkeypatch, capsys, count):
    monkeypatch.chdir(tmp_path)
    line = f"{GAUSSIAN} --overwrite --out"
    for noise, name in ((0.1, "kept"), (0.2, "whole")):
        assert run(f"{line} {name} --label-noise {noise}".split()) == 0
    whole, generator, codes = content(tmp_path / "whole"), np.random.default_rng(count), []
    for _ in range(count):
        shutil.copytree("kept", "run")
        file = tmp_path / "run/manifest.jsonl"
        flip(file, int(generator.integers(8 * file.stat().st_size)))
        before = {path: path.read_bytes() for path in sorted(tmp_path.glob("run/**/*")) if path.is_file()}
        capsys.readouterr()
        codes.append(run(f"{line} run --label-noise 0.2".split()))
        if codes[-1]:
            err = capsys.readouterr().err
            assert err.startswith("Error: --out run: its manifest.jsonl does not name ")
            assert err.count("\n") == 1
            assert before == {path: path.read_bytes() for path in sorted(tmp_path.glob("run/**/*")) if path.is_file()}
        else:
            assert content(tmp_path / "run") == whole
        shutil.rmtree("run")
    assert set(codes) == {0, 2} or count < 10
