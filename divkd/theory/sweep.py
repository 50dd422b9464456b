"""Many simulations beside each other: every claim against parameters, and what the theory says breaks it.

A cell is the base configuration with some parameters changed. `GRID` maps where the claims hold; `ABLATIONS` each take
away what one step of the theory rests on.
"""

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from divkd.shared.config import described
from divkd.shared.errors import InputError, RunError
from divkd.shared.jobs import Job, Workers
from divkd.shared.kinds import VIEWS
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.stats import summarise
from divkd.theory import claims, predict
from divkd.theory.config import MultiViewConfig
from divkd.theory.descent import engine
from divkd.theory.experiment import check, measure
from divkd.theory.roster import KINDS, networks
from divkd.theory.students import Seed

STUDENTS = tuple(name for name, kind in KINDS.items() if kind.swept)
CLAIMS = ("single", "ensemble", *STUDENTS)

Changes = Mapping[str, Any]

GRID: dict[str, tuple[Any, ...]] = {
    "expected_others": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0),
    "own_patches": (1, 2, 3, 4, 5),
    "power": (2, 3, 4, 5),
    "neurons": (2, 4, 8, 16, 32),
    "classes": (5, 8, 10, 14, 20),
    "train_samples": (300, 600, 1200, 2400),
    "single_views": (1, 2, 4, 8, 16),
    "init_scale": (2e-5, 1e-4, 5e-4, 2e-3, 1e-2, 5e-2, 0.3),
    "noise": (0.25, 0.5, 1.0, 2.0, 4.0),
    "missing_weight": ((0.0, 0.0), (0.05, 0.05), (0.1, 0.15), (0.15, 0.2), (0.25, 0.3)),
    "other_weight_single": ((0.05, 0.1), (0.11, 0.16), (0.16, 0.22), (0.2, 0.3), (0.3, 0.4)),
    "logit_scale": (0.3, 1.0, 3.0, 10.0, 30.0),
    "clip": (0.3, 0.6, 1.2, 2.4, 4.8),
    "soft_temperature": (0.05, 0.1, 0.15, 0.25, 0.5, 1.0),
    "distill_time": (6.25e4, 2.5e5, 1e6, 4e6, 1.6e7, 6.4e7),
}

# Plain ReLU is sReLU with weights far above varrho: there it is z - (1 - 1/q) varrho, a line but for a small offset.
# sigma_0 and the outputs are the same in absolute units; the trust region, in units of varrho, is widened by as much.
# It has no students, as their flow time has another unit.
_RELU = 1e6
ABLATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "rho = 0": {"missing_weight": (0.0, 0.0)},
    "q = 2": {"power": 2},
    "plain ReLU": {
        "init_scale": 5e-4 * _RELU,
        "logit_scale": 3.0 / _RELU,
        "trust_cap": 2.0 * _RELU,
        "noise_trust": 0.3 / _RELU,
        "students": 0,
    },
    "no single-view samples": {"single_views": 0},
    "one view stronger": {"second_view": 0.8},
    "one view per class": {"second_view": 0.0},
}


def run_sweep(
    config: MultiViewConfig, command: str, cells: Mapping[str, Changes], run: Run, workers: Workers
) -> dict[str, Any]:
    """The content of results.json: what the base is, and one row a cell.

    `limits` are, of a parameter that is changed alone, the values at which claims are predicted to end, by claim.
    A row has `name`, `changes`, `errors` and `views` as {mean, std, n} over seeds, `failed` in words or None; so of
    ensembles of "1", "2", ... `members` their single-view errors, and those `predicted` from each seed's networks. A
    cell whose networks cannot be trained, or whose samples have no room for their features, is a result too: it says
    why. A finished seed of a cell is saved to `run`, and not simulated again on resume; `seconds` are of all sittings.
    Raises `InputError` where a checkpoint is damaged.

    Cells of the same configuration are simulated once, that of the base under the name "base": the others repeat its
    row, in no seconds.
    """
    records = workers.records(sweep_jobs(config, cells), run)
    made: dict[str, dict[str, Any]] = {}
    rows = []
    for (name, changes), first in zip(cells.items(), _firsts(config, cells), strict=True):
        again = first in made
        if not again:
            made[first] = _row({seed: records[f"{first}-seed{seed}"] for seed in config.seeds})
        rows.append({"name": name, "changes": dict(changes), **made[first]} | ({"seconds": 0.0} if again else {}))
    varied = {name for changes in cells.values() if len(changes) == 1 for name in changes}
    return {
        "command": command,
        "preset": config.preset,
        "seeds": list(config.seeds),
        "base": {one.name: getattr(config, one.name) for one in described(config)},
        "symbols": {one.name: one.metadata["symbol"] for one in described(config)},
        "cells": rows,
        "limits": {"feature_noise": predict.feature_noise_limits(config)}
        if "feature_noise" in varied and config.views == 2
        else {},
        "seconds": sum(row["seconds"] for row in rows),
    }


def sweep_jobs(config: MultiViewConfig, cells: Mapping[str, Changes]) -> list[Job]:
    """One job for every different cell and seed: its record has the `numbers`, or why it `failed`, and `seconds`."""
    jobs = {}
    for changes, first in zip(cells.values(), _firsts(config, cells), strict=True):
        cell = dataclasses.replace(config, **changes)
        many, cost = networks(cell, STUDENTS), float(cell.train_samples * cell.patches * cell.neurons * cell.classes)
        for seed in config.seeds:
            name = f"{first}-seed{seed}"
            work = partial(_cell_seed, cell, name, seed)
            jobs[name] = Job(name, work, networks=many, cost=cost * many, memory=engine(cell.engine).state_bytes(cell))
    return list(jobs.values())


def _firsts(config: MultiViewConfig, cells: Mapping[str, Changes]) -> list[str]:
    """For every cell the name under which its configuration is simulated: the first that has it, or "base"."""
    firsts = {config: "base"}
    changed = {name: dataclasses.replace(config, **changes) for name, changes in cells.items()}
    return [firsts.setdefault(cell, name) for name, cell in changed.items()]


def one_at_a_time(vary: Mapping[str, Sequence[Any]]) -> dict[str, Changes]:
    """The cells of a map: every parameter of `vary` at each of its values, the others as in the base."""
    return {f"{name}={_shown(value)}": {name: value} for name, values in vary.items() for value in values}


def pairs(grid: Mapping[str, Sequence[Any]]) -> dict[str, Changes]:
    """The cells of a grid: every combination of the values of its parameters, the last one's values running first."""
    cells = (dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values()))
    return {", ".join(f"{name}={_shown(value)}" for name, value in cell.items()): cell for cell in cells}


def _shown(value: Any) -> str:
    """The shortest text of `value` that stands for no other."""
    if isinstance(value, tuple):
        return ":".join(_shown(part) for part in dict.fromkeys(value))
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _row(seeds: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """What is measured of a cell, from the records of its seeds."""
    failed = next((f"seed {seed}: {one['failed']}" for seed, one in seeds.items() if one["failed"]), None)
    row: dict[str, Any] = {"errors": {}, "views": {}, "failed": failed}
    row["seconds"] = sum(one["seconds"] for one in seeds.values())
    numbers = [one["numbers"] for one in seeds.values()] if failed is None else []
    for key in dict.fromkeys(key for one in numbers for key in one):
        part, _, of = key.partition("/")
        # no view is outside the union of two networks that know every view between them
        row.setdefault(part, {})[of] = summarise(one[key] for one in numbers if key in one)
    return row


def _cell_seed(cell: MultiViewConfig, name: str, seed: int, run: Run, progress: Progress) -> dict[str, Any]:
    """Simulate one seed of a cell."""
    began = time.perf_counter()
    try:
        check(cell)
        with TemporaryDirectory() as folder:  # a cell's networks are not kept
            scratch = Run(Path(folder))
            scratch.checkpoints.mkdir()
            result = measure(Seed(cell, scratch, progress, seed, STUDENTS, validated=False))
    except (InputError, RunError) as error:
        run.log(event="failed", cell=name, seed=seed, why=str(error))
        return {"seconds": 0.0, "numbers": None, "failed": str(error)}
    errors = {claim: result.errors[claim] for claim in CLAIMS if claim in result.errors}
    numbers = {f"errors/{claim}": error["single_view"] for claim, error in errors.items()}
    numbers |= {f"errors/{claim}_multi_view": error["multi_view"] for claim, error in errors.items()}
    for ensemble in claims.CLAIMS["ensemble"].predicted(cell, [result])["by_members"]:
        numbers[f"members/{ensemble['members']}"] = ensemble["single_view_error"]
        numbers[f"predicted/{ensemble['members']}"] = ensemble["predicted"]
    numbers |= {f"views/{of}": share for of, share in result.views.items() if of in VIEWS and share is not None}
    return {"seconds": time.perf_counter() - began, "numbers": numbers, "failed": None}
