"""Your models on your batches: distill them into one network."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from divkd.empirical.networks.ensembles import DeepEnsemble, Ensemble
from divkd.empirical.networks.handed import check_network, memory, reason, tensors, whole
from divkd.empirical.training.distillation import student_loss
from divkd.empirical.training.loop import BatchLoss, run_epoch, set_rate
from divkd.empirical.training.perturb import PERTURBATIONS
from divkd.empirical.use import given, keep
from divkd.empirical.use.evaluate import evaluate
from divkd.empirical.use.options import (
    check_plain,
    driver_of,
    ensemble_of,
    functions,
    iterated,
    one_device,
    space_of,
    step_of,
)
from divkd.empirical.use.predict import gathered
from divkd.empirical.use.rehearsal import (
    check_optimiser,
    check_places,
    check_scheduler,
    check_teachers,
    rehearse,
    step,
    takes_one,
    unseen,
)
from divkd.shared.errors import InputError, RunError
from divkd.shared.progress import Progress
from divkd.shared.seeds import rng

Record = dict[str, Any]


def distill(
    teachers: Sequence[nn.Module],
    student: nn.Module,
    batches: Iterable[Any],
    epochs: int,
    method: str = "confods",
    *,
    prepare: given.Prepare | None = None,
    low: float | None = 0.0,
    high: float | None = 1.0,
    step_size: float | Tensor | None = None,
    perturb_at: str | None = None,
    temperature: float = 4.0,
    kd_weight: float = 0.9,
    optimiser: torch.optim.Optimizer | str = "adamw",
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    momentum: float = 0.9,
    rank_one_lr: float = 0.5,
    gradient_clip_val: float | None = None,
    precision: str = "float32",
    compile: bool = False,
    seed: int = 0,
    validation: Iterable[Any] | None = None,
    each_epoch: Callable[[Record], object] | Sequence[Callable[[Record], object]] | None = None,
    checkpoint: Path | str | None = None,
    progress: bool = False,
) -> list[Record]:
    """Train `student` in place, by the loss of ``divkd train`` (Nam et al. 2021, section 3):

        loss = (1 - a) CE(S(x), y) + a t^2 KL(softmax(T(x~) / t) || softmax(S(x~) / t)),   x~ = x moved by the method

    teachers     plain networks, inputs (B, ...) to logits (B, K). They answer in eval mode and come back as they were
    student      a `BatchEnsemble` of as many members, whose member m learns from teacher m; or a plain network, the
                 control, which learns from all. It comes back in eval mode
    batches      iterated once an epoch: (inputs, labels), or whatever `prepare` makes that of. Inputs: a tensor
                 (B, ...) of any dtype, a tuple, given by place, or a dict, by name. Labels: (B,) whole numbers, 0 to
                 K-1, or probabilities (B, K)
    method       none (labels only), kd (inputs as they are), gaussian, ods or confods (inputs on which the teachers
                 disagree)
    low, high    between which the moved floats live; None: no end. Images in [0, 1] are augmented as you like but not
                 normalised, as the perturbations live in pixels
    step_size    eta, by default (high - low) / 255; or a tensor, the scale of each number of an input
    perturb_at   the name of a module of teachers and student whose floats are moved, where inputs are whole numbers:
                 an embedding that all share
    temperature, kd_weight       t and a
    optimiser    "adamw" or "sgd", of `lr` (0.001; 0.1), `weight_decay` (0.01; 0.0004) and `momentum` (of sgd) on the
                 schedule of the preset cpu, rank-one factors with `rank_one_lr` times the rate and no decay; or your
                 own, on the student's parameters, with its own learning rate
    scheduler    of your own optimiser, stepped once an epoch
    gradient_clip_val            the most that the norm of a step's gradient may be
    precision, compile           "bfloat16": matrix products in it; compile the student's code
    validation   batches like the others, on which nothing is learned: each record gets their val_acc, val_nll,
                 val_brier, val_ece, val_pairwise_kl (`evaluate`)
    each_epoch   called with each record, one function or several: print it, save the student, tell a tracker
    checkpoint   a file, written after each epoch. The same call goes on from it, to the same bits on a CPU
    progress     say on standard error how far it is and how long it takes

    Returns a record {epoch, loss, acc, lr, seconds} for each epoch: loss in nats and the members' mean accuracy in
    [0, 1], means over its rows. Perturbations are a function of (seed, epoch); the order of the rows is your loader's.
    A batch of one row is left out where the student cannot be trained on one, as with BatchNorm.

    A copy of the student takes the first step before it does. Raises `InputError` for the first thing that does not
    fit, and `RunError` with the epoch and the batch in which a network fails, or something is no longer finite.
    """
    epochs, seed = whole("epochs", epochs, 1), whole("seed", seed, 0)
    given.check_number("temperature", temperature, 0, given.MOST, "a finite number above 0", above=True)
    given.check_number("kd_weight", kd_weight, 0, 1, "a number from 0 to 1")
    check_network(student, "the student")
    check_plain(prepare, precision, gradient_clip_val, compile=compile, progress=progress)
    space, called = space_of(low, high, perturb_at), functions(each_epoch)
    eta = step_of(step_size, space, method)
    ensemble = ensemble_of(teachers)
    net = student if isinstance(student, Ensemble) else DeepEnsemble([student])
    loss = student_loss(method, ensemble, temperature, kd_weight, eta, space)
    device = one_device(ensemble, net)
    first = iterated("batches", batches, epochs)
    schedule, driver = driver_of(net, epochs, optimiser, lr, weight_decay, momentum, rank_one_lr)
    check_optimiser(net, driver)
    if scheduler is not None:
        check_scheduler(scheduler, None if schedule else driver, epochs, checkpoint is not None)
    bounds = (space.low, space.high) if method in PERTURBATIONS and space.at is None else (None, None)
    path = None if checkpoint is None else keep.check_path(checkpoint)
    records: list[Record] = []
    with given.evaluating(ensemble), given.learning(student), _clipped(driver, gradient_clip_val):
        peeked = list(itertools.islice(first, 1))
        classes, one = 0, True
        for inputs, labels in given.checked(peeked, None, device, True, bounds, prepare):
            ensemble.ndim = tensors(inputs)[0].ndim
            if net is not student:
                net.ndim = ensemble.ndim
            with unseen(device):
                check_teachers(ensemble, method, inputs, space.at)
                if space.at is not None and method in PERTURBATIONS:
                    check_places(net, ensemble, method, inputs, space.at)
                classes = rehearse(net, ensemble, loss, driver, inputs, labels)
                one = takes_one(net, inputs)
        judged = None if validation is None else _validator(net, validation, epochs, classes, device, prepare)
        facts: dict[str, Any] = {}
        if path is not None:
            facts = {"method": method, "epochs": epochs, "seed": seed, "members": net.members, "low": low, "high": high}
            facts |= {"temperature": temperature, "kd_weight": kd_weight, "perturb_at": perturb_at}
            facts |= {"step_size": eta.tolist() if isinstance(eta, Tensor) else eta, "precision": precision}
            facts |= {"optimiser": type(driver).__name__, "lr": lr, "weight_decay": weight_decay, "momentum": momentum}
            facts |= {"rank_one_lr": rank_one_lr, "gradient_clip_val": gradient_clip_val}
            facts |= {"teachers": keep.digest(ensemble)}
            if kept := keep.read(path, facts):
                records = _restored(kept, path, student, driver, scheduler)
                keep.set_generators(kept["generators"], device, batches)
        learn = _compiled(net, loss) if compile else loss
        shown = Progress(quiet=not progress)
        shown.expect({"student": (1, 1.0)})
        with shown, shown.within("student"), shown.task("student", epochs, networks=1) as task:
            task.update(len(records))
            for epoch in range(len(records) + 1, epochs + 1):
                began = time.perf_counter()
                if schedule is not None:
                    set_rate(driver, schedule, epoch)
                taken = itertools.count(1)
                stream: Iterable[Any] = itertools.chain(peeked, first) if epoch == 1 else batches
                rows = (batch for batch in stream if next(taken))
                cuts = given.checked(rows, classes, device, one, bounds, prepare)
                with _told(epoch, taken):
                    generator = rng(seed, "student/perturb", 0, epoch)
                    mean_loss, accuracy = run_epoch(net, learn, driver, cuts, generator, precision)
                rate = float(driver.param_groups[0].get("lr", 0.0))
                record: Record = {"epoch": epoch, "loss": mean_loss, "acc": accuracy, "lr": rate}
                if judged is not None:
                    with _told(epoch), unseen(device):
                        record |= judged()
                if scheduler is not None:
                    step(scheduler, record.get("val_nll", mean_loss))
                record["seconds"] = round(time.perf_counter() - began, 3)
                records.append(record)
                for function in called:
                    function(record)
                if path is not None:
                    content = {"facts": facts, "records": records, "student": student.state_dict()}
                    content |= {"optimiser": driver.state_dict(), "generators": keep.generators(device, batches)}
                    content |= {} if scheduler is None else {"scheduler": scheduler.state_dict()}
                    keep.write(path, content)
                task.update(epoch, note=f"loss {mean_loss:.3f} acc {accuracy:.3f}")
    return records


@contextmanager
def _told(epoch: int, taken: "itertools.count[int] | None" = None) -> Iterator[None]:
    """What fails in here is told with the epoch, and the batch that was `taken`."""
    try:
        yield
    except RunError as error:
        mend = "; lower the learning rate" if "diverged" in str(error) else ""
        raise RunError(f"epoch {epoch}, {error}{mend}") from error
    except Exception as error:  # whatever the caller's own code raises
        if memory(error):
            raise
        kind = InputError if isinstance(error, InputError) else RunError
        where = "validation" if taken is None else f"batch {next(taken) - 1}"
        raise kind(f"epoch {epoch}, {where}: {reason(error)}") from error


@contextmanager
def _clipped(driver: torch.optim.Optimizer, most: float | None) -> Iterator[None]:
    """Steps of `driver` along gradients of at most this norm."""
    held = [parameter for group in driver.param_groups for parameter in group["params"]]

    def clip(*_: object) -> None:
        nn.utils.clip_grad_norm_(held, float(most or 0))

    handle = None if most is None else driver.register_step_pre_hook(clip)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def _compiled(net: Ensemble, loss: BatchLoss) -> BatchLoss:
    called = cast(nn.Module, torch.compile(net, dynamic=False))  # shares the weights
    return lambda _, x, y, generator: loss(called, x, y, generator)


def _validator(
    net: Ensemble, batches: Any, epochs: int, classes: int, device: torch.device, prepare: given.Prepare | None
) -> Callable[[], Record]:
    """What measures `net` on `batches`, looked at once before the first epoch."""
    iterated("validation", batches, epochs + 1)

    def judge() -> Record:
        logits, truth = gathered(net, given.checked(batches, classes, device, True, prepare=prepare))
        return {f"val_{key}": value for key, value in evaluate(logits, truth).items()}

    with unseen(device):
        judge()
    return judge


def _restored(
    kept: Record,
    path: Path,
    student: nn.Module,
    driver: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
) -> list[Record]:
    """The records of a checkpoint, whose weights and rates are put in their places."""
    state = student.state_dict()
    theirs: Record = kept["student"]
    wrong = next((key for key in {**state, **theirs} if _kind(state.get(key)) != _kind(theirs.get(key))), None)
    if wrong or ("scheduler" in kept) != (scheduler is not None):
        what = (
            f"{wrong} is {_kind(theirs.get(wrong))} there and {_kind(state.get(wrong))} here" if wrong else "scheduler"
        )
        raise InputError(f"checkpoint {path} is of another student ({what}); give its own, or another file")
    try:
        driver.load_state_dict(kept["optimiser"])
        if scheduler is not None:
            scheduler.load_state_dict(kept["scheduler"])
    except Exception as error:  # whatever their own code raises
        raise InputError(f"checkpoint {path} is of another optimiser ({reason(error)}); give its own") from error
    student.load_state_dict(theirs)
    return list(kept["records"])


def _kind(value: Any) -> str:
    return (
        f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else "nothing" if value is None else "there"
    )
