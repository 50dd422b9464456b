"""Which files of a folder are images, and how a file becomes the pixels that a viewer shows."""

import io
import re
import warnings
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from divkd.empirical.data.codecs import dropped
from divkd.shared.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# What Pillow reads and what then holds 8 bits a channel; the last two where it was built with their codecs.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "PPM", "TIFF", "WEBP", "TGA", "JPEG2000", "AVIF")
ENDINGS = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".dib"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".webp", ".tga"),
    *(".avif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
)
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr")
GREY = MODES[:4]
HIDDEN = ("__MACOSX", "Thumbs.db", "desktop.ini")  # and whatever begins with a dot
NONE = "no ending"
SRGB_GAMMA = 1 / 2.2


def hidden(path: Path) -> bool:
    """Whether programs leave such a file or folder behind, and viewers do not show it."""
    return path.name.startswith(".") or path.name in HIDDEN


def walk(folder: Path, passed: "Counter[str]") -> list[Path]:
    """The image files in and below `folder`, sorted; `passed` counts what is passed over: "hidden", or its ending.

    A linked folder is followed unless it was seen, so that no image comes twice and no circle is walked. A folder that
    cannot be read, or that holds no image, is an `InputError`.
    """
    files, seen, ahead, linked = [], set(), [folder], list[Path]()
    while ahead or linked:
        here = ahead.pop() if ahead else linked.pop(0)
        try:
            status, entries = here.stat(), list(here.iterdir())
        except OSError as error:
            raise InputError(f"{here} cannot be read ({error.strerror}); restore or remove it") from error
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if hidden(entry):
                passed["hidden"] += 1
            elif entry.is_dir():
                (linked if entry.is_symlink() else ahead).append(entry)
            elif entry.suffix.lower() in ENDINGS and (entry.is_file() or entry.is_symlink()):
                files.append(entry)
            else:
                passed[entry.suffix.lower() or NONE] += 1
    if not files:
        also = f" ({said})" if (said := passed_over(passed)) else ""
        raise InputError(f"{folder} holds no image{also}; allowed: {', '.join(ENDINGS)}")
    return sorted(files)


def passed_over(passed: "Counter[str]") -> str:
    """What `walk` passed over, in words; "" where that is nothing."""
    others = sorted(key for key in passed if key.startswith(".") or key == NONE)
    parts = [f"{passed[key]} {key}" for key in passed if key not in others]
    if others:
        named = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        parts.append(f"{sum(passed[key] for key in others)} without an image's ending ({named})")
    return f"passed over: {', '.join(parts)}" if parts else ""


def read_image(file: Path, size: int | None, mode: str = "RGB") -> np.ndarray:
    """The image in `file` as a viewer shows it on white, (3, H, W) uint8 sRGB; grey becomes RGB.

    It is turned as its EXIF tag says, its colour profile is converted to sRGB (perceptually), CMYK without a profile as
    browsers do. With `size`, its centre square is scaled to `size` x `size` (bicubic). In the `mode` "L" it then
    becomes grey, (1, H, W), by ITU-R 601 luma: exact where the channels are equal. Raises `InputError` where the file
    is damaged or cannot be read so: several frames, more than 8 bits a channel, colours of an unknown meaning.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of EXIF tags that no viewer reads and of large images
            with Image.open(file, formats=FORMATS) as image:
                if why := _unfaithful(image) or dropped(str(image.format), file):
                    raise InputError(f"{file} {why}")
                colours = _shown(ImageOps.exif_transpose(image))
        if size is not None:
            colours = ImageOps.fit(colours, (size, size), Image.Resampling.BICUBIC)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # of damaged files, Pillow's readers raise anything
        raise InputError(f"{file} cannot be read as an image ({error}); restore or remove it") from error
    pixels: np.ndarray = np.atleast_3d(np.asarray(colours.convert(mode))).transpose(2, 0, 1)
    return pixels


def _unfaithful(image: Any) -> str:
    """Why 8 bits of sRGB cannot show `image`, with the mend; "" where they can."""
    # The further frames of an MPO, which many cameras write as .jpg, are previews and other views: viewers show one.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        return f"has {frames} frames; save the one that is meant as a file of its own"
    stored = [str(part) for tile in image.tile for part in np.atleast_1d(np.array(tile[3], object))]
    deep = any(re.search(r"(?<!BGR);16", part) for part in stored)  # BGR;16 are 5, 6 and 5 bits
    deep |= image.format == "PPM" and any(part.isdigit() and int(part) > 255 for part in stored)
    deep |= image.format == "TIFF" and max(image.tag_v2.get(258, (1,))) > 8  # BitsPerSample: channels may lie apart
    if image.mode[0] in "IF" or deep:
        return f"has more than 8 bits a channel (mode {image.mode}); save it with 8"
    if image.mode not in MODES:
        return f"has {image.mode} colours; save it as RGB"
    info = image.info
    if "transparency" in info and {"L;2", "L;4"} & set(stored):  # Pillow scales the pixels and not this value
        return "has a transparent grey of fewer than 8 bits; save it with 8"
    managed = "icc_profile" in info or "srgb" in info
    if not managed and abs(info.get("gamma", SRGB_GAMMA) - SRGB_GAMMA) > 0.01:
        return f"has pixels of gamma {info['gamma']:g}; save it as sRGB"
    if icc := info.get("icc_profile"):
        try:
            space = _to_srgb(icc)[0]
        except Exception as error:  # of damaged profiles, or where Pillow has no littlecms
            return f"has a colour profile that cannot be read ({error}); save it as sRGB"
        fits = {"RGB": image.mode != "CMYK", "CMYK": image.mode == "CMYK", "GRAY": image.mode in GREY}
        if not fits.get(space, False):
            return f"has a colour profile for {space} and {image.mode} pixels; save it as sRGB"
    return ""


def _shown(image: "Picture") -> "Picture":
    """`image` in sRGB and on white."""
    from PIL import Image, ImageCms

    icc, alpha = image.info.get("icc_profile"), None
    if image.has_transparency_data:
        image = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        alpha = image.getchannel("A")
    space, transform = _to_srgb(icc) if icc else ("RGB", None)
    colours: Any = image.convert("L" if transform and space == "GRAY" else space if transform else "RGB")
    if transform is not None:
        colours = ImageCms.applyTransform(colours, transform)
    white = Image.new("RGB", image.size, "white")
    shown: Picture = colours if alpha is None else Image.composite(colours, white, alpha)
    return shown


@lru_cache(maxsize=64)
def _to_srgb(icc: bytes) -> tuple[str, Any]:
    """The colour space of a profile and what takes it to sRGB; None where that changes no colour by more than 2 of 255.

    So the many profiles that describe sRGB itself leave the bytes as they are.
    """
    from PIL import Image, ImageCms

    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    space = str(profile.profile.xcolor_space).strip()
    if space not in ("RGB", "GRAY", "CMYK"):
        return space, None
    mode = "L" if space == "GRAY" else space
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(profile, srgb, mode, "RGB", ImageCms.Intent.PERCEPTUAL)
    if space == "CMYK":
        return space, transform
    steps = np.linspace(0, 255, 18 if space == "RGB" else 256).round().astype(np.uint8)
    probe = np.stack(np.meshgrid(*[steps] * 3), -1).reshape(1, -1, 3) if space == "RGB" else steps[None]
    given = Image.fromarray(probe)
    turned = ImageCms.applyTransform(given, transform)
    assert turned is not None
    change = np.abs(np.asarray(turned).astype(int) - np.asarray(given.convert("RGB")))
    return space, None if change.max() <= 2 else transform
