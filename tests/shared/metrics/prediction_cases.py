"""Predictions that tests of the shared functions draw."""

import numpy as np
import torch
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch import Tensor

from divkd.shared.metrics.diversity import decomposition

Drawn = tuple[Tensor, Tensor, np.random.Generator]


@st.composite
def predictions(draw: st.DrawFn, scales: tuple[float, ...] = (0.0, 1.0, 5.0, 1e4), impossible: bool = False) -> Drawn:
    """Float64 log-probabilities (M, N, K) and labels; scale 0 is uniform, 1e4 saturated; -inf where `impossible`."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    members, samples, classes = draw(st.integers(1, 5)), draw(st.integers(1, 30)), draw(st.integers(2, 7))
    logits = draw(st.sampled_from(scales)) * rng.standard_normal((members, samples, classes))
    if impossible:
        logits[rng.random(logits.shape) < 0.1] = -np.inf
        logits[..., 0] = np.where(np.isneginf(logits).all(-1), 0.0, logits[..., 0])
    labels = torch.from_numpy(rng.integers(0, classes, samples))
    return torch.from_numpy(log_softmax(logits, axis=-1)), labels, rng


def nll_member(log_probs: Tensor, labels: Tensor) -> float:
    """The members' mean NLL."""
    return float(decomposition(log_probs, labels)["nll_member"].mean())


def noisy(
    seed: int, members: int = 3, samples: int = 400, classes: int = 5, sharpen: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Members that are noisy views of the distribution the labels come from, made overconfident by `sharpen`."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((samples, classes)) * 2
    labels = (truth + rng.gumbel(size=truth.shape)).argmax(-1)
    logits = sharpen * (truth + rng.standard_normal((members, samples, classes)))
    return torch.from_numpy(log_softmax(logits, axis=-1)), torch.from_numpy(labels)
