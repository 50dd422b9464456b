"""How long simulations take, by the descent of one network in their own world."""

import itertools
import time
from collections.abc import Iterator

from divkd.shared.progress import lasting
from divkd.theory import descent
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import training_samples
from divkd.theory.engines import engine

SECONDS = 10.0  # that the timed descent may take


def measured(config: MultiViewConfig, networks: int) -> Iterator[str]:
    """The time of `networks`, by a first member that is trained here and kept nowhere, for `SECONDS` at most.

    How many steps a network needs is known when it fits, and students need others than members: an estimate.
    """
    samples = training_samples(config, config.seeds[0])
    first = engine(config.engine).create(config, samples, config.seeds[0], [0])
    loss = descent.cross_entropy(samples.labels)
    list(itertools.islice(descent.descend(first.copy([0]), loss, max_steps=config.max_steps), 3))  # compiles
    began, taken, fitted, steps = time.perf_counter(), 0.0, False, 0
    for step in descent.descend(first, loss, max_steps=config.max_steps):
        taken, fitted, steps = time.perf_counter() - began, not step.active.any(), step.number
        if taken > SECONDS:
            break
    least, how = ("about", "fits") if fitted else ("more than", "has not fitted")
    yield (
        f"time: {least} {lasting(taken * networks)} on {config.device}, if every network takes as long as a first "
        f"member, which {how} after {steps:,} steps in {taken:.2g} s; students may take longer"
    )
