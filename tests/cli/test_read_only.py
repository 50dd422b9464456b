"""What may not be read or written, to a user who is not root: one line, the exit code that it has, nothing lost."""

import os
import shutil
import tempfile
import traceback
from pathlib import Path

import numpy as np
import pytest
from kills import SERVER, TRAIN
from PIL import Image

from divkd.cli.main import run

NOBODY = 65534
PLANE = "simulate plane --seeds 0 --members 2 --epochs 1 --points 20 --width 4"
# What is closed and how, the command, its exit code, and what its line says.
DENIED, WRITABLE = "Permission denied", "give a folder that you can write to"
CASES = [
    ("run", 0o500, f"{TRAIN} --resume --out run", 1, DENIED),
    ("run", 0o500, f"{TRAIN} --overwrite --out run", 1, DENIED),
    ("run", 0o500, f"{PLANE} --out run/new", 2, WRITABLE),
    ("run", 0o500, "analyse run --images 20 --device cpu --out run/new", 2, WRITABLE),
    ("run", 0o500, "evaluate answers.npz --out run/new", 2, WRITABLE),
    ("run", 0o500, f"sweep --vary noise=0.1,0.2 --out run/new -- {PLANE}", 2, WRITABLE),
    ("run", 0o500, "report run --out run/page.html", 2, ""),
    ("run", 0o500, "figures run --out run/drawn", 2, ""),
    ("run", 0o500, "export run --out run/new.pt2", 2, ""),
    ("run", 0o500, "predict run images.npz --out run/new.csv", 2, ""),
    ("run/figures", 0o500, "figures run --out run/figures/new", 2, ""),
    ("run", 0o500, "predict run images.npz", 0, ""),
    ("run", 0o500, "report run --out page.html --overwrite", 0, ""),
    ("run", 0o500, "figures run --out drawn", 0, ""),
    ("run", 0o500, "analyse run --images 20 --device cpu --out analysed --overwrite", 0, ""),
    ("run", 0o000, "predict run images.npz", 2, DENIED),
    ("run", 0o000, "analyse run --out new", 2, DENIED),
    ("run", 0o000, "report run --out page.html --overwrite", 2, DENIED),
    ("run", 0o000, "figures run --out drawn", 2, DENIED),
    ("run", 0o000, f"{TRAIN} --resume --out run", 2, ""),
    ("run", 0o000, f"{TRAIN} --teachers run --out new", 2, DENIED),
    ("run/config.json", 0o000, "predict run images.npz", 2, DENIED),
    ("run/config.json", 0o000, "report run --out page.html --overwrite", 2, DENIED),
    ("run/results.json", 0o000, "report run --out page.html --overwrite", 2, DENIED),
    ("run/results.json", 0o000, "predict run images.npz --calibrated", 2, DENIED),
    ("run/checkpoints", 0o000, "predict run images.npz", 2, DENIED),
    ("run/checkpoints", 0o000, "export run --out new.pt2 --overwrite", 2, DENIED),
    ("run/checkpoints/seed0-single-kd-from2.safetensors", 0o000, "predict run images.npz", 2, DENIED),
    ("run/checkpoints/seed0-teacher0.safetensors", 0o000, f"{TRAIN} --teachers run --out new", 2, DENIED),
    ("run/manifest.jsonl", 0o400, f"{TRAIN} --seeds 0,1 --resume --out run", 1, DENIED),
    ("run/log.jsonl", 0o400, f"{TRAIN} --resume --out run", 1, DENIED),
    ("run/.lock", 0o400, f"{TRAIN} --resume --out run", 2, WRITABLE),
    ("run/jobs", 0o500, f"{TRAIN} --seeds 0,1 --resume --out run", 1, DENIED),
    ("run/checkpoints", 0o500, f"{TRAIN} --seeds 0,1 --resume --out run", 1, DENIED),
    ("run/figures", 0o500, f"{TRAIN} --resume --out run", 1, DENIED),
    ("run/checkpoints", 0o500, f"{TRAIN} --overwrite --out run", 1, DENIED),
    ("images.npz", 0o000, "predict run images.npz", 2, DENIED),
    ("images.npz", 0o000, "train images.npz --device cpu --preset smoke --out new", 2, DENIED),
    ("answers.npz", 0o000, "evaluate answers.npz --out new", 2, DENIED),
    ("photos", 0o000, "train photos --split 0.2 --device cpu --preset smoke --image-size 8 --out new", 2, DENIED),
    ("photos/a", 0o000, "train photos --split 0.2 --device cpu --preset smoke --image-size 8 --out new", 2, DENIED),
    (
        "photos/a/0.png",
        0o000,
        "train photos --split 0.2 --device cpu --preset smoke --image-size 8 --out new",
        2,
        DENIED,
    ),
    ("photos/a/0.png", 0o000, "predict run photos/a/0.png --strict", 2, DENIED),
    ("data", 0o000, "train cifar10 --data-dir data --out new", 2, ""),
    ("data", 0o500, "train cifar10 --data-dir data --out new", 2, ""),
    (".", 0o500, f"{PLANE}", 2, WRITABLE),
]


def laid(folder):
    """Move to a new `folder` that holds a run, "kept", and images and answers to read."""
    folder.mkdir()
    os.chdir(folder)
    assert run(f"{TRAIN} --out kept".split()) == 0
    generator = np.random.default_rng(0)
    np.savez("images.npz", images=generator.integers(0, 256, (40, 8, 8, 1), np.uint8))
    np.savez("answers.npz", logits=generator.normal(size=(2, 40, 4)), labels=np.arange(40) % 4)
    for number in range(20):
        place = folder / "photos" / "ab"[number % 2] / f"{number // 2}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8)).save(place)
    (folder / "data").mkdir()


def held(folder):
    return {
        str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "said"
    }


def tried(line):
    """The exit code of the command and what it said; its traceback where it has one."""
    said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    os.close(said)
    try:
        code = run(line.split())
    except BaseException:
        code = traceback.format_exc()
    return code, Path("said").read_text()


def unprivileged(place, cases, answer):
    """Every command as it is, which imports what it needs; then, as nobody, every case."""
    laid(place / "open")
    shutil.copytree("kept", "run")
    for line in dict.fromkeys(line for _, _, line, _, _ in cases):
        tried(line)
    if os.geteuid() == 0:
        os.chown(place, NOBODY, NOBODY)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    laid(place / "closed")
    found = []
    for closed, mode, line, *_ in cases:
        shutil.copytree("kept", "run")
        before, one = held(Path.cwd()), Path(closed)
        was = one.stat().st_mode
        one.chmod(mode)
        code, said = tried(line)
        one.chmod(was)
        untouched, lost = held(Path.cwd()) == before, sorted(before.keys() - held(Path.cwd()).keys())
        again = tried(f"{TRAIN} --seeds 0,1 --resume --out run") if code == 1 else (0, "")
        for new in ("run", "new", "runs", "drawn", "analysed"):
            shutil.rmtree(new, ignore_errors=True)
        found.append((code, said, untouched, lost, *again))
    answer.put(found)


@pytest.mark.slow
@pytest.mark.parametrize("every", [6, 1], ids=["some", "all"])
def test_who_may_not_read_or_write_is_told_so_in_one_line(every):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        answer = SERVER.Queue()
        process = SERVER.Process(target=unprivileged, args=(Path(folder), CASES[::every], answer))
        process.start()
        found = answer.get(timeout=500)
        process.join()
    wrong = []
    for case, (code, said, untouched, lost, again, then) in zip(CASES[::every], found, strict=True):
        expected, words = case[3:]
        lines = said.splitlines()
        last = lines[-1].replace("is not readable", DENIED)  # as click says it
        told = code == 0 or (last.startswith("Error: ") and words in last and "Traceback" not in said)
        if code != expected or not told or (code == 2 and not untouched) or again != 0:
            wrong.append((case, code, said, untouched, lost, again, then))
    assert wrong == []
