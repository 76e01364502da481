"""`verify`: proof that pictures are what their records say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdscratch.cli.progress import View, make_view
from sdscratch.cli.replay import (
    Device,
    Dtype,
    Json,
    LookIn,
    Pictures,
    Quiet,
    Verbose,
    hashing,
    pictures_of,
    print_json,
    redrawn,
    started,
)
from sdscratch.cli.telling import print_line
from sdscratch.errors import SdscratchError
from sdscratch.options import check_placement
from sdscratch.show import printable

if TYPE_CHECKING:
    from sdscratch.images import Record
    from sdscratch.jobs.finding import Library
    from sdscratch.jobs.redraw import Redrawer
    from sdscratch.jobs.verify import Verdict

__all__ = ["verify"]


def verify(
    images: Pictures,
    look_in: LookIn = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Prove that pictures are what their records say: draw them again, compare every pixel.

    Also what a picture's texts say is compared, and that a repainted picture has
    kept what lies outside its mask. It ends with 0 only if every
    picture is identical; JPEG and lossy WebP pass at 30 dB of PSNR.

    Examples:

      sdscratch verify owls/0001-1.png

      sdscratch verify gallery/ --look-in models/ --json
    """
    check_placement(device, dtype)
    sources = pictures_of(images)
    failed: list[SdscratchError] = []
    with (
        make_view(quiet=quiet, verbose=verbose) as view,
        hashing(view, look_in) as library,
        started(view, device, dtype) as redrawer,
    ):
        for source in sources:
            try:
                found = proven(source, library, redrawer, view)
            except SdscratchError as error:
                failed.append(error)
                tell(source, False, None, str(error), as_json)
                continue
            tell(source, found.identical, found.psnr, found.why, as_json)
            if not found.identical:
                what = f"{printable(source)} is not what its record says"
                failed.append(SdscratchError(f"{what}: {found.why}"))
    if len(failed) == len(sources) == 1:
        raise failed[0]
    if failed:
        kinds = {type(error) for error in failed}
        kind = kinds.pop() if len(kinds) == 1 and len(failed) == len(sources) else SdscratchError
        raise kind(f"{len(failed)} of {len(sources)} pictures are not proven")


def proven(source: Path, library: Library, redrawer: Redrawer, view: View) -> Verdict:
    """What comes of drawing one picture again.

    Raises:
        SdscratchError: it has no record of ours, or cannot be drawn.
    """
    from sdscratch.jobs.replay import prepare, read_recipe
    from sdscratch.jobs.verify import text_fault, verdict

    recipe = read_recipe(source)
    if recipe.record is None:
        raise SdscratchError(
            f"{printable(source)} has no record of sdscratch, only words of {recipe.tool}; nothing proves it "
            "(`replay` draws it again, and says how near it comes)"
        )
    fault = text_fault(recipe.record, recipe.records.texts)
    made = prepare(recipe, library)
    kept = kept_outside(source, recipe.record, made.line)
    if kept is False and fault is None:
        fault = "outside its mask it is not the picture that was repainted"
    drawn = redrawn(redrawer, made, view)
    elsewhere = [f"{name} is another than it was drawn with" for name in drawn.elsewhere]
    there = "; ".join([*elsewhere, *made.by_name])
    lossless = is_lossless(source)
    found = verdict(drawn.likeness, fault, there, lossless=lossless, as_kept=drawn.as_kept and not lossless)
    note = "outside its mask every pixel is the repainted picture's"
    return replace(found, why="; ".join(filter(None, (found.why, note)))) if kept else found


def kept_outside(source: Path, record: Record, line: Mapping[str, Any]) -> bool | None:
    """Whether a repainted picture has kept what lies outside its mask; None where it does not say so.

    Args:
        line: with the paths of the picture and the mask, as they were found.
    """
    from sdscratch.images import masks_kept, read_whole

    if record.mask is None or not record.mask.kept:
        return None
    mask = None if record.mask.from_alpha or "mask" not in line else read_whole(line["mask"])
    return masks_kept(record, read_whole(line["init_img"]), mask, read_whole(source))


def is_lossless(source: Path) -> bool:
    """Whether a picture's format keeps every pixel: PNG, and WebP's other kind (RFC 9649: `VP8L`)."""
    with source.open("rb") as file:
        start = file.read(64)
    return start.startswith(b"\x89PNG") or (start[:4] == b"RIFF" and b"VP8L" in start)


def tell(source: Path, identical: bool, psnr: float | None, why: str, as_json: bool) -> None:
    """Say what is proven of one picture."""
    if as_json:
        told = None if psnr is None else round(psnr, 2)
        print_json(path=str(source), identical=identical, psnr=told, why=why)
    else:
        words = "proven" if identical else "not proven"
        print_line(f"{source}: {words}{f': {why}' if why else ''}")
