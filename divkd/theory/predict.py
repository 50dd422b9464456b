"""What the theory expects at these sizes: the winning view, and the errors of single models and of ensembles."""

from itertools import product
from math import comb

import numpy as np

from divkd.theory.config import Interval, MultiViewConfig
from divkd.theory.data import Samples


def lottery_winners(strengths: np.ndarray, samples: Samples, config: MultiViewConfig) -> np.ndarray:
    """argmax_l Lambda_{i,l}^(0) S_{i,l}^(1/(q-2)), S_{i,l} = E[1_{y=i} sum_p z_p^q], as (M, k) of 0 or 1.

    Following Allen-Zhu and Li, arXiv 2012.09816 (the tensor-power race, Lemma D.19). `strengths` (M, k, 2) are
    those at the start; S is taken over the training samples. For q = 2 growth is exponential and S alone decides.
    """
    shape = (config.classes, 2)
    own = samples.feature // 2 == samples.labels[:, None]
    race = np.zeros(shape)
    feature = samples.feature[own]
    np.add.at(race, (feature // 2, feature % 2), samples.weight[own].astype(np.float64) ** config.power)
    with np.errstate(divide="ignore"):
        head_start = np.log(strengths.astype(np.float64)) * (config.power - 2)
        winners: np.ndarray = (head_start + np.log(race)).argmax(-1)
    return winners


def single_error(config: MultiViewConfig, ties: float) -> float:
    """1/2 (1 - ties) (1 - (1 - s/k)^(k-1)): the drawn view is unknown and some other class shows its learned view.

    `ties` is the share of classes that know both views. Theorem 1 of Allen-Zhu and Li (1/2 within 2 %) is the limit
    of many present features and no ties; this is its finite-size form, on single-view samples.
    """
    return 0.5 * (1 - ties) * (1 - (1 - config.expected_others / config.classes) ** (config.classes - 1))


def ensemble_error(config: MultiViewConfig, members: int, ties: float, strength: float, points: int = 4) -> float:
    """Error on single-view samples of K = `members` summed networks: the coverage of the views and its tail.

    A member knows one view of a class, either with probability (1 - ties) / 2, or both; members are independent. Let
    b ~ Binomial(K, (1 + ties) / 2) of them know the drawn view of class y, K - b the missing one alone. With h(z)
    the output of one member for a feature of weight z that it knows, class y scores

        A_b = b C_p h(own / C_p) + c h(missing),   c = members that know the missing view

    and a class j, each of whose views is present with probability s/k, scores the sum over its present views of
    h(z) times the members that know that view, z ~ Gamma. The sample is wrong if one of the k - 1 competitors scores
    above A_b:

        error = sum_b P(b) (1 - (1 - P(competitor > A_b))^(k-1)).

    h(z) = varrho sReLU(z Lambda) with one neuron of `strength` Lambda, the mean strength of learned views. With
    K = 1 this is `single_error`; for h(z) -> 0 at z <= Gamma it is 2^-K, the asymptote. Own weights are set to the
    middle of their intervals, Gamma is integrated over `points` equal parts of its own.
    """

    def response(z: float) -> float:
        u = z * strength
        return min(u, 1.0) ** config.power / config.power + max(u - 1.0, 0.0)

    own = config.own_patches * response(_middle(config.own_weight) / config.own_patches)
    missing = response(_middle(config.missing_weight))
    low, high = config.other_weight_single
    weights = [low + (high - low) * (part + 0.5) / points for part in range(points)]
    present = config.expected_others / config.classes

    known = _known(members, ties)
    # the competitor's score and its probability, over who knows its views, which are present, and their weights
    scores: list[tuple[float, float]] = []
    for (first, second), probability in known.items():
        for shown_first, shown_second in product((0, 1), repeat=2):
            chance = probability * present ** (shown_first + shown_second)
            chance *= (1 - present) ** (2 - shown_first - shown_second)
            for z_first, z_second in product(weights, repeat=2):
                score = shown_first * first * response(z_first) + shown_second * second * response(z_second)
                scores.append((score, chance / points**2))
    score, chance = np.array(scores).T
    error = 0.0
    for (drawn, other), probability in known.items():
        beaten = float(chance[score > drawn * own + other * missing].sum())
        error += probability * (1 - (1 - beaten) ** (config.classes - 1))
    return error


def _known(members: int, ties: float) -> dict[tuple[int, int], float]:
    """P(x members know the first view, y the second): both with probability `ties`, else one of the two."""
    table: dict[tuple[int, int], float] = {}
    for both in range(members + 1):
        tied = comb(members, both) * ties**both * (1 - ties) ** (members - both)
        for first in range(members - both + 1):
            key = (first + both, members - first)
            table[key] = table.get(key, 0.0) + tied * comb(members - both, first) * 0.5 ** (members - both)
    return table


def _middle(interval: Interval) -> float:
    return (interval[0] + interval[1]) / 2
