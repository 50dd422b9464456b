"""Which views of the data set `views` a network has learned, member by member.

    accuracy_(m,i,l) = share of the probes of class i that show view l alone (of its views) and that m calls i

(`divkd.empirical.data.views.probes`: fresh images, of which nothing is chosen). A view is missed where that is below
`MISSED`; a network misses a class where it misses any of its views. Chance is 1 / k, or what a network gains from
the features of other classes.
"""

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from divkd.empirical.data.names import ViewsConfig
from divkd.empirical.data.views import probes
from divkd.empirical.training.seed_run import SeedRun, predict
from divkd.shared.stats import summarise

MISSED = 0.5
Row = dict[str, Any]

_probes = functools.lru_cache(1)(probes)  # once for all jobs of a process


def answers(seed_run: SeedRun, net: nn.Module) -> Tensor | None:
    """Member probabilities (L, M, N, k) of the probes of each view; None where the data set has no known views."""
    config = seed_run.config
    if config.views is None:
        return None
    device = torch.device(config.device)
    return torch.stack([predict(net, split.to(device)) for split in _probes(config.views)]).exp()


def row(found: Tensor, config: ViewsConfig, names: Row, member: int | None = None) -> Row:
    """{**names, member, accuracy (k, L)} of `answers` (L, M, N, k): of one member, or of the mean of all (null)."""
    labels, chosen = _probes(config)[0].labels, slice(None) if member is None else slice(member, member + 1)
    right = (found[:, chosen].mean(1).argmax(-1) == labels).double()  # (L, N)
    accuracy = [right[:, labels == one].mean(1).tolist() for one in range(config.classes)]
    return {**names, "member": 0 if len(found[0]) == 1 else member, "accuracy": accuracy}


def missed(row: Row) -> float:
    """The share of classes of which the network of a row misses a view."""
    return _mean(min(of_class) < MISSED for of_class in row["accuracy"])


def measures(together: Row, alone: list[Row]) -> dict[str, float]:
    """What a model's row says of its views: the share missed by all together, and the mean of its members' shares."""
    return {"views_missed": missed(together), "views_missed_member": _mean(map(missed, alone))}


def summary(rows: list[Row]) -> list[Row]:
    """By model, method and members, together or each alone: what is missed, {mean, std, n} over seeds.

    `missed` is the share of (network, class) pairs with a view below `MISSED`, `weaker` the mean accuracy of a class's
    weaker view, `stronger` of its stronger one.
    """
    by: dict[tuple[Any, ...], dict[int, list[Row]]] = {}
    for row in rows:
        key = row["model"], row["method"], row["members"], row["member"] is not None
        by.setdefault(key, {}).setdefault(row["seed"], []).append(row)
    measures = {
        "missed": missed,
        "weaker": lambda row: _mean(map(min, row["accuracy"])),
        "stronger": lambda row: _mean(map(max, row["accuracy"])),
    }
    return [
        dict(zip(("model", "method", "members", "alone"), key, strict=True))
        | {"networks": sum(map(len, seeds.values()))}
        | {name: summarise(_mean(map(of, same)) for same in seeds.values()) for name, of in measures.items()}
        for key, seeds in by.items()
    ]


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)
