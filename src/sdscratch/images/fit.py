"""Bringing a picture to a size, naming a colour, telling pictures apart."""

from __future__ import annotations

import hashlib

from PIL import Image, ImageColor

from sdscratch.errors import UsageError
from sdscratch.options import Fit

__all__ = ["filling", "fit_picture", "fitted_in", "parse_colour", "picture_hash", "square"]


def parse_colour(name: str) -> tuple[int, int, int]:
    """The colour meant by a CSS name, `#rgb`, `#rrggbb`, `rgb(…)` or `hsl(…)`, as 0 to 255 each.

    Raises:
        UsageError: no such colour.
    """
    try:
        red, green, blue = ImageColor.getrgb(name)[:3]
    except ValueError as error:
        raise UsageError(f"no colour is called {name!r}; give a CSS name or #rrggbb") from error
    return min(red, 255), min(green, 255), min(blue, 255)


def picture_hash(image: Image.Image) -> str:
    """SHA-256 of a picture's size and pixels, in hex: the same however the file was packed."""
    return hashlib.sha256(b"%dx%d\n" % image.size + image.tobytes()).hexdigest()


def square(image: Image.Image, side: int) -> Image.Image:
    """The middle of a picture as CLIP sees it: shorter side scaled to `side`, bicubic; the rest cut off."""
    width, height = image.size
    short = min(width, height)
    size = (int(width * side / short), int(height * side / short))
    size = (side, size[1]) if width <= height else (size[0], side)
    scaled = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return scaled.crop((left, top, left + side, top + side))


def fit_picture(
    image: Image.Image,
    width: int,
    height: int,
    fit: Fit = "cover",
    background: str = "white",
    at: tuple[float, float] = (0.5, 0.5),
) -> Image.Image:
    """An RGB picture brought to exactly `width` by `height` pixels with the Lanczos filter.

    `cover` scales and crops the rest (`at` says where, from 0, 0: the top left is kept, to 1, 1); `contain`
    scales and fills the rest with `background`, centred; `stretch` is what diffusers' VaeImageProcessor does
    by default. A picture that has the size is untouched.
    """
    backdrop = parse_colour(background)
    if image.size == (width, height):
        return image
    lanczos = Image.Resampling.LANCZOS
    if fit == "stretch":
        return image.resize((width, height), lanczos)
    across, down = width / image.width, height / image.height
    if fit == "cover":
        scale = max(across, down)
        # at most all of it, which division may exceed by a rounding
        inner_width, inner_height = min(width / scale, image.width), min(height / scale, image.height)
        # Whole pixels, so that what needs no scaling is only cropped, not blurred by half a pixel.
        left, top = (image.width - inner_width) * at[0] // 1, (image.height - inner_height) * at[1] // 1
        box = (left, top, left + inner_width, top + inner_height)
        return image.resize((width, height), lanczos, box=box)
    scale = min(across, down)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    framed = Image.new("RGB", (width, height), backdrop)
    framed.paste(image.resize(inner, lanczos), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return framed


# A part in another size, as A1111's "resize and fill" and "crop and resize"


def fitted_in(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An RGB picture scaled into a size, in the middle; what is left is made of its outermost pixels."""
    width, height = size
    wide = width * picture.height < picture.width * height  # it fills the width, and more is needed below
    across = width if wide else picture.width * height // picture.height
    down = picture.height * width // picture.width if wide else height
    inner = picture.resize((across, down), Image.Resampling.LANCZOS)
    left, top = width // 2 - across // 2, height // 2 - down // 2
    framed = Image.new("RGB", size)
    framed.paste(inner, (left, top))
    if top > 0:
        framed.paste(inner.resize((width, top), box=(0, 0, across, 0)), (0, 0))
        framed.paste(inner.resize((width, top), box=(0, down, across, down)), (0, top + down))
    if left > 0:
        framed.paste(inner.resize((left, height), box=(0, 0, 0, down)), (0, 0))
        framed.paste(inner.resize((left, height), box=(across, 0, across, down)), (left + across, 0))
    return framed


def filling(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An RGB picture scaled to cover a size, its middle kept."""
    width, height = size
    wide = width * picture.height > picture.width * height
    across = width if wide else picture.width * height // picture.height
    down = picture.height * width // picture.width if wide else height
    inner = picture.resize((across, down), Image.Resampling.LANCZOS)
    framed = Image.new("RGB", size)
    framed.paste(inner, (width // 2 - across // 2, height // 2 - down // 2))
    return framed
