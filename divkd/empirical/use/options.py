"""What `distill` is asked for, checked before anything is done."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.networks.handed import choice, described, reason
from divkd.empirical.training.config import Schedule
from divkd.empirical.training.loop import groups, set_rate, sgd
from divkd.empirical.training.perturb import PERTURBATIONS, Space
from divkd.empirical.use.given import MOST, check_number, device_of
from divkd.shared.errors import InputError

MILESTONES = (0.05, 0.5, 0.9)  # shares of the epochs: warm-up, full rate, decay, as in the preset cpu
RATES = {"adamw": (1e-3, 1e-2), "sgd": (0.1, 4e-4)}  # the learning rate, the weight decay


def ensemble_of(teachers: Iterable[nn.Module]) -> DeepEnsemble:
    """The teachers as one ensemble; raises `InputError` unless they are networks, at least one."""
    try:
        return DeepEnsemble(teachers.nets if isinstance(teachers, DeepEnsemble) else teachers)
    except InputError as error:
        raise InputError(f"teachers: {error}") from error


def check_plain(prepare: Any, precision: Any, gradient_clip_val: Any, **switches: Any) -> None:
    """Raise `InputError` for what is none of a function, a precision, a norm, or True and False."""
    if not (prepare is None or callable(prepare)):
        raise InputError(f"prepare is {described(prepare)}; give a function of a batch that returns (inputs, labels)")
    choice("precision", precision, ("float32", "bfloat16"))
    if gradient_clip_val is not None:
        check_number("gradient_clip_val", gradient_clip_val, 0, MOST, "a number above 0", above=True)
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise InputError(f"{name} is {described(value)}; give True or False")


def check_bounds(low: Any, high: Any) -> tuple[float | None, float | None]:
    """(low, high); raises `InputError` unless each is None or a number, the first below the second."""
    for name, end in (("low", low), ("high", high)):
        if end is not None:
            check_number(name, end, -MOST, MOST, "a finite number, or None for no end")
    if low is not None and high is not None and not low < high:
        raise InputError(f"low {low} is not below high {high}; give the ends between which inputs live")
    return low, high


def space_of(low: Any, high: Any, perturb_at: Any) -> Space:
    """Where inputs move; raises `InputError` for what is no place."""
    if not (perturb_at is None or isinstance(perturb_at, str)):
        raise InputError(
            f"perturb_at is {described(perturb_at)}; give a name of student.named_modules(), such as 'embed'"
        )
    return Space(*check_bounds(low, high), perturb_at)


def step_of(step_size: Any, space: Space, method: Any) -> float | Tensor:
    """The step of `method`, by default 1/255 of what lies between the ends; raises `InputError` where it has none."""
    if isinstance(step_size, Tensor):
        odd = step_size.is_sparse or step_size.is_meta or not step_size.is_floating_point()
        if odd or not bool((step_size.isfinite() & (step_size >= 0)).all()):
            raise InputError("step_size holds other than finite floats from 0; give the scale of each number")
        return step_size.detach()
    ends = space.low is not None and space.high is not None and space.at is None
    if step_size is not None:
        most, words = (1, "a number from 0 to 1") if (space.low, space.high) == (0, 1) else (MOST, "a number from 0")
        check_number("step_size", step_size, 0, most, f"{words}, or a tensor of them")
        return float(step_size)
    if not ends and str(method) in PERTURBATIONS:
        raise InputError(
            "step_size is not known where moved floats have no two ends; give it in their units, such as 0.1 times "
            "their standard deviation, a number or a tensor of one for each"
        )
    return (float(space.high or 0) - float(space.low or 0)) / 255 if ends else 0.0


def functions(each_epoch: Any) -> list[Callable[[dict[str, Any]], object]]:
    """What is called with each record; raises `InputError` for what cannot be."""
    found = list(each_epoch) if isinstance(each_epoch, tuple | list) and each_epoch else [each_epoch]
    if each_epoch is not None and not all(callable(one) for one in found):
        raise InputError(f"each_epoch is {described(each_epoch)}; give a function of a record, such as print")
    return [] if each_epoch is None else found


def iterated(name: str, batches: Any, epochs: int) -> Iterator[Any]:
    """A first pass over `batches`; raises `InputError` where there is none for each epoch."""
    if not isinstance(batches, Iterable) or isinstance(batches, Tensor | str | bytes | dict):
        raise InputError(f"{name} are {described(batches)}; give a DataLoader, or a list of (inputs, labels)")
    try:
        first = iter(batches)
    except Exception as error:  # whatever its own code raises
        raise InputError(f"{name} cannot be iterated ({reason(error)}); give a DataLoader, or a list") from error
    if first is batches and epochs > 1:
        raise InputError(f"{name} can be iterated once only; give a DataLoader, or a list of batches: list(batches)")
    return first


def one_device(ensemble: DeepEnsemble, net: nn.Module) -> torch.device:
    """Where the student is; raises `InputError` for shared weights and for a teacher elsewhere."""
    if not set(ensemble.parameters()).isdisjoint(net.parameters()):
        raise InputError("the student shares weights with a teacher; distill into a copy: copy.deepcopy")
    device = device_of(net)
    for m, teacher in enumerate(ensemble.nets):
        if device_of(teacher, device) != device:
            raise InputError(
                f"teacher {m} is on {device_of(teacher)} and the student on {device}; move it: "
                f"teacher.to({str(device)!r})"
            )
    return device


def driver_of(
    net: nn.Module,
    epochs: int,
    optimiser: Any,
    lr: float | None,
    weight_decay: float | None,
    momentum: float,
    rank_one_lr: float,
) -> tuple[Schedule | None, torch.optim.Optimizer]:
    """The optimiser, and the schedule of one that is not the caller's own."""
    for name, rate in (("weight_decay", weight_decay), ("momentum", momentum), ("rank_one_lr", rank_one_lr)):
        if rate is not None:
            check_number(name, rate, 0, MOST, "a finite number from 0")
    if lr is not None:
        check_number("lr", lr, 0, MOST, "a finite number above 0", above=True)
    if isinstance(optimiser, torch.optim.Optimizer):
        if lr is not None or weight_decay is not None:
            raise InputError("lr and weight_decay are of divkd's optimisers; your own has them already: leave them out")
        return None, optimiser
    if not isinstance(optimiser, str):
        raise InputError(
            f"the optimiser is {described(optimiser)}; give 'adamw', 'sgd', or one of torch.optim on "
            "student.parameters()"
        )
    choice("optimiser", optimiser, RATES)
    rate, decay = (
        one if mine is None else mine for mine, one in zip((lr, weight_decay), RATES[optimiser], strict=True)
    )
    schedule = Schedule(epochs, 0, rate, decay, MILESTONES)
    driver: torch.optim.Optimizer
    if optimiser == "sgd":
        driver = sgd(net, schedule, momentum, rank_one_lr)
    else:
        driver = torch.optim.AdamW(groups(net, schedule, rank_one_lr), lr=schedule.lr)
    set_rate(driver, schedule, 1)
    return schedule, driver
