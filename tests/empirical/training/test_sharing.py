"""Which fields a network depends on: what runs of a sweep share are the same bits, and what differs is not shared."""

import dataclasses

import pytest
from training_runs import arrays, experiment, tiny

from divkd.empirical.data.names import ViewsConfig
from divkd.empirical.training.config import Schedule, TrainConfig

BASE = {"methods": ("none", "kd", "ods"), "students": ("single", "batch_ensemble"), "train_images": 40}
SHORT = Schedule(1, 20, 0.1, 4e-4, (0.1, 0.5, 0.9))
OTHER = dataclasses.replace(SHORT, lr=0.05)
# Every field: another value, and the roles whose networks know nothing of it. "" are the perturbed methods.
FIELDS = {
    "preset": ("cpu", "teacher none kd ods"),
    "dataset": ("cifar10", ""),
    "network": ("resnet14", ""),
    "members": (3, "teacher none kd ods"),  # in their names
    "methods": (("kd",), "teacher none kd ods"),
    "students": (("single",), "teacher none kd ods"),
    "seeds": ((1,), "teacher none kd ods"),
    "teacher": (OTHER, "none"),
    "student": (OTHER, "teacher"),
    "temperature": (2.0, "teacher none"),
    "kd_weight": (0.5, "teacher none"),
    "step_size": (0.1, "teacher none kd"),
    "train_images": (41, ""),
    "crop": (1, ""),
    "flip": (True, ""),
    "data_dir": ("data", "teacher none kd ods"),
    "image_size": (8, ""),
    "split": (0.2, ""),
    "device": ("cuda", ""),
    "momentum": (0.8, ""),
    "precision": ("bfloat16", ""),
    "compile": ("on", ""),
    "teacher_network": ("resnet14", "none"),
    "weights": ("file", ""),
    "teachers": ("run", "teacher none"),
    "rank_one_lr": (0.1, "teacher"),
    "views": (ViewsConfig(), "teacher none kd ods"),  # the sum of the images stands beside it
    "ladder": (4, "teacher none kd ods"),
}


def changed(name):
    base = tiny(**BASE, teacher=SHORT, student=SHORT)
    return base, dataclasses.replace(base, **{name: FIELDS[name][0]})


def test_every_field_is_judged():
    assert sorted(FIELDS) == sorted(one.name for one in dataclasses.fields(TrainConfig))


@pytest.mark.parametrize("name", FIELDS)
def test_a_changed_field_is_shared_or_not(name):
    base, other = changed(name)
    assert other != base
    same = {role for role in ("teacher", "none", "kd", "ods") if base.behind(role) == other.behind(role)}
    assert same == set(FIELDS[name][1].split())


def test_a_teachers_network_is_one_by_either_name():
    base, other = changed("teacher_network")
    assert other.behind("teacher") == dataclasses.replace(base, network="resnet14").behind("teacher")


@pytest.fixture(scope="module")
def bits(tmp_path_factory):
    base, _ = changed("preset")
    experiment(base, path := tmp_path_factory.mktemp("sharing") / "base")
    return by_network(path)


def by_network(path):
    found = {}
    for key, value in arrays(path).items():
        found.setdefault(key.split("/")[0], {})[key] = value
    return found


@pytest.mark.parametrize("name", ["members", "teacher", "student", "temperature", "step_size", "rank_one_lr"])
def test_what_is_shared_has_the_same_bits_and_what_is_not_differs(name, bits, tmp_path):
    base, other = changed(name)
    experiment(other, tmp_path / "other")
    found = by_network(tmp_path / "other")
    both = [network for network in bits if network in found]
    assert both
    for network in both:
        role = "teacher" if "teacher" in network else next(one for one in ("none", "kd", "ods") if f"-{one}" in network)
        if base.behind(role) == other.behind(role):
            assert found[network] == bits[network], network
        elif not (name == "rank_one_lr" and "single" in network):  # which has no such factors, and is trained again
            assert found[network] != bits[network], network
