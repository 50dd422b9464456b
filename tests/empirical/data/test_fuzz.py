"""Whatever is done to the bytes of a file, its reader returns what it promises or says in one line why not."""

import hashlib
import io
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numbers
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import get_model

from divkd.empirical.data.archives import unpack
from divkd.empirical.data.images import read_npz
from divkd.empirical.data.inputs import read_inputs
from divkd.empirical.networks.backbones import start_from
from divkd.empirical.networks.build import build
from divkd.shared.errors import InputError
from divkd.shared.metrics.predictions import load

# Bytes that are changed, by their place as a share of the file; what is cut off its end; what is put behind it.
DAMAGE = st.tuples(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    st.floats(0, 1),
    st.binary(max_size=20),
)
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def damaged(content, damage):
    edits, kept, more = damage
    content = bytearray(content)
    for place, value in edits:
        content[int(place * len(content))] = value
    return bytes(content[: max(1, int((0.5 + kept) * len(content)))]) + more


def one_line(call):
    """What the call returns, or None where it refuses its file."""
    try:
        return call()
    except InputError as error:
        words = str(error)
    assert "\n" not in words
    return None


@pytest.mark.parametrize("kind", FORMATS)
def test_images(tmp_path, kind):
    image, whole = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = 6  # turned
    image.save(whole, kind, **({"exif": exif.tobytes()} if kind in ("PNG", "JPEG", "WEBP") else {}))
    file = tmp_path / f"x.{'ppm' if kind == 'PPM' else kind.lower()}"

    @FUZZ
    @given(DAMAGE)
    def of_any_bytes(damage):
        file.write_bytes(damaged(whole.getvalue(), damage))
        made = one_line(lambda: read_inputs([file], (3, 8, 8), 8, True))
        assert made is None or (made[1].shape, made[1].dtype) == ((1, 3, 8, 8), np.uint8)

    of_any_bytes()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_images_and_of_predictions(tmp_path, save):
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (12, 4, 4, 3), np.uint8), np.arange(12) % 3
    save(tmp_path / "images.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    save(tmp_path / "answers.npz", logits=draw.normal(size=(2, 12, 3)), labels=labels)
    contents = {name: (tmp_path / name).read_bytes() for name in ("images.npz", "answers.npz")}

    @FUZZ
    @given(DAMAGE, st.sampled_from(list(contents)))
    def of_any_bytes(damage, name):
        file = tmp_path / "x.npz"
        file.write_bytes(damaged(contents[name], damage))
        one_line(lambda: read_npz(file) if name == "images.npz" else load(file))

    of_any_bytes()


@FUZZ
@given(
    numbers.arrays(
        st.one_of(numbers.scalar_dtypes(), numbers.unicode_string_dtypes()), numbers.array_shapes(min_dims=0)
    ),
    numbers.arrays(st.one_of(numbers.integer_dtypes(), numbers.floating_dtypes()), numbers.array_shapes(min_dims=0)),
)
def test_arrays_of_any_kind(tmp_path_factory, images, labels):
    file = tmp_path_factory.mktemp("any") / "x.npz"
    np.savez(file, x_train=images, y_train=labels, x_test=images, y_test=labels, logits=images, labels=labels)
    one_line(lambda: read_npz(file))
    one_line(lambda: load(file))


@pytest.mark.parametrize("ending", [".tar.gz", ".zip"])
def test_archives(tmp_path, ending):
    (tmp_path / "in/data").mkdir(parents=True)
    (tmp_path / "in/data/x").write_bytes(bytes(range(200)))
    archive = tmp_path / f"data{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.write(tmp_path / "in/data/x", "data/x")
    else:
        with tarfile.open(archive, "w:gz") as packed:
            packed.add(tmp_path / "in/data", "data")
    whole = archive.read_bytes()

    @FUZZ
    @given(DAMAGE)
    def of_any_bytes(damage):
        content = damaged(whole, damage)
        archive.write_bytes(content)
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        one_line(lambda: unpack(archive, tmp_path / "data", hashlib.md5(content).hexdigest()))
        assert sorted(path.name for path in tmp_path.iterdir() if path.name != "data") == sorted(["in", archive.name])

    of_any_bytes()


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights(tmp_path, ending):
    torch.manual_seed(0)
    net = get_model("squeezenet1_1", weights=None, num_classes=2)
    state = {name: value[:1] for name, value in net.state_dict().items()}  # not of its shape: never put into it
    file = tmp_path / f"x.{ending}"
    (save_file if ending == "safetensors" else torch.save)(state, file)
    whole, into = (
        file.read_bytes(),
        build("torchvision:squeezenet1_1", 2, (0.5,) * 3, (0.5,) * 3, np.random.default_rng(0)),
    )
    before = {name: value.clone() for name, value in into.state_dict().items()}

    @FUZZ
    @given(DAMAGE)
    def of_any_bytes(damage):
        file.write_bytes(damaged(whole, damage))
        with pytest.raises(InputError):
            start_from(into, file)

    of_any_bytes()
    assert all(torch.equal(value, before[name]) for name, value in into.state_dict().items())


def test_an_array_of_no_axes_is_refused(tmp_path):
    """As hypothesis found it among 1,500 arrays."""
    np.savez(tmp_path / "x.npz", logits=0.5, labels=[0])
    with pytest.raises(InputError, match=r"logits has shape \(\); \(members, samples, classes\)"):
        load(tmp_path / "x.npz")
