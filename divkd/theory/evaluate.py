"""What trained networks get right, and which views they know."""

import numpy as np


def errors_by_members(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Error of ensembles of K = 1..M members, (M,), from outputs (M, N, k); an ensemble sums its members' outputs.

    The value for K is the mean over the M cyclic windows of K neighbouring members (one window for K = M), so that
    every member serves every size equally. Windows overlap: spread is to be taken over seeds, not over windows.
    """
    members = len(outputs)
    windows = outputs.astype(np.float64)
    errors = np.empty(members)
    for size in range(1, members + 1):
        wrong = windows.argmax(2) != labels
        errors[size - 1] = wrong[:1].mean() if size == members else wrong.mean()
        windows = windows + np.roll(outputs, -size, axis=0)
    return errors


def uncovered_by_members(learned: np.ndarray) -> np.ndarray:
    """Share of (class, view) pairs that no member of an ensemble of K = 1..M learned, (M,), from learned (M, k, 2).

    Windows as in `errors_by_members`.
    """
    known = learned.copy()
    shares = np.empty(len(learned))
    for size in range(1, len(learned) + 1):
        shares[size - 1] = (~known).mean()
        known = known | np.roll(learned, -size, axis=0)
    return shares


def learned_views(strengths: np.ndarray) -> np.ndarray:
    """Whether each view of a class is learned, (M, k, 2) bool, from strengths Lambda (M, k, 2) in units of varrho.

    A view is learned if Lambda is above a quarter of the class's stronger view: a loser stays near its start, sigma_0,
    following Allen-Zhu and Li, Lemma D.19. A network that was distilled can know both views unequally well: 3.1 and 7.0
    were seen in one class, which half, in place of a quarter, would count as one view.
    """
    known: np.ndarray = strengths >= 0.25 * strengths.max(2, keepdims=True)
    return known
