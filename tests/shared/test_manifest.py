"""--overwrite deletes what a run wrote and nothing else, and every state that a kill can leave goes on."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from divkd.shared import manifest
from divkd.shared.errors import InputError
from divkd.shared.files import read_json
from divkd.shared.lock import Lock
from divkd.shared.manifest import Manifest, read_config
from divkd.shared.run import open_run

CONFIG = {"seeds": (0,), "lr": 0.1, "device": "cpu"}
OTHER = {**CONFIG, "lr": 0.2}
OWN = ("checkpoints/resnet50.safetensors", "figures/holiday.png", "jobs/mine.json", "jobs/notes.lock", "notes.txt")
OWN = (*OWN, "checkpoints/.thesis.1.part", "a.previous", "samples.csv", "tensorboard/a/events.mine", "figures/a.svg")


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def written(path, command="train cifar"):
    """A finished run with one file of every kind."""
    run = open_run(path, command, CONFIG)
    with run.hold("a"):
        run.save("a", {"w": np.arange(6.0)}, {"epoch": 1})
        run.save("a", {"w": np.arange(6.0)}, {"epoch": 2})
        run.log(event="epoch", network="a", epoch=1)
        run.keep("a", {"record": {}, "sha256": {"a": run.digest("a")}})
    run.report("a").write_text("{}")
    run.write("figures/loss.png", b"png")
    run.write("profile.json", {"rows": []})
    (run.path / "checkpoints/.a.safetensors.77.part").write_bytes(b"half")  # of a kill
    run.write("results.json", {"rows": []})
    run.close()
    return run


def add(folder, names=OWN):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")


def test_what_one_put_into_a_run_stays_and_is_named(tmp_path):
    run = written(tmp_path)
    theirs = set(content(tmp_path))
    add(tmp_path)
    new = open_run(tmp_path, "train cifar", OTHER, overwrite=True)
    assert {name for name, held in content(tmp_path).items() if held == b"mine"} == set(OWN)
    assert set(content(tmp_path)) - set(OWN) == {"config.json", "manifest.jsonl", ".lock"}
    assert set(content(tmp_path)) - set(OWN) <= theirs
    assert set(new.left) == set(OWN)
    assert manifest.named(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert run.load("a") is None


@pytest.mark.parametrize("name", ["checkpoints", "figures", "jobs", "checkpoints/a.safetensors", "results.json"])
def test_nothing_is_deleted_through_a_link(tmp_path, name):
    written(tmp_path / "run")
    (tmp_path / "run" / name).rename(tmp_path / "elsewhere")
    (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    before = content(tmp_path)
    with pytest.raises(InputError, match=f"{name} is a link, and --overwrite deletes nothing behind one; take the li"):
        open_run(tmp_path / "run", "train cifar", OTHER, overwrite=True)
    assert content(tmp_path) == before
    (tmp_path / "run" / name).unlink()  # as advised
    kept = content(tmp_path / "elsewhere") if (tmp_path / "elsewhere").is_dir() else None
    open_run(tmp_path / "run", "train cifar", OTHER, overwrite=True)
    assert kept is None or content(tmp_path / "elsewhere") == kept


def test_no_lock_is_taken_through_a_link(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "thesis.tex").write_text("ten years")
    (tmp_path / "run/.lock").symlink_to(tmp_path / "thesis.tex")
    with pytest.raises(InputError, match="cannot be written"):
        open_run(tmp_path / "run", "train cifar", CONFIG)
    assert (tmp_path / "thesis.tex").read_text() == "ten years"


def test_a_run_of_another_command_is_not_deleted(tmp_path):
    written(tmp_path, "simulate plane")
    before = content(tmp_path)
    with pytest.raises(InputError, match="holds a run of 'simulate plane', which 'train cifar' does not delete"):
        open_run(tmp_path, "train cifar", CONFIG, overwrite=True)
    assert content(tmp_path) == before


def test_a_run_in_use_is_not_deleted(tmp_path, monkeypatch):
    written(tmp_path)
    before = content(tmp_path)

    def held(self):
        raise InputError("in use")

    monkeypatch.setattr(Lock, "__enter__", held)
    with pytest.raises(InputError, match="in use"):
        open_run(tmp_path, "train cifar", CONFIG, overwrite=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["../x.png", "/etc/passwd", "figures/../../x.png", "notes.txt", "figures/a/b.png"])
def test_a_manifest_names_nothing_but_what_a_run_writes(tmp_path, name):
    run = written(tmp_path / "run")
    add(run.path, ["notes.txt", "figures/a/b.png"])
    (tmp_path / "x.png").write_text("mine")
    run.manifest.add(name)
    open_run(run.path, "train cifar", OTHER, overwrite=True)
    assert (tmp_path / "x.png").exists()
    assert (run.path / "notes.txt").exists()
    assert (run.path / "figures/a/b.png").exists()


@pytest.mark.parametrize(
    "name", ["checkpoints/a.safetensors", "jobs/a.json", "results.json", "log.jsonl", "epochs.csv"]
)
def test_what_a_damaged_manifest_no_longer_names_is_neither_deleted_nor_taken_for_the_new_run_s(tmp_path, name):
    """A bit flipped in the name, and a run with another learning rate would go on from the network of the first."""
    run = written(tmp_path)
    file = run.manifest.file
    file.write_bytes(file.read_bytes().replace(name.encode(), f"{name[:-1]}z".encode()))
    before = content(tmp_path)
    with pytest.raises(InputError, match=f"does not name {name}, which --overwrite therefore leaves and a new run"):
        open_run(tmp_path, "train cifar", OTHER, overwrite=True)
    assert content(tmp_path) == before
    (tmp_path / name).unlink()  # as advised
    assert open_run(tmp_path, "train cifar", OTHER, overwrite=True).load("a") is None


def test_a_run_from_before_there_were_manifests_is_known_by_what_it_must_have_written(tmp_path):
    run = written(tmp_path)
    (tmp_path / "manifest.jsonl").unlink()
    (tmp_path / "jobs/a.json").write_text(json.dumps({"record": {}, "sha256": {}}))
    (tmp_path / "samples.csv").write_text("")  # a name of its own, then
    add(tmp_path, ("checkpoints/resnet50.safetensors", "figures/holiday.png", "jobs/mine.json"))
    shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-again")
    resumed = open_run(tmp_path.parent / f"{tmp_path.name}-again", "train cifar", CONFIG, resume=True)
    assert resumed.load("a")
    new = open_run(tmp_path, "train cifar", OTHER, overwrite=True)
    kept = {"checkpoints/resnet50.safetensors", "figures/holiday.png", "figures/loss.png", "jobs/mine.json"}
    assert set(new.left) == kept
    assert set(content(tmp_path)) == {*kept, "config.json", "manifest.jsonl", ".lock"}
    assert run.load("a") is None


class Killed(BaseException):
    pass


DISK = [(os, "replace"), (os, "fsync"), (Path, "unlink"), (Path, "mkdir"), (Path, "rmdir"), (manifest, "append")]


def dying(call, calls):
    """`call`, and death before the call at which `calls` end: from then on nothing is written."""

    def made(*arguments, **options):
        if next(calls, 0) == 0:
            raise Killed
        return call(*arguments, **options)

    return made


@pytest.mark.parametrize("left", [(), OWN], ids=["alone", "with others"])
def test_killed_at_any_step_of_overwriting_or_beginning_it_goes_on_with_either_flag(tmp_path, monkeypatch, left):
    """Killed before each call that changes the disk; then --resume and --overwrite both begin the new run."""
    number = 0
    while True:
        path = tmp_path / str(number)
        written(path)
        add(path, left)
        calls = iter(range(number, -1, -1))
        with monkeypatch.context() as patch:
            for of, name in DISK:
                patch.setattr(of, name, dying(getattr(of, name), calls))
            try:
                open_run(path, "train cifar", OTHER, overwrite=True)
                break
            except Killed:
                pass
        shutil.copytree(path, tmp_path / f"{number}-again")
        again = open_run(tmp_path / f"{number}-again", "train cifar", OTHER, overwrite=True)
        number += 1
        if Manifest(path).asked()["config"]["lr"] == 0.1:  # killed before it began: the old run is as it was
            assert read_config(path)["config"]["lr"] == 0.1
            assert (path / "results.json").exists()
            continue
        for run in (again, open_run(path, "train cifar", OTHER, resume=True)):
            assert read_config(run.path)["config"]["lr"] == 0.2
            assert run.load("a") is None
            assert not (run.path / "results.json").exists()
            assert {name for name, held in content(run.path).items() if held == b"mine"} == set(left)
    assert number > 10


@pytest.mark.parametrize("files", [{".lock": ""}, {".config.json.1.part": "{"}, {"manifest.jsonl": '{"run": {"comm'}])
@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}], ids=str)
def test_what_a_kill_left_of_a_beginning_is_begun_anew(tmp_path, files, flags):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for folder in ("checkpoints", "figures", "jobs"):  # of an older divkd, killed between deleting and writing
        (tmp_path / folder).mkdir()
    add(tmp_path, ("figures/holiday.png", "checkpoints/resnet50.safetensors"))
    run = open_run(tmp_path, "train cifar", CONFIG, **flags)
    assert read_config(run.path)["command"] == "train cifar"
    assert (tmp_path / "figures/holiday.png").exists()


@pytest.mark.parametrize("damage", ["{", "[]", '{"config": null}', None])
def test_a_damaged_config_json_is_written_anew_by_resume_and_costs_nothing(tmp_path, damage):
    run = written(tmp_path)
    config = tmp_path / "config.json"
    whole = read_config(tmp_path)
    config.unlink() if damage is None else config.write_text(damage)
    with pytest.raises(InputError) as error:
        read_config(tmp_path)
    assert damage is None or f"divkd train cifar --config {tmp_path}/manifest.jsonl --resume" in str(error.value)
    assert "overwrite" not in str(error.value)
    with pytest.raises(InputError, match="--resume: lr was"):
        open_run(tmp_path, "train cifar", OTHER, resume=True)
    again = open_run(tmp_path, "train cifar", CONFIG, resume=True)
    assert read_config(tmp_path) == whole
    assert again.load("a")[1] == run.load("a")[1] == {"epoch": 2}


@pytest.mark.parametrize("name", ["config.json", "results.json", "jobs/a.json", "checkpoints/a.safetensors"])
def test_every_flipped_bit_is_found_when_a_file_is_read(tmp_path, name):
    run = written(tmp_path)
    read = {"jobs/a.json": lambda: run.kept("a"), "checkpoints/a.safetensors": lambda: run.load("a")}.get(
        name, lambda: read_json(tmp_path / name)
    )
    whole = (tmp_path / name).read_bytes()
    read()
    for place in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        (tmp_path / name).write_bytes(flipped)
        with pytest.raises(InputError, match="is damaged") as error:
            read()
        assert "\n" not in str(error.value)


def test_what_was_written_before_there_were_seals_is_read_as_before(tmp_path):
    run = written(tmp_path)
    (tmp_path / "results.json").write_text('{"rows": [1]}')
    assert read_json(tmp_path / "results.json") == {"rows": [1]}
    header = {"divkd": json.dumps({"epoch": 2})}
    run.checkpoint("a").write_bytes(save({"w": np.arange(3.0)}, metadata=header))
    arrays, metadata = run.load("a")
    assert (list(arrays["w"]), metadata) == ([0.0, 1.0, 2.0], {"epoch": 2})
    content = json.loads(run.jobs.joinpath("a.json").read_text())
    run.jobs.joinpath("a.json").write_text(json.dumps(content, indent=4))  # sealed, and changed since
    with pytest.raises(InputError, match="not what divkd wrote"):
        read_json(run.jobs / "a.json")
