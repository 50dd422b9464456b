"""The simulation: train members and students, test them, compare with what the theory expects."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from divkd.shared.errors import InputError
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.theory import claims, dense, descent, evaluate, predict, students, traces
from divkd.theory.claims import SeedResult
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import test_samples, training_samples
from divkd.theory.engines import ENGINES
from divkd.theory.students import KINDS, Distillation, Members, Students
from divkd.theory.training import Arrays, Group, labels_only, train

TESTS = {"multi_view": "multi", "single_view": "single"}  # names of errors, and of test samples


def check(config: MultiViewConfig) -> None:
    """Raise `InputError` for a configuration that cannot run here: values, device, memory, features without room."""
    config.validate()
    if config.engine == "dense":
        dense.check_device(config)
    needed = ENGINES[config.engine].state_bytes(config)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.9 * available:
        lower = "members, train_samples, neurons or patches"
        raise InputError(
            f"the {config.engine} engine needs {needed / 1e9:.1f} GB and this machine has {available / 1e9:.1f} GB; "
            f"lower {lower if config.engine == 'limit' else 'dimension, train_samples, test_samples or members'}"
        )
    training_samples(config, config.seeds[0])


def simulate(config: MultiViewConfig, run: Run, progress: Progress) -> dict[str, Any]:
    """Theorems 1 to 4 of Allen-Zhu and Li (arXiv 2012.09816) at finite size: the content of results.json.

    Every seed is a world of its own: one training set, `members` networks, `students` of every kind, fresh multi-view
    and single-view test samples. Errors are fractions, averaged over a seed's networks of a kind; means, standard
    deviations and n are over seeds. Networks are saved to `run` as they finish (checkpoints/seed<S>-member<I>,
    seed<S>-<kind><I>...), and those that are there are not trained again. Raises `InputError` (nothing was trained) or
    `RunError` (finished networks stay saved).
    """
    began = time.perf_counter()
    check(config)
    seeds = [Seed(config, run, progress, seed).measure() for seed in config.seeds]
    views = claims.view_shares(seeds)
    return {
        "command": "simulate multiview",
        "preset": config.preset,
        "seeds": list(config.seeds),
        "claims": claims.table(config, seeds),
        "views": {**{name: summary["mean"] for name, summary in views.items()}, "spread": views},
        **seeds[0].traces,
        "config": {name: getattr(config, name) for name in ("engine", "members", "classes", "init_scale", "clip")},
        "seconds": time.perf_counter() - began,
    }


class Seed:
    """One seed: its samples, its members, its students."""

    def __init__(self, config: MultiViewConfig, run: Run, progress: Progress, seed: int) -> None:
        self.config, self.run, self.progress, self.seed = config, run, progress, seed
        self.engine = ENGINES[config.engine]
        self.samples = training_samples(config, seed)
        self.tests = {name: test_samples(config, seed, kind) for name, kind in TESTS.items()}

    def measure(self, kinds: Sequence[str] = tuple(KINDS), *, with_traces: bool = True) -> SeedResult:
        """Train what is missing of the members and the `kinds` of students, and measure them."""
        config, samples = self.config, self.samples
        members = self._members()
        distillation = Distillation(config, self.run, self.progress, self.seed, samples, members)
        taught = distillation.of(kinds) if config.students else {}

        strength = _strengths(members.arrays, config)
        learned = evaluate.learned_views(strength)
        known = float(strength[learned].mean())
        start = np.stack([arrays["strengths"][0] for arrays in members.arrays])
        foreseen = predict.lottery_winners(start, samples, config)
        views = {
            "one_view_fraction": float((learned.sum(2) == 1).mean()),
            "lottery_accuracy": float((foreseen == strength.argmax(2)).mean()),
            "redrawn_fraction": max(s.redrawn / len(s) for s in (samples, *self.tests.values())),
        }
        unions: dict[str, np.ndarray] = {"union": np.asarray(learned.any(0))[None]}  # what teachers know between them
        if "distilled" in taught:
            after = evaluate.learned_views(_strengths(taught["distilled"].arrays, config))
            views["distilled_views"] = float(after.mean())
        if "self_distilled" in taught:
            rows = list(taught["self_distilled"].numbers)
            after = evaluate.learned_views(_strengths(taught["self_distilled"].arrays, config))
            pair = unions["pair"] = learned[rows] | learned[[students.self_teacher(config, row) for row in rows]]
            views["learned_inside_union"] = _share(after[pair])
            views["learned_outside_union"] = _share(after[~pair])

        by_members = self._errors({"members": Students(config, members.arrays, range(config.members)), **taught})
        itself = by_members.pop("members")
        errors = {"single": _of(itself, 0), "ensemble": _of(itself, -1)}
        for name, ensembles in by_members.items():
            errors[name] = _of(ensembles, 0)
            if name == "distilled":
                errors["ensemble_of_distilled"] = _of(ensembles, -1)
        self.run.log(event="tested", seed=self.seed, errors=errors)

        shown: dict[str, Any] = {}
        if with_traces:
            one = traces.of_network(config, samples, members.arrays[0])
            shown = {
                "trace": {"seed": self.seed, "member": 0, **one},
                "samples": traces.of_samples(config, samples, members),
                **(traces.of_students(taught, members) if taught else {}),
            }
        return SeedResult(
            errors=errors,
            by_members=itself["single_view"],
            covered=predict.coverage_errors(config, learned, known),
            uncovered=evaluate.uncovered_by_members(learned),
            strength=known,
            views=views,
            predicted={of: float(predict.coverage_errors(config, union, known)[0]) for of, union in unions.items()},
            traces=shown,
        )

    def _members(self) -> Members:
        config = self.config

        def create(rows: Sequence[int]) -> descent.Networks:
            return self.engine.create(config, self.samples, self.seed, rows)

        names = [f"seed{self.seed}-member{member}" for member in range(config.members)]
        records = [{"seed": self.seed, "member": member} for member in range(config.members)]
        title = f"seed {self.seed}: {config.members} members"
        group = Group(title, names, records, create, [labels_only(self.samples)])
        arrays, networks, trained = train(config, self.run, self.progress, self.samples, group)

        def again(rows: Sequence[int]) -> descent.Networks:
            # checkpoints do not hold the products of weights and training noise: some MB a member, seconds to redo
            if networks is not None and set(rows) <= set(trained):
                return networks.copy([trained.index(row) for row in rows])
            redone = create(rows)
            loss = descent.cross_entropy(self.samples.labels)
            for _ in descent.descend(redone, loss, max_steps=config.max_steps):
                pass
            return redone.copy(range(len(rows)))  # as above, so that both ways go on to the same bits

        return Members(arrays, again)

    def _errors(self, kinds: Mapping[str, Students]) -> dict[str, dict[str, np.ndarray]]:
        """Errors of ensembles of 1, 2, ... of the networks of every kind, per kind of samples."""
        errors: dict[str, dict[str, np.ndarray]] = {name: {} for name in kinds}
        for name, kind in kinds.items():
            trained = np.stack([one["train_outputs"] for one in kind.arrays])
            errors[name]["train"] = evaluate.errors_by_members(trained, self.samples.labels)
        for config in dict.fromkeys(kind.config for kind in kinds.values()):
            # together, because networks of the same number meet the same noise, which is drawn once
            same = {name: kind for name, kind in kinds.items() if kind.config == config}
            weights = np.stack([one["weights"] for kind in same.values() for one in kind.arrays])
            numbers = [number for kind in same.values() for number in kind.numbers]
            for of, samples in self.tests.items():
                outputs = self.engine.fresh_outputs(config, weights, samples, self.seed, TESTS[of], numbers)
                ends = np.cumsum([len(kind.arrays) for kind in same.values()])
                for name, part in zip(same, np.split(outputs, ends[:-1]), strict=True):
                    errors[name][of] = evaluate.errors_by_members(part, samples.labels)
        share = self.config.single_share
        for of_kind in errors.values():
            of_kind["test"] = (1 - share) * of_kind["multi_view"] + share * of_kind["single_view"]
        return errors


def _of(ensembles: dict[str, np.ndarray], index: int) -> dict[str, float]:
    return {samples: float(errors[index]) for samples, errors in ensembles.items()}


def _strengths(arrays: Sequence[Arrays], config: MultiViewConfig) -> np.ndarray:
    return descent.strengths(np.stack([one["weights"] for one in arrays]), config.classes)


def _share(chosen: np.ndarray) -> float:
    """Mean of `chosen`; NaN, without a warning, where there is nothing to choose from."""
    return float(chosen.mean()) if chosen.size else float("nan")
