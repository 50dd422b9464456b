"""One seed's work: what each of its networks is trained with, and what they predict."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from divkd.empirical.data.splits import ImageData, Split, to_float
from divkd.empirical.networks.backbones import start_from
from divkd.empirical.networks.build import build
from divkd.empirical.training.config import NetworksConfig
from divkd.shared.errors import RunError
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.seeds import rng

EVALUATION_BATCH = 500
CACHED_BATCH = 50  # on a CPU: the activations of more leave the cache (benchmarks/predict_batch.py)


@dataclass(frozen=True)
class SeedRun:
    """The networks of one seed of a run: how they are trained, on what, and where their checkpoints lie."""

    config: NetworksConfig
    data: ImageData
    seed: int
    run: Run
    progress: Progress

    def plain(self, network: str, role: str, member: int = 0) -> nn.Module:
        """A plain network with initial weights of its own, on the run's device."""
        generator, data = rng(self.seed, f"{role}/init", member), self.data
        net = build(network, data.classes, data.mean, data.std, generator)
        if self.config.weights is not None:
            start_from(net, Path(self.config.weights))
        return net.to(torch.device(self.config.device))

    def score(self, net: nn.Module) -> float:
        """The members' mean accuracy on the validation images, which chooses among epochs."""
        validation = self.data.validation
        return float((predict(net, validation).argmax(-1) == validation.labels.cpu()).double().mean())

    def predictions(self, net: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of the validation, the test and the training images."""
        return predict(net, self.data.validation), predict(net, self.data.test), predict(net, self.data.train)


@torch.inference_mode()
def log_probs(net: nn.Module, blocks: Iterable[Tensor]) -> Tensor:
    """Member log-probabilities (M, N, K), float32, on the CPU, of blocks of images in [0, 1]."""
    return torch.cat([torch.log_softmax(net(x).float(), -1) for x in blocks], 1).cpu()


def predict(net: nn.Module, split: Split) -> Tensor:
    """Member log-probabilities (M, N, K), float32, on the CPU, of the images as they are (no crop, no flip).

    Raises `RunError` where they are NaN: weights that are finite may still be too large to compute with.
    """
    net.eval()
    size = CACHED_BATCH if split.images.device.type == "cpu" else EVALUATION_BATCH
    answers = log_probs(net, (to_float(images) for images in split.images.split(size)))
    if answers.isnan().any():
        raise RunError("a network diverged in its last epoch and predicts NaN; start a new --out with a lower --lr")
    return answers
