"""Out-of-distribution measures: scikit-learn, laws, and the convention by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prediction_cases import noisy
from scipy.special import logsumexp
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor

from divkd.shared.errors import InputError
from divkd.shared.metrics.ood import energy, ood_scores, separation


def sklearn_separation(own: Tensor, ood: Tensor) -> dict[str, float]:
    truth = np.r_[np.zeros(len(own)), np.ones(len(ood))]
    scores = np.r_[own.numpy(), ood.numpy()]
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    return {
        "auroc": roc_auc_score(truth, scores),
        "aupr": average_precision_score(truth, scores),
        "fpr95": fpr[np.argmax(tpr >= 0.95)],
    }


scores = st.lists(st.integers(-5, 5), min_size=1, max_size=40)  # integers tie often


@settings(max_examples=150, deadline=None)
@given(scores, scores)
def test_agrees_with_scikit_learn_also_where_scores_tie(own: list[int], ood: list[int]) -> None:
    a, b = torch.tensor(own).double(), torch.tensor(ood).double()
    assert separation(a, b) == pytest.approx(sklearn_separation(a, b), abs=1e-10)


@settings(max_examples=60, deadline=None)
@given(scores, scores)
def test_a_monotone_map_changes_nothing_and_swapping_the_sets_mirrors_auroc(own: list[int], ood: list[int]) -> None:
    a, b = torch.tensor(own).double(), torch.tensor(ood).double()
    found = separation(a, b)
    assert separation(a.exp(), b.exp()) == found
    assert separation(b, a)["auroc"] == pytest.approx(1 - found["auroc"], abs=1e-12)
    assert separation(-b, -a)["auroc"] == pytest.approx(found["auroc"], abs=1e-12)
    assert all(0 <= value <= 1 + 1e-12 for value in found.values())


def test_by_hand() -> None:
    # falling: 4 ood, 3 own, 2 ood, 1 own
    found = separation(torch.tensor([3.0, 1.0]), torch.tensor([4.0, 2.0]))
    assert found == {"auroc": 0.75, "aupr": pytest.approx(0.5 * 1 + 0.5 * 2 / 3), "fpr95": 0.5}
    assert separation(torch.tensor([0.0, 1.0]), torch.tensor([2.0, math.inf])) == {"auroc": 1, "aupr": 1, "fpr95": 0}
    same = separation(torch.zeros(3), torch.zeros(5))
    assert same == {"auroc": 0.5, "aupr": pytest.approx(5 / 8), "fpr95": 1.0}


def test_the_positive_class_matters_and_is_the_ood_one() -> None:
    rng = np.random.default_rng(0)
    own, ood = torch.from_numpy(rng.normal(0, 1, 500)), torch.from_numpy(rng.normal(1.5, 2, 500))
    found, flipped = separation(own, ood), separation(-ood, -own)
    assert found["fpr95"] != pytest.approx(flipped["fpr95"], abs=0.05)
    assert found == pytest.approx(sklearn_separation(own, ood), abs=1e-10)


def test_exactly_95_per_cent_is_enough() -> None:
    # 19 of 20 ood at 2, one at 0; an own sample at 1 is not passed, whatever 19 / 20 rounds to
    ood = torch.tensor([2.0] * 19 + [0.0])
    assert separation(torch.tensor([1.0, 1.0]), ood)["fpr95"] == 0.0


def test_scores_are_the_published_ones() -> None:
    log_probs, _ = noisy(1)
    found = ood_scores(log_probs)
    mean = log_probs.exp().mean(0).numpy()
    assert (-found["max_probability"]).numpy() == pytest.approx(mean.max(-1), abs=1e-12)
    assert found["entropy"].numpy() == pytest.approx(scipy_entropy(mean, axis=-1), abs=1e-12)
    assert list(ood_scores(log_probs[:1])) == ["max_probability", "entropy"]  # one member shares no information
    logits = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0))
    expected = -logsumexp(logits.double().numpy(), axis=-1).mean(0)
    assert energy(logits).numpy() == pytest.approx(expected, abs=1e-12)


def test_refusals_name_the_index() -> None:
    good = torch.zeros(3)
    with pytest.raises(InputError, match=r"own\[1\] is nan"):
        separation(torch.tensor([0.0, math.nan]), good)
    with pytest.raises(InputError, match=r"ood scores have shape \(0,\)"):
        separation(good, torch.zeros(0))
    with pytest.raises(InputError, match=r"logits\[1, 0, 2\] is inf"):
        energy(torch.tensor([[[0.0, 1.0, 2.0]], [[0.0, 1.0, math.inf]]]))
