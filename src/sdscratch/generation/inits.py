"""From the pictures that image-to-image is given to what it starts from. No torch."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from sdscratch.addons.upscaler import open_upscaler
from sdscratch.errors import ImageError, UsageError
from sdscratch.generation.requests import Init
from sdscratch.images import (
    AddonRecord,
    fit_picture,
    over_colour,
    picture_hash,
    plan_repaint,
    read_whole,
    whole_picture,
)
from sdscratch.images.repaint import ALPHA, Borders, mask_levels, parse_extend, refuse_empty, rounded_up
from sdscratch.options import (
    Defaults,
    Fit,
    GenerateOptions,
    ResolvedOptions,
    changed,
    fit_of_init,
    large_init_notice,
    size_of_init,
)
from sdscratch.options.large import LATENT_UPSCALERS, PIXEL_UPSCALERS, parse_upscaler

__all__ = ["Given", "drawn_size", "given_pictures", "read_given", "upscaler_told"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Given:
    """What image-to-image starts from, as it was read.

    Attributes:
        whole: RGB or RGBA.
        mask: RGB or RGBA, white (or opaque) is repainted; or "alpha": what is transparent in `whole`.
        extend: borders to add, "left=128,top=64", which are repainted.
        fit: how it is brought to a size that was asked for.
        background: the colour of borders, and under transparent parts.
        strict: a mask of another size is refused.
        upscaler: what brings it to a size, as `enlarge.Upscaler` takes it; None: Lanczos' filter.
    """

    whole: Image.Image
    mask: Image.Image | str | None = None
    extend: str | None = None
    fit: Fit = "cover"
    background: str = "white"
    strict: bool = False
    upscaler: str | None = None

    @property
    def masked(self) -> bool:
        """Whether a part of it is repainted, not all."""
        return self.mask is not None or self.extend is not None

    @property
    def borders(self) -> Borders | None:
        """What is added.

        Raises:
            UsageError: another form.
        """
        return None if self.extend is None else parse_extend(self.extend)

    @cached_property
    def plain(self) -> Image.Image:
        """RGB, as the network sees it."""
        return over_colour(self.whole, self.background)

    def check(self, *, invert: bool = False) -> None:
        """Say what is wrong with the mask, and what is done about it.

        Args:
            invert: the mask is turned round.

        Raises:
            UsageError: the borders make no sense, or an upscaler does not go with a mask.
            CheckpointError: the upscaler is missing, unreadable or none.
            ImageError: the mask is empty, or of another size where that is refused.
        """
        if self.upscaler is not None:
            if self.masked:
                raise UsageError("--init-upscaler enlarges all of INIT, so it goes with no mask or border")
            upscaler_told(self.upscaler)
        borders = self.borders
        if isinstance(self.mask, Image.Image) and self.mask.size != self.whole.size:
            sizes = [f"{each.width}x{each.height}" for each in (self.mask, self.whole)]
            if self.strict:
                raise ImageError(
                    f"the mask is {sizes[0]}, but the init picture {sizes[1]}; make them the same size"
                )
            log.warning("the mask is %s, and is resized to the init picture's %s", *sizes)
        if self.mask is not None and borders is None:
            refuse_empty(mask_levels(self.whole, self.mask, invert=invert), from_alpha=self.mask == ALPHA)

    def sized(self, options: GenerateOptions, defaults: Defaults) -> GenerateOptions:
        """`drawn_size` of it."""
        return drawn_size(options, self.whole.size, defaults, masked=self.masked, extend=self.extend)

    def init(self, asked: GenerateOptions, options: ResolvedOptions) -> Init:
        """What the denoising starts from.

        Args:
            asked: the options before `sized`.
            options: those that are drawn with.

        Raises:
            ImageError: the mask is empty, or of another size where that is refused.
        """
        fit = fit_of_init(asked, self.fit)
        if self.upscaler is not None:
            by = parse_upscaler(self.upscaler)
            told, digest = upscaler_told(by), picture_hash(self.plain)
            return Init(self.plain, "stretch", digest, self.background, told, enlarge_by=by)
        if not self.masked:
            fitted = fit_picture(self.plain, options.width, options.height, fit, self.background)
            return Init(fitted, fit, picture_hash(self.plain), self.background)
        own_size = asked.width is None and asked.height is None
        plan = plan_repaint(
            self.whole,
            self.mask,
            options,
            extend=self.extend,
            fit=None if own_size else fit,
            background=self.background,
        )
        kept = None if own_size else fit
        return Init(plan.picture, kept, picture_hash(self.whole), self.background, repaint=plan)

    def notice(self, asked: GenerateOptions, options: ResolvedOptions, defaults: Defaults) -> None:
        """Say that a picture at its own size is much work, where it is."""
        own_size = asked.width is None and asked.height is None
        size = options.width, options.height
        if (
            own_size
            and options.only_masked is None
            and (told := large_init_notice(size, (defaults.width, defaults.height)))
        ):
            log.warning(told)


def upscaler_told(name: str) -> AddonRecord | None:
    """What a record says of an upscaler; nothing of Lanczos' filter, which always brings pictures to size.

    Raises:
        CheckpointError: missing, unreadable, or no upscaler.
        UsageError: what enlarges latents.
    """
    name = parse_upscaler(name)
    if name in LATENT_UPSCALERS:
        raise UsageError(f"{name} enlarges latents between two passes (--hires); name a file or a filter")
    if name in PIXEL_UPSCALERS:
        return None if name == "lanczos" else AddonRecord(name, "")
    file = open_upscaler(name)
    return AddonRecord(file.name, file.hash())


def given_pictures(
    image: Image.Image,
    mask: Image.Image | str | None,
    extend: str | None,
    fit: Fit,
    background: str,
    strict: bool,
    upscaler: str | None = None,
) -> Given:
    """Pictures that Pillow has in hand, of any mode; arguments as of `Given`."""
    mask = whole_picture(mask) if isinstance(mask, Image.Image) else mask
    return Given(whole_picture(image), mask, extend, fit, background, strict, upscaler)


def drawn_size(
    options: GenerateOptions,
    size: tuple[int, int],
    defaults: Defaults,
    *,
    masked: bool,
    extend: str | None,
) -> GenerateOptions:
    """The same options with the size that is drawn, where none was asked for.

    Without a mask that is the init picture's, rounded down to 8; with one rounded up, for no pixel may be
    lost; and of the mask's part alone it is the model's best.

    Args:
        size: the init picture's width and height.
        defaults: the model's.

    Raises:
        UsageError: the picture is too small.
    """
    if not masked:
        return size_of_init(options, size)
    borders = Borders() if extend is None else parse_extend(extend)
    own = rounded_up(borders.size(size))
    if options.only_masked is not None:
        own = defaults.width, defaults.height
    return changed(options, width=options.width or own[0], height=options.height or own[1])


def read_given(
    init: str | Path,
    mask: str | Path | None = None,
    extend: str | None = None,
    *,
    fit: Fit = "cover",
    background: str = "white",
    strict: bool = False,
    upscaler: str | None = None,
) -> Given:
    """Read what image-to-image starts from; `-` is standard input. What is wrong with it `check` says.

    Raises:
        ImageError: a picture is missing, unreadable, or refused.
    """
    whole = read_whole(init)
    read = None if mask is None else ALPHA if str(mask) == ALPHA else read_whole(mask)
    return Given(whole, read, extend, fit, background, strict, upscaler)
