"""Plain networks for small images, by name, and their initial weights. None of them knows of ensembles."""

import numpy as np
import torch
from torch import nn

from divkd.empirical.networks.backbones import Backbone
from divkd.empirical.networks.names import parse
from divkd.empirical.networks.resnets import ResNet, Stats, WideResNet


def build(name: str, classes: int, mean: Stats, std: Stats, rng: np.random.Generator) -> nn.Module:
    """The network `name` ("resnet32", "wrn28x10", "resnet18") with weights drawn from `rng`, in channels-last memory.

    Input (B, C, H, W) pixels in [0, 1], normalised inside by `mean` and `std`; output logits (B, classes). Raises
    `InputError` for an unknown name.
    """
    net = architecture(name, classes, mean, std)
    initialise(net, rng)
    return net.to(memory_format=torch.channels_last)


def architecture(name: str, classes: int, mean: Stats, std: Stats) -> nn.Module:
    """The network `name` with the initial weights of torch's layers; under ``torch.device("meta")``, its shapes."""
    kind, blocks, width = parse(name)
    if kind.startswith("torchvision:"):
        return Backbone(kind.partition(":")[2], classes, mean, std)
    if kind == "wrn":
        return WideResNet(blocks, width, classes, mean, std)
    if kind == "resnet18":
        return ResNet((64, 128, 256, 512), blocks, classes, mean, std, project=True)
    return ResNet((width, 2 * width, 4 * width), blocks, classes, mean, std, project=False)


@torch.no_grad()
def initialise(net: nn.Module, rng: np.random.Generator) -> None:
    """Kaiming normal, fan out: w ~ N(0, 2 / (channels out x kernel size)), for convolutions and the classifier alike.

    Biases start at zero. Drawn by numpy on the CPU, so the bits do not depend on the device or on torch's version.
    """
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_out = module.weight.shape[0] * module.weight[0, 0].numel()
            draw = rng.standard_normal(tuple(module.weight.shape), dtype=np.float32)
            module.weight.copy_(torch.from_numpy(draw * np.float32((2 / fan_out) ** 0.5)))
            if module.bias is not None:
                module.bias.zero_()


def parameters(net: nn.Module) -> int:
    """The number of trained parameters."""
    return sum(parameter.numel() for parameter in net.parameters())
