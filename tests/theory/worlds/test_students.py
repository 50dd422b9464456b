"""Students in the theory's world: steps are those of a dense teacher, and a run is the same whoever carries it out."""

import dataclasses
import json

import numpy as np
import pytest

from divkd.shared.jobs import Workers
from divkd.shared.kinds import METHODS
from divkd.shared.progress import Progress
from divkd.shared.run import open_run
from divkd.shared.seeds import rng
from divkd.theory import descent
from divkd.theory.worlds import students
from divkd.theory.worlds.config import StudentsConfig
from divkd.theory.worlds.steps import moved_by_kind
from divkd.theory.worlds.teaching import School, train

TINY = StudentsConfig(seeds=(0,), scan_seeds=0, members=2, classes=3, patches=12, train_samples=40, test_samples=40,
                      expected_others=1.0, neurons=3, distill_time=200.0, max_steps=60)  # fmt: skip
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def one():
    return School(TINY, 0)


def simulated(config, path, jobs=1):
    run = open_run(path, "simulate students", dataclasses.asdict(config), extendable=("seeds", "members"))
    return students.run_students(config, run, Workers(QUIET, jobs))


def test_a_step_is_that_of_dense_teachers(one):
    """With weights and patches as vectors in R^d: the gradient of <w, softmax(F / t)>, by differences."""
    teachers, d, generator = one.teachers, 6000, np.random.default_rng(0)
    count, patches, features = teachers.clean.shape
    views = np.linalg.qr(generator.standard_normal((d, features)))[0].T
    noise = generator.standard_normal((count * patches, d)) / d**0.5
    moved, drawn = teachers.step(0.5, 4.0, False, 3, 0), students_draws(3, count, TINY.classes)
    memory, ends = teachers.memory.T @ noise, np.cumsum([0, *teachers._kept.sum(1)])
    for n in range(0, count, 5):
        m = moved.teachers[n]
        weights = teachers.weights[m].reshape(-1, features) @ views
        weights[teachers._kept[m]] += memory[ends[m] : ends[m + 1]]
        x = teachers.clean[n] @ views + noise[n * patches : (n + 1) * patches]

        def objective(x, weights=weights, n=n):
            u = x @ weights.T
            outputs = 3 * (np.clip(u, 0, 1) ** 3 / 3 + np.maximum(u - 1, 0)).reshape(patches, 3, -1).sum((0, 2))
            return drawn[n] @ descent.softmax(outputs / 4)

        step = moved.coefficients[n].copy()
        step[:, :features] -= teachers.clean[n]
        vector = step[:, :features] @ views + step[:, features:] @ memory
        assert np.linalg.norm(vector) == pytest.approx(0.5, rel=0.05)
        basis = np.concatenate([views, memory[ends[m] : ends[m + 1]]])  # all that a gradient can lie along
        rises = np.array([[objective(x + 1e-5 * np.outer(np.arange(patches) == p, b)) for b in basis]
                          for p in range(patches)]) - objective(x)  # fmt: skip
        along = vector @ basis.T
        cosine = (rises * along).sum() / np.linalg.norm(rises) / np.linalg.norm(along)
        assert cosine > 0.98


def students_draws(seed, count, classes):
    """The w of every sample, as the first step draws them: after the teachers."""
    generator = rng(seed, "students/ods", epoch=0)
    generator.integers(TINY.members, size=count)
    return generator.uniform(-1, 1, (count, classes))


def test_a_step_moves_known_views_alone(one):
    found = moved_by_kind(one.samples, one.moved("ods", 0), one.teachers.clean, one.learned)
    assert found["own_known"] > 0.05
    assert found["own_unknown"] < 0.01 * found["own_known"]


def test_confods_takes_a_share_of_the_ods_step(one):
    clean = np.pad(one.teachers.clean, ((0, 0), (0, 0), (0, one.teachers.memory.shape[1])))
    whole, part = (one.moved(method, 0).coefficients - clean for method in ("ods", "confods"))
    p = descent.softmax(one.teachers.outputs[one.moved("ods", 0).teachers, np.arange(len(whole))] / TINY.temperature)
    assert part == pytest.approx(whole * p.max(1)[:, None, None], abs=1e-6)


def test_a_gaussian_step_is_inert(one):
    for_kd, for_gaussian = (
        one.draw(method, 0, train(one, "single", "none", QUIET)[0]) for method in ("kd", "gaussian")
    )
    assert for_gaussian.wanted == pytest.approx(for_kd.wanted, abs=2e-3)
    assert np.abs(for_gaussian.shift).max() < 0.01


def test_views_arrive_when_they_stay():
    strengths = np.array([[1.0, 1.0], [4.0, 0.1], [4.0, 2.0], [4.0, 0.1], [4.0, 3.0]])[:, None, None]
    assert students.arrivals(np.arange(5.0), strengths).tolist() == [[[0.0, 4.0]]]
    assert students.arrivals(np.arange(4.0), strengths[:4]).tolist() == [[[0.0, np.inf]]]


def test_a_run_is_whole(tmp_path):
    found = simulated(dataclasses.replace(TINY, distill_time=20.0, max_steps=10), tmp_path)
    assert [(row["model"], row["method"]) for row in found["summary"][1:]] == students.kinds()
    assert len(found["rows"]) == 1 + 2 * len(METHODS)
    for row in found["rows"]:
        assert np.shape(row["learned"]) == (1 if row["model"] == "single" else 2, 3, 2)
        assert row["train_error"] == 0


@pytest.mark.slow
def test_a_run_is_the_same_whoever_carries_it_out(tmp_path):
    found, again = simulated(TINY, tmp_path / "one"), simulated(TINY, tmp_path / "two", jobs=2)
    for results in (found, again):
        del results["seconds"]
    assert json.dumps(found) == json.dumps(again)
