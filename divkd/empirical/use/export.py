"""A network as one file that runs without divkd: torch.export, checked against the original."""

import io
import json
import warnings
from pathlib import Path

import torch
from torch import nn

from divkd.empirical.use.restore import Restored
from divkd.shared.errors import RunError
from divkd.shared.files import write_bytes
from divkd.shared.seeds import rng

TOLERANCE = 1e-5  # of logits
BATCHES = (1, 2, 7)  # images, in which the file's answers are compared


def export(found: Restored, path: Path) -> float:
    """Write `found.net`, which is on the CPU, to `path` (.pt2), whole or not at all; the largest difference of logits.

    The program takes (B, C, H, W) floats in [0, 1], any B from 1, and gives member logits (M, B, K). What it is lies
    beside it in the file, as ``divkd.json``: model, method, members, seed, class_names, shape, temperature.

    Before anything is written the program is saved, loaded and compared with the original on random images in batches
    of 1, 2 and 7. Raises `RunError` where logits differ by more than 1e-5.
    """
    facts = {key: value for key, value in vars(found).items() if key not in ("net", "image_size")}
    content = to_bytes(found.net, found.shape, json.dumps(facts))
    difference = compare(found.net, torch.export.load(io.BytesIO(content)).module(), found.shape)
    if not difference <= TOLERANCE:
        raise RunError(
            f"the exported program's logits differ from the network's by {difference:.3g}, more than {TOLERANCE:g}; "
            "nothing was written"
        )
    write_bytes(path, content)
    return difference


def to_bytes(net: nn.Module, shape: tuple[int, int, int], facts: str) -> bytes:
    """`net` exported, with an open batch size, and serialised."""
    example = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Said of every tensor in channels-last order; it is about devices, and the network is on the CPU.
        warnings.filterwarnings("ignore", "No complete tensor found in the group", UserWarning)
        torch.export.save(program, buffer, extra_files={"divkd.json": facts})
    return buffer.getvalue()


@torch.no_grad()
def compare(net: nn.Module, program: nn.Module, shape: tuple[int, int, int]) -> float:
    """The largest difference of their logits on random images; NaN where one is NaN."""
    generator = rng(0, "export/compare")
    worst = torch.zeros(())
    for size in BATCHES:
        images = torch.from_numpy(generator.random((size, *shape), dtype="float32"))
        worst = torch.maximum(worst, (net(images) - program(images)).abs().max())
    return float(worst)
