"""Every field of a run's files, gone or of another type: one line and exit code 2, or it made no difference."""

import copy
import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest

from divkd.cli import runs
from divkd.cli.main import run
from divkd.empirical.analysis import analysis
from divkd.empirical.training import config as training
from divkd.empirical.use import export
from divkd.report import style
from divkd.shared.errors import InputError
from divkd.shared.files import read_json, write_json
from divkd.shared.run import Run, check_run

VALUES = (None, True, -1, 0.5, "x", [], {}, [None], [[1]], {"a": [1]})
TRAIN = "train digits --device cpu"
READ = {  # by the file, what reads it
    "config.json": (
        "predict run images.npz",
        "predict run images.npz --model deep_ensemble",
        "export run --out new.pt2 --overwrite",
        "analyse run --out new --images 2",
        "report run --out new.html --overwrite",
        "figures run --out drawn",
        f"{TRAIN} --teachers run --ladder 2 --out new",
        "train --config run/config.json --out new",
        f"{TRAIN} --resume --out run",
        f"{TRAIN} --overwrite --out run",
    ),
    "results.json": (
        "report run --out new.html --overwrite",
        "report run beside --out new.html --overwrite",
        "figures run --out drawn",
        "predict run images.npz --calibrated",
        "analyse run --out new --images 2",
        f"{TRAIN} --resume --out run",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a run, a copy of it and images."""
    folder = tmp_path_factory.mktemp("damage")
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        patch.chdir(folder)
        patch.setattr(style, "rendered", lambda *_: b"")
        assert run([*TRAIN.split(), "--out", "run"]) == 0
    shutil.copytree(folder / "run", folder / "beside")
    np.savez(folder / "images.npz", images=np.zeros((2, 8, 8, 1), np.uint8))
    return folder


def small(patch):
    smoke = training.PRESETS["smoke"]
    short = dataclasses.replace(smoke.teacher, epochs=1)
    changes = {"members": 2, "ladder": 2, "train_images": 64, "methods": ("kd",), "students": ("single",)}
    patch.setitem(training.PRESETS, "smoke", dataclasses.replace(smoke, teacher=short, student=short, **changes))


@pytest.fixture(autouse=True)
def reading_alone(folder, monkeypatch):
    """Commands read what they are given and then do nothing: no training, no analysis, no picture."""

    def checked(command, config, compute, options, name, plan=(), measure=tuple, *, shareable=None, **known):
        check_run(options["out"], command, config, resume=options["resume"], overwrite=options["overwrite"], **known)

    small(monkeypatch)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(runs, "carry_out", checked)
    monkeypatch.setattr(analysis, "generated", lambda images, labels, seed: None)
    monkeypatch.setattr(export, "export", lambda restored, path: path.write_bytes(b"") or 0.0)
    for module in ("divkd.report.page", "divkd.report.figures.manual"):
        monkeypatch.setattr(f"{module}.rendered", lambda *_: b"")


def places(value, path=()):
    """The path of every field of a JSON value; of a list the first and the last entry."""
    entries = value.items() if isinstance(value, dict) else []
    if isinstance(value, list) and value:
        entries = {0: value[0], len(value) - 1: value[-1]}.items()
    for key, below in entries:
        yield (*path, key)
        yield from places(below, (*path, key))


def mutations(whole):
    """Every field taken out, and with each of `VALUES` instead: (what was done, the content)."""
    for place in places(whole):
        for value in (*VALUES, ...):
            content = copy.deepcopy(whole)
            *way, last = place
            inner = content
            for key in way:
                inner = inner[key]
            if value is ...:
                del inner[last]
            else:
                inner[last] = value
            yield f"{'.'.join(map(str, place))} {'gone' if value is ... else json.dumps(value)}", content


def said(command, capsys):
    capsys.readouterr()
    try:
        code = run(command.split())
    except Exception as error:  # what a user would see as a traceback
        return f"{type(error).__name__}: {error}"
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("Error:")]
    return None if code == 0 or (code == 2 and len(lines) == 1 and err.endswith(f"{lines[0]}\n")) else f"{code}: {err}"


@pytest.mark.parametrize("seal", [False, True], ids=["unsealed", "sealed"])
@pytest.mark.parametrize("every", [21, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
@pytest.mark.parametrize("name", READ)
def test_no_field_of_a_file_ends_a_command_in_a_traceback(folder, capsys, name, every, seal):
    file = folder / "run" / name
    whole, kept = read_json(file), file.read_bytes()
    cases = itertools.product(mutations(whole), READ[name])
    wrong = []
    try:
        for (done, content), command in itertools.islice(cases, int(seal), None, every * (1 if every == 1 else 11)):
            if seal:
                write_json(file, content)
            else:
                file.write_text(json.dumps(content))
            if answer := said(command, capsys):
                wrong.append(f"{command}: {done}: {answer}")
    finally:
        file.write_bytes(kept)
    assert wrong == []


def flip(file, place):
    content = bytearray(file.read_bytes())
    content[place // 8 % len(content)] ^= 1 << place % 8
    file.write_bytes(content)


TEACHER, STUDENT = "checkpoints/seed0-teacher0.safetensors", "checkpoints/seed0-single-kd-from2.safetensors"
FOUND = {
    "config.json": READ["config.json"][:8],
    "results.json": READ["results.json"][:5],
    STUDENT: ("predict run images.npz", "export run --out new.pt2 --overwrite"),
    TEACHER: (
        "predict run images.npz --model deep_ensemble",
        "export run --out new.pt2 --overwrite --model deep_ensemble",
        f"{TRAIN} --teachers run --ladder 2 --out new",
    ),
}


@pytest.mark.parametrize(("name", "command"), [(name, command) for name in FOUND for command in FOUND[name]])
def test_a_flipped_bit_is_said_by_every_command_that_reads_the_file(folder, capsys, name, command):
    file = folder / "run" / name
    kept = file.read_bytes()
    try:
        for place in (70, 8 * len(kept) // 2 + 3, 8 * len(kept) - 12):
            flip(file, place)
            assert run(command.split()) == 2
            err = capsys.readouterr().err
            assert f"{name} is damaged" in err
            assert err.count("\n") == 1
            assert "--resume" in err
            file.write_bytes(kept)
    finally:
        file.write_bytes(kept)


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_thousand_random_flips_are_all_found(folder, count):
    one, generator = Run(folder / "run"), np.random.default_rng(0)
    files = [file for kind in ("*.json", "jobs/*.json", "checkpoints/*") for file in sorted(one.path.glob(kind))]
    for number in range(count):
        file = files[number % len(files)]
        kept = file.read_bytes()
        try:
            flip(file, int(generator.integers(8 * len(kept))))
            with pytest.raises(InputError, match="is damaged"):
                one.load(file.stem) if file.suffix == ".safetensors" else read_json(file)
        finally:
            file.write_bytes(kept)


def rows(path):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in read_json(path)["rows"]]


HELD = ("config.json", "results.json", TEACHER, STUDENT, "jobs/seed0-teacher0.json", "log.jsonl", "epochs.csv")


@pytest.mark.parametrize("name", [*HELD, "manifest.jsonl"])
def test_resume_makes_what_was_flipped_again_and_says_so(folder, tmp_path, capsys, monkeypatch, coarse_figures, name):
    monkeypatch.undo()
    small(monkeypatch)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "run", tmp_path / "run")
    for place in (70, 8 * (tmp_path / "run" / name).stat().st_size - 100):
        flip(tmp_path / "run" / name, place)
    assert run(f"{TRAIN} --resume --out run".split()) == 0
    err = " ".join(capsys.readouterr().err.split())
    if name.startswith(("checkpoints", "jobs")):
        assert f"{name} is" in err
        assert "is done again" in err
    assert rows(tmp_path / "run/results.json") == rows(folder / "run/results.json")
    assert Run(tmp_path / "run").load("seed0-teacher0")
    assert run(f"{TRAIN} --overwrite --out run".split()) == 0
