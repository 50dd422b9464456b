"""What trained networks get right, and which views they know."""

from collections.abc import Iterator

import numpy as np


def windows(values: np.ndarray) -> Iterator[np.ndarray]:
    """The sums of `values` (M, ...) over the M cyclic windows of K neighbours, (M, ...) for each K = 1..M."""
    summed = values
    for size in range(1, len(values) + 1):
        yield summed
        summed = summed + np.roll(values, -size, axis=0)


def errors_by_members(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Error of ensembles of K = 1..M members, (M,), from outputs (M, N, k); an ensemble sums its members' outputs.

    The value for K is the mean over the M cyclic windows of K neighbouring members (one window for K = M), so that
    every member serves every size equally. Windows overlap: spread is to be taken over seeds, not over windows.
    """
    wrong = [summed.argmax(2) != labels for summed in windows(outputs.astype(np.float64))]
    return np.array([one.mean() for one in (*wrong[:-1], wrong[-1][:1])])


def uncovered_by_members(learned: np.ndarray) -> np.ndarray:
    """Share of (class, view) pairs that no member of an ensemble of K = 1..M learned, (M,), from learned (M, k, 2).

    Windows as in `errors_by_members`.
    """
    return np.array([(known == 0).mean() for known in windows(learned.astype(np.int64))])


def learned_views(strengths: np.ndarray) -> np.ndarray:
    """Whether each view of a class is learned, (M, k, 2) bool, from strengths Lambda (M, k, 2) in units of varrho.

    A view is learned if Lambda is above a quarter of the class's stronger view: a loser stays near its start, sigma_0,
    following Allen-Zhu and Li, Lemma D.19. A network that was distilled can know both views unequally well: 3.1 and 7.0
    were seen in one class, which half, in place of a quarter, would count as one view.
    """
    return np.asarray(strengths >= 0.25 * strengths.max(2, keepdims=True))
