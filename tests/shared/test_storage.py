"""Bytes that have no room in memory lie in a file, and are the same bytes."""

import os
import subprocess
import sys

import numpy as np
import pytest

from divkd.shared import storage
from divkd.shared.errors import RunError
from divkd.shared.metrics import predictions
from divkd.shared.metrics.predictions import read_arrays


@pytest.fixture
def little(monkeypatch, tmp_path):
    """Hardly anything stays in memory."""
    monkeypatch.setattr(storage, "RESIDENT", 10)
    monkeypatch.setattr(predictions, "RESIDENT", 10)
    monkeypatch.setattr(storage.tempfile, "tempdir", str(tmp_path))


def test_a_large_array_is_a_file_that_others_map(little, tmp_path):
    assert type(storage.room((2, 5))) is np.ndarray
    array = storage.room((4, 3, 2))
    assert isinstance(array, np.memmap)
    array[:] = np.arange(24).reshape(4, 3, 2)
    np.testing.assert_array_equal(storage.mapped(storage.placed(array)), array)
    place = storage.placed(array[1:3])
    assert (place.offset, place.shape) == (6, (2, 3, 2))
    np.testing.assert_array_equal(storage.mapped(place), array[1:3])
    for other in (np.arange(8, dtype=np.uint8), array[:, :1]):  # in memory; a stretch with gaps
        np.testing.assert_array_equal(storage.mapped(storage.placed(other)), other)


def test_what_a_killed_process_leaves_is_deleted_by_the_next_and_what_a_living_one_holds_is_not(little, tmp_path):
    code = "from divkd.shared import storage; storage.room((9,), 0); print(flush=True); input()"
    begin = [sys.executable, "-c", code]
    given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": {**os.environ, "TMPDIR": str(tmp_path)}}
    with subprocess.Popen(begin, **given) as killed:
        killed.stdout.readline()
        (left,) = tmp_path.iterdir()
        killed.kill()
    with subprocess.Popen(begin, **given) as living:
        living.stdout.readline()
        (held,) = tmp_path.iterdir()
        assert held != left
        storage.room((1000,))
        assert held.exists()
        living.communicate(b"\n")
    assert not held.exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_large_array_of_an_npz_is_read_in_pieces(little, tmp_path, save):
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3)).astype(np.uint8)
    save(tmp_path / "a.npz", images=images, labels=np.arange(50), turned=np.asfortranarray(images))
    arrays = read_arrays(tmp_path / "a.npz", ("images", "labels", "turned"))
    assert [isinstance(arrays[name], np.memmap) for name in ("images", "labels", "turned")] == [True, False, False]
    np.testing.assert_array_equal(arrays["images"], images)
    np.testing.assert_array_equal(arrays["turned"], images)


def test_a_full_disk_is_said_in_one_line(little, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "posix_fallocate", full)
    with pytest.raises(RunError, match=r"has no room for .* GB of images .*; set TMPDIR to another"):
        storage.room((1000,))
    assert not list(tmp_path.iterdir())


FLAT = """
import resource, sys
from pathlib import Path
from divkd.empirical.data.images import read_npz
from divkd.empirical.data.splits import Augmentation, batches, check
from divkd.shared import storage
from divkd.shared.metrics import predictions
storage.RESIDENT = predictions.RESIDENT = 1_000_000
held = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + 60_000_000, -1))  # half of the images
data = read_npz(Path(sys.argv[1]))
check(data)
count = sum(len(labels) for _, labels in batches(data.train, Augmentation(0, True), 64, 0, "teacher", 0, 1))
print(count, data.facts()["sha256"][:8])
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    images = np.zeros((100_000, 32, 32, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(100_000) % 251
    labels = np.arange(100_000) % 2
    parts = {"x_train": images, "y_train": labels, "x_test": images[:50], "y_test": labels[:50]}
    np.savez_compressed(tmp_path / "many.npz", **parts)
    code = [sys.executable, "-c", FLAT, str(tmp_path / "many.npz")]
    done = subprocess.run(code, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.stdout.startswith("90000 "), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["many.npz"]  # the mapped files are gone
