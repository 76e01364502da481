"""Pictures that come in: PNG, JPEG and WebP of every kind, as 8-bit sRGB; anything else is named and refused.

What the file asks for is done: EXIF orientation, transparency over a background, an embedded colour profile.
(A PNG's gAMA and cHRM chunks are ignored, as nearly all programs do.)
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from sdscratch.images.fit import parse_colour
from sdscratch.images.open import glimpsed, opened

__all__ = ["over_colour", "picture_size", "plain_picture", "read_picture", "read_whole", "whole_picture"]

# EXIF 2.3, tag 0x0112: how to turn the stored picture upright.
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

SIDEWAYS = {5, 6, 7, 8}

PROFILE_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}  # mode -> the colour space its profile must have


def read_whole(path: str | Path) -> Image.Image:
    """The same with its transparency, if the file has any: RGB or RGBA. Arguments and errors likewise."""
    with opened(path) as image:
        return whole_picture(image)


def read_picture(path: str | Path, background: str = "white") -> Image.Image:
    """Read a picture as RGB, 8 bits a channel, upright, in sRGB; `-` reads standard input.

    16-bit channels are scaled, not clipped; transparency is laid over `background`; grey, palette and CMYK
    are converted; an embedded colour profile is applied unless it is sRGB's, broken, or for another kind of
    picture; of an animation the first frame counts.

    Raises:
        UsageError: `background` is no colour.
        ImageError: missing, unreadable, truncated, over 89 megapixels, or not PNG, JPEG or WebP.
    """
    parse_colour(background)
    with opened(path) as image:
        return plain_picture(image, background)


def picture_size(path: str | Path) -> tuple[int, int]:
    """Width and height that `read_picture` would give, from the file's beginning alone: a look at thousands.

    (But a PNG that says only behind its pixels how it must be turned is measured as it is stored.)

    Raises:
        ImageError: as `read_picture`, where the file's beginning tells.
    """
    with glimpsed(path) as image:
        stored_first = image.format != "PNG" or "exif" in image.info  # else Pillow would decode all to look
        sideways = stored_first and _orientation(image) in SIDEWAYS
        return (image.height, image.width) if sideways else image.size


def plain_picture(image: Image.Image, background: str = "white") -> Image.Image:
    """Any picture that Pillow has in hand, brought to the form that `read_picture` gives.

    Raises:
        UsageError: `background` is no colour.
    """
    return over_colour(whole_picture(image), background)


def over_colour(picture: Image.Image, background: str) -> Image.Image:
    """An RGB or RGBA picture as it looks over a colour.

    Raises:
        UsageError: `background` is no colour.
    """
    colour = parse_colour(background)
    if picture.mode == "RGB":
        return picture
    backdrop = Image.new("RGB", picture.size, colour)
    backdrop.paste(picture.convert("RGB"), mask=picture.getchannel("A"))
    return backdrop


def whole_picture(image: Image.Image) -> Image.Image:
    """Any picture that Pillow has in hand as RGB, or with transparency RGBA: upright, in sRGB."""
    colour, alpha = _colour_and_alpha(image)
    colour = _to_srgb(colour, image.info.get("icc_profile"))
    if alpha is not None:
        colour.putalpha(alpha)
    turn = UPRIGHT.get(_orientation(image))
    upright = colour if turn is None else colour.transpose(turn)
    upright.info = {}  # what it says of the file, its profile above all, is no longer true
    return upright


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1, upright, where there is none or the EXIF data make no sense."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises anything here, and the picture itself is sound
        return 1


def _colour_and_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Split a picture of any mode into colours (L, RGB or CMYK) and opacity (L; None: opaque)."""
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        with_alpha = image.convert("LA" if grey else "RGBA")
        return with_alpha.convert("L" if grey else "RGB"), with_alpha.getchannel("A")
    if grey:
        return image.convert("L"), None
    return (image if image.mode == "CMYK" else image.convert("RGB")), None


def _from_16_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Grey of 16 bits a pixel; Pillow's own conversion clips at 255. (It reduces 16-bit colour itself.)"""
    levels = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is None:
        return grey, None
    return grey, Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Apply an embedded ICC profile where it fits the picture and is not sRGB itself; RGB comes out."""
    plain = image if image.mode == "RGB" else image.convert("RGB")  # it is our own copy
    if not profile:
        return plain
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        fits = source.profile.xcolor_space.strip() == PROFILE_SPACES[image.mode]
        if not fits or "srgb" in (source.profile.profile_description or "").lower():
            return plain
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, srgb, outputMode="RGB") or plain
    except (ImageCms.PyCMSError, OSError):
        return plain  # a broken profile counts as none
