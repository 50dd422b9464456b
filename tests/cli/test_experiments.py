"""`divkd experiment`: runs are whole, grow, take another run's teachers, and stand in everything that shows runs."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import refused
from training_runs import arrays

from divkd.cli.main import run
from divkd.report.figures.kept import shares
from divkd.report.swept import gather
from divkd.shared.files import read_json
from divkd.shared.kinds import ANSWERS

pytestmark = pytest.mark.usefixtures("coarse_figures_throughout")
SMALL = "digits --train-images 40 --epochs 2 --network resnet8w4 --device cpu"
TINY = f"{SMALL} --members 2"
MYSTERIES, OVER = f"experiment mysteries {TINY}", f"experiment ensemble-over-kd {TINY}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of one seed and two teachers: the mysteries, and one student of the ensemble."""
    folder = tmp_path_factory.mktemp("experiments")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(f"{MYSTERIES} --seeds 0 --out mysteries".split()) == 0
        assert run(f"{OVER} --seeds 0 --students 1 --out over".split()) == 0
    return folder


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)


def results(name):
    return read_json(Path(name) / "results.json")


def rows(name, **of):
    """The rows of a run of that kind."""
    found = results(name)["rows"]
    return [row for row in found if all(row[key] == value for key, value in of.items())]


def scores(row):
    return {key: value for key, value in row.items() if key not in ("model", "networks", "number")}


def test_every_answer_has_its_rows(folder):
    counts = {"network": 2, **dict.fromkeys(ANSWERS, 1)}
    counts |= {"network": 2}
    for row in rows("mysteries"):
        counts[row["model"]] -= 1
    assert {model for model, left in counts.items() if left} == {"ensemble_over_kd"}
    networks = {row["model"]: row["networks"] for row in rows("mysteries")}
    assert {model for model, count in networks.items() if count == 2} == {"ensemble", "pair"}
    # of two networks, the pair is the ensemble
    assert scores(rows("mysteries", model="pair")[0]) == scores(rows("mysteries", model="ensemble")[0])
    assert (folder / "mysteries/figures/answers.png").is_file()


def test_the_ensemble_of_one_student_is_the_student_and_that_of_the_mysteries():
    (one,), (both,) = rows("over", model="distilled"), rows("over", model="ensemble_over_kd")
    assert scores(one) == scores(both)
    assert scores(one) == scores(rows("mysteries", model="distilled")[0])


def test_more_seeds_members_and_students_are_added():
    grown = "--seeds 0,1 --members 3"
    shutil.copytree("mysteries", "grown")
    for name, resume in (("grown", "--resume"), ("fresh", "")):
        line = f"experiment mysteries {SMALL} {grown} --out {name} {resume}"
        assert run(line.split()) == 0
    assert rows("grown") == rows("fresh")
    assert {row["seed"] for row in rows("grown")} == {0, 1}
    assert len(rows("grown", model="network", seed=1)) == 3
    shutil.copytree("over", "more")
    assert run(f"{OVER} --seeds 0 --students 2 --out more --resume".split()) == 0
    assert rows("more", model="distilled")[0] == rows("over", model="distilled")[0]
    assert len(rows("more", model="distilled")) == 2
    assert rows("more", model="ensemble_over_kd")[0]["networks"] == 2


def test_teachers_of_a_training_run_are_the_ones_that_would_be_trained(folder, capsys):
    line = f"train {TINY} --ladder 2 --method kd --student single --seeds 0 --out teachers"
    assert run(line.split()) == 0
    for name, line in (("mysteries", MYSTERIES), ("over", f"{OVER} --students 1")):
        assert run(f"{line} --seeds 0 --teachers teachers --out {name}-taught".split()) == 0
        assert rows(f"{name}-taught") == rows(name)
        assert not any("teacher" in file for file in arrays(folder / f"{name}-taught"))
    # a student by kd of `train` is the distilled one
    single = next(row for row in rows("teachers") if row["model"] == "single")
    assert rows("mysteries", model="distilled")[0]["cal_nll"] == single["cal_nll"]
    other = f"{MYSTERIES} --teachers teachers --out x".replace("resnet8w4", "resnet14")
    refused(other, "resnet14", "give --network resnet8w4", flushed(capsys), folder)
    refused(f"{MYSTERIES} --teachers teachers --members 3 --out x".replace("--members 2 ", ""), "teacher2",
            "ask for less", capsys, folder)  # fmt: skip
    refused(f"{MYSTERIES} --teachers teachers --train-images 38 --out x".replace("--train-images 40 ", ""),
            "other images", "same data", capsys, folder)  # fmt: skip


def flushed(capsys):
    capsys.readouterr()
    return capsys


@pytest.mark.parametrize(
    ("line", "value", "mend"),
    [
        ("experiment mysteries", "DATA is missing", "digits"),
        ("experiment mysteries digits --label-share 1.5", "--label-share 1.5", "from 0 to 1"),
        ("experiment mysteries digits --temperature 0", "--temperature 0", "above 0"),
        ("experiment mysteries digits --kd-weight -1", "--kd-weight -1", "from 0 to 1"),
        ("experiment mysteries digits --network resnet9", "unknown network 'resnet9'", "resnet32"),
        ("experiment mysteries digits --preset nam2021", "unknown preset 'nam2021'", "allenzhu2020"),
        ("experiment mysteries digits --contrast 0.5", "--contrast 0.5", "data set views"),
        ("experiment mysteries digits --students 3", "--students", "option"),
        ("experiment mysteries nowhere/", "there is no nowhere/", "a folder of images"),
        ("experiment mysteries digits --teachers mysteries", "--teachers mysteries", "no run of divkd train"),
        ("experiment mysteries --config over/config.json", "experiment ensemble-over-kd", "give one of its own"),
        ("experiment ensemble-over-kd digits --students 0", "--students 0", "from 1 to 64"),
        ("experiment ensemble-over-kd digits --label-share 0.5", "--label-share", "option"),
        ("experiment mystery digits", "mystery", "mysteries"),
    ],
)
def test_bad_input_is_one_line(line, value, mend, capsys, folder):
    if line == "experiment mysteries":
        line += " --seeds 0"  # alone it is a question
    refused(line, value, mend, capsys, folder)


def test_help_is_whole_and_loads_nothing_heavy():
    heavy = "{'torch', 'torchvision', 'numba', 'numpy', 'matplotlib', 'sklearn', 'scipy'}"
    lines = [["experiment", "--help"], ["experiment", "mysteries", "--help"], ["experiment", "ensemble-over-kd", "-h"]]
    code = f"import sys; from divkd.cli.main import run; [run(line) for line in {lines}]; "
    code += f"print('loaded', {heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("loaded set()\n")
    assert "allenzhu2020-cifar100-wrn28x10" in done.stdout


def test_a_dry_run_says_what_it_takes_and_a_configuration_is_repeated(capsys):
    assert run(f"{MYSTERIES} --dry-run".split()) == 0
    said = capsys.readouterr().out
    assert "7 networks are trained; 2 epochs on 40 images" in said  # two, their average, four students
    assert "time: about" in said
    assert run("experiment mysteries --config mysteries/config.json --print-config".split()) == 0
    assert json.loads(capsys.readouterr().out)["config"] == read_json(Path("mysteries/config.json"))["config"]


def test_a_page_and_a_figure_are_made_of_them(capsys):
    assert run("report mysteries over --out page.html --overwrite".split()) == 0
    said = capsys.readouterr().out
    assert "has 0." in said
    page = Path("page.html").read_text(encoding="utf-8")
    for words in (ANSWERS["average"], "experiment mysteries", "trained as an average", "arXiv:2012.09816"):
        assert words in page
    shutil.copytree("mysteries", "copy", dirs_exist_ok=True)
    assert run("report mysteries copy --out two.html --overwrite".split()) == 0
    assert "accuracy side by side" in Path("two.html").read_text(encoding="utf-8")
    assert run("figures mysteries over --out shown".split()) == 0
    drawn = [name for name in ("mysteries", "over") if shares(results(name))]
    captions = Path("shown/captions.md").read_text(encoding="utf-8") if drawn else ""
    assert all(f"{name} (" in captions for name in drawn)


def test_a_sweep_knows_the_rows_and_trains_what_learns_from_labels_once(folder, capsys):
    line = f"sweep --vary temperature=1,4 --out sweep -- {MYSTERIES} --seeds 0"
    assert run(line.replace("sweep", "sweep --dry-run", 1).split()) == 0
    assert "3 of them are those of temperature=1" in capsys.readouterr().out  # two networks and their average
    assert run(line.split()) == 0
    said = capsys.readouterr().out
    assert ANSWERS["distilled"] in said
    found = results("sweep")
    assert found["measure"] == "acc"
    own = gather(results("sweep/temperature=4"))
    assert [{"cell": "temperature=4", **row} for row in own] == [
        row for row in found["rows"] if row["cell"] == "temperature=4"
    ]
    (network,) = [row for row in own if row["model"] == "network"]
    each = [row["acc"] for row in rows("sweep/temperature=4", model="network")]
    assert network["acc"] == pytest.approx(sum(each) / 2)
    lines = list(csv.DictReader(io.StringIO(Path("sweep/sweep.csv").read_text(encoding="utf-8"))))
    assert len(lines) == 2 * 8  # cells, answers
    assert {line["members"] for line in lines if line["model"] == "ensemble"} == {"2"}
    assert "number" not in lines[0]
    again = {row["model"]: row["acc"] for row in own if row["seed"] == 0}
    assert again["distilled"] == rows("mysteries", model="distilled")[0]["acc"]
