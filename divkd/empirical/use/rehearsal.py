"""The first step of a student, taken by a copy before it is taken: what cannot be trained is told in one line."""

import copy
import inspect
import io
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.networks.ensembles import DeepEnsemble, Ensemble
from divkd.empirical.networks.handed import copied, described, memory, output_at, reason, taken
from divkd.empirical.training.loop import BatchLoss
from divkd.empirical.training.perturb import PERTURBATIONS, Through, moving, ods_direction
from divkd.empirical.use.given import check_flaw, check_labels, evaluating, member_logits
from divkd.shared.errors import InputError, RunError
from divkd.shared.seeds import rng


def check_optimiser(net: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Raise `InputError` unless a step of `optimiser` can move a parameter of `net`, and no other."""
    own, learns = set(net.parameters()), {p for p in net.parameters() if p.requires_grad}
    if not own:
        raise InputError("the student has no parameters; give a network with some to train")
    if not learns:
        raise InputError(
            f"all {len(own)} parameters of the student are frozen; thaw what should learn: student.requires_grad_()"
        )
    rates = {p: float(group.get("lr", 1)) for group in optimiser.param_groups for p in group["params"]}
    if foreign := set(rates) - own:
        raise InputError(
            f"the optimiser holds {len(foreign)} parameters that are not the student's; make it of "
            "student.parameters(), of the student that is given"
        )
    if not learns & set(rates):
        raise InputError("the optimiser holds no parameter that learns; make it of all student.parameters()")
    if not any(rates[p] for p in learns & set(rates)):
        raise InputError("the learning rate is 0 for all that learns, so nothing would move; start above 0")
    if (closure := inspect.signature(optimiser.step).parameters.get("closure")) and closure.default is closure.empty:
        raise InputError(
            f"{type(optimiser).__name__} wants a closure in each step; give one that steps without, e.g. SGD"
        )


def check_scheduler(scheduler: Any, optimiser: torch.optim.Optimizer | None, epochs: int, keeps: bool) -> None:
    """Raise `InputError` unless `scheduler` moves the rates of one's own `optimiser` for `epochs`, and can be kept."""
    if not isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler):
        raise InputError(f"the scheduler is {described(scheduler)}; give one of torch.optim.lr_scheduler")
    if optimiser is None or scheduler.optimizer is not optimiser:
        raise InputError("the scheduler is not of the optimiser that is given; give optimiser=... and make it of that")
    before = copy.deepcopy(scheduler.state_dict())
    rates = [{key: value for key, value in group.items() if key != "params"} for group in optimiser.param_groups]
    rates = copy.deepcopy(rates)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no step of the optimiser came before
            for _ in range(epochs):
                step(scheduler, 1.0)
        if keeps:
            buffer = io.BytesIO()
            torch.save(before, buffer)
            torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    except Exception as error:  # whatever its own code raises
        raise InputError(
            f"{type(scheduler).__name__} does not take {epochs} steps, one an epoch: {reason(error)}; make it for "
            "epochs, or step it yourself in each_epoch"
        ) from error
    finally:
        scheduler.load_state_dict(before)
        for group, was in zip(optimiser.param_groups, rates, strict=True):
            group.update(was)


def step(scheduler: torch.optim.lr_scheduler.LRScheduler, loss: float) -> None:
    """One step, of an epoch of this `loss`."""
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        scheduler.step(loss)
    else:
        scheduler.step()


def rehearse(
    net: Ensemble, teachers: DeepEnsemble, loss: BatchLoss, optimiser: torch.optim.Optimizer, x: Any, y: Tensor
) -> int:
    """The number of classes K, after a first step of a copy of `net` on the first batch; `net` stays as it is.

    `teachers` in eval mode. Raises `InputError` for what does not fit: outputs in eval and in train mode, classes and
    members, gradients, and whether any reaches a parameter that `optimiser` moves.
    """
    theirs = [member_logits(teacher, x, f"teacher {m}").shape[2] for m, teacher in enumerate(teachers.nets)]
    trial = copied(net)
    with torch.no_grad(), evaluating(trial):
        members, _, classes = check_flaw(member_logits(trial, x, "the student"), "the student").shape
    for m, count in enumerate(theirs):
        if count != classes:
            raise InputError(f"teacher {m} has {count} classes and the student {classes}; they must agree")
    if members not in (1, len(theirs)):
        raise InputError(
            f"the student has {members} members and there are {len(theirs)} teachers; give one teacher for each "
            "member, or a plain network"
        )
    check_labels(y, classes)
    trial.train().zero_grad()
    logits = check_flaw(member_logits(trial, x, "the student in train mode"), "the student in train mode")
    if logits.shape != (members, len(y), classes):
        raise InputError(
            f"the student makes {tuple(logits.shape)} in train mode and {(members, len(y), classes)} in eval mode; "
            "they must agree"
        )
    if not logits.requires_grad:
        raise InputError(
            "the student's logits hang on none of its parameters that learn; compute them without no_grad and detach"
        )
    try:
        for term, _ in loss(trial, x, y, rng(0, "rehearsal")):
            term.backward()
    except RunError as error:
        raise InputError(f"on the first batch, {error}") from error
    except RuntimeError as error:
        if memory(error):
            raise
        raise InputError(f"the student cannot learn from the first batch: {reason(error)}") from error
    held = {parameter for group in optimiser.param_groups for parameter in group["params"]}
    pairs = zip(net.parameters(), trial.named_parameters(), strict=True)
    gradients = {name: p.grad for mine, (name, p) in pairs if mine in held and p.grad is not None}
    if not gradients:
        raise InputError(
            "no gradient reaches a parameter that the optimiser holds; make it of all student.parameters(), and let "
            "the student use them"
        )
    for name, gradient in gradients.items():
        if not gradient.isfinite().all():
            raise InputError(
                f"the gradient of {name} is not finite on the first batch, though the loss is; mend the student's "
                "arithmetic there, such as a root or a logarithm of 0"
            )
    return int(classes)


def check_teachers(teachers: DeepEnsemble, method: str, x: Any, at: str | None = None) -> None:
    """Raise `InputError` for the first teacher whose answers to `x` cannot be used by `method`, at the module `at`."""
    for m, net in enumerate(teachers.nets):
        if isinstance(net, Ensemble):
            raise InputError(f"teacher {m} is an ensemble; give plain networks, e.g. member(model, 0)")
        with torch.no_grad():
            logits = check_flaw(member_logits(net, x, f"teacher {m}"), f"teacher {m}")
        if len(logits) > 1:
            raise InputError(f"teacher {m} has {len(logits)} members; give plain networks, images to logits (B, K)")
        if method in PERTURBATIONS:
            try:
                z, put = moving(x, net, at)
                if not PERTURBATIONS[method].passes:
                    continue
                through = net if isinstance(x, Tensor) and at is None else Through(net, put)
                direction, _ = ods_direction(through, z, rng(0, "rehearsal"), 1.0)
            except InputError as error:
                raise InputError(f"teacher {m}: {error}") from error
            except RuntimeError as error:
                if memory(error):
                    raise
                raise InputError(
                    f"teacher {m} has no gradient to its images, which {method} follows: {reason(error)}; take another "
                    "method, such as kd"
                ) from error
            if not direction.isfinite().all():
                raise InputError(
                    f"the gradient of teacher {m} to its images, which {method} follows, is not finite; take another "
                    "method, such as kd"
                )


def check_places(net: Ensemble, teachers: DeepEnsemble, method: str, x: Any, at: str) -> None:
    """Raise `InputError` unless what module `at` puts out means the same to all: a step of one is a step of each.

    Gaussian noise needs the same shape alone.
    """
    first: Tensor | None = None
    names = [f"teacher {m}" for m in range(teachers.members)]
    for name, one, place in (
        *((name, part, at) for name, part in zip(names, teachers.nets, strict=True)),
        ("the student", net, f"nets.0.{at}" if isinstance(net, DeepEnsemble) else f"net.{at}"),
    ):
        try:
            with evaluating(one):
                here = output_at(one, x, place).detach()
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        here = here[: len(here) // one.members] if isinstance(one, Ensemble) else here
        first = here if first is None else first
        if here.shape != first.shape:
            shapes = f"{tuple(first.shape)} in teacher 0 and {tuple(here.shape)} in {name}"
            raise InputError(f"module {at!r} puts out {shapes}; perturb_at wants one of the same shape in all")
        if PERTURBATIONS[method].passes and not torch.allclose(here, first, rtol=1e-3, atol=1e-4):
            raise InputError(
                f"module {at!r} puts out other numbers in {name} than in teacher 0: a step along the gradient of one "
                "means nothing to the other; let all share one frozen embedding, or take gaussian or kd"
            )


def takes_one(net: Ensemble, x: Any) -> bool:
    """Whether `net` can be trained on a batch of one row: BatchNorm refuses one row of one pixel."""
    try:
        member_logits(copied(net).train(), taken(x, slice(1)), "the student")
    except InputError:
        return False
    return True


@contextmanager
def unseen(device: torch.device) -> Iterator[None]:
    """What is drawn in here leaves the global generators as they were."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
