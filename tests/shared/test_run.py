"""Run directories: whole files, refusals that touch nothing, resume with the same configuration only."""

import json
import math
import os

import numpy as np
import pytest

from divkd.shared import files
from divkd.shared.errors import InputError, unknown
from divkd.shared.files import plain, read_json, write_bytes, write_json
from divkd.shared.manifest import read_config
from divkd.shared.run import open_run
from divkd.shared.seeds import rng
from divkd.shared.stats import show, summarise

CONFIG = {"seeds": (0,), "lr": 0.1, "device": "cpu"}


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def finished(path):
    run = open_run(path, "train cifar", CONFIG)
    run.save("a", {"w": np.arange(6.0).reshape(2, 3).T, "n": np.array(7)}, {"epoch": 3, "seconds": 0.5})
    run.log(event="epoch", loss=math.inf)
    run.finish({"rows": []})
    return run


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    run = finished(tmp_path / "run")
    arrays, header = run.load("a")
    np.testing.assert_array_equal(arrays["w"], np.arange(6.0).reshape(2, 3).T)
    assert arrays["n"].shape == ()
    assert header == {"epoch": 3, "seconds": 0.5}
    assert run.load("b") is None
    (record,) = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert record["event"] == "epoch"
    assert record["loss"] is None


def test_config_json_says_what_a_result_depends_on(tmp_path):
    found = read_json(finished(tmp_path / "run").path / "config.json")
    assert found["command"] == "train cifar"
    assert found["config"] == {"seeds": [0], "lr": 0.1, "device": "cpu"}
    assert found["seeds"] == [0]
    assert {"divkd", "python", "torch", "numpy", "numba"} <= found["versions"].keys()
    assert found["device"].startswith("cpu: ")
    assert "git_revision" in found


@pytest.mark.parametrize(
    ("command", "config", "flags", "message"),
    [
        ("train cifar", CONFIG, {}, "holds a finished run; --resume"),
        ("train cifar", {**CONFIG, "lr": 0.2}, {"resume": True}, r"lr was 0\.1 .* and is 0\.2 now"),
        ("simulate multiview", CONFIG, {"resume": True}, "holds a run of 'train cifar'"),
        ("train cifar", CONFIG, {"resume": True, "overwrite": True}, "one of the two"),
    ],
)
def test_a_refusal_leaves_the_run_as_it_was(tmp_path, command, config, flags, message):
    finished(tmp_path / "run")
    before = content(tmp_path)
    with pytest.raises(InputError, match=message):
        open_run(tmp_path / "run", command, config, **flags)
    assert content(tmp_path) == before


def test_foreign_files_are_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years")
    for flags in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(InputError, match="no run of divkd"):
            open_run(tmp_path, "train cifar", CONFIG, **flags)
    with pytest.raises(InputError, match="is a file"):
        open_run(tmp_path / "thesis.tex", "train cifar", CONFIG)
    assert (tmp_path / "thesis.tex").read_text() == "ten years"


def test_a_foreign_config_json_makes_no_run(tmp_path):
    (tmp_path / "config.json").write_text('{"model": "bert"}')
    (tmp_path / "results.json").write_text("{}")
    before = content(tmp_path)
    for flags in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(InputError, match="no run of divkd"):
            open_run(tmp_path, "train cifar", CONFIG, **flags)
    assert content(tmp_path) == before


def test_resume_may_add_but_not_leave_out(tmp_path):
    config = {"seeds": [0, 1], "members": 3}
    open_run(tmp_path, "train cifar", config).finish({"rows": [1]})
    for less in ({"seeds": [1], "members": 3}, {"seeds": [0, 1], "members": 2}):
        with pytest.raises(InputError, match="name all that the run has"):
            open_run(tmp_path, "train cifar", less, resume=True, extendable=["seeds", "members"])
    more = {"seeds": [1, 0, 2], "members": 4}
    open_run(tmp_path, "train cifar", more, resume=True, extendable=["seeds", "members"])
    assert read_json(tmp_path / "results.json") == {"rows": [1]}


def test_there_is_nothing_to_resume_where_no_run_is(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("absent", "empty"):
        with pytest.raises(InputError, match=rf"--out .*{name} holds no run; leave --resume out to start one"):
            open_run(tmp_path / name, "train cifar", CONFIG, resume=True)
    assert content(tmp_path) == {}
    open_run(tmp_path / "absent", "train cifar", CONFIG)


def test_other_images_and_other_weights_do_not_go_on(tmp_path):
    config, facts = {**CONFIG, "weights": "w.pth"}, {"name": "mine", "sha256": "1", "weights_sha256": "2"}
    open_run(tmp_path / "run", "train cifar", config, data=facts)
    for changes, words in (({"sha256": "3"}, "images of mine"), ({"weights_sha256": "3"}, "weights of --weights")):
        with pytest.raises(InputError, match=f"the {words} are not those that .*; restore them, or give another --out"):
            open_run(tmp_path / "run", "train cifar", config, resume=True, data=facts | changes)
    open_run(tmp_path / "run", "train cifar", config, resume=True, data=facts)
    open_run(tmp_path / "other", "train cifar", config, data=facts | {"sha256": "3"})


def test_what_a_kill_left_half_written_is_no_obstacle(tmp_path):
    (tmp_path / ".config.json.123.part").write_text("{")
    open_run(tmp_path, "train cifar", CONFIG)


def test_overwrite_deletes_the_runs_own_files_alone(tmp_path):
    finished(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    (tmp_path / "run" / "checkpoints" / "notes.txt").write_text("mine")
    run = open_run(tmp_path / "run", "train cifar", {**CONFIG, "lr": 9}, overwrite=True)
    assert run.load("a") is None
    assert not (run.path / "results.json").exists()
    assert (run.path / "notes.txt").read_text() == "mine"
    assert (run.checkpoints / "notes.txt").read_text() == "mine"


def test_resume_keeps_checkpoints_and_may_extend(tmp_path):
    finished(tmp_path / "run")
    run = open_run(tmp_path / "run", "train cifar", {**CONFIG, "seeds": (0, 1)}, resume=True, extendable=["seeds"])
    assert run.load("a") is not None


def test_a_half_written_log_line_is_cut_off_on_resume(tmp_path):
    run = finished(tmp_path / "run")
    with open(run.path / "log.jsonl", "a") as file:
        file.write('{"event": "ep')
    open_run(run.path, "train cifar", CONFIG, resume=True).log(event="epoch")
    lines = (run.path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["epoch", "epoch"]


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "run", tmp_path / ("long" * 100)):
        with pytest.raises(InputError, match="cannot be written"):
            open_run(path, "train cifar", CONFIG)


def test_damaged_checkpoints_and_configs_are_named(tmp_path):
    run = finished(tmp_path / "run")
    path = run.checkpoints / "a.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match=r"a\.safetensors is damaged.*--resume"):
        run.load("a")
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="is damaged"):
        run.load("a")
    (run.path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_config(run.path)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    target = tmp_path / "results.json"
    write_json(target, {"old": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(target, b"new")
    assert os.listdir(tmp_path) == ["results.json"]
    assert read_json(target) == {"old": 1}


def test_json_has_no_infinities():
    assert plain({"a": [math.inf, np.float32(0.5), np.arange(2)], "b": (math.nan,)}) == {
        "a": [None, 0.5, [0, 1]],
        "b": [None],
    }


def test_randomness_is_a_function_of_seed_role_member_and_epoch():
    keys = [(s, r, m, e) for s in (0, 1, 11) for r in ("init", "order") for m in (0, 1) for e in (0, 1)]
    draws = {key: rng(*key).integers(2**63) for key in keys}
    assert len(set(draws.values())) == len(keys)
    assert draws == {key: rng(*key).integers(2**63) for key in keys}


def test_spread_needs_two_runs():
    assert summarise([2.0]) == {"mean": 2.0, "std": None, "n": 1}
    assert summarise([1.0, 3.0]) == {"mean": 2.0, "std": pytest.approx(2**0.5), "n": 2}
    assert show(summarise([0.4641])) == "0.464"
    assert show(summarise([1.0, 3.0]), 1) == "2.0 ± 1.4"
    assert show({"mean": None, "std": None, "n": 1}) == "inf"


def test_unknown_names_come_with_the_nearest():
    assert "did you mean 'confods'" in str(unknown("method", "confod", ["kd", "confods"]))
    assert "did you mean" not in str(unknown("method", "xyz", ["kd", "confods"]))
