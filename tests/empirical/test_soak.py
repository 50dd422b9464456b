"""A process that distils and trains again and again holds no more after the last time than after the first ones."""

import dataclasses
import gc
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_runs import experiment, tiny

from divkd import distill, evaluate, export, predict, to_batch_ensemble
from divkd.empirical.training.config import PRESETS

MB = 2**20


def held():
    """Bytes of all tensors that anything refers to, open files, and child processes."""
    gc.collect()
    storages = {
        one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
        for one in gc.get_objects()
        if type(one) in (torch.Tensor, torch.nn.Parameter)  # no stand-ins of an export
    }
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return sum(storages.values()), len(os.listdir("/proc/self/fd")), len(children)


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def once(number, folder):
    """Distil and train, as small as both go: what a call leaves behind does not depend on sizes."""
    torch.manual_seed(number)

    def net():
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))

    x, y = torch.rand(16, 1, 6, 6), torch.arange(16) % 4
    student = to_batch_ensemble(net(), 2)
    distill([net().eval(), net().eval()], student, [(x, y)] * 2, 2, "ods")
    evaluate(np.log(predict(student, x).probabilities)[None], y)
    if number % 20 == 0:  # takes ten times as long as the rest
        export(student, folder / "net.pt2", shape=(1, 6, 6))
        (folder / "net.pt2").unlink()
    short = dataclasses.replace(PRESETS["smoke"].teacher, epochs=1)
    small = {"train_images": 20, "teacher": short, "student": short, "methods": ("ods",), "students": ("single",)}
    experiment(tiny(**small), folder / "run")
    shutil.rmtree(folder / "run")


@pytest.mark.parametrize("times", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_nothing_is_left_behind(tmp_path, times):
    warm = max(3, times // 10)
    for number in range(warm):
        once(number, tmp_path)
    first, memory, counts, sizes = held(), resident(), [], []
    for number in range(times):
        once(warm + number, tmp_path)
        counts.append(held())
        sizes.append(resident())
    tensors = np.array([count[0] for count in counts])
    slope, grown = np.polyfit(np.arange(times), tensors, 1)[0], sizes[-1] - memory
    rate = np.polyfit(np.arange(times), sizes, 1)[0]
    print(
        f"{times} times: {slope:.3g} bytes of tensors, {rate / 1000:.2f} kB of memory a time; {grown / MB:.1f} MB more"
    )
    assert slope == pytest.approx(0, abs=1)
    assert counts[-1] == first
    assert grown < 20 * MB
