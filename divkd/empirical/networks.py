"""Plain networks: ResNet-(6n+2) for small images. None of them knows of ensembles."""

import re

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from divkd.shared.errors import InputError


class Normalise(nn.Module):
    """(x - mean) / std per channel. Networks normalise inside, so that perturbations live in pixel space [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return (x - self.mean) / self.std


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)) with He et al.'s parameter-free shortcut (2016, option A)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.new_channels = channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, channels, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.stride > 1 or self.new_channels:
            # Subsample and append zero channels: added in place, no padded copy is made.
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, 0, self.new_channels))
        return F.relu(y + x, inplace=True)


class ResNet(nn.Module):
    """ResNet-(6n+2) of He et al. 2016, section 4.2: a stem of 16, then n blocks each of 16, 32 and 64 channels.

    Input (B, C, H, W) pixels in [0, 1]; output logits (B, classes). ResNet-32 on CIFAR-10 has 464,154 parameters.
    """

    def __init__(self, depth: int, classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.stem = nn.Conv2d(len(mean), 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        blocks: list[nn.Module] = []
        channels_in = 16
        for stage, channels in enumerate((16, 32, 64)):
            for block in range((depth - 2) // 6):
                blocks.append(BasicBlock(channels_in, channels, 2 if stage and not block else 1))
                channels_in = channels
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, classes)."""
        y = F.relu(self.bn(self.stem(self.normalise(x))), inplace=True)
        logits: Tensor = self.classifier(self.blocks(y).mean((2, 3)))
        return logits


def build(name: str, classes: int, mean: tuple[float, ...], std: tuple[float, ...], rng: np.random.Generator) -> ResNet:
    """The network `name` ("resnet32") with weights drawn from `rng`, in channels-last memory."""
    match = re.fullmatch(r"resnet(\d+)", name)
    if match is None or int(match[1]) < 8 or (int(match[1]) - 2) % 6:
        raise InputError(
            f"unknown network {name!r}; give resnet followed by 6n + 2, e.g. resnet8, resnet20 or resnet32"
        )
    net = ResNet(int(match[1]), classes, mean, std)
    initialise(net, rng)
    return net.to(memory_format=torch.channels_last)


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
