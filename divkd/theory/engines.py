"""The engines, as experiments see them: each a module of its name in `divkd.shared.kinds.ENGINES`."""

import importlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from divkd.theory import descent
from divkd.theory.config import MultiViewConfig
from divkd.theory.data import Samples


class Engine(NamedTuple):
    """What an engine offers an experiment."""

    create: Callable[[MultiViewConfig, Samples, int, Sequence[int]], descent.Networks]
    fresh_outputs: Callable[[MultiViewConfig, np.ndarray, Samples, int, str, Sequence[int]], np.ndarray]
    state_bytes: Callable[[MultiViewConfig], int]
    together: Callable[[MultiViewConfig], int]  # networks that are trained at once


def engine(name: str) -> Engine:
    """The engine `name`, imported when it is asked for: the dense one brings torch."""
    module = importlib.import_module(f"divkd.theory.{name}")
    return Engine(module.create, module.fresh_outputs, module.state_bytes, module.together)
