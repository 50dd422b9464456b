"""Perturbed images on which the teachers disagree: Gaussian, ODS and ConfODS (Nam et al. 2021, section 3).

Pixels live in [0, 1]; what comes back is clipped to it and carries no gradient. D = C*H*W. Other inputs say in a
`Space` where they live, and D is what one of them counts.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.networks.handed import Moved, answer, mapped, output_at, tensors
from divkd.shared.errors import InputError, unknown


class Perturbation(NamedTuple):
    """How one kind of perturbation moves images; its name stands in `divkd.shared.kinds.PERTURBATIONS`."""

    direction: Callable[[Tensor, DeepEnsemble, float, np.random.Generator], Tensor]  # of x, teachers, t, rng
    unit: bool  # whether a direction's norm is at most 1: the step is eta sqrt(D) times it, else eta times it
    passes: int  # forward passes of one network for an image; a backward pass to the image counts as one
    draws: str  # kinds of the same name are given the same draws where they are compared: they differ in length alone


class Space(NamedTuple):
    """Where inputs are moved: within [low, high] (None: without an end), or in what the module `at` puts out."""

    low: float | None = 0.0
    high: float | None = 1.0
    at: str | None = None


PIXELS = Space()


class Through(nn.Module):
    """z -> net(put(z)): a network as a function of what moves."""

    def __init__(self, net: nn.Module, put: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.put = net, put

    def forward(self, z: Tensor) -> Tensor:
        """(B, ...) -> logits (B, K)."""
        return answer(self.net, self.put(z))


def moving(x: Any, teacher: nn.Module, at: str | None) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """What of the inputs `x` moves, and what puts its like in their place: the only floats, or a step at a module.

    Raises `InputError` where it is not one tensor.
    """
    if at is not None:
        with torch.no_grad():
            here = output_at(teacher, x, at)
        return torch.zeros_like(here), lambda z: Moved(x, z, at)
    floats = [part for part in tensors(x) if part.is_floating_point()]
    if len(floats) != 1:
        raise InputError(
            f"the inputs hold {len(floats)} tensors of floats, and one can be moved; give perturb_at, the name of a "
            "module whose floats move, such as an embedding, or take the method kd"
        )
    return floats[0], lambda z: mapped(lambda part: z if part is floats[0] else part, x)


def perturb(
    kind: str,
    x: Any,
    teachers: DeepEnsemble,
    temperature: float,
    step_size: float | Tensor,
    rng: np.random.Generator,
    space: Space = PIXELS,
) -> Any:
    """x~ = clip(x + step), with a step of the `kind` drawn from `rng`:

        gaussian   eta n,  n ~ N(0, I) per pixel
        ods        eta sqrt(D) g / |g|_2,  g = d(w . softmax(T_r(x) / t)) / dx,  one teacher r ~ U{1..M} a batch and
                   w ~ U(-1, 1)^K a sample; the expected norm of the Gaussian step
        confods    the ODS step times max_k softmax(T_r(x) / t)_k

    x (B, C, H, W) in [0, 1] -> the same shape; `teachers` in eval mode, their logits (B, K) each. What is drawn does
    not depend on the number of teachers. Raises `InputError` for another `kind`.

    Other inputs (B, ...), alone or among others, move in their `space`; step_size may be a tensor, the scale s of each
    number in one of them: then x / s takes a step of size 1, with g its gradient.
    """
    if kind not in PERTURBATIONS:
        raise unknown("perturbation", kind, PERTURBATIONS)
    chosen = PERTURBATIONS[kind]
    z, put = moving(x, teachers.nets[0], space.at)
    start, size, scale = z, step_size, z.new_ones(())
    back = put
    if isinstance(step_size, Tensor):
        scale, size, start = step_size.to(z), 1.0, torch.zeros_like(z)

        def back(u: Tensor) -> Any:
            return put(z + scale * u)

    if isinstance(step_size, Tensor) or not isinstance(x, Tensor) or space.at is not None:
        teachers = DeepEnsemble([Through(net, back) for net in teachers.nets])
    length = size * z[0].numel() ** 0.5 if chosen.unit else size
    moved = z + scale * (length * chosen.direction(start, teachers, temperature, rng))
    bounded = space.at is None and (space.low is not None or space.high is not None)
    return put(torch.clamp(moved, space.low, space.high) if bounded else moved)


def perturbed(
    blocks: Sequence[Tensor],
    teachers: DeepEnsemble,
    temperature: float,
    step_size: float,
    draws: Callable[[str], np.random.Generator],
) -> dict[str, list[Tensor]]:
    """{kind: blocks} of blocks of images: "clean", and by each perturbation, one draw an image from draws(kind)."""
    by_kind: dict[str, list[Tensor]] = {"clean": list(blocks)}
    for kind in PERTURBATIONS:
        generator = draws(kind)
        by_kind[kind] = [perturb(kind, x, teachers, temperature, step_size, generator) for x in blocks]
    return by_kind


def ods_direction(
    teacher: torch.nn.Module, x: Tensor, w: Tensor | np.random.Generator, temperature: float
) -> tuple[Tensor, Tensor]:
    """g / |g|_2 with g = d(w . softmax(z / t)) / dx, z = teacher(x), and the confidence max_k softmax(z / t)_k.

    Output-diversified sampling (Tashiro et al. 2020, equation 2) on probabilities, as Nam et al. use it. The cotangent
    of the logits is taken in closed form and float64, p_k ((w_k - w_top) - sum_j p_j (w_j - w_top)), then scaled by its
    largest magnitude: autograd through a float32 softmax loses the direction once 1 - p_top < 1e-7. Where the gradient
    is zero the direction is zero. A class that the teacher excludes (-inf) has p = 0 and moves nothing.

    x (B, ...), w (B, K) float64, or what draws it from U(-1, 1) -> direction (B, ...), confidence (B,) float64.
    `teacher` is a plain network in eval mode. Raises `InputError` where its logits have no gradient.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = answer(teacher, x)
    if not logits.requires_grad:
        raise InputError(
            f"{type(teacher).__name__} answers without a gradient to its images, which ods and confods follow; let it "
            "compute without no_grad and detach, or take another method, such as kd"
        )
    if isinstance(w, np.random.Generator):
        w = torch.from_numpy(w.uniform(-1, 1, tuple(logits.shape))).to(x.device)
    p = torch.softmax(logits.detach().double() / temperature, -1)
    confidence, top = p.max(-1, keepdim=True)
    lead = w - w.gather(-1, top)
    cotangent = p * (lead - (p * lead).sum(-1, keepdim=True))
    cotangent = _divide(cotangent, cotangent.abs().amax(-1, keepdim=True))
    (gradient,) = torch.autograd.grad(logits, x, cotangent.to(logits.dtype))
    norm = torch.linalg.vector_norm(gradient, dim=tuple(range(1, gradient.ndim)), keepdim=True)
    return _divide(gradient, norm), confidence.squeeze(-1)


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is 0; NaN stays NaN."""
    return torch.where(b == 0, torch.zeros_like(a), a / b.clamp_min(torch.finfo(b.dtype).tiny))


def _noise(x: Tensor, _: DeepEnsemble, __: float, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.standard_normal(tuple(x.shape), dtype=np.float32)).to(x.device, x.dtype)


def _ods(x: Tensor, teachers: DeepEnsemble, temperature: float, rng: np.random.Generator) -> Tensor:
    return ods_direction(_one_of(teachers, rng), x, rng, temperature)[0]


def _confods(x: Tensor, teachers: DeepEnsemble, temperature: float, rng: np.random.Generator) -> Tensor:
    direction, confidence = ods_direction(_one_of(teachers, rng), x, rng, temperature)
    return direction * confidence.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def _one_of(teachers: DeepEnsemble, rng: np.random.Generator) -> torch.nn.Module:
    return teachers.nets[int(rng.random() * len(teachers.nets))]


PERTURBATIONS = {
    "gaussian": Perturbation(_noise, unit=False, passes=0, draws="gaussian"),
    "ods": Perturbation(_ods, unit=True, passes=2, draws="ods"),
    "confods": Perturbation(_confods, unit=True, passes=2, draws="ods"),
}
