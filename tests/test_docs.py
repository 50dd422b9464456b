"""The how-tos are run as they stand, and the pages of the manual are read as they are meant."""

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

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("figures_undrawn")

DOCS = ROOT / "docs"
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
