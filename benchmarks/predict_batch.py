"""Predictions by size of batch: a BatchEnsemble's and a deep ensemble's time against one network's in the same batches.

ResNet-8, M = 4, 1,000 images of 32 x 32, float32, eval mode. "at once" is the BatchEnsemble with all members' rows in
one batch, as in training, instead of members in turn; torch-uncertainty's layers, where they are installed
(batch_ensemble_step.py says how), run like that too. All sizes and networks run interleaved in one process; medians of
the rounds, and quartiles of the ratios round by round.

    python benchmarks/predict_batch.py [--rounds 11] [--device cpu]

Predicted: four networks' arithmetic, so ratios of 4 for members in turn, which hold one network's activations; at once
more, where what a layer writes for four members, 256 kB an image in the first stage, leaves the cache.
"""

import argparse
import platform
import statistics
import time

import numpy as np
import torch
from batch_ensemble_step import of_torch_uncertainty
from torch import Tensor, nn

from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble, to_batch_ensemble

MEMBERS, IMAGES = 4, 1000
SIZES = (1, 4, 10, 25, 50, 100, 250, 500)


class AtOnce(nn.Module):
    """A BatchEnsemble on one batch of M*B rows."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x.expand(MEMBERS, *x.shape).flatten(0, 1))
        members: Tensor = logits.unflatten(0, (MEMBERS, -1))
        return members


def network(seed: int) -> nn.Module:
    return build("resnet8", 10, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), np.random.default_rng(seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    nets: dict[str, nn.Module] = {
        "one network": DeepEnsemble([network(0)]),
        "deep ensemble": DeepEnsemble([network(seed) for seed in range(MEMBERS)]),
        "batch ensemble": to_batch_ensemble(network(0), MEMBERS, seed=0),
        "the same at once": AtOnce(to_batch_ensemble(network(0), MEMBERS, seed=0).net),
    }
    library = of_torch_uncertainty(to_batch_ensemble(network(0), MEMBERS, seed=0))
    if library is not None:
        nets["torch-uncertainty"] = AtOnce(library)
    for net in nets.values():
        net.to(device).eval()
    images = torch.rand(IMAGES, 3, 32, 32, device=device)

    @torch.inference_mode()
    def seconds(net: nn.Module, size: int) -> float:
        began = time.perf_counter()
        for batch in images.split(size):
            net(batch)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    times: dict[tuple[str, int], list[float]] = {(name, size): [] for name in nets for size in SIZES}
    for warm in (True, *[False] * arguments.rounds):
        for size in SIZES:
            for name, net in nets.items():
                taken = seconds(net, size)
                if not warm:
                    times[name, size].append(taken)
    print(f"torch {torch.__version__}, {device}, {platform.processor() or platform.machine()}, "
          f"{torch.get_num_threads()} threads, {arguments.rounds} rounds")  # fmt: skip
    for (name, size), values in times.items():
        ratios = [value / one for value, one in zip(values, times["one network", size], strict=True)]
        spread = statistics.quantiles(ratios, n=4)
        rate = IMAGES / statistics.median(values)
        print(f"{name:17s} batches of {size:3d} {rate:8.0f} images/s   time over one network's "
              f"{statistics.median(ratios):.2f} ({spread[0]:.2f} to {spread[2]:.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
