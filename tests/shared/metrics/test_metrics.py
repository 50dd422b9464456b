"""Laws of the metrics, independent computations of them, and worked cases where other libraries differ."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prediction_cases import nll_member
from scipy.special import log_softmax
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from divkd.shared.errors import InputError
from divkd.shared.metrics import checks
from divkd.shared.metrics import quality as metrics

Drawn = tuple[Tensor, Tensor, np.random.Generator]
SCORES = [metrics.accuracy, metrics.nll, nll_member, metrics.brier, metrics.ece]
SMOOTH = [metrics.nll, nll_member, metrics.brier]  # neither ties nor bin edges move these


@st.composite
def predictions(draw: st.DrawFn, scales: tuple[float, ...] = (1.0, 5.0), impossible: bool = False) -> Drawn:
    """Float64 log-probabilities (M, N, K) and labels; scale 0 is uniform, 1e4 saturated; -inf where `impossible`."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    members, samples, classes = draw(st.integers(1, 5)), draw(st.integers(1, 30)), draw(st.integers(2, 7))
    logits = draw(st.sampled_from(scales)) * rng.standard_normal((members, samples, classes))
    if impossible:
        shared, own = rng.random((samples, classes)) < 0.2, rng.random(logits.shape) < draw(st.sampled_from([0, 0.02]))
        logits[:, shared] = -np.inf
        logits[own] = -np.inf
        logits[..., 0] = np.where(np.isneginf(logits).all(-1), 0.0, logits[..., 0])
    labels = torch.from_numpy(rng.integers(0, classes, samples))
    return torch.from_numpy(log_softmax(logits, axis=-1)), labels, rng


def reference(log_probs: Tensor, labels: Tensor) -> dict[str, float]:
    """Every metric by its definition: NumPy, probabilities, explicit pairs and bins."""
    log_p, y = log_probs.double().numpy(), labels.numpy()
    members, samples, classes = log_p.shape
    p, rows = np.exp(log_p), np.arange(samples)
    mean = p.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        pairs = [
            np.where(p[j] > 0, p[j] * (log_p[j] - log_p[i]), 0.0).sum(axis=-1).mean()
            for j in range(members)
            for i in range(members)
            if i != j
        ]
        result = {"nll": -np.log(mean[rows, y]).mean(), "nll_member": -log_p[:, rows, y].mean()}
    bins: dict[int, list[float]] = {}
    for row, label in zip(mean, y, strict=True):
        index = min(max(math.ceil(15 * row.max()) - 1, 0), 14)
        bins.setdefault(index, []).append(float(row.argmax() == label) - row.max())
    return result | {
        "accuracy": float((mean.argmax(-1) == y).mean()),
        "brier": ((mean - np.eye(classes)[y]) ** 2).sum(-1).mean(),
        "ece": sum(abs(sum(gaps)) for gaps in bins.values()) / samples,
        "pairwise_kl": float(np.mean(pairs)) if pairs else 0.0,
    }


def evaluated(log_probs: Tensor, labels: Tensor) -> dict[str, float]:
    return {score.__name__: score(log_probs, labels) for score in SCORES} | {
        "pairwise_kl": metrics.pairwise_kl(log_probs)
    }


def agree(first: dict[str, float], second: dict[str, float], tolerance: float) -> None:
    assert first == pytest.approx(second, rel=tolerance, abs=tolerance)


def random_case(members: int, samples: int, classes: int, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(7)
    logits = scale * rng.standard_normal((members, samples, classes))
    return torch.from_numpy(log_softmax(logits, axis=-1)), torch.from_numpy(rng.integers(0, classes, samples))


# Independent computations ---------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(predictions())
def test_agrees_with_the_definitions_in_numpy(drawn: Drawn) -> None:
    log_probs, labels, _ = drawn
    agree(evaluated(log_probs, labels), reference(log_probs, labels), 1e-10)


@settings(max_examples=80, deadline=None)
@given(predictions(scales=(1.0, 30.0), impossible=True))
def test_agrees_with_the_definitions_where_classes_are_impossible(drawn: Drawn) -> None:
    log_probs, labels, _ = drawn
    expected, result = reference(log_probs, labels), evaluated(log_probs, labels)
    for name in ("nll", "nll_member", "brier", "pairwise_kl"):
        assert result[name] == pytest.approx(expected[name], rel=1e-10, abs=1e-10), name


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs, labels = random_case(3, 101, 5)
    whole = evaluated(log_probs, labels)
    monkeypatch.setattr(checks, "BLOCK", 150)  # ten samples at a time, the last block one
    agree(evaluated(log_probs, labels), whole, 1e-13)


# Worked cases ---------------------------------------------------------------------------------------------------------


def test_ece_keeps_full_confidence_in_the_last_bin() -> None:
    # 1.0 wrong and 0.95 right share (14/15, 1]: |1 - 1.95| / 2 = 0.475; torchmetrics splits them: (1 + 0.05) / 2
    probs, labels = torch.tensor([[1.0, 0.0], [0.95, 0.05]], dtype=torch.float64), torch.tensor([1, 0])
    assert metrics.ece(probs.log()[None], labels) == pytest.approx(0.475, abs=1e-12)
    theirs = multiclass_calibration_error(probs.float(), labels, num_classes=2, n_bins=15, norm="l1")
    assert float(theirs) == pytest.approx(0.525, abs=1e-6)


def test_bins_are_closed_above_and_the_first_also_below() -> None:
    confidence = torch.tensor([0.0, 1e-9, 0.05, 0.2, 0.2 + 1e-9, 0.4, 0.6, 0.95, 1.0, 1.0 + 1e-7], dtype=torch.float64)
    assert metrics.confidence_bin(confidence).tolist() == [0, 0, 0, 2, 3, 5, 8, 14, 14, 14]


def test_two_members_by_hand() -> None:
    log_probs = torch.tensor([[[0.8, 0.2]], [[0.4, 0.6]]], dtype=torch.float64).log()
    label = torch.tensor([0])
    first = 0.8 * math.log(0.8 / 0.4) + 0.2 * math.log(0.2 / 0.6)
    second = 0.4 * math.log(0.4 / 0.8) + 0.6 * math.log(0.6 / 0.2)
    expected = {
        "accuracy": 1.0,
        "nll": -math.log(0.6),  # of the mean, not the mean of -log 0.8 and -log 0.4
        "nll_member": -(math.log(0.8) + math.log(0.4)) / 2,
        "brier": 0.4**2 + 0.4**2,  # summed over classes: others report half of it
        "ece": 0.4,
        "pairwise_kl": (first + second) / 2,
    }
    agree(evaluated(log_probs, label), expected, 1e-14)


def test_accuracy_follows_the_mean_probability_not_the_vote() -> None:
    probs = torch.tensor([[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]], dtype=torch.float64)
    assert metrics.accuracy(probs.log(), torch.tensor([0])) == 1.0


def test_certain_and_wrong_costs_infinity_and_nothing_is_nan() -> None:
    log_probs = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).log()
    assert metrics.pairwise_kl(log_probs) == math.inf
    assert nll_member(log_probs, torch.tensor([0])) == math.inf
    assert metrics.nll(log_probs, torch.tensor([0])) == pytest.approx(math.log(2), abs=1e-15)
    assert evaluated(log_probs[:1], torch.tensor([1])) == {
        "accuracy": 0.0,
        "nll": math.inf,
        "nll_member": math.inf,
        "brier": 2.0,
        "ece": 1.0,
        "pairwise_kl": 0.0,
    }


def test_certain_and_right_is_exactly_zero() -> None:
    log_probs = torch.tensor([[1.0, 0.0]]).log().expand(3, 4, 2)
    result = evaluated(log_probs, torch.zeros(4, dtype=torch.long))
    assert result.pop("accuracy") == 1.0
    assert result == dict.fromkeys(result, 0.0)
    assert all(math.copysign(1, value) == 1 for value in result.values())


@pytest.mark.parametrize("lowest", [-1e301, -1e308, -1.7e308, -math.inf])
def test_the_end_of_float64_leaves_no_nan(lowest: float) -> None:
    # the mean over members of such numbers overflows, while the class counts nothing
    equal = torch.tensor([[0.0, lowest]], dtype=torch.float64).expand(4, 3, 2)
    assert metrics.pairwise_kl(equal) == 0.0
    other = torch.cat([equal, torch.full((1, 3, 2), -math.log(2), dtype=torch.float64)])
    assert metrics.pairwise_kl(other) > 1e298
    assert not any(math.isnan(value) for value in evaluated(other, torch.tensor([0, 1, 1])).values())


def test_close_members_keep_their_digits() -> None:
    # KL between p and p + d is about sum d^2 / p: 2e-20 / 0.5 here, lost if the pairs' logs are subtracted
    shift = 1e-10
    probs = torch.tensor([[[0.5, 0.5]], [[0.5 + shift, 0.5 - shift]]], dtype=torch.float64)
    assert metrics.pairwise_kl(probs.log()) == pytest.approx(2 * shift**2, rel=1e-5)


# Laws -----------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(predictions())
def test_order_of_members_classes_and_samples_does_not_matter(drawn: Drawn) -> None:
    log_probs, labels, rng = drawn
    members, samples, classes = log_probs.shape
    before = evaluated(log_probs, labels)
    agree(evaluated(log_probs[rng.permutation(members)], labels), before, 1e-12)
    row = rng.permutation(samples)
    agree(evaluated(log_probs[:, row], labels[torch.from_numpy(row)]), before, 1e-12)
    column = rng.permutation(classes)
    agree(evaluated(log_probs[..., column], torch.from_numpy(np.argsort(column))[labels]), before, 1e-12)


@settings(max_examples=60, deadline=None)
@given(predictions(scales=(0.0, 1.0, 1e4), impossible=True), st.integers(1, 3))
def test_duplicates_of_the_ensemble_change_only_its_diversity(drawn: Drawn, copies: int) -> None:
    log_probs, labels, _ = drawn
    many = log_probs.repeat(copies, 1, 1)
    for score in SMOOTH:
        assert score(many, labels) == pytest.approx(score(log_probs, labels), rel=1e-12, abs=1e-12)
    # copies add pairs without difference: the M (M - 1) pairs count copies^2 times among M' (M' - 1)
    members, total = len(log_probs), len(many)
    share = 0.0 if members == 1 else copies**2 * members * (members - 1) / (total * (total - 1))
    kl = metrics.pairwise_kl(log_probs)
    assert metrics.pairwise_kl(many) == (kl if math.isinf(kl) else pytest.approx(kl * share, rel=1e-10, abs=1e-20))


@settings(max_examples=60, deadline=None)
@given(predictions(scales=(0.0, 1.0, 30.0, 1e4), impossible=True))
def test_ranges_and_jensen(drawn: Drawn) -> None:
    log_probs, labels, _ = drawn
    result = evaluated(log_probs, labels)
    assert not any(math.isnan(value) for value in result.values())
    assert all(isinstance(value, float) and value >= 0 for value in result.values())
    assert result["accuracy"] <= 1
    assert result["ece"] <= 1 + 1e-12
    assert result["brier"] <= 2 + 1e-12
    assert result["nll"] <= result["nll_member"] * (1 + 1e-12) + 1e-12


@settings(max_examples=40, deadline=None)
@given(predictions(scales=(0.0, 1.0, 1e4), impossible=True))
def test_one_member_is_its_own_ensemble(drawn: Drawn) -> None:
    log_probs, labels, _ = drawn
    single = log_probs[:1]
    assert torch.equal(metrics.ensemble_log_probs(single), single[0])
    assert metrics.nll(single, labels) == pytest.approx(nll_member(single, labels), rel=1e-14)
    assert metrics.pairwise_kl(single) == 0.0
    pooled = metrics.ensemble_log_probs(log_probs)[None]
    for score in (metrics.accuracy, metrics.nll, metrics.brier, metrics.ece):
        assert score(pooled, labels) == score(log_probs, labels)


@settings(max_examples=40, deadline=None)
@given(predictions(scales=(1.0, 1e4)))
def test_float32_input_is_accumulated_in_float64(drawn: Drawn) -> None:
    log_probs, labels, _ = drawn
    single = log_probs.float()
    assert metrics.ensemble_log_probs(single).dtype == torch.float64
    assert evaluated(single, labels) == evaluated(single.double(), labels)
    for score in SMOOTH:
        assert score(single, labels) == pytest.approx(score(log_probs, labels), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_uniform_predictions(classes: int) -> None:
    log_probs = torch.full((3, classes, classes), -math.log(classes), dtype=torch.float64)
    agree(
        evaluated(log_probs, torch.arange(classes)),
        {
            "accuracy": 1 / classes,
            "nll": math.log(classes),
            "nll_member": math.log(classes),
            "brier": 1 - 1 / classes,
            "ece": 0.0,
            "pairwise_kl": 0.0,
        },
        1e-12,
    )


def test_saturated_float32_softmax_has_finite_scores() -> None:
    log_probs = torch.log_softmax(torch.tensor([[[200.0, 0.0, -300.0]], [[-100.0, 250.0, 0.0]]]), -1)
    assert all(math.isfinite(value) for value in evaluated(log_probs, torch.tensor([2])).values())
    assert metrics.pairwise_kl(log_probs) == pytest.approx((350 + 200) / 2)  # each is certain of its own class


def test_the_graph_stays_usable_and_the_input_untouched() -> None:
    log_probs, labels = random_case(2, 5, 3)
    leaf = log_probs.clone().requires_grad_()
    assert evaluated(leaf, labels) == evaluated(log_probs, labels)
    assert torch.equal(leaf.detach(), log_probs)
    metrics.ensemble_log_probs(leaf).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.sum(0) == pytest.approx(1.0)  # shares of the members in the mixture


@pytest.mark.gpu
def test_devices_agree() -> None:
    log_probs, labels = random_case(4, 300, 10)
    agree(evaluated(log_probs.cuda(), labels.cuda()), evaluated(log_probs, labels), 1e-12)


# Refusals -------------------------------------------------------------------------------------------------------------

GOOD = torch.full((2, 3, 4), -math.log(4))
Change = Callable[[Tensor], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.numpy(), "ndarray; pass a torch tensor"),
        (lambda x: x.half(), "float16"),
        (lambda x: x[0], r"shape \(3, 4\)"),
        (lambda x: x[:, :0], r"\(2, 0, 4\)"),
        (lambda x: x[:0], r"\(0, 3, 4\)"),
        (lambda x: x.exp(), "0.25"),
        (lambda x: torch.where(torch.arange(4) == 1, torch.nan, x), "nan"),
        (lambda x: torch.full_like(x, -math.inf), "-inf"),
        (lambda x: x - 5, "log_softmax"),
    ],
)
def test_bad_log_probs_are_refused(change: Change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        metrics.pairwise_kl(change(GOOD))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        metrics.nll(change(GOOD), torch.zeros(3, dtype=torch.long))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2], "list; pass a torch tensor"),
        (torch.tensor([0.0, 1.0, 2.5]), "float32"),
        (torch.tensor([True, False, True]), "bool"),
        (torch.tensor([0, 1]), r"shape \(2,\); \(3,\) is required"),
        (torch.tensor([0, 1, 4]), "0 to 4; 0 to 3 is allowed"),
        (torch.tensor([-1, 1, 2]), "-1 to 2"),
    ],
)
@pytest.mark.parametrize("score", SCORES)
def test_bad_labels_are_refused(score: Callable[[Tensor, Tensor], float], labels: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score(GOOD, labels)


def test_small_integer_labels_are_fine() -> None:
    assert metrics.nll(GOOD, torch.tensor([0, 1, 3], dtype=torch.uint8)) == pytest.approx(math.log(4))
