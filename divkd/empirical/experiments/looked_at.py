"""How much of a network's maps lies on each view of its class, of the data set `views`, which knows where each is.

    share_(m, i, l) = mean over images of class i of (sum of S_m over the cell of view l) / (sum of S_m)

One of 16 cells holds 1 / 16 of the pixels. Beside it stands the network's accuracy on images that show the view alone,
which says whether it has learned the view (`divkd.empirical.training.known`).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from divkd.empirical.data.names import ViewsConfig
from divkd.empirical.data.views import ACROSS, CELL, draw
from divkd.empirical.experiments.networks import Rows
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training import known
from divkd.empirical.training.seed_run import SeedRun
from divkd.shared.stats import paired, summarise


def shown(config: ViewsConfig, count: int) -> tuple[Tensor, Tensor]:
    """The features (N, cells) that the first `count` test images show, -1 where none is, and their labels (N,)."""
    drawn = draw(config, "test", count)
    return torch.from_numpy(np.where(drawn.weight > 0, drawn.feature, -1)), torch.from_numpy(drawn.labels)


def cells_of(config: ViewsConfig, features: Tensor, label: int) -> list[list[int]]:
    """Of one image (cells,) the cells of each view of its class."""
    count = config.class_views
    return [(features == label * count + view).nonzero()[:, 0].tolist() for view in range(count)]


def by_view(seed_run: SeedRun, networks: DeepEnsemble, found: Tensor) -> Rows:
    """By network, and of the ensemble (null), the share of S by class and view, and the accuracy on that view alone.

    share (k, L): the mean over the class's images that show the view of the share of S in its cell; `own`, `others` and
    `rest` are the shares in cells of the class's own views, of other classes' features, and of all else.
    """
    config, probed, members = seed_run.config.views, known.answers(seed_run, networks), networks.members
    if config is None or probed is None:
        return []
    (features, labels), count = shown(config, len(found[0])), config.class_views
    cells = found[: members + 1].unflatten(-1, (ACROSS, CELL)).unflatten(-3, (ACROSS, CELL)).sum((-1, -3))
    shares = cells.flatten(-2).double()
    shares = shares / shares.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)  # (M + 1, N, cells)
    mine = (features >= 0) & (features // count == labels[:, None])
    rows = []
    for number, share in enumerate(shares):
        member = None if number == members else number
        row = known.row(probed, config, {"seed": seed_run.seed}, member)
        row["share"] = [
            [_in_cells(share, mine & (features == label * count + view)) for view in range(count)]
            for label in range(config.classes)
        ]
        kinds = {"own": mine, "others": (features >= 0) & ~mine, "rest": features < 0}
        row |= {name: float((share * inside).sum(-1).mean()) for name, inside in kinds.items()}
        row["others_cells"] = float(kinds["others"].double().mean())
        row["member"] = member
        rows.append(row)
    return rows


def _in_cells(share: Tensor, inside: Tensor) -> float | None:
    """The mean share (N, cells) in the cells `inside`, over images that have one; None where none has."""
    showing = inside.any(-1)
    return float(share[inside].mean()) if showing.any() else None


def known_shares(views: Rows) -> dict[str, Any]:
    """Over seeds: the mean share in a cell of views that single networks have learned, that they miss, and of both.

    `learned` and `missed` are of single networks' (class, view) cells by accuracy, from 0.5 on or below; `correlation`
    is Pearson's of accuracy and share over them; `missed_by_ensemble` and so on are the ensemble's own.
    """
    values: dict[str, list[float]] = {}
    for seed in dict.fromkeys(row["seed"] for row in views):
        of_seed = [row for row in views if row["seed"] == seed]
        for whose, rows in (("", [row for row in of_seed if row["member"] is not None]),
                            ("ensemble_", [row for row in of_seed if row["member"] is None])):  # fmt: skip
            pairs = [(accuracy, share) for row in rows for both in zip(row["accuracy"], row["share"], strict=True)
                     for accuracy, share in zip(*both, strict=True) if share is not None]  # fmt: skip
            learned = [share for accuracy, share in pairs if accuracy >= known.MISSED]
            missed = [share for accuracy, share in pairs if accuracy < known.MISSED]
            for name, shares in (("learned", learned), ("missed", missed)):
                values.setdefault(f"{whose}{name}", []).extend([sum(shares) / len(shares)] if shares else [])
            for name in ("own", "others", "rest"):
                values.setdefault(f"{whose}{name}", []).append(sum(row[name] for row in rows) / len(rows))
            if not whose:
                values.setdefault("cells_missed", []).append(float(len(missed)))
                values.setdefault("cells_learned", []).append(float(len(learned)))
                values.setdefault("correlation", []).append(float(torch.corrcoef(torch.tensor(pairs).T)[0, 1]))
    summary: dict[str, Any] = {name: summarise(of) for name, of in values.items() if of}
    if len(values["learned"]) == len(values["missed"]):
        summary["learned_minus_missed"] = paired(values["learned"], values["missed"])
    return summary
