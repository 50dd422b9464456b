"""Killed at any moment, terminated or interrupted, every command that makes a run goes on to the same bits."""

import shutil
import signal

import numpy as np
import pytest
from kills import TRAIN, children, finish, go, made, prepared, timed

WORLD = "--preset quick --classes 3 --patches 12 --expected-others 1 --train-samples 60 --test-samples 50"
PLANE = "simulate plane --seeds 0,1 --members 2 --epochs 2 --points 20 --width 4"
GAUSSIAN = "simulate gaussian --members 2 --seeds 0,1 --epochs 1 --train-samples 200 --test-samples 100 --width 8"
NTK = "simulate ntk --members 2 --seeds 0,1 --train-samples 60 --test-samples 50 --students 2"
EXPERIMENT = "digits --device cpu --train-images 40 --epochs 2 --members 2 --network resnet8w4"
# A command a line; `prepared` lays beside it what its words ask for.
COMMANDS = {
    "train": f"{TRAIN} --seeds 0,1",
    "multiview": f"simulate multiview {WORLD} --members 3 --students 2 --soft-steps 20",
    "plane": PLANE,
    "analyse": "analyse base --images 20 --device cpu",
    "evaluate": "evaluate answers.npz --bootstrap 200",
    "sweep": f"sweep --vary noise=0.1,0.2 -- {PLANE}",
}
# What goes on as `multiview`, `plane` or `train` does: looked at where there is time.
SLOW = {
    "window": f"simulate window {WORLD} --members 2 --students 1 --vary noise=1,1.1",
    "gaussian": GAUSSIAN,
    "ntk": NTK,
    "mysteries": f"experiment mysteries {EXPERIMENT}",
    "ensemble-over-kd": f"experiment ensemble-over-kd {EXPERIMENT} --students 2",
    "split-channels": f"experiment split-channels {EXPERIMENT} --cut b",
    "jacobian": f"experiment jacobian {EXPERIMENT} --sizes 1 --step gaussian --images 4",
    "feature-map": f"experiment feature-map {EXPERIMENT} --images 30",
}


@pytest.fixture(scope="module", params=[*COMMANDS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def undisturbed(request, tmp_path_factory):
    """A command, where it can be given, how long it takes, its writes, and what it makes."""
    folder = tmp_path_factory.mktemp(request.param)
    line = prepared({**COMMANDS, **SLOW}[request.param], folder)
    seconds, writes = timed(line, folder)
    shutil.move(folder / "run", folder / "whole")
    return line, folder, seconds, writes, made(folder / "whole")


def same(line, folder, expected):
    finish(line, folder)
    assert made(folder / "run") == expected
    shutil.rmtree(folder / "run")


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments(undisturbed, times):
    line, folder, seconds, _, expected = undisturbed
    generator, ends = np.random.default_rng(times), []
    for moment in generator.uniform(0, seconds, times):
        ends.append(go(line, folder, after=moment))
        if generator.random() < 0.5 and (folder / "run/config.json").exists():  # and once more, as it goes on
            go(resuming(line), folder, after=generator.uniform(0, seconds))
        same(line, folder, expected)
    assert ends.count(-signal.SIGKILL) >= 0.8 * (times - 1)  # others were done before


def resuming(line):
    return line.replace("--out run", "--out run --resume", 1)


# In the fast suite two commands are enough for what a write or another signal ends.
FEW = [pytest.param(name, marks=() if name in ("train", "plane") else pytest.mark.slow) for name in (*COMMANDS, *SLOW)]


@pytest.mark.parametrize("undisturbed", FEW, indirect=True)
@pytest.mark.parametrize("count", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_before_a_file_is_in_place(undisturbed, count):
    """The first, the last, and others between."""
    line, folder, _, writes, expected = undisturbed
    for number in np.unique(np.linspace(0, writes - 1, count).astype(int)):
        assert go(line, folder, die_before=number) == -signal.SIGKILL
        same(line, folder, expected)


@pytest.mark.parametrize("undisturbed", FEW, indirect=True)
@pytest.mark.parametrize(
    ("sign", "code", "how"),
    [(signal.SIGTERM, 143, "terminated"), pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow)],
)
def test_terminated_and_interrupted(undisturbed, sign, code, how):
    line, folder, seconds, _, expected = undisturbed
    (folder / "said").unlink(missing_ok=True)
    ended = go(line, folder, after=seconds * 0.6, sign=sign)
    said = (folder / "said").read_text()
    assert ended in (code, 0)
    assert "Traceback" not in said
    if ended == code:
        assert how in said.splitlines()[-1]
    same(line, folder, expected)


@pytest.mark.slow
@pytest.mark.parametrize("undisturbed", ["train", "multiview", "plane"], indirect=True)
def test_workers_and_their_parent_are_killed(undisturbed):
    """A worker that is killed is replaced; where the parent is, its workers end with it."""
    line, folder, seconds, _, expected = undisturbed
    line += " --jobs 2"
    generator = np.random.default_rng(0)

    def worker(parent):
        found = children(parent)
        return int(generator.choice(found)) if found else parent

    for moment in generator.uniform(0.3, 3 + 3 * seconds, 10):
        go(line, folder, after=moment, victim=worker)
        same(line, folder, expected)
        go(line, folder, after=moment)
        same(line, folder, expected)
