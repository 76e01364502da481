"""kohya's gen_img.py: a PNG text for each setting, none of them JSON."""

from __future__ import annotations

from sdscratch.images.metadata.infotext import Infotext
from sdscratch.images.metadata.texts import Texts
from sdscratch.images.metadata.values import named

__all__ = ["read"]

NAMES = {
    "steps": "Steps",
    "sampler": "Sampler",
    "scale": "CFG scale",
    "seed": "Seed",
    "strength": "Denoising strength",
}
TELLING = {"prompt", "seed", "sampler", "steps", "scale"}


def read(texts: Texts) -> tuple[str, Infotext] | None:
    """What gen_img.py says."""
    if not texts.png.keys() >= TELLING:
        return None
    parameters = named(texts.png, NAMES, drop={"prompt", "negative-prompt"})
    return "kohya", Infotext(texts.png["prompt"], texts.png.get("negative-prompt", ""), parameters)
