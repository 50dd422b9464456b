"""What experiments depend on beside data and networks, and their presets. Imports no torch: ``--help`` reads it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from divkd.empirical.networks.names import CUTS, channels_at
from divkd.empirical.training.config import PRESETS, NetworksConfig
from divkd.shared.config import field
from divkd.shared.errors import InputError
from divkd.shared.kinds import PERTURBATIONS, STUDENTS

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


@dataclass(frozen=True, kw_only=True)
class SplitChannelsConfig(NetworksConfig):
    """Fresh upper networks on parts of the channels of a trained network's intermediate layer."""

    cuts: tuple[str, ...] = field(
        tuple(CUTS), "group of blocks that is the last below: a the first, b the second; repeatable",
        choices=tuple(CUTS), option="--cut",
    )  # fmt: skip

    @property
    def networks(self) -> int:
        """One network is cut."""
        return 1

    def splits(self, cut: str) -> tuple[int, ...]:
        """Into how many parts the channels at `cut` are split: 1, 2, 4, ... that `members` and the width allow."""
        width, found = channels_at(self.network, cut), [1]
        while 2 * found[-1] <= self.members and width % (2 * found[-1]) == 0:
            found.append(2 * found[-1])
        return tuple(found)

    def rules(self) -> None:
        """Raise `InputError` for a network that is not cut, and where there is nothing to split."""
        super().rules()
        for cut in self.cuts:
            if self.members < 2:
                raise InputError(f"--members {self.members} leaves nothing to split; give at least 2, e.g. 4")
            if len(self.splits(cut)) < 2:
                raise InputError(
                    f"{self.network} has {channels_at(self.network, cut)} channels at the cut {cut}, which are not "
                    "halved; give an even width"
                )


@dataclass(frozen=True, kw_only=True)
class FeatureMapConfig(NetworksConfig):
    """What networks and their ensemble look at in an image, and what their channels respond to."""

    images: int = field(500, "test images whose maps are measured", 12, 100_000)
    cut: str = field("b", "group of blocks whose channels are asked: a the first, b the second", choices=tuple(CUTS))

    def rules(self) -> None:
        """Raise `InputError` for a network that is not cut, and for one that has no other to compare with."""
        super().rules()
        channels_at(self.network, self.cut)
        if self.members < 2:
            raise InputError(f"--members {self.members} is no ensemble; give at least 2")


@dataclass(frozen=True, kw_only=True)
class JacobianConfig(TaughtConfig):
    """Students of moved images, and those of KD with a penalty on the difference of Jacobians in their stead."""

    step_size: float = field(2 / 255, "least size of the steps, pixels in [0, 1]", high=1, symbol="eta", above=True)
    sizes: int = field(3, "sizes of the steps, each four times the last", 1, 8)
    steps: tuple[str, ...] = field(
        ("gaussian", "ods"), "how images move; repeatable", choices=PERTURBATIONS, option="--step"
    )
    students: tuple[str, ...] = field(("single",), "what learns; repeatable", choices=STUDENTS, option="--student")
    images: int = field(50, "training and test images of which the Taylor term is measured, the first", 1)

    @property
    def times(self) -> tuple[int, ...]:
        """The sizes of the steps, as multiples of the least."""
        return tuple(4**size for size in range(self.sizes))

    def rules(self) -> None:
        """Raise `InputError` for a step beyond all pixels, and for what has no forward mode: compiled, bfloat16."""
        super().rules()
        if self.step_size * self.times[-1] > 1:
            largest = f"makes steps of {self.step_size * self.times[-1]:.3g}, and pixels are in [0, 1]"
            raise InputError(f"--sizes {self.sizes} {largest}; give fewer sizes or a smaller --step-size")
        if self.compile == "on":
            raise InputError("--compile on is not for Jacobians, which are taken in forward mode; give off or auto")
        if self.precision != "float32":
            other = f"--precision {self.precision} is not for Jacobians, which are taken in forward mode"
            raise InputError(f"{other}; give float32")


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
SPLIT_CHANNELS = presets(SplitChannelsConfig, {"nam2021-cifar100-wrn28x10": {"members": 8}}, members=4)
FEATURE_MAP = presets(FeatureMapConfig)
# Nam et al.'s own protocol is of their networks: what was published under the name of Allen-Zhu and Li is left out.
JACOBIAN = {
    name: one for name, one in presets(JacobianConfig, members=4, precision="float32").items() if name in PRESETS
}
