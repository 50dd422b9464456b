"""Diversity: independent NumPy, laws, and cases by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from prediction_cases import Drawn, noisy, predictions
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import matthews_corrcoef
from torch import Tensor

from divkd.shared.metrics import checks
from divkd.shared.metrics import quality as metrics
from divkd.shared.metrics.diversity import (
    agreement_matrix,
    by_confidence,
    decomposition,
    diversity,
    entropy,
    error_correlation_matrix,
    reliability,
    sample_diversity,
)

TOTALS = ["pairwise_kl", "disagreement", "mutual_information", "nll_member", "nll", "ensemble_gain"]


def reference(log_probs: Tensor, labels: Tensor) -> dict[str, float]:
    """By the definitions: NumPy, explicit pairs, SciPy's entropies, and phi, which is Pearson's r of two indicators."""
    log_p, y = log_probs.numpy(), labels.numpy()
    p, members, rows = np.exp(log_p), len(log_p), np.arange(len(y))
    votes = log_p.argmax(-1)
    pairs = [(i, j) for i in range(members) for j in range(members) if i != j]
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = [np.where(p[j] > 0, p[j] * (log_p[j] - log_p[i]), 0.0).sum(-1).mean() for i, j in pairs]
        nll, nll_member = -np.log(p.mean(0)[rows, y]).mean(), -log_p[:, rows, y].mean()
    wrong = votes != y
    varying = [(i, j) for i, j in pairs if 0 < wrong[i].mean() < 1 and 0 < wrong[j].mean() < 1]
    return {
        "pairwise_kl": float(np.mean(kl)) if kl else 0.0,
        "disagreement": float(np.mean([(votes[i] != votes[j]).mean() for i, j in pairs])) if pairs else 0.0,
        "mutual_information": (scipy_entropy(p.mean(0), axis=-1) - scipy_entropy(p, axis=-1).mean(0)).mean(),
        "nll": nll,
        "nll_member": nll_member,
        "ensemble_gain": nll_member - nll,
        "error_correlation": float(np.mean([matthews_corrcoef(wrong[i], wrong[j]) for i, j in varying]))
        if varying
        else math.nan,
    }


@settings(max_examples=80, deadline=None)
@given(predictions(scales=(0.0, 1.0, 5.0)))
def test_agrees_with_the_definitions_in_numpy_scipy_and_scikit_learn(drawn: Drawn) -> None:
    log_probs, labels, _ = drawn
    assert diversity(log_probs, labels) == pytest.approx(
        reference(log_probs, labels), rel=1e-10, abs=1e-10, nan_ok=True
    )


@settings(max_examples=80, deadline=None)
@given(predictions(impossible=True))
def test_ranges_and_no_nan_where_classes_are_impossible_or_saturated(drawn: Drawn) -> None:
    log_probs, labels, _ = drawn
    found = diversity(log_probs, labels)
    assert all(found[name] >= 0 for name in TOTALS)  # NaN would fail
    assert found["disagreement"] <= 1
    assert found["mutual_information"] <= math.log(len(log_probs))
    assert found["nll"] <= found["nll_member"] * (1 + 1e-12) + 1e-12
    parts = decomposition(log_probs, labels)
    finite = parts["nll_member"].isfinite()
    assert torch.allclose(
        (parts["nll_member"] - parts["nll"])[finite], parts["ensemble_gain"][finite], rtol=0, atol=1e-11
    )


@settings(max_examples=50, deadline=None)
@given(predictions())
def test_order_of_members_classes_and_samples_does_not_matter(drawn: Drawn) -> None:
    log_probs, labels, rng = drawn
    members, samples, classes = log_probs.shape
    before = diversity(log_probs, labels)
    same = {"rel": 1e-10, "abs": 1e-12, "nan_ok": True}
    assert diversity(log_probs[rng.permutation(members)], labels) == pytest.approx(before, **same)
    row = torch.from_numpy(rng.permutation(samples))
    assert diversity(log_probs[:, row], labels[row]) == pytest.approx(before, **same)
    column = rng.permutation(classes)
    renamed = torch.from_numpy(np.argsort(column))[labels]
    if not (log_probs == log_probs.amax(-1, keepdim=True)).sum(-1).gt(1).any():  # the first class wins a tie
        assert diversity(log_probs[..., column], renamed) == pytest.approx(before, **same)


@settings(max_examples=50, deadline=None)
@given(predictions(impossible=True))
def test_copies_of_one_member_do_not_differ(drawn: Drawn) -> None:
    log_probs, labels, _ = drawn
    found = diversity(log_probs[:1].repeat(3, 1, 1), labels)
    assert found["disagreement"] == 0
    assert found["pairwise_kl"] == pytest.approx(0, abs=1e-25)
    assert found["mutual_information"] == pytest.approx(0, abs=1e-12)
    assert found["ensemble_gain"] == pytest.approx(0, abs=1e-11)
    assert math.isnan(found["error_correlation"]) or found["error_correlation"] == pytest.approx(1)


def test_one_member_has_no_diversity() -> None:
    log_probs, labels = noisy(0, members=1)
    found = diversity(log_probs, labels)
    assert [found[name] for name in ("pairwise_kl", "disagreement", "mutual_information", "ensemble_gain")] == [0.0] * 4
    assert found["nll"] == pytest.approx(found["nll_member"], rel=1e-14)
    assert math.isnan(found["error_correlation"])


def test_copying_the_ensemble_keeps_mutual_information_and_gain() -> None:
    log_probs, labels = noisy(1)
    once, twice = diversity(log_probs, labels), diversity(log_probs.repeat(2, 1, 1), labels)
    for name in ("mutual_information", "ensemble_gain", "nll", "nll_member"):
        assert twice[name] == pytest.approx(once[name], rel=1e-12)


def test_float32_is_accumulated_in_float64() -> None:
    log_probs, labels = noisy(2)
    single = log_probs.float()
    assert diversity(single, labels) == diversity(single.double(), labels)
    assert diversity(single, labels) == pytest.approx(diversity(log_probs, labels), rel=1e-5)


def test_two_certain_members_that_contradict_each_other() -> None:
    log_probs = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).log()
    found = diversity(log_probs, torch.tensor([0]))
    assert found["mutual_information"] == pytest.approx(math.log(2), abs=1e-15)  # the most that two members can have
    assert found["disagreement"] == 1
    assert found["pairwise_kl"] == found["nll_member"] == found["ensemble_gain"] == math.inf
    assert found["nll"] == pytest.approx(math.log(2))


def test_a_label_that_no_member_allows_leaves_no_nan() -> None:
    log_probs = torch.tensor([[1.0, 0.0]]).log().expand(3, 1, 2)
    parts = decomposition(log_probs, torch.tensor([1]))
    assert [float(parts[name]) for name in ("nll", "nll_member", "ensemble_gain")] == [math.inf, math.inf, 0.0]


def test_three_members_by_hand() -> None:
    # votes 0 0 | 0 1 | 1 1 over two samples, labels 0 0: two of three pairs part on each sample
    members = [[[0.9, 0.1], [0.8, 0.2]], [[0.6, 0.4], [0.3, 0.7]], [[0.2, 0.8], [0.1, 0.9]]]
    probs = torch.tensor(members, dtype=torch.float64)
    labels = torch.tensor([0, 0])
    samples = sample_diversity(probs.log())
    assert samples["disagreement"].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert samples["votes"].tolist() == [[0, 0], [0, 1], [1, 1]]
    assert agreement_matrix(samples["votes"]).tolist() == [[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]]
    gain = decomposition(probs.log(), labels)["ensemble_gain"]
    mean, geometric = (0.9 + 0.6 + 0.2) / 3, (0.9 * 0.6 * 0.2) ** (1 / 3)
    assert float(gain[0]) == pytest.approx(math.log(mean / geometric), abs=1e-15)


def test_error_correlation_is_that_of_numpy_and_nan_where_errors_do_not_vary() -> None:
    rng = np.random.default_rng(0)
    votes, labels = rng.integers(0, 3, (4, 200)), rng.integers(0, 3, 200)
    found = error_correlation_matrix(torch.from_numpy(votes), torch.from_numpy(labels))
    assert found.numpy() == pytest.approx(np.corrcoef(votes != labels), abs=1e-12)
    votes[1] = labels
    found = error_correlation_matrix(torch.from_numpy(votes), torch.from_numpy(labels))
    assert found[1].isnan().all()
    assert found[:, 1].isnan().all()
    assert float(found[0, 2]) == pytest.approx(np.corrcoef(votes[0] != labels, votes[2] != labels)[0, 1], abs=1e-12)


def test_entropy_is_that_of_the_mean() -> None:
    log_probs, _ = noisy(3)
    assert entropy(log_probs).numpy() == pytest.approx(
        scipy_entropy(log_probs.exp().mean(0).numpy(), axis=-1), abs=1e-12
    )
    assert entropy(torch.tensor([[[1.0, 0.0]]]).log()).tolist() == [0.0]


@settings(max_examples=40, deadline=None)
@given(predictions(impossible=True))
def test_bins_add_up_to_the_total_and_to_ece(drawn: Drawn) -> None:
    log_probs, labels, _ = drawn
    rows = by_confidence(log_probs, labels)
    assert len(rows) == 15
    assert sum(row["n"] for row in rows) == len(labels)
    full = [row for row in rows if row["n"]]
    total = diversity(log_probs, labels)
    for name in TOTALS:
        assert sum(row["share"] * row[name] for row in full) == pytest.approx(total[name], rel=1e-10, abs=1e-12)
    gap = sum(row["share"] * abs(row["accuracy"] - row["confidence"]) for row in full)
    assert gap == pytest.approx(metrics.ece(log_probs, labels), abs=1e-12)
    assert all(row["low"] - 1e-9 <= row["confidence"] <= row["high"] + 1e-9 for row in full)
    assert all(math.isnan(row["accuracy"]) and math.isnan(row["pairwise_kl"]) for row in rows if not row["n"])


def test_bin_edges() -> None:
    confidence = torch.tensor([1.0, 0.95, 0.4], dtype=torch.float64)
    rows = reliability({"confidence": confidence, "correct": torch.tensor([0.0, 1.0, 1.0]).double()})
    assert [row["n"] for row in rows] == [0] * 5 + [1] + [0] * 8 + [2]  # 0.4 closes (5/15, 6/15]
    assert (rows[14]["accuracy"], rows[14]["confidence"]) == (0.5, pytest.approx(0.975))


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs, labels = noisy(4, samples=101)
    whole = diversity(log_probs, labels)
    monkeypatch.setattr(checks, "BLOCK", 150)
    assert diversity(log_probs, labels) == pytest.approx(whole, rel=1e-13)
