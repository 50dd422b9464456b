"""A network as one file that runs without divkd: torch.export, checked against the original."""

import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from divkd.empirical.networks.ensembles import Ensemble
from divkd.empirical.networks.handed import check_network, memory, reason, shown, whole
from divkd.empirical.use.given import check_flaw, device_of, evaluating, member_logits
from divkd.empirical.use.restore import Restored
from divkd.shared.errors import InputError, RunError
from divkd.shared.files import writable, write_bytes
from divkd.shared.seeds import rng

TOLERANCE = 1e-5  # of logits
BATCHES = (1, 2, 7)  # images, in which the file's answers are compared


def export(model: Restored | nn.Module, path: Path | str, shape: tuple[int, int, int] | None = None) -> float:
    """Write a network to `path` (.pt2) as a program that runs without divkd; the largest difference of logits.

    model   what `load_model` gives, or any network on the CPU, images (B, C, H, W) to logits (M, B, K) or (B, K)
    shape   (C, H, W) of an image, where `model` is a network; a `Restored` knows its own

    The program takes floats in [0, 1], any B from 1, leaves them as they are, and gives the network's logits in eval
    mode. What it is lies beside it in the file, as ``divkd.json``: shape and, of a `Restored`, model, method, members,
    seed, class_names, temperature. A file that is there is replaced, by a whole one or not at all.

    Before anything is written the program is saved, loaded and compared with the original on random images in batches
    of 1, 2 and 7. Raises `InputError` where network and shape do not fit, `RunError` where logits differ by more than
    1e-5.
    """
    facts: dict[str, Any] = {"shape": shape}
    net = model
    if isinstance(model, Restored):
        facts = {key: value for key, value in vars(model).items() if key not in ("net", "image_size")}
        net, shape = model.net, model.shape
    net = check_network(net, "the model")
    if shape is None:
        raise InputError("the shape of an image is not known; give shape=(channels, height, width)")
    if not isinstance(shape, Sequence) or len(shape) != 3:
        raise InputError(f"the shape {shown(shape)} is not that of an image; give shape=(channels, height, width)")
    shape = cast(tuple[int, int, int], tuple(whole("a length in shape", length, 1) for length in shape))
    facts["shape"] = shape
    if not isinstance(path, str | Path) or not str(path) or not writable(Path(path)):
        raise InputError(f"path {shown(path)} is no name of a file that can be written; give one such as net.pt2")
    if device_of(net).type != "cpu":
        raise InputError(f"the network is on {device_of(net)}; export a copy on the CPU: copy.deepcopy(net).cpu()")
    with evaluating(net):
        with torch.no_grad():
            check_flaw(member_logits(net, torch.zeros(2, *shape), "the network"), "the network")
        content = to_bytes(net, shape, json.dumps(facts))
        difference = compare(net, torch.export.load(io.BytesIO(content)).module(), shape)
    if not difference <= TOLERANCE:
        raise RunError(
            f"the exported program's logits differ from the network's by {difference:.3g}, more than {TOLERANCE:g}; "
            "nothing was written"
        )
    write_bytes(Path(path), content)
    return difference


class Whole(nn.Module):
    """A plain network that leaves its images as they are: it gets a copy, as the members of an ensemble do."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        """net(x)."""
        return self.net(x.clone())


def to_bytes(net: nn.Module, shape: tuple[int, int, int], facts: str) -> bytes:
    """`net` exported, with an open batch size, and serialised."""
    example = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    try:
        whole = net if isinstance(net, Ensemble) else Whole(net)
        program = torch.export.export(whole, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    except Exception as error:  # of many kinds, by what the network's own code does
        if memory(error):
            raise
        raise InputError(
            f"torch.export cannot follow {type(net).__name__} for any number of images: {reason(error)}; compute with "
            "tensors alone there, without if, item() or a fixed batch size"
        ) from error
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
        worst = torch.maximum(worst, (net(images.clone()) - program(images)).abs().max())
    return float(worst)
