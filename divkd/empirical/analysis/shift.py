"""Images that a network was not trained for: out of distribution, the same classes from elsewhere, corrupted ones."""

import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.data import datasets
from divkd.empirical.data.corrupt import SEVERITIES, Corruptions
from divkd.empirical.data.images import channels_first
from divkd.empirical.data.names import DATASETS
from divkd.empirical.data.splits import Split
from divkd.empirical.training.job import predict
from divkd.shared.errors import InputError
from divkd.shared.metrics.calibration import Temperature, calibrated
from divkd.shared.metrics.diversity import entropy
from divkd.shared.metrics.ood import ood_scores, separation
from divkd.shared.metrics.predictions import read_arrays
from divkd.shared.metrics.quality import ensemble_log_probs, pairwise_kl, quality_of, sample_scores

IMAGES = ("images", "x", "x_test")
LABELS = ("labels", "y", "y_test")
ENTROPY_BINS = 20  # equal widths from 0 to log K
CORRUPTED = ("acc", "nll", "ece", "cal_nll", "cal_ece")


@dataclass(frozen=True)
class ImageSet:
    """A set of images beside a run's own: labels are there where its classes are the run's."""

    name: str
    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor | None  # (N,) int64

    def sha256(self) -> str:
        """The sum of its bytes."""
        digest = hashlib.sha256(self.images.numpy().data)
        digest.update(b"" if self.labels is None else self.labels.numpy().data)
        return digest.hexdigest()

    def split(self, device: torch.device) -> Split:
        """Its images on `device`, with labels 0 where it has none of the run's classes."""
        labels = torch.zeros(len(self.images), dtype=torch.int64) if self.labels is None else self.labels
        return Split(self.images, labels).to(device)


def read_set(
    source: str, shape: tuple[int, ...], classes: int, limit: int, data_dir: str | None, labelled: bool
) -> ImageSet:
    """The first `limit` images of `source`: the test split of a data set of `DATASETS` in `data_dir`, or an .npz file.

    A file holds `images`, `x` or `x_test`, (N, H, W, C) or (N, C, H, W) uint8, and where `labelled` `labels`, `y` or
    `y_test`, (N,) whole numbers below `classes`, which mean the run's classes; else labels are not read. Images of
    another shape than `shape` (C, H, W) are refused. Raises `InputError`.
    """
    if source in DATASETS:
        if labelled:
            raise InputError(f"--shift {source}: its classes are not the run's; give it with --ood, or an .npz file")
        split = datasets.load(source, data_dir, False, None).test
        images, labels, name = split.images.numpy(), None, source
    else:
        path = Path(source)
        if not path.is_file():
            raise InputError(
                f"there is no file {source}; give an .npz file with images, or one of {', '.join(DATASETS)}"
            )
        arrays = read_arrays(path, (*IMAGES, *LABELS), "images=..., labels=...")
        named = [key for key in IMAGES if key in arrays]
        if len(named) != 1:
            raise InputError(f"{path} holds {', '.join(arrays) or 'nothing'}; one of {', '.join(IMAGES)} is needed")
        images, name = channels_first(f"{named[0]} in {path}", arrays[named[0]]), path.stem
        labels = _labels(path, arrays, len(images), classes) if labelled else None
    if images.shape[1:] != shape:
        raise InputError(f"images of {source} have shape {images.shape[1:]} and the run's {shape}; make them alike")
    kept = np.ascontiguousarray(images[:limit])
    return ImageSet(name, torch.from_numpy(kept), None if labels is None else torch.from_numpy(labels[:limit].copy()))


def _labels(path: Path, arrays: Mapping[str, np.ndarray], count: int, classes: int) -> np.ndarray:
    named = [key for key in LABELS if key in arrays]
    if len(named) != 1:
        raise InputError(f"{path} holds {', '.join(arrays)}; one of {', '.join(LABELS)} is needed for --shift")
    labels = arrays[named[0]]
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise InputError(
            f"{named[0]} in {path} is {labels.dtype} of shape {labels.shape}; ({count},) whole numbers are needed"
        )
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"{named[0]} in {path} are {labels.min()} to {labels.max()}; the run's classes are 0 to {classes - 1}"
        )
    return labels.astype(np.int64)


def out_of_distribution(own: Tensor, ood: Mapping[str, Tensor]) -> dict[str, Any]:
    """{set: {n, scores, entropy}} of images of other classes beside the test images, the first the positive class.

    scores: {auroc, aupr, fpr95} by score (`shared.metrics.ood`); entropy: the share of the images in each of 20 bins of
    the mean prediction's entropy, of equal width from 0 to log K. ``test`` has the entropy of the test images alone.
    own, ood: member log-probabilities (M, N, K).
    """
    mine = ood_scores(own)
    rows: dict[str, Any] = {"test": {"n": own.shape[1], "entropy": _histogram(own)}}
    for name, log_probs in ood.items():
        theirs = ood_scores(log_probs)
        scores = {score: separation(mine[score], theirs[score]) for score in mine}
        rows[name] = {"n": log_probs.shape[1], "scores": scores, "entropy": _histogram(log_probs)}
    return rows


def _histogram(log_probs: Tensor) -> list[float]:
    share = entropy(log_probs) / math.log(log_probs.shape[2])
    index = (share * ENTROPY_BINS).long().clamp(0, ENTROPY_BINS - 1)
    return (torch.bincount(index, minlength=ENTROPY_BINS).double() / len(index)).tolist()


def evaluated(log_probs: Tensor, labels: Tensor, temperature: Temperature) -> dict[str, Any]:
    """{acc, nll, brier, ece, cal_nll, cal_brier, cal_ece, pairwise_kl, n} with a temperature fitted elsewhere.

    The temperature is that of the run's own validation images: nothing here is fitted on shifted images.
    """
    pooled = ensemble_log_probs(log_probs)
    row = quality_of(sample_scores(pooled[None], labels)) | calibrated(pooled, labels, temperature)[0]
    return {**without_temperature(row), "pairwise_kl": pairwise_kl(log_probs), "n": len(labels)}


def without_temperature(row: Mapping[str, float]) -> dict[str, float]:
    """`row` of `shared.metrics.evaluation.evaluate` without the temperature and what is said of it."""
    return {key: value for key, value in row.items() if not key.startswith("temperature")}


def corruption_cells(
    net: nn.Module, cells: Mapping[tuple[str, int], Split], temperature: Temperature
) -> dict[str, dict[str, list[float]]]:
    """{metric: {kind: [5 numbers]}}: acc, nll, ece, cal_nll and cal_ece by kind of corruption and severity 1 to 5."""
    rows: dict[str, list[dict[str, float]]] = {}
    for (kind, _), split in cells.items():
        rows.setdefault(kind, []).append(evaluated(predict(net, split), split.labels.cpu(), temperature))
    return {metric: {kind: [row[metric] for row in rows[kind]] for kind in rows} for metric in CORRUPTED}


def corrupted(source: Corruptions, device: torch.device) -> dict[tuple[str, int], Split]:
    """Every cell of `source`, made once: (kind, severity) to its images, kinds in order and severities from 1."""
    cells = itertools.product(source.kinds, range(1, SEVERITIES + 1))
    return {cell: Split(source.images(*cell), source.labels).to(device) for cell in cells}


def first(split: Split, count: int) -> Split:
    """The first `count` images of `split`."""
    return Split(split.images[:count], split.labels[:count])
