"""The training loop, one for teachers and students, resumable after every epoch to the same bits on CPU."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.data.splits import Augmentation, batches, to_float
from divkd.empirical.networks.ensembles import rank_one
from divkd.empirical.training import ranks
from divkd.empirical.training.clock import CLOCK, each, peak_bytes, span
from divkd.empirical.training.config import Schedule
from divkd.empirical.training.execution import keep_freed
from divkd.empirical.training.seed_run import SeedRun
from divkd.shared.errors import RunError
from divkd.shared.run import Run
from divkd.shared.seeds import rng

# (net, images in [0, 1], labels, generator of this epoch's perturbations) -> the loss in terms, the first with the
# member logits of the clean images. A term is differentiated before the next is made: one graph is held at a time.
Terms = Iterator[tuple[Tensor, Tensor | None]]
BatchLoss = Callable[[nn.Module, Tensor, Tensor, np.random.Generator], Terms]


def train(
    seed_run: SeedRun, net: nn.Module, loss: BatchLoss, schedule: Schedule, role: str, member: int, name: str
) -> float:
    """Train `net` in place by SGD on `loss` and return the seconds it took, earlier sittings counted in.

    The last epoch counts; where the schedule has `choose_last`, that of the highest `SeedRun.score` among the epochs
    that it looks at does (the first of equals). With the precision "bfloat16" matrix products and convolutions compute
    in it, weights, BatchNorm's statistics and the loss stay float32. With `compile` "on" the network's code is
    compiled.

    After every epoch the weights, buffers, momentum and epoch number go to checkpoint `name`; what is random in an
    epoch is a function of (seed, role, member, epoch). So a killed run loses at most one epoch, and goes on as if
    nothing had happened. A finished checkpoint is loaded and nothing is trained.

    Raises `RunError` when the loss or a weight is no longer finite; the checkpoint of the last good epoch stays.
    """
    config, run = seed_run.config, seed_run.run
    keep_freed()
    # The compiled network shares the weights; each size of batch has code of its own.
    called = cast(nn.Module, torch.compile(net, dynamic=False)) if config.compile == "on" else net

    def learn(_: nn.Module, images: Tensor, labels: Tensor, generator: np.random.Generator) -> Terms:
        return loss(called, images, labels, generator)

    augmentation = Augmentation(config.crop, config.flip)
    optimiser = sgd(net, schedule, config.momentum, config.rank_one_lr)
    start, spent, best = load(net, optimiser, schedule.epochs, name, run, seed_run.progress.say)
    ranks.agree(start)
    with seed_run.progress.task(name, schedule.epochs, networks=1) as task:
        task.update(start)
        for epoch in range(start + 1, schedule.epochs + 1):
            began = time.perf_counter()
            set_rate(optimiser, schedule, epoch)
            cuts = batches(seed_run.data.train, augmentation, schedule.batch_size, seed_run.seed, role, member, epoch)
            pixels = ((to_float(images), labels) for images, labels in cuts)
            mine, generator = ranks.own(pixels, rng(seed_run.seed, f"{role}/perturb", member, epoch))
            try:
                mean_loss, accuracy = run_epoch(net, learn, optimiser, mine, generator, config.precision)
            except RunError as error:
                kept = f"the checkpoint of epoch {epoch - 1} is kept" if epoch > 1 else "nothing of it was saved"
                mend = f"start a new --out with --lr below {schedule.lr}"
                raise RunError(f"{name}, epoch {epoch}, {error}; {kept}; {mend}") from error
            if schedule.looks_at(epoch) and ranks.leads():
                score = seed_run.score(net)
                if best is None or score > best.score:
                    # copies, because on a CPU the arrays are the weights' own memory
                    best = Best(epoch, score, {key: array.copy() for key, array in state(net, None).items()})
            took = time.perf_counter() - began
            spent += took
            run.log(event="epoch", network=name, epoch=epoch, loss=mean_loss, acc=accuracy, seconds=round(spent, 3))
            if clock := CLOCK.get():
                spans = clock.read(took)
                run.log(event="profile", network=name, epoch=epoch, seconds=spans, peak_bytes=peak_bytes())
            last = epoch == schedule.epochs
            arrays, header = state(net, None if last else optimiser), {"epoch": epoch, "seconds": spent}
            if best is not None:
                header |= {"chosen": best.epoch, "score": best.score}
                arrays |= {f"{'' if last else 'best/'}{key}": array for key, array in best.arrays.items()}
            run.save(name, arrays, header)
            task.update(epoch, note=f"loss {mean_loss:.3f} acc {accuracy:.3f}")
    run.settled(name)
    if best is not None:
        net.load_state_dict({key: torch.from_numpy(value) for key, value in best.arrays.items()})
    net.eval()
    return spent


def sgd(net: nn.Module, schedule: Schedule, momentum: float, rank_one_lr: float) -> torch.optim.SGD:
    """SGD on all of `net`; rank-one factors get `rank_one_lr` times the learning rate and no weight decay."""
    return torch.optim.SGD(groups(net, schedule, rank_one_lr), lr=schedule.lr, momentum=momentum)


def groups(net: nn.Module, schedule: Schedule, rank_one_lr: float) -> list[dict[str, Any]]:
    """An optimiser's parameters of `net`: rank-one factors apart, if it has any."""
    factors = dict.fromkeys(rank_one(net))
    rest = [parameter for parameter in net.parameters() if parameter not in factors]
    own = {"params": list(factors), "weight_decay": 0.0, "share": rank_one_lr}
    return [{"params": rest, "weight_decay": schedule.weight_decay, "share": 1.0}, *([own] if factors else [])]


def set_rate(optimiser: torch.optim.Optimizer, schedule: Schedule, epoch: int) -> None:
    """Give an optimiser that `sgd` made the learning rate of `epoch` (from 1)."""
    for group in optimiser.param_groups:
        group["lr"] = schedule.lr * schedule.factor(epoch) * group["share"]


def run_epoch(
    net: nn.Module,
    loss: BatchLoss,
    optimiser: torch.optim.Optimizer,
    epoch_batches: Iterable[tuple[Tensor, Tensor]],
    generator: np.random.Generator,
    precision: str,
) -> tuple[float, float]:
    """One pass over batches of (pixels in [0, 1], labels); mean loss and members' mean accuracy, both by image.

    Raises `RunError` in the batch in which the loss is no longer finite, saying what came first, and where the weights
    are not after the last step.
    """
    net.train()
    device = next(net.parameters()).device
    total, correct = torch.zeros(2, dtype=torch.float64, device=device).unbind()
    count = 0
    lower = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    for number, (images, labels) in enumerate(each("data", epoch_batches), 1):
        optimiser.zero_grad(set_to_none=True)
        terms = loss(net, images, labels, generator) if len(labels) else iter(())
        while True:
            try:
                with span("forward"), lower:
                    value, logits = next(terms, (None, None))
            except RunError as error:
                raise RunError(f"batch {number}: {error}") from None
            if value is None:
                break
            with span("backward"):
                value.backward()
            total += value.detach() * len(labels)
            if logits is not None:
                hard = labels if labels.ndim == 1 else labels.argmax(-1)
                correct += (logits.detach().argmax(-1) == hard).double().mean(0).sum()
        with span("optimiser"):
            ranks.average(net, generator, len(labels))
            optimiser.step()
        count += len(labels)
    total, correct, count = ranks.summed(generator, total, correct, count)
    mean_loss = float(total) / count
    # A loss is taken before its step, so the weights after the last one are looked at as well.
    lost = next((name for name, parameter in net.named_parameters() if not parameter.isfinite().all()), None)
    if lost or not math.isfinite(mean_loss):
        what = f"a step made {lost} not finite" if lost else "the loss is not finite"
        raise RunError(f"by batch {number} the network diverged: {what}, mean loss {mean_loss:.4g}")
    return mean_loss, float(correct) / count


def state(net: nn.Module, optimiser: torch.optim.Optimizer | None) -> dict[str, np.ndarray]:
    """Weights and buffers of `net` by name, and the optimiser's momentum by parameter under ``momentum/``."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in net.state_dict().items()}
    if optimiser is not None:
        for name, parameter in net.named_parameters():
            arrays[f"momentum/{name}"] = optimiser.state[parameter]["momentum_buffer"].cpu().numpy()
    return arrays


class Best(NamedTuple):
    """The epoch that validation chose so far."""

    epoch: int
    score: float
    arrays: dict[str, np.ndarray]


def load(
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    epochs: int,
    name: str,
    run: Run,
    say: Callable[[str], None] | None = None,
) -> tuple[int, float, Best | None]:
    """Put checkpoint `name` into `net` and `optimiser`; the epochs and seconds that it stands for, 0 without one.

    With `say`, one that is damaged is set aside and the one before it taken (`Run.resumed`). Raises `InputError` where
    the file is not what `train` would have written for this network.
    """
    checkpoint = run.load(name) if say is None else run.resumed(name, say)
    if checkpoint is None:
        return 0, 0.0, None
    arrays, header = checkpoint
    epoch, chosen = epoch_of(header, epochs, name, run), header.get("chosen")
    own = {key: (value.shape, value.dtype) for key, value in state(net, None).items()}
    kinds, learns = dict(own), dict(net.named_parameters()) if epoch < epochs else {}
    kinds |= {f"momentum/{key}": own[key] for key in learns}
    if epoch < epochs and chosen is not None:
        kinds |= {f"best/{key}": kind for key, kind in own.items()}
    found = {key: (value.shape, value.dtype) for key, value in arrays.items()}
    if found != kinds:
        wrong = next(key for key in (*kinds, *found) if kinds.get(key) != found.get(key))
        raise run.misfit(name, f"{wrong} is {_kind(found.get(wrong))} there, and {_kind(kinds.get(wrong))} here")
    best = None
    if chosen is not None:
        prefix = "best/" if epoch < epochs else ""
        best = Best(chosen, header["score"], {key: arrays[prefix + key] for key in own})
    for key, parameter in learns.items():
        # copied into a tensor like the parameter, to keep its device and memory format
        momentum = torch.from_numpy(arrays[f"momentum/{key}"])
        optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
    net.load_state_dict({key: torch.from_numpy(arrays[key]) for key in own})
    return epoch, float(header["seconds"]), best


def epoch_of(header: Mapping[str, Any], epochs: int, name: str, run: Run) -> int:
    """The epoch of a checkpoint of `epochs`; raises `InputError` where its header is none of `train`."""
    values: list[Any] = [header.get(key) for key in ("epoch", "seconds", "chosen", "score")]
    epoch, seconds, chosen, score = values
    whole = type(epoch) is int and type(seconds) in (int, float) and 0 <= seconds < math.inf
    if not whole or (chosen is not None and (type(chosen) is not int or type(score) is not float)):
        raise run.damaged(name, f"epoch {epoch!r}, seconds {seconds!r}, chosen {chosen!r}, score {score!r}")
    if not 1 <= epoch <= epochs:
        raise run.misfit(name, f"epoch {epoch} there, of {epochs} here")
    return int(epoch)


def _kind(kind: tuple[tuple[int, ...], np.dtype[Any]] | None) -> str:
    return "nothing" if kind is None else f"{kind[1]} {kind[0]}"
