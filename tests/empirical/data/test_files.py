"""Files mean what a viewer shows, or are refused by name; and one walk finds them."""

import re
import struct
import zlib
from collections import Counter

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms, features

from divkd.empirical.data.codecs import dropped
from divkd.empirical.data.files import ENDINGS, passed_over, read_image, walk
from divkd.shared.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def shown(file):
    return read_image(file, None).transpose(1, 2, 0)


def need(ending):
    """Skip where Pillow was built without the codec."""
    codec = {".avif": "avif"}.get(ending, "jpg_2000" if ending.startswith(".j2") or ending in JPEG_2000 else None)
    if codec and not features.check(codec):
        pytest.skip(f"this Pillow has no {codec}")


JPEG_2000 = (".jp2", ".jpc", ".jpf", ".jpx")


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(file, depth, colour, row, *chunks):
    """A PNG of one row, byte by byte: what Pillow does not write."""
    per_pixel = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * depth
    header = struct.pack(">IIBBBBB", len(row) * 8 // per_pixel, 1, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return file


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_an_image_is_turned_as_its_tag_says(tmp_path, ending, tag):
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
             7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = tag
    stored = PICTURE.transpose(Image.Transpose[turns[tag]]) if tag > 1 else PICTURE
    stored.save(tmp_path / f"a.{ending}", exif=exif, **({"lossless": True} if ending == "webp" else {}))
    assert np.array_equal(shown(tmp_path / f"a.{ending}"), PIXELS)


@pytest.mark.parametrize(
    "ending", [e for e in ENDINGS if e not in (".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".pgm", ".pbm", ".avif")]
)
def test_every_ending_is_read(tmp_path, ending):
    need(ending)
    PICTURE.save(tmp_path / f"a{ending}", **({"lossless": True} if ending == ".webp" else {}))
    assert np.array_equal(shown(tmp_path / f"a{ending}"), PIXELS)


def test_endings_of_jpeg_and_one_frame_of_gif(tmp_path):
    for ending in (".jpg", ".jpeg", ".jpe", ".jfif"):
        PICTURE.save(tmp_path / f"a{ending}")
        with Image.open(tmp_path / f"a{ending}") as image:
            assert np.array_equal(shown(tmp_path / f"a{ending}"), np.asarray(image))
    few = PICTURE.quantize(16)
    few.save(tmp_path / "a.gif")
    assert np.array_equal(shown(tmp_path / "a.gif"), np.asarray(few.convert("RGB")))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda f: png(f, 1, 0, b"\x50"), [0, 255, 0, 255, 0, 0, 0, 0]),
        (lambda f: png(f, 2, 0, b"\x1b"), [0, 85, 170, 255]),
        (lambda f: png(f, 8, 0, b"\x00\x55\xaa", chunk(b"tRNS", b"\0\x55")), [0, 255, 170]),
        (lambda f: png(f, 1, 0, b"\x50", chunk(b"tRNS", b"\0\0")), [255] * 8),
        (lambda f: png(f, 8, 4, b"\x64\xff\x64\x00\x64\x80"), [100, 255, 177]),
        (lambda f: png(f, 8, 6, b"\1\2\3\0\1\1\1\xff"), [255, 1]),
        (lambda f: png(f, 8, 2, b"\1\2\3\4\4\4", chunk(b"tRNS", b"\0\1\0\2\0\3")), [255, 4]),
        (lambda f: png(f, 8, 3, b"\0\1", chunk(b"PLTE", b"\x09\x09\x09\7\7\7"), chunk(b"tRNS", b"\0")), [255, 7]),
        (lambda f: f.write_bytes(b"P5 2 1 100\n\x64\x32"), [255, 128]),
    ],
)  # fmt: skip
def test_grey_and_transparent_images_are_those_on_white(tmp_path, make, expected):
    make(tmp_path / "a.png")
    assert shown(tmp_path / "a.png")[0, :, 0].tolist() == expected
    assert np.ptp(shown(tmp_path / "a.png"), axis=2).max() <= 1


def save(file, mode="RGB", **options):
    PICTURE.convert(mode).save(file, **options)


FRAMES = {"save_all": True, "append_images": [PICTURE.rotate(180)]}
GAMMA = chunk(b"gAMA", struct.pack(">I", 100_000))
REFUSED = [
    ("a.gif", lambda f: save(f, **FRAMES), "has 2 frames; save the one"),
    ("a.png", lambda f: save(f, **FRAMES), "has 2 frames"),
    ("a.webp", lambda f: save(f, **FRAMES), "has 2 frames"),
    ("a.tif", lambda f: save(f, **FRAMES), "has 2 frames"),
    ("a.png", lambda f: png(f, 16, 0, b"\x9c\x40"), r"more than 8 bits a channel \(mode I;16\); save it with 8"),
    ("a.png", lambda f: png(f, 16, 2, b"\x9c\x40" * 3), r"more than 8 bits a channel \(mode RGB\)"),
    ("a.png", lambda f: png(f, 16, 4, b"\x9c\x40" * 2), "more than 8 bits"),
    ("a.png", lambda f: png(f, 16, 6, b"\x9c\x40" * 4), "more than 8 bits"),
    ("a.ppm", lambda f: f.write_bytes(b"P6 1 1 65535\n" + b"\x9c\x40" * 3), "more than 8 bits"),
    ("a.tif", lambda f: save(f, "F"), "more than 8 bits"),
    ("a.tif", lambda f: save(f, "I"), "more than 8 bits"),
    ("a.tif", lambda f: save(f, "LAB"), "has LAB colours; save it as RGB"),
    ("a.png", lambda f: png(f, 8, 2, b"\1\2\3", GAMMA), "pixels of gamma 1; save it as sRGB"),
    ("a.png", lambda f: png(f, 2, 0, b"\x1b", chunk(b"tRNS", b"\0\1")), "transparent grey of fewer than 8 bits"),
    ("a.png", lambda f: save(f, icc_profile=b"none"), "a colour profile that cannot be read"),
    ("a.jpg", lambda f: save(f, "CMYK", icc_profile=profile()), "a colour profile for RGB and CMYK pixels"),
    ("a.png", lambda f: f.write_text("no image"), "cannot be read as an image"),
    ("a.png", lambda f: f.symlink_to(f.with_name("gone")), "cannot be read as an image"),
    ("a.png", lambda f: save(f, format="EPS"), "cannot be read as an image"),
]  # fmt: skip


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("ending", [".avif", ".jp2", ".j2k"])
def test_avif_and_jpeg_2000_are_what_pillow_decodes(tmp_path, ending, mode):
    need(ending)
    file, picture = tmp_path / f"a{ending}", PICTURE.convert(mode)
    if mode == "RGBA":
        picture.putalpha(PICTURE.getchannel("R"))
    picture.save(file, **({"quality": 100, "subsampling": "4:4:4"} if ending == ".avif" else {}))
    with Image.open(file) as image:
        decoded = image.convert("RGBA")
    wanted = Image.alpha_composite(Image.new("RGBA", decoded.size, "white"), decoded).convert("RGB")
    assert np.abs(shown(file).astype(int) - np.asarray(wanted)).max() <= 1
    assert ending == ".avif" or mode == "RGBA" or np.array_equal(shown(file), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize(
    ("ending", "old", "new", "words"),
    [
        (".avif", rb"(av1C..).", b"\x40", "more than 8 bits"),
        (".avif", rb"(colrnclx\0)\x01", b"\x09", "another space than sRGB"),  # BT.2020
        (".avif", rb"(colrnclx\0\x01\0)\r", b"\x10", "another space than sRGB"),  # PQ
        (".avif", rb"()pixi", b"clap", "cropped by its own header"),
        (".jp2", rb"(colr\x01..\0\0\0)\x10", b"\x12", "another space than sRGB"),  # sYCC
        (".jp2", rb"(colr)\x01", b"\x02", "another space than sRGB"),  # a profile, which Pillow does not read
        (".jp2", rb"(\xff\x4f\xff\x51.{38})\x07", b"\x0b", "more than 8 bits"),
        (".j2k", rb"(\xff\x4f\xff\x51.{38})\x07", b"\x03", "fewer than 8 bits"),
        (".j2k", rb"(\xff\x4f\xff\x51.{39})\x01", b"\x02", "scaled"),
    ],
)
def test_what_pillow_would_drop_without_a_word_is_refused(tmp_path, ending, old, new, words):
    need(ending)
    file = tmp_path / f"a{ending}"
    PICTURE.save(file)
    content, count = re.subn(old, lambda found: found[1] + new, file.read_bytes(), count=1, flags=re.DOTALL)
    assert count == 1
    file.write_bytes(content)
    assert words in dropped("AVIF" if ending == ".avif" else "JPEG2000", file)
    with pytest.raises(InputError, match=rf"a\.\w+ .*({words}|cannot be read|more than 8 bits)"):
        read_image(file, None)


def profile(gamma=None):
    """The bytes of sRGB's profile, with `gamma` in the place of its curve."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if gamma is None:
        return content
    curve = struct.pack(">4sIIH", b"curv", 0, 1, round(gamma * 256))
    for i in range(struct.unpack(">I", content[128:132])[0]):
        name, start, _ = struct.unpack(">4sII", content[132 + 12 * i : 144 + 12 * i])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            content = content[:start] + curve + content[start + len(curve) :]
    return content


@pytest.mark.parametrize(("name", "make", "words"), REFUSED)
def test_what_cannot_be_read_faithfully_is_refused_by_name(tmp_path, name, make, words):
    make(tmp_path / name)
    with pytest.raises(InputError, match=rf"a\.\w+ .*{words}"):
        read_image(tmp_path / name, None)


@pytest.mark.parametrize("ending", [e for e in ENDINGS if e not in (".pgm", ".pbm")])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(tmp_path, ending, share):
    need(ending)
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    file = tmp_path / f"a{ending}"
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_image(file, None)


def test_colours_are_converted_to_srgb(tmp_path):
    """A profile of gamma g shows the level 255 x as 255 f(x^g), f being sRGB's own curve; sRGB stays as it is."""
    PICTURE.save(tmp_path / "same.png", icc_profile=profile())
    assert np.array_equal(shown(tmp_path / "same.png"), PIXELS)
    for mode in ("RGB", "RGBA", "P", "L"):
        PICTURE.convert("L").convert(mode).save(tmp_path / "linear.png", icc_profile=profile(1.0))
        x = np.asarray(PICTURE.convert("L")) / 255
        wanted = 255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
        assert np.abs(shown(tmp_path / "linear.png") - wanted[..., None]).max() <= 2


def test_cmyk_and_ycbcr_are_shown_as_browsers_do(tmp_path):
    cmyk = PICTURE.convert("CMYK")
    cmyk.save(tmp_path / "a.tif")
    c, _, _, k = (np.asarray(band).astype(float) for band in cmyk.split())
    assert np.abs(shown(tmp_path / "a.tif")[..., 0] - (255 - c) * (255 - k) / 255).max() <= 1
    PICTURE.convert("YCbCr").save(tmp_path / "b.tif")
    if int(PIL.__version__.split(".")[0]) < 13:  # which calls its own file truncated
        with pytest.raises(InputError, match="cannot be read as an image"):
            shown(tmp_path / "b.tif")
        return
    assert np.abs(shown(tmp_path / "b.tif").astype(int) - PIXELS).max() <= 3


def test_the_first_of_a_cameras_views_is_shown(tmp_path):
    PICTURE.save(tmp_path / "a.jpg")
    PICTURE.save(tmp_path / "b.mpo", **FRAMES)
    (tmp_path / "b.mpo").rename(tmp_path / "b.jpg")
    assert np.array_equal(shown(tmp_path / "b.jpg"), shown(tmp_path / "a.jpg"))


def test_one_walk_passes_over_what_viewers_do_and_follows_links_once(tmp_path):
    for name in ("b.PNG", "a.jfif", "deep/er/c.gif", "._b.png", ".ipynb_checkpoints/b.png", "__MACOSX/b.png",
                 "Thumbs.db", "notes.txt", "phone.heic", "README"):  # fmt: skip
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(b"")
    (tmp_path / "store").mkdir()
    (tmp_path / "store/d.png").write_bytes(b"")
    (tmp_path / "root/again").symlink_to(tmp_path / "root/deep")  # what is there itself goes by its own name
    (tmp_path / "root/link").symlink_to(tmp_path / "store")
    (tmp_path / "root/other").symlink_to(tmp_path / "store")
    (tmp_path / "store/circle").symlink_to(tmp_path / "root")
    passed = Counter()
    found = walk(tmp_path / "root", passed)
    assert [str(file.relative_to(tmp_path / "root")) for file in found] == [
        "a.jfif", "b.PNG", "deep/er/c.gif", "link/d.png",
    ]  # fmt: skip
    assert passed_over(passed) == "passed over: 4 hidden, 3 without an image's ending (.heic, .txt, no ending)"
    assert passed_over(Counter()) == ""
    (tmp_path / "none").mkdir()
    (tmp_path / "none/a.heic").write_bytes(b"")
    with pytest.raises(InputError, match=r"none holds no image \(passed over: 1 .*\.heic\)\); allowed: \.png"):
        walk(tmp_path / "none", Counter())
