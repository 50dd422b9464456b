"""An evaluation's run: one file of predictions, or several on the same samples with their paired differences."""

import csv
import io
import itertools
import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from divkd.shared.metrics.bootstrap import LEVEL, interval
from divkd.shared.metrics.evaluation import Evaluated, check_reference, check_same, evaluated
from divkd.shared.metrics.predictions import Predictions
from divkd.shared.run import environment


def check_files(models: Mapping[str, Predictions], reference: Predictions | None) -> None:
    """Raise `InputError` unless all `models` are of the same samples, and `reference`, a deep ensemble, is too."""
    (base, first), *others = models.items()
    for name, predictions in others:
        check_same(base, first, name, predictions)
    if reference:
        for predictions in models.values():
            check_reference(predictions, reference)


def run_evaluation(
    models: Mapping[str, Predictions], reference: Predictions | None, ensemble: str | None, *, resamples: int, seed: int
) -> tuple[dict[str, Any], bytes]:
    """The content of an evaluation's results.json and of its samples.csv; `models` by the names of their files.

    Of one file, what `evaluate_predictions` gives. Of several, {models}, a list of these, and {differences} of each
    model but the first: {file, base, measures: {name: {value, low, high}}}, value the model's minus the first's.
    `ensemble` is the name of the file of `reference`.
    """
    began = time.perf_counter()
    found = {name: evaluated(one, reference=reference, resamples=resamples, seed=seed) for name, one in models.items()}
    each: list[dict[str, Any]] = [{"file": name, **one.results} for name, one in found.items()]
    for results in each if reference else ():
        results["dee"]["ensemble"] = ensemble
    whole = each[0]
    if len(each) > 1:
        (base, first), *others = found.items()
        whole = {name: each[0][name] for name in ("samples", "classes")} | {"models": each}
        if resamples:
            whole["draws"] = {"level": LEVEL, "resamples": resamples, "seed": seed}
        whole["differences"] = [
            {"file": name, "base": base, "measures": differences(first, one)} for name, one in others
        ]
    table = _table({name: one.samples for name, one in found.items()})
    taken = {"seconds": time.perf_counter() - began, **environment({"seeds": [seed]})}
    return {"command": "evaluate", **whole, **taken}, table


def differences(base: Evaluated, other: Evaluated) -> dict[str, dict[str, float | None]]:
    """{name: {value, low, high}}: other - base of every number that both have and the draw of samples moves.

    low and high are the percentile interval (Efron 1979) of the difference over the draws of samples, which both share,
    so that what is hard for both models cancels. None without draws; NaN where it has no value in some draw, as between
    two infinite NLLs.
    """
    rows: dict[str, dict[str, float | None]] = {}
    for name in (name for name in base.draws if name in other.draws):
        drawn = other.draws[name] - base.draws[name]
        low, high = interval(drawn, LEVEL) if len(drawn) else (None, None)
        rows[name] = {"value": other.results[name] - base.results[name], "low": low, "high": high}
    return rows


def _table(samples: Mapping[str, Mapping[str, Tensor]]) -> bytes:
    """One line a sample as CSV; with several models, of each in turn, their file in the first column."""
    text = io.StringIO()
    writer, several = csv.writer(text, lineterminator="\n"), len(samples) > 1
    writer.writerow([*["file"] * several, "index", *next(iter(samples.values()))])
    for name, columns in samples.items():
        lines = zip(itertools.count(), *(column.tolist() for column in columns.values()))
        writer.writerows((name, *line) for line in lines) if several else writer.writerows(lines)
    return text.getvalue().encode()
