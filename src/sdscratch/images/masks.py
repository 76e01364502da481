"""Masks as numbers: blurred, reduced to latents, found, and what lies under them filled. No torch.

A mask is a picture of mode L: 255 is repainted, 0 stays. The arithmetic is A1111's (modules/masking.py,
processing.py), whose blur is OpenCV's; tests hold it against numbers of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from sdscratch.errors import ImageError

__all__ = [
    "Box",
    "blurred",
    "blurred_along",
    "filled",
    "grown",
    "latent_mask",
    "mask_of",
    "mask_of_alpha",
    "region",
]

Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two are outside
Levels = npt.NDArray[np.uint8]

OPAQUE = 128  # above it a pixel of a mask with transparency is repainted
FIXED_POINT = 256  # OpenCV blurs 8-bit pictures with weights that are multiples of 1/256

# Radii of blurs, and how often each is laid over the next finer one (A1111's "fill")
FILL_BLURS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))


def mask_of(picture: Image.Image) -> Image.Image:
    """What a picture means as a mask: its grey levels, or where it has transparency what is opaque.

    Args:
        picture: RGB, or RGBA, of which fully opaque ones count as RGB.
    """
    if picture.mode == "RGBA":
        alpha = picture.getchannel("A")
        if alpha.getextrema()[0] != 255:
            return alpha.point(lambda level: 255 if level > OPAQUE else 0)
    return picture.convert("RGB").convert("L")


def mask_of_alpha(picture: Image.Image) -> Image.Image:
    """The parts of a picture that are transparent, to be repainted: a hole is what wants to be filled.

    Raises:
        ImageError: nothing of it is transparent.
    """
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
    if alpha is None or alpha.getextrema()[0] == 255:
        raise ImageError(
            "the init picture has no transparent part to take --mask alpha from; give a mask file"
        )
    return alpha.point(lambda level: 255 - level)


def blurred(mask: Image.Image, sigma: float) -> Image.Image:
    """A Gaussian blur of σ pixels, along x and then along y, each rounded to 8 bits; it reaches 2.5σ far."""
    across = blurred_along(np.asarray(mask), sigma)
    return Image.fromarray(np.ascontiguousarray(blurred_along(across.T, sigma).T))


def blurred_along(levels: Levels, sigma: float) -> Levels:
    """The same along the last axis alone, as OpenCV's.

    Its weights are multiples of 1/256; a border is mirrored without its last pixel.
    """
    radius = int(2.5 * sigma + 0.5)
    if radius == 0:
        return levels
    width = levels.shape[1]
    inner = np.pad(levels, ((0, 0), (radius, radius)), "reflect").astype(np.uint32)
    total = np.zeros(levels.shape, np.uint32)
    for offset, weight in enumerate(_weights(sigma, radius)):
        total += weight * inner[:, offset : offset + width]
    return ((total + FIXED_POINT // 2) // FIXED_POINT).astype(np.uint8)


def _weights(sigma: float, radius: int) -> list[int]:
    """2·radius + 1 whole numbers that add up to 256; what rounding loses goes to the next one inwards."""
    places = range(-radius, radius + 1)
    bell = [math.exp(-(x**2) / (2.0 * sigma**2)) for x in places]
    total, error = sum(bell), 0.0
    side: list[int] = []
    for value in bell[:radius]:
        exact = value / total * FIXED_POINT + error
        side.append(round(exact))
        error = exact - side[-1]
    return [*side, FIXED_POINT - 2 * sum(side), *side[::-1]]


def region(mask: Image.Image, padding: int) -> Box:
    """The box around all that is not 0, and `padding` pixels more where the picture has them.

    Raises:
        ValueError: all of it is 0.
    """
    box = mask.getbbox()
    if box is None:
        raise ValueError("an empty mask has no region")
    left, top, right, bottom = box
    return (
        max(left - padding, 0),
        max(top - padding, 0),
        min(right + padding, mask.width),
        min(bottom + padding, mask.height),
    )


def grown(box: Box, wanted: tuple[int, int], whole: tuple[int, int]) -> Box:
    """A box grown to the proportions of `wanted` (width, height), within a picture of size `whole`.

    Along one side only, about its middle, and shifted inwards at the picture's edges; where the picture is
    too narrow for that, all of it.
    """
    left, top, right, bottom = box
    ratio = wanted[0] / wanted[1]
    if (right - left) / (bottom - top) > ratio:
        top, bottom = _grown_side(top, bottom, int((right - left) / ratio), whole[1])
    else:
        left, right = _grown_side(left, right, int((bottom - top) * ratio), whole[0])
    return left, top, right, bottom


def _grown_side(start: int, end: int, length: int, limit: int) -> tuple[int, int]:
    missing = length - (end - start)
    start, end = start - missing // 2, end + missing - missing // 2
    if end >= limit:
        start, end = start - (end - limit), limit
    if start < 0:
        start, end = 0, end - start
    return start, min(end, limit)


def filled(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """An RGB picture whose masked parts are made of their surroundings: coarse blurs under finer ones."""
    outside = Image.new("RGBa", picture.size)
    kept = mask.point(lambda level: 255 - level)
    outside.paste(picture.convert("RGBA").convert("RGBa"), mask=kept)
    painted = Image.new("RGBA", picture.size)
    for radius, times in FILL_BLURS:
        layer = outside.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            painted.alpha_composite(layer)
    return painted.convert("RGB")


# From pixels to latents


def bicubic(mask: Image.Image, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Shares of 1, as Pillow's bicubic filter reduces 8-bit levels (A1111)."""
    return np.asarray(mask.resize(size, Image.Resampling.BICUBIC), np.float32) / 255.0


def bilinear(mask: Image.Image, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Shares of 1, of the four pixels around the middle of each position (ComfyUI)."""
    levels = np.asarray(mask, np.float32) / 255.0
    for axis, count in ((1, size[0]), (0, size[1])):
        scale = levels.shape[axis] / count
        places = np.clip((np.arange(count) + 0.5) * scale - 0.5, 0.0, levels.shape[axis] - 1.0)
        lower = np.floor(places).astype(int)
        upper = np.minimum(lower + 1, levels.shape[axis] - 1)
        share = (places - lower).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        levels = levels.take(lower, axis) * (1.0 - share) + levels.take(upper, axis) * share
    return levels.astype(np.float32)


def nearest(mask: Image.Image, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """0 or 1, by the pixel at the top left of each position (diffusers; levels from half on count)."""
    levels = np.asarray(mask)
    rows = np.arange(size[1]) * mask.height // size[1]
    columns = np.arange(size[0]) * mask.width // size[0]
    return (levels[np.ix_(rows, columns)] / 255.0 >= 0.5).astype(np.float32)


def greatest(mask: Image.Image, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """0 or 1, by the greatest rounded pixel of each position (stable-diffusion.cpp)."""
    whole = np.rint(np.asarray(mask, np.float32) / 255.0)
    down, across = mask.height // size[1], mask.width // size[0]
    blocks = whole[: size[1] * down, : size[0] * across].reshape(size[1], down, size[0], across)
    return np.asarray(blocks.max((1, 3)), np.float32)


def rounded(mask: Image.Image, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """`bicubic`, rounded to 0 or 1, a half to 0 (A1111)."""
    return np.rint(bicubic(mask, size)).astype(np.float32)


REDUCTIONS: Mapping[str, Callable[[Image.Image, tuple[int, int]], npt.NDArray[np.float32]]] = {
    "bicubic": bicubic,
    "rounded": rounded,
    "bilinear": bilinear,
    "nearest": nearest,
    "greatest": greatest,
}


def latent_mask(mask: Image.Image, size: tuple[int, int], way: str) -> npt.NDArray[np.float32]:
    """A mask as a latent of `size` (width, height) has it: [height, width] from 0, which stays, to 1.

    Args:
        way: a name of `REDUCTIONS`.
    """
    return REDUCTIONS[way](mask, size)
