"""The search for where ODS pays, beside `divkd sweep`: its data, its rule, its table and its figure; see PLAN.md.

python search.py data --data-dir FOLDER     explore.npz and confirm.npz from CIFAR-10
python search.py choose RUN...              the candidates of stage 1, lowest difference first
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from divkd.report.swept import points, summary

CELL = tuple[tuple[str, ...], tuple[str, ...]]


def halved(images: np.ndarray) -> np.ndarray:
    """(N, 3, 32, 32) -> (N, 3, 16, 16), uint8: means of 2 x 2 pixels."""
    blocks = images.reshape(len(images), 3, 16, 2, 16, 2)
    return np.asarray(blocks.astype(np.float32).mean((3, 5)).round(), np.uint8)


def data(folder: str) -> None:
    """Write explore.npz and confirm.npz: the same images to learn from and to calibrate on, others to measure on."""
    from divkd.empirical.data.datasets import load

    whole = load("cifar10", folder, False, None)
    train, last, test = (
        (one.images.numpy(), one.labels.numpy()) for one in (whole.train, whole.validation, whole.test)
    )
    assert len(train[0]) == 45_000
    assert len(last[0]) == 5_000
    parts = {"train": [one[:10_000] for one in train], "val": [one[:1_000] for one in last]}
    for name, measured in (
        ("explore", [one[40_000:44_000] for one in train]),
        ("confirm", [one[:4_000] for one in test]),
    ):
        arrays = {}
        for part, (images, labels) in {**parts, "test": measured}.items():
            arrays |= {f"x_{part}": halved(images).transpose(0, 2, 3, 1), f"y_{part}": labels}
        np.savez(f"{name}.npz", **arrays)


def read(folder: str) -> dict[str, Any]:
    """The results of a sweep."""
    found: dict[str, Any] = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
    return found


def choose(folders: list[str]) -> None:
    """Print ods - kd in calibrated NLL of every candidate, lowest first."""
    found: list[tuple[float, str, CELL]] = []
    for folder in folders:
        for cell, rows in points({**read(folder), "minus": "method=kd"}).items():
            if cell[1][0] != "merged":  # of a student that is a candidate itself
                found.append((float(summary(rows, "cal_nll")["mean"]), folder, cell))
    for value, folder, (at, of) in sorted(found):
        print(f"{value:+.4f}  {folder}  {', '.join(at)}  {', '.join(of)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("data").add_argument("--data-dir", required=True)
    commands.add_parser("choose").add_argument("runs", nargs="+")
    asked = parser.parse_args()
    data(asked.data_dir) if asked.command == "data" else choose(asked.runs)
