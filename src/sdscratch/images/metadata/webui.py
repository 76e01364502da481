"""A1111, Forge, and who writes as they do: infotext in PNG's `parameters`, a UserComment, or the pixels."""

from __future__ import annotations

from sdscratch.images.metadata.infotext import Infotext, parse_infotext
from sdscratch.images.metadata.texts import Texts
from sdscratch.images.metadata.values import json_object

__all__ = ["read", "web_uis_text"]

TELLING = {"Steps", "Sampler", "Seed", "CFG scale"}  # one of them, or it is some other program's comment


def web_uis_text(texts: Texts) -> str | None:
    """The text that a web UI wrote, wherever it stands; None for JSON, and for comments of other programs."""
    own = texts.png.get("parameters")
    if own is not None and not _structured(own):
        return own
    for text in (texts.exif.get("UserComment"), texts.hidden, texts.exif.get("comment")):
        if text and TELLING & parse_infotext(text).parameters.keys():
            return text
    return None


def read(texts: Texts) -> tuple[str, Infotext] | None:
    """What a web UI says."""
    text = web_uis_text(texts)
    if text is None:
        return None
    told = parse_infotext(text)
    forge = told.parameters.get("Version", "").startswith("f")  # f2.0.1v1.10.1-previous-…
    return "forge" if forge else "a1111", told


def _structured(text: str) -> bool:
    return json_object(text) is not None or text.lstrip().startswith("[{")
