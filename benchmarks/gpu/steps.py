"""Training steps of every kind of network as `divkd train` makes them, against a plain PyTorch loop and their bounds.

The plain loop trains one network of the same kind on labels: resident float images, batches by index, forward in the
same precision, cross-entropy, backward, SGD; no crop, no flip, no log. Ours crops and flips bytes, has teachers and
perturbations, and counts accuracy. "passes" is what the ratio would be if passes were all: `cost.training_passes` / 3.

Bounds of a step, from peaks that are measured here (a square product, a copy of 1 GiB, read and written):

    arithmetic   2 macs x passes x images / (flops a second), macs of convolutions and products
    floor        bytes that convolutions and products read and write, each operand once, if all else were fused into
                 them, / (bytes a second)
    as written   bytes that every operation of torch reads and writes, each operand once, / (bytes a second)

Bytes are counted on the CPU, in the same precision, on 2 and on 4 images, and extrapolated to the batch.
A step cannot be faster than the larger of the first two, and torch's kernels, one an operation, not than the third,
but for what stays in the cache. What is left above the third is launching.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from measure import Piece, Record, Setting, interleaved, peaks, shown, spread
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from divkd.empirical.analysis.cost import training_passes
from divkd.empirical.analysis.profile import macs
from divkd.empirical.data.splits import Augmentation, ImageData, Split, batches, to_float
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training.config import PRESETS, TrainConfig
from divkd.empirical.training.distillation import label_loss, student_loss
from divkd.empirical.training.loop import BatchLoss, run_epoch, sgd
from divkd.empirical.training.seed_run import SeedRun
from divkd.empirical.training.students import STUDENTS
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.seeds import rng

KINDS = (("deep_ensemble", "none"), ("single", "kd"), ("batch_ensemble", "none"), ("batch_ensemble", "kd"),
         ("batch_ensemble", "confods"))  # fmt: skip
PRODUCTS = ("aten::convolution", "aten::mm", "aten::addmm", "aten::bmm", "aten::convolution_backward")


class Moved(TorchDispatchMode):
    """Bytes of what operations take and give, each tensor once an operation: of all, and of `PRODUCTS`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.written = self.floor = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name():
            tensors = {id(leaf): leaf.nbytes for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)}
            self.written += sum(tensors.values())
            self.floor += sum(tensors.values()) * (func.name().split(".")[0] in PRODUCTS)
        return out


def made(model: str, method: str, job: SeedRun) -> tuple[nn.Module, BatchLoss]:
    """A network that learns and its loss; teachers are as they start, which costs the same."""
    config, device = cast(TrainConfig, job.config), torch.device(job.config.device)
    if model == "deep_ensemble":
        return DeepEnsemble([job.plain(config.network, "teacher")]), label_loss
    teachers = DeepEnsemble([job.plain(config.network, "teacher", m) for m in range(config.members)])
    loss = student_loss(method, teachers.eval().requires_grad_(False), config.temperature, config.kd_weight,
                        config.step_size)  # fmt: skip
    return STUDENTS[model].create(job.plain(config.network, "student"), config.members, job.seed).to(device), loss


def moved(model: str, method: str, config: TrainConfig, data: ImageData) -> dict[str, float]:
    """Bytes of a step of a batch."""
    counts = []
    for size in (2, 4):
        job = SeedRun(dataclasses.replace(config, device="cpu"), data, 0, Run(Path()), Progress(quiet=True))
        net, loss = made(model, method, job)
        optimiser = sgd(net, config.student, config.momentum, config.rank_one_lr)
        batch = to_float(data.train.images[:size].cpu()), data.train.labels[:size].cpu()
        run_epoch(net, loss, optimiser, [batch], rng(0, "moves"), config.precision)  # so that there is momentum
        with Moved() as count:
            run_epoch(net, loss, optimiser, [batch], rng(0, "moves"), config.precision)
        counts.append({"floor": count.floor, "written": count.written})
    grow = config.student.batch_size / 2 - 1
    return {key: counts[0][key] + grow * (counts[1][key] - counts[0][key]) for key in counts[0]}


def plain_loop(net: nn.Module, config: TrainConfig, images: Tensor, labels: Tensor) -> None:
    """One epoch as one writes it down."""
    optimiser = torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=4e-4)
    for rows in torch.randperm(len(images), device=images.device).split(config.student.batch_size):
        optimiser.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            logits = net(images[rows])
        F.cross_entropy(logits.float(), labels[rows]).backward()
        optimiser.step()


def measured(model: str, method: str, precision: str, setting: Setting) -> Record:
    """Seconds of a step, those of the plain loop, and the bounds."""
    mini, steps, rounds = setting.miniature, *((2, 2) if setting.miniature else (20, 11))
    config = dataclasses.replace(PRESETS["gpu"], device=str(setting.device), precision=precision, compile="off")
    if mini:
        small = dataclasses.replace(config.student, batch_size=8)
        config = dataclasses.replace(config, network="resnet8", members=2, teacher=small, student=small)
    size = config.student.batch_size
    pixels = rng(0, "images").integers(0, 256, (steps * size, 3, 32, 32)).astype("uint8")
    split = Split(torch.from_numpy(pixels), torch.arange(steps * size) % 10)
    names = tuple(map(str, range(10)))
    data = ImageData("random", split, split[:2], split[:2], names, (0.5,) * 3, (0.25,) * 3, "").to(setting.device)
    job = SeedRun(config, data, 0, Run(Path()), Progress(quiet=True))
    net, loss = made(model, method, job)
    optimiser = sgd(net, config.student, config.momentum, config.rank_one_lr)
    plain, images = job.plain(config.network, "plain").train(), to_float(data.train.images)

    def ours() -> None:
        def pixels() -> Iterator[tuple[Tensor, Tensor]]:
            for cut, labels in batches(data.train, Augmentation(config.crop, config.flip), size, 0, "student", 0, 1):
                yield to_float(cut), labels

        run_epoch(net, loss, optimiser, pixels(), rng(0, "moves"), precision)

    works: dict[str, Callable[[], object]] = {
        "ours": ours,
        "plain": functools.partial(plain_loop, plain, config, images, data.train.labels),
    }
    times = interleaved(works, rounds, setting.device)
    passes = training_passes(model, method, 1 if model == "deep_ensemble" else config.members)
    peak = peaks_once(setting, precision)
    carried = moved(model, method, config, data)
    bounds = {"arithmetic": 2 * macs(config.network, data) * passes * size / peak["flops_per_s"]}
    bounds |= {key: value / peak["bytes_per_s"] for key, value in carried.items()}
    record: Record = {"seconds": spread(times["ours"] / steps), "plain_seconds": spread(times["plain"] / steps)}
    record |= {"ratio": spread(times["ours"] / times["plain"]), "passes": passes / 3, "images": size}
    return record | {"bounds": bounds, "bytes": carried, "peaks": peak}


@functools.lru_cache
def peaks_once(setting: Setting, precision: str) -> Record:
    """`peaks`, once a call."""
    return peaks(setting.device, precision, setting.miniature)


def steps(piece: Piece) -> None:
    """Measure every kind of network in both precisions."""
    try:
        for precision in ("float32", "bfloat16"):
            for model, method in KINDS:
                work = functools.partial(measured, model, method, precision, piece.setting)
                piece.case(f"{model} | {method} | {precision}", work, 40)
    finally:
        rows = []
        for name, case in piece.cases.items():
            if "bounds" in case:
                limits, own = case["bounds"], case["seconds"]["median"]
                row = [*name.split(" | "), f"{own * 1e3:.3g}", shown(case["ratio"]), f"{case['passes']:.3g}"]
                row += [f"{limits[key] * 1e3:.3g}" for key in ("arithmetic", "floor", "written")]
                share = max(limits["arithmetic"], limits["floor"]) / own
                rows.append((*row, f"{share:.0%}", str(case["ratio"]["n"])))
        head = ("network", "method", "precision", "ms a step", "over the plain loop (quartiles)", "passes",
                "arithmetic, ms", "floor, ms", "as written, ms", "larger bound / measured", "n")  # fmt: skip
        piece.page("Training steps and their bounds", __doc__.strip(), head, rows)
