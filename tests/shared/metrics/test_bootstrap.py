"""Bootstrap intervals."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from divkd.shared.errors import InputError
from divkd.shared.metrics.bootstrap import bootstrap, interval


def test_interval_of_a_mean_is_the_normal_one_for_many_samples() -> None:
    values = torch.from_numpy(np.random.default_rng(0).exponential(size=2000))
    low, high = bootstrap(lambda index: {"mean": float(values[index].mean())}, 2000, resamples=2000)["mean"]
    error = float(values.std()) / math.sqrt(2000)
    assert low == pytest.approx(float(values.mean()) - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(float(values.mean()) + 1.96 * error, abs=0.15 * error)


def test_draws_are_a_function_of_the_seed_and_shared_by_all_names() -> None:
    values = torch.arange(50.0)

    def statistic(index: Tensor) -> dict[str, float]:
        return {"mean": float(values[index].mean()), "shifted": float(values[index].mean()) + 1}

    first = bootstrap(statistic, 50, resamples=50, seed=3)
    assert first == bootstrap(statistic, 50, resamples=50, seed=3) != bootstrap(statistic, 50, resamples=50, seed=4)
    assert first["shifted"] == pytest.approx([end + 1 for end in first["mean"]])


def test_groups_are_drawn_apart() -> None:
    seen = []
    bootstrap(lambda a, b: seen.append((a, b)) or {"x": 0.0}, 5, 9, resamples=3)
    assert [(len(a), len(b)) for a, b in seen] == [(5, 9)] * 3
    assert all(int(a.max()) < 5 and int(b.max()) < 9 for a, b in seen)


def test_quantiles_are_those_of_numpy_and_infinity_is_no_nan() -> None:
    values = np.random.default_rng(1).normal(size=101)
    assert interval(torch.from_numpy(values), 0.9) == pytest.approx(np.quantile(values, [0.05, 0.95]), abs=1e-12)
    assert interval(torch.tensor([0.0, math.inf, math.inf]), 0.5) == (math.inf, math.inf)
    assert interval(torch.tensor([-math.inf, 0.0, 1.0, math.inf]), 0.9) == (-math.inf, math.inf)
    assert all(math.isnan(end) for end in interval(torch.tensor([0.0, math.nan]), 0.5))


def test_one_sample_has_no_width() -> None:
    assert bootstrap(lambda index: {"x": float(index.sum())}, 1, resamples=5)["x"] == (0.0, 0.0)


def test_refusals() -> None:
    with pytest.raises(InputError, match="1 bootstrap resamples"):
        bootstrap(lambda index: {"x": 0.0}, 3, resamples=1)
    with pytest.raises(InputError, match="level of an interval is 95"):
        bootstrap(lambda index: {"x": 0.0}, 3, resamples=5, level=95)
