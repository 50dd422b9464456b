"""A configuration: what its fields allow, what a misfit is told, and that it survives JSON."""

import dataclasses
import json
import math

import pytest

from divkd.empirical.plane.config import PlaneConfig
from divkd.empirical.training.config import PRESETS as TRAIN
from divkd.shared.config import Config, Interval, described, field, option_of, spelled
from divkd.shared.errors import InputError
from divkd.theory.config import PRESETS as THEORY


@dataclasses.dataclass(frozen=True)
class Inner(Config):
    rate: float = field(meaning="learning rate", above=True, hint="e.g. 0.1")


@dataclasses.dataclass(frozen=True)
class Outer(Config):
    size: int = field(meaning="how large", low=2, high=9)
    inner: Inner = field()
    kinds: tuple[str, ...] = field(("one_way",), "ways to go", choices=("one_way", "other"), option="--kind")
    seeds: tuple[int, ...] = field((0,), high=9)
    weight: Interval = field((0.5, 1.0), high=2)
    limit: int | None = field(None, low=4)
    name: str = field("x", hint="a name")
    flip: bool = field(False)

    def rules(self) -> None:
        if self.limit is not None and self.limit < self.size:
            raise InputError(f"--limit {self.limit} is below --size {self.size}; raise it")


GOOD = Outer(3, Inner(0.1))


@pytest.mark.parametrize("config", [GOOD, PlaneConfig(), *TRAIN.values(), *THEORY.values()])
def test_a_configuration_survives_json(config):
    assert type(config).from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 1}, "--size 1 is not allowed; give a whole number from 2 to 9"),
        ({"size": 3.0}, "--size 3.0 is not allowed; give a whole number from 2 to 9"),
        ({"size": True}, "--size True is not allowed; give a whole number from 2 to 9"),
        ({"inner": Inner(0.0)}, "--rate 0.0 is not allowed; give a number above 0 and at most 1e+12 (e.g. 0.1)"),
        ({"inner": Inner(math.nan)}, "--rate nan is not allowed; give a number above 0 and at most 1e+12 (e.g. 0.1)"),
        ({"inner": None}, "--inner None is not allowed; give the fields of Inner"),
        ({"kinds": ("othr",)}, "unknown kind 'othr'; choose one of: one_way, other (did you mean 'other'?)"),
        ({"kinds": ("other", "other")}, "--kind other,other is not allowed; give each of one_way, other at most once"),
        ({"kinds": "other"}, "--kind other is not allowed; give each of one_way, other at most once"),
        ({"seeds": ()}, "--seeds () is not allowed; give one or more whole numbers from 0 to 9, each once"),
        ({"seeds": (1, 1)}, "--seeds 1,1 is not allowed; give one or more whole numbers from 0 to 9, each once"),
        ({"seeds": (10,)}, "--seeds 10 is not allowed; give one or more whole numbers from 0 to 9, each once"),
        ({"weight": (1.0, 0.5)}, "--weight 1.0,0.5 is not allowed; give 2 numbers from 0 to 2, the lower first"),
        ({"weight": (1.0,)}, "--weight 1.0 is not allowed; give 2 numbers from 0 to 2, the lower first"),
        ({"weight": (0.5, math.nan)}, "--weight 0.5,nan is not allowed; give 2 numbers from 0 to 2, the lower first"),
        ({"limit": 2}, "--limit 2 is not allowed; give a whole number from 4 to 1e+12"),
        ({"limit": 4, "size": 5}, "--limit 4 is below --size 5; raise it"),
        ({"name": 3}, "--name 3 is not allowed; give a name"),
        ({"name": None}, "--name None is not allowed; give a name"),
        ({"flip": 1}, "--flip 1 is not allowed; give true or false"),
    ],
)
def test_a_misfit_is_one_line_with_option_value_range_and_mend(changes, message):
    with pytest.raises(InputError) as error:
        dataclasses.replace(GOOD, **changes).validate()
    assert str(error.value) == message


@pytest.mark.parametrize("changes", [{"size": 2}, {"size": 9}, {"weight": (1, 1)}, {"kinds": ()}, {"limit": 4}])
def test_the_ends_of_a_range_are_allowed(changes):
    dataclasses.replace(GOOD, **{"size": 2, **changes}).validate()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 3, "inner": {"rate": 1}, "sise": 4}, "unknown parameter 'sise'.*did you mean 'size'"),
        ({"size": 3}, "lacks inner; give a whole one"),
        ({"size": 3, "inner": {}}, "lacks rate"),
        ({"size": 3, "inner": {"rate": -1}}, "--rate -1"),
        ({"size": 3, "inner": 7}, "--inner 7"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        Outer.from_dict(values)


def test_hyphens_stand_for_underscores_where_names_are_chosen_and_nowhere_else():
    values = {"size": 3, "inner": {"rate": 0.1}, "kinds": ["one-way"], "name": "my-name"}
    config = Outer.from_dict(values)
    assert config.kinds == ("one_way",)
    assert config.name == "my-name"
    assert spelled("three-way", ("one_way",)) == "three-way"  # as it was typed, for the message


def test_only_what_has_a_meaning_is_offered():
    assert [option_of(one) for one in described(Outer)] == ["--size", "--kind"]
