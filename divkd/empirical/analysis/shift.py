"""Images that a network was not trained for: out of distribution, the same classes from elsewhere, corrupted ones."""

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.data import datasets
from divkd.empirical.data.arrays import check_labels, images_like
from divkd.empirical.data.corrupt import SEVERITIES, Corruptions
from divkd.empirical.data.files import passed_over, walk
from divkd.empirical.data.images import labelled_files, mixed, read_images
from divkd.empirical.data.names import DATASETS
from divkd.empirical.data.splits import Split
from divkd.empirical.training.seed_run import predict
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
    passed: str = ""  # the files that were not read, in words

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
    source: str,
    shape: tuple[int, ...],
    classes: Sequence[str],
    limit: int,
    data_dir: str | None,
    labelled: bool,
    image_size: int | None = None,
) -> ImageSet:
    """The first `limit` images of `source`: the test split of a data set of `DATASETS` in `data_dir`, .npz or folder.

    A file holds `images`, `x` or `x_test`, (N, H, W, C) or (N, C, H, W) uint8, and where `labelled` `labels`, `y` or
    `y_test`, (N,) whole numbers that mean the run's `classes`; else labels are not read. A folder holds images in and
    below it, where `labelled` in and below CLASS/, which come in a random order that is always the same, and are scaled
    as those of the run, to `image_size`. Images of another shape than `shape` (C, H, W) are refused. Raises
    `InputError`.
    """
    path, passed, labels = Path(source), "", None
    name = path.stem
    if source in DATASETS:
        if labelled:
            raise InputError(f"--shift {source}: its classes are not the run's; give it with --ood, or an .npz file")
        images, name = datasets.load(source, data_dir, False, None).test.images.numpy(), source
    elif path.is_dir():
        images, labels, passed = _read_folder(path, shape, classes, limit, labelled, image_size)
        name = path.resolve().name
    elif path.is_file():
        arrays = read_arrays(path, (*IMAGES, *LABELS), "images=..., labels=...")
        key = _only(path, arrays, IMAGES)
        images = images_like(f"{key} in {path}", arrays[key], shape)
        if labelled:
            key = _only(path, arrays, LABELS, " for --shift")
            labels = check_labels(path, key, arrays[key], len(images), classes)
    else:
        kinds = "a folder of images, an .npz file with images"
        raise InputError(f"there is no file {source}; give {kinds}, or one of {', '.join(DATASETS)}")
    if images.shape[1:] != shape:
        raise InputError(f"images of {source} have shape {images.shape[1:]} and the run's {shape}; take another set")
    kept = np.ascontiguousarray(images[:limit])
    own = None if labels is None else torch.from_numpy(labels[:limit].copy())
    return ImageSet(name, torch.from_numpy(kept), own, passed and f"{source}: {passed}")


def _only(path: Path, arrays: Mapping[str, np.ndarray], names: Sequence[str], what: str = "") -> str:
    """The one of `names` that is in `arrays`."""
    named = [key for key in names if key in arrays]
    if len(named) != 1:
        held = ", ".join(arrays) or "nothing"
        raise InputError(f"{path} holds {held}; one of {', '.join(names)} is needed{what}")
    return named[0]


def _read_folder(
    folder: Path, shape: tuple[int, ...], classes: Sequence[str], limit: int, labelled: bool, image_size: int | None
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Images, labels where `labelled`, and what was passed over, in words."""
    passed: Counter[str] = Counter()
    if labelled:
        files, labels = labelled_files(folder, classes, "the run", passed)
    else:
        files = walk(folder, passed)
        labels = np.zeros(len(files), np.int64)
    order = mixed(labels)[:limit]
    images = read_images([files[i] for i in order], image_size, shape, "L" if shape[0] == 1 else "RGB", "the run's")
    return images, labels[order] if labelled else None, passed_over(passed)


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
