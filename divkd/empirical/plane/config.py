"""What a plane experiment is made of, and the checks before it starts. Imports no torch: ``--help`` reads it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from divkd.shared.errors import InputError, unknown


def _field(default: Any, symbol: str, meaning: str, low: float, high: float) -> Any:
    about = {"symbol": symbol, "meaning": f"{meaning}, {low:g} to {high:g}", "low": low, "high": high}
    return dataclasses.field(default=default, metadata=about)


@dataclass(frozen=True)
class PlaneConfig:
    """Teachers on two moons in [0, 1]^2 and points that are moved. A field's metadata has what it may be."""

    seeds: tuple[int, ...] = (0, 1, 2)
    members: int = _field(4, "M", "teachers", 2, 12)
    points: int = _field(120, "", "training points, all of them moved", 8, 2000)
    noise: float = _field(0.01, "", "standard deviation of the points around the two arcs", 0, 0.2)
    step_size: float = _field(
        0.07, "eta", "a step's length is eta sqrt(2), of a Gaussian one in the mean square", 0, 0.5
    )
    temperature: float = _field(4.0, "t", "of the teachers in ODS and ConfODS", 0.01, 1000)
    width: int = _field(64, "", "units in each of the two hidden layers", 1, 1024)
    epochs: int = _field(60, "", "epochs of a teacher", 1, 10_000)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that a run's config.json holds under ``config``; raises `InputError` on a misfit."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                raise unknown("parameter", name, names)
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        config = cls(**given)
        config.validate()
        return config

    def validate(self) -> None:
        """Raise `InputError` for the first value that is not allowed."""
        if not isinstance(self.seeds, tuple) or not self.seeds:
            raise InputError(f"--seeds {self.seeds} is not allowed; give one or more, e.g. --seeds 0,1,2")
        for seed in self.seeds:
            _check("--seeds", seed, 0, 2**31 - 1, whole=True)
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"--seeds {self.seeds} is not allowed; give each seed once")
        for field in dataclasses.fields(self):
            if field.metadata:
                bounds = field.metadata["low"], field.metadata["high"]
                option = "--" + field.name.replace("_", "-")
                _check(option, getattr(self, field.name), *bounds, whole=isinstance(field.default, int))


def _check(name: str, value: object, low: float, high: float, *, whole: bool) -> None:
    kind = int if whole else (int, float)
    # written so that NaN fails it
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        wanted = "a whole number" if whole else "a number"
        raise InputError(f"{name} {value} is not allowed; give {wanted} from {low:.10g} to {high:.10g}")
