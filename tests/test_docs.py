"""The how-tos are run as they stand, and the tables of the manual are those of the committed runs."""

import dataclasses
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import divkd
from divkd.cli.main import run
from divkd.empirical.training import config as training
from divkd.report.words import equivalent
from divkd.shared.kinds import METHODS
from divkd.shared.stats import show

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("figures_undrawn")

DOCS = ROOT / "docs"
RUNS = sorted(path.parent for path in (DOCS / "results").glob("*/results.json"))
USE = DOCS / "use.md"
HOWTO = DOCS / "evaluate.md"
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", HOWTO.read_text(encoding="utf-8"), re.M | re.S))


def code(section: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", SECTIONS[section], re.S)
    return block


@pytest.mark.parametrize(("section", "members"), [("From scikit-learn", 4), ("From PyTorch", 3), ("From JAX", 3)])
def test_arrays_of_a_framework_are_evaluated(section, members, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if section == "From JAX":
        pytest.importorskip("jax", reason="divkd does without JAX")
    exec(code(section), {})
    assert run("evaluate predictions.npz --out runs/mine".split()) == 0
    assert f"{members} members" in capsys.readouterr().out
    found = json.loads((tmp_path / "runs/mine/results.json").read_text())
    named = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in SECTIONS["What comes out"].splitlines()
                                               if line.startswith("| `"))))  # fmt: skip
    assert named - set(found) <= {"ood", "intervals"}  # every key of the table is there
    if section == "From scikit-learn":
        assert found["acc"] > 0.9
        assert found["ood"]["entropy"]["auroc"] > 0.7
    else:
        assert found["ood_samples"] == 0


def test_python_block_runs(capsys):
    exec(code("In Python"), {})
    assert len(capsys.readouterr().out.split()) == 2


@pytest.fixture
def short_run(tmp_path, monkeypatch):
    """A working folder with images, where `divkd train digits` takes seconds."""
    smoke = training.PRESETS["smoke"]
    short = dataclasses.replace(smoke.teacher, epochs=1)
    changes = {
        "teacher": short,
        "student": short,
        "members": 2,
        "ladder": 0,
        "train_images": 130,
        "methods": ("kd", "ods"),
    }
    monkeypatch.setitem(training.PRESETS, "smoke", dataclasses.replace(smoke, **changes))
    monkeypatch.chdir(tmp_path)
    digits = (load_digits().images[-3:] * 255 / 16).astype(np.uint8)
    (tmp_path / "scans").mkdir()
    for number, image in enumerate(digits):
        Image.fromarray(image).save(tmp_path / f"scans/{number}.png")
    np.savez("images.npz", images=digits[..., None])
    return tmp_path


def test_the_page_on_use_runs_as_it_stands(short_run, capsys):
    """Python blocks and commands of docs/use.md, in order; its students learn, and its last block reads the export."""
    torch.manual_seed(0)
    names = {}
    for kind, block in re.findall(r"```(python|sh)\n(.*?)```", USE.read_text(encoding="utf-8"), re.S):
        if kind == "python":
            exec(re.sub(r"epochs=\d+", "epochs=4", block), names)
            continue
        for line in block.splitlines():
            command, _, file = line.removeprefix("divkd ").partition(" > ")
            capsys.readouterr()
            assert run(command.split()) == 0, line
            if file:
                (short_run / file).write_text(capsys.readouterr().out)
    assert (names["answer"].classes == names["labels"][1200:].numpy()).mean() > 0.9
    wrong = names["answer"].classes != names["labels"][1200:].numpy()
    assert names["answer"].entropy[wrong].mean() > 2 * names["answer"].entropy[~wrong].mean()
    assert 0.05 < names["row"]["temperature"] < 20
    assert names["logits"].shape == (2, 4, 10)
    for file in ("predictions.csv", "calibrated.csv"):
        assert (short_run / file).read_text().startswith("file,class,confidence,entropy,mutual_information\n")
        assert (short_run / file).read_text().count("\n") == 4


def test_the_table_on_distill_names_its_arguments():
    section = USE.read_text(encoding="utf-8").split("## Distill")[1].split("##")[0]
    named = re.findall(
        r"`(\w+)`", "".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `"))
    )
    assert set(named) == set(inspect.signature(divkd.distill).parameters) - {"epochs"}


def test_the_python_of_the_readme_runs():
    """Its lines, on small networks and images."""

    def network():
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))

    names = {
        "images": torch.rand(16, 3, 8, 8),
        "network": network(),
        "teachers": [network() for _ in range(3)],
    }
    names["loader"] = [(names["images"], torch.arange(16) % 4)]
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    exec(block.replace("epochs=30", "epochs=1"), names)
    assert names["answer"].mutual_information.shape == (16,)
    for field in ("classes", "confidence", "entropy"):
        assert len(getattr(names["answer"], field)) == 16


def results_of(name: str) -> dict:
    return json.loads((DOCS / "results" / name / "results.json").read_text(encoding="utf-8"))


def page_of(name: str) -> str:
    return (DOCS / "results" / name / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", RUNS, ids=[folder.name for folder in RUNS])
def test_a_committed_run_has_a_page(folder):
    """It says what made the run, shows its figures, leads to its files, and can be found."""
    text = page_of(folder.name)
    assert text.startswith(f"# {folder.name}: ")
    command = json.loads((folder / "config.json").read_text(encoding="utf-8"))["command"]
    assert f"`divkd {command.replace('train cifar', 'train cifar10')}" in text
    linked = set(re.findall(r"\]\(([^)#]+)\)", text))
    assert {"config.json", "results.json", "../README.md"} <= linked
    assert {f"figures/{path.name}" for path in folder.glob("figures/*.png")} <= linked
    assert f"]({folder.name}/README.md)" in (DOCS / "results/README.md").read_text(encoding="utf-8")
    assert f"results/{folder.name}/README.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", RUNS, ids=[folder.name for folder in RUNS])
def test_a_run_whose_revision_does_not_name_its_code_says_so(folder):
    revision = json.loads((folder / "config.json").read_text(encoding="utf-8"))["git_revision"]
    assert revision.endswith("+changes") == (
        f"**Revision.** `config.json` names {revision[:7]} " in page_of(folder.name)
    )
    overviews = [(DOCS / page).read_text(encoding="utf-8") for page in ("limits.md", "results/README.md")]
    assert not revision.endswith("+changes") or all(text.count(f"{folder.name}/README.md)") for text in overviews)


@pytest.mark.parametrize("name", ["default", "heldout", "20seeds", "large", "q4"])
def test_a_page_says_which_theorem_its_run_misses(name):
    """Of claims 1 to 4: the error, and the end of the bound that it passes, in one sentence."""
    sentences = re.split(r"(?<=[.:])\s|\n\n", re.sub(r"^\|.*$", "", page_of(f"multiview-{name}"), flags=re.M))
    for claim in ("single", "ensemble", "distilled", "self_distilled"):
        value = results_of(f"multiview-{name}")["claims"][claim]
        error, (low, high) = value["single_view_error"], value["bound"]
        if not low <= error["mean"] <= high:
            missed = low if error["mean"] < low else high
            said = [text for text in sentences if show(error) in text]
            assert any(f"{missed:g}" in text and "theorem" in " ".join(text.split()) for text in said), claim


ERRORS = ("single", "ensemble", "distilled", "self_distilled", "labels_only")
SHARES = ("one_view_fraction", "distilled_views", "learned_inside_union", "learned_outside_union")


@pytest.mark.parametrize("name", ["multiview-ablations", "multiview-grid", "multiview-window"])
def test_the_cells_that_a_page_prints_are_those_of_its_run(name):
    text, results = page_of(name), results_of(name)
    for row in results["cells"]:
        values = [row["errors"].get(key) for key in ERRORS] + [row["views"].get(key) for key in SHARES]
        shown = ["" if value is None else show(value) for value in values]
        if row["failed"] is not None:
            shown = ["none", *[""] * (len(values) - 1)]
            assert f"{row['name']}: {row['failed']}" in text
        assert f"| {row['name']} | {' | '.join(shown)} |" in text


@pytest.mark.parametrize("page", ["results/gaussian/README.md", "results/ntk/README.md", "theory/worlds.md"])
def test_the_opposite_worlds_that_a_page_prints_are_those_of_their_runs(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    if "gaussian" in page:
        for cell in results_of("gaussian")["cells"]:
            gain, single = cell["gain"], cell["single_acc"]
            shown = [cell["name"], show(single, 4), show(cell["ensemble_acc"], 4)]
            shown += [f"{gain['mean']:+.4f} ± {gain['se']:.4f}", f"{gain['mean'] / (1 - single['mean']):.2f}"]
            assert f"| {' | '.join([*shown, show(cell['variance_left'][-1])])} |" in text
    else:
        for errors in results_of("ntk")["summary"].values():
            assert f"| {show(errors['multi_view'])} | {show(errors['single_view'])} |" in text
    if "ntk" not in page:
        summary = results_of("gaussian")["summary"]
        assert f"{summary['median_gain']:.4f}" in text
        assert f"{summary['largest']['gain']:.4f}" in text


@pytest.mark.parametrize(
    ("page", "runs"),
    [("theory/claims.md", ("default", "heldout", "20seeds")), ("results/multiview-q4/README.md", ("q4",)),
     ("results/multiview-large/README.md", ("large",)), ("results/multiview-toy/README.md", ("toy",))],
)  # fmt: skip
def test_the_claims_that_a_page_prints_are_those_of_its_runs(page, runs):
    text = (DOCS / page).read_text(encoding="utf-8")
    for name in runs:
        for claim in results_of(f"multiview-{name}")["claims"].values():
            assert f"| {show(claim['single_view_error'])} |" in text


def test_what_the_practices_measures_say_of_the_simulated_is_that_of_the_run():
    rows = results_of("multiview-default")["judged"]["summary"]
    text = (DOCS / "theory/claims.md").read_text(encoding="utf-8").split("<!-- judged -->")[1]
    hard = [row for row in rows if row["samples"] == "single_view"]
    shown = table(text, "| answer")
    for _, answer, *cells in shown:
        pooled = {"one network": "alone"}.get(answer, "probabilities" if answer.endswith("p") else "outputs")
        found = [
            row
            for row in hard
            if row["pooled"] == pooled and [show(row[key]) for key in ("acc", "nll", "cal_nll")] == cells[:3]
        ]
        assert any(cells[3] == (equivalent(row["dee"]) if "dee" in row else "") for row in found)
    for place, of in enumerate(("train", "multi_view", "single_view")):
        one, many = (
            next(r for r in rows if (r["claim"], r["samples"]) == (claim, of)) for claim in ("single", "ensemble")
        )
        expected = [one["acc"], one["nll"], many["nll"], many["pairwise_kl"], many["disagreement"]]
        assert table(text, "the ten members on")[place][1:] == [show(value) for value in expected]


def table(text: str, head: str) -> list[list[str]]:
    """The rows of the table whose head begins with `head`."""
    lines = text[text.index(f"| {head}") :].splitlines()[2:]
    rows = lines[: next((n for n, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


NAMES = {"deep ensemble": "deep_ensemble", "BatchEnsemble": "batch_ensemble", "merged": "merged", "single": "single"}
MEASURES = ("acc", "nll", "cal_nll", "cal_ece", "dee", "pairwise_kl", "train_acc")


def key_of(method: str) -> str:
    """A method by its key in results.json, from what tables call it."""
    return {METHODS["none"]: "none"}.get(method, method)


def row_of(results: dict, model: str, method: str, members: int) -> dict:
    """Its values of the seeds, by measure."""
    rows = [r for r in results["rows"] if (r["model"], r["method"], r["members"]) == (model, method, members)]
    return {key: [row[key] for row in sorted(rows, key=lambda row: row["seed"])] for key in ("acc", "cal_nll")}


@pytest.mark.parametrize(("name", "count"), [("cifar10-cpu", 23), ("cifar10-cpu-long", 9)])
def test_the_networks_that_a_page_prints_are_those_of_its_run(name, count):
    rows = table(page_of(name), "model | method | M |")
    assert len(rows) == count
    summary = {(r["model"], r["method"], r["members"]): r for r in results_of(name)["summary"]}
    for model, method, members, *cells in rows:
        row = summary[NAMES[model], key_of(method), int(members)]
        for key, cell in zip(MEASURES, cells, strict=False):
            assert cell == ("" if row.get(key) is None else show(row[key], 2 if key == "dee" else 3)), (model, key)


@pytest.mark.parametrize("name", ["cifar10-cpu", "cifar10-cpu-long"])
def test_the_differences_that_a_page_prints_are_those_of_its_run(name):
    both = ("model", "method", "against_model", "against_method")
    found = {tuple(d[key] for key in both): d for d in results_of(name)["differences"]}
    for student, minus, *cells in table(page_of(name), "student | minus |"):
        (first, one), (second, two) = student.split(", "), minus.split(", ")
        difference = found[NAMES[first], key_of(one), NAMES[second], key_of(two)]
        for key, cell in zip(("acc", "cal_nll", "pairwise_kl"), cells, strict=True):
            value = difference[key]
            assert cell == f"{value['mean']:+.3f} ({value['low']:+.3f} to {value['high']:+.3f})"


def test_what_students_keep_is_that_of_the_run():
    """(student - one teacher) / (four - one teacher), of means over seeds and by seed."""
    results = results_of("cifar10-cpu-long")
    one, four = (row_of(results, "deep_ensemble", "none", members) for members in (1, 4))
    overview = (DOCS / "results/README.md").read_text(encoding="utf-8")
    rows = table(overview, "student | of the gain")
    assert len(rows) == 6
    for student, *cells in rows:
        model, method = student.split(", ")
        own = row_of(results, NAMES[model], key_of(method), 1 if model == "single" else 4)
        for key, mean, seeds in (("acc", *cells[:2]), ("cal_nll", *cells[2:])):
            gain, kept = np.subtract(four[key], one[key]), np.subtract(own[key], one[key])
            assert float(mean) == pytest.approx(kept.mean() / gain.mean(), abs=0.0051)
            assert [float(part) for part in seeds.split(", ")] == pytest.approx(list(kept / gain), abs=0.0051)


def test_the_readme_tells_what_the_runs_hold():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    claims = results_of("multiview-20seeds")["claims"]
    for name in ("single", "ensemble", "distilled", "distilled_temperature", "distilled_mixed"):
        assert show(claims[name]["single_view_error"]) in text
    results = results_of("cifar10-cpu-long")
    summary = {(r["model"], r["method"], r["members"]): r for r in results["summary"]}
    for key in (("single", "kd", 1), ("deep_ensemble", "none", 1), ("deep_ensemble", "none", 4)):
        assert show(summary[key]["acc"]) in text
    for pair in (("single", "ods", "single", "kd"), ("batch_ensemble", "kd", "single", "kd")):
        both = ("model", "method", "against_model", "against_method")
        (value,) = [d["acc"] for d in results["differences"] if tuple(d[key] for key in both) == pair]
        assert f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:+.3f})" in text


PAGES = [*ROOT.glob("*.md"), *sorted(DOCS.rglob("*.md"))]
TAGS = {"details", "summary"}


@pytest.mark.parametrize("page", PAGES, ids=[path.relative_to(ROOT).as_posix() for path in PAGES])
def test_no_page_has_a_formula_that_is_read_as_a_tag(page):
    """Such as <w, x>: outside of code, nothing but TAGS and comments stands in angle brackets."""
    text = re.sub(r"^```.*?^```|<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = re.sub(r"^    .*$|`[^`]+`", "", text, flags=re.M)
    assert set(re.findall(r"</?([a-zA-Z][^\s>/]*)", text)) <= TAGS


def test_what_start_prints_is_no_wider_than_its_page():
    blocks = re.findall(r"```text\n(.*?)```", (DOCS / "start.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 3
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 130


@pytest.fixture
def typography(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "hooks"))
    import typography

    return typography


@pytest.mark.parametrize("page", PAGES, ids=[path.relative_to(ROOT).as_posix() for path in PAGES])
def test_a_formula_becomes_mathematics(page, typography):
    pytest.importorskip("latex2mathml.converter", reason="only the manual needs it")
    text = page.read_text(encoding="utf-8")
    count = len(re.findall(r"^```math$", text, re.M)) + len(typography.INLINE.findall(text))
    made = typography.on_page_markdown(text)
    assert made.count("<math") == made.count("</math>") == count
    assert not re.search(r"^<math|\\[a-z]+\{", made, re.M)  # a line that begins so is a block; no TeX is left


def test_numbers_and_options_keep_to_a_line_and_blocks_of_code_stay(typography):
    gap = "\N{NO-BREAK SPACE}"
    html = "<td>0.5 ± 0.1</td> <td>0.1, -0.2</td> a 2 % (-0.1 to +0.2) <code>divkd x --data-dir d</code>"
    block = "<pre><code>1 ± 2 --a-b</code></pre>"
    made = typography.on_page_content(html + block)
    assert f"0.5{gap}±{gap}0.1" in made
    assert f"0.1,{gap}-0.2" in made
    assert f"2{gap}% (-0.1{gap}to{gap}+0.2)" in made
    assert '<code>divkd x <span class="word">--data-dir</span> d</code>' in made
    assert made.endswith(block)
