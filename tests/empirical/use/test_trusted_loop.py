"""A training loop that people trust: it goes on to the same bits, measures, clips, and says what is wrong before."""

import copy
import random

import numpy as np
import pytest
import torch
from handed_over import X, Y, normed, plain, refusal
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from divkd import RunError, distill, evaluate, to_batch_ensemble

WIDE = X.repeat(3, 1, 1, 1), Y.repeat(3)


class Killed(Exception):
    pass


def at(epoch):
    def kill(record):
        if record["epoch"] == epoch:
            raise Killed

    return kill


def dropping(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 5))


def loader(own):
    return DataLoader(
        TensorDataset(*WIDE), 8, shuffle=True, generator=torch.Generator().manual_seed(5) if own else None
    )


@pytest.mark.parametrize("kind", ["own", "adamw", "sgd"])
@pytest.mark.parametrize("generator", [True, False])
def test_a_killed_distillation_goes_on_to_the_same_bits(tmp_path, kind, generator):
    """Dropout, the loader's order, an optimiser and a scheduler of one's own, validation."""

    def run(file, *functions, seed=1):
        torch.manual_seed(seed)
        student = to_batch_ensemble(dropping(), 2)
        options = {"optimiser": kind}
        if kind == "own":
            options["optimiser"] = torch.optim.RMSprop(student.parameters(), 1e-3, momentum=0.5)
            options["scheduler"] = torch.optim.lr_scheduler.StepLR(options["optimiser"], 2, 0.5)
        teachers = [plain(1), plain(2)]
        options |= {
            "each_epoch": functions or None,
            "validation": [(X, Y)],
            "checkpoint": file,
            "gradient_clip_val": 1.0,
        }
        return student, distill(teachers, student, loader(generator), 5, "confods", **options)

    whole, records = run(tmp_path / "whole.pt")
    with pytest.raises(Killed):
        run(tmp_path / "part.pt", at(3))
    np.random.seed(1)  # noqa: NPY002
    random.seed(3)
    seen = []
    student, again = run(tmp_path / "part.pt", seen.append, seed=77)
    assert [record["epoch"] for record in seen] == [3, 4, 5]
    for record in (*again, *records):
        record.pop("seconds")
    assert again == records
    for a, b in zip(whole.state_dict().values(), student.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    third, finished = run(tmp_path / "part.pt", seen.append)
    assert len(seen) == 3
    assert len(finished) == 5
    assert not third.training
    assert all(torch.equal(a, b) for a, b in zip(third.parameters(), student.parameters(), strict=True))


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    file = tmp_path / "student.pt"

    def call(student=None, teacher=1, **options):
        options = {"method": "kd", "checkpoint": file, **options}
        return refusal(lambda: distill([plain(teacher)], student or plain(), [(X, Y)], 2, **options))

    distill([plain(1)], plain(), [(X, Y)], 2, "kd", checkpoint=file)
    assert "its temperature differ, 4.0 there and 2.0 here" in call(temperature=2.0)
    assert "its teachers differ;" in call(teacher=2)
    assert "of another student (1.weight is torch.float32 (5, 192) there" in call(normed())
    assert "its optimiser differ" in call(optimiser="sgd")
    content = bytearray(file.read_bytes())
    content[-40] ^= 1
    for damaged in (bytes(content), b"", b"\x80\x04.", content[:300]):
        file.write_bytes(damaged)
        assert "delete it to begin anew" in call()
        assert file.read_bytes() == bytes(damaged)
    for bad in (3, "", tmp_path, tmp_path / "student.pt" / "x"):
        assert "give one such as student.pt" in call(checkpoint=bad)


def test_validation_measures_as_evaluate_does_and_changes_nothing():
    batches = [(X[:5], Y[:5]), (X[5:], torch.eye(5)[Y[5:]])]
    torch.manual_seed(0)
    judged = to_batch_ensemble(dropping(), 2)
    alone = copy.deepcopy(judged)
    torch.manual_seed(1)
    records = distill([plain(1), plain(2)], judged, loader(False), 2, validation=batches)
    torch.manual_seed(1)
    distill([plain(1), plain(2)], alone, loader(False), 2)
    assert all(torch.equal(a, b) for a, b in zip(judged.parameters(), alone.parameters(), strict=True))
    with torch.no_grad():
        row = evaluate(judged(X), Y)
    assert {key: records[-1][f"val_{key}"] for key in row} == pytest.approx(row, rel=1e-4)
    assert "labels go from 7 to 7" in refusal(
        lambda: distill([plain(1)], plain(), [(X, Y)], 1, validation=[(X, Y * 0 + 7)])
    )


def test_gradients_are_clipped_and_the_optimiser_comes_back_without_hooks():
    student = plain()
    before, own = copy.deepcopy(student), torch.optim.SGD(student.parameters(), 1.0)
    distill([plain(1)], student, [(X, Y)], 1, "kd", optimiser=own, gradient_clip_val=0.01)
    moved = sum(((a - b) ** 2).sum() for a, b in zip(student.parameters(), before.parameters(), strict=True)) ** 0.5
    assert moved.item() == pytest.approx(0.01, rel=1e-3)
    assert not own._optimizer_step_pre_hooks


def test_a_scheduler_of_ones_own_moves_the_rate_each_epoch_and_is_checked_before():
    student = plain()
    own = torch.optim.SGD(student.parameters(), 0.1)
    halves = torch.optim.lr_scheduler.ExponentialLR(own, 0.5)
    records = distill([plain(1)], student, [(X, Y)], 3, "kd", optimiser=own, scheduler=halves)
    assert [record["lr"] for record in records] == pytest.approx([0.1, 0.05, 0.025])
    other = torch.optim.SGD(student.parameters(), 0.1)
    before = copy.deepcopy(student.state_dict())
    one = torch.optim.lr_scheduler.OneCycleLR(other, 0.1, total_steps=3)
    rate = other.param_groups[0]["lr"]
    for options, words in (
        ({"optimiser": own, "scheduler": one}, "is not of the optimiser"),
        ({"scheduler": one}, "is not of the optimiser"),
        ({"optimiser": other, "scheduler": one}, "OneCycleLR does not take 5 steps"),
        ({"optimiser": other, "scheduler": 3}, "the scheduler is a int"),
        ({"optimiser": other, "lr": 0.1}, "your own has them already"),
    ):
        assert words in refusal(lambda options=options: distill([plain(1)], student, [(X, Y)], 5, "kd", **options))
    assert other.param_groups[0]["lr"] == rate
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(other, factor=0.5, patience=0)
    assert distill([plain(1)], student, [(X, Y)], 2, "kd", optimiser=other, scheduler=plateau)


def test_lower_precision_trains_and_progress_is_told(capsys):
    records = distill([plain(1)], plain(), [(X, Y)], 2, "kd", precision="bfloat16", progress=True)
    assert records[1]["loss"] < records[0]["loss"]
    assert "student: 2/2" in capsys.readouterr().err
    distill([plain(1)], plain(), [(X, Y)], 1, "kd")
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_compiled_code_trains_the_same_student():
    one, two = to_batch_ensemble(plain(), 2), to_batch_ensemble(plain(), 2)
    a = distill([plain(1), plain(2)], one, [(X, Y)] * 3, 2)
    b = distill([plain(1), plain(2)], two, [(X, Y)] * 3, 2, compile=True)
    assert a[-1]["loss"] == pytest.approx(b[-1]["loss"], rel=1e-4)


def test_a_failure_in_validation_is_told_with_its_epoch():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = plain(), 0

        def forward(self, x):
            self.calls += not self.training
            return self.net(x) * (float("nan") if self.calls > 4 and not self.training else 1)

    said = refusal(lambda: distill([plain(1)], Late(), [(X, Y)], 9, "kd", validation=[(X, Y)]), RunError)
    assert said.startswith("epoch ")
    assert "nan" in said
