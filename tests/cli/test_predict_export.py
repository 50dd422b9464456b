"""``divkd predict`` and ``divkd export``: the numbers of the functions, files whole or not at all, one-line errors."""

import csv
import dataclasses
import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused

from divkd.cli.main import run
from divkd.empirical.data.datasets import load
from divkd.empirical.data.inputs import read_inputs
from divkd.empirical.data.splits import to_float
from divkd.empirical.training import config as training
from divkd.empirical.use.predict import predict
from divkd.empirical.use.restore import load_model, load_run
from divkd.shared.files import read_json

pytestmark = pytest.mark.usefixtures("coarse_figures_throughout")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a small run and images: scans/0.png to 3.png, deep/4.png, photo.jpg, images.npz."""
    folder = tmp_path_factory.mktemp("use")
    smoke = training.PRESETS["smoke"]
    short = dataclasses.replace(smoke.teacher, epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        changes = {
            "teacher": short,
            "student": short,
            "members": 2,
            "ladder": 0,
            "train_images": 130,
            "methods": ("kd", "ods"),
        }
        patch.setitem(training.PRESETS, "smoke", dataclasses.replace(smoke, **changes))
        assert run(["train", "digits", "--device", "cpu", "--out", str(folder / "run")]) == 0
    images = load("digits", None, False, None).test.images
    (folder / "scans/deep").mkdir(parents=True)
    for i, place in enumerate(("0.png", "1.png", "2.PNG", "3.png", "deep/4.png")):
        Image.fromarray(images[i, 0].numpy()).save(folder / "scans" / place)
    (folder / "scans/notes.txt").write_text("no image")
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "photo.jpg")
    np.savez(folder / "images.npz", images=images[:5].permute(0, 2, 3, 1).numpy())
    np.savez(folder / "large.npz", images=np.zeros((2, 9, 8, 1), np.uint8))
    np.savez(folder / "none.npz")
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("options", [[], ["--model", "deep_ensemble"], ["--calibrated", "--model", "merged"]])
def test_the_csv_holds_the_numbers_of_the_python_functions(capsys, options):
    assert run(["predict", "run", "scans", "images.npz", "--device", "cpu", *options]) == 0
    out, err = capsys.readouterr()
    rows = table(out)
    assert list(rows[0]) == ["file", "class", "confidence", "entropy", "mutual_information"]
    files = ["scans/0.png", "scans/1.png", "scans/2.PNG", "scans/3.png", "scans/deep/4.png"]
    assert [row["file"] for row in rows] == files + [f"images.npz[{i}]" for i in range(5)]
    found = load_model("run", *options[-1:])
    images = to_float(load("digits", None, False, None).test.images[:5])
    wanted = predict(found.net, images, found.temperature if "--calibrated" in options else 1.0)
    for half in (rows[:5], rows[5:]):  # files and arrays hold the same images
        assert [row["class"] for row in half] == [str(number) for number in wanted.classes]
        for key in ("confidence", "entropy", "mutual_information"):
            assert np.allclose([float(row[key]) for row in half], getattr(wanted, key), rtol=2e-5, atol=1e-7)
    passed, said = err.splitlines()
    assert passed == "passed over: 1 without an image's ending (.txt)"
    assert said.startswith(str(found))
    assert said.endswith("; 10 images")


def test_a_file_holds_what_standard_output_shows_and_is_replaced_only_when_asked(folder, capsys):
    assert run("predict run scans --device cpu".split()) == 0
    shown = capsys.readouterr().out
    assert run("predict run scans --device cpu --out new/p.csv".split()) == 0
    assert capsys.readouterr().out == ""
    assert (folder / "new/p.csv").read_text() == shown
    assert run("predict run photo.jpg --resize --device cpu --out new/p.csv".split()) == 2
    assert (folder / "new/p.csv").read_text() == shown
    assert run("predict run photo.jpg --resize --device cpu --out new/p.csv --overwrite".split()) == 0
    assert [row["file"] for row in table((folder / "new/p.csv").read_text())] == ["photo.jpg"]
    assert [path.name for path in (folder / "new").iterdir()] == ["p.csv"]


def test_one_that_cannot_be_read_does_not_cost_the_answers_of_the_others(folder, tmp_path, capsys):
    good = table((run("predict run scans --device cpu".split()), capsys.readouterr().out)[1])
    shutil.copytree(folder / "scans", tmp_path / "mixed")
    (tmp_path / "mixed/1a.png").write_bytes((folder / "scans/1.png").read_bytes()[:50])
    line = f"predict run {tmp_path}/mixed photo.jpg absent.png none.npz scans/0.png --device cpu"
    assert run([*line.split(), "--out", str(tmp_path / "p.csv")]) == 1
    said = capsys.readouterr().err.splitlines()
    for start, words in zip(said, ("mixed/1a.png cannot be read", "photo.jpg is 30 x 20", "there is no absent.png",
                                   "none.npz holds no array", "passed over: 1 without"), strict=False):  # fmt: skip
        assert words in start
    assert said[-1] == "Error: left out, as said above: 4 of what was given; the others are answered"
    rows = table((tmp_path / "p.csv").read_text())
    assert [{**row, "file": ""} for row in rows] == [{**row, "file": ""} for row in (*good, good[0])]
    assert run([*line.split(), "--strict", "--out", str(tmp_path / "strict.csv")]) == 2
    assert "mixed/1a.png cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "strict.csv").exists()


def test_images_are_read_as_the_run_reads_its_own(folder):
    names, images = read_inputs([folder / "photo.jpg"], (3, 8, 8), 8, False)
    assert images.shape == (1, 3, 8, 8)
    assert names == [str(folder / "photo.jpg")]
    assert np.array_equal(images, read_inputs([folder / "photo.jpg"], (3, 8, 8), None, True)[1])
    wide = read_inputs([folder / "photo.jpg"], (3, 20, 30), None, False)[1]
    with Image.open(folder / "photo.jpg") as photo:
        assert np.array_equal(wide[0].transpose(1, 2, 0), np.asarray(photo))
        grey = read_inputs([folder / "photo.jpg"], (1, 20, 30), None, False)[1]
        assert np.array_equal(grey[0, 0], np.asarray(photo.convert("RGB").convert("L")))
    rgb = read_inputs([folder / "scans/0.png"], (3, 8, 8), None, False)[1][0]
    assert np.array_equal(rgb[0], rgb[2])


def test_export_writes_a_program_of_the_chosen_network(folder, capsys):
    assert run("export run --model merged --out net.pt2".split()) == 0
    assert "merged by ods, 1 member, seed 0: net.pt2" in capsys.readouterr().out
    program = torch.export.load(folder / "net.pt2").module()
    images = to_float(load("digits", None, False, None).test.images[:6])
    assert torch.allclose(program(images), load_model("run", "merged").net(images), atol=1e-5)
    before = (folder / "net.pt2").read_bytes()
    assert run("export run --out net.pt2".split()) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "net.pt2").read_bytes() == before
    assert run("export run --model deep_ensemble --out net.pt2 --overwrite".split()) == 0
    assert torch.export.load(folder / "net.pt2").module()(images).shape == (2, 6, 10)


def test_an_export_that_differs_is_exit_code_1_and_writes_nothing(folder, capsys, monkeypatch):
    from divkd.empirical.use import export

    monkeypatch.setattr(export, "compare", lambda *_: 3e-5)
    assert run("export run --out bad.pt2".split()) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (folder / "bad.pt2").exists()


@pytest.mark.parametrize(
    ("line", "value", "mend"),
    [
        ("predict absent scans", "absent", "the folder that it wrote"),
        ("predict run", "IMAGES", "Missing"),
        ("predict run absent.png", "absent.png", "a folder of them"),
        ("predict run new2", "new2", "a folder of them"),
        ("predict run scans/notes.txt", "notes.txt", "restore or remove"),
        ("predict run photo.jpg", "30 x 20", "--resize"),
        ("predict run large.npz", "8 x 9", "8 x 8"),
        ("predict run none.npz", "none.npz", "images=..."),
        ("predict run run/checkpoints", "holds no image", ".png"),
        ("predict run scans --model twins", "'twins'", "single"),
        ("predict run scans --model singel", "'singel'", "did you mean 'single'"),
        ("predict run scans --method confods", "confods", "kd, ods"),
        ("predict run scans --seed 7", "seed 7", "it has 0"),
        ("predict run scans --device tpu", "tpu", "cpu, cuda"),
        ("predict run scans --out scans", "--out scans", "give a file"),
        ("predict run scans --out photo.jpg/x.csv", "photo.jpg/x.csv", "write to"),
        ("export run", "--out", "Missing"),
        ("export run --out net.onnx", "net.onnx", ".pt2"),
        ("export scans --out x.pt2", "scans", "the folder that it wrote"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_writes_nothing(folder, capsys, line, value, mend):
    refused(line, value, mend, capsys, folder)


def test_a_flat_folder_is_split_trained_on_and_predicted(tmp_path, capsys):
    draw = np.random.default_rng(0)
    for i in range(30):
        (tmp_path / f"flat/{'ab'[i % 2]}").mkdir(parents=True, exist_ok=True)
        noise = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        noise.save(tmp_path / f"flat/{'ab'[i % 2]}/{i}.png")
    (tmp_path / "flat/a/notes.txt").write_text("no image")
    line = "--preset smoke --epochs 1 --members 2 --ladder 0 --method kd --student single --batch-size 8 --device cpu"
    assert run(["train", str(tmp_path / "flat"), *line.split(), "--split", "0.2", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == [
        "divkd: flat: 30 images of 8 x 8 in 2 classes of 15 to 15 images: 22 train, 2 validation, 6 test",
        "divkd: passed over: 1 without an image's ending (.txt)",
    ]
    assert read_json(tmp_path / "run/config.json")["config"]["split"] == 0.2
    assert run(["predict", str(tmp_path / "run"), str(tmp_path / "flat"), "--model", "single", "--device", "cpu"]) == 0
    assert len(table(capsys.readouterr().out)) == 30
    assert len(load_run(tmp_path / "run")[1].test) == 6
