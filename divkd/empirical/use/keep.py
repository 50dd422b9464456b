"""A student on its way, in one file: what a killed distillation needs to go on to the same bits on a CPU."""

import hashlib
import io
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.networks.handed import reason, shown
from divkd.shared.errors import InputError, RunError
from divkd.shared.files import writable, write_bytes

HEAD = b"divkd student\n"  # then 64 digits, the SHA-256 of the rest, which is torch's


def check_path(path: Any) -> Path:
    """`path` as one that can be written; raises `InputError` otherwise."""
    if not isinstance(path, str | Path) or not str(path) or not writable(Path(path)):
        raise InputError(
            f"checkpoint {shown(path)} is no name of a file that can be written; give one such as student.pt"
        )
    return Path(path)


def digest(net: nn.Module) -> str:
    """The SHA-256 of the weights and buffers of `net`."""
    found = hashlib.sha256()
    for name, value in net.state_dict().items():
        if isinstance(value, Tensor):
            found.update(name.encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path`, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    body = buffer.getvalue()
    try:
        write_bytes(path, HEAD + hashlib.sha256(body).hexdigest().encode() + body)
    except OSError as error:
        raise RunError(f"checkpoint {path} cannot be written ({error.strerror}); the one before it is kept") from error


def read(path: Path, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was written to `path` by a call of the same `facts`; None where nothing is there. Unpickles no code.

    Raises `InputError` where it is damaged, or of another call.
    """
    if not path.exists():
        return None
    again = "delete it to begin anew, or give another file"
    try:
        content = path.read_bytes()
        body = content[len(HEAD) + 64 :]
        if not content.startswith(HEAD + hashlib.sha256(body).hexdigest().encode()):
            raise ValueError("it is not what distill wrote")
        kept: dict[str, Any] = torch.load(io.BytesIO(body), "cpu", weights_only=True)
        theirs = kept["facts"]
    except Exception as error:  # whatever the bytes of another file raise in its reader
        raise InputError(f"checkpoint {path} cannot be read ({reason(error)}); {again}") from error
    if wrong := next((key for key in facts if theirs.get(key) != facts[key]), None):
        values = "" if wrong == "teachers" else f", {theirs.get(wrong)!r:.40} there and {facts[wrong]!r:.40} here"
        raise InputError(f"checkpoint {path} is of another call: its {wrong} differ{values}; {again}")
    return kept


def generators(device: torch.device, batches: Any) -> dict[str, Any]:
    """The states of all that draws: torch, numpy and Python, and the generator or state of the loader `batches`."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    found = {"torch": torch.get_rng_state(), "numpy": [kind, torch.from_numpy(np.array(keys).astype(np.int64)), *rest]}
    found |= {"python": random.getstate(), "loader": [one.get_state() for one in _loaders(batches)]}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    if callable(getattr(batches, "state_dict", None)):
        found["batches"] = batches.state_dict()
    return found


def set_generators(states: dict[str, Any], device: torch.device, batches: Any) -> None:
    """Draw from here on what was to be drawn when the `states` were taken."""
    torch.set_rng_state(states["torch"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(states["python"])
    for one, state in zip(_loaders(batches), states["loader"], strict=True):
        one.set_state(state)
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    if "batches" in states and callable(getattr(batches, "load_state_dict", None)):
        batches.load_state_dict(states["batches"])


def _loaders(batches: Any) -> list[torch.Generator]:
    """The generators of a DataLoader and its samplers, each once."""
    sampler = getattr(batches, "sampler", None)
    holders = (batches, sampler, getattr(batches, "batch_sampler", None))
    found = [one for one in (getattr(holder, "generator", None) for holder in holders) if one is not None]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())
