"""What single networks and their ensemble look at in the same images, and what single channels respond to.

    S_m(x)_hw = |d log p_m(y | x) / dx_(:, h, w)|_2,     the ensemble's of p = (1 / M) sum_m p_m

(`divkd.empirical.analysis.saliency`), of test images in their order. Measured are Pearson's correlations over pixels
of two networks' maps of an image, of a network's map and that of the ensemble of all others, and, to compare with, of
one network's maps of two images that follow each other, which share what any image's map has.

Of the data set `views` it is known where each view of an image's class lies, and how much of S is there is set beside
the views that the network has learned (`divkd.empirical.experiments.looked_at`).

A channel of the layer behind a group of blocks responds to an image by its mean over pixels; of its `TOP` images by
that, `purity` is the share of the class that most of them have. `peaks` are where in them it responds most.
"""

from collections.abc import Mapping
from functools import partial
from itertools import combinations
from typing import Any, cast

import torch
from torch import Tensor

from divkd.empirical.analysis.saliency import correlations, gradients, magnitude, of_ensemble
from divkd.empirical.data.splits import Split, to_float
from divkd.empirical.experiments.config import FeatureMapConfig
from divkd.empirical.experiments.experiment import Experiment
from divkd.empirical.experiments.looked_at import by_view, cells_of, known_shares, shown
from divkd.empirical.experiments.networks import Row, Rows, teacher_jobs
from divkd.empirical.networks.cut import below, blocks_below
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training.distillation import teachers_of
from divkd.empirical.training.seed_run import SeedRun
from divkd.empirical.training.work import Source
from divkd.shared.files import packed
from divkd.shared.jobs import Job, Record
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.seeds import rng
from divkd.shared.stats import paired, summarise

BATCH = 50
SHOWN = 6  # images whose maps are drawn: the first of as many classes, in the test images' order
TOP = 6  # images that a channel is judged by
NETWORKS, CHANNELS = 2, 4  # whose channels are drawn, and how many of each
BRIGHTEST = 0.995  # the quantile of a map that is drawn white


def jobs(source: Source) -> list[Job]:
    """By seed the networks, and the measure of all."""
    config, made = cast(FeatureMapConfig, source.config), list[Job]()
    for seed in config.seeds:
        networks = teacher_jobs(source, seed)
        name = f"seed{seed}-maps{config.members}-of{config.images}-{config.cut}"
        answered = float(config.members * (5 * config.images + len(source.data.test)))
        after = tuple(job.name for job in networks)
        work, memory = partial(measure, source, seed), _memory(config, source)
        made += [*networks, Job(name, work, after, cost=answered, memory=memory)]
    return made


def _memory(config: FeatureMapConfig, source: Source) -> int:
    """Bytes of the maps, and of the gradients of a batch."""
    channels, height, width = source.data.test.images.shape[1:]
    each = (2 * config.members + 1) * height * width
    return each * (4 * min(config.images, len(source.data.test)) + 8 * BATCH * channels)


def measure(source: Source, seed: int, run: Run, progress: Progress) -> Row:
    """Maps, their correlations, shares by view, channels; of the first seed the pictures too."""
    config = cast(FeatureMapConfig, source.config)
    seed_run = SeedRun(config, source.data, seed, run, progress)
    networks, _ = teachers_of(seed_run, config.members)
    test = source.data.test[: config.images]
    found, log_p = maps(networks, test)
    purity, chance, pictured = channels(seed_run, networks, test)
    row: Row = {
        "seed": seed,
        "images": len(test),
        **agreement(found),
        "purity": purity,
        "purity_chance": chance,
    }
    measured: Row = {"maps": [row], "views": by_view(seed_run, networks, found), "pictures": []}
    if seed == config.seeds[0]:
        more = {"seed": seed, "class_names": list(source.data.class_names), "channels": pictured}
        measured["pictures"] = [pictures(config, test, found, log_p) | more]
    return measured


def maps(networks: DeepEnsemble, test: Split) -> tuple[Tensor, Tensor]:
    """S (2 M + 1, N, H, W) float32 of the members, of the ensemble, and of that of all but m; log p(y) (M, N)."""
    found, logs, members = [], [], networks.members
    for images, labels in zip(test.images.split(BATCH), test.labels.split(BATCH), strict=True):
        each, log_p = gradients(networks, to_float(images), labels)
        others = [[j for j in range(members) if j != m] for m in range(members)]
        ensembles = [of_ensemble(each[chosen], log_p[chosen]) for chosen in ([*range(members)], *others)]
        found.append(magnitude(torch.cat([each, torch.stack(ensembles)])).float().cpu())
        logs.append(log_p.cpu())
    return torch.cat(found, 1), torch.cat(logs, 1)


def agreement(found: Tensor) -> dict[str, float]:
    """Mean correlations of `maps`: of two networks, of a network with all others' ensemble, of two images."""
    members = len(found) // 2
    each, ensemble, others = found.split((members, 1, members))
    between = [correlations(each[one], each[other]).mean() for one, other in combinations(range(members), 2)]
    return {
        "between": float(torch.stack(between).mean()),
        "with_ensemble": float(correlations(each, ensemble.expand_as(each)).mean()),
        "with_others": float(correlations(each, others).mean()),
        "other_image": float(correlations(each, each.roll(1, 1)).mean()),
    }


def channels(seed_run: SeedRun, networks: DeepEnsemble, test: Split) -> tuple[float, float, Rows]:
    """Mean purity of all channels, the same of images drawn at random, and the top images of a few channels.

    Those that are shown are spread evenly over the purities of the first `NETWORKS`, the purest first.
    """
    config = cast(FeatureMapConfig, seed_run.config)
    place, labels = blocks_below(config.network, config.cut), test.labels.cpu()
    purities, pictured = [], Rows()
    for number, net in enumerate(networks.nets):
        lower = below(net, place)
        with torch.inference_mode():
            blocks = [lower(to_float(images)).mean((2, 3)) for images in test.images.split(BATCH)]
        top = torch.cat(blocks).topk(TOP, 0).indices.T  # (channels, TOP)
        purity = pure(labels[top.cpu()])
        purities.append(purity.mean())
        order = purity.argsort(descending=True, stable=True)
        even = torch.linspace(0, len(order) - 1, min(CHANNELS, len(order))).round().long()
        for channel in order[even].tolist() if number < NETWORKS else ():
            images, alike = test.images[top[channel]], labels[top[channel].cpu()]
            one = {"network": number, "channel": channel, "purity": float(purity[channel]), "labels": alike.tolist()}
            one["peaks"] = peaks(lower, images, channel)
            pictured.append(one | packed(images.cpu().numpy()))
    draws = rng(seed_run.seed, "feature-map/chance").integers(len(labels), size=(1000, TOP))
    return float(torch.stack(purities).mean()), float(pure(labels[torch.from_numpy(draws)]).mean()), pictured


@torch.inference_mode()
def peaks(lower: torch.nn.Module, images: Tensor, channel: int) -> list[list[float]]:
    """Where a channel responds most in each of `images`: row and column of the pixel in the middle."""
    answers = lower(to_float(images))[:, channel]
    scale = images.shape[-2] / answers.shape[-2], images.shape[-1] / answers.shape[-1]
    places = (divmod(int(one), answers.shape[-1]) for one in answers.flatten(1).argmax(1))
    return [[scale[0] * (row + 0.5) - 0.5, scale[1] * (column + 0.5) - 0.5] for row, column in places]


def pure(labels: Tensor) -> Tensor:
    """Of labels (channels, TOP) the share of the one that is there most often."""
    alike = (labels[:, :, None] == labels[:, None]).double().sum(-1)
    return alike.amax(-1) / labels.shape[1]


def pictures(config: FeatureMapConfig, test: Split, found: Tensor, log_p: Tensor) -> Row:
    """The images that are shown, the maps of networks and ensemble in bytes, log p(y), and the cells of known views."""
    members = len(log_p)
    labels = test.labels.cpu()
    rows = sorted(first(labels).values())[:SHOWN]
    chosen = found[: members + 1, rows]
    bright = chosen.flatten(2).quantile(BRIGHTEST, -1).clamp_min(torch.finfo(torch.float32).tiny)
    drawn = (255 * (chosen / bright[..., None, None]).clamp(0, 1)).round().to(torch.uint8)
    together = log_p[:, rows].exp().mean(0, keepdim=True)
    cells = []
    if config.views is not None:
        features, _ = shown(config.views, len(test))
        cells = [cells_of(config.views, features[row], int(labels[row])) for row in rows]
    return {
        "images": packed(test.images[rows].cpu().numpy()),
        "maps": packed(drawn.numpy()),
        "probability": torch.cat([log_p[:, rows].exp(), together]).tolist(),
        "labels": labels[rows].tolist(),
        "cells": cells,
    }


def first(labels: Tensor) -> dict[int, int]:
    """Of each class the place of its first image."""
    places: dict[int, int] = {}
    for place, label in enumerate(labels.tolist()):
        places.setdefault(label, place)
    return places


def results(config: Any, records: Mapping[str, Record]) -> dict[str, Any]:
    """Maps' correlations by seed and over seeds, shares by view, and the pictures of the first seed."""
    measured = [record for record in records.values() if "maps" in record]
    rows = [row for record in measured for row in record["maps"]]
    views = [row for record in measured for row in record["views"]]
    names = [name for name in rows[0] if name not in ("seed", "images")]
    summary: dict[str, Any] = {name: summarise(row[name] for row in rows) for name in names}
    for less in ("between", "with_others"):
        summary[f"{less}_minus_other_image"] = paired((row[less] for row in rows), (row["other_image"] for row in rows))
    found = {"maps": rows, "summary": summary, "pictures": measured[0]["pictures"][0]}
    return found | ({"views": {"rows": views, "summary": known_shares(views)}} if views else {})


EXPERIMENT = Experiment("experiment feature-map", jobs, results)
