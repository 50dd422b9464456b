"""``divkd report``: one file, its numbers those of results.json, nothing fetched, everything escaped; looked at."""

import itertools
import json
from pathlib import Path

import pytest
from refusals import refused
from report_pages import COMMITTED, Page, changed, read, report

from divkd.cli.main import run
from divkd.report import page
from divkd.report.commands import REPORTS
from divkd.report.words import learned
from divkd.shared.stats import show

RUNS = sorted(path.parent for path in COMMITTED.glob("*/results.json"))


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def undrawn(monkeypatch):
    """Without figures, which take the time."""
    monkeypatch.setattr(page, "figures", lambda run: [])
    monkeypatch.setattr(page, "theory_beside_practice", lambda *_: None)


def check_structure(found: Page) -> None:
    """One language, one title, no address but anchors that exist and data, unique ids, headings that skip nothing."""
    assert found.named("html") == [{"lang": "en"}]
    assert len(found.named("title")) == len(found.named("h1")) == 1
    assert not found.named("script")
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in found.elements:
        assert not [key for key in attributes if key.startswith("on")]
        address = attributes.get("src") or attributes.get("href")
        if address:
            assert address.startswith("data:") or address[1:] in ids, address[:80]
        for key in ("aria-labelledby", "aria-describedby"):
            assert key not in attributes or attributes[key] in ids
    assert all(image["alt"] and image["src"].startswith("data:image/png") for image in found.named("img"))
    assert all(cell["scope"] in ("col", "row") for cell in found.named("th"))
    levels = [int(tag[1]) for tag, _ in found.elements if tag in ("h1", "h2", "h3", "h4")]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    for table in found.tables:
        assert len({len(line) for line in table}) == 1  # no line is shorter than its headings


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_every_committed_run_has_a_page(folder, undrawn):
    found = report(folder)
    check_structure(found)
    results, config = read(folder), json.loads((folder / "config.json").read_text())
    text = " ".join(found.text)
    own = {"analyse": "analyse runs/cifar10", "sweep": "sweep --vary"}  # the commands that take no --config
    again = own.get(results["command"], f"{results['command']} --config {folder}")
    assert f"divkd {again}" in text
    assert config["git_revision"] in text
    assert config["device"] in text
    assert all(name in text for name in config["config"])
    assert results.get("preset", "") in text
    assert f"(n = {len(results['seeds'])})" in text


def test_a_training_runs_numbers_are_those_of_its_results(undrawn):
    folder = COMMITTED / "cifar10-cpu"
    (table, *_) = report(folder).tables
    results = read(folder)
    for line, row in zip(table[1:], results["summary"], strict=True):
        cells = dict(zip(table[0], line, strict=True))
        assert (cells["method"], cells["M"]) == (learned(row["method"]), str(row["members"]))
        for name, key, digits in (("accuracy", "acc", 3), ("calibrated NLL", "cal_nll", 3), ("ECE", "ece", 4)):
            assert cells[name] == show(row[key], digits)
        assert cells["seeds"] == str(row["acc"]["n"])
        assert cells["parameters"].replace(",", "") == f"{row['params']['mean']:.0f}"


def test_what_was_seen_comes_first_and_is_printed_last(undrawn, capsys):
    folder = COMMITTED / "cifar10-cpu-long"
    text = " ".join(report(folder).text)
    out = " ".join(capsys.readouterr().out.split())
    results = read(folder)
    one, four = (
        next(row for row in results["summary"] if (row["model"], row["members"]) == ("deep_ensemble", members))
        for members in (1, 4)
    )
    for row in (one, four):
        assert show(row["acc"]) in out
        assert show(row["cal_nll"]) in out
    sentences = REPORTS["train cifar"].summary(results)
    assert sum("do not differ measurably" in sentence for sentence in sentences) == 3  # as its README has it
    for sentence in sentences:
        assert sentence in out
        assert text.index(sentence) < text.index("Tables")
    assert out.split()[-5:-1] == ["page.html:", "1", "run,", "0.0"]


def test_a_difference_that_can_be_told_is_told_and_one_seed_tells_none(undrawn):
    results = read(COMMITTED / "cifar10-cpu-long")
    kind = ("batch_ensemble", "single", "kd")
    for row in results["differences"]:
        if (row["model"], row["against_model"], row["method"]) == kind:
            row["cal_nll"] |= {"mean": -0.05, "low": -0.07, "high": -0.03}
    told = " ".join(REPORTS["train cifar"].summary(results))
    assert "differ: KD -0.050 (-0.070 to -0.030), and not measurably: labels, ODS (first minus second" in told
    for row in results["differences"]:
        row["cal_nll"] |= {"low": None, "high": None}
    assert "one seed cannot tell that from chance" in " ".join(REPORTS["train cifar"].summary(results))
    results["teacher_diversity"][1]["void"] = True
    assert "Teachers of seed 1 do not fit" in " ".join(REPORTS["train cifar"].summary(results))


def test_a_simulations_numbers_are_those_of_its_results(undrawn):
    folder = COMMITTED / "multiview-q4"
    (table, members, *_) = report(folder).tables
    claims = read(folder)["claims"]
    lines = {line[0].strip(): dict(zip(table[0], line, strict=True)) for line in table[1:]}
    assert len(lines) == len(claims)
    single, lost = lines["1 single network"], lines["3 distilled, clipped rule"]
    assert single["single-view test error"] == show(claims["single"]["single_view_error"])
    assert single["predicted here"] == f"{claims['single']['predicted']:.3f}"
    assert single["bound"] == "theorem: 0.49 to 0.51"
    for verdict, whether in (("within it?", "no"), ("as predicted?", "yes"), ("accepted?", "yes")):
        assert (single[verdict], lost[verdict]) == (whether, "no")  # what did not hold is said as plainly
    assert len(members) == 1 + len(claims["ensemble"]["by_members"])


def test_runs_of_a_command_stand_side_by_side(undrawn):
    names = ("multiview-default", "multiview-q4", "multiview-toy")
    found = report(*(COMMITTED / name for name in names))
    check_structure(found)
    differ, claims = found.tables[:2]
    assert differ[0] == ["field", *names]
    power = next(line for line in differ if line[0] == "power")
    assert power == ["power", "3", "4", "3"]
    runs = [read(COMMITTED / name) for name in names]
    single = next(line for line in claims if line[0] == "1 single network")
    for cell, results in zip(single[1:], runs, strict=True):
        assert cell.startswith(show(results["claims"]["single"]["single_view_error"]))
    joint = next(line for line in claims if line[0].strip() == "trained jointly, outputs summed")
    assert joint[3] == ""  # the toy has no such claim

    def better(results):
        results["summary"][0]["acc"] = {"mean": 0.75, "std": 0.5, "n": 2}

    cifar = COMMITTED / "cifar10-cpu"
    changed(cifar, Path("other"), better)
    found = report(cifar, "other", "--overwrite")
    check_structure(found)
    accuracy = next(table for table in found.tables if table[0][-1] == "other (n = 3)")
    assert accuracy[1] == ["deep ensemble", "labels", "1", show(read(cifar)["summary"][0]["acc"]), "0.750 ± 0.500"]


def test_folders_of_the_same_name_are_told_apart_and_a_run_needs_no_config(undrawn):
    for parent in ("a", "b"):
        Path(parent).mkdir()
        changed(COMMITTED / "multiview-toy", Path(parent, "same"), lambda results: None)
    Path("b/same/config.json").unlink()
    found = report("a/same", "b/same", "--title", "Two & one")
    check_structure(found)
    text = " ".join(found.text)
    assert "Two & one" in text
    assert "a/same" in text
    assert "not recorded" in text
    assert "--preset toy --seeds 0,1,2,3,4" in text


def test_figures_are_drawn_from_the_numbers_and_lie_in_the_file():
    for name, change in (("multiview-toy", None), ("cifar10-cpu", None), ("multiview-ablations", None)):
        changed(COMMITTED / name, Path(name), change or (lambda results: None))
    found = report("multiview-toy", "cifar10-cpu", "multiview-ablations")
    check_structure(found)
    text = " ".join(found.text)
    for name, count in (("multiview-toy", 6), ("cifar10-cpu", 3), ("multiview-ablations", 1)):
        assert text.count(f"Drawn from {name}/results.json") == count
    assert len(found.named("img")) == 6 + 3 + 1 + 1  # and theory beside practice
    assert "n = 5 seeds" in text
    assert sorted(Path().iterdir()) == sorted(map(Path, ("multiview-toy", "cifar10-cpu", "multiview-ablations",
                                                         "page.html")))  # fmt: skip


def test_what_a_file_says_is_text_and_no_page(undrawn):
    bad = "<script>alert(1)</script>\"'&amp;"

    def training(results):
        results["dataset"] = results["network"] = bad
        results["summary"][-1]["method"] = bad

    def cells(results):
        results["cells"][0]["failed"] = results["cells"][1]["name"] = bad

    runs = [changed(COMMITTED / "cifar10-cpu", Path("<b>run"), training)]
    runs.append(changed(COMMITTED / "multiview-window", Path("window"), cells))
    found = report(*runs, "--title", bad)
    check_structure(found)  # no script
    assert "".join(found.text).count(bad) > 5
    assert "<b>run" in "".join(found.text)
    assert {"b", "script"}.isdisjoint(tag for tag, _ in found.elements)


def test_an_analysis_and_an_evaluation_have_pages(undrawn):
    """Their smallest results.json, with every part; the numbers come out."""
    score = {"auroc": 0.811, "aupr": 0.7, "fpr95": 0.3}
    judged = {"acc": 0.9, "nll": 0.3, "cal_nll": 0.25, "cal_ece": 0.02}
    steps = {"clean": 0.1, "own": 0.4, "sibling": 0.3, "external": 0.2}
    moved = {kind: {"pairwise_kl": 0.123} for kind in ("clean", "gaussian", "ods", "confods")}
    grid = {metric: {"fog": [0.5, 0.4]} for metric in ("acc", "nll", "ece", "cal_nll", "cal_ece")}
    ratio = {"median": 2.5, "quartiles": [2.0, 3.0], "n": 15}
    cosines = {"own": 0.6, "other": None, "teachers": 0.5, "n": 10}
    row = {
        "model": "batch_ensemble", "method": "ods", "members": 3, "seed": 0, "corruptions": grid,
        "ood": {"test": {}, "<i>x": {"scores": {"entropy": score}}}, "shift": {"test": judged, "mirror": judged},
        "diversity": {"train": moved, "test": moved}, "transfer": {"train": steps, "test": steps},
        "gradients": {"train": cosines, "test": cosines},
    }  # fmt: skip
    published = {"model": "deep_ensemble", "method": "none", "members": 4, "network": "resnet32", "measured": None}
    analysis = {
        "command": "analyse", "preset": "smoke", "dataset": "digits", "network": "resnet8", "members": 3, "seeds": [0],
        "images": 100, "rows": [row], "sets": [{"name": "<i>x", "use": "ood"}, {"name": "mirror", "use": "shift"}],
        "corruptions": {"source": "own generator", "kinds": ["fog"], "n": 100}, "published": [
            published | {key: {"mean": 0.9407, "std": None} for key in ("acc", "cal_nll", "cal_brier", "cal_ece")}
        ],
        "training_cost": [{"model": "batch_ensemble", "method": "ods", "passes": 23, "batch": 32, "peak_bytes": 1000}],
        "inference": [{
            "name": "batch_ensemble", "members": 3, "batch": 8, "device": "cpu: x", "threads": 1, "macs_ratio": 3.0,
            "weight_bytes_ratio": 1.02, "peak_activation_bytes_ratio": 3.06, "latency_s_ratio": ratio,
            "images_per_s_ratio": ratio,
        }],
    }  # fmt: skip
    evaluation = {
        "command": "evaluate", "file": "mine.npz", "members": 2, "samples": 50, "classes": 3, "validation_samples": 0,
        "ood_samples": 9, "acc": 0.81, "nll": None, "seeds": [7], "ood": {"entropy": score},
        "intervals": {"level": 0.95, "resamples": 20, "acc": [0.7, 0.9], "ood": {"entropy": {"auroc": [0.75, 0.85]}}},
    }  # fmt: skip
    for name, results in (("analysis", analysis), ("mine", evaluation)):
        Path(name).mkdir()
        Path(name, "results.json").write_text(json.dumps(results))
    found = report("analysis", "mine")
    check_structure(found)
    lines, text = found.lines(), " ".join(found.text)
    network = ["BatchEnsemble", "ods", "3"]
    assert [*network, "0.811"] in lines
    assert [*network, *["0.123"] * 8] in lines
    assert [*network, *["0.600", "", "0.500"] * 2] in lines
    assert ["BatchEnsemble", "3", "1.02", "3.00", "3.06", "2.50 (2.00 to 3.00)", "2.50 (2.00 to 3.00)", "15"] in lines
    assert any("published" in line and "0.941" in line for line in lines)
    assert ["accuracy", "0.8100", "[0.7000, 0.9000]"] in lines
    assert ["NLL, nats", "not finite", ""] in lines
    assert "divkd evaluate mine.npz --bootstrap 20 --seed 7" in text
    assert "<i>x: entropy" in text


def prepare():
    """Folders that are no runs, or no whole ones."""
    contents = {
        "unknown": '{"command": "train mnist"}', "listed": "[1, 2]", "damaged": '{"command": ',
        "half": '{"command": "train cifar", "dataset": "digits"}', "shallow": '{"command": "simulate multiview"}',
        "wrong": '{"command": "evaluate", "members": "two"}', "mixed": '{"command": "evaluate"}',
        "odd": '{"command": "analyse", "rows": [1]}', "rowless": '{"command": "analyse", "rows": []}',
        "worded": '{"command": "train cifar", "networks": [{"acc": 0.5}, {"acc": "x"}]}',
        "hollow": '{"command": "train cifar", "networks": [{"acc": []}]}',
        "nothing": None, "typed": '{"command": ["evaluate"]}',
    }  # fmt: skip
    for name, content in contents.items():
        Path(name).mkdir()
        if content is not None:
            Path(name, "results.json").write_text(content)
    Path("mixed/config.json").write_text('{"command": "train cifar", "config": {}}')
    Path("odd/config.json").write_text('{"command": "analyse", "config": 3}')
    changed(COMMITTED / "multiview-toy", Path("good"), lambda results: None)
    Path("old.html").write_text("an old page")
    Path("folder.html").mkdir()


@pytest.mark.parametrize(
    ("line", "value", "mend"),
    [
        ("", "RUN...", "Missing argument"),
        ("absent", "absent", "results.json"),
        ("old.html", "old.html", "results.json"),
        ("good nothing", "nothing", "results.json"),
        ("good unknown", "'train mnist'", "train cifar"),
        ("typed", "typed/results.json", "runs of"),
        ("listed", "listed/results.json", "runs of"),
        ("damaged", "damaged/results.json", "not valid JSON"),
        ("good half", "half/results.json is incomplete", "--resume"),
        ("shallow", "shallow/results.json is incomplete", "--resume"),
        ("wrong", "wrong/results.json is incomplete", "--resume"),
        ("mixed", "mixed/config.json", "restore"),
        ("odd", "odd/config.json", "restore"),
        ("rowless", "rowless/results.json is damaged: it has no rows", "--resume"),
        ("worded", "worded/results.json is damaged: acc is 'x'", "--resume"),
        ("hollow", "hollow/results.json is damaged: acc is []", "--resume"),
        ("good ./good", "given twice", "once"),
        ("good --out old.html", "old.html", "--overwrite"),
        ("good --out folder.html", "folder.html is a folder", "give a file"),
        ("good --out folder.html --overwrite", "folder.html is a folder", "give a file"),
        ("good --out page.txt", "page.txt", ".html"),
        (f"good --out {300 * 'n'}.html", "name too long", "another name"),
        (300 * "n", "name too long", "a folder"),
        ("good --out old.html/page.html", "old.html/page.html", "write to"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_writes_nothing(undrawn, capsys, line, value, mend):
    prepare()
    refused(f"report {line}", value, mend, capsys, Path())


def test_a_page_is_replaced_whole_and_only_when_asked(undrawn, monkeypatch, capsys):
    prepare()
    assert run("report good --out old.html --overwrite".split()) == 0
    first = Path("old.html").read_bytes()
    assert run("report good --out new/page.htm".split()) == 0
    assert Path("new/page.htm").read_bytes() == first  # the same runs give the same bytes
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert run("report good --out old.html --overwrite --title other".split()) == 2
    assert "No space left" in capsys.readouterr().err
    assert Path("old.html").read_bytes() == first
    assert not list(Path().glob(".*.part"))
