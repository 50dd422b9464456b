"""The command line: bad input is one line and exit code 2, failures are 1, and nothing is lost."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from divkd.cli.main import run
from divkd.cli.train import COMMAND, PRESETS, configure, train
from divkd.empirical.training import config as training
from divkd.shared.errors import RunError
from divkd.theory import config as theory

pytestmark = pytest.mark.usefixtures("coarse_figures_throughout")


@pytest.fixture(autouse=True)
def small_presets(monkeypatch, tmp_path):
    """The real presets, cut to seconds; and a working folder of its own, as --out has a default."""
    smoke = training.PRESETS["smoke"]
    short = dataclasses.replace(smoke.teacher, epochs=1)
    changes = {"teacher": short, "student": short, "members": 2, "ladder": 0, "train_images": 130}
    changes |= {"methods": ("kd", "ods")}
    monkeypatch.setitem(training.PRESETS, "smoke", dataclasses.replace(smoke, **changes))
    monkeypatch.chdir(tmp_path)


BAD = [
    ("train cifar --method odds", "unknown method 'odds'", "did you mean 'ods'"),
    ("train cifar --network resnet9", "unknown network 'resnet9'", "resnet32"),
    ("train cifar --network wrn26x10", "unknown network 'wrn26x10'", "did you mean 'wrn28x10'"),
    ("train cifar --student twins", "unknown student 'twins'", "single"),
    ("train cifar --dataset mnist", "unknown data set 'mnist'", "digits"),
    ("train cfar100", "unknown data set 'cfar100'", "did you mean 'cifar100'"),
    ("train nowhere/", "there is no nowhere/", "the path of an .npz file or of a folder of images"),
    ("train nowhere.npz", "there is no nowhere.npz", "the path of an .npz file or of a folder of images"),
    ("train nowhere", "unknown data set 'nowhere'", "a folder of images, an .npz file"),
    ("train digits --dataset svhn", "'train digits'", "leave --dataset out"),
    ("train digits --train-images 1198", "--train-images 1198", "at most 1197"),
    ("train digits --train-images 1", "--train-images 1", "from 2"),
    ("train digits --image-size 3", "--image-size 3", "from 4 to 512 (pixels)"),
    ("train digits --image-size 16", "--image-size 16", "of a folder"),
    ("train digits --crop 17", "--crop 17", "from 0 to 16 (pixels of padding; 0: no crop)"),
    ("train cifar100", "--data-dir", "cifar-100-python.tar.gz"),
    ("train svhn --data-dir nowhere", "train_32x32.mat", "--download"),
    ("train tinyimagenet --data-dir nowhere", "nowhere", "tiny-imagenet-200.zip"),
    ("train tinyimagenet --data-dir nowhere --download", "--download", "leave it out, with tiny-imagenet-200.zip"),
    ("train . --data-dir nowhere", "--data-dir nowhere", "published"),
    ("train .", "holds no train/", "CLASS"),
    ("train cifar --preset smok", "unknown preset 'smok'", "did you mean 'smoke'"),
    ("train cifar --members 0", "--members 0", "1 to 64"),
    ("train cifar --members two", "'two'", "give a whole number"),
    ("train cifar --student-epochs 2.5", "'2.5'", "give a whole number from 1 to 100000"),
    ("train cifar --lr much", "'much'", "give a number"),
    ("train cifar --ladder 70", "--ladder 70", "0 to 64"),
    ("train cifar --ladder -1", "--ladder -1", "0 to 64"),
    ("train cifar --lr -0.1", "--lr -0.1", "above 0"),
    ("train cifar --lr nan", "--lr nan", "above 0"),
    ("train cifar --lr inf", "--lr inf", "at most 1e+12 (e.g. 0.1)"),
    ("train cifar --epochs -3", "--epochs -3", "from 1"),
    ("train cifar --batch-size 1", "--batch-size 1", "from 2 to 65536"),
    ("train cifar --seeds 0,x", "'0,x'", "0,1,2"),
    ("train cifar --seeds 0,0", "--seeds 0,0", "each once"),
    ("train cifar --seeds -1", "-1", "from 0"),
    ("train cifar --method kd --method kd", "--method kd,kd", "at most once"),
    ("train cifar --device cuda:99", "--device cuda:99", "--device cpu"),
    ("train cifar --device tpu", "--device tpu", "cpu, cuda"),
    ("train cifar --dataset cifar10", "--data-dir", "--download"),
    ("train cifar", "--data-dir", "--download"),
    ("train --members 2", "DATA is missing", "an .npz file"),
    ("train digits svhn", "svhn", "unexpected extra argument"),
    ("train digits --kd-weight 2", "--kd-weight 2.0", "from 0 to 1"),
    ("train digits --step-size 2", "--step-size 2.0", "from 0 to 1"),
    ("train digits --temperature 0", "--temperature 0.0", "above 0"),
    ("train digits --precision half", "unknown precision 'half'", "bfloat16"),
    ("train cifar --dataset cifar10 --data-dir nowhere", "nowhere", "--download"),
    ("train cifar --config absent.json", "absent.json", "existing"),
    ("train cifar --config absent.json --preset smoke", "--preset", "--config"),
    ("train digits --resume --overwrite --out run", "--resume", "one of the two"),
    ("train digits --resume", "--resume", "--out"),
    ("simulate multiview --members 0", "--members 0", "from 1"),
    ("simulate multiview --engine limitt", "unknown engine 'limitt'", "did you mean 'limit'"),
    ("simulate multiview --dimension 100", "--dimension", "--engine dense"),
    ("simulate multiview --device cuda", "cuda", "--engine dense"),
    ("simulate multiview --preset slow", "unknown preset 'slow'", "quick"),
    ("simulate multiview --power 1", "--power 1", "from 2 to 16"),
    ("simulate multiview --own-weight 1,2,3", "--own-weight '1,2,3'", "low,high"),
    ("simulate multiview --own-weight high", "--own-weight 'high'", "low,high"),
    ("simulate multiview --other-weight 0.4,0.3", "--other-weight 0.4,0.3", "the lower first"),
    ("simulate multiview --noise nan", "--noise nan", "above 0"),
    ("simulate multiview --patches 10", "patches 10", "raise patches"),
    ("simulate multiview --train-samples 2000000000", "GB", "lower"),
    ("simulate multiview --second-view 2", "--second-view 2.0", "from 0 to 1"),
    ("simulate multiview --power 17", "--power 17", "from 2 to 16 (flatter ones are never left)"),
    ("simulate window --vary noise=1 --vary noise=2", "--vary noise is given twice", "in one"),
    ("simulate window --grid noise=1,2", "--grid noise is one parameter", "give two"),
    ("simulate window --grid noise=1 --vary power=2", "--vary and --grid are two maps", "one of the two"),
    ("simulate window --grid noise=1,2 --grid power=x", "--grid 'power=x'", "--grid power=3"),
    ("simulate window --vary init_scale=1e-3,nan", "--init-scale nan", "above 0"),
    ("train digits --teachers x --teacher-network resnet14", "--teachers", "leave --teacher-network out"),
    ("simulate window --vary powr=2", "unknown parameter 'powr'", "did you mean 'power'"),
    ("simulate window --vary power=2.5", "--vary 'power=2.5'", "power=3"),
    ("simulate window --vary missing_weight=1:2:3", "--vary 'missing_weight=1:2:3'", "0.1:0.15"),
    ("simulate multivew", "multivew", "No such command"),
    ("figures absent", "absent", "results.json"),
    ("figures", "Missing argument", "RUN"),
]


def test_help_shows_every_parameter_with_symbol_meaning_and_default(capsys):
    assert run("simulate multiview --help".split()) == 0
    out = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(theory.MultiViewConfig):
        assert f"--{field.name.replace('_', '-')}" in out or field.name == "preset"
    assert "--missing-weight LOW,HIGH rho: z of an own view that a single-view sample lacks. [default: 0.1,0.15]" in out


@pytest.mark.parametrize(("line", "value", "mend"), BAD)
def test_bad_input_is_one_line_exit_code_2_and_writes_nothing(line, value, mend, capsys, tmp_path):
    refused(line, value, mend, capsys, tmp_path)


def test_train_writes_a_whole_run_and_refuses_to_write_over_it(capsys, tmp_path):
    command = "train cifar --preset smoke --device cpu --out run".split()
    assert run(command) == 0
    assert "BatchEnsemble merged into one" in capsys.readouterr().out
    folder = tmp_path / "run"
    results = json.loads((folder / "results.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    assert config["config"]["dataset"] == results["dataset"] == "digits"
    assert results["network"] == "resnet8"
    assert results["split"]["test"] == 400
    kinds = [(row["model"], row["method"], row["members"]) for row in results["rows"]]
    assert kinds == [
        ("deep_ensemble", "none", 1),
        ("deep_ensemble", "none", 2),
        ("batch_ensemble", "kd", 2),
        ("merged", "kd", 1),
        ("batch_ensemble", "ods", 2),
        ("merged", "ods", 1),
        ("single", "kd", 1),
        ("single", "ods", 1),
    ]
    numbers = "acc nll brier ece temperature cal_nll cal_brier cal_ece pairwise_kl train_acc params seconds".split()
    for row, line in zip(results["rows"], results["summary"], strict=True):
        assert all(np.isfinite(row[key]) for key in numbers)
        assert all(line[key] == {"mean": row[key], "std": None, "n": 1} for key in numbers)
        assert 0 <= row["acc"] <= 1
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert figures == {"dee.png", "fit.png", "methods.png", "teacher_diversity.png"}
    checkpoints = {path.stem for path in (folder / "checkpoints").iterdir()}
    assert {"seed0-teacher0", "seed0-teacher1", "seed0-batch_ensemble2-ods", "seed0-single-kd-from2"} <= checkpoints
    events = [json.loads(line)["event"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {"started", "epoch", "row", "finished"} == set(events)
    assert (events[0], events[-1]) == ("started", "finished")

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run(command) == 2
    assert "--resume" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert run(["train", "cifar", "--config", "run/config.json", "--out", "again"]) == 0
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    for one, other in zip(results["rows"], again["rows"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_data_sets_keep_the_preset_of_their_own(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "callback", lambda **options: seen.append(configure(options, COMMAND, PRESETS)))
    lines = (
        "train digits",
        "train cifar --preset smoke",
        "train --preset smoke",
        "train --dataset digits",
        "train cifar --dataset digits",
        "train cifar",
        "train cifar10",
        "train cifar --preset nam2021-cifar100-wrn28x5",
        "train svhn",
        "train cifar100 --preset smoke --crop 2",
        "train tinyimagenet --train-images 50 --no-flip",
        "train .",
    )
    for line in lines:
        assert run(line.split()) == 0, capsys.readouterr().err
    fields = ("dataset", "preset", "crop", "flip", "train_images")
    assert [tuple(getattr(config, field) for field in fields) for config in seen] == [
        *[("digits", "smoke", 0, False, 130)] * 5,
        *[("cifar10", "cpu", 0, True, 1000)] * 2,
        ("cifar100", "nam2021-cifar100-wrn28x5", 4, True, None),
        ("svhn", "cpu", 0, False, 1000),  # a mirrored digit is none
        ("cifar100", "smoke", 2, False, 130),
        ("tinyimagenet", "cpu", 0, False, 50),
        (".", "cpu", 0, False, None),  # of one's own images all, as they are
    ]


def test_hyphens_are_accepted_where_names_have_underscores(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(train, "callback", lambda **options: seen.append(configure(options, COMMAND, PRESETS)))
    assert run("train digits --student batch-ensemble".split()) == 0
    assert seen[0].students == ("batch_ensemble",)
    old = dataclasses.asdict(seen[0]) | {"students": ["batch-ensemble"], "crop": 3}
    (tmp_path / "config.json").write_text(json.dumps({"command": "train cifar", "config": old}))
    assert run("train --config config.json".split()) == 0
    assert seen[1] == dataclasses.replace(seen[0], crop=3)


def test_own_images_train_resume_where_they_moved_and_not_where_they_changed(capsys, tmp_path):
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8), np.repeat([0, 1, 2], 20)
    arrays = {"x_train": x, "y_train": y, "x_test": x[::4], "y_test": y[::4]}
    np.savez("mine.npz", **arrays)
    options = "--preset smoke --method kd --student single --flip --device cpu --out run".split()
    assert run(["train", "mine.npz", *options]) == 0
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["config"]["flip"]
    known = config["data"]
    assert (known["name"], known["shape"], known["class_names"]) == ("mine", [3, 8, 8], ["0", "1", "2"])
    assert len(known["mean"]) == len(known["std"]) == 3
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert {key: results["split"][key] for key in ("train", "validation", "test")} == {
        "train": 54,
        "validation": 6,
        "test": 15,
    }
    (tmp_path / "moved").mkdir()
    (tmp_path / "mine.npz").rename("moved/mine.npz")
    assert run(["train", "moved/mine.npz", *options, "--resume"]) == 0
    again = json.loads((tmp_path / "run/results.json").read_text())
    assert [row["acc"] for row in again["rows"]] == [row["acc"] for row in results["rows"]]
    x[7, 0, 0, 0] ^= 1
    np.savez("mine.npz", **arrays)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert run(["train", "mine.npz", *options, "--resume"]) == 2
    assert "the images of mine are not those that run was started with" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_theory_and_practice_meet_in_one_figure_from_two_runs(monkeypatch, capsys, tmp_path):
    quick = dataclasses.replace(theory.PRESETS["quick"], train_samples=300, test_samples=200, members=3)
    monkeypatch.setitem(theory.PRESETS, "quick", quick)
    assert run("simulate multiview --preset quick --out theory".split()) == 0
    assert "single-view" in capsys.readouterr().out
    results = json.loads((tmp_path / "theory" / "results.json").read_text())
    for claim in ("single", "ensemble"):
        for kind in ("train_error", "multi_view_error", "single_view_error"):
            assert results["claims"][claim][kind].keys() == {"mean", "std", "n"}
    sizes = [row["members"] for row in results["claims"]["ensemble"]["by_members"]]
    assert sizes == [1, 2, 3]
    assert {"view_strengths.png", "error_by_members.png"} <= {p.name for p in (tmp_path / "theory/figures").iterdir()}
    assert run("train cifar --preset smoke --method kd --device cpu --out practice".split()) == 0
    assert run("figures practice theory --out pictures".split()) == 0
    found = capsys.readouterr()
    drawn = {"ensemble_gain.png", "recovered.png", "equivalents.png"}
    assert {Path(line).name for line in found.out.splitlines() if line.startswith("pictures")} == drawn
    assert (tmp_path / "pictures" / "ensemble_gain.png").stat().st_size > 1000
    # what has no run is named, and in no caption
    assert "members.png is left out: no run of 'simulate multiview' and 'analyse'" in found.err
    assert "equivalents.png lacks a column: no run of 'simulate multiview'" in found.err
    captions = (tmp_path / "pictures" / "captions.md").read_text()
    assert "theory (one seed: 0)" in captions
    assert "members.png" not in captions
    assert run("figures theory theory practice --out two".split()) == 0  # a further run is a further column
    broken = tmp_path / "theory" / "results.json"
    for content in (
        '{"command": "simulate multiview"}',
        '{"command": "simulate multiview", "claims": []}',
        "[" * 99999,
    ):
        broken.write_text(content)
        assert run("figures practice theory --out pictures".split()) == 2


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (RunError("teacher 0 diverged"), 1, "diverged"),
        (OSError(28, "No space left on device"), 1, "No space left"),
        (MemoryError(), 1, "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), 1, "out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_failures_while_running_are_one_line_and_keep_what_is_finished(
    monkeypatch, capsys, tmp_path, failure, code, words
):
    from divkd.empirical.training import distillation

    real, calls = distillation.train, iter(range(100))

    def failing(*args, **kwargs):
        if next(calls) == 1:
            raise failure
        return real(*args, **kwargs)

    monkeypatch.setattr(distillation, "train", failing)
    assert run("train cifar --preset smoke --device cpu --out run".split()) == code
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("Error: ")
    assert words in err
    assert (tmp_path / "run/checkpoints/seed0-teacher0.safetensors").exists()
    assert not (tmp_path / "run/results.json").exists()


def test_help_imports_nothing_heavy():
    """`divkd --help` in a fresh interpreter loads neither torch nor numba nor matplotlib."""
    heavy = "{'torch', 'torchvision', 'numba', 'numpy', 'matplotlib', 'sklearn', 'scipy'}"
    code = f"import sys; from divkd.cli.main import run; run(['--help']); assert not {heavy} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
