"""The BatchEnsemble training step against the plain network's on the same rows, in every form that it has.

M = 4, channels last: forward, cross-entropy, backward, of ResNet-8 and ResNet-32 on batches of 32 and 128 images (128
and 512 rows). Forms: float32, compiled, bfloat16, both; of the plain network too. "activation form" is the formula
written on the activations, y_m = s_m * W(r_m * x), with broadcast factors; "torch-uncertainty", where that is installed
(`pip install "torch-uncertainty[cpu]"` in an environment of its own), the same network of its layers, whose logits must
be ours. One thread; all run interleaved in one process; CPU seconds (on CUDA wall-clock), medians and quartiles of the
ratios to the plain float32 step of the same round.

    python benchmarks/batch_ensemble_step.py [--rounds 15] [--network resnet32] [--images 32] [--compile] [--device cpu]

Predicted: the scaled weights add 3 M times the weights' bytes to a step that moves gigabytes of activations, and one
concatenation of every layer's output and input gradient, so about 1.1; the activation form reads and writes every
activation four more times, so about 1.3; bfloat16 halves the bytes and doubles the products a second, so 0.6 with what
stays in float32; compiled code spares the passes of norms and ReLU over activations, a tenth.
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
from divkd.empirical.training.execution import keep_freed

MEMBERS = 4


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


def network(name: str) -> nn.Module:
    return build(name, 10, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), np.random.default_rng(0))


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


def measure(name: str, count: int, rounds: int, device: torch.device, compiled: bool) -> None:
    nets: dict[str, nn.Module] = {
        "plain": network(name),
        "batch ensemble": to_batch_ensemble(network(name), MEMBERS, seed=0),
        "activation form": activation_form(to_batch_ensemble(network(name), MEMBERS, seed=0)),
    }
    library = of_torch_uncertainty(to_batch_ensemble(network(name), MEMBERS, seed=0))
    if library is not None:
        nets["torch-uncertainty"] = library
    for net in nets.values():
        net.to(device).train()
    images = torch.rand(count, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    rows = images.repeat(MEMBERS, 1, 1, 1).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (len(rows),), device=device)
    if library is not None:
        with torch.no_grad():
            torch.testing.assert_close(library(rows), nets["batch ensemble"](images).flatten(0, 1), rtol=0, atol=1e-3)

    def step(net: nn.Module, own: bool, lower: bool, fast: bool) -> Callable[[], None]:
        called: Callable[[Tensor], Tensor] = torch.compile(net, dynamic=False) if fast else net

        def run() -> None:
            net.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=lower):
                logits = called(images if own else rows)
            F.cross_entropy(logits.float().reshape(len(labels), -1), labels).backward()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return run

    steps = {}
    for which, net in nets.items():
        own = which in ("batch ensemble", "activation form")
        for lower in (False, True):
            for fast in (False, True) if compiled and which in ("plain", "batch ensemble") else (False,):
                form = f"{which}{', bfloat16' * lower}{', compiled' * fast}"
                steps[form] = step(net, own, lower, fast)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    times: dict[str, list[float]] = {form: [] for form in steps}
    for warm in (True, True, *[False] * rounds):
        for form, run in steps.items():
            began = clock()
            run()
            if not warm:
                times[form].append(clock() - began)
    for form, values in times.items():
        ratios = [value / plain for value, plain in zip(values, times["plain"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name}, {count} images: {form:34s} {statistics.median(values) * 1e3:8.1f} ms   "
              f"ratio {middle:.2f} (quartiles {low:.2f} to {high:.2f})", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--network", action="append", choices=("resnet8", "resnet32"))
    parser.add_argument("--images", type=int, action="append")
    parser.add_argument("--compile", action="store_true", help="compiled forms too: minutes of compiling")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed()  # as training does
    print(f"torch {torch.__version__}, {arguments.device}, {platform.processor() or platform.machine()}, "
          f"{torch.get_num_threads()} thread, {arguments.rounds} rounds")  # fmt: skip
    for name in arguments.network or ("resnet8", "resnet32"):
        for count in arguments.images or (32, 128):
            measure(name, count, arguments.rounds, torch.device(arguments.device), arguments.compile)


if __name__ == "__main__":
    main()
