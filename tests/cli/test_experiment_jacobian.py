"""`divkd experiment jacobian`: a run is whole and grows, and bad input is one line."""

import shutil
from pathlib import Path

import pytest
from refusals import refused

from divkd.cli.main import run
from divkd.empirical.experiments.config import JACOBIAN
from divkd.shared.files import read_json
from divkd.shared.kinds import MATCHED, MOVES

pytestmark = pytest.mark.usefixtures("coarse_figures_throughout")
TINY = "experiment jacobian digits --train-images 40 --epochs 1 --members 2 --network resnet8w4 --device cpu --images 2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of one seed, two teachers, and the Gaussian steps of one size."""
    folder = tmp_path_factory.mktemp("jacobian")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(f"{TINY} --seeds 0 --sizes 1 --step gaussian --out small".split()) == 0
    return folder


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)


def results(name):
    return read_json(Path(name) / "results.json")


def test_every_network_has_its_row_and_its_taylor_terms(capsys):
    found = results("small")
    assert {row["model"] for row in found["rows"]} == set(MATCHED)
    assert {(row["model"], row["split"], row["along"]) for row in found["taylor_rows"]} == {
        *((model, split, "gaussian") for model in ("network", "kd", "noisy", "penalty") for split in ("train", "test")),
        ("kd", "train", "clipped"), ("kd", "test", "clipped"),
    }  # fmt: skip
    assert {row["student"] for row in found["taylor"]} == {"", "single"}  # no term has taken its place
    assert [row["against_model"] for row in found["differences"]] == ["penalty", "kd", "kd"]
    assert {path.name for path in Path("small/figures").iterdir()} == {"taylor.png", "matching.png"}
    assert run("report small --out page.html --overwrite".split()) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert MATCHED["penalty"] in page
    assert MOVES["clipped"] in page


@pytest.mark.slow
def test_more_steps_and_students_are_added_and_what_was_there_stays():
    shutil.copytree("small", "grown")
    more = f"{TINY} --seeds 0 --sizes 1 --step gaussian --step ods --student single --student batch_ensemble"
    assert run(f"{more} --out grown --resume".split()) == 0
    before, after = results("small")["rows"], results("grown")["rows"]
    assert [row for row in after if row["student"] != "batch_ensemble" and row["step"] != "ods"] == before
    kinds = {(row["student"], row["model"], row["step"]) for row in after}
    assert {("batch_ensemble", "penalty", "ods"), ("single", "noisy", "ods"), ("batch_ensemble", "kd", "")} <= kinds
    names, found = ("student", "model", "split", "along"), results("grown")["taylor"]
    (line,) = [row for row in found if [row[name] for name in names] == ["single", "kd", "test", "ods"]]
    assert len(line["ratio"]) == len(line["matched"]) == len(results("grown")["measured"])


@pytest.mark.parametrize(
    ("line", "value", "mend"),
    [
        ("--step-size 0", "--step-size 0", "above 0"),
        ("--sizes 5", "--sizes 5 makes steps of 2.01", "fewer sizes"),
        ("--sizes 0", "--sizes 0", "from 1 to 8"),
        ("--step sideways", "sideways", "gaussian"),
        ("--student twin", "twin", "single"),
        ("--images 0", "--images 0", "from 1"),
        ("--compile on", "--compile on", "give off or auto"),
        ("--precision bfloat16", "--precision bfloat16", "give float32"),
        ("--precision auto", "--precision auto", "give float32"),
        ("--preset allenzhu2020-cifar100-wrn28x10", "allenzhu2020", "smoke"),
    ],
)
def test_bad_input_is_one_line(line, value, mend, capsys, folder):
    refused(f"experiment jacobian digits {line}", value, mend, capsys, folder)


def test_every_preset_is_of_a_precision_that_has_a_forward_mode():
    assert {one.precision for one in JACOBIAN.values()} == {"float32"}
