"""A deep ensemble for those who have none."""

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.networks.handed import check_network, copied, described, memory, reason, tensors, unwrapped, whole
from divkd.empirical.use import given, keep
from divkd.empirical.use.distill import Record, distill
from divkd.empirical.use.options import functions
from divkd.empirical.use.rehearsal import unseen
from divkd.shared.errors import InputError, RunError
from divkd.shared.seeds import rng


def train_teachers(
    make_network: Callable[[], nn.Module],
    batches: Iterable[Any],
    members: int,
    epochs: int,
    *,
    prepare: given.Prepare | None = None,
    optimizer: str | Callable[[nn.Module], torch.optim.Optimizer] = "adamw",
    scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    momentum: float = 0.9,
    gradient_clip_val: float | None = None,
    precision: str = "float32",
    compile: bool = False,
    seed: int = 0,
    validation: Iterable[Any] | None = None,
    each_epoch: Callable[[Record], object] | Sequence[Callable[[Record], object]] | None = None,
    checkpoint: Path | str | None = None,
    progress: bool = False,
) -> DeepEnsemble:
    """Networks trained alike but for their first weights and the order of rows (Lakshminarayanan et al. 2017).

        loss of member m = CE(f_m(x), y)

    make_network    a function that makes one network, with fresh weights each time it is called
    members         M, how many
    optimizer       "adamw" or "sgd", as in `distill`; or a function of a network that makes its optimiser
    scheduler       a function of that optimiser that makes its scheduler, stepped once an epoch
    each_epoch      called with the record of each epoch, which names the "member"
    checkpoint      a file; that of member m has -m before its ending. The same call goes on from them, to the same bits
                    on a CPU

    All else is as in `distill`, whose loop this is. What member m draws, its weights, dropout and the order of a loader
    without a generator of its own, is a function of (seed, m): more members are the same first ones and others.

    Returns the `DeepEnsemble`, in eval mode, to predict with or to distill; its `records` are those of all members.
    """
    members, seed = whole("members", members, 1), whole("seed", seed, 0)
    called = functions(each_epoch)
    for name, maker in (("optimizer", optimizer), ("scheduler", scheduler)):
        if not (callable(maker) or maker is None or (name == "optimizer" and isinstance(maker, str))):
            known = "'adamw', 'sgd' or a function of a network that makes it" if name == "optimizer" else "a function"
            raise InputError(f"{name} is {described(maker)}; give {known}: there is one for each network")
    if scheduler is not None and isinstance(optimizer, str):
        raise InputError(
            "the scheduler is of an optimizer of your own; give a function of a network that makes it, too"
        )
    path = None if checkpoint is None else keep.check_path(checkpoint)
    ndims = [4]
    nets: list[nn.Module] = []
    records: list[Record] = []
    for m in range(members):
        start = int(rng(seed, "teacher/draws", m).integers(2**63))
        with unseen(torch.device("cpu")):  # and on CUDA, what dropout draws there goes on
            torch.manual_seed(start)
            np.random.seed(start % 2**32)  # noqa: NPY002
            random.seed(start)
            net = check_network(_made("make_network", make_network), f"what make_network makes, {m},")
            if any(net is other for other in nets):
                raise InputError("make_network gives the same network twice; make one in it: lambda: Net()")
            own = optimizer if isinstance(optimizer, str) else _made("optimizer", optimizer, net)
            following = None if scheduler is None else _made("scheduler", scheduler, own)
            like = copied(unwrapped(net, "the network"))  # in a teacher's place, where it learns from labels alone
            like.register_forward_pre_hook(lambda _, *x: ndims.append(tensors(x)[0].ndim), with_kwargs=True)
            try:
                rows = distill(
                    [like],
                    net,
                    batches,
                    epochs,
                    "none",
                    prepare=prepare,
                    low=None,
                    high=None,
                    optimizer=own,
                    scheduler=following,
                    lr=lr,
                    weight_decay=weight_decay,
                    momentum=momentum,
                    gradient_clip_val=gradient_clip_val,
                    precision=precision,
                    compile=compile,
                    seed=seed,
                    validation=validation,
                    each_epoch=_naming(m, called),
                    checkpoint=None if path is None else path.with_name(f"{path.stem}-{m}{path.suffix}"),
                    progress=progress,
                )
            except (InputError, RunError) as error:
                words = str(error).replace("the student", "the network").replace("teacher 0", "the network")
                raise type(error)(f"member {m}: {words}") from error
        nets.append(net)
        records += [{"member": m, **row} for row in rows]
    ensemble = DeepEnsemble(nets, ndims[-1]).eval()
    ensemble.records = records
    return ensemble


def _naming(m: int, functions: Sequence[Callable[[Record], object]]) -> Callable[[Record], None]:
    def tell(record: Record) -> None:
        for function in functions:
            function({"member": m, **record})

    return tell


def _made(name: str, make: Any, *args: Any) -> Any:
    """make(*args); raises `InputError` where it fails."""
    try:
        return make(*args)
    except Exception as error:  # whatever the caller's own code raises
        if memory(error):
            raise
        raise InputError(f"{name} fails when it is called: {reason(error)}; give a function that makes one") from error
