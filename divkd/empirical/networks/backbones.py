"""Torchvision's classification networks, from the start or from weights that lie on disk."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from divkd.empirical.networks.resnets import Normalise, Stats
from divkd.shared.errors import InputError, unknown


class Backbone(nn.Module):
    """A network of torchvision behind the normalisation of one's own images: (B, 3, H, W) in [0, 1] -> (B, classes)."""

    def __init__(self, name: str, classes: int, mean: Stats, std: Stats) -> None:
        import torchvision
        from torchvision.models import get_model, list_models  # type: ignore[attr-defined]  # it does, without saying so

        super().__init__()
        known = list_models(module=torchvision.models)
        if name not in known:
            raise unknown("network of torchvision", name, known)
        if len(mean) != 3:
            raise InputError(
                f"torchvision:{name} takes colours, and the images have {len(mean)} channel; give RGB ones"
            )
        self.normalise = Normalise(mean, std)
        self.net = get_model(name, weights=None, num_classes=classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, classes)."""
        logits: Tensor = self.net(self.normalise(x))
        return logits


def start_from(net: nn.Module, file: Path) -> None:
    """Put the weights in `file` (.safetensors, or torch's own, of which nothing but tensors is read) into a `Backbone`.

    A classifier of another number of classes keeps its own initial weights; all else must fit. Raises `InputError`.
    """
    if not isinstance(net, Backbone):
        raise InputError(f"--weights {file} is for networks of torchvision; give --network torchvision:resnet18 or so")
    try:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except Exception as error:  # whatever the bytes of a damaged file raise in its reader
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"--weights {file} cannot be read ({why}); give a state dict: torch.save(net.state_dict(), FILE)"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(
            f"--weights {file} holds a {type(state).__name__}; give a state dict: torch.save(net.state_dict(), FILE)"
        )
    own = net.net.state_dict()
    last = [f"{name}." for name, module in net.net.named_modules() if isinstance(module, nn.Linear)][-1:]
    for name, tensor in own.items():
        if name not in state or state[name].shape != tensor.shape:
            given = "no such weight" if name not in state else f"the shape {tuple(state[name].shape)}"
            if name in state and name.startswith(tuple(last)):
                state[name] = tensor  # of other classes
                continue
            raise InputError(
                f"--weights {file} has {given} for {name} {tuple(tensor.shape)}; give weights of this network"
            )
    net.net.load_state_dict({name: state[name] for name in own})
