"""Where a network looks: the gradient of the log-probability of an image's class to its pixels.

    g_m(x) = d log p_m(y | x) / dx,     S_m(x)_hw = |g_m(x)_(:, h, w)|_2     (Simonyan et al. 2014, of a logit)

For the ensemble, p = (1 / M) sum_m p_m, it is the members' mean, weighed by how much of p is theirs:

    d log p(y | x) / dx = sum_m r_m g_m(x),     r_m = p_m(y | x) / sum_j p_j(y | x)
"""

import torch
from torch import Tensor

from divkd.empirical.networks.ensembles import DeepEnsemble


def gradients(nets: DeepEnsemble, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """g (M, B, C, H, W) and log p(y | x) (M, B) of the members, float64; x (B, C, H, W) in [0, 1], labels (B,).

    The cotangent of the logits, onehot(y) - p, is taken in closed form and float64, and scaled for the products with
    the Jacobian: float32 has 1 - p = 0 for confident networks, and no direction then. The label's entry is the sum of
    the others, not 1 less its own.
    """
    found, logs = [], []
    for net in nets.nets:
        pixels = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = net(pixels)
        log_p = torch.log_softmax(logits.detach().double(), -1)
        others = log_p.exp().scatter(-1, labels[:, None], 0.0)
        cotangent = (-others).scatter(-1, labels[:, None], others.sum(-1, keepdim=True))
        scale = cotangent.abs().amax(-1, keepdim=True)
        scaled = torch.where(scale == 0, 0.0, cotangent / scale.clamp_min(torch.finfo(torch.float64).tiny))
        (gradient,) = torch.autograd.grad(logits, pixels, scaled.to(logits.dtype))
        found.append(gradient.double() * scale.view(-1, *[1] * (x.ndim - 1)))
        logs.append(log_p.gather(-1, labels[:, None])[:, 0])
    return torch.stack(found), torch.stack(logs)


def of_ensemble(found: Tensor, log_p: Tensor) -> Tensor:
    """The ensemble's gradient (B, C, H, W) of the members', g (M, B, C, H, W) and log p(y | x) (M, B)."""
    shares = torch.softmax(log_p, 0)
    return (shares.view(*shares.shape, *[1] * (found.ndim - 2)) * found).sum(0)


def magnitude(gradient: Tensor) -> Tensor:
    """S (..., H, W) of gradients (..., C, H, W)."""
    size: Tensor = torch.linalg.vector_norm(gradient, dim=-3)
    return size


def correlations(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation over pixels of maps (..., H, W) with as many others, (...); 0 where one is constant."""
    first, second = (_standard(maps.flatten(-2)) for maps in (one, other))
    return (first * second).sum(-1)


def _standard(maps: Tensor) -> Tensor:
    centred = maps - maps.mean(-1, keepdim=True)
    norm = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
    return torch.where(norm == 0, 0.0, centred / norm.clamp_min(torch.finfo(norm.dtype).tiny))
