import numpy as np
import pytest

from divkd.theory import descent, distillation
from divkd.theory.data import NOISE, training_samples
from divkd.theory.engines import losses
from divkd.theory.engines.entries import compiled


@pytest.fixture
def outputs():
    return np.random.default_rng(0).uniform(0, 6, (2, 5, 3))


@pytest.fixture
def teachers():
    return np.random.default_rng(1).uniform(0, 6, (5, 3))


LABELS = np.array([0, 1, 2, 0, 1])


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def cross_entropy(wanted, logits):
    return -(wanted * log_softmax(logits)).sum(-1)


def slopes_of(objective, outputs):
    """d objective / d outputs by central differences; the objective is summed over everything."""
    slopes = np.empty_like(outputs)
    for index in np.ndindex(outputs.shape):
        up, down = outputs.copy(), outputs.copy()
        up[index] += 1e-5
        down[index] -= 1e-5
        slopes[index] = (objective(up) - objective(down)) / 2e-5
    return slopes


def test_temperature_slopes_are_those_of_the_objective(outputs, teachers):
    wanted = np.exp(log_softmax(teachers / 3))

    def objective(outputs):
        labels = cross_entropy(np.eye(3)[LABELS], outputs)
        return (labels + 9 * cross_entropy(wanted, outputs / 3)).sum()

    slopes = distillation.at_temperature(teachers, LABELS, 3.0)(outputs)[1]
    np.testing.assert_allclose(slopes, slopes_of(objective, outputs), atol=1e-7)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixed_slopes_are_those_of_the_objective(outputs, teachers, share):
    wanted = share * np.eye(3)[LABELS] + (1 - share) * np.exp(log_softmax(teachers))
    slopes = distillation.mixed(teachers, LABELS, share)(outputs)[1]
    np.testing.assert_allclose(slopes, slopes_of(lambda F: cross_entropy(wanted, F).sum(), outputs), atol=1e-7)


def test_scaled_slopes_are_those_of_the_objective(outputs):
    scales = np.array([1.0, 0.2])
    slopes = distillation.scaled_labels(LABELS, scales)(outputs)[1]
    objective = lambda F: cross_entropy(np.eye(3)[LABELS], F * scales[:, None, None]).sum()  # noqa: E731
    np.testing.assert_allclose(slopes, slopes_of(objective, outputs), atol=1e-6)


def test_the_clipped_rule_adds_only_pushes_up_and_none_at_the_clip(outputs, teachers):
    labels = descent.cross_entropy(LABELS)(outputs)[1]
    added = distillation.clipped(teachers, LABELS, 4.0, 0.25)(outputs)[1] - labels
    assert added.max() <= 0
    assert added.min() < 0
    assert not added[outputs >= 4].any()
    q = distillation.clipped_probabilities
    np.testing.assert_allclose(
        added, np.where(outputs < 4, -np.maximum(q(teachers, 4, 0.25) - q(outputs, 4, 0.25), 0), 0)
    )


def test_the_papers_clip_is_one_over_tau_squared(teachers):
    tau = 0.5
    papers = np.exp(log_softmax(np.minimum(tau**2 * teachers, 1) / tau))
    np.testing.assert_allclose(distillation.clipped_probabilities(teachers, 1 / tau**2, tau), papers)


@pytest.mark.parametrize("rule", ["clipped", "at_temperature"])
def test_a_student_that_agrees_with_its_teacher_feels_the_labels_alone(outputs, rule):
    arguments = {"clipped": (4.0, 0.25), "at_temperature": (3.0,)}[rule]
    slopes = getattr(distillation, rule)(outputs, LABELS, *arguments)(outputs)[1]  # a teacher each
    np.testing.assert_allclose(slopes, descent.cross_entropy(LABELS)(outputs)[1], atol=1e-12)


def test_the_losses_reported_are_the_labels_cross_entropies(outputs, teachers):
    expected = descent.cross_entropy(LABELS)(outputs)[0]
    for loss in (
        distillation.clipped(teachers, LABELS, 4.0, 0.25),
        distillation.at_temperature(teachers, LABELS, 3.0),
        distillation.mixed(teachers, LABELS, 0.5),
    ):
        np.testing.assert_array_equal(loss(outputs)[0], expected)


def test_stripped_samples_keep_their_own_classes_features_and_nothing_else(tiny):
    samples = training_samples(tiny, 0)
    stripped = distillation.without_others(samples)
    own = samples.feature // 2 == samples.labels[:, None]
    assert np.array_equal(stripped.feature[own], samples.feature[own])
    assert np.array_equal(stripped.weight[own], samples.weight[own])
    assert (stripped.feature[~own] == NOISE).all()
    assert not stripped.weight[~own].any()
    assert (~own & (samples.feature != NOISE)).any()


@pytest.mark.parametrize("rule", ["labels", "at_temperature", "mixed", "clipped"])
def test_single_precision_gives_what_double_precision_does(rule):
    draw = np.random.default_rng(2)
    outputs, teachers = draw.uniform(0, 90, (3, 37, 5)), draw.uniform(0, 9, (37, 5))  # p down to 1e-39
    labels = draw.integers(5, size=37)
    arguments = {"at_temperature": (20.0,), "mixed": (0.4,), "clipped": (40.0, 0.3)}

    def answers(precision):
        given = teachers.astype(precision)
        of = getattr(distillation, rule)(given, labels, *arguments[rule]) if rule in arguments else None
        return (of or descent.cross_entropy(labels))(outputs.astype(precision))

    for single, double in zip(answers(np.float32), answers(np.float64), strict=True):
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, double, rtol=2e-5, atol=2e-5)


def test_the_engines_exponential_is_that_of_numpy_down_to_the_faintest_probability():
    @compiled()
    def over(values, into):
        for n in range(len(values)):
            into[n] = losses.exponential(values[n])

    x = np.linspace(-60, 0, 100_001).astype(np.float32)
    values = np.empty_like(x)
    over(x, values)
    np.testing.assert_allclose(values, np.exp(x.astype(float)), rtol=3e-7)
    over(np.float32([-61, -1e4, -np.inf]), values[:3])
    np.testing.assert_allclose(values[:3], np.exp(-60.0), rtol=3e-7)
