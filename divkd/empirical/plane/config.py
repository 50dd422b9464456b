"""What a plane experiment is made of, and the checks before it starts. Imports no torch: ``--help`` reads it."""

from dataclasses import dataclass

from divkd.shared.config import SEEDS, Config, field


@dataclass(frozen=True)
class PlaneConfig(Config):
    """Teachers on two moons in [0, 1]^2 and points that are moved."""

    seeds: tuple[int, ...] = field((0, 1, 2), high=SEEDS, hint="e.g. 0,1,2")
    members: int = field(4, "teachers", 2, 12, "M")
    points: int = field(120, "training points, all of them moved", 8, 2000)
    noise: float = field(0.01, "standard deviation of the points around the two arcs", 0, 0.2)
    step_size: float = field(
        0.07, "a step's length is eta sqrt(2), of a Gaussian one in the mean square", 0, 0.5, "eta"
    )
    temperature: float = field(4.0, "of the teachers in ODS and ConfODS", 0.01, 1000, "t")
    width: int = field(64, "units in each of the two hidden layers", 1, 1024)
    epochs: int = field(60, "epochs of a teacher", 1, 10_000)
