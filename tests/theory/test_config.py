import dataclasses
import subprocess
import sys

import pytest

from divkd.shared.errors import InputError
from divkd.theory.config import PRESETS, MultiViewConfig


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_valid_and_survive_json(name):
    config = PRESETS[name]
    config.validate()
    assert config.preset == name
    lists = {
        key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(config).items()
    }
    assert MultiViewConfig.from_dict(lists) == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("members", 0),
        ("members", 2.5),
        ("members", True),
        ("seeds", ()),
        ("seeds", (0, 0)),
        ("seeds", (-1,)),
        ("engine", "sparse"),
        ("device", "cuda"),
        ("device", "tpu"),
        ("power", 1),
        ("noise", float("nan")),
        ("noise", -1.0),
        ("trust", float("inf")),
        ("init_scale", -2.0),
        ("label_share", 1.5),
        ("students", -1),
        ("clip", 0.0),
        ("expected_others", 11.0),
        ("own_weight", (1.2, 1.0)),
        ("own_weight", (1.0,)),
        ("own_weight", (1.0, float("nan"))),
        ("train_samples", 30),
        ("own_patches", 20),
        ("views", 0),
        ("views", 13),
        ("coherence", 0.1),
        ("max_steps", 0),
    ],
)
def test_bad_values_are_refused_in_one_line_that_names_them(name, value):
    with pytest.raises(InputError) as error:
        dataclasses.replace(PRESETS["default"], **{name: value}).validate()
    assert "\n" not in str(error.value)
    assert name.replace("_", "-") in str(error.value)


def test_the_dense_engine_needs_room_for_the_features():
    with pytest.raises(InputError, match="dimension 19"):
        dataclasses.replace(PRESETS["default"], engine="dense", dimension=19).validate()


def test_an_unknown_parameter_gets_a_hint():
    with pytest.raises(InputError, match="did you mean 'members'"):
        MultiViewConfig.from_dict({"member": 3})


def test_reading_the_configuration_loads_nothing_heavy():
    code = "import divkd.theory.config, sys; print([m for m in ('numpy', 'numba', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"init_scale": 2.0}, "sigma_0 above varrho"),
        ({"init_scale": 0.1}, "come in together"),
        ({"power": 2}, "all are learned"),
        ({"missing_weight": (0.1, 0.4)}, "lower missing_weight"),
    ],
)
def test_what_leaves_the_theory_is_warned_about_and_runs(changes, words):
    config = dataclasses.replace(PRESETS["default"], **changes)
    config.validate()
    (warning,) = config.warnings()
    assert words in warning
    assert "\n" not in warning


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_need_no_warning(name):
    assert list(PRESETS[name].warnings()) == []


def test_one_of_two_views_can_be_weaker_and_none_of_three():
    with pytest.raises(InputError, match=r"--second-view 0\.5 is of two views"):
        dataclasses.replace(PRESETS["default"], views=3, second_view=0.5).validate()
    with pytest.raises(InputError, match="cannot hold 11 views"):
        dataclasses.replace(PRESETS["default"], views=11).validate()


@pytest.mark.parametrize("views", [2, 3])
def test_mu_is_the_nearest_number_of_single_view_samples(views):
    config = dataclasses.replace(PRESETS["default"], views=views)
    step = views * 10 / 1200
    for count in (1, 2, 7):
        for off in (-0.4, 0, 0.4):
            assert config.single_views_of((count + off) * step) == count
        assert dataclasses.replace(config, single_views=count).single_share == pytest.approx(count * step)
    for share in (0.0, 0.4 * step, -0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"--mu .* is no sample of every"):
            config.single_views_of(share)
