"""A network in one file, and back: safetensors, sealed, nothing unpickled."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from divkd.empirical.networks.ensembles import BatchEnsemble, DeepEnsemble, Ensemble, to_batch_ensemble
from divkd.empirical.networks.handed import check_network, copied, reason, shown, unwrapped
from divkd.shared.errors import InputError
from divkd.shared.files import ZEROS, intact, sealed, writable, write_bytes
from divkd.shared.run import HEAD, LENGTH

KINDS = (BatchEnsemble, DeepEnsemble)


def save(model: nn.Module, path: Path | str) -> None:
    """Write the weights and buffers of `model` to `path` (.safetensors), for `load`; whole or not at all.

    model   a `BatchEnsemble`, a `DeepEnsemble` or a plain network, on any device

    Sealed with the SHA-256 of the file. Other programs read it as they read any file of safetensors. One that is there
    is replaced. Raises `InputError` where there are no such weights, or `path` cannot be written.
    """
    net = unwrapped(check_network(model, "the model"), "the model")
    if not isinstance(path, str | Path) or not str(path) or not writable(Path(path)):
        raise InputError(
            f"path {shown(path)} is no name of a file that can be written; give one such as student.safetensors"
        )
    kind = next((kind.__name__ for kind in KINDS if isinstance(net, kind)), "")
    facts: dict[str, Any] = {"digest": ZEROS.decode(), "kind": kind, "class": type(net).__name__}
    if isinstance(net, Ensemble):
        facts |= {"members": net.members, "ndim": net.ndim}
    try:
        state = net.state_dict()
        # A weight under two names is written twice: safetensors has no names for one place in memory.
        content = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
        whole = to_safetensors(content, {"divkd": json.dumps(facts)})
    except Exception as error:  # lazy, meta, sparse weights, a state of its own that is no tensor
        raise InputError(
            f"the state of {type(net).__name__} cannot be written ({reason(error)}); dense tensors with values are "
            "needed"
        ) from error
    write_bytes(Path(path), sealed(whole, HEAD))


def load(path: Path | str, network: nn.Module) -> nn.Module:
    """The model that `save` wrote to `path`, in eval mode; `network` stays as it is.

    network   where the model was plain, a network like it; where it was an ensemble, one of its plain networks, or such
              an ensemble. Its own weights do not matter; they are on the device that the model will be on

    Nothing is unpickled. Raises `InputError` where the file is damaged, or of another network.
    """
    net = unwrapped(check_network(network, "the network"), "the network")
    if not isinstance(path, str | Path) or not Path(path).is_file():
        raise InputError(
            f"there is no file {shown(str(path) if isinstance(path, Path) else path)}; give what save wrote"
        )
    try:
        whole = intact(Path(path), HEAD, LENGTH)
        if whole is None:
            raise ValueError("it is not what divkd.save wrote")
        if not whole:
            raise ValueError("its bytes are not those that were written")
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["divkd"])
            state: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        kind, members = facts["kind"], facts.get("members", 1)
    except (SafetensorError, KeyError, ValueError, TypeError, OSError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read ({reason(error)}); give a file that divkd.save wrote, whole"
        ) from error
    if kind == "":
        model = copied(net)
    elif isinstance(net, Ensemble):
        model = copied(net)
        if type(net).__name__ != kind or net.members != members:
            here = f"a {type(net).__name__} of {net.members}"
            raise InputError(f"{path} holds a {kind} of {members} and the network is {here}; give a plain network")
    elif kind == "BatchEnsemble":
        model = to_batch_ensemble(net, members, init="ones")
    else:
        model = DeepEnsemble([copied(net) for _ in range(members)])
    if isinstance(model, Ensemble) and kind:
        model.ndim = facts["ndim"]
    if words := misfit(state, model.state_dict()):
        raise InputError(f"{path} is of another network ({words}); give one of the kind that was saved")
    model.load_state_dict(state)
    return model.eval()


def misfit(theirs: dict[str, Any], state: dict[str, Any]) -> str:
    """The first difference between two states, in words; empty where they agree."""
    wrong = next((key for key in {**state, **theirs} if _kind(state.get(key)) != _kind(theirs.get(key))), None)
    return f"{wrong} is {_kind(theirs.get(wrong))} there and {_kind(state.get(wrong))} here" if wrong else ""


def _kind(value: Any) -> str:
    if not isinstance(value, Tensor) or is_lazy(value):
        return "nothing" if value is None else "there, without a shape"
    return f"{value.dtype} {tuple(value.shape)}"
