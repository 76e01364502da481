"""Preprocessors without a network: what makes a control's hint of an ordinary picture. No torch.

Each is `NAME`, or `NAME:A` and `NAME:A:B` with numbers of one's own; they and their defaults are those of the
web UI's ControlNet extension (56cec5b2) where it has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sdscratch.errors import UsageError
from sdscratch.images.edges import canny, gaussian
from sdscratch.images.fit import parse_colour
from sdscratch.images.open import opened
from sdscratch.images.read import plain_picture
from sdscratch.show import printable

__all__ = ["PREPROCESSORS", "Preprocessor", "hint_levels", "make_hint", "parse_preprocessor", "read_hint"]

Pixels = NDArray[np.uint8]  # [height, width, 3], or of an inpainting hint 4
Floats = NDArray[Any]

LANCZOS = Image.Resampling.LANCZOS
SEEN = 128  # alpha from which a pixel of an inpainting hint is kept


@dataclass(frozen=True)
class Preprocessor:
    """One of them.

    Attributes:
        title: what it makes, in words.
        run: pixels, and the numbers → the map.
        numbers: their names, defaults, least and greatest values.
        aliases: what else it is called.
    """

    title: str
    run: Callable[..., Pixels]
    numbers: tuple[tuple[str, float, float, float], ...] = ()
    aliases: tuple[str, ...] = ()


def invert(pixels: Pixels) -> Pixels:
    """Every level L as 255 − L: dark strokes on white become what scribble and line networks know."""
    return 255 - pixels


def blur(pixels: Pixels, sigma: float) -> Pixels:
    """A Gaussian of that σ in pixels."""
    blurred: Pixels = gaussian(pixels.astype(np.float32), sigma, 3.0).round().clip(0, 255).astype(np.uint8)
    return blurred


def threshold(pixels: Pixels, level: float) -> Pixels:
    """White where all three channels are above the level, black elsewhere."""
    return white_where(pixels.min(axis=2) > level)


def edges(pixels: Pixels, low: float, high: float) -> Pixels:
    """Canny's edges, white on black."""
    return white_where(canny(pixels, low, high))


def scribble(pixels: Pixels, level: float) -> Pixels:
    """Strokes where a fine blur is darker than a coarse one by the level's half.

    The thresholded difference of Gaussians (Winnemöller, Kyprianidis & Olsen 2012) of σ 0.5 and 5.
    """
    floats = pixels.astype(np.float32)
    difference = gaussian(floats, 5.0, 4.0) - gaussian(floats, 0.5, 4.0)
    darker = 255 - (255.0 - difference.min(axis=2)).clip(0, 255).astype(np.uint8).astype(np.int64)
    return white_where(2 * darker > level)


def shuffle(pixels: Pixels, scale: float) -> Pixels:
    """The picture's colours in another arrangement: every pixel taken from where a smooth field leads.

    The field is the same for every picture of a size, so that a picture can be drawn again.
    """
    height, width = pixels.shape[:2]
    rng = np.random.default_rng(0)
    across = _field(rng, height, width, round(scale)) * (width - 1)
    down = _field(rng, height, width, round(scale)) * (height - 1)
    left, top = np.floor(across).astype(int), np.floor(down).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    x, y = (across - left)[..., None], (down - top)[..., None]
    upper = pixels[top, left] * (1 - x) + pixels[top, right] * x
    lower = pixels[bottom, left] * (1 - x) + pixels[bottom, right] * x
    mixed: Pixels = (upper * (1 - y) + lower * y).round().astype(np.uint8)
    return mixed


def _field(rng: np.random.Generator, height: int, width: int, scale: int) -> Floats:
    """Smooth noise of 0 to 1, whose hills are `scale` pixels wide."""
    coarse = rng.uniform(size=(height // scale + 2, width // scale + 2)).astype(np.float32)
    size = (width + 2 * scale, height + 2 * scale)
    fine = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    inner = fine[scale : scale + height, scale : scale + width]
    low, high = float(inner.min()), float(inner.max())
    spread: Floats = (inner - low) / max(high - low, 1e-6)
    return spread


def tile(pixels: Pixels, factor: float) -> Pixels:
    """The picture without details: made smaller by the factor, and large again."""
    picture = Image.fromarray(pixels)
    small = (max(round(picture.width / factor), 1), max(round(picture.height / factor), 1))
    shrunk = picture.resize(small, Image.Resampling.BOX)
    return np.asarray(shrunk.resize(picture.size, Image.Resampling.BICUBIC))


def inpaint(pixels: Pixels) -> Pixels:
    """Transparent pixels as those to be painted; the picture's file says which they are."""
    return pixels


PREPROCESSORS: Mapping[str, Preprocessor] = {
    "canny": Preprocessor(
        "edges", edges, (("low", 100, 0, 2040), ("high", 200, 0, 2040)), aliases=("canny_edges",)
    ),
    "invert": Preprocessor("the picture with black and white exchanged", invert),
    "blur": Preprocessor("a blurred picture", blur, (("sigma", 9, 0.01, 64),), aliases=("blur_gaussian",)),
    "threshold": Preprocessor("black and white", threshold, (("level", 127, 0, 255),), aliases=("binary",)),
    "scribble": Preprocessor(
        "strokes, as XDoG finds them", scribble, (("level", 32, 1, 64),), aliases=("scribble_xdog", "xdog")
    ),
    "shuffle": Preprocessor("the colours in another arrangement", shuffle, (("scale", 256, 1, 4096),)),
    "tile": Preprocessor(
        "the picture without details", tile, (("factor", 4, 1, 64),), aliases=("tile_resample",)
    ),
    "inpaint": Preprocessor("the picture, its transparent pixels to be painted", inpaint),
}
NAMES = {name: each for each, row in PREPROCESSORS.items() for name in (each, *row.aliases)}

# What others make by networks of their own, which are not here.
BY_NETWORKS = (
    *("depth", "midas", "zoe", "leres", "openpose", "dw_openpose", "dwpose", "pose", "animal_openpose"),
    *("densepose", "mediapipe_face", "hed", "softedge", "pidinet", "pidi", "teed", "anyline", "lineart"),
    *("mlsd", "normal", "normalbae", "normal_bae", "seg", "segmentation", "oneformer", "sam", "facexlib"),
    *("scribble_hed", "scribble_pidinet", "depth_anything", "marigold", "clip_vision", "insightface"),
)


def parse_preprocessor(text: str) -> tuple[str, tuple[float, ...]]:
    """A preprocessor's name and its numbers, of `NAME[:A[:B]]`.

    Raises:
        UsageError: there is none of that name, or a number makes no sense.
    """
    said, *given = text.split(":")
    name = NAMES.get(said.lower().replace("-", "_"))
    if name is None:
        _refuse(said)
    row = PREPROCESSORS[name or ""]
    if len(given) > len(row.numbers):
        raise UsageError(f"the preprocessor {name} takes {len(row.numbers)} numbers, but {text!r} gives more")
    numbers = [default for _, default, _, _ in row.numbers]
    for index, value in enumerate(given):
        what, _, low, high = row.numbers[index]
        try:
            numbers[index] = float(value)
        except ValueError:
            raise UsageError(f"{text!r} says {what} {value!r}, which is no number") from None
        if not low <= numbers[index] <= high:
            raise UsageError(f"{text!r} says {what} {value}, but it must be from {low:g} to {high:g}")
    return name or "", tuple(numbers)


def _refuse(said: str) -> None:
    low = said.lower().replace("-", "_")
    if any(low == name or low.startswith(f"{name}_") for name in BY_NETWORKS):
        raise UsageError(
            f"{printable(low)} maps are made by networks that sdscratch does not have; make the map with "
            "another tool and give it as the image"
        )
    raise UsageError(f"no preprocessor is called {said!r}; there are {', '.join(PREPROCESSORS)}")


def read_hint(picture: str | Image.Image, preprocess: str | None, background: str = "white") -> Image.Image:
    """A control's picture as `make_hint` takes it.

    Args:
        picture: a file, or one of any mode.
        background: the colour under transparent parts, which `inpaint` keeps apart.

    Raises:
        ImageError: it is missing or unreadable.
        UsageError: there is no such preprocessor or colour, or nothing is transparent where that is the mask.
    """
    if isinstance(picture, str):
        parse_colour(background)
        with opened(picture) as image:
            return read_hint(image, preprocess, background)
    plain = plain_picture(picture, background)
    if preprocess is None or parse_preprocessor(preprocess)[0] != "inpaint":
        return plain
    if not picture.has_transparency_data:
        raise UsageError(
            "the preprocessor inpaint paints where the picture is transparent, and nothing of it is; erase "
            "what is to be painted, and save it as a PNG with alpha"
        )
    alpha = ImageOps.exif_transpose(picture.convert("RGBA")).getchannel("A")
    plain.putalpha(alpha)
    return plain


def make_hint(
    picture: Image.Image, preprocess: str | None = None, size: tuple[int, int] | None = None
) -> Image.Image:
    """A hint: the picture brought to a size by Lanczos' filter (diffusers), and what is made of it there.

    Args:
        picture: RGB; RGBA for `inpaint`.
        preprocess: `NAME[:A[:B]]`; None: the picture is the hint.
        size: width and height; None: its own.
    """
    if size is not None and picture.size != size:
        picture = picture.resize(size, LANCZOS)
    if preprocess is None:
        return picture
    name, numbers = parse_preprocessor(preprocess)
    return Image.fromarray(PREPROCESSORS[name].run(np.asarray(picture), *numbers))


def hint_levels(hint: Image.Image) -> NDArray[np.float32]:
    """[height, width, 3] in 0 to 1; −1 where a hint with alpha is to be painted."""
    pixels = np.asarray(hint, dtype=np.float32)
    levels: NDArray[np.float32] = pixels[..., :3] / np.float32(255.0)
    if pixels.shape[2] == 4:
        levels[pixels[..., 3] < SEEN] = -1.0
    return levels


def white_where(mask: NDArray[np.bool_]) -> Pixels:
    """White where the mask says so, black elsewhere."""
    return np.repeat(np.where(mask, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
