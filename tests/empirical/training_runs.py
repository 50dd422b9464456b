"""Runs small enough for tests, and what to compare of them."""

import dataclasses
from unittest import mock

import pytest
import torch
from safetensors.numpy import load_file

from divkd.empirical.data.datasets import load
from divkd.empirical.training.config import PRESETS
from divkd.empirical.training.distillation import student_loss
from divkd.empirical.training.experiment import run_training
from divkd.empirical.training.seed_run import SeedRun
from divkd.shared.jobs import Workers
from divkd.shared.progress import Progress
from divkd.shared.run import open_run

QUIET = Progress(quiet=True)
SERIAL = Workers(QUIET)


def tiny(**changes):
    smoke = PRESETS["smoke"]
    short = dataclasses.replace(smoke.teacher, epochs=3)
    base = {"members": 2, "teacher": short, "student": short, "train_images": 130, "methods": ("confods",), "ladder": 0}
    return dataclasses.replace(smoke, **{**base, **changes})


def experiment(config, path, profile=False, **flags):
    data = load(config.dataset, None, False, config.train_images)
    run = open_run(
        path,
        "train cifar",
        dataclasses.asdict(config),
        extendable=("seeds", "members", "ladder", "methods"),
        data=data.facts(),
        **flags,
    )
    results = run_training(config, data, run, SERIAL, profile=profile)
    run.finish(results)
    return results


def loss_of(config, method, teachers):
    """The loss of a student of a run with this configuration."""
    return student_loss(method, teachers, config.temperature, config.kd_weight, config.step_size)


def job(run, data, **changes):
    """What a network is trained with where no run is: no crop, and no score that anything asks for."""
    return SeedRun(dataclasses.replace(PRESETS["smoke"], **{"crop": 0, **changes}), data, 0, run, QUIET)


def weights(path):
    return {file.name: file.read_bytes() for file in (path / "checkpoints").glob("*.safetensors")}


def rows(results):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in results["rows"]]


def arrays(path):
    """Every checkpoint's arrays, bytes for bytes (the headers hold seconds, which differ)."""
    return {
        f"{file.stem}/{key}": value.tobytes()
        for file in sorted((path / "checkpoints").glob("*.safetensors"))
        for key, value in load_file(file).items()
    }


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code catches it."""


def kill(config, path, moment):
    """`experiment`, killed inside optimiser step `moment` of all its networks' (from 0)."""
    steps, step = iter(range(1000)), torch.optim.SGD.step

    def interrupted(self, *args, **kwargs):
        if next(steps) == moment:
            raise Killed
        return step(self, *args, **kwargs)

    with mock.patch.object(torch.optim.SGD, "step", interrupted), pytest.raises(Killed):
        experiment(config, path)
