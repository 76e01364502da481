"""What our own record says of a picture, as a line of a plan. No torch."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sdscratch.addons.requests import LoraRequest
from sdscratch.diffusion.conventions import convention_of
from sdscratch.images import AddonRecord, LoraRecord, Record
from sdscratch.images.repaint import ALPHA
from sdscratch.jobs.finding import Wanted
from sdscratch.jobs.theirs import Told
from sdscratch.options import ResolvedOptions
from sdscratch.options.masks import MASK_ALONE

__all__ = ["asked_of", "told_by_record"]


def told_by_record(record: Record, like: str | None = None) -> Told:
    """The line that a record stands for.

    Args:
        like: another tool to draw like than the one it was drawn like.
    """
    other = like is not None and like != record.options.like
    values = asked_of(record.options)
    if other:  # which brings its own noise and syntax
        values = {name: value for name, value in values.items() if name not in ("noise", "prompt_syntax")}
        values["like"] = like
    if record.mode == "txt2img":
        values.pop("strength", None)
    told = Told(
        values,
        model=Wanted("model", record.model, (record.model_hash,)),
        vae=_wanted("vae", record.vae) if record.vae else None,
        taesd=_wanted("vae", record.taesd) if record.taesd else None,
        upscaler=_wanted("upscaler", record.upscaler) if record.upscaler and record.upscaler.hash else None,
        upscales="hires_upscaler" if record.options.hires else "init_upscaler",
        init_hash=record.init_hash,
        from_picture=record.mode == "img2img",
        exact=None if other else record.options,
    )
    if told.from_picture:
        values |= {"fit": record.fit or "cover", "background": record.background or "white"}
        if record.upscaler is not None and not record.upscaler.hash:  # a filter
            values["init_upscaler"] = record.upscaler.name
    if record.mask is None:
        for name in MASK_ALONE & values.keys():  # which mean nothing, and are refused, without one
            del values[name]
    else:
        told.mask_hash, told.masked = record.mask.hash, True
        values |= {"mask": ALPHA} if record.mask.from_alpha else {}
        values |= {"extend": record.mask.extend} if record.mask.extend else {}
        if record.fit is None:  # it kept its picture's size
            values = told.values = {n: value for n, value in values.items() if n not in ("width", "height")}
    told.controls.extend(record.controls or ())
    loras = record.loras or ()
    bundled = {digits for lora in loras for digits in (lora.hash, lora.autov3) if digits}
    for each in record.embeddings or ():
        if each.hash[:10] not in bundled:  # else it came with a LoRA
            told.embeddings.append(_wanted("embedding", each))
    for lora in loras:
        wanted = Wanted("lora", lora.name, tuple(filter(None, (lora.hash, lora.autov3))))
        if lora.tagged:
            told.hashes[lora.name.casefold()] = wanted.hashes
        else:
            told.loras.append((_request(lora), wanted))
    return told


def asked_of(options: ResolvedOptions) -> dict[str, Any]:
    """What to ask for so that these options come of it: `GenerateOptions.resolve`, the other way round."""
    values = {name: value for name, value in asdict(options).items() if value is not None}
    values["clip_skip"] += convention_of(options.like).clip_skip_none if options.clip_skip else 0
    return values


def _wanted(kind: Any, addon: AddonRecord) -> Wanted:
    return Wanted(kind, addon.name, tuple(filter(None, (addon.hash, addon.autov3))))


def _request(lora: LoraRecord) -> LoraRequest:
    return LoraRequest(lora.name, lora.weight, lora.unet_weight, lora.blocks, lora.start or 0, lora.stop)
