"""What the theory expects at these sizes: the winning view, and the errors of single models and of ensembles."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from math import comb

import numpy as np

from divkd.theory import evaluate
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import Samples

WEIGHT_POINTS = 8  # equal parts of Gamma's interval, as far as what a competitor's V views show has COMBINATIONS
COMBINATIONS = 1000
NEGLIGIBLE = 1e-9  # the probability of a pattern of known views that is left out, of other than two views

Ties = float | Sequence[float]  # the shares of classes of which a network knows 2, ..., V views; else it knows one


def lottery_winners(strengths: np.ndarray, samples: Samples, config: MultiViewConfig) -> np.ndarray:
    """argmax_l Lambda_{i,l}^(0) S_{i,l}^(1/(q-2)), S_{i,l} = E[1_{y=i} sum_p z_p^q], as (M, k) of 0 to V - 1.

    Following Allen-Zhu and Li, arXiv 2012.09816 (the tensor-power race, Lemma D.19). `strengths` (M, k, V) are
    those at the start; S is taken over the training samples. For q = 2 growth is exponential and S alone decides.
    """
    own = samples.feature // config.views == samples.labels[:, None]
    strides = samples.weight[own].astype(np.float64) ** config.power
    race = np.bincount(samples.feature[own], strides, config.features).reshape(-1, config.views)
    with np.errstate(divide="ignore"):
        start = np.log(strengths.astype(np.float64)) * (config.power - 2) if config.power > 2 else 0 * strengths
        return np.asarray((start + np.log(race)).argmax(-1))


def lottery_times(strengths: np.ndarray, samples: Samples, config: MultiViewConfig) -> np.ndarray:
    """When a view of strength Lambda^(0) reaches varrho if nothing stops it, as flow times (M, k, V).

        t = int_{Lambda^(0)}^{1} da / v(a),   v(a) = varrho E[(1_{y=i} - 1/k) sum_p z_p E_g sReLU'(z_p a + g)]

    in units of varrho, over the patches that hold the view, g ~ N(0, (sigma_0 nu)^2): the tensor-power race of
    Allen-Zhu and Li, Lemma D.19, whose v is a^(q-1) times a constant, with what the noise of a patch adds while views
    are no stronger than it. Probabilities stay at 1/k until the first views arrive. `strengths` (M, k, V) are those at
    the start; infinite where the view does not grow.
    """
    nodes, shares = np.polynomial.hermite_e.hermegauss(24)
    start = strengths.astype(np.float64)
    grid = np.geomspace(min(start[start > 0].min(), 0.5), 1.0, 240)
    times = np.empty(start.shape)
    for i, view in np.ndindex(config.classes, config.views):
        sample, patch = np.nonzero(samples.feature == config.views * i + view)
        pull = (samples.labels[sample] == i) - 1 / config.classes
        z, place = np.unique(samples.weight[sample, patch].astype(np.float64).round(2), return_inverse=True)
        factor = np.bincount(place, pull, len(z)) * z  # over patches of nearly the same weight
        u = z[:, None, None] * grid[:, None] + config.init_scale * config.noise * nodes
        slope = np.clip(u, 0, 1) ** (config.power - 1) @ (shares / shares.sum())  # (z, grid)
        speed = config.logit_scale / len(samples) * (factor @ slope)
        pace = np.where(speed > 0, 1 / np.where(speed > 0, speed, 1), np.inf)
        left = np.append(np.cumsum((0.5 * (pace[1:] + pace[:-1]) * np.diff(grid))[::-1])[::-1], 0.0)
        times[:, i, view] = np.where(start[:, i, view] > 0, np.interp(start[:, i, view], grid, left), np.inf)
    return times


def single_error(config: MultiViewConfig, ties: Ties) -> float:
    """sum_c p_c (V - c)/V (1 - (1 - s/k)^(k-1)): the drawn view is unknown, and some other class shows its learned one.

    p_c is the share of classes of which c views are known: `ties` from c = 2 on. With two views that is (1 - ties)/2.
    Theorem 1 of Allen-Zhu and Li (two views, 1/2 within 2 %) is the limit of many present features and no ties, in
    which V views give (V - 1)/V; this is its finite-size form, on single-view samples.
    """
    missed = sum(share * (1 - count / config.views) for count, share in enumerate(_shares(ties), 1))
    return missed * (1 - (1 - config.expected_others / config.classes) ** (config.classes - 1))


def asymptotic_error(views: int, members: int) -> float:
    """((V - 1)/V)^K: no member knows the drawn view, with none of `views` more often learned than another."""
    return float((1 - 1 / views) ** members)


def ensemble_error(config: MultiViewConfig, members: int, ties: Ties, strength: float) -> float:
    """Error on single-view samples of K = `members` summed networks: the coverage of the views and its tail.

    A member knows c of a class's V views, any c alike, with probability p_c (`ties`, see `single_error`); members are
    independent. Let n = (n_1, ..., n_V) of them know each view of a class, P(n) multinomial with p_1 = 1, where
    n_1 ~ Binomial(K, 1/V). Of class y let the first be drawn: b = n_1 know it, c = n_2 + ... + n_V a missing one. With
    h(z) the output of one member for a feature of weight z that it knows, class y scores

        A_{b,c} = b C_p h(own / C_p) + c h(missing)

    and a class j, each of whose views is present with probability s/k, scores the sum over its present views of
    h(z) times the members that know that view, z ~ Gamma. The sample is wrong if one of the k - 1 competitors scores
    above A:

        error = sum_n P(n) (1 - (1 - P(competitor > A_{b,c}))^(k-1)).

    h(z) = varrho sReLU(z Lambda) of one neuron with `strength` Lambda, the mean strength of learned views. K = 1
    without ties is `single_error`; h(Gamma) -> 0 with every feature present gives ((V - 1)/V)^K, the asymptote. Own
    and missing weights are set to the middle of their intervals, Gamma is integrated over its own.
    """
    known = _known_of_two(members, _shares(ties)[1]) if config.views == 2 else _known(config.views, members, ties)
    counts, probability = np.array(list(known)), np.array(list(known.values()))
    scores, chances = _scores(config, counts, strength)
    own, place = np.unique(_own_scores(config, counts[:, 0], counts.sum(1), strength), return_inverse=True)
    beaten = np.array([(scores > score) @ chances for score in own])[place]  # (drawn b and c, competitor's counts)
    return float(probability @ (1 - (1 - beaten @ probability) ** (config.classes - 1)))


def union_error(config: MultiViewConfig, networks: int, ties: Ties, strength: float, cells: float) -> dict[str, float]:
    """{mean, std} of the error of one network that knows what `networks` independent lotteries know between them.

    Each knows 1, 2, ..., V views of a class, with the shares `ties` of 2, ..., V; x of the V views are missed by all n
    networks. The error, of the samples that show one of these, is that of one network with so many views a class,

        mean = `ensemble_error` of K = 1 with the shares of V - x,    E x / V = (1 - E(views of one) / V)^n,

    of two views u c / 2 with u = (1 - ties)^n / 2^(n-1), c -> 1 the probability that some other class shows a view that
    is known: 2^-n in the limit of many classes without ties. n = 2 is self-distillation (1/4 of Allen-Zhu and Li's
    Theorem 4), n + 1 the link S_n of a chain.

    std is that of the mean over `cells` independent pairs of (network, class), each wrong in c x / V of its samples:
    std = mean sd(x) / (E x sqrt(cells)), with two views c / 2 sqrt(u (1 - u) / cells).
    """
    missed: dict[int, float] = defaultdict(float)  # the chance of x
    for counts, chance in _known(config.views, networks, ties).items():
        missed[counts.count(0)] += chance
    mean = ensemble_error(config, 1, [missed[config.views - known] for known in range(2, config.views + 1)], strength)
    of_x = sum(x * chance for x, chance in missed.items())
    variance = sum((x - of_x) ** 2 * chance for x, chance in missed.items())
    return {"mean": mean, "std": mean * float(np.sqrt(variance / cells)) / of_x if of_x else 0.0}


def coverage_errors(config: MultiViewConfig, learned: np.ndarray, strength: float) -> np.ndarray:
    """`ensemble_error` given which views `learned` (M, k, V) members know, for ensembles of K = 1..M, (M,).

    The same scores with counted instead of binomial numbers of members, averaged over the cyclic windows of
    `evaluate.errors_by_members`. What it leaves unexplained is not coverage; what it explains beyond `ensemble_error`
    is the luck of these members.
    """
    errors = np.zeros(len(learned))
    for index, counts in enumerate(evaluate.windows(learned.astype(np.int64))):
        for window in counts:
            scores, chances = _scores(config, window, strength)  # (k, S)
            own = _own_scores(config, window, window.sum(1, keepdims=True), strength)  # (k, drawn view)
            safe = 1 - (scores[None, None] > own[:, :, None, None]) @ chances  # (y, drawn view, competitor)
            safe[np.arange(config.classes), :, np.arange(config.classes)] = 1
            errors[index] += (1 - safe.prod(2)).mean() / len(counts)
    return errors


def _response(config: MultiViewConfig, z: np.ndarray | float, strength: float) -> np.ndarray:
    """h(z) / varrho = sReLU(z Lambda)."""
    u = np.asarray(z) * strength
    return np.asarray(np.minimum(u, 1.0) ** config.power / config.power + np.maximum(u - 1.0, 0.0))


def _shares(ties: Ties) -> tuple[float, ...]:
    """p_1, p_2, ..., p_V."""
    more = tuple(np.atleast_1d(ties).tolist())
    return (1 - sum(more), *more)


def _own_scores(config: MultiViewConfig, drawn: np.ndarray, known: np.ndarray, strength: float) -> np.ndarray:
    """A_{b,c} / varrho of b members that know the `drawn` view, b + c `known` views in all of them."""
    middle_own, middle_missing = (sum(interval) / 2 for interval in (config.own_weight, config.missing_weight))
    own = config.own_patches * _response(config, middle_own / config.own_patches, strength)
    return np.asarray(drawn * own + (known - drawn) * _response(config, middle_missing, strength))


def _scores(config: MultiViewConfig, counts: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Possible scores / varrho (C, S) of competitors whose views `counts` (C, V) members know; their chances (S,)."""
    low, high = config.other_weight_single
    points = min(WEIGHT_POINTS, max(1, round(COMBINATIONS ** (1 / config.views)) - 1))
    weights = low + (high - low) * (np.arange(points) + 0.5) / points
    present = config.expected_others / config.classes
    response = np.append(_response(config, weights, strength), 0.0)  # of a view that shows, or does not
    chance = np.append(np.full(points, present / points), 1 - present)
    scores, chances = np.zeros((len(counts), 1)), np.ones(1)
    for of_view in counts.T:
        scores = (scores[:, :, None] + of_view[:, None, None] * response).reshape(len(counts), -1)
        chances = np.outer(chances, chance).ravel()
    return scores, chances


def _known(views: int, members: int, ties: Ties) -> dict[tuple[int, ...], float]:
    """P(n): n_1 members know the first view, the others n_2 <= ... <= n_V, one member after another."""
    shares = _shares(ties)
    known = [one for one in product((0, 1), repeat=views) if any(one) and shares[sum(one) - 1]]
    table = {(0,) * views: 1.0}
    for _ in range(members):
        after: dict[tuple[int, ...], float] = defaultdict(float)
        for counts, chance in table.items():
            for one in known:
                first, *rest = (count + more for count, more in zip(counts, one, strict=True))
                after[first, *sorted(rest)] += chance * shares[sum(one) - 1] / comb(views, sum(one))
        table = {counts: chance for counts, chance in after.items() if chance > NEGLIGIBLE}
    return table


def _known_of_two(members: int, ties: float) -> dict[tuple[int, int], float]:
    """P(x members know the first view, y the second): both with probability `ties`, else one of the two."""
    table: dict[tuple[int, int], float] = defaultdict(float)
    for both in range(members + 1):
        tied = comb(members, both) * ties**both * (1 - ties) ** (members - both)
        for first in range(members - both + 1):
            table[first + both, members - first] += tied * comb(members - both, first) * 0.5 ** (members - both)
    return table


def label_strength(config: MultiViewConfig, flow_time: float) -> float:
    """Lambda(t) of a learned view after the `flow_time` t on labels, from when its class's samples were first fitted:

        F_y = varrho (W Lambda - C_p (1 - 1/q)),   dLambda/dt = varrho W / k (1 - p_y),   1 - p_y = (k - 1) e^-F_y,
        F_y = log(1 + (1 - 1/k) varrho^2 W^2 t),

    W the middle of the own weights: one neuron, in its linear part, driven by the multi-view samples of its class.
    """
    weight = sum(config.own_weight) / 2
    margin = np.log1p((1 - 1 / config.classes) * (config.logit_scale * weight) ** 2 * flow_time)
    return float((margin / config.logit_scale + config.own_patches * (1 - 1 / config.power)) / weight)


def race_time(config: MultiViewConfig) -> float:
    """int da / v(a) from sigma_0 (2 log 2m)^1/2 to 1 / z, v = varrho (k - 1) / k^2 C_p z^q a^(q-1), z = W / C_p.

    The tensor-power race of the typical winner of 2m tickets, in flow time; `lottery_times` has it for given tickets.
    """
    z, _ = _teaching(config)
    grid = np.geomspace(min(_ticket(config), 0.5 / z), 1 / z, 400)
    speed = config.logit_scale * (config.classes - 1) / config.classes**2 * config.own_patches * z**config.power
    return float(np.trapezoid(grid ** (1.0 - config.power), grid) / speed)


def second_views(config: MultiViewConfig, gamma: np.ndarray, strength: float) -> np.ndarray:
    """a_2 / a_1 of a class's neuron when its view has reached `strength`, for weights `gamma` of feature noise.

    The patches that teach a view teach its neuron all other features too, by alpha ~ U[0, gamma], and these then make
    patches of the class's other view active. On multi-view samples, of the class (weights z = W / C_p) and of others
    (one patch of weight z_o with probability p = s / k, which together push down as hard), with s = sReLU',

        da_2 / da_1 = R_2 / R_1,   R_1 = C_p z E s(z a_1 + g) - p z_o E s(z_o a_1 + g),
        R_2 = gamma / 2 (C_p E s(z a_1 + g) - p E s(z_o a_1 + g))
              + C_p z E s(z a_2 + alpha a_1 + g) - p z_o E s(z_o a_2 + alpha a_1 + g),   g ~ N(0, (sigma_0 nu)^2),

    from a_1 = sigma_0 (2 log 2m)^1/2, the typical winner of 2m tickets, and a_2 = 0. What other classes' features take
    is left out: training holds the output of patches without a feature near 0. Without feature noise the ratio falls
    back to 0; with q = 3 and without g or other classes, a_2 follows a_1 for good from about
    gamma = z / 4 on.
    """
    (z, other), shown = _teaching(config), config.expected_others / config.classes
    nodes, shares = np.polynomial.hermite_e.hermegauss(16)
    noise, shares = config.init_scale * config.noise * nodes, shares / shares.sum()
    alpha = gamma[:, None, None] * (np.arange(4)[:, None] + 0.5) / 4  # (gamma, alpha, g)
    patches, pull = config.own_patches, config.own_patches * z

    def active(u: np.ndarray) -> np.ndarray:
        return np.asarray((np.clip(u + noise, 0, 1) ** (config.power - 1) @ shares).mean(-1))

    grid = np.geomspace(_ticket(config), strength, 400)
    second = np.zeros(len(gamma))
    for first, after in itertools.pairwise(grid):
        own, others = active(np.full((1, 1, 1), z * first)), active(np.full((1, 1, 1), other * first))
        more = pull * active(z * second[:, None, None] + alpha * first)
        more -= other * shown * active(other * second[:, None, None] + alpha * first)
        speed = gamma / 2 * (patches * own - shown * others) + more
        second += (after - first) * speed / (pull * own - other * shown * others)
    return second / strength


def feature_noise_limits(config: MultiViewConfig) -> dict[str, float]:
    """gamma at which feature noise ends a claim: where `second_views` reaches the quarter that counts as learned.

    A class then learns its other view with the first, and there is no lottery. `single` stops at the strength that
    labels alone give after the `race_time`; `labels_only`, and with it `self_distilled`, go on for T'. Ensembles are
    not foreseen, nor are the errors of networks that know both views.
    """
    gamma, race = np.geomspace(1e-3, 10, 200), race_time(config)
    found = []
    for flow_time in (race, race + config.distill_time):
        ratio = np.maximum.accumulate(second_views(config, gamma, label_strength(config, flow_time)))
        found.append(float(np.interp(0.25, ratio, gamma)))
    return {"single": found[0], "self_distilled": found[1], "labels_only": found[1]}


def _teaching(config: MultiViewConfig) -> tuple[float, float]:
    """Middle weights of a patch: of an own view, and of another class's feature in a multi-view sample."""
    return sum(config.own_weight) / 2 / config.own_patches, sum(config.other_weight) / 2


def _ticket(config: MultiViewConfig) -> float:
    return float(config.init_scale * (2 * np.log(2 * config.neurons)) ** 0.5)
