"""A loss that is not finite, told by what came first: images, a teacher's logits, the student's, or the loss."""

import math
from typing import Any

from torch import Tensor

from divkd.empirical.networks.handed import tensors
from divkd.shared.errors import InputError, RunError
from divkd.shared.metrics.checks import check_logits


def flaw(logits: Tensor, name: str) -> str:
    """What is wrong with `logits` (M, B, K), the `name`'s; empty where each row has a softmax.

    A class may be excluded (-inf), but not all of a row; NaN and +inf are flaws, and so are probabilities.
    """
    try:
        check_logits(logits.detach().float(), f"{name}'s logits")
    except InputError as error:
        return str(error)
    return ""


def check_loss(value: Tensor, x: Any, answers: Tensor, targets: Tensor | None = None) -> Tensor:
    """`value`, the loss of the student's `answers` to images x, if it is finite.

    `targets` are the teachers' logits, of a term of theirs. Raises `RunError` saying what first was not finite.
    """
    if math.isfinite(value.item()):
        return value
    if any(part.isnan().any() for part in tensors(x)) or (isinstance(x, Tensor) and not x.isfinite().all()):
        raise RunError(
            "the perturbed images are not finite: the gradient of a teacher's logits to its images is not; take "
            "the method kd, or another teacher"
        )
    for m, logits in enumerate(() if targets is None else targets):
        if words := flaw(logits[None], f"teacher {m}"):
            raise RunError(f"{words}; take another teacher, or mend its weights")
    if words := flaw(answers, "the network"):
        raise RunError(f"the network diverged: {words}; its weights are too large or not finite")
    if answers.isneginf().any():
        whose = "the label's class" if targets is None else "a class that its teacher holds possible"
        raise RunError(
            f"the loss is infinite: the network excludes {whose} (logit -inf); let it give each class a number"
        )
    raise RunError(f"the loss diverged to {value.item():.4g}, of finite logits up to {answers.abs().max():.4g}")
