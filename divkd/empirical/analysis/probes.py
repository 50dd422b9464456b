"""Where members disagree, whose steps make them, and whether a student has its teacher's gradients.

The three analyses of Nam et al. 2021 (arXiv:2110.14149) behind their method. Networks here map images (B, C, H, W) in
[0, 1] to member logits (M, B, K), in eval mode and frozen; temperature t and step eta are those of the training.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from divkd.empirical.data.splits import to_float
from divkd.empirical.networks.ensembles import DeepEnsemble, Ensemble, member
from divkd.empirical.training.perturb import PERTURBATIONS, ods_direction, perturb, perturbed
from divkd.empirical.training.seed_run import log_probs
from divkd.shared.kinds import STEPS
from divkd.shared.metrics.diversity import by_confidence, profile
from divkd.shared.metrics.quality import pairwise_kl
from divkd.shared.seeds import rng

BLOCK = 100  # images at a time, moved by one teacher each: enough blocks to meet all teachers


def inputs(
    images: Tensor, teachers: DeepEnsemble, temperature: float, step_size: float, seed: int
) -> dict[str, list[Tensor]]:
    """`perturbed` images (N, C, H, W) uint8, by draws that are a function of (seed, `Perturbation.draws`)."""
    blocks, step = [to_float(block) for block in images.split(BLOCK)], (temperature, step_size)
    return perturbed(blocks, teachers, *step, lambda kind: rng(seed, f"analysis/{PERTURBATIONS[kind].draws}"))


def confidence_diversity(net: nn.Module, inputs: Mapping[str, Sequence[Tensor]], labels: Tensor) -> dict[str, Any]:
    """`diversity.profile` of each kind of input (Nam et al. 2021, figure 3); labels (N,) are the images'."""
    return {kind: profile(log_probs(net, blocks), labels) for kind, blocks in inputs.items()}


def steps(
    images: Tensor, networks: DeepEnsemble, temperature: float, step_size: float, seed: int
) -> list[list[Tensor]]:
    """For each of `networks`, `images` moved by an ODS step against it alone: r differs, w is the same."""
    by_network = []
    for net in networks.nets:
        step = DeepEnsemble([net]), temperature, step_size, rng(seed, "analysis/transfer")
        by_network.append([perturb("ods", to_float(block), *step) for block in images.split(BLOCK)])
    return by_network


def transfer(net: nn.Module, clean: Sequence[Tensor], by_teacher: Sequence[Sequence[Tensor]]) -> dict[str, Any]:
    """Mean KL between two members under an ODS step against teacher r (Nam et al. 2021, figure 6), in nats:

        own         r teaches one of the two members (for the teachers themselves: is one of the two)
        sibling     r is a teacher of the same ensemble, of neither of the two
        external    r taught nobody here

    {clean, own, sibling, external}: each the mean over both orders of every pair of members and every such r, null
    where there is none; and `bins`, of each step the same in bins of the confidence of the two's mean prediction,
    {low, high, n, pairwise_kl}. `by_teacher` holds the images moved against each network of the ladder, the M teachers
    first.
    """
    predicted = [log_probs(net, blocks) for blocks in (clean, *by_teacher)]
    members = len(predicted[0])
    pairs: dict[str, list[Tensor]] = {step: [] for step in STEPS}
    for i in range(members):
        for j in range(i):
            pairs["clean"].append(predicted[0][[i, j]])
            for r, log_p in enumerate(predicted[1:]):
                step = "own" if r in (i, j) else "sibling" if r < members else "external"
                pairs[step].append(log_p[[i, j]])
    means = {step: float(np.mean([*map(pairwise_kl, known)])) if known else None for step, known in pairs.items()}
    return {**means, "bins": {step: _binned(torch.cat(known, 1)) for step, known in pairs.items() if known}}


def _binned(pairs: Tensor) -> list[dict[str, Any]]:
    """The pairwise KL (2, N, K) in bins of confidence; no label is asked for."""
    rows = by_confidence(pairs, torch.zeros(pairs.shape[1], dtype=torch.int64, device=pairs.device))
    return [{key: row[key] for key in ("low", "high", "n", "pairwise_kl")} for row in rows]


def gradient_match(
    student: Ensemble, teachers: DeepEnsemble, images: Tensor, temperature: float, seed: int
) -> dict[str, Any]:
    """cos(g_S, g_T), g = d(w . softmax(f(x) / t)) / dx, w ~ U(-1, 1)^K: do Jacobians match? 1 where they do.

        own      student member m and its teacher m
        other    student member m and another member's teacher; null for a single network, which all teachers teach

    Nam et al. 2021 (section 3) argue that distilling on perturbed images makes a student match its teacher's Jacobian,
    of which g is a random combination. Mean over images, members and teachers; `teachers` is the same cosine between
    two teachers, what networks have in common that never met; `n` images, one w an image.
    """
    count = len(teachers.nets)
    nets = [member(student, m) for m in range(student.members)]
    with torch.no_grad():
        classes = teachers.nets[0](to_float(images[:1])).shape[1]
    generator = rng(seed, "analysis/gradients")
    cosines: dict[str, list[Tensor]] = {"own": [], "other": [], "teachers": []}
    for block in images.split(BLOCK):
        x = to_float(block)
        w = torch.from_numpy(generator.uniform(-1, 1, (len(x), classes))).to(x.device)
        theirs = [_direction(net, x, w, temperature) for net in teachers.nets]
        for m, net in enumerate(nets):
            mine = _direction(net, x, w, temperature)
            for j, direction in enumerate(theirs):
                cosines["own" if len(nets) == 1 or j == m else "other"].append((mine * direction).sum(1))
        cosines["teachers"] += [(theirs[i] * theirs[j]).sum(1) for i in range(count) for j in range(i)]
    means = {name: float(torch.cat(parts).mean()) if parts else None for name, parts in cosines.items()}
    return {**means, "n": len(images)}


def _direction(net: nn.Module, x: Tensor, w: Tensor, temperature: float) -> Tensor:
    """The unit gradient of each image, (B, C*H*W) float64; 0 where it is 0."""
    return ods_direction(net, x, w, temperature)[0].flatten(1).double()
