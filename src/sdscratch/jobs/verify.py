"""What proves a picture: its record against the text beside it, and its pixels against what the record draws.

The infotext holds a hash of the record's own JSON ("Record hash"), and everything else in it is made from the
record: so neither can be changed alone. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from sdscratch.checkpoints.hashing import AUTOV3
from sdscratch.images import Record, parse_infotext
from sdscratch.images.metadata.texts import Texts
from sdscratch.version import __version__

if TYPE_CHECKING:
    from sdscratch.images.compare import Likeness

__all__ = ["PASSING", "Verdict", "text_fault", "verdict"]

PASSING = 30.0  # dB of PSNR, for JPEG and lossy WebP


@dataclass(frozen=True)
class Verdict:
    """Whether a picture is what its record says.

    Attributes:
        identical: it is: every pixel, and every word; of a lossy format as near as such formats come.
        why: what is not, or what is to be known of it.
    """

    identical: bool
    psnr: float | None
    why: str


def verdict(
    likeness: Likeness, fault: str | None, elsewhere: str, *, lossless: bool, as_kept: bool = False
) -> Verdict:
    """What comes of a comparison.

    Args:
        fault: what of the texts does not agree.
        elsewhere: what of the machine, or of the files, is otherwise than the record says.
        lossless: the format keeps every pixel.
        as_kept: the picture is what its lossy format makes of the one that was drawn.
    """
    psnr = likeness.psnr
    near = likeness.identical or as_kept or (not lossless and psnr is not None and psnr >= PASSING)
    reasons = [] if likeness.identical else [str(likeness)]
    if as_kept:
        reasons = [f"its format is lossy: PSNR {psnr:.1f} dB; level by level what it makes of the picture"]
    elif near and reasons:
        reasons = [f"its format is lossy: PSNR {psnr:.1f} dB, and {PASSING:g} pass"]
    if elsewhere and not likeness.identical:
        reasons.append(elsewhere)
    if fault is not None:
        reasons.insert(0, fault)
    return Verdict(near and fault is None, psnr, "; ".join(reasons))


def text_fault(record: Record, texts: Texts) -> str | None:
    """What of a picture's two texts does not agree; None where both say the same, or there is one only."""
    own, beside = _own(texts), _beside(texts)
    if beside is None:
        return None
    told = parse_infotext(beside)
    said = told.parameters.get("Record hash")
    if said is not None and said != sha256(own.encode()).hexdigest()[:AUTOV3]:
        return "its record is not the one that its infotext was written with: one of them was changed"
    if record.sdscratch == __version__:
        same = beside in (record.infotext(), _mended(record.infotext()))
        return None if same else "its infotext does not say what its record says: one of them was changed"
    expected = parse_infotext(record.infotext())
    differing = [
        key
        for key, value in told.parameters.items()
        if key in expected.parameters and key != "Record hash" and expected.parameters[key] != value
    ]
    if told.prompt != expected.prompt:
        differing.append("the prompt")
    if told.negative_prompt != expected.negative_prompt:
        differing.append("the negative prompt")
    return f"its record and its infotext do not agree on {', '.join(differing)}" if differing else None


def _own(texts: Texts) -> str:
    return texts.png.get("sdscratch") or texts.exif.get("ImageDescription", "")


def _beside(texts: Texts) -> str | None:
    return texts.png.get("parameters", texts.exif.get("UserComment"))


def _mended(text: str) -> str:
    """As `texts_of` gives back what happens to be UTF-8 when it is read as Latin-1."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text
