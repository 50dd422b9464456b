"""What experiments depend on beside data and networks, and their presets. Imports no torch: ``--help`` reads it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from divkd.empirical.training.config import PRESETS, NetworksConfig
from divkd.shared.config import field

Asked = TypeVar("Asked", bound=NetworksConfig)


@dataclass(frozen=True, kw_only=True)
class TaughtConfig(NetworksConfig):
    """Networks, and what is distilled from them at a temperature."""

    temperature: float = field(4.0, "of the distillation at a temperature", above=True, symbol="T")
    kd_weight: float = field(0.9, "weight of its term, in (1 - a) CE + a KD", high=1, symbol="a")


@dataclass(frozen=True, kw_only=True)
class MysteriesConfig(TaughtConfig):
    """Single networks, their ensemble, their average trained as one, and what is distilled from them."""

    label_share: float = field(
        0.1, "weight of the labels in the mixed loss, t CE + (1 - t) H(S, T)", high=1, symbol="t"
    )


@dataclass(frozen=True, kw_only=True)
class OverKdConfig(TaughtConfig):
    """Several students of one ensemble, and their ensemble."""

    students: int = field(4, "students, each with initial weights and data order of its own", 1, 64, "K")


def presets(kind: type[Asked], more: Mapping[str, Mapping[str, Any]] = {}, **own: Any) -> dict[str, Asked]:
    """The presets of `train` that fit a laptop and a GPU as those of an experiment, and the like of `allenzhu2020`.

    `own` are the experiment's values in all of them, `more` those of one.
    """
    made = {}
    for name in ("smoke", "views", "cpu", "gpu", "nam2021-cifar100-wrn28x10"):
        base = PRESETS[name]
        values = {one.name: getattr(base, one.name) for one in dataclasses.fields(NetworksConfig)}
        published = name.startswith("nam2021")
        # Allen-Zhu and Li: ten WRN-28-10 on CIFAR-100; their schedule was not published with the table, this is ours
        preset = "allenzhu2020-cifar100-wrn28x10" if published else name
        values |= {"preset": preset, "members": 10 if published else 5} | own | dict(more.get(name, {}))
        made[preset] = kind(**values)
    return made


MYSTERIES = presets(MysteriesConfig)
OVER_KD = presets(OverKdConfig, {"nam2021-cifar100-wrn28x10": {"students": 10}})
