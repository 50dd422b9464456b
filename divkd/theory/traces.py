"""What the figures show of one seed: strengths through time, views known, a drawn sample, its soft labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from divkd.theory import descent, distillation, evaluate, predict
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import NOISE, Samples
from divkd.theory.roster import CHAIN
from divkd.theory.students import Seed, Students
from divkd.theory.training import Arrays

TRACE_POINTS = 200


def of_seed(seed: Seed, students: Mapping[str, Students]) -> dict[str, Any]:
    """`trace` of the first member, two `samples`, and of students, where there are some, `traces` and `learned`.

    `traces` are those of the first student of a kind; `learned` is (n, k, V) of 0 and 1 for every network of a kind.
    """
    one = _of_network(seed.config, seed.samples, seed.members[0])
    shown = {"trace": {"seed": seed.seed, "member": 0, **one}, "samples": _of_samples(seed)}
    if students:
        kinds = {name: students[name].arrays for name in ("distilled", "self_distilled", *CHAIN) if name in students}
        shown["traces"] = {name: _thin(arrays[0]) for name, arrays in kinds.items() if name not in CHAIN}
        shown["learned"] = {
            name: evaluate.learned_views(np.stack([one["strengths"][-1] for one in arrays])).astype(int).tolist()
            for name, arrays in {"members": seed.members, **kinds}.items()
        }
    return shown


def _of_network(config: MultiViewConfig, samples: Samples, arrays: Arrays) -> dict[str, Any]:
    """Of one network that was trained on labels: strengths (T, k, V) through `times` (T,), and how it memorises.

    `probability` holds the geometric mean of p_y (T,) over three kinds of training samples: multi-view, single-view
    with the view that the network learned, single-view with the one that it did not, which only their noise can tell
    apart.
    """
    kept, strengths = _kept(arrays), arrays["strengths"]
    foreseen = predict.lottery_winners(strengths[:1], samples, config)[0]
    due = predict.lottery_times(strengths[:1], samples, config)[0][np.arange(config.classes), foreseen]
    alone = samples.views != NOISE
    known = evaluate.learned_views(strengths[-1:])[0][samples.labels[alone], samples.views[alone]]
    probability = {"multi_view": _short(np.exp(-arrays["multi_losses"][kept]))}
    for name, rows in (("single_view_known", known), ("single_view_unknown", ~known)):
        if rows.any():
            probability[name] = _short(np.exp(-arrays["single_losses"][kept][:, rows].mean(1)))
    predicted = {"predicted_winner": foreseen.tolist(), "predicted_times": _short(due)}
    return {**_thin(arrays), **predicted, "probability": probability}


def _of_samples(seed: Seed) -> list[dict[str, Any]]:
    """A multi-view and a single-view training sample patch by patch, with the soft labels that teachers give them.

    The multi-view one is that whose second class weighs most in the ensemble's soft label: dark knowledge at its best.
    """
    config, samples, outputs = seed.config, seed.samples, seed.outputs
    teachers = np.stack([outputs[0], outputs.sum(0)])
    one, soft = distillation.clipped_probabilities(teachers, config.clip, config.soft_temperature)
    hard = descent.softmax(outputs[0])
    many = np.flatnonzero(samples.views == NOISE)
    chosen = [many[np.sort(soft[many], 1)[:, -2].argmax()], *np.flatnonzero(samples.views != NOISE)[:1]]
    return [
        {
            "kind": "multi-view" if samples.views[n] == NOISE else "single-view",
            "label": int(samples.labels[n]),
            "view": int(samples.views[n]),
            "feature": samples.feature[n].tolist(),
            "weight": _short(samples.weight[n]),
            "soft_labels": {
                "one network, softmax": _short(hard[n]),
                "one network, clipped": _short(one[n]),
                f"ensemble of {len(outputs)}, clipped": _short(soft[n]),
            },
        }
        for n in chosen
    ]


def _thin(arrays: Arrays) -> dict[str, Any]:
    return {name: _short(arrays[name][_kept(arrays)]) for name in ("times", "strengths")}


def _kept(arrays: Arrays) -> np.ndarray:
    return np.unique(np.linspace(0, len(arrays["times"]) - 1, TRACE_POINTS).round().astype(int))


def _short(values: np.ndarray) -> Any:
    """Four digits: a figure shows no more, and results.json stays readable."""
    return np.vectorize(lambda x: float(f"{x:.4g}"))(values).tolist()
