"""Distillation on moved images to second order: KD, and a penalty on the difference of Jacobians.

Nam et al. 2021, section 3.2, after Srinivas and Fleuret (2018, "Knowledge Transfer with Jacobian Matching"), here for
the t^2 KL of `distillation.kd_loss`. With u = T(x) / t, v = S(x) / t, p = softmax(u), q = softmax(v), A = logsumexp,

    f = t^2 KL(p || q) = t^2 (A(v) - A(u) - p . (v - u)),

and, a prime for each derivative along a step n, of s -> x + s n at s = 0:

    f'  = t^2 ((q - p) . v' - p' . (v - u))
    f'' = t^2 (Var_p(v' - u')  +  Var_q(v') - Var_p(v') + (q - p) . v'' - p'' . (v - u)),
    p'' = p ((u' - p . u')^2 - Var_p(u') + u'' - p . u''),

where Var_p(a) = sum_k p_k (a_k - p . a)^2 = a^T F a, with F = diag(p) - p p^T the softmax's Fisher metric. The first
term of f'' is the Jacobians' difference, t^2 Var_p(v' - u') = |(J_S - J_T) n|_F^2; the others are its rest, which is 0
where student and teacher agree (q = p and v - u the same for every class). Steps with E n = 0, E n n^T = I leave

    E f(x + eta n) - f(x) = eta^2 / 2 (tr((J_S - J_T)^T F (J_S - J_T)) + rest) + O(eta^4),

the trace being E |(J_S - J_T) n|_F^2, which one draw estimates (Hutchinson 1990). An ODS step of the same expected
length, sqrt(D) along a unit direction that is as likely as its opposite, weights the trace by E n n^T instead of by I.

Of a network of ReLUs u'' and v'' are 0 at almost every x, and the kinks between its pieces are in no derivative: the
expansion holds for steps that cross none.
"""

import warnings
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training.clock import span
from divkd.empirical.training.diagnosis import check_loss
from divkd.empirical.training.distillation import cross_entropy, kd_loss
from divkd.empirical.training.loop import BatchLoss, Terms
from divkd.empirical.training.perturb import PERTURBATIONS

with warnings.catch_warnings():  # forward mode imports it at its first use, with a warning to torch's own developers
    warnings.simplefilter("ignore", FutureWarning)
    import torch._decomp.decompositions_for_jvp


class Jet(NamedTuple):
    """Logits (M, B, K) along a step: themselves, and their first and second derivative."""

    logits: Tensor
    first: Tensor
    second: Tensor


def direction(kind: str, x: Tensor, teachers: DeepEnsemble, temperature: float, rng: np.random.Generator) -> Tensor:
    """n, the step of size 1 of a `kind` of perturbation: x + eta n is `perturb`'s, before it is clipped.

    Drawn from `rng` as `perturb` draws it. x (B, ...) -> the same shape.
    """
    chosen = PERTURBATIONS[kind]
    return chosen.direction(x, teachers, temperature, rng) * (x[0].numel() ** 0.5 if chosen.unit else 1.0)


def pushed(net: nn.Module, x: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (M, B, K) of images x, and J n, their derivative along the steps n: one forward pass, that of both.

    In forward mode, so that a backward pass through it reaches the weights. In train mode BatchNorm's statistics are
    those of the batch, and move as all its rows do.
    """
    with forward_ad.dual_level():
        logits, along = forward_ad.unpack_dual(net(forward_ad.make_dual(x, n)))
    return logits.float(), cast(Tensor, along).float()


def fisher(along: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Var_p(a) = a^T (diag(p) - p p^T) a, p = softmax(z / t), of a (M, B, K) and logits z (M, B, K): (M, B)."""
    p = torch.softmax(logits / temperature, -1)
    return (p * (along - (p * along).sum(-1, keepdim=True)) ** 2).sum(-1)


def jacobian_loss(
    kind: str, teachers: DeepEnsemble, temperature: float, kd_weight: float, step_size: float
) -> BatchLoss:
    """The loss of a student, with a the weight of the KD term, eta the step size and n a step of `kind`:

        (1 - a) CE(S(x), y) + a (KD(x) + eta^2 / 2 mean_mb |(J_S - J_T) n|_F^2)

    In the mean over n what `student_loss(kind, ...)` is to second order, without the rest and what clipping does. The
    steps are the same, from the same draws. A single network's term is the mean over all teachers, as that of its KD.

    The student's Jacobian is that of train mode: the images moved by n are normalised by their own batch, so what is
    expanded there is what noisy distillation computes. Teachers are in eval mode in both.
    """

    def loss(net: nn.Module, x: Tensor, y: Tensor, generator: np.random.Generator) -> Terms:
        with span("perturbation"):
            n = direction(kind, x, teachers, temperature, generator)
        with span("teachers"), torch.no_grad():
            targets, theirs = pushed(teachers, x, n)
        logits, ours = pushed(net, x, n)
        ce = check_loss((1 - kd_weight) * cross_entropy(logits, y), x, logits)
        penalty = step_size**2 / 2 * fisher(ours - theirs, targets.expand_as(theirs), temperature).mean()
        kd = kd_loss(logits, targets, temperature) + penalty
        yield ce + check_loss(kd_weight * kd, x, logits, targets), logits

    return loss


def jet(net: nn.Module, x: Tensor, n: Tensor) -> Jet:
    """The `Jet` of `net` in eval mode at images x (B, ...) along steps n of the same shape."""

    def first(z: Tensor) -> Any:
        return torch.func.jvp(net, (z,), (n,))

    with torch.no_grad():
        found: Any = torch.func.jvp(first, (x,), (n,))
    (logits, once), (_, twice) = found
    return Jet(logits, once, twice)


def expansion(student: Jet, teacher: Jet, temperature: float) -> dict[str, Tensor]:
    """The terms of f'' / 2, (M, B) each: what eta^2 multiplies.

        second      all of f'' / 2
        jacobian    t^2 Var_p(v' - u') / 2, the difference of Jacobians
        ours        t^2 Var_p(v') / 2, and
        theirs      t^2 Var_p(u') / 2: how large the student's and the teacher's Jacobian are

    One student row serves every teacher. Their Jacobians' cosine in the metric F is
    (ours + theirs - jacobian) / (2 sqrt(ours theirs)).
    """
    t = temperature
    (u, u1, u2), (v, v1, v2) = (tuple(part / t for part in one) for one in (teacher, student))
    v, v1, v2 = (part.expand_as(u) for part in (v, v1, v2))
    p, q = torch.softmax(u, -1), torch.softmax(v, -1)

    def mean(a: Tensor) -> Tensor:
        return (p * a).sum(-1, keepdim=True)

    spread = {"ours": fisher(v1, u, 1.0), "theirs": fisher(u1, u, 1.0), "jacobian": fisher(v1 - u1, u, 1.0)}
    p2 = p * ((u1 - mean(u1)) ** 2 - spread["theirs"][..., None] + u2 - mean(u2))
    rest = fisher(v1, v, 1.0) - spread["ours"] + ((q - p) * v2).sum(-1) - (p2 * (v - u)).sum(-1)
    return {name: t**2 / 2 * part for name, part in {**spread, "second": spread["jacobian"] + rest}.items()}
