"""One `divkd experiment` run: its networks are trained, its questions asked, and the answers put together."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training.distillation import label_loss
from divkd.empirical.training.plan import first, size, timed
from divkd.empirical.training.work import Source
from divkd.shared.jobs import Job, Record, Workers
from divkd.shared.progress import lasting
from divkd.shared.run import Run


class Experiment(NamedTuple):
    """What one experiment is: the jobs of a run, and what results.json says of their records."""

    command: str
    jobs: Callable[[Source], list[Job]]
    results: Callable[[Any, Mapping[str, Record]], dict[str, Any]]


def run_experiment(experiment: Experiment, source: Source, run: Run, workers: Workers) -> dict[str, Any]:
    """Train and measure what `experiment` asks for, or load what `run` holds already: the content of results.json."""
    config, data = source.config, source.data
    records = workers.records(experiment.jobs(source), run)
    sizes = {name: len(getattr(data, name)) for name in ("train", "validation", "test")}
    return {
        "command": experiment.command,
        "preset": config.preset,
        "dataset": data.name,
        "network": config.network,
        "split": {"rule": data.rule, **sizes},
        "seeds": list(config.seeds),
        "members": config.members,
        **experiment.results(config, records),
        "seconds": sum(record.get("seconds", 0.0) for record in records.values()),  # of training, over all sittings
    }


def taught_by_nobody(experiment: Experiment, source: Source) -> tuple[str, ...]:
    """The names of the networks that learn from labels alone, which runs that differ in students alone can share."""
    if source.config.teachers:  # as another run's teachers are no jobs, a student waits for none
        return ()
    return tuple(job.name for job in experiment.jobs(source) if job.networks and not job.after)


def plan(experiment: Experiment, source: Source) -> tuple[str, ...]:
    """The networks of a run and what they take, in words."""
    jobs, config = experiment.jobs(source), source.config
    networks = sum(job.networks for job in jobs)
    lengths = " and ".join(dict.fromkeys(f"{one.epochs}" for one in (config.teacher, config.student)))
    taken = f" (the teachers are those of {config.teachers})" if config.teachers else ""
    each = f", {networks // len(config.seeds)} for each of {len(config.seeds)} seeds" if len(config.seeds) > 1 else ""
    return (
        f"{networks} networks are trained{each}{taken}; {lengths} epochs on {len(source.data.train)} images",
        f"memory: a job holds {size(max(job.memory for job in jobs))}",
    )


def measured(experiment: Experiment, source: Source) -> Iterator[str]:
    """How long that takes, by timed steps of one network on its own images."""
    config = source.config
    seed_run = first(config, source.data)
    net = DeepEnsemble([seed_run.plain(config.network, "teacher")])
    step, _ = timed(seed_run, net, label_loss, config.teacher)
    pass_of_image = step / (3 * config.teacher.batch_size)
    total = sum(job.cost * pass_of_image for job in experiment.jobs(source))
    yield f"time: about {lasting(total)} of one process on {config.device}, by a step of {1000 * step:.0f} ms"
