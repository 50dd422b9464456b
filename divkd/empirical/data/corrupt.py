"""Corrupted images: twelve kinds in the four families of Hendrycks and Dietterich 2019, with strengths of our own.

The families and most names are those of arXiv:1903.12261, the formulas and strengths are not: scores on these images
are never to be compared with published CIFAR-10-C numbers, for which `divkd.empirical.data.cifar_c` reads the published
arrays. With pixels x in [0, 1], the strength c of `STRENGTHS`, u uniform on [0, 1), n standard normal and * a
convolution over symmetric borders (... b a | a b ...), a kind makes of x, before clipping to [0, 1] and rounding:

    gaussian_noise    x + c n
    shot_noise        Poisson(x / c) c
    impulse_noise     0 where u < c / 2, else 1 where u < c, else x; each channel for itself
    gaussian_blur     x * g,  g(d) ~ exp(-d^2 / (2 c^2)) cut at 4 c
    defocus_blur      x * k(0, c, .),  a disc of radius c
    motion_blur       x * k(c, 1/2, a),  a line of length c and angle a ~ U(0, pi)
    fog               x + c m (0.9 - x),  m = 1/2 + f / 2,  f a random field of amplitude 1 / frequency^1.5 in [0, 1]
    snow              x + 0.8 min(1, F) (1 - x),  F = [u < c / s^2] * k(2 s, s / 2, a) / max k,  a ~ U(pi / 4, 3 pi / 4)
    brightness        x + c
    contrast          x_mean + c (x - x_mean),  the mean over the pixels of each channel
    pixelate          the mean over squares of side c, squares and pixels weighted by the area that they share
    jpeg_compression  JPEG of quality c

The stroke k(l, r, a) is max(0, min(1, r + 1/2 - distance to a centred segment of length l and angle a)), scaled to sum
1. Lengths are pixels of a 32 x 32 image: with H, W the size of an image they are multiplied by s = max(1, min(H, W) /
32), as in smaller images nothing below a pixel can be seen.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter  # type: ignore[attr-defined]  # scipy has no types
from scipy.signal import fftconvolve  # type: ignore[attr-defined]
from torch import Tensor

from divkd.shared.errors import InputError, unknown
from divkd.shared.seeds import rng

FAMILIES: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("gaussian_blur", "defocus_blur", "motion_blur"),
    "weather": ("fog", "snow", "brightness"),
    "digital": ("contrast", "pixelate", "jpeg_compression"),
}
STRENGTHS: dict[str, tuple[float, ...]] = {  # severities 1 to 5
    "gaussian_noise": (0.03, 0.05, 0.07, 0.09, 0.12),
    "shot_noise": (0.002, 0.005, 0.01, 0.017, 0.025),
    "impulse_noise": (0.01, 0.02, 0.04, 0.06, 0.09),
    "gaussian_blur": (0.4, 0.55, 0.7, 0.9, 1.2),
    "defocus_blur": (0.7, 0.95, 1.2, 1.6, 2.1),
    "motion_blur": (1.5, 2.5, 3.5, 5, 7),
    "fog": (0.2, 0.35, 0.5, 0.65, 0.8),
    "snow": (0.006, 0.012, 0.02, 0.03, 0.045),
    "brightness": (0.05, 0.1, 0.16, 0.23, 0.3),
    "contrast": (0.75, 0.6, 0.45, 0.3, 0.18),
    "pixelate": (1.25, 1.5, 2, 2.6, 3.3),
    "jpeg_compression": (80, 60, 40, 25, 15),
}
SEVERITIES = 5
SMALLEST = 4  # pixels a side


@dataclass(frozen=True)
class Corruptions:
    """The same images under several kinds of corruption at five severities, made or read only when asked for."""

    source: str  # "own generator" or where the published arrays lie
    kinds: tuple[str, ...]
    labels: Tensor  # (N,) int64, the same for every kind and severity
    images: Callable[[str, int], Tensor]  # (kind, severity 1 to 5) -> (N, C, H, W) uint8

    def __len__(self) -> int:
        return len(self.labels)


def generated(images: Tensor, labels: Tensor, seed: int) -> Corruptions:
    """Every kind of `corrupt` for images (N, C, H, W) uint8 with labels (N,); errors as there."""
    _check_images(images)
    if len(images) != len(labels):
        raise InputError(f"{len(images)} images and {len(labels)} labels to corrupt; give one label an image")
    kinds = tuple(STRENGTHS)
    return Corruptions("own generator", kinds, labels, lambda kind, severity: corrupt(images, kind, severity, seed))


def corrupt(images: Tensor, kind: str, severity: int, seed: int) -> Tensor:
    """Images (N, C, H, W) uint8, C = 1 or 3, under `kind` at `severity` 1 to 5; the same shape and device.

    What happens to image i is a function of (its bytes, kind, severity, seed, i): it does not depend on how many images
    come with it, nor on the device, as all arithmetic is done on the CPU. All severities of an image share their draws.
    JPEG bytes may differ between versions of the library behind Pillow.
    Raises `InputError` where the kind or the severity is unknown or the images have another type or shape.
    """
    check_cell(kind, severity, tuple(STRENGTHS))
    _check_images(images)
    strength, scale = STRENGTHS[kind][severity - 1], max(1.0, min(images.shape[2:]) / 32)
    out = np.empty(tuple(images.shape), np.uint8)
    for i, image in enumerate(images.cpu().numpy()):  # one by one: vector code rounds by position in the batch
        x = _change(kind, image / 255, strength, scale, rng(seed, f"corrupt/{kind}", i))
        out[i] = np.rint(np.clip(x, 0, 1) * 255)
    return torch.from_numpy(out).to(images.device)


def check_cell(kind: str, severity: int, kinds: tuple[str, ...]) -> None:
    """Raise `InputError` unless `kind` is one of `kinds` and `severity` one of 1 to 5."""
    if kind not in kinds:
        raise unknown("corruption", kind, kinds)
    if severity not in range(1, SEVERITIES + 1):
        raise InputError(f"severity {severity} of {kind}: choose one of 1 to {SEVERITIES}")


def _check_images(images: Tensor) -> None:
    shape = tuple(images.shape)
    if images.dtype != torch.uint8 or len(shape) != 4 or shape[1] not in (1, 3) or min(shape[2:]) < SMALLEST:
        raise InputError(
            f"images to corrupt are {images.dtype} of shape {shape}; give torch.uint8 of shape (N, C, H, W) "
            f"with C = 1 or 3 and at least {SMALLEST} pixels a side"
        )


def _change(kind: str, x: np.ndarray, c: float, s: float, draw: np.random.Generator) -> np.ndarray:
    """The formula of `kind` for one image x (C, H, W) float64 with strength c and scale s, not yet clipped."""
    match kind:
        case "gaussian_noise":
            return x + c * draw.standard_normal(x.shape)
        case "shot_noise":
            return np.asarray(draw.poisson(x / c) * c)
        case "impulse_noise":
            u = draw.random(x.shape)
            return np.where(u < c, u >= c / 2, x)
        case "gaussian_blur":
            return np.asarray(gaussian_filter(x, c * s, mode="reflect", truncate=4, axes=(1, 2)))
        case "defocus_blur":
            return _convolve(x, stroke(0, c * s, 0))
        case "motion_blur":
            return _convolve(x, stroke(c * s, 0.5, draw.uniform(0, np.pi)))
        case "fog":
            return x + c * (0.5 + _field(x.shape[1:], draw) / 2) * (0.9 - x)
        case "snow":
            kernel = stroke(2 * s, s / 2, draw.uniform(np.pi / 4, 3 * np.pi / 4))
            flakes = (draw.random(x.shape[1:]) < c / s**2).astype(float)
            cover = np.clip(_convolve(flakes[None], kernel) / float(kernel.max()), 0, 1)
            return np.asarray(x + 0.8 * cover * (1 - x))
        case "brightness":
            return x + c
        case "contrast":
            mean = x.mean((1, 2), keepdims=True)
            return np.asarray(mean + c * (x - mean))
        case "pixelate":
            return np.asarray(_squares(x.shape[1], c * s) @ x @ _squares(x.shape[2], c * s).T)
        case "jpeg_compression":
            return _jpeg(np.rint(x * 255).astype(np.uint8), int(c)) / 255
        case _:
            raise AssertionError(kind)


def stroke(length: float, radius: float, angle: float) -> np.ndarray:
    """The kernel k(length, radius, angle) above, (2 r + 1, 2 r + 1) with r its reach in whole pixels; sums to 1."""
    reach = int(np.ceil(length / 2 + radius + 0.5))
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = np.cos(angle) * right - np.sin(angle) * down
    across = np.sin(angle) * right + np.cos(angle) * down
    beyond = np.maximum(np.abs(along) - length / 2, 0)
    weight = np.clip(radius + 0.5 - np.hypot(beyond, across), 0, 1)
    return np.asarray(weight / weight.sum())


def _convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """x (C, H, W) convolved with a square kernel over symmetric borders."""
    reach = len(kernel) // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)), "symmetric")
    return np.asarray(fftconvolve(padded, kernel[None], "valid", axes=(1, 2)))


def _field(shape: tuple[int, ...], draw: np.random.Generator) -> np.ndarray:
    """A random field (H, W) scaled to [0, 1] whose amplitudes fall as 1 / frequency^1.5."""
    height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(draw.standard_normal(shape)) / frequency**1.5, s=shape)
    return np.asarray((field - field.min()) / (field.max() - field.min()))


def _squares(side: int, width: float) -> np.ndarray:
    """The projection (side, side) that averages pixels over cells of a real `width`, and cells over pixels."""
    edges = np.append(np.arange(0, side - 1e-9, width), side)
    pixel = np.arange(side)
    shared = (np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)).clip(0)
    return np.asarray(shared.T @ (shared / shared.sum(1, keepdims=True)))


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    from PIL import Image

    grey = len(image) == 1
    buffer = io.BytesIO()
    Image.fromarray(image[0] if grey else image.transpose(1, 2, 0)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer, formats=("JPEG",)) as opened:
        pixels = np.asarray(opened)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)
