"""Draw Things: JSON in XMP's UserComment (and on some devices in EXIF's), in letters and words of its own."""

from __future__ import annotations

from sdscratch.images.metadata.infotext import Infotext
from sdscratch.images.metadata.texts import Texts
from sdscratch.images.metadata.values import json_object, named, said

__all__ = ["read"]

NAMES = {
    "steps": "Steps",
    "sampler": "Sampler",
    "scale": "CFG scale",
    "seed": "Seed",
    "size": "Size",
    "model": "Model",
    "strength": "Denoising strength",
    "seed_mode": "Seed mode",
}


def read(texts: Texts) -> tuple[str, Infotext] | None:
    """What Draw Things says."""
    for text in (texts.xmp, texts.exif.get("UserComment")):
        values = json_object(text)
        if values is not None and "c" in values and ("uc" in values or "sampler" in values):
            parameters = named(values, NAMES, drop={"c", "uc", "v2"})
            return "drawthings", Infotext(said(values["c"]), said(values.get("uc")), parameters)
    return None
