"""The patch network in the tangent-kernel regime: it keeps the features of its start and learns their weights alone.

The network of `MultiViewConfig`, linearised around its start w(0), less its outputs there:

    F_i(X) = <phi_i(X), w_i - w_i(0)>,   phi_i(X) = grad_{w_i} F_i(X; w(0)) = [ sum_p sReLU'(<w_{i,r}(0), x_p>) x_p ]_r,

trained on squared errors with a ridge until nothing moves, which has a closed form (kernel ridge regression):

    min sum_n (F_i(X_n) - Y_{n,i})^2 + lambda s |w_i - w_i(0)|^2,   s = mean_n |phi_i(X_n)|^2,
    alpha_i = (K_i + lambda s I)^-1 Y_i,   F_i(X) = K_i(X, .) alpha_i,   F_i(X_n) = Y_{n,i} - lambda s alpha_{n,i},

with Y = 1_y - 1/k. As d -> infinity at a fixed noise norm nu the kernel is, exactly,

    K_i(X, X') = sum_{r,v} a_{r,v}(X) a_{r,v}(X') + [X = X'] nu^2 sum_{r,p} sReLU'(u_{r,p})^2,
    a_{r,v}(X) = sum_{p in P_v(X)} z_p sReLU'(u_{r,p}),
    u_{r,p} = z_p <w_{i,r}(0), v> + g_{r,p},   g ~ N(0, (sigma_0 nu)^2):

features that samples share, and on the diagonal each sample's own noise, through which it is memorised. The average of
M networks that is trained as one has the kernel sum_m K^m / M^2; its factor does not matter, as the ridge is relative.

Follows the tangent-kernel control of Allen-Zhu and Li (arXiv 2012.09816, figure 1): there, ensembling helps, training
the average helps more, and distillation fails.
"""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from divkd.shared.jobs import Job, Workers
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.seeds import rng
from divkd.shared.stats import interval, summarise
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import NOISE, Samples, fresh_samples, training_samples
from divkd.theory.evaluate import errors_by_members
from divkd.theory.worlds.config import NtkConfig

KINDS = ("single", "ensemble", "distilled", "self_distilled", "trained_jointly_average")
TESTS = {"multi_view": "multi", "single_view": "single"}
SETS = ("train", *TESTS)
FRESH = 1000  # number of the first student: students start elsewhere than members, however many these are
Arrays = dict[str, np.ndarray]  # by set, of kernels (k, N or T, N) or outputs (..., N or T, k)


def run_ntk(config: NtkConfig, run: Run, workers: Workers) -> dict[str, Any]:
    """Fit members, students and the joint average of every seed, and return the content of results.json.

    rows        for each seed and kind: {train,multi_view,single_view}_error, the mean over networks of a kind
    summary     by kind and set, {mean, std, n} over seeds
    by_members  by test set, errors of ensembles of K = 1..M, {mean, std, n}
    differences by test set, over seeds with 95 % intervals: gain, single minus ensemble; joint, ensemble minus jointly
                trained; kept, the distilled's share of the gain, (single - distilled) / (single - ensemble)
    """
    began = time.perf_counter()
    config.validate()
    names = {seed: f"seed{seed}-of{config.members}-{config.students}" for seed in config.seeds}
    many = config.members + config.students
    memory = 16 * config.classes * config.train_samples * (config.train_samples + 2 * config.test_samples)
    jobs = [Job(names[seed], partial(measure, config, seed), networks=many, memory=memory) for seed in config.seeds]
    records = workers.records(jobs, run)
    errors = [records[names[seed]]["errors"] for seed in config.seeds]  # of a seed, by kind and set
    return {
        "command": "simulate ntk",
        "config": {name: getattr(config, name) for name in config.__dataclass_fields__},
        "seeds": list(config.seeds),
        "rows": [
            {"kind": kind, "seed": seed, **{f"{of}_error": error for of, error in one[kind].items()}}
            for seed, one in zip(config.seeds, errors, strict=True)
            for kind in KINDS
        ],
        "summary": {kind: {of: summarise(one[kind][of] for one in errors) for of in SETS} for kind in KINDS},
        "by_members": {
            of: [
                summarise(at) for at in zip(*(records[name]["by_members"][of] for name in names.values()), strict=True)
            ]
            for of in TESTS
        },
        "differences": {of: _differences([{kind: one[kind][of] for kind in KINDS} for one in errors]) for of in TESTS},
        "seconds": time.perf_counter() - began,
    }


def _differences(errors: list[dict[str, float]]) -> dict[str, Any]:
    gains = [(one, one["single"] - one["ensemble"]) for one in errors]
    kept = [(one["single"] - one["distilled"]) / gain for one, gain in gains if gain > 0]
    return {
        "gain": interval(gain for _, gain in gains),
        "joint": interval(one["ensemble"] - one["trained_jointly_average"] for one in errors),
        "kept": interval(kept) if len(kept) == len(errors) else None,  # nothing to keep in some seed
    }


def measure(config: NtkConfig, seed: int, _: Run, progress: Progress) -> dict[str, Any]:
    """The errors of a seed: {errors: {kind: {set: error}}, by_members: {set: errors of K = 1..M}}."""
    world = config.world()
    sets = {"train": training_samples(world, seed)} | {of: fresh_samples(world, seed, TESTS[of]) for of in TESTS}
    targets = (np.arange(config.classes) == sets["train"].labels[:, None]) - 1 / config.classes
    outputs: dict[str, list[Arrays]] = {kind: [] for kind in KINDS}
    joint: Arrays = {}
    with progress.task(
        f"seed{seed}", config.members + config.students, networks=config.members + config.students
    ) as task:
        for member in range(config.members):
            own = kernel(world, sets, seed, member)
            outputs["single"].append(fit(own, targets, config.ridge))
            joint = {of: joint[of] + own[of] for of in own} if joint else own
            task.update(member + 1)
        outputs["trained_jointly_average"] = [fit(joint, targets, config.ridge)]
        taught = np.mean([one["train"] for one in outputs["single"]], 0)
        for student in range(config.students):
            own = kernel(world, sets, seed, FRESH + student)
            outputs["distilled"].append(fit(own, taught, config.ridge))
            one = outputs["single"][student % config.members]["train"]
            outputs["self_distilled"].append(fit(own, one, config.ridge))
            task.update(config.members + student + 1)
    by_members = {
        of: errors_by_members(np.stack([one[of] for one in outputs["single"]]), sets[of].labels) for of in SETS
    }
    errors = {
        kind: {of: float(errors_by_members(np.stack([one[of] for one in fitted]), sets[of].labels)[0]) for of in SETS}
        for kind, fitted in outputs.items()
        if fitted
    }
    errors["ensemble"] = {of: float(by_members[of][-1]) for of in SETS}
    return {"errors": errors, "by_members": {of: by_members[of].tolist() for of in TESTS}}


def kernel(world: MultiViewConfig, sets: Mapping[str, Samples], seed: int, number: int) -> Arrays:
    """K_i of the network `number` between the samples of each set and the training samples, (k, N or T, N) each."""
    shape = (world.classes, world.neurons, 2 * world.classes)
    starts = world.init_scale * rng(seed, "ntk/init", number).standard_normal(shape)
    kernels = {of: np.empty((world.classes, len(one), len(sets["train"]))) for of, one in sets.items()}
    for i, start in enumerate(starts):
        train, noise = features(world, start, sets["train"], rng(seed, "ntk/train", number, i))
        kernels["train"][i] = train @ train.T + np.diag(noise)
        for of in kernels.keys() - {"train"}:
            kernels[of][i] = features(world, start, sets[of], rng(seed, f"ntk/{of}", number, i))[0] @ train.T
    return kernels


def features(
    world: MultiViewConfig, start: np.ndarray, samples: Samples, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """a_{r,v} (N, m 2k) of neurons whose coordinates start at (m, 2k), and nu^2 sum_{r,p} sReLU'^2 (N,)."""
    count, patches = samples.feature.shape
    drawn = generator.standard_normal((count, patches, world.neurons), np.float32)
    projected = np.pad(start.T, ((0, 1), (0, 0)))[
        samples.feature
    ]  # the last row, 0, is that of patches without a feature
    u = samples.weight[:, :, None] * projected + world.init_scale * world.noise * drawn
    slopes = np.clip(u, 0, 1) ** (world.power - 1)
    found = np.zeros((count, 2 * world.classes, world.neurons))
    n, p = np.nonzero(samples.feature != NOISE)
    np.add.at(found, (n, samples.feature[n, p]), slopes[n, p] * samples.weight[n, p, None])
    return found.reshape(count, -1), world.noise**2 * (slopes**2).sum((1, 2))


def fit(kernels: Arrays, targets: np.ndarray, ridge: float) -> Arrays:
    """Outputs (N or T, k) on every set of the network with those `kernels`, fitted to `targets` (N, k)."""
    outputs = {of: np.empty((one.shape[1], len(one))) for of, one in kernels.items()}
    for i, square in enumerate(kernels["train"]):
        shift = ridge * np.trace(square) / len(square)
        alpha = np.linalg.solve(square + shift * np.eye(len(square)), targets[:, i])
        for of, one in kernels.items():
            outputs[of][:, i] = targets[:, i] - shift * alpha if of == "train" else one[i] @ alpha
    return outputs
