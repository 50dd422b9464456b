"""CONTRIBUTING's recipes, followed: in a copy of the package each kind is added in the files that its recipe names, no
more, and the command line trains, evaluates, tables and draws it like the kinds that were there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import divkd

SOURCE = Path(divkd.__file__).parent

# Of each recipe, what goes into which file: a new file, or (what stands there, what stands there afterwards).
RECIPES = {
    "student kind": {
        "empirical/networks/twins.py": '''"""Students that start alike and share nothing."""

import copy

from torch import nn

from divkd.empirical.networks.ensembles import DeepEnsemble


def to_twins(net: nn.Module, members: int, seed: int) -> DeepEnsemble:
    """M copies of `net`."""
    return DeepEnsemble([copy.deepcopy(net) for _ in range(members)])
''',
        "empirical/training/students.py": [
            ("\n\n@dataclass", "\nfrom divkd.empirical.networks.twins import to_twins\n\n\n@dataclass"),
            ('        Student("single"', '        Student("twins", to_twins, alone=False),\n        Student("single"'),
        ],
        "shared/kinds.py": [('"single": "single network"', '"twins": "identical twins", "single": "single network"')],
    },
    "perturbation": {
        "shared/kinds.py": [('PERTURBATIONS = {"', 'PERTURBATIONS = {"dark": "darker", "')],
        "empirical/training/perturb.py": [
            (
                "PERTURBATIONS = {\n",
                'PERTURBATIONS = {\n    "dark": Perturbation(lambda x, *_: -x, unit=False, passes=0, draws="none"),\n',
            )
        ],
    },
    "metric": {
        "shared/metrics/quality.py": [
            (
                "    return means | {",
                '    means["squared_nll"] = float(scores["nll"].square().mean())\n    return means | {',
            )
        ],
        "report/words.py": [("MEASURES = (\n", 'MEASURES = (\n    Measure("squared_nll", "squared NLL", "nats^2"),\n')],
    },
    "data set": {
        "empirical/data/names.py": [
            ('DataSet("digits", 1, False),', 'DataSet("digits", 1, False), DataSet("odd", 0, False),')
        ],
        "empirical/data/datasets.py": [
            (
                '    "digits": read_digits,\n',
                '    "digits": read_digits,\n    "odd": lambda folder, fetch: replace(read_digits(), name="odd"),\n',
            )
        ],
    },
    "figure": {
        "report/training.py": [
            (
                "FIGURES = (\n",
                """def _empty(results: Results) -> object:
    from divkd.report.style import figure

    return figure()[0]


FIGURES = (
    Figure("empty", _empty, "An empty figure"),
""",
            )
        ],
    },
    "experiment": {
        "empirical/experiments/lone.py": '''"""Single networks, and nothing else."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from divkd.empirical.experiments.experiment import Experiment
from divkd.empirical.experiments.networks import rows, summary, teacher_jobs
from divkd.empirical.training.distillation import teachers_of
from divkd.empirical.training.seed_run import SeedRun
from divkd.empirical.training.work import Source
from divkd.shared.jobs import Job


def jobs(source: Source) -> list[Job]:
    """By seed the networks, and the measure of them."""
    made = []
    for seed in source.config.seeds:
        networks = teacher_jobs(source, seed)
        after = tuple(one.name for one in networks)
        made += [*networks, Job(f"seed{seed}-lone", partial(measure, source, seed), after)]
    return made


def measure(source: Source, seed: int, *where: Any) -> dict[str, Any]:
    """A row a network."""
    seed_run = SeedRun(source.config, source.data, seed, *where)
    networks, _ = teachers_of(seed_run, source.config.members)
    return {"rows": rows(seed_run, "network", networks, alone=True)}


def results(config: Any, records: Mapping[str, Any]) -> dict[str, Any]:
    """All rows, and their summary."""
    found = [row for record in records.values() for row in record.get("rows", [])]
    return {"rows": found, "summary": summary(found)}


EXPERIMENT = Experiment("experiment lone", jobs, results)
''',
        "report/experiments/lone.py": '''"""The report of `divkd experiment lone`."""

from divkd.report.record import Report, Table
from divkd.shared.stats import show

REPORT = Report(
    ("experiment lone",),
    lambda results, asked: "Networks.",
    lambda results: [Table("Lone ones", ["networks", "accuracy"],
                           [[str(row["count"]), show(row["acc"])] for row in results["summary"]])],
    (),
)
''',
        "empirical/experiments/config.py": [
            ("MYSTERIES = ", "LONE = presets(NetworksConfig)\nMYSTERIES = "),
        ],
        "cli/experiments.py": [
            ("import FEATURE_MAP, ", "import FEATURE_MAP, LONE, "),
            (
                "COMMANDS: tuple[Any, ...] = (",
                '''@of_networks(LONE)
def lone(**options: Any) -> None:
    """Single networks, and nothing else."""
    conduct("lone", LONE, options)


COMMANDS: tuple[Any, ...] = (lone, ''',
            ),
        ],
        "report/swept.py": [("MEASURES = {\n", 'MEASURES = {\n    "experiment lone": ("acc", "cal_nll"),\n')],
    },
    "world of the theory": {
        "theory/worlds/coin.py": '''"""A fair coin, the smallest world."""

from dataclasses import dataclass
from typing import Any

from divkd.shared.config import Config, field
from divkd.shared.seeds import rng


@dataclass(frozen=True)
class CoinConfig(Config):
    """How often it is thrown."""

    preset: str = field("coin")
    seeds: tuple[int, ...] = field((0,))
    throws: int = field(10, "throws of a coin", 1, 1000)


def run_coin(config: CoinConfig) -> dict[str, Any]:
    """The share of heads, of each seed."""
    heads = {seed: float(rng(seed, "coin").integers(0, 2, config.throws).mean()) for seed in config.seeds}
    return {"command": "simulate coin", "preset": "coin", "seeds": list(config.seeds), "heads": heads}
''',
        "report/worlds/coin.py": '''"""The report of `divkd simulate coin`."""

from divkd.report.record import Report, Table

REPORT = Report(
    ("simulate coin",),
    lambda results, asked: "A coin.",
    lambda results: [Table("Heads", ["seed", "share"], [[str(s), str(v)] for s, v in results["heads"].items()])],
    (),
)
''',
        "cli/worlds.py": [
            (
                "WORLDS = (",
                '''@click.command(short_help="Throw a coin.")
@seeds
@placed("Go on.")
@click.option("--throws", type=int)
def coin(**options: Any) -> None:
    """Throw a coin."""
    from divkd.cli.runs import carry_out
    from divkd.theory.worlds.coin import CoinConfig, run_coin

    config = CoinConfig(**given(CoinConfig, options))
    config.validate()
    carry_out("simulate coin", dataclasses.asdict(config), lambda run, progress: run_coin(config), options, name="coin")


WORLDS = (coin, ''',
            )
        ],
    },
}
# New files and changed ones, at most.
MOST = {"student kind": (1, 2), "perturbation": (0, 3), "metric": (0, 3), "data set": (0, 2), "figure": (0, 2),
        "experiment": (2, 3), "world of the theory": (2, 1)}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_touches_no_more_files_than_it_may(recipe):
    new = [file for file, content in RECIPES[recipe].items() if isinstance(content, str)]
    assert len(new) <= MOST[recipe][0]
    assert len(RECIPES[recipe]) - len(new) <= MOST[recipe][1]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Runs a command of a package to which every recipe was applied."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(SOURCE, root / "divkd", ignore=shutil.ignore_patterns("__pycache__"))
    for changes in RECIPES.values():
        for file, content in changes.items():
            path = root / "divkd" / file
            text = content if isinstance(content, str) else path.read_text(encoding="utf-8")
            for before, after in () if isinstance(content, str) else content:
                assert before in text, f"{file} no longer holds {before!r}"
                text = text.replace(before, after, 1)
            path.write_text(text, encoding="utf-8")

    def run(*lines: str) -> str:
        code = (
            f"from conftest import coarse; from divkd.cli.main import run\nwith coarse(False):\n for line in {lines}:\n"
        )
        code += "  assert run(line.split()) == 0, line"
        path = os.pathsep.join([str(root), str(Path(__file__).parent)])
        environment = {**os.environ, "PYTHONPATH": path}
        line = [sys.executable, "-c", code]  # one process for several, as most of a short one's time goes into imports
        done = subprocess.run(line, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.root = root
    return run


def test_what_the_recipes_add_is_trained_evaluated_and_shown(command):
    small = "--members 2 --ladder 2 --epochs 1 --train-images 64 --method dark --student twins --seeds 0"
    shown = command(
        f"train odd --preset smoke {small} --device cpu --out run",
        "experiment lone digits --members 2 --epochs 1 --train-images 40 --network resnet8w4 --device cpu --out lone",
        "analyse run --images 4 --out analysis --device cpu",
        "report run analysis --out page.html",
    )
    results = json.loads((command.root / "run/results.json").read_text())
    (row,) = [row for row in results["rows"] if row["model"] == "twins"]
    assert (row["method"], results["dataset"]) == ("dark", "odd")
    assert row["squared_nll"] >= row["nll"] ** 2
    assert results["teacher_diversity"][0]["dark"] >= 0
    assert "identical twins" in shown
    assert "Lone ones" in shown
    assert (command.root / "run/figures/empty.png").is_file()

    analysis = json.loads((command.root / "analysis/results.json").read_text())
    assert {"model": "twins", "method": "dark", "passes": 3 * 2 * 2 + 2} in [
        {key: cost[key] for key in ("model", "method", "passes")} for cost in analysis["training_cost"]
    ]
    page = (command.root / "page.html").read_text(encoding="utf-8")
    assert "identical twins" in page
    assert "squared NLL" in page


def test_a_new_world_is_simulated_and_shown(command):
    assert "Heads" in command("simulate coin --throws 5 --out coin", "report coin --out coin.html")
    assert "A coin." in (command.root / "coin.html").read_text(encoding="utf-8")
