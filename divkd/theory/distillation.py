"""What a student minimises: three ways to hand on a teacher's outputs, each a `descent.Loss`.

Their losses are the students' cross-entropies on the labels, by which descent sees whether they fit; the slopes are
those of the whole objective. Teachers' outputs G are (N, k), the same for all students, or (M, N, k), one each.
"""

import dataclasses

import numpy as np

from divkd.theory.data import NOISE, Samples
from divkd.theory.descent import Loss, softmax
from divkd.theory.engines import losses as rules


def clipped_probabilities(outputs: np.ndarray, clip: float, tau: float) -> np.ndarray:
    """softmax_i(min(F_i / c, 1) / tau) of `outputs` F (..., k), following Allen-Zhu and Li's truncated logit^tau.

    They write min(tau^2 F_i, 1) / tau, that is c = 1 / tau^2; at finite size c and tau are better chosen apart.
    """
    return softmax(np.minimum(outputs / clip, 1) / tau)


def clipped(teachers: np.ndarray, labels: np.ndarray, clip: float, tau: float) -> Loss:
    """dL/dF_i = p_i - 1_y - [q_i(G) - q_i(F)]^+ 1(F_i < c), q = `clipped_probabilities`, p = softmax(F).

    Following the distillation step of Allen-Zhu and Li (arXiv 2012.09816): it only pushes outputs up, the label term
    stays in. Where F_i reaches the clip c, q no longer depends on it, and without the gate it would run away.
    """
    wanted = clipped_probabilities(teachers, clip, tau)
    return Loss(labels, rules.CLIPPED, _by_class(wanted), clip=clip, tau=tau)


def at_temperature(teachers: np.ndarray, labels: np.ndarray, temperature: float) -> Loss:
    """L = CE(labels, F) + T^2 KL(softmax(G / T) || softmax(F / T)), dL/dF = p - 1_y + T (softmax(F/T) - softmax(G/T)).

    Hinton, Vinyals and Dean (arXiv 1503.02531): T^2 keeps the two terms' slopes comparable whatever T is.
    """
    return Loss(labels, rules.TEMPERATURE, _by_class(softmax(teachers / temperature)), temperature=temperature)


def mixed(teachers: np.ndarray, labels: np.ndarray, label_share: float) -> Loss:
    """L = t CE(labels, F) + (1 - t) H(S, T), dL/dF = S - t 1_y - (1 - t) T, S = softmax(F), T = softmax(G).

    H is the cross-entropy of the student's prediction S on the teacher's T: the form of ordinary distillation with both
    terms on one scale, here at temperature 1. `label_share` is t.
    """
    taught = softmax(teachers) - (np.arange(teachers.shape[-1]) == labels[:, None])
    return Loss(labels, rules.FIXED, _by_class((1 - label_share) * taught))


def scaled_labels(labels: np.ndarray, scales: np.ndarray) -> Loss:
    """L = CE(labels, s F) with s of its own for every network: `scales` (M,), dL/dF = s (softmax(s F) - 1_y).

    A network of width m K is K networks of width m trained jointly: s = 1 on the sum of their outputs, s = 1/K on
    their true average.
    """
    return Loss(labels, scales=scales)


def _by_class(wanted: np.ndarray) -> np.ndarray:
    """(1 or M, k, N) in the precision of what is given, (N, k) or (M, N, k)."""
    return np.ascontiguousarray(wanted.reshape(-1, *wanted.shape[-2:]).swapaxes(1, 2))


def without_others(samples: Samples, views: int = 2) -> Samples:
    """`samples` with the patches of other classes' features turned into noise: no dark knowledge is left in them.

    Feature noise is left with the sample's own views alone. A class has `views`.
    """
    own = samples.feature // views == samples.labels[:, None]
    feature = np.where(own, samples.feature, NOISE).astype(samples.feature.dtype)
    mixed = samples.mixed
    if mixed is not None:
        mine = np.arange(mixed.shape[2]) // views == samples.labels[:, None]
        mixed = np.where(mine[:, None], mixed, np.float32(0))
    return dataclasses.replace(samples, feature=feature, weight=np.where(own, samples.weight, 0), mixed=mixed)
