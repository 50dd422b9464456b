"""The tables of the manual are those of the committed runs."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from divkd.report.figures.kept import shares
from divkd.report.words import difference, equivalent, learned
from divkd.shared.kinds import ANSWERS, MATCHED, METHODS, MODELS, MOVES, PARTS
from divkd.shared.stats import show

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RUNS = sorted(path.parent for path in (DOCS / "results").glob("*/results.json"))


def results_of(name: str) -> dict:
    return json.loads((DOCS / "results" / name / "results.json").read_text(encoding="utf-8"))


def page_of(name: str) -> str:
    return (DOCS / "results" / name / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", RUNS, ids=[folder.name for folder in RUNS])
def test_a_committed_run_has_a_page(folder):
    """It says what made the run, shows its figures, leads to its files, and can be found."""
    text = page_of(folder.name)
    assert text.startswith(f"# {folder.name}: ")
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    trained = f"train {content['config'].get('dataset')}"
    assert f"`divkd {content['command'].replace('train cifar', trained)}" in text
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


@pytest.mark.parametrize(
    "name", ["multiview-ablations", "multiview-gamma", "multiview-grid", "multiview-views", "multiview-window"]
)
def test_the_cells_that_a_page_prints_are_those_of_its_run(name):
    text, results = page_of(name), results_of(name)
    for row in results["cells"]:
        values = [row["errors"].get(key) for key in ERRORS] + [row["views"].get(key) for key in SHARES]
        shown = ["" if value is None else show(value) for value in values]
        if row["failed"] is not None:
            shown = ["none", *[""] * (len(values) - 1)]
            assert f"{row['name']}: {row['failed']}" in text
        assert f"| {row['name']} | {' | '.join(shown)} |" in text


@pytest.mark.parametrize("run", ["views", "views/self", "views/labels"])
def test_the_views_that_a_page_prints_are_those_of_its_runs(run):
    for row in results_of(run)["views"]["summary"]:
        cells = [str(row["networks"]), *(show(row[key]) for key in ("missed", "weaker", "stronger"))]
        assert f"| {' | '.join(cells)} |" in page_of("views")


@pytest.mark.parametrize("page", ["results/multiview-views/README.md", "theory.md"])
def test_the_ensembles_of_v_views_that_a_page_prints_are_those_of_the_run(page):
    rows = table((DOCS / page).read_text(encoding="utf-8"), "views of a class")
    for (views, *cells), cell in zip(rows, results_of("multiview-views")["cells"], strict=True):
        assert int(views) == cell["changes"]["views"]
        for members, shown in zip(("1", "2", "5", "10"), cells, strict=True):
            foreseen = cell["predicted"][members]["mean"], (1 - 1 / int(views)) ** int(members)
            expected = f"{show(cell['members'][members])} ({foreseen[0]:.3f}, {foreseen[1]:.3f})"
            assert shown == expected


def test_what_a_page_says_of_students_is_that_of_its_run():
    page, names = page_of("theory-students"), {**MODELS, "deep_ensemble": "teachers"}
    for row in results_of("theory-students")["summary"]:
        who = f"{names[row['model']]} | {learned(row['method'])}"
        keys = ("known_own", "known_rest", "apart", "alone_error", "error", "cal_nll", "pairwise_kl", "disagreement")
        assert f"| {who} | {' | '.join(show(row[key]) for key in keys)} |" in page


def test_the_jacobians_that_a_page_prints_are_those_of_its_run():
    page, results = page_of("jacobian"), results_of("jacobian")

    def of(row, prefix=""):
        size = f"{row[f'{prefix}times'] * results['step_size']:.3g}" if row[f"{prefix}times"] else ""
        return [MATCHED[row[f"{prefix}model"]], MOVES.get(row[f"{prefix}step"], ""), size]

    keys = ("acc", "cal_nll", "test_cosine", "test_norm", "test_distance", "train_distance")
    for row in results["summary"]:
        cells = [show(row[key]) if key in row else "" for key in keys]
        assert f"| {' | '.join([*of(row), *cells])} |" in page
    for row in results["differences"]:
        if row["against_model"] == "penalty":
            cells = [difference(row[key]) for key in ("acc", "cal_nll", "test_cosine", "test_distance")]
            assert f"| {' | '.join([*of(row)[1:], *cells])} |" in page
    for row in results["taylor"]:
        if row["model"] == "kd":
            share = row["jacobian"]["mean"] / row["second"]["mean"]
            cells = [row["split"], MOVES[row["along"]], f"{share:.2f}", *(show(one, 2) for one in row["ratio"])]
            assert f"| {' | '.join(cells)} |" in page


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


@pytest.mark.parametrize("name", ["mysteries", "ensemble-over-kd"])
def test_the_answers_that_a_page_prints_are_those_of_its_run(name):
    """Each row of the summary, each paired difference, and what is kept of the ensemble's gain, by mean and by seed."""
    page, results = page_of(name), results_of(name)
    for row in results["summary"]:
        cells = [
            ANSWERS[row["model"]],
            str(row["networks"]),
            *(show(row[key]) for key in ("acc", "cal_nll", "train_acc")),
        ]
        assert f"| {' | '.join(cells)} |" in page
    for row in results["differences"]:
        cells = [
            ANSWERS[row["model"]],
            ANSWERS[row["against_model"]],
            *(difference(row[key]) for key in ("acc", "cal_nll")),
        ]
        assert f"| {' | '.join(cells)} |" in page
    found = shares(results)
    for line, mean, seeds in table(page, "answer | of the gain"):
        assert float(mean) == pytest.approx(found[line].mean, abs=0.0051)
        assert [float(part) for part in seeds.split(", ")] == pytest.approx(found[line].seeds, abs=0.0051)


def test_the_parts_of_layers_that_a_page_prints_are_those_of_its_run():
    page, results = page_of("split-channels"), results_of("split-channels")
    for row in results["summary"]:
        place = ["", ""] if row["cut"] is None else [row["cut"], f"1/{row['split']}"]
        cells = [PARTS[row["model"]], *place, *(show(row[key]) for key in ("acc", "cal_nll", "train_acc"))]
        assert f"| {' | '.join(cells)} |" in page
    for row in results["differences"]:
        other = PARTS[row["against_model"]] + ("" if row["against_split"] == row["split"] else ", 1/1")
        cells = [PARTS[row["model"]], row["cut"], f"1/{row['split']}", other, difference(row["acc"])]
        assert f"| {' | '.join(cells)} |" in page
    for row in results["growth"]:
        assert f"| {row['cut']} | 1/{row['split']} | {difference(row['acc'])} |" in page


@pytest.mark.parametrize("run", ["feature-map", "feature-map/views"])
def test_the_maps_that_a_page_prints_are_those_of_its_runs(run):
    page, results = page_of("feature-map"), results_of(run)
    place = ["feature-map", "feature-map/views"].index(run)
    for key in ("between", "with_others", "with_ensemble", "other_image", "purity", "purity_chance"):
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{key}`")]
        assert line.strip("|").split("|")[1 + place].strip() == show(results["summary"][key])
    for key in ("learned", "missed", "own", "others", "rest") if "views" in results else ():
        known = results["views"]["summary"]
        shown = [show(known[name]) if name in known else "" for name in (key, f"ensemble_{key}")]
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{key}`")]
        assert [cell.strip() for cell in line.strip("|").split("|")[1:]] == shown
