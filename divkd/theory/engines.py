"""The two engines, as experiments see them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from divkd.theory import dense, descent, limit
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import Samples


class Engine(NamedTuple):
    """What an engine offers an experiment."""

    create: Callable[[MultiViewConfig, Samples, int, Sequence[int]], descent.Networks]
    fresh_outputs: Callable[[MultiViewConfig, np.ndarray, Samples, int, str, Sequence[int]], np.ndarray]
    state_bytes: Callable[[MultiViewConfig], int]


ENGINES = {
    "limit": Engine(limit.create, limit.fresh_outputs, limit.state_bytes),
    "dense": Engine(dense.create, dense.fresh_outputs, dense.state_bytes),
}
