"""The figures of a page: drawn from results.json, as PNG bytes with a caption and a text for those who cannot see."""

import struct
import tempfile
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divkd.report import analysis, beside, ensembles, evaluation, multiview, plane
from divkd.report import sweep as cells
from divkd.report.style import DPI, save

Results = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """A PNG as a data: address, its size in CSS pixels, what it shows and whose numbers it is drawn from."""

    data: str
    width: int
    height: int
    alt: str
    caption: str


# What each figure shows; and of what: test images (or sets) and all seeds, all seeds, or the first seed alone.
ALL, SEEDS, ONE = "all", "seeds", "one"
SIMULATED = {
    "view_strengths": ("Strength of every class's two views through flow time, a line a class and view", ONE),
    "memorisation": ("Probability of the right class on training samples through flow time", ONE),
    "error_by_members": ("Error on single-view test samples by the ensemble's members, with the predictions", ALL),
    "claims": ("Error on single-view test samples of every claim, with bound and prediction", ALL),
    "views_learned": ("Which views of each class each network knows, before and after distillation", ONE),
    "drawn_sample": ("A multi-view and a single-view sample: which feature sits in which patch", ONE),
    "soft_labels": ("What teachers say of the multi-view sample, class by class", ONE),
}
SHOWN = {
    "simulate multiview": SIMULATED,
    "simulate window": {"window": ("Errors on single-view samples as one parameter at a time is changed", ALL)},
    "simulate ablations": {"ablations": ("Errors on single-view samples of every ablation, by claim", ALL)},
    "simulate plane": {
        "plane": ("Teachers' decisions, training points, and the points that Gaussian and ODS steps make of them", ONE)
    },
    "train cifar": {
        "methods": ("Test error and calibrated NLL of students by method, with the deep ensembles as lines", ALL),
        "teacher_diversity": ("Teachers' pairwise KL on training images, clean and moved, a mark a seed", SEEDS),
        "dee": ("The ladder's calibrated NLL by members, and the deep ensemble equivalent of students", ALL),
    },
    "analyse": {
        "by_members": ("Test error and calibrated NLL of the first 1, 2, ... members, on all test images", SEEDS),
        "corruptions": ("Accuracy, NLL and ECE over kinds of corruption, by severity", ALL),
        "diversity_by_confidence": ("Members' pairwise KL by confidence of the mean prediction", ALL),
        "transfer": ("Members' pairwise KL after an ODS step of an own, a sibling, an external teacher", ALL),
        "gradients": ("Cosine of students' input gradients with those of teachers", ALL),
        "entropy": ("Entropy of the mean prediction on test and on foreign images", ALL),
    },
    "evaluate": {
        "reliability": ("Accuracy against confidence, before and after calibration where there is one", ALL),
        "diversity": ("Members' pairwise KL by confidence of the mean prediction", ALL),
        "similarity": ("Member against member: equal predictions and correlation of errors", ALL),
        "dee": ("Calibrated NLL of the deep ensemble by members, and where the model stands", ALL),
    },
}


def pictures(results: Results, source: str) -> list[Picture]:
    """Every figure that `results` has the numbers for; `source` is the folder whose results.json they are.

    They are drawn anew, so that they cannot be of other numbers than the tables beside them.
    """
    command = results["command"]
    with tempfile.TemporaryDirectory() as folder:
        paths = [path for path in DRAW[command](results, Path(folder)) if path.suffix == ".png"]
        return [
            _picture(path.read_bytes(), shown, f"{shown}; {_n(results, of)}. Drawn from {source}/results.json.")
            for path in paths
            for shown, of in [SHOWN[command][path.stem]]
        ]


def theory_beside_practice(theory: Results, practice: Results, names: tuple[str, str]) -> Picture | None:
    """The error that is left by members, simulated and on real images; None where no network errs in theory."""
    first = theory["claims"]["ensemble"]["by_members"][0]
    if not first["single_view_error"] or not first["predicted"]:
        return None
    what = "Test error as a share of one network's, by the ensemble's members: simulated left, real images right"
    fig, _ = beside.ensemble_gain([beside.Source(names[0], theory), beside.Source(names[1], practice)])
    with tempfile.TemporaryDirectory() as folder:
        content = save(fig, Path(folder) / "gain.png").read_bytes()
    counts = f"theory: {_n(theory, ALL)}; practice: {_n(practice, ALL)}"
    return _picture(content, what, f"{what}; {counts}. Drawn from {names[0]} and {names[1]}.")


def _picture(content: bytes, shown: str, caption: str) -> Picture:
    width, height = struct.unpack(">II", content[16:24])  # the header of every PNG
    data = f"data:image/png;base64,{b64encode(content).decode()}"
    # 96 CSS pixels an inch: a figure keeps the size that it was laid out for
    return Picture(data, round(width * 96 / DPI), round(height * 96 / DPI), shown, caption)


def _n(results: Results, of: str) -> str:
    """How many seeds, images or samples stand behind a figure."""
    command = results["command"]
    if command == "evaluate":
        return f"{results['samples']:,} test samples, members: {results['members']}"
    seed = f"seed {results['seeds'][0]}"
    if of == ONE:
        return f"{seed} alone"
    seeds = f"n = {len(results['seeds'])} seeds" if len(results["seeds"]) > 1 else f"{seed} alone"
    if of == SEEDS:
        return seeds
    if command == "train cifar":
        return f"{results['split']['test']:,} test images, {seeds}"
    return f"at most {results['images']:,} images of each set, {seeds}" if command == "analyse" else seeds


DRAW: dict[str, Callable[[Results, Path], list[Path]]] = {
    "simulate multiview": multiview.draw,
    "simulate window": cells.draw,
    "simulate ablations": cells.draw,
    "simulate plane": plane.draw,
    "train cifar": ensembles.draw,
    "analyse": analysis.draw,
    "evaluate": evaluation.draw,
}
