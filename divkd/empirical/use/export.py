"""A network as one file that runs without divkd: torch.export, checked against the original."""

import inspect
import io
import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from divkd.empirical.networks.ensembles import Ensemble
from divkd.empirical.networks.handed import (
    answer,
    check_network,
    described,
    mapped,
    memory,
    reason,
    shown,
    taken,
    tensors,
    unwrapped,
)
from divkd.empirical.use.given import check_flaw, check_inputs, device_of, evaluating, member_logits, rows_of
from divkd.empirical.use.options import check_shape
from divkd.empirical.use.restore import Restored
from divkd.shared.errors import InputError, RunError
from divkd.shared.files import writable, write_bytes
from divkd.shared.seeds import rng

TOLERANCE = 1e-5  # of logits
BATCHES = (1, 2, 7)  # images, in which the file's answers are compared


def export(
    model: Restored | nn.Module,
    path: Path | str,
    shape: tuple[int, int, int] | None = None,
    *,
    example: Any = None,
) -> float:
    """Write a network to `path` (.pt2) as a program that runs without divkd; the largest difference of logits.

    model    what `load_model` gives, or any network on the CPU, inputs (B, ...) to logits (M, B, K) or (B, K)
    shape    (C, H, W) of an image, where `model` is a network; a `Restored` knows its own
    example  in place of the shape, for inputs that are no images: a batch of two rows or more, a tensor, a tuple by
             place or a dict by name, as the network takes it

    The program takes what the network takes, any B from 1, leaves it as it is, and gives the network's logits in eval
    mode. What it is lies beside it in the file, as ``divkd.json``: shape or, of an example, "inputs", a list of a
    name or place, dtype and shape of a row; of a `Restored`, model, method, members, seed, class_names, temperature. A
    file that is there is replaced, by a whole one or not at all.

    Before anything is written the program is saved, loaded and compared with the original in batches of 1, 2 and 7, of
    random images, or of the example's rows. Raises `InputError` where network and shape do not fit, `RunError` where
    logits differ by more than 1e-5.
    """
    facts: dict[str, Any] = {"shape": shape}
    net = model
    if isinstance(model, Restored):
        facts = {key: value for key, value in vars(model).items() if key not in ("net", "image_size")}
        net, shape = model.net, model.shape
    net = unwrapped(check_network(net, "the model"), "the model")
    if example is None:
        rows: Any = images_of(check_shape(shape))
        facts["shape"] = list(rows.shape[1:])
    else:
        if shape is not None:
            raise InputError("shape and example are both given; give the shape of an image, or an example of the rest")
        rows = given_rows(example)
        facts = {"inputs": _kinds(rows)}
    if not isinstance(path, str | Path) or not str(path) or not writable(Path(path)):
        raise InputError(f"path {shown(path)} is no name of a file that can be written; give one such as net.pt2")
    if device_of(net).type != "cpu":
        raise InputError(f"the network is on {device_of(net)}; export a copy on the CPU: copy.deepcopy(net).cpu()")
    with evaluating(net):
        with torch.no_grad():
            check_flaw(member_logits(net, rows, "the network"), "the network")
        content = to_bytes(net, rows, json.dumps(facts))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)  # torch 2.11, of its own
            program = torch.export.load(io.BytesIO(content)).module()
        difference = compare(net, program, rows)
    if not difference <= TOLERANCE:
        raise RunError(
            f"the exported program's logits differ from the network's by {difference:.3g}, more than {TOLERANCE:g}; "
            "nothing was written"
        )
    write_bytes(Path(path), content)
    return difference


def images_of(shape: tuple[int, int, int]) -> Tensor:
    """Random images (7, C, H, W)."""
    return torch.from_numpy(rng(0, "export/compare").random((max(BATCHES), *shape), dtype="float32"))


def given_rows(example: Any) -> Any:
    """The rows of an example, repeated to 7; raises `InputError` where there are fewer than two."""
    example = {**example} if isinstance(example, Mapping) else tuple(example) if isinstance(example, list) else example
    parts = tensors(example)
    odd = not parts or any(
        not part.ndim or part.is_sparse or part.is_meta or part.device.type != "cpu" for part in parts
    )
    if odd or rows_of(example) < 2:
        raise InputError(
            f"the example is {described(example)}; give a batch of two rows or more on the CPU, a tensor (B, ...), or "
            "a tuple or dict of such"
        )
    rows = check_inputs(mapped(Tensor.detach, example))
    count = rows_of(rows)
    return mapped(lambda part: part[torch.arange(max(BATCHES)) % count], rows)


def _kinds(rows: Any) -> list[dict[str, Any]]:
    named: dict[Any, Any] = (
        rows if isinstance(rows, dict) else dict(enumerate(rows if isinstance(rows, tuple) else [rows]))
    )
    return [
        {"name": name, "dtype": str(part.dtype).removeprefix("torch."), "shape": list(part.shape[1:])}
        for name, one in named.items()
        for part in tensors(one)
    ]


class Whole(nn.Module):
    """A plain network that leaves its images as they are: it gets a copy, as the members of an ensemble do."""

    def __init__(self, net: nn.Module, names: Iterable[str] = ()) -> None:
        super().__init__()
        self.net = net
        if names:  # torch's guards know arguments by name from a signature alone

            def forward(*args: Any, **named: Any) -> Any:
                return self.net(*mapped(Tensor.clone, args), **mapped(Tensor.clone, named))

            places = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
            forward.__signature__ = inspect.Signature(places)  # type: ignore[attr-defined]
            self.forward = forward  # type: ignore[method-assign]

    def forward(self, *args: Any) -> Any:
        """net(x)."""
        return self.net(*mapped(Tensor.clone, args))


def to_bytes(net: nn.Module, rows: Any, facts: str) -> bytes:
    """`net` exported, with an open batch size, and serialised."""
    args, named = _arguments(taken(rows, slice(2)))
    open_sizes = torch.export.ShapesCollection()
    for part in tensors((args, named)):
        open_sizes[part] = {0: torch.export.Dim("batch", min=1)}
    try:
        whole = net if isinstance(net, Ensemble) and not named else Whole(net, named)
        # Checks of sizes when it is called, not guards when it is made: torch 2.11 would not prove that B M / B is M.
        program = torch.export.export(
            whole, args, named, dynamic_shapes=open_sizes, prefer_deferred_runtime_asserts_over_guards=True
        )
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


def _arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What is given by place, and what by name."""
    return ((), x) if isinstance(x, dict) else (x, {}) if isinstance(x, tuple) else ((x,), {})


@torch.no_grad()
def compare(net: nn.Module, program: nn.Module, rows: Any) -> float:
    """The largest difference of their logits on parts of `rows`; NaN where one is NaN."""
    worst = torch.zeros(())
    for size in BATCHES:
        args, named = _arguments(taken(rows, slice(size)))
        worst = torch.maximum(worst, (answer(net, taken(rows, slice(size))) - program(*args, **named)).abs().max())
    return float(worst)
