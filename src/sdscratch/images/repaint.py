"""What of a picture is repainted: drawn whole or in part, and put back so that the rest keeps its bytes.

No torch: a picture can be checked against its mask where nothing is drawn (`masks_kept`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageOps

from sdscratch.errors import ImageError, SdscratchError, UsageError
from sdscratch.images.fit import filling, fit_picture, fitted_in, picture_hash
from sdscratch.images.masks import Box, blurred, filled, grown, mask_of, mask_of_alpha, region
from sdscratch.images.metadata.record import MaskRecord, Record
from sdscratch.images.read import over_colour
from sdscratch.options import Fit, ResolvedOptions
from sdscratch.options.fields import MIN_SIDE, SIDE_STEP

__all__ = ["ALPHA", "Borders", "Repaint", "masks_kept", "parse_extend", "plan_repaint", "rounded_up"]

ALPHA = "alpha"  # --mask alpha: the init picture's own transparency
MAX_BORDER = 8192
STRONGER = {
    "whole": 2,
    "soft": 8,
    "box": 1,
}  # what the blurred mask is multiplied by to be a share of the new


class Borders(NamedTuple):
    """Pixels that are added on each side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) of a picture of that size with them."""
        return size[0] + self.left + self.right, size[1] + self.top + self.bottom

    def around(self, inner: Image.Image | None, size: tuple[int, int]) -> Image.Image:
        """L, 255 in the borders of a picture of that size, and `inner`, else 0, within them."""
        framed = Image.new("L", self.size(size), 255)
        framed.paste(inner or Image.new("L", size), (self.left, self.top))
        return framed


def parse_extend(text: str) -> Borders:
    """The borders in "left=128,top=64".

    Raises:
        UsageError: another form, a side that there is not, or nothing to add.
    """
    sides: dict[str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(left|top|right|bottom)\s*=\s*(\d{1,5})\s*", part)
        if match is None or match[1] in sides or int(match[2]) > MAX_BORDER:
            raise UsageError(
                f"--extend is {text!r}, but must be sides and pixels up to {MAX_BORDER}, like left=128,top=64"
            )
        sides[match[1]] = int(match[2])
    if not any(sides.values()):
        raise UsageError(f"--extend {text} adds nothing; give a side some pixels, like left=128")
    return Borders(**sides)


def rounded_up(size: tuple[int, int]) -> tuple[int, int]:
    """The least size that can be drawn and holds a picture of that size."""
    width, height = (max(-(-side // SIDE_STEP) * SIDE_STEP, MIN_SIDE) for side in size)
    return width, height


@dataclass(frozen=True, eq=False)
class Repaint:
    """One picture's repainting.

    Attributes:
        whole: RGB or RGBA, of the output's size: what stays outside the mask.
        mask: L, of the same size: blurred, 255 is repainted.
        size: (width, height) of what is drawn.
        box: what of `whole` is drawn, scaled to `size`; None: all, with more at the right and the bottom
            where `size` is larger.
        options: how it is asked for.
        background: the colour that the network sees under transparent parts.
        void: L, of the same size: where nothing was, holes and borders, which the new picture fills wholly.
        opaque: what is repainted loses its transparency.
        record: what is to be known of the mask.
    """

    whole: Image.Image
    mask: Image.Image
    size: tuple[int, int]
    box: Box | None
    options: ResolvedOptions
    background: str = "white"
    void: Image.Image | None = None
    opaque: bool = False
    record: MaskRecord = field(default_factory=MaskRecord)

    @property
    def pasted(self) -> bool:
        """Whether what lies outside the mask keeps its bytes."""
        return self.options.paste

    @cached_property
    def drawn_mask(self) -> Image.Image:
        """L, of the size drawn: 255 is repainted."""
        return self._drawn(self.mask.convert("RGB")).getchannel(0)

    @cached_property
    def picture(self) -> Image.Image:
        """RGB, of the size drawn: what the denoising starts from."""
        picture = self._drawn(over_colour(self.whole, self.background))
        return filled(picture, self.drawn_mask) if self.options.masked_content == "fill" else picture

    @cached_property
    def cover(self) -> Image.Image:
        """L, of the output's size: the share of the new picture; where it is 0 nothing changes."""
        soft = self.options.soft_mask
        factor = STRONGER["soft" if soft else "whole" if self.box is None else "box"]
        cover = self.mask.point(lambda level: min(level * factor, 255))
        return cover if self.void is None else ImageChops.lighter(cover, self.void)

    def finished(self, drawn: Image.Image) -> Image.Image:
        """The picture with what was drawn in its place.

        Args:
            drawn: RGB, of `size`.

        Raises:
            SdscratchError: a pixel outside the mask is not what it was; never seen, and never written.
        """
        colour = self.whole.convert("RGB")
        new = self._placed(drawn, colour)
        cover = self.cover if self.pasted else Image.new("L", self.whole.size, 255)
        result = mixed(colour, new, cover)
        if self.whole.mode == "RGBA":
            alpha = self.whole.getchannel("A")
            opaque = Image.new("L", alpha.size, 255)
            result.putalpha(mixed(alpha, opaque, self.cover) if self.opaque else alpha)
        if self.pasted and not same_outside(result, self.whole, self.cover):
            raise SdscratchError(
                "pixels outside the mask have changed; nothing is written. Please report this"
            )
        return result

    def _drawn(self, picture: Image.Image) -> Image.Image:
        """The part that is drawn of an RGB picture, in the size that it is drawn in."""
        if self.box is not None:
            return fitted_in(picture.crop(self.box), self.size)
        more = [(0, wanted - side) for wanted, side in zip(self.size, picture.size, strict=True)]
        if not any(after for _, after in more):
            return picture
        return Image.fromarray(np.pad(np.asarray(picture), (more[1], more[0], (0, 0)), "edge"))

    def _placed(self, drawn: Image.Image, colour: Image.Image) -> Image.Image:
        """What was drawn where it belongs, in a picture of the output's size."""
        if self.box is None:
            return drawn.crop((0, 0, *colour.size))
        left, top, right, bottom = self.box
        placed = colour.copy()
        placed.paste(filling(drawn, (right - left, bottom - top)), (left, top))
        return placed


def plan_repaint(
    init: Image.Image,
    mask: Image.Image | str | None,
    options: ResolvedOptions,
    *,
    extend: str | None = None,
    fit: Fit | None = None,
    background: str = "white",
) -> Repaint:
    """What a mask asks for.

    Args:
        init: RGB or RGBA.
        mask: RGB or RGBA, of which white (or opaque) is repainted; "alpha": what `init` is transparent in;
            None: what `extend` adds, alone.
        options: its width and height are the size drawn.
        extend: borders to add, "left=128,top=64", which are repainted.
        fit: how both are brought to the size; None where no size was asked for, and the output keeps
            `init`'s.

    Raises:
        UsageError: `extend` has another form.
        ImageError: the mask is empty.
    """
    size, padding = (options.width, options.height), options.only_masked
    levels = mask_levels(init, mask, invert=options.mask_invert)
    whole, void = init, levels if mask == ALPHA and not options.mask_invert else None
    if extend is not None:
        borders = parse_extend(extend)
        whole, levels = extended(init, levels, borders, background)
        void = borders.around(void, init.size)
    if fit is not None and padding is None:
        whole, levels = fitted(whole, size, fit, background), fitted(levels, size, fit, "black")
        void = None if void is None else fitted(void, size, fit, "black")
    soft = blurred(levels, options.mask_blur)
    refuse_empty(soft, from_alpha=mask == ALPHA)
    return Repaint(
        whole,
        soft,
        size,
        None if padding is None else grown(region(soft, padding), size, whole.size),
        options,
        background,
        void,
        opaque=mask == ALPHA,
        record=MaskRecord(
            picture_hash(mask) if isinstance(mask, Image.Image) else None,
            True if mask == ALPHA else None,
            extend,
            options.paste,
        ),
    )


def mask_levels(init: Image.Image, mask: Image.Image | str | None, *, invert: bool = False) -> Image.Image:
    """A mask as levels, L, of the init picture's size; one of another size is resized.

    Args:
        mask: as of `plan_repaint`.
        invert: what is black in it is repainted; where there is none, that means nothing.
    """
    if mask is None:
        return Image.new("L", init.size)
    levels = mask_of_alpha(init) if isinstance(mask, str) else mask_of(mask)
    if levels.size != init.size:
        levels = levels.resize(init.size, Image.Resampling.LANCZOS)
    return ImageOps.invert(levels) if invert else levels


def refuse_empty(levels: Image.Image, *, from_alpha: bool = False) -> None:
    """Refuse a mask that asks for nothing.

    Raises:
        ImageError: all of it is 0.
    """
    if levels.getbbox() is None:
        name = "the init picture's transparent part" if from_alpha else "the mask"
        raise ImageError(
            f"{name} is empty: nothing is to be repainted; give a mask that is white there, or turn it round "
            "with --mask-invert"
        )


def extended(
    picture: Image.Image, mask: Image.Image, borders: Borders, background: str
) -> tuple[Image.Image, Image.Image]:
    """A picture with borders made of its surroundings, opaque, and the mask with them added."""
    size, at = borders.size(picture.size), (borders.left, borders.top)
    added = borders.around(None, picture.size)
    shown = Image.new("RGB", size)
    shown.paste(over_colour(picture, background), at)
    whole = filled(shown, added)
    whole.paste(picture.convert("RGB"), at)
    if picture.mode == "RGBA":
        alpha = Image.new("L", size, 255)
        alpha.paste(picture.getchannel("A"), at)
        whole.putalpha(alpha)
    added.paste(mask, at)
    return whole, added


def fitted(picture: Image.Image, size: tuple[int, int], fit: Fit, background: str) -> Image.Image:
    """`fit_picture` of a picture of mode L, RGB or RGBA; borders are opaque."""
    if picture.mode == "L":
        return fit_picture(picture.convert("RGB"), *size, fit, background).getchannel(0)
    colour = fit_picture(picture.convert("RGB"), *size, fit, background)
    if picture.mode == "RGBA":
        colour.putalpha(fitted(picture.getchannel("A"), size, fit, "white"))
    return colour


def mixed(old: Image.Image, new: Image.Image, share: Image.Image) -> Image.Image:
    """Of two pictures of one mode, the share of 255 that is the new one's; 0 and 255 are exact."""
    shares = np.asarray(share, np.uint32)
    shares = shares[..., None] if old.mode == "RGB" else shares
    levels = np.asarray(old, np.uint32) * (255 - shares) + np.asarray(new, np.uint32) * shares
    return Image.fromarray(((levels + 127) // 255).astype(np.uint8))


def same_outside(picture: Image.Image, whole: Image.Image, cover: Image.Image) -> bool:
    """Whether pictures of one size and mode are equal wherever the cover is 0."""
    if (picture.size, picture.mode) != (whole.size, whole.mode):
        return False
    outside = np.asarray(cover) == 0
    return np.array_equal(np.asarray(picture)[outside], np.asarray(whole)[outside])


def masks_kept(
    record: Record, init: Image.Image, mask: Image.Image | None, picture: Image.Image
) -> bool | None:
    """Whether all pixels of a picture outside its mask are its init picture's; None where it says nothing.

    Args:
        record: of the picture.
        init: RGB or RGBA, as `read_whole` gives it.
        mask: likewise; None where the record names no file.
        picture: likewise.

    Raises:
        ImageError: the mask is empty, or the init picture lacks the transparency that it is made of.
    """
    said = record.mask
    if said is None or not said.kept:
        return None
    plan = plan_repaint(
        init,
        ALPHA if said.from_alpha else mask,
        record.options,
        extend=said.extend,
        fit=record.fit,
    )
    if picture.mode == "RGB" and plan.whole.mode == "RGBA":
        picture = picture.convert("RGBA")  # one whose last transparent pixel was repainted
    return same_outside(picture, plan.whole, plan.cover)
