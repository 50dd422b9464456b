"""The measured Taylor term: of smooth networks it is its second order, of clipped steps it has a first."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from divkd.empirical.experiments.jacobian import over_seeds
from divkd.empirical.experiments.taylor import Probe, exact, measured
from divkd.empirical.networks.ensembles import DeepEnsemble, to_batch_ensemble

T, K, SIZES = 3.0, 4, (1e-3, 2e-3, 1.0)


def small(seed):
    draw = np.random.default_rng(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, K))
    for parameter in net.parameters():
        parameter.data = torch.from_numpy(draw.normal(size=tuple(parameter.shape)).astype(np.float32))
    return net


TEACHERS = exact(DeepEnsemble([small(0), small(1)]))
X = torch.rand(5, 3, 2, 2, generator=torch.manual_seed(0)).double()
STEPS = [torch.randn(X.shape, generator=torch.manual_seed(seed)).double() for seed in (1, 2)]


def probe(clipped=False, teachers=TEACHERS):
    return Probe(teachers, X, STEPS, SIZES, T, clipped)


@pytest.mark.parametrize(
    "student", [DeepEnsemble([small(2)]), to_batch_ensemble(small(2), 2, 0, "normal")], ids=["single", "members"]
)
def test_small_steps_of_a_smooth_network_add_their_second_order(student):
    found = measured(exact(student), probe())
    assert next(student.parameters()).dtype == torch.float32  # a copy was measured
    for size, extra in zip(SIZES[:2], found["extra"], strict=False):
        assert extra == pytest.approx(size**2 * found["second"], rel=1e-3)
    assert found["extra"][2] != pytest.approx(found["second"], rel=0.1)


def test_a_student_that_is_its_teachers_has_no_term_of_any_size():
    found = measured(copy.deepcopy(TEACHERS), probe())
    assert found["kd"] == 0
    assert max(abs(value) for value in (found["second"], found["jacobian"], *found["extra"])) < 1e-12
    assert found["ours"] == found["theirs"] > 0


def test_some_of_the_teachers_are_a_deep_ensemble_of_those():
    student = exact(DeepEnsemble([small(2)]))
    alone = probe(teachers=DeepEnsemble(list(TEACHERS.nets[1:])).eval())
    some, whole = measured(student, probe(), slice(1, None)), measured(student, alone)
    assert some.pop("extra") == pytest.approx(whole.pop("extra"))
    assert some == pytest.approx(whole)


def test_clipped_steps_stay_in_the_pixels_and_have_a_first_order_at_their_ends():
    at = probe(clipped=True)
    assert all(((z >= 0) & (z <= 1)).all() for size in SIZES for z in at.moved(size))
    black = Probe(TEACHERS, torch.zeros_like(X), STEPS, SIZES, T, clipped=True)
    extra = measured(exact(DeepEnsemble([small(2)])), black)["extra"]
    assert extra[1] / extra[0] == pytest.approx(2, rel=0.05)  # and not 4


def test_ratios_over_seeds_are_of_each_seed():
    base = {"student": "single", "model": "kd", "step": "", "times": 0, "split": "test", "along": "gaussian"}
    terms = dict.fromkeys(("kd", "ours", "theirs"), 1.0)
    lines = [{**base, **terms, "seed": seed, "second": second, "jacobian": 4.0, "extra": [second / 8]}
             for seed, second in ((0, 2.0), (1, 6.0))]  # fmt: skip
    (row,) = over_seeds(lines, [0.5])
    assert row["ratio"] == [{"mean": 0.5, "std": 0.0, "n": 2}]
    assert row["matched"][0]["mean"] == pytest.approx(0.5)
    assert row["second"]["mean"] == 4
