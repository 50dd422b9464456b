"""Intervals of a measured number, by drawing its samples again."""

from collections.abc import Callable

import torch
from torch import Tensor

from divkd.shared.errors import InputError
from divkd.shared.seeds import rng

LEVEL = 0.95


def bootstrap(
    statistic: Callable[..., dict[str, float]], *sizes: int, resamples: int, seed: int = 0, level: float = LEVEL
) -> dict[str, tuple[float, float]]:
    """The (1 - level)/2 and (1 + level)/2 quantiles of a statistic over `resamples` draws of N samples of N, with
    replacement: the percentile interval of Efron 1979.

    `statistic` takes the indices (N,) int64 of one draw, one tensor for each of `sizes` (independent groups, drawn
    apart), and returns named numbers; the result is {name: (low, high)}. All names share the draws, a function of
    `seed` and the sizes, so that intervals of two models on the same samples are comparable.
    The interval is of the sampling of test data, not of training. Infinite values count as they stand; a number that
    is NaN in some draw has the interval (NaN, NaN). Raises `InputError` for fewer than 2 resamples or a level outside
    (0, 1).
    """
    if not 0 < level < 1:
        raise InputError(f"the level of an interval is {level}; between 0 and 1, e.g. 0.95, is allowed")
    values = resampled(statistic, *sizes, resamples=resamples, seed=seed)
    return {name: interval(drawn, level) for name, drawn in values.items()}


def resampled(
    statistic: Callable[..., dict[str, float]], *sizes: int, resamples: int, seed: int = 0
) -> dict[str, Tensor]:
    """The values (R,) float64 of a statistic in each draw of `bootstrap`, by name."""
    if resamples < 2:
        raise InputError(f"{resamples} bootstrap resamples are not enough; 1000 is usual, 2 the least")
    generator = rng(seed, "bootstrap")
    draws = [
        statistic(*(torch.from_numpy(generator.integers(0, size, size, dtype="int64")) for size in sizes))
        for _ in range(resamples)
    ]
    return {name: torch.tensor([draw[name] for draw in draws], dtype=torch.float64) for name in draws[0]}


def interval(values: Tensor, level: float) -> tuple[float, float]:
    """The central interval that holds the share `level` of `values` (R,); quantiles as NumPy's, +-inf allowed."""
    if values.isnan().any():
        return float("nan"), float("nan")
    values = values.sort().values
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        position = share * (len(values) - 1)
        low = int(position)
        left, right = float(values[low]), float(values[min(low + 1, len(values) - 1)])
        part = position - low  # weighed so that an infinite end stays infinite: -inf + part * inf is NaN
        ends.append(left if left == right or part == 0 else (1 - part) * left + part * right)
    return ends[0], ends[1]
