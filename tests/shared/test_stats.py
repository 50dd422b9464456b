"""Means, spreads and paired differences over seeds."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from divkd.shared.stats import paired, summarise


def test_paired_differences_agree_with_scipys_t_test():
    generator = np.random.default_rng(0)
    for n in (2, 3, 10):
        first, second = generator.normal(size=(2, n))
        found, expected = paired(first, second), ttest_rel(first, second).confidence_interval(0.95)
        assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high), abs=1e-10)
        assert found["mean"] == pytest.approx(first.mean() - second.mean())
        assert found["n"] == n


def test_what_two_rows_share_cancels_in_their_difference():
    luck = np.array([0.3, 0.5, 0.9])
    found = paired(luck + 0.1, luck)
    assert found["std"] < 1e-12 < summarise(luck)["std"]
    assert found["low"] == pytest.approx(0.1) == pytest.approx(found["high"])


def test_one_pair_has_no_interval():
    assert paired([1.0], [0.25]) == {"mean": 0.75, "std": None, "n": 1, "low": None, "high": None}
