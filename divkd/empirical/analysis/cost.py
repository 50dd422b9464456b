"""What networks cost: forward passes in training; time, arithmetic and memory of an answer."""

import copy
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from divkd.empirical.training.loop import BatchLoss
from divkd.empirical.training.perturb import PERTURBATIONS
from divkd.empirical.training.students import STUDENTS, rows_of
from divkd.shared.errors import InputError, unknown
from divkd.shared.kinds import METHODS
from divkd.shared.run import device_name
from divkd.shared.seeds import rng

COUNTS = ("macs", "weight_bytes", "peak_activation_bytes")


def training_passes(model: str, method: str, members: int) -> int:
    """Forward passes of one plain network for one training image and step, of M = `members` teachers.

        passes = 3 k c + M [method is not "none"] + d

    k is the rows of the `model`, a "deep_ensemble" (M) or a student (`Student.rows`); c its graphs, 2 with a
    perturbation (the clean image and the perturbed one) and 1 without; d what the perturbation itself takes
    (`Perturbation.passes`). A backward pass counts as two, and as one where it goes to the input alone, as in the
    direction of ODS: one teacher's forward pass and that. A deep ensemble learns from labels alone.

    Left out: what the teachers' own training cost, 3 M passes of its images (the deep ensemble's); networks of another
    size as teachers; that those of "kd" may answer from memory (`distillation.spared`); and for a merged network, which
    is trained as its BatchEnsemble is, one pass over the training images after the last epoch. Raises `InputError` for
    an unknown name, no members or a distilled deep ensemble.
    """
    if model not in ("deep_ensemble", *STUDENTS):
        raise unknown("model", model, ("deep_ensemble", *STUDENTS))
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if model == "deep_ensemble" and method != "none":
        raise InputError(f"a deep ensemble is not distilled by {method!r}; give the method 'none'")
    _check_count("members", members)
    perturbation = PERTURBATIONS.get(method)
    graphs, extra = (2, perturbation.passes) if perturbation else (1, 0)
    return 3 * rows_of(model, members) * graphs + members * (method != "none") + extra


def inference_cost(
    nets: Mapping[str, nn.Module],
    shape: tuple[int, int, int],
    batch: int = 128,
    rounds: int = 15,
    device: str | torch.device = "cpu",
    *,
    baseline: str,
) -> list[dict[str, Any]]:
    """What each network takes to answer, beside the network called `baseline`: one flat row a network, in order.

    Networks map (B, *shape) pixels in [0, 1] to logits (M, B, K), in float32; they are left on `device`, in eval mode.

        name, members (M), baseline, batch, device (its hardware), threads (of torch, on the CPU)
        latency_s               seconds for a batch of one image: {median, quartiles: [low, high], n: rounds}
        images_per_s            images a second in batches of `batch`, likewise
        macs                    multiply-accumulates for an image, in convolutions and matrix products; scaling a
                                BatchEnsemble's weights, norms and all that is done element by element are left out
        weight_bytes            parameters and buffers, each once
        peak_activation_bytes   the most that a batch of `batch` holds at a time beyond weights and input; see below
        <each>_ratio            the value divided by the baseline's, null where that is 0; for times it is taken within
                                each round, as a machine's speed drifts, and then summarised

    All are timed once in every round, after a round of warm-up, each after an untimed image of its own, as caches hold
    what the network before it left there. On a CUDA device the clock stops when the device has finished.

    Peak activations on the CPU are the bytes of all tensors that live at once; what a kernel allocates for itself
    within a call is not seen. On CUDA they are what the allocator gave out, which includes that. Both are of networks
    run as they are here: members in turn, but for a BatchEnsemble's on CUDA and for a few images (`ensembles.IN_TURN`),
    which answer at once and hold M times as much.

    Raises `InputError` for an unknown baseline, counts below 1 and a network whose logits are not (M, B, K).
    """
    if baseline not in nets:
        raise unknown("baseline", baseline, nets)
    _check_count("batch", batch)
    _check_count("rounds", rounds)
    device = torch.device(device)
    pixels = rng(0, "cost/images").random((batch, *shape), dtype=np.float32)
    images = torch.from_numpy(pixels).to(device, memory_format=torch.channels_last)

    rows: list[dict[str, Any]] = []
    for name, net in nets.items():
        net.to(device).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            logits = net(images[:1])
        if logits.ndim != 3 or logits.shape[1] != 1:
            raise InputError(
                f"the logits of {name} are {tuple(logits.shape)} for one image; give a network with a member axis, "
                "(M, B, K), such as DeepEnsemble([net])"
            )
        row: dict[str, Any] = {"name": name, "members": len(logits), "baseline": baseline, "batch": batch}
        row |= {"device": device_name(str(device)), "threads": torch.get_num_threads()}
        row |= {"macs": counter.get_total_flops() // 2, "weight_bytes": weight_bytes(net)}
        rows.append({**row, "peak_activation_bytes": peak_activation_bytes(net, images)})

    seconds = {name: np.empty((2, rounds)) for name in nets}
    for i in (0, *range(rounds)):  # the first is the warm-up, overwritten
        for which, x in enumerate((images[:1], images)):
            for name, net in nets.items():
                seconds[name][which, i] = _seconds(net, x)

    base = next(row for row in rows if row["name"] == baseline)
    counts = {key: base[key] for key in COUNTS}
    for row in rows:
        latency, whole = seconds[row["name"]]
        of_one, of_batch = seconds[baseline]
        row |= {"latency_s": spread(latency), "latency_s_ratio": spread(latency / of_one)}
        row |= {"images_per_s": spread(batch / whole), "images_per_s_ratio": spread(of_batch / whole)}
        row |= {f"{key}_ratio": row[key] / count if count else None for key, count in counts.items()}
    return rows


def weight_bytes(net: nn.Module) -> int:
    """Bytes of the parameters and buffers of `net`; what stands under two names counts once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*net.parameters(), *net.buffers()))


def peak_activation_bytes(net: nn.Module, x: Tensor) -> int:
    """The most bytes that net(x) holds at a time beyond what was there before, without gradients."""
    # Not inference_mode: it hands composite operations over whole, and what they make on the way would not be seen.
    with torch.no_grad():
        return _peak(x.device, lambda: net(x))


def peak_training_bytes(net: nn.Module, loss: BatchLoss, images: Tensor, labels: Tensor) -> int:
    """The most bytes that one training step of a batch holds at a time beyond weights and images, momentum left out.

    Activations, gradients, perturbed images and what the teachers of `loss` make of them; as `peak_activation_bytes`
    counts. A copy of `net` is trained: `net` stays as it is.
    """
    trained = copy.deepcopy(net).requires_grad_().train()

    def step() -> None:
        for term, _ in loss(trained, images, labels, rng(0, "cost/step")):
            term.backward()

    return _peak(images.device, step)


def _peak(device: torch.device, work: Callable[[], object]) -> int:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return int(torch.cuda.max_memory_allocated(device) - before)
    with _LiveBytes() as live:
        work()
    return int(live.peak)


class _LiveBytes(TorchDispatchMode):
    """Follows every storage that an operation makes until it is freed; views and in-place results make none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: dict[int, int] = {}  # by address: that of a freed storage may come back
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(out):
            key = storage._cdata
            if key not in self.sizes and key not in given:
                self.sizes[key] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self._free, key)
        self.peak = max(self.peak, self.now)
        return out

    def _free(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


def _storages(tree: Any) -> Iterable[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@torch.inference_mode()
def _seconds(net: nn.Module, x: Tensor) -> float:
    """Wall-clock seconds of net(x), on the device's own time where that runs apart."""
    times = []
    for images in (x[:1], x):
        net(images)
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        times.append(time.perf_counter())
    return times[1] - times[0]


def spread(values: np.ndarray) -> dict[str, Any]:
    """The median of `values`, their quartiles and number."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "quartiles": [low, high], "n": len(values)}


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} {value!r} is not allowed; give a whole number from 1")
