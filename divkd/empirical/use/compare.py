"""Several models on the same batches, side by side: what they are worth and what they cost."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from divkd.empirical.analysis.cost import spread, weight_bytes
from divkd.empirical.networks.handed import answer, check_network, described, whole
from divkd.empirical.use import given
from divkd.empirical.use.evaluate import answers, evaluate
from divkd.empirical.use.options import check_plain, iterated
from divkd.shared.errors import InputError


class Comparison(NamedTuple):
    """What `compare` found; as a string, a table."""

    rows: list[dict[str, Any]]  # one a model, in order

    def __str__(self) -> str:
        first = self.rows[0]
        head = ("", "accuracy", "NLL", "ECE", "memory", f"time of {first['batch']} (n = {first['seconds']['n']})")
        lines = [head]
        for row in self.rows:
            middle, (low, high) = row["seconds"]["median"], row["seconds"]["quartiles"]
            took = f"{1e3 * middle:.2f} ms ({1e3 * low:.2f}, {1e3 * high:.2f})"
            scores = (f"{row[key]:.3f}" for key in ("acc", "nll", "ece"))
            lines.append((row["name"], *scores, f"{row['weight_bytes'] / 1e3:.1f} kB", took))
        widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
        shown = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
        return "\n".join(line.rstrip() for line in shown)


def compare(
    models: Mapping[str, nn.Module], batches: Iterable[Any], *, prepare: given.Prepare | None = None, rounds: int = 15
) -> Comparison:
    """Each of `models`, by name, on the same labelled `batches`: print it for a table.

    models    BatchEnsembles, DeepEnsembles or plain networks on one device; they answer in eval mode and come back as
              they were
    batches   as `distill` takes them, with its `prepare`; a DataLoader gives the same rows each time
    rounds    how often each is timed, on the first batch, in turn with the others, as a machine's speed drifts

    Each of the `rows`: name, members, acc, nll, brier, ece, pairwise_kl (`evaluate`), weight_bytes (parameters and
    buffers), batch (the rows that are timed), threads (of torch), device, seconds {median, quartiles, n}: wall-clock.
    """
    check_plain(prepare, "float32", None)
    rounds = whole("rounds", rounds, 1)
    if not isinstance(models, Mapping) or not models:
        raise InputError(f'models are {described(models)}; give them by name: {{"student": student}}')
    nets = {str(name): check_network(net, f"model {name}") for name, net in models.items()}
    devices = {str(given.device_of(net)) for net in nets.values()}
    if len(devices) > 1:
        raise InputError(f"the models are on {' and '.join(sorted(devices))}; move them to one")
    iterated("batches", batches, len(nets) + 1)
    rows: list[dict[str, Any]] = []
    for name, net in nets.items():
        try:
            logits, labels = answers(net, batches, "batches", prepare)
            row: dict[str, Any] = {**evaluate(logits, labels)}
        except InputError as error:
            raise InputError(f"model {name}: {error}") from error
        rows.append({"name": name, "members": len(logits), **row, "weight_bytes": weight_bytes(net)})
    device = torch.device(devices.pop())
    inputs, labels = next(given.checked(iterated("batches", batches, 1), None, device, True, prepare=prepare))
    times = np.empty((len(nets), rounds))
    for i in (0, *range(rounds)):  # the first is the warm-up, overwritten
        for m, net in enumerate(nets.values()):
            with given.evaluating(net), torch.no_grad():
                times[m, i] = _seconds(net, inputs, device)
    facts = {"batch": len(labels), "threads": torch.get_num_threads(), "device": str(device)}
    rows = [{**row, **facts, "seconds": spread(mine)} for row, mine in zip(rows, times, strict=True)]
    return Comparison(rows)


def _seconds(net: nn.Module, x: Any, device: torch.device) -> float:
    """Wall-clock seconds of net(x), until the device has finished."""
    times = []
    for work in (lambda: None, lambda: answer(net, x)):
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter())
    return times[1] - times[0]
