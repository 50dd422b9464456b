"""A process that distils and trains again and again holds no more after the last time than after the first ones."""

import gc
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import experiment, tiny

from divkd import distill, evaluate, export, predict, to_batch_ensemble

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
    torch.manual_seed(number)

    def net():
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(288, 10),
        )

    x, y = torch.rand(64, 1, 8, 8), torch.arange(64) % 10
    student = to_batch_ensemble(net(), 2)
    distill([net().eval(), net().eval()], student, [(x, y)] * 2, 2, "ods")
    evaluate(np.log(predict(student, x).probabilities)[None], y)
    export(student, folder / "net.pt2", shape=(1, 8, 8))
    (folder / "net.pt2").unlink()
    experiment(tiny(train_images=64, methods=("ods",), students=("single",)), folder / "run")
    shutil.rmtree(folder / "run")


@pytest.mark.parametrize("times", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_nothing_is_left_behind(tmp_path, times, coarse_figures):
    warm = max(3, times // 10)
    for number in range(warm):
        once(number, tmp_path)
    first, memory, counts = held(), resident(), []
    for number in range(times):
        once(warm + number, tmp_path)
        counts.append(held())
    tensors = np.array([count[0] for count in counts])
    assert np.polyfit(np.arange(times), tensors, 1)[0] == pytest.approx(0, abs=1)
    assert counts[-1] == first
    assert resident() - memory < 20 * MB
