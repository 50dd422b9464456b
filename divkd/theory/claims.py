"""The claims table: what was measured over seeds, beside the theorem's bound and the finite-size prediction."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from divkd.shared.config import Interval
from divkd.shared.kinds import LINKS
from divkd.shared.stats import summarise
from divkd.shared.verdicts import TOLERANCE, verdicts
from divkd.theory import predict
from divkd.theory.config import MultiViewConfig
from divkd.theory.roster import rows_of, self_teachers


class SeedResult(NamedTuple):
    """One seed, as `experiment` measured it: JSON's own types, `SeedResult(**record)` of `result._asdict()`."""

    errors: dict[str, dict[str, float]]  # of every claim: on "train", "multi_view", "single_view" and "test" samples
    by_members: list[float]  # (M,) single-view errors of ensembles of 1..M
    covered: list[float]  # (M,) the same, as the members' views foresee them
    uncovered: list[float]  # (M,) share of the views that no member of an ensemble knows
    strength: float  # mean strength of a learned view
    views: dict[str, Any]  # shares of views, learned and foreseen; None where there is nothing to share
    predicted: dict[str, float]  # error of students that know the views of all members, "union", of two, "pair", or
    # those of a teacher and of their own lottery, "chain_1", ...
    traces: dict[str, Any]  # what figures show
    judged: dict[str, Any]  # by the shared metrics (`evaluate.judged`); empty where there was no validation
    at_most: list[float]  # (V - 1,) share of classes of which a network knows at most 1, 2, ... views


class Measured(NamedTuple):
    """Means over seeds that claims are held against."""

    errors: dict[str, float]  # of every claim, on single-view samples
    test_errors: dict[str, float]
    ensemble: float  # as predicted
    views: dict[str, float]


Prediction = Callable[[MultiViewConfig, list[SeedResult]], dict[str, Any]]


def _as_single(config: MultiViewConfig, seeds: list[SeedResult]) -> dict[str, Any]:
    return {"predicted": predict.single_error(config, _ties(seeds))}


def _as_ensemble(config: MultiViewConfig, seeds: list[SeedResult]) -> dict[str, Any]:
    ties, strength = _ties(seeds), _mean(seed.strength for seed in seeds)
    rows = []
    for index in range(config.members):
        summary = summarise(float(seed.by_members[index]) for seed in seeds)
        row = {"members": index + 1, "single_view_error": summary.pop("mean"), **summary}
        row["predicted"] = predict.ensemble_error(config, index + 1, ties, strength)
        row["predicted_from_views"] = _mean(seed.covered[index] for seed in seeds)
        row["asymptotic"] = predict.asymptotic_error(config.views, index + 1)
        row["uncovered"] = _mean(seed.uncovered[index] for seed in seeds)
        rows.append(row)
    return {"members": config.members, "predicted": rows[-1]["predicted"], "by_members": rows}


def _by_views(of: str) -> Prediction:
    return lambda config, seeds: {"predicted": _mean(seed.predicted[of] for seed in seeds)}


def _by_lotteries(name: str, of: str, networks: int) -> Prediction:
    """As `_by_views`, and beside it what the lotteries of so many networks foresee, with the spread of a seed."""

    def predicted(config: MultiViewConfig, seeds: list[SeedResult]) -> dict[str, Any]:
        strength, teachers, rows = _mean(seed.strength for seed in seeds), self_teachers(config), rows_of(config, name)
        same = Counter(frozenset((row, teachers[row])) if name == "self_distilled" else row for row in rows)
        independent = len(rows) ** 2 / sum(count**2 for count in same.values())  # of two members, each may go on
        foreseen = predict.union_error(config, networks, _ties(seeds), strength, independent * config.classes)
        return _by_views(of)(config, seeds) | {"by_lotteries": foreseen}

    return predicted


class Claim(NamedTuple):
    """A claim or a control: its bound, what is accepted at these sizes, and how it is predicted.

    `bound` is of errors on single-view samples, in shares of those samples: a test error of x mu is an error x on the
    share mu of single-view samples. Theorems 1 to 4 of Allen-Zhu and Li bound the claims that `kinds.CLAIMS` marks;
    the controls are expected to do as a single network, or as their ensemble; None is neither.

    `holds` says whether the claim is accepted, from its own error on single-view samples; train error 0 and multi-view
    error 0 come beside it.
    """

    bound: Interval | None
    accepted: str  # in words
    holds: Callable[[float, Measured], bool]
    predicted: Prediction = _as_single


def _near(name: str, distance: float) -> Callable[[float, Measured], bool]:
    return lambda error, m: abs(error - m.errors[name]) <= distance


def _below(name: str, share: float) -> Callable[[float, Measured], bool]:
    return lambda error, m: error <= share * m.errors[name]


SINGLE: Interval = (0.49, 0.51)
NEXT_TO_NONE: Interval = (0.0, 0.001)
QUARTER: Interval = (0.0, 0.26)

CLAIMS = {
    "single": Claim(SINGLE, "0.48 to 0.51", lambda error, m: 0.48 <= error <= 0.51),
    "ensemble": Claim(
        NEXT_TO_NONE,
        "at most 0.02, within 0.02 of the prediction",
        lambda error, m: error <= 0.02 and abs(error - m.ensemble) <= 0.02,
        _as_ensemble,
    ),
    "distilled": Claim(
        NEXT_TO_NONE,
        "at most 0.01, with 99 % of the views",
        lambda error, m: error <= 0.01 and m.views["distilled_views"] >= 0.99,
        _by_views("union"),
    ),
    "self_distilled": Claim(
        QUARTER,
        "0.20 to 0.30; learned 0.96 inside the union, at most 0.12 outside",
        lambda error, m: (
            0.20 <= error <= 0.30
            and m.views["learned_inside_union"] >= 0.96
            and not m.views["learned_outside_union"] > 0.12
        ),
        _by_lotteries("self_distilled", "pair", 2),
    ),
    "chain_1": Claim(
        QUARTER,
        "0.20 to 0.30",
        lambda error, m: 0.20 <= error <= 0.30,
        _by_lotteries("chain_1", "chain_1", 2),
    ),
    **{
        f"chain_{n}": Claim(
            None,
            f"at most 0.8 of the error of S_{n - 1}",
            _below(f"chain_{n - 1}", 0.8),
            _by_lotteries(f"chain_{n}", f"chain_{n}", n + 1),
        )
        for n in range(2, LINKS + 1)
    },
    "labels_only": Claim(SINGLE, "within 0.03 of single", _near("single", 0.03)),
    "trained_jointly": Claim(SINGLE, "above 0.38", lambda error, m: error > 0.38),
    "trained_jointly_average": Claim(SINGLE, "above 0.38", lambda error, m: error > 0.38),
    "ensemble_of_distilled": Claim(
        NEXT_TO_NONE, "within 0.01 of one student", _near("distilled", 0.01), _by_views("union")
    ),
    "distilled_without_others": Claim(SINGLE, "within 0.03 of single", _near("single", 0.03)),
    "distilled_temperature": Claim(None, "at most 0.01", lambda error, m: error <= 0.01, _by_views("union")),
    "distilled_mixed": Claim(None, "at most 0.01", lambda error, m: error <= 0.01, _by_views("union")),
}

# What the paper's introduction expects of its two classes, on a test set of their mixture; no theorem bounds it.
TOY = {
    "single": Claim(None, "92 to 96 % of the test set right", lambda _, m: 0.04 <= m.test_errors["single"] <= 0.08),
    "ensemble": CLAIMS["ensemble"]._replace(
        bound=None,
        accepted="at least 99.5 % of the test set right",
        holds=lambda _, m: m.test_errors["ensemble"] <= 0.005,
    ),
}


def asymptotic(name: str, config: MultiViewConfig) -> Interval | None:
    """What is expected of a claim where a class has other than two views, of which no theorem speaks: in place of
    1/2 and 1/4 come (V - 1)/V and its square, in place of next to none the coverage of M members, ((V - 1)/V)^M."""
    views, bound = config.views, CLAIMS[name].bound
    if bound is None:
        return None
    one, two, all_of_them = (round(predict.asymptotic_error(views, count), 3) for count in (1, 2, config.members))
    if bound == SINGLE:
        return max(round(one - 0.01, 3), 0.0), round(one + 0.01, 3)
    return 0.0, round(two + 0.01, 3) if bound == QUARTER else max(all_of_them, 0.001)


def table(config: MultiViewConfig, seeds: list[SeedResult]) -> dict[str, Any]:
    """claims.<name>: errors as {mean, std, n} over seeds, `bound`, `predicted`, `accepted` (in words), `holds`, and the
    `verdicts` of `divkd.shared.verdicts`.

    `test_error` is that on the training distribution, of which the share mu is single-view.
    Predictions take two numbers from the networks, averaged over seeds: the share of classes with both views known,
    and the strength of a learned view; those of students take the views that their teachers learned, and those that
    S_1, S_2, ... win by their own start. `by_lotteries` {mean, std} takes no views: `predict.union_error`. With other
    than two views bounds are `asymptotic`, no theorem's, and accepted is what is as predicted.
    """
    two = config.views == 2
    claims = TOY if config.preset == "toy" and not config.students and two else CLAIMS
    rows: dict[str, Any] = {}
    for name in sorted(seeds[0].errors, key=list(CLAIMS).index):
        rows[name] = {
            f"{kind}_error": summarise(seed.errors[name][kind] for seed in seeds)
            for kind in ("train", "multi_view", "single_view", "test")
        } | claims[name].predicted(config, seeds)

    measured = Measured(
        {name: row["single_view_error"]["mean"] for name, row in rows.items()},
        {name: row["test_error"]["mean"] for name, row in rows.items()},
        rows["ensemble"]["predicted"],
        {name: summary["mean"] for name, summary in view_shares(seeds).items()},
    )
    for name, row in rows.items():
        exact = row["train_error"]["mean"] == 0 and row["multi_view_error"]["mean"] == 0
        as_predicted = _near(name, TOLERANCE)(row["predicted"], measured)
        holds = exact and (claims[name].holds(measured.errors[name], measured) if two else as_predicted)
        bound = claims[name].bound if two else asymptotic(name, config)
        accepted = claims[name].accepted if two else f"within {TOLERANCE} of the prediction"
        row |= {"bound": bound, "accepted": accepted, "holds": holds, "views": config.views}
        row["verdicts"] = verdicts(name, row)
    return rows


def view_shares(seeds: list[SeedResult]) -> dict[str, dict[str, Any]]:
    """Shares of views learned and foreseen, each {mean, std, n} over the seeds in which there is something to share.

    Where two networks know every view between them, no view is outside their union.
    """
    shares = {name: [seed.views[name] for seed in seeds] for name in seeds[0].views}
    return {name: summarise([v for v in values if v is not None] or [np.nan]) for name, values in shares.items()}


def _ties(seeds: list[SeedResult]) -> list[float]:
    """The shares of classes of which a network knows 2, ..., V views."""
    edges = [*(_mean(shares) for shares in zip(*(seed.at_most for seed in seeds), strict=True)), 1.0]
    return [high - low for low, high in itertools.pairwise(edges)]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
