"""The BatchEnsemble training step against the plain network's on the same rows, layout and precision.

ResNet-32, M = 4, 32 images (128 rows), float32, channels last: forward, cross-entropy, backward. A third column is the
formula written on the activations, y_m = s_m * W(r_m * x), with broadcast factors. A fourth, where torch-uncertainty is
installed (`pip install "torch-uncertainty[cpu]"` in an environment of its own), is the same network of its layers, and
its logits must be ours. All run interleaved in one process; medians of the rounds and, as the machine's speed drifts,
of the ratios round by round.

    python benchmarks/batch_ensemble_step.py [--rounds 15] [--device cpu]

Predicted: the scaled weights add 3 M times the weights' bytes (22 MB) to a step that moves gigabytes of activations,
and one concatenation of every layer's output and input gradient, so about 1.1; the activation form reads and writes
every activation four more times, so about 1.3.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import BatchEnsemble, to_batch_ensemble
from divkd.empirical.networks.layers import BatchEnsembleLayer

MEMBERS, IMAGES = 4, 32


class ActivationForm(nn.Module):
    """y_m = s_m * W(r_m * x), scaling activations by a broadcast view over the member axis."""

    def __init__(self, conv: nn.Conv2d, r: nn.Parameter, s: nn.Parameter) -> None:
        super().__init__()
        self.weight, self.r, self.s = conv.weight, r, s
        self.stride, self.padding = conv.stride, conv.padding

    def forward(self, x: Tensor) -> Tensor:
        x = (x.unflatten(0, (MEMBERS, -1)) * self.r[:, None, :, None, None]).flatten(0, 1)
        y = F.conv2d(x, self.weight, None, self.stride, self.padding)
        y = y.unflatten(0, (MEMBERS, -1)) * self.s[:, None, :, None, None]
        rows: Tensor = y.flatten(0, 1)
        return rows


def network() -> nn.Module:
    return build("resnet32", 10, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), np.random.default_rng(0))


def activation_form(net: nn.Module) -> nn.Module:
    for parent in list(net.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, BatchEnsembleLayer) and isinstance(layer.plain, nn.Conv2d):
                setattr(parent, name, ActivationForm(layer.plain, layer.r, layer.s))
    return net


def of_torch_uncertainty(model: BatchEnsemble) -> nn.Module | None:
    """`model` with the library's layers and the same weights, on M*B rows; None where it is not installed."""
    try:
        from torch_uncertainty.layers.batch_ensemble import BatchConv2d, BatchLinear
    except ImportError:
        return None
    net = model.net
    for parent in list(net.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, BatchEnsembleLayer):
                plain = layer.plain
                if isinstance(plain, nn.Linear):
                    new = BatchLinear.from_linear(nn.Linear(plain.in_features, plain.out_features), MEMBERS)
                    new.linear, new.bias = nn.Linear(plain.in_features, plain.out_features, bias=False), layer.bias
                    new.linear.weight = plain.weight
                else:
                    assert layer.bias is None
                    new = BatchConv2d(plain.in_channels, plain.out_channels, plain.kernel_size, MEMBERS, plain.stride,
                                      plain.padding, bias=False)  # fmt: skip
                    new.conv.weight = plain.weight
                new.r_group, new.s_group = layer.r, layer.s
                setattr(parent, name, new)
    return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)

    nets: dict[str, nn.Module] = {
        "plain": network(),
        "batch ensemble": to_batch_ensemble(network(), MEMBERS, seed=0),
        "activation form": activation_form(to_batch_ensemble(network(), MEMBERS, seed=0)),
    }
    library = of_torch_uncertainty(to_batch_ensemble(network(), MEMBERS, seed=0))
    if library is not None:
        nets["torch-uncertainty"] = library
    images = torch.rand(IMAGES, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    rows = images.repeat(MEMBERS, 1, 1, 1)
    labels = torch.randint(0, 10, (MEMBERS * IMAGES,), device=device)

    def step(name: str, net: nn.Module) -> Callable[[], None]:
        net.to(device).train()

        def run() -> None:
            net.zero_grad(set_to_none=True)
            logits = net(rows) if name in ("plain", "torch-uncertainty") else net(images).flatten(0, 1)
            F.cross_entropy(logits, labels).backward()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return run

    steps = {name: step(name, net) for name, net in nets.items()}
    if library is not None:
        with torch.no_grad():
            torch.testing.assert_close(library(rows), nets["batch ensemble"](images).flatten(0, 1), rtol=0, atol=1e-3)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for warm in (True, True, *[False] * arguments.rounds):
        for name, run in steps.items():
            began = time.perf_counter()
            run()
            if not warm:
                times[name].append(time.perf_counter() - began)
    print(f"torch {torch.__version__}, {device}, {platform.processor() or platform.machine()}, "
          f"{torch.get_num_threads()} threads, {arguments.rounds} rounds")  # fmt: skip
    for name, values in times.items():
        ratios = [value / plain for value, plain in zip(values, times["plain"], strict=True)]
        spread = statistics.quantiles(ratios, n=4)
        print(f"{name:17s} {statistics.median(values) * 1e3:8.1f} ms   "
              f"ratio {statistics.median(ratios):.2f} (quartiles {spread[0]:.2f} to {spread[2]:.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
