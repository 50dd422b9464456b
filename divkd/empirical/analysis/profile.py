"""What a profiled run spent where, beside the arithmetic that its training cannot do without."""

import json
import time
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from divkd.empirical.analysis.cost import training_passes
from divkd.empirical.data.splits import ImageData
from divkd.empirical.networks.build import architecture
from divkd.empirical.training.clock import PARTS
from divkd.empirical.training.config import TrainConfig
from divkd.empirical.training.distillation import spared
from divkd.empirical.training.plan import kinds
from divkd.shared.machine import one_thread
from divkd.shared.run import Run, device_name


def profile(config: TrainConfig, data: ImageData, run: Run) -> dict[str, Any]:
    """What profile.json holds, which is written: a row a kind of network, of the epochs that were trained profiled.

        model, method, epochs of all networks of that kind
        seconds          {part: seconds} of `clock.PARTS` and "other"
        images_per_s     training images a second
        limit_s          the seconds that its products and convolutions would take at this machine's measured peak (of
                         one thread): F = 2 macs x passes (`cost.training_passes`, less what `spared` says) x images, by
                         `flops_per_s`
        share_of_limit   limit_s / all seconds
        peak_bytes       the most that a process held

    All networks are counted at the size of the student's (teachers at theirs), and the limit is one of arithmetic: what
    norms and activations move comes on top.
    """
    records = [json.loads(line) for line in (run.path / "log.jsonl").read_text("utf-8").splitlines()]
    epochs = {(record["network"], record["epoch"]): record for record in records if record["event"] == "profile"}
    with one_thread():  # of which every network is trained
        peak, threads = flops_per_s(config.device, config.precision), torch.get_num_threads()
    rows = []
    for kind in kinds(config):
        own = [record for (name, _), record in epochs.items() if name in kind.names]
        if not own:
            continue
        deep = kind.model == "deep_ensemble"
        network = config.teachers_network if deep else config.network
        passes: float = training_passes(kind.model, kind.method, 1 if deep else config.members)
        if kind.method == "kd":
            passes -= spared(config, data, kind.schedule.epochs, config.members) / kind.schedule.epochs
        images = len(data.train) * len(own)
        seconds = {part: sum(record["seconds"][part] for record in own) for part in (*PARTS, "other")}
        total, limit = sum(seconds.values()), 2 * macs(network, data) * passes * images / peak
        row: dict[str, Any] = {"model": kind.model, "method": kind.method, "epochs": len(own), "seconds": seconds}
        row |= {"images_per_s": images / total, "limit_s": limit, "share_of_limit": limit / total}
        rows.append(row | {"peak_bytes": max(record["peak_bytes"] for record in own)})
    content = {"device": device_name(config.device), "threads": threads, "flops_per_s": peak}
    content |= {"precision": config.precision, "rows": rows}
    run.write("profile.json", content)
    return content


def macs(network: str, data: ImageData) -> int:
    """Multiply-accumulates of one plain network for one image, in convolutions and matrix products."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:  # shapes alone
        net = architecture(network, data.classes, data.mean, data.std).eval()
        net(torch.empty(1, *data.train.images.shape[1:]))
    return int(counter.get_total_flops()) // 2


@torch.no_grad()
def flops_per_s(device: str, precision: str) -> float:
    """The best of five runs of a product of 1024 x 1024 and of a 3 x 3 convolution of 64 channels, for 64 images."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = torch.rand(2, 1024, 1024, device=device, dtype=dtype)
    x = torch.rand(64, 64, 16, 16, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    w = torch.rand(64, 64, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    works = ((2 * 1024**3, lambda: a @ b), (2 * 64 * 16 * 16 * 64 * 64 * 9, lambda: F.conv2d(x, w, padding=1)))
    best = 0.0
    for flops, work in works:
        for _ in range(5):
            began = _now(device)
            work()
            best = max(best, flops / (_now(device) - began))
    return best


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()
