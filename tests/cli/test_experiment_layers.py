"""`divkd experiment split-channels` and `feature-map`: runs are whole, grow, are drawn again, and are refused."""

import shutil

import numpy as np
import pytest
from refusals import refused

from divkd.cli.main import run
from divkd.report.commands import draw
from divkd.shared.files import read_json, unpacked

pytestmark = pytest.mark.usefixtures("coarse_figures_throughout")
SMALL = "digits --train-images 40 --epochs 1 --network resnet8w4 --device cpu --precision float32"
SPLIT = f"experiment split-channels {SMALL}"
MAPS = (
    "experiment feature-map views --classes 3 --test-images 24 --images 12 --members 2 --epochs 1 --train-images 24 "
    "--network resnet8w2 --device cpu --precision float32 --batch-size 12"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, coarse_figures_throughout):
    folder = tmp_path_factory.mktemp("layers")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(f"{SPLIT} --cut b --members 2 --seeds 0 --out split".split()) == 0
        assert run(f"{MAPS} --seeds 0,1 --out maps".split()) == 0
    return folder


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture
def split(folder):
    return read_json(folder / "split/results.json")


def test_every_network_has_its_rows_alone_in_pairs_and_together(split):
    found = [(row["model"], row["cut"], row["split"], row["networks"]) for row in split["rows"]]
    alone = [("part", "b", n, 1) for n in (1, 2) for _ in range(2)]
    assert found[0] == ("network", None, None, 1)
    assert sorted(found[1:]) == sorted([*alone, ("parts", "b", 1, 2), ("parts", "b", 2, 2)])
    assert split["width"] == {"b": 8}


def test_more_cuts_and_members_are_added_to_what_is_there(split, folder):
    shutil.copytree("split", "grown")
    assert run(f"{SPLIT} --members 4 --cut b --cut a --seeds 0 --out grown --resume".split()) == 0
    grown = read_json(folder / "grown/results.json")["rows"]
    before = [row for row in split["rows"] if row["model"] in ("network", "part")]
    assert all(row in grown for row in before)
    assert {(row["cut"], row["split"]) for row in grown if row["cut"]} == {(cut, n) for cut in "ab" for n in (1, 2, 4)}
    pairs = [row["model"] for row in grown if (row["cut"], row["split"]) == ("a", 2) and row["networks"] == 2]
    assert (pairs.count("pair_same"), pairs.count("pair_apart")) == (2, 4)


def test_the_network_that_is_cut_can_be_another_runs(split, folder):
    teachers = f"train {SMALL} --members 1 --ladder 1 --method none --student single --seeds 0 --out teachers"
    assert run(teachers.split()) == 0
    line = f"{SPLIT} --cut b --members 2 --seeds 0 --teachers teachers --out taught"
    assert run(line.split()) == 0
    assert read_json(folder / "taught/results.json")["rows"] == split["rows"]


def test_maps_are_measured_by_seed_and_drawn_of_the_first(folder):
    found = read_json(folder / "maps/results.json")
    assert [row["seed"] for row in found["maps"]] == [0, 1]
    assert found["summary"]["between"]["n"] == 2
    assert [(row["seed"], row["member"]) for row in found["views"]["rows"]] == [
        (seed, member) for seed in (0, 1) for member in (0, 1, None)
    ]
    pictures = found["pictures"]
    assert unpacked(pictures["images"]).shape == (3, 3, 32, 32)  # an image a class
    assert unpacked(pictures["maps"]).shape == (3, 3, 32, 32)  # two networks and their ensemble
    assert np.shape(pictures["probability"]) == (3, 3)
    for channel in pictures["channels"]:
        assert unpacked(channel).shape == (6, 3, 32, 32)
        assert len(channel["peaks"]) == len(channel["labels"]) == 6


def test_figures_and_page_are_made_of_results_alone(folder, tmp_path):
    (path,) = draw(read_json(folder / "split/results.json"), tmp_path)
    assert path.read_bytes() == (folder / "split/figures/split_errors.png").read_bytes()
    names = {path.name for path in (folder / "maps/figures").glob("*.png")}
    assert names == {"saliency.png", "responses.png", "by_view.png"}
    assert run(["report", "split", "maps", "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Published accuracies of split channels" in text
    assert "What channels respond to" in text


@pytest.mark.parametrize(
    ("line", "value", "mend"),
    [
        ("experiment split-channels digits --network resnet18", "resnet18 is not cut", "give resnetD with D = 6n + 2"),
        ("experiment split-channels digits --cut c", "'c'", "a, b"),
        ("experiment split-channels digits --members 1", "--members 1", "give at least 2"),
        ("experiment split-channels digits --network resnet8w3", "3 channels at the cut a", "give an even width"),
        ("experiment feature-map digits --network torchvision:resnet18", "torchvision:resnet18 is not cut", "give"),
        ("experiment feature-map digits --images 3", "--images 3", "from 12"),
        ("experiment feature-map digits --members 1", "--members 1", "give at least 2"),
    ],
)
def test_what_is_not_split_or_mapped_is_refused(line, value, mend, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(line, value, mend, capsys, tmp_path)
