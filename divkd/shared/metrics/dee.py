"""Deep ensemble equivalent: how many members of a deep ensemble a model is worth."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from divkd.shared.errors import InputError
from divkd.shared.seeds import rng
from divkd.shared.stats import summarise

if TYPE_CHECKING:
    from torch import Tensor

SUBSETS = 100  # of each size: all of them up to 8 members (70 of size 4), sampled beyond


@dataclass(frozen=True)
class Equivalent:
    """How many members a model is worth: `value`, or at least that where `censored`, as it beats every size."""

    value: float
    censored: bool

    def __str__(self) -> str:
        return f"{'>= ' if self.censored else ''}{self.value:.2f}"


def subsets(members: int, size: int, limit: int, seed: int) -> list[tuple[int, ...]]:
    """The subsets of `size` of `members` members, in order: all if there are at most `limit`, else as many drawn.

    Drawn without repetition, uniformly, from `seed`, `members` and `size` alone.
    """
    count = math.comb(members, size)
    if count <= limit:
        return list(itertools.combinations(range(members), size))
    generator = rng(seed, f"subsets of {members}", size)
    drawn: set[tuple[int, ...]] = set()
    while len(drawn) < limit:
        drawn.add(tuple(sorted(generator.choice(members, size, replace=False).tolist())))
    return sorted(drawn)


def equivalent_curve(
    val_log_probs: "Tensor",
    val_labels: "Tensor",
    log_probs: "Tensor",
    labels: "Tensor",
    *,
    limit: int = SUBSETS,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """c(l) = mean over subsets S of l members of the calibrated NLL of S, l = 1..M, in nats.

    After Ashukha et al. 2020 (arXiv:2002.06470). Each subset is pooled and gets a temperature of its own,
    fitted on the validation split. A list of {members, mean, std, n, of}: the sample standard deviation over subsets,
    None where n = 1; n subsets were measured `of` as many as there are. The subsets share members, so std is their
    spread and not an error of the mean.

    val_log_probs (M, N_val, K), log_probs (M, N, K) of the same members on the test split, labels (N_val,) and (N,)
    integers in 0..K-1; at most `limit` subsets of a size, drawn from `seed`. Raises `InputError` where one is unusable.
    """
    # Here alone, as they bring torch, which the simulation's summary of equivalents goes without.
    from divkd.shared.metrics.calibration import calibrated_nll, fit_pooled
    from divkd.shared.metrics.checks import check_splits
    from divkd.shared.metrics.quality import pool

    val_labels, labels = check_splits(val_log_probs, val_labels, log_probs, labels)
    if limit < 1:
        raise InputError(f"limit is {limit}; at least 1 subset of each size is needed")
    val, test = val_log_probs.detach(), log_probs.detach()
    temperature, curve = 1.0, []
    for size in range(1, len(val) + 1):
        values = []
        for chosen in map(list, subsets(len(val), size, limit, seed)):
            temperature = fit_pooled(pool(val[chosen]), val_labels, start=temperature).value
            values.append(calibrated_nll(pool(test[chosen]), labels, temperature))
        curve.append({"members": size, **summarise(values), "of": math.comb(len(val), size)})
    return curve


def equivalent(curve: Sequence[dict[str, Any]], cal_nll: float) -> Equivalent:
    """DEE = min {l >= 1 : c(l) <= cal_nll}, c the piecewise-linear curve of `equivalent_curve`.

    1 where the model is no better than one member; censored, and the largest size measured, where it is better than
    every size; the first crossing where the curve is not monotone. Where c falls from +inf, it does so at the end of
    the segment. Raises `InputError` where the curve is empty or does not count 1, 2, 3, ..., or the NLL is NaN.
    """
    if math.isnan(cal_nll):
        raise InputError("the model's calibrated NLL is nan; a number of nats is needed")
    if not curve or [row["members"] for row in curve] != list(range(1, len(curve) + 1)):
        raise InputError("the curve must hold the sizes 1, 2, 3, ... in order: use equivalent_curve")
    means = [row["mean"] for row in curve]
    if cal_nll >= means[0]:
        return Equivalent(1.0, censored=False)
    for size, (left, right) in enumerate(itertools.pairwise(means), start=1):
        if right <= cal_nll:
            part = 1.0 if math.isinf(left) else (left - cal_nll) / (left - right)
            return Equivalent(size + part, censored=False)
    return Equivalent(float(len(curve)), censored=True)


def summarise_equivalents(runs: Iterable[Equivalent]) -> dict[str, Any]:
    """{mean, std, n, censored}: over runs, each with its own curve; `censored` is the share that reached the end.

    A censored run counts as the largest size measured, so with a share above 0 the mean is a lower bound.
    """
    runs = list(runs)
    return {**summarise(run.value for run in runs), "censored": sum(run.censored for run in runs) / len(runs)}
