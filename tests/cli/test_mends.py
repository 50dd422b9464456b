"""Every mend that an error of the command line names mends, if followed; and what is said before training."""

import dataclasses
import json

import click
import numpy as np
import pytest

from divkd.cli.contents import once
from divkd.cli.main import cli, run
from divkd.empirical.plane.config import PlaneConfig
from divkd.empirical.training import config as training
from divkd.empirical.training import distillation
from divkd.empirical.training.config import TrainConfig
from divkd.shared.config import shown
from divkd.shared.errors import InputError
from divkd.theory import config as theory
from divkd.theory.config import MultiViewConfig

pytestmark = pytest.mark.usefixtures("figures_undrawn")


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """A preset of seconds, and a working folder of its own."""
    smoke = training.PRESETS["smoke"]
    short = dataclasses.replace(smoke.teacher, epochs=1)
    changes = {"teacher": short, "student": short, "members": 2, "ladder": 0, "train_images": 64, "methods": ("kd",)}
    monkeypatch.setitem(training.PRESETS, "smoke", dataclasses.replace(smoke, **changes, students=("single",)))
    monkeypatch.chdir(tmp_path)


def said(line, capsys):
    """Exit code, standard output and standard error."""
    capsys.readouterr()
    return run(line.split()), *capsys.readouterr()


SHIPPED = dict(training.PRESETS)
P = "--print-config"
M = "simulate multiview"
W = "simulate window"
QUICK = f"{M} --preset quick --members 1 --dry-run"
PLANE = "simulate plane --points 20 --epochs 1 --width 4 --members 2 --seeds 0"
MENDS = [
    (f"train {P}", "give digits", f"train digits {P}"),
    (f"train digits --preset smok {P}", "did you mean 'smoke'", f"train digits --preset smoke {P}"),
    (f"train digits --method odds {P}", "did you mean 'ods'", f"train digits --method ods {P}"),
    (f"train digits --network resnet9 {P}", "did you mean 'resnet", f"train digits --network resnet8 {P}"),
    (f"train digits --dataset svhn {P}", "leave --dataset out", f"train digits {P}"),
    (f"train digits --members 0 {P}", "from 1 to 64", f"train digits --members 1 {P}"),
    (f"train digits --lr 0 {P}", "e.g. 0.1", f"train digits --lr 0.1 {P}"),
    (f"train digits --teacher-epochs 0 {P}", "1<=x<=100000", f"train digits --teacher-epochs 1 {P}"),
    (f"train digits --crop 17 {P}", "0: no crop", f"train digits --crop 0 {P}"),
    (f"train digits --seeds 0,x {P}", "e.g. 0,1,2", f"train digits --seeds 0,1,2 {P}"),
    (f"train digits --device tpu {P}", "give cpu", f"train digits --device cpu {P}"),
    (f"train digits --device cuda:99 {P}", "give --device cpu", f"train digits --device cpu {P}"),
    (f"train digits --temperature 1 --temperature 4 {P}", "give one of the two", f"train digits --temperature 4 {P}"),
    (f"train digits --teachers x --teacher-network wrn10x1 {P}", "leave --teacher-", f"train digits --teachers x {P}"),
    (f"train --config c.json --preset smoke {P}", "give one of the two", f"train digits --preset smoke {P}"),
    (f"train digits --dry-run {P}", "give one of the two", f"train digits {P}"),
    ("train digits --dry-run --download", "leave --download out", "train digits --dry-run"),
    (f"{PLANE} --resume --overwrite --out new", "give one of the two", f"{PLANE} --overwrite --out new"),
    (f"{PLANE} --resume --out new", "leave --resume out", f"{PLANE} --out new"),
    (f"{M} --engine limitt {P}", "did you mean 'limit'", f"{M} --engine limit {P}"),
    (f"{M} --dimension 100 {P}", "give --engine dense", f"{M} --engine dense --dimension 100 {P}"),
    (f"{M} --dimension 100 {P}", "or leave it out", f"{M} {P}"),
    (f"{M} --device cuda {P}", "give --device cpu", f"{M} --device cpu {P}"),
    (f"{M} --own-weight 1,2,3 {P}", "e.g. 0.2,0.3", f"{M} --own-weight 0.2,0.3 {P}"),
    (f"{M} --expected-others 11 {P}", "--classes 10", f"{M} --expected-others 10 {P}"),
    (f"{M} --train-samples 30 {P}", "raise it or lower --single-views", f"{M} --train-samples 1200 {P}"),
    (f"{M} --train-samples 30 {P}", "raise it or lower --single-views", f"{M} --train-samples 30 --single-views 0 {P}"),
    (f"{QUICK} --patches 10", "raise patches", QUICK),
    (f"{QUICK} --patches 10", "or lower expected_others (5.0)", f"{QUICK} --patches 10 --expected-others 0.1"),
    (f"{QUICK} --train-samples 2000000000", "lower members, train_samples, neurons or patches", QUICK),
    (f"{M} --patches 4 {P}", "raise --patches", f"{M} --patches 32 {P}"),
    (f"{W} --vary noise=1,2 --grid power=2,3 {P}", "give one of the two", f"{W} --vary noise=1,2 {P}"),
    (f"{W} --grid noise=1,2 {P}", "--grid NAME=V,V,... --grid", f"{W} --grid noise=1,2 --grid power=2,3 {P}"),
    (f"{W} --vary power=2.5 {P}", "as in --vary power=3", f"{W} --vary power=3 {P}"),
    (f"{W} --vary noise=1 --vary noise=2 {P}", "all of its values in one", f"{W} --vary noise=1,2 {P}"),
    (f"{W} --vary powr=2 {P}", "did you mean 'power'", f"{W} --vary power=2 {P}"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "mend", "followed"), MENDS)
def test_a_mend_mends(line, mend, followed, capsys):
    code, out, err = said(line, capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert mend in err
    code, out, err = said(followed, capsys)
    assert code == 0, err


def test_mends_of_a_run_that_is_there(capsys, tmp_path):
    for wrong, mend in (("--resume", "--resume needs --out RUN, the folder of the run"),
                        ("--resume --out absent", "holds no run; leave --resume out to start one, or give a run's"),
                        ("--resume --overwrite --out run", "give one of the two")):  # fmt: skip
        code, _, err = said(f"{PLANE} {wrong}", capsys)
        assert (code, mend in err, list(tmp_path.iterdir())) == (2, True, [])
    assert run(f"{PLANE} --out run".split()) == 0
    code, _, err = said(f"{PLANE} --out run", capsys)
    assert code == 2
    assert "--resume goes on with it, --overwrite deletes it, or give another folder" in err
    for more in ("--out run --resume", "--out run --overwrite", "--out other"):
        assert run(f"{PLANE} {more}".split()) == 0
    code, _, err = said(f"{PLANE} --out run --resume --temperature 2", capsys)
    assert (code, "temperature was 4.0" in err) == (2, True)
    assert "go on with --config run/config.json and no other values, or give another --out" in err
    assert run("simulate plane --out run --resume --config run/config.json".split()) == 0
    (tmp_path / "file").touch()
    assert "give a folder" in said(f"{PLANE} --out file", capsys)[2]


def test_what_differs_in_a_schedule_is_named(capsys):
    assert run("train digits --device cpu --out run".split()) == 0
    code, _, err = said("train digits --device cpu --out run --resume --student-epochs 2", capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert "student.epochs was 1 in run and is 2 now" in err


def test_mends_of_a_configuration(capsys, tmp_path):
    part = {"command": "train cifar", "config": {"preset": "smoke"}}
    for content, mend in (["x"], "what --print-config wrote"), (part, "as --print-config writes it"):
        (tmp_path / "c.json").write_text(json.dumps(content))
        code, _, err = said("train --config c.json", capsys)
        assert (code, mend in err, err.count("\n")) == (2, True, 1)
    (tmp_path / "c.json").write_text(said(f"train digits {P}", capsys)[1])
    assert run(f"train --config c.json {P}".split()) == 0


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("flags", ["--out run", "--out run --overwrite", ""])
def test_what_goes_on_is_named_and_goes_on(failure, flags, monkeypatch, capsys):
    real, calls = distillation.train, iter(range(100))

    def failing(*arguments):
        if next(calls) == 1:
            raise failure
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(distillation, "train", failing)
        _, _, err = said(f"train digits --device cpu {flags}", capsys)
    last = err.splitlines()[-1]
    assert "the same command with --resume --out run" in last
    assert ("instead of --overwrite" in last) == ("--overwrite" in flags)
    folder = last.split("--out ")[1].split()[0]
    code, _, err = said(f"train digits --device cpu --resume --out {folder}", capsys)
    assert code == 0
    assert "teacher0: " not in err  # of the first sitting, trained no more


def test_out_of_memory_names_what_takes_less_and_may_be_given(monkeypatch, capsys):
    def full(*arguments):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(distillation, "train", full)
        code, _, err = said("train digits --device cpu --out run", capsys)
    assert (code, err.splitlines()[-1]) == (
        1, "Error: out of memory; give a lower --batch-size or fewer --members and a new --out"
    )  # fmt: skip
    assert run("train digits --device cpu --batch-size 16 --members 1 --out new".split()) == 0


def test_mends_of_files(capsys, tmp_path):
    assert run("train digits --device cpu --out run".split()) == 0
    (tmp_path / "run/results.json").rename("results.json")
    code, _, err = said("analyse run --out a", capsys)
    assert (code, err.count("\n")) == (2, 1)
    command = err.split("; divkd ")[1].split(" goes on")[0]
    assert run(command.split()) == 0
    np.savez("x.npz", logits=np.eye(4)[None, :, :2] + 0.5, labels=[0, 1, 0, 1])
    for line, mend, followed in (
        ("analyse run --images 1 --out a", "at least 2", None),
        ("analyse run --images 20 --out run", "give another folder", None),
        ("export run --out net", "in .pt2", "export run --out net.pt2"),
        ("export run --out net.pt2", "--overwrite replaces it", "export run --out net.pt2 --overwrite"),
        ("report run run --out twice.html", "name each run once", "report run --out twice.html"),
        ("evaluate x.npz ./x.npz --out x", "name each file once", "evaluate x.npz --out x"),
        ("report run --out page", "in .html or .htm", "report run --out page.html"),
        ("report run --out page.html", "--overwrite replaces it", "report run --out page.html --overwrite"),
    ):
        code, _, err = said(line, capsys)
        assert (code, mend in err, err.count("\n")) == (2, True, 1), err
        assert followed is None or run(followed.split()) == 0
    kept = (tmp_path / "run/config.json").read_bytes()
    (tmp_path / "run/config.json").write_text("[]")
    advice = said("report run --out last.html", capsys)[2]
    (tmp_path / "run/config.json").unlink()
    assert run("report run --out last.html".split()) == 0
    assert run(advice.split("delete it, and divkd ")[1].split(" writes it anew")[0].split()) == 0
    assert (tmp_path / "run/config.json").read_bytes() == kept
    assert run("report run --out last.html --overwrite".split()) == 0


def commands(group=cli, name=""):
    for key, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{name}{key} ")
        else:
            yield f"{name}{key}", command


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_no_option_of_one_value_is_given_two(name, command):
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        first, last = option.opts[0], (option.opts + option.secondary_opts)[-1]
        twice = [first, last] if option.is_flag else [first, "1", f"{last}=2"]
        if option.multiple or (option.is_flag and first == last):
            once(command, twice)
        else:
            words = f"{first} and {last} are" if option.is_flag else f"{first} 1 and {last} 2 are both given"
            with pytest.raises(InputError, match=words):
                once(command, twice)
            once(command, [*twice[:-1], "--", twice[-1]])


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("train digits --members 1 --teacher-epochs 2 --seeds 3", TrainConfig),
        ("simulate multiview --preset quick --noise 0.5", MultiViewConfig),
        ("simulate ablations --members 2", MultiViewConfig),
        ("simulate window --vary noise=1,2", MultiViewConfig),
        ("simulate plane --width 3", PlaneConfig),
    ],
)
def test_a_printed_configuration_is_read_back_and_nothing_is_written(line, kind, capsys, tmp_path):
    code, out, err = said(f"{line} {P} --out run", capsys)
    assert (code, err, list(tmp_path.iterdir())) == (0, "", [])
    content = json.loads(out)
    kind.from_dict({key: value for key, value in content["config"].items() if key != "vary"})
    (tmp_path / "c.json").write_text(out)
    name = line.split()[0] if line.startswith("train") else " ".join(line.split()[:2])
    assert said(f"{name} --config c.json {P}", capsys)[:2] == (0, out)


@pytest.mark.parametrize(
    ("line", "networks"),
    [
        ("train digits --seeds 0,1 --method kd --method none --ladder 3 --student single --student batch_ensemble", 14),
        ("simulate multiview --preset quick --members 3", 3),
        ("simulate multiview --members 4 --students 2 --seeds 5,6", 2 * (4 + 10 * 2)),
        ("simulate multiview --members 1 --students 2 --seeds 5", 1 + 4 * 2 + 1 + 3),  # nobody to be distilled towards
        ("simulate window --vary noise=1,2 --members 4 --students 2 --seeds 5", 2 * (4 + 3 * 2)),
        (PLANE, 2),
    ],
)
def test_a_dry_run_counts_networks_and_writes_nothing(line, networks, capsys, tmp_path):
    code, out, err = said(f"{line} --dry-run --out run", capsys)
    assert (code, err, list(tmp_path.iterdir())) == (0, "", [])
    counted = next(text for text in out.splitlines() if " trained" in text)
    assert int(counted.split()[0]) == networks
    assert "memory" in out or line == PLANE
    assert ("of training on" in out) == line.startswith("train")
    assert (" by a first member, which fits after " in out) == (line[:12] in ("simulate mul", "simulate win"))


def test_what_is_trained_is_said_and_is_what_is_trained(capsys, tmp_path):
    code, _, err = said("train digits --device cpu --ladder 3 --method kd --method none --out run", capsys)
    images, first = err.splitlines()[:2]
    assert images.startswith("divkd: digits: 664 images of 8 x 8 in 10 classes")
    assert (code, first) == (
        0,
        "divkd: 5 networks are trained: 3 of the deep ensemble (2 teach, 1 only measure the deep ensemble equivalent: "
        "--ladder), 2 students; 1 epoch on 64 images, 10 steps in all",
    )
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 5
    assert "[5 of 5 networks] " in err
    world = "--preset quick --classes 3 --patches 12 --expected-others 1 --train-samples 60 --test-samples 50"
    more = "--members 2 --students 2 --soft-steps 20 --seeds 0"
    code, _, err = said(f"simulate multiview {world} {more} --out theory", capsys)
    assert code == 0
    assert err.startswith("divkd: 22 networks are trained: 2 members and 20 students and controls; ")
    networks = [path for path in (tmp_path / "theory/checkpoints").iterdir() if "-tested" not in path.name]
    assert len(networks) == 22
    done = list((tmp_path / "theory/jobs").glob("*.json"))
    code, _, err = said(
        f"simulate multiview {world} {more} --out theory --resume".replace("0 --out", "0,1 --out"), capsys
    )
    assert f"theory has {len(done)} finished jobs already" in err
    assert "[24 of 44 networks" in err  # those of the first sitting count


@pytest.mark.parametrize("width", [60, 100, 160])
def test_help_follows_the_terminal_and_lists_data_and_presets(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = said("train --help", capsys)[1].splitlines()
    # commands are whole lines
    assert width - 12 <= max(len(line) for line in lines if not line.startswith("  divkd train")) <= width
    titles = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["DATA:", "Presets:", "Data:", "Data: views alone:",
                      "Networks:", "Distillation:", "Training:", "Run:"]  # fmt: skip
    words = " ".join(" ".join(lines).split())
    assert "FILE.npz x_train" in words
    for preset in SHIPPED.values():
        assert f" {preset.dataset}, {preset.train_images or 'all'} images; {preset.members} members of " in words


@pytest.mark.parametrize("name", theory.PRESETS)
def test_help_of_a_simulation_lists_what_a_preset_changes(name, capsys):
    out = " ".join(said("simulate multiview --help", capsys)[1].split())
    listed = f" {out.split(' Presets: ')[-1].split(' Data: ')[0]}".split(f" {name} ", 1)[1]
    for field in dataclasses.fields(MultiViewConfig)[1:]:
        value, usual = (getattr(one, field.name) for one in (theory.PRESETS[name], MultiViewConfig()))
        assert value == usual or f"{field.name} {shown(value)}" in listed
