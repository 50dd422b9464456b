"""What trained networks get right, which views they know, and what the practice's functions say of them.

For the last, outputs F (M, N, k) become log-probabilities log softmax(F), and these go through `divkd.shared.metrics`:
quality, calibration, diversity, deep ensemble equivalent. A temperature is fitted on fresh samples of the same kind as
those that it is applied to. torch is imported when something is judged.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from divkd.shared.files import plain
from divkd.shared.stats import summarise
from divkd.theory.data import TESTS, VALIDATION

if TYPE_CHECKING:
    from torch import Tensor

TOGETHER = {"single": "ensemble", "distilled": "ensemble_of_distilled"}  # the claim of all networks of a kind
HARD = "single_view"  # the samples on which networks err: what an ensemble is worth is measured there
SUBSETS = 10  # of each size, for the ladder: as many as a default ensemble has members
# How the answer of several networks is made: one alone, the mean of probabilities as in the practice, or the sum of
# their outputs as in the theorems.
ALONE, PROBABILITIES, OUTPUTS = "alone", "probabilities", "outputs"

Answers = Mapping[str, "Tensor"]  # log-probabilities (M, N, k) by samples


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
    """Share of (class, view) pairs that no member of an ensemble of K = 1..M learned, (M,), from learned (M, k, V).

    Windows as in `errors_by_members`.
    """
    return np.array([(known == 0).mean() for known in windows(learned.astype(np.int64))])


def learned_views(strengths: np.ndarray) -> np.ndarray:
    """Whether each view of a class is learned, (M, k, V) bool, from strengths Lambda (M, k, V) in units of varrho.

    A view is learned if Lambda is above a quarter of the class's strongest view: a loser stays near its start, sigma_0,
    following Allen-Zhu and Li, Lemma D.19. A network that was distilled can know both views unequally well: 3.1 and 7.0
    were seen in one class, which half, in place of a quarter, would count as one view.
    """
    return np.asarray(strengths >= 0.25 * strengths.max(2, keepdims=True))


def handed_on(links: Sequence[np.ndarray]) -> dict[str, float | None]:
    """What the links of a chain know (n, k, 2), F_1 first: of their teachers' views, `chain_kept`, of the others."""
    pairs = [(teachers[: len(taught)], taught) for teachers, taught in itertools.pairwise(links)]
    kept, found = (np.concatenate([b[a == known] for a, b in pairs]) for known in (True, False))
    return {"chain_kept": float(kept.mean()), "chain_found": float(found.mean()) if found.size else None}


def judged(outputs: Mapping[str, Mapping[str, np.ndarray]], labels: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """{rows, curve, diversity} of a seed's networks, from outputs (M, N, k) by kind and samples, and labels (N,).

    A row is of a `claim`, of `members` whose answers are `pooled` in one of three ways, on `samples` ("train",
    "multi_view", "single_view"): accuracy, NLL, Brier, ECE; calibrated on fresh samples; of members pooled by
    probability their pairwise KL and disagreement; and on single-view samples, of what is no part of the members'
    ladder, `dee`, the deep ensemble equivalent by calibrated NLL on its `curve`. Rows of networks alone are means over
    these networks.
    `diversity` is that of members, and of what is distilled from them, by samples: in total and by confidence.
    """
    import torch

    from divkd.shared.metrics.dee import equivalent, equivalent_curve
    from divkd.shared.metrics.diversity import profile

    truth = {of: torch.from_numpy(np.ascontiguousarray(values)).long() for of, values in labels.items()}
    rows: list[dict[str, Any]] = []
    diversity: dict[str, Any] = {}
    curve: list[dict[str, Any]] = []
    for name, of_kind in outputs.items():
        members = {of: _log_probs(values) for of, values in of_kind.items()}
        count = len(members["train"])
        if name == "single":
            chosen = [part for of in (VALIDATION + HARD, HARD) for part in (members[of], truth[of])]
            curve = equivalent_curve(*chosen, limit=SUBSETS)
        for of in ("train", *TESTS):
            about = {"samples": of, "members": count}
            alone = [_row({key: one[m : m + 1] for key, one in members.items()}, truth, of) for m in range(count)]
            means = {key: float(np.mean([row[key] for row in alone])) for key in alone[0]}
            rows.append({"claim": name, "pooled": ALONE, **about, "members": 1, **means})
            if name in TOGETHER and count > 1:
                summed = {key: _log_probs(values.sum(0, keepdims=True)) for key, values in of_kind.items()}
                kl = profile(members[of], truth[of])
                diversity.setdefault(name, {})[of] = kl
                pair = {key: kl[key] for key in ("pairwise_kl", "disagreement")}
                pooled = {"claim": TOGETHER[name], **about}
                rows.append({**pooled, "pooled": PROBABILITIES, **_row(members, truth, of), **pair})
                rows.append({**pooled, "pooled": OUTPUTS, **_row(summed, truth, of)})
    for row in rows:
        ladder = row["claim"] == "single" or (row["claim"], row["pooled"]) == ("ensemble", PROBABILITIES)
        if row["samples"] == HARD and not ladder:
            worth = equivalent(curve, row["cal_nll"])
            row["dee"] = {"value": worth.value, "censored": worth.censored}
    return {"rows": rows, "curve": curve, "diversity": plain(diversity)}  # null in an empty bin


def over_seeds(seeds: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """What results.json holds of `judged`: `summary`, its rows as {mean, std, n} over seeds, `ladders`, `diversity`.

    The ladder of a seed has its `curve` and, by claim, the `dee` of networks alone.
    """
    first, *_ = seeds.values()
    summary = []
    for place, row in enumerate(first["rows"]):
        same = [seed["rows"][place] for seed in seeds.values()]
        line = {key: value for key, value in row.items() if key in ("claim", "pooled", "samples", "members")}
        line |= {key: summarise(one[key] for one in same) for key in row if key not in (*line, "dee")}
        summary.append(line | ({"dee": _equivalents(same)} if "dee" in row else {}))
    ladders = [
        {"seed": number, "curve": seed["curve"],
         "dee": {row["claim"]: row["dee"] for row in seed["rows"] if row["pooled"] == ALONE and "dee" in row}}
        for number, seed in seeds.items()
    ]  # fmt: skip
    diversity = [{"seed": number, **seed["diversity"]} for number, seed in seeds.items()]
    return {"summary": summary, "ladders": ladders, "diversity": diversity}


def _equivalents(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from divkd.shared.metrics.dee import Equivalent, summarise_equivalents

    return summarise_equivalents(Equivalent(**row["dee"]) for row in rows)


def _log_probs(outputs: np.ndarray) -> "Tensor":
    import torch

    return torch.log_softmax(torch.from_numpy(np.ascontiguousarray(outputs)).double(), dim=-1)


def _row(members: Answers, labels: Mapping[str, "Tensor"], of: str) -> dict[str, float]:
    """What the practice says of predictions on the samples `of`, calibrated where others of that kind are."""
    from divkd.shared.metrics.evaluation import evaluate
    from divkd.shared.metrics.quality import quality_of, sample_scores

    validation = VALIDATION + of
    if validation not in members:
        return quality_of(sample_scores(members[of], labels[of]))
    row = evaluate(members[validation], labels[validation], members[of], labels[of])
    return {key: float(value) for key, value in row.items() if key != "pairwise_kl"}
