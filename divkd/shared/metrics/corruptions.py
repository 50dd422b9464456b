"""A metric over corruptions: every kind at every severity, and what is averaged."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from divkd.shared.errors import InputError

SEVERITIES = 5


def corruption_table(
    score: Callable[[Tensor, Tensor], float], cells: Mapping[str, Sequence[Tensor]], labels: Tensor
) -> dict[str, Any]:
    """1/(5 C) sum over C kinds and 5 severities of `score`, the unweighted mean over cells.

    Hendrycks and Dietterich 2019 (arXiv:1903.12261) without their division by a baseline's score. cells: for each
    kind of corruption the member log-probabilities (M, N, K) of the same N samples at severities 1 to 5; labels (N,);
    score: e.g. `divkd.shared.metrics.quality.nll`. Returns {mean, kinds, by_severity, cells: {kind: [5 numbers]}}: as
    publications use 15, 17 or 19 kinds, the kinds are named.
    Raises `InputError` where a kind has not 5 severities, or there is none.
    """
    if not cells:
        raise InputError("no corruption was given; name at least one kind with its 5 severities")
    for kind, severities in cells.items():
        if len(severities) != SEVERITIES:
            raise InputError(f"corruption {kind!r} has {len(severities)} severities; {SEVERITIES} are required")
    table = {kind: [score(log_probs, labels) for log_probs in severities] for kind, severities in cells.items()}
    by_severity = [sum(row[level] for row in table.values()) / len(table) for level in range(SEVERITIES)]
    return {"mean": sum(by_severity) / SEVERITIES, "kinds": list(table), "by_severity": by_severity, "cells": table}
