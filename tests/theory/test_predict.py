import dataclasses

import numpy as np
import pytest

from divkd.theory import claims, descent, evaluate, predict
from divkd.theory.config import PRESETS
from divkd.theory.data import training_samples
from divkd.theory.engines import limit

FIRST = dataclasses.replace(PRESETS["default"], expected_others=3.0)


def test_single_prediction_is_the_number_of_the_facts():
    assert predict.single_error(FIRST, 0.0) == pytest.approx(0.480, abs=5e-4)  # k = 10, s = 3, no ties
    assert predict.single_error(FIRST, 1.0) == 0


@pytest.mark.parametrize("ties", [0.0, 0.05, 0.3])
def test_an_ensemble_of_one_is_the_single_model(ties):
    # with ties, a competitor may show a second known view: a little more than the formula for one view a class
    assert predict.ensemble_error(FIRST, 1, 0.0, 4.0) == pytest.approx(predict.single_error(FIRST, 0.0), abs=1e-12)
    assert predict.ensemble_error(FIRST, 1, ties, 4.0) >= predict.single_error(FIRST, ties) - 1e-12
    assert predict.ensemble_error(FIRST, 1, ties, 4.0) == pytest.approx(0.5 * (1 - ties), abs=0.021)


def test_faint_competitors_leave_the_coverage_alone():
    """Gamma -> 0 and rho = 0, many other features: wrong exactly where no member knows the drawn view, 2^-K."""
    faint = dataclasses.replace(
        FIRST, other_weight_single=(1e-3, 1e-3), missing_weight=(0.0, 0.0), expected_others=10.0
    )
    for members in range(1, 11):
        assert predict.ensemble_error(faint, members, 0.0, 4.0) == pytest.approx(0.5**members)


def test_prediction_agrees_with_drawing_the_same_story():
    config, members, strength = FIRST, 4, 4.0
    generator = np.random.default_rng(0)
    draws = 40_000
    first = generator.random((draws, members, config.classes)) < 0.5
    known = np.stack([first, ~first], -1).sum(1)  # (draws, k, 2); class 0 is y, its view 0 is drawn
    z = generator.uniform(*config.other_weight_single, (draws, config.classes, 2))

    def h(z):
        u = z * strength
        return np.clip(u, 0, 1) ** 3 / 3 + np.maximum(u - 1, 0)

    shown = generator.random(z.shape) < config.expected_others / config.classes
    scores = (known * shown * h(z)).sum(2)
    own = known[:, 0, 0] * 3 * h(1.1 / 3) + known[:, 0, 1] * h(0.125)
    error = (scores[:, 1:].max(1) > own).mean()
    assert predict.ensemble_error(config, members, 0.0, strength) == pytest.approx(error, abs=0.006)


def test_the_lottery_weighs_head_start_by_frequency():
    samples = training_samples(FIRST, 0)
    even = np.ones((1, 10, 2), np.float32)
    even[0, :, 1] = 1.5
    assert (predict.lottery_winners(even, samples, FIRST) == 1).all()
    even[0, :, 0] = 2.5
    assert (predict.lottery_winners(even, samples, FIRST) == 0).all()
    frequent = dataclasses.replace(samples, weight=np.where(samples.feature % 2 == 1, 2, 1) * samples.weight)
    assert (predict.lottery_winners(even, frequent, FIRST) == 1).all()  # 2^3 outweighs 2.5 / 1.5


def test_errors_by_members_average_over_cyclic_windows():
    generator = np.random.default_rng(1)
    outputs, labels = generator.standard_normal((3, 50, 4)), generator.integers(4, size=50)
    errors = evaluate.errors_by_members(outputs, labels)
    assert errors[0] == pytest.approx((outputs.argmax(2) != labels).mean())
    pairs = [outputs[a] + outputs[b] for a, b in ((0, 1), (1, 2), (2, 0))]
    assert errors[1] == pytest.approx(np.mean([(pair.argmax(1) != labels).mean() for pair in pairs]))
    assert errors[2] == pytest.approx((outputs.sum(0).argmax(1) != labels).mean())


def test_errors_do_not_depend_on_the_order_of_members_where_all_serve():
    generator = np.random.default_rng(2)
    outputs, labels = generator.standard_normal((4, 60, 3)), generator.integers(3, size=60)
    errors = evaluate.errors_by_members(outputs, labels)
    shuffled = evaluate.errors_by_members(outputs[[2, 0, 3, 1]], labels)
    assert shuffled[[0, 3]] == pytest.approx(errors[[0, 3]])
    assert evaluate.errors_by_members(np.repeat(outputs[:1], 4, 0), labels) == pytest.approx(
        np.full(4, errors_of(outputs[0], labels))
    )


def errors_of(outputs, labels):
    return (outputs.argmax(1) != labels).mean()


def test_uncovered_views_shrink_with_members():
    learned = np.zeros((2, 3, 2), bool)
    learned[0, :, 0] = learned[1, :2, 1] = learned[1, 2, 0] = True
    assert evaluate.uncovered_by_members(learned) == pytest.approx([0.5, 1 / 6])


def test_a_view_counts_as_learned_above_half_of_the_stronger_one():
    strengths = np.array([[[4.0, 0.01], [4.0, 3.0], [0.002, 4.0]]])
    assert evaluate.learned_views(strengths).tolist() == [[[True, False], [True, True], [False, True]]]


def test_given_views_average_to_the_binomial_prediction():
    generator = np.random.default_rng(3)
    strength = 4.0
    errors = []
    for _ in range(150):
        first = generator.random((5, FIRST.classes)) < 0.5
        errors.append(predict.coverage_errors(FIRST, np.stack([first, ~first], -1), strength))
    for members, error in enumerate(np.mean(errors, 0), start=1):
        assert predict.ensemble_error(FIRST, members, 0.0, strength) == pytest.approx(error, abs=0.012)


@pytest.mark.parametrize(("networks", "ties"), [(1, 0.0), (2, 0.0), (2, 0.1), (4, 0.0)])
def test_the_error_of_a_union_and_its_spread_are_those_of_drawn_lotteries(networks, ties):
    """Seeds of three networks, each of which knows what some lotteries know between them; the spread is over seeds."""
    generator, shape = np.random.default_rng(4), (400, 3, networks, FIRST.classes)
    first, both = generator.random(shape) < 0.5, generator.random(shape) < ties
    known = np.stack([first | both, ~first | both], -1).any(2)  # (seeds, 3, k, 2)
    seeds = [np.mean([predict.coverage_errors(FIRST, one[None], 4.0)[0] for one in seed]) for seed in known]
    foreseen = predict.union_error(FIRST, networks, ties, 4.0, 3 * FIRST.classes)
    assert foreseen["mean"] == pytest.approx(np.mean(seeds), abs=3 * np.std(seeds) / 20 + 1e-4)
    assert foreseen["std"] == pytest.approx(np.std(seeds), rel=0.12, abs=1e-3)


def test_many_classes_take_a_union_of_two_to_a_quarter_and_its_spread_to_nothing():
    for classes in (10, 1000):
        config = dataclasses.replace(FIRST, classes=classes, expected_others=classes / 2)
        foreseen = predict.union_error(config, 2, 0.0, 4.0, 5 * classes)
        assert foreseen["mean"] <= 0.25
        assert foreseen["std"] == pytest.approx(0.25 / np.sqrt(5 * classes), rel=0.01)
    assert foreseen["mean"] == pytest.approx(0.25)
    assert predict.union_error(FIRST, 2, 1.0, 4.0, 10) == {"mean": 0.0, "std": 0.0}


def test_members_that_know_every_view_make_no_error():
    assert predict.coverage_errors(FIRST, np.ones((3, FIRST.classes, 2), bool), 4.0) == pytest.approx(np.zeros(3))


def test_views_arrive_when_the_lottery_says(tiny):
    """The winner's time to reach varrho, from its start alone, within a fifth on average."""
    config = dataclasses.replace(tiny, train_samples=400)
    samples = training_samples(config, 0)
    networks = limit.create(config, samples, 0, range(3))
    start, arrived = None, np.full((3, 4), np.inf)
    for step in descent.descend(networks, descent.cross_entropy(samples.labels), max_steps=5000):
        strength = descent.strengths(networks.weights, 4)
        start = strength if start is None else start
        arrived = np.where((strength.max(2) >= 1) & np.isinf(arrived), step.times[:, None], arrived)
    winners = strength.argmax(2)[:, :, None]
    foreseen = np.take_along_axis(predict.lottery_times(start, samples, config), winners, 2)[:, :, 0]
    ratio = foreseen / arrived
    assert np.exp(np.log(ratio).mean()) == pytest.approx(1, abs=0.2)
    assert np.exp(np.abs(np.log(ratio)).mean()) < 1.4


def test_a_view_that_is_not_there_never_arrives(tiny):
    samples = training_samples(tiny, 0)
    start = np.full((1, 4, 2), 1e-3)
    start[0, 1, 0] = 0
    times = predict.lottery_times(start, samples, tiny)
    assert np.isinf(times[0, 1, 0])
    assert np.isfinite(np.delete(times.ravel(), 2)).all()


def test_the_strength_by_labels_solves_its_differential_equation():
    config, steps, t = FIRST, 20_000, 300.0
    strength = predict.label_strength(config, 0.0)
    for _ in range(steps):
        output = config.logit_scale * (1.2 * strength - config.own_patches * (1 - 1 / config.power))
        strength += t / steps * config.logit_scale * 1.2 / config.classes * (config.classes - 1) * np.exp(-output)
    assert predict.label_strength(config, t) == pytest.approx(strength, rel=1e-3)


def test_without_feature_noise_no_second_view_comes_in_and_with_little_in_proportion():
    """But for what the noise of patches, which teaches all views alike while they are weak, leaves of them."""
    ratio = predict.second_views(FIRST, np.array([0.0, 2e-3, 4e-3]), 4.0)
    assert ratio[0] < 1e-3
    assert ratio[2] - ratio[0] == pytest.approx(2 * (ratio[1] - ratio[0]), rel=0.05)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_below_a_quarter_of_the_weight_the_second_view_stands_still_at_a_root(share):
    """x = kappa + (x + kappa)^2 + kappa^2 / 3, kappa = gamma / 2 z: q = 3, no noise, no other classes, a long race."""
    alone = dataclasses.replace(FIRST, expected_others=1e-9, noise=1e-6, init_scale=1e-9)
    z = 0.4
    kappa = share / 8
    low, *_ = np.sort(np.roots([1, 2 * kappa - 1, kappa + kappa**2 * 4 / 3]).real)
    ratio = predict.second_views(alone, np.array([2 * z * kappa]), 1 / z)[0]
    assert ratio == pytest.approx(low, rel=0.05)
    assert predict.second_views(alone, np.array([1.2 * z / 4]), 1 / z)[0] > 2 * low


def test_claims_end_earlier_on_more_training_and_on_weaker_patches():
    limits = predict.feature_noise_limits(FIRST)
    assert limits["labels_only"] == limits["self_distilled"] < limits["single"]
    thin = predict.feature_noise_limits(dataclasses.replace(FIRST, own_patches=6))  # z = 0.2
    assert thin["single"] < 0.7 * limits["single"]


@pytest.mark.parametrize("views", [1, 2, 3, 5])
def test_v_views_leave_the_share_that_no_member_knows(views):
    """Gamma -> 0 and rho = 0, many other features: ((V - 1)/V)^K; and alone, whatever is shown, (V - 1)/V of it."""
    faint = dataclasses.replace(
        FIRST, views=views, other_weight_single=(1e-3, 1e-3), missing_weight=(0.0, 0.0), expected_others=10.0
    )
    ties = [0.0] * (views - 1)
    for members in (1, 2, 5, 10):
        law = predict.asymptotic_error(views, members)
        assert law == pytest.approx(((views - 1) / views) ** members)
        assert predict.ensemble_error(faint, members, ties, 4.0) == pytest.approx(law, abs=1e-6)
    world = dataclasses.replace(FIRST, views=views)
    assert predict.single_error(world, ties) == pytest.approx((views - 1) / views * (1 - 0.7**9))


def test_two_views_in_closed_form_are_two_views_member_by_member():
    for members, ties in ((1, 0.0), (4, 0.0), (7, 0.2)):
        closed, counted = predict._known_of_two(members, ties), predict._known(2, members, [ties])
        assert closed.keys() >= counted.keys()
        assert all(counted.get(pair, 0.0) == pytest.approx(chance, abs=1e-8) for pair, chance in closed.items())


@pytest.mark.parametrize("views", [3, 4])
def test_the_prediction_of_v_views_is_the_mean_over_ensembles_that_were_drawn(views):
    config = dataclasses.replace(FIRST, views=views)
    generator, strength, errors = np.random.default_rng(4), 4.0, []
    for _ in range(50):
        known = generator.random((4, config.classes, views)).argsort(2)
        errors.append(
            predict.coverage_errors(config, known < np.where(generator.random((4, 10, 1)) < 0.2, 2, 1), strength)
        )
    ties = [0.2] + [0.0] * (views - 2)
    for members, error in enumerate(np.mean(errors, 0), start=1):
        assert predict.ensemble_error(config, members, ties, strength) == pytest.approx(error, abs=0.02)


def test_the_lottery_has_v_tickets():
    config = dataclasses.replace(FIRST, views=3, patches=40)
    samples, start = training_samples(config, 0), np.ones((1, 10, 3), np.float32)
    start[0, :, 2] = 1.5
    assert (predict.lottery_winners(start, samples, config) == 2).all()
    times = predict.lottery_times(1e-3 * start, samples, config)
    assert times.shape == (1, 10, 3)
    assert (times.argmin(2) == 2).all()


def test_what_is_expected_of_two_networks_views_is_the_square_whoever_goes_on():
    """Of self-distilled networks and of S_1, which know what two lotteries won; of V views, ((V - 1)/V)^2."""
    for views in (1, 3, 4):
        config = dataclasses.replace(FIRST, views=views)
        for name in ("self_distilled", "chain_1"):
            low, high = claims.asymptotic(name, config)
            assert (low, high) == (0.0, pytest.approx(predict.asymptotic_error(views, 2) + 0.01, abs=1e-3))
        assert claims.asymptotic("chain_2", config) is None
