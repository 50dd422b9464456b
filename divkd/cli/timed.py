"""How long simulations take, by the descent of one network in their own world."""

import itertools
import time
from collections.abc import Iterator

from divkd.shared.progress import lasting
from divkd.theory import descent
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import training_samples
from divkd.theory.descent import engine

SECONDS = 10.0  # that the timed descent may take
STRETCH = 10  # steps between two looks at the clock
# A whole run over what its networks take if each is like the first member: students go on for longer, and all are
# tested. 1.7 to 2.5 in CPU seconds of one thread (n = 4 runs, of quick and of default).
BEYOND = 1.5, 3.0


def measured(config: MultiViewConfig, networks: int) -> Iterator[str]:
    """The time of `networks`, by a first member that is trained here and kept nowhere, for `SECONDS` at most."""
    samples = training_samples(config, config.seeds[0])
    first = engine(config.engine).create(config, samples, config.seeds[0], [0])
    loss = descent.cross_entropy(samples.labels)
    list(itertools.islice(descent.descend(first.copy([0]), loss, max_steps=config.max_steps), 3))  # compiles
    began, taken, fits, steps = time.perf_counter(), 0.0, False, 0
    for step in descent.descend(first, loss, max_steps=config.max_steps, stretch=STRETCH):
        taken, fits, steps = time.perf_counter() - began, not step.active.any(), step.number
        if taken > SECONDS:
            break
    low, high = (lasting(factor * taken * networks) for factor in BEYOND)
    where = "a thread" if config.device == "cpu" else config.device
    how = f"a first member, which fits after {steps:,} steps in {taken:.2g} s"
    if not fits:
        how = f"a first member, which does not fit in {steps:,} steps of {taken / steps:.2g} s"
    yield f"time: {f'{low} to {high}' if fits else f'more than {low}'} of {where}, by {how}"
