"""The dense engine converges to the limit engine: the same networks in both, as d grows.

Both start from the same feature coordinates a and the same products with the patches' noise, g = <w(0), xi>. From then
on they part by what d leaves of the overlaps that the limit takes as 0: of the noise of a patch with what the weights
have moved by. With Dw = w(t) - w(0) of the limit's network, of a feature part Da and a noise part of norm |Dg| / nu,

    u_dense - u_limit = <xi, Dw> ~ N(0, nu^2 / d |Dw|^2),   |Dw|^2 = |Da|^2 + |Dg|^2 / nu^2,

drawn anew in every patch, the same xi for all neurons of the class:

    RMSE^2 = E_{n,i} (F_i(u + e) - F_i(u))^2,   e_{r,p} = <xi_p, Dw_r>,
           ~ nu^2 / d  E_{n,i} varrho^2 sum_p |sum_r sReLU'(u_{r,p}) Dw_r|^2   as d grows.

So RMSE falls as d^-1/2, and faster while d is small: patches without a feature, whose u the limit leaves near 0, add
sReLU(e), of order d^(-q/2). Overlaps also move what descent does next, which this leaves out: they are first order too,
but averages over the patches of a feature.

Engines are compared at one flow time, T, at which the last of the seed's limit networks has fitted its labels; steps
are both engines' own, and what halving the limit's changes is measured beside (`steps`). One student a seed goes on
from the sum of its own engine's members by the clipped rule, for a flow time of its own.
"""

import dataclasses
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from divkd.shared.jobs import Job, Workers
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.stats import interval, summarise
from divkd.theory import descent, distillation
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import Layout, Samples, training_samples
from divkd.theory.engines import limit
from divkd.theory.evaluate import learned_views
from divkd.theory.roster import FRESH
from divkd.theory.worlds.config import ConvergenceConfig

if TYPE_CHECKING:
    from divkd.theory.engines.dense import DenseNetworks

DRAWS = 8  # of the overlaps that are foreseen


def run_convergence(config: ConvergenceConfig, run: Run, workers: Workers) -> dict[str, Any]:
    """Train every network in both engines, and return the content of results.json.

    rows     for each seed and dimension, over networks: `rmse` of the training outputs, as `predicted`, and as `steps`
             of half the size change the limit's; `scale`, the limit's root mean square; `strength`, mean |difference|
             of Lambda; `same_views`, the share of views that both know or neither; `limit_views` and `dense_views`, the
             shares that are known; `time`, the flow time of the comparison; the like of students as student_*
    summary  by dimension, each {mean, std, n} over seeds
    slopes   d log y / d log d of rmse, predicted and student_rmse by least squares over the dimensions of a seed, with
             95 % intervals over seeds
    """
    began = time.perf_counter()
    config.validate()
    parts = {(seed, d): f"seed{seed}-d{d}-of{config.members}" for seed in config.seeds for d in config.dimensions}
    jobs = []
    for (seed, d), name in parts.items():
        world = config.world(d)
        memory = descent.engine("dense").state_bytes(world)
        jobs.append(Job(name, partial(measure, config, seed, d), networks=config.members, cost=float(d), memory=memory))
    records = workers.records(jobs, run)
    rows = {part: records[name] for part, name in parts.items()}
    keys = [key for key, value in next(iter(rows.values())).items() if key not in ("seed", "dimension")]
    errors = [key for key in ("rmse", "predicted", "student_rmse") if key in keys]
    return {
        "command": "simulate convergence",
        "config": {name: getattr(config, name) for name in config.__dataclass_fields__},
        "seeds": list(config.seeds),
        "rows": list(rows.values()),
        "summary": {
            str(d): {key: summarise(rows[seed, d][key] for seed in config.seeds) for key in keys}
            for d in config.dimensions
        },
        "slopes": {
            key: interval(_slope(config, [rows[seed, d][key] for d in config.dimensions]) for seed in config.seeds)
            for key in errors
        },
        "seconds": time.perf_counter() - began,
    }


def _slope(config: ConvergenceConfig, values: list[float]) -> float:
    return float(np.polyfit(np.log(config.dimensions), np.log(values), 1)[0])


def measure(config: ConvergenceConfig, seed: int, dimension: int, _: Run, progress: Progress) -> dict[str, Any]:
    """The row of a seed and dimension."""
    from divkd.theory.engines import dense  # which brings torch

    world, finer = config.world(dimension), dataclasses.replace(config.world(dimension), trust=config.trust / 2)
    samples = training_samples(world, seed)
    labels = descent.cross_entropy(samples.labels)
    full = dense.create(world, samples, seed, range(config.members))
    start, first, exact, half = (in_limit(one, samples, full) for one in (world, world, world, finer))
    student = dense.DenseNetworks(world, full.patches, dense.initial(world, seed, [FRESH]))
    pair = in_limit(world, samples, student), student
    with progress.task(f"seed {seed}, d = {dimension}", config.members, networks=config.members) as task:

        def train(networks: descent.Networks, loss: descent.Loss, flow_time: float = np.inf) -> float:
            for step in descent.descend(networks, loss, max_steps=world.max_steps, flow_time=flow_time):
                task.update(0, note=f"step {step.number}, loss {step.losses.max():.3g}")
            return float(step.times.max())

        flow_time = train(first, labels)
        for networks in (exact, half, full):
            train(networks, labels, flow_time)
        row: dict[str, Any] = {"seed": seed, "dimension": dimension, "time": flow_time} | compared(world, exact, full)
        row |= {"predicted": predicted(world, samples, start, exact), "steps": _rms(half.outputs() - exact.outputs())}
        taught: list[tuple[descent.Networks, descent.Networks]] = [(exact, pair[0]), (full, pair[1])]
        for teachers, pupil in taught if config.distill_time else ():
            outputs = teachers.outputs().sum(0)
            soft = distillation.clipped(outputs, samples.labels, world.clip, world.soft_temperature)
            train(pupil, soft, config.distill_time)
        task.update(config.members)
    if config.distill_time:
        row |= {f"student_{key}": value for key, value in compared(world, *pair).items()}
    return row


def in_limit(world: MultiViewConfig, samples: Samples, full: "DenseNetworks") -> limit.LimitNetworks:
    """The limit of `full`, from where it stands: its feature coordinates, and g = <w, x> - z a."""
    weights = full.coordinates.copy()
    products = full.products.cpu().numpy().swapaxes(1, 2).reshape(*weights.shape[:3], -1)
    shown = samples.weight.ravel() * weights[..., np.maximum(samples.feature.ravel(), 0)]  # without a feature, z is 0
    order = Layout.of(samples, 2 * world.classes).order
    return limit.LimitNetworks(world, samples, weights, np.ascontiguousarray((products - shown)[..., order]))


def compared(world: MultiViewConfig, exact: descent.Networks, full: descent.Networks) -> dict[str, float]:
    """How far outputs and strengths of networks are apart, and which views they know, in the mean over networks."""
    strengths = [descent.strengths(one.coordinates, world.classes) for one in (exact, full)]
    views = [learned_views(one) for one in strengths]
    return {
        "rmse": _rms(full.outputs() - exact.outputs()),
        "scale": _rms(exact.outputs()),
        "strength": float(np.abs(strengths[0] - strengths[1]).mean()),
        "same_views": float((views[0] == views[1]).mean()),
        "limit_views": float(views[0].mean()),
        "dense_views": float(views[1].mean()),
    }


def predicted(world: MultiViewConfig, samples: Samples, start: limit.LimitNetworks, end: limit.LimitNetworks) -> float:
    """RMSE of the outputs by the overlaps of each patch's noise with what the weights have moved by."""
    moved, noise = end.weights - start.weights, (end.noise - start.noise) / world.noise
    gram = sum(np.einsum("birf,bisf->birs", part, part, dtype=np.float64) for part in (moved, noise))
    values, vectors = np.linalg.eigh(gram)
    root = world.noise / world.dimension**0.5 * vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
    generator, squares = np.random.default_rng(0), []
    for _ in range(DRAWS):
        overlaps = (root @ generator.standard_normal(noise.shape)).astype(np.float32)
        there = limit.LimitNetworks(world, samples, end.weights, end.noise + overlaps)
        squares.append(_rms(there.outputs() - end.outputs()) ** 2)
    return float(np.mean(squares) ** 0.5)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))
