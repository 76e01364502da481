"""How add-ons are asked for: `FILE[:WEIGHT[:UNET_WEIGHT]]`, and `<lora:name:…>` in a prompt (no torch).

What follows the name is the same in both, each behind a colon:

    0.8            weight of the text encoder's change, and of the U-Net's where nothing else is said
    0.8:0.6        the U-Net's apart
    te=0.8 unet=0  the same by name (the web UIs' spelling)
    lbw=OUTD       weights of the U-Net's blocks (`addons.blocks`)
    start=5        from this sampling step on, the first being 0
    stop=20        until this one, which goes without
    step=5-20      both
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdscratch.addons.blocks import Blocks, is_blocks, parse_blocks
from sdscratch.errors import UsageError

__all__ = ["TAG", "LoraRequest", "other_tags", "parse_lora", "take_loras"]

NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
TAG = re.compile(r"<(?:lora|lyco):([^>]*)>", re.IGNORECASE)  # the web UIs' spelling; lyco is LyCORIS'
OTHER_TAG = re.compile(r"<[A-Za-z][\w-]*:[^<>]*>")
UNKNOWN = {
    "dyn": "it cuts a DyLoRA to a rank, which sdscratch does not do",
    "lbwe": "elements of blocks are not known here; lbw= weighs whole blocks",
}


@dataclass(frozen=True)
class LoraRequest:
    """A LoRA as it was asked for."""

    name: str  # a path, or a name (places.find_lora)
    weight: float = 1.0  # its changes are multiplied by this; may be negative
    unet_weight: float | None = None  # the U-Net's, where they are another's than the text encoder's
    blocks: Blocks | None = None  # times this
    start: int = 0  # the first sampling step with it
    stop: int | None = None  # the first one without

    @property
    def always(self) -> bool:
        """Whether it is there at every step."""
        return self.start == 0 and self.stop is None

    def active_at(self, step: int) -> bool:
        """Whether the U-Net has it at sampling step `step`, the first being 0."""
        return self.start <= step and (self.stop is None or step < self.stop)


def parse_lora(text: str) -> LoraRequest:
    """The meaning of `FILE[:WEIGHT[:UNET_WEIGHT]]`, and of what else may follow.

    A colon counts only if what follows it is meant for us: `C:\\a.safetensors` is a file.

    Raises:
        UsageError: no file, or something behind it that makes no sense.
    """
    names = "|".join((*SETTERS, *UNKNOWN))
    match = re.fullmatch(rf"(.*?)((?::(?:{NUMBER}|(?:{names})=[^:]*))*)", text, re.DOTALL)
    name, rest = (match[1], match[2]) if match else (text, "")
    if not name:
        raise UsageError(
            f"the LoRA {text!r} names no file; say FILE or FILE:WEIGHT, like style.safetensors:0.8"
        )
    return _request(name, rest.split(":")[1:], f"the LoRA {name}")


def take_loras(prompt: str) -> tuple[str, tuple[LoraRequest, ...]]:
    """The prompt without its `<lora:…>` tags, as the web UIs take them out, and what they ask for.

    Raises:
        UsageError: a tag that makes no sense.
    """
    found = TAG.findall(prompt)
    return TAG.sub("", prompt), tuple(_parse_tag(inner) for inner in found)


def other_tags(prompt: str) -> list[str]:
    """What looks like a tag of the web UIs and is none that is known here: it would be drawn as words."""
    return OTHER_TAG.findall(TAG.sub("", prompt))


def _parse_tag(inner: str) -> LoraRequest:
    name, *items = inner.split(":")
    if not name or not all(map(_is_item, items)):
        raise UsageError(
            f"the prompt holds <lora:{inner}>; a tag says <lora:name> or <lora:name:weight>, and may go on "
            "with :unet_weight, te=, unet=, lbw=, start= and stop="
        )
    return _request(name, items, f"the tag <lora:{inner}>")


def _is_item(item: str) -> bool:
    key, sign, _ = item.partition("=")
    return bool(sign and (key in SETTERS or key in UNKNOWN)) or bool(
        re.fullmatch(NUMBER, item) or is_blocks(item)
    )


def _request(name: str, items: Sequence[str], where: str) -> LoraRequest:
    values: dict[str, Any] = {}
    for item in items:
        key, sign, text = item.partition("=")
        if not sign:
            key, text = _position(item, values), item
        if key in UNKNOWN or key == "":
            raise UsageError(f"{where} says {item}: {UNKNOWN[key or 'dyn']}; leave it out")
        found = SETTERS[key](text, where)
        if found.keys() & values.keys():
            raise UsageError(f"{where} says twice what its {item} says; say it once")
        values |= found
    if values.get("stop") is not None and values["stop"] <= values.get("start", 0):
        raise UsageError(f"{where} stops at step {values['stop']}, before it starts; let stop= be the larger")
    if "unet_weight" in values and "weight" not in values:
        values["weight"] = 1.0  # the web UIs' value
    return LoraRequest(name, **values)


def _position(item: str, values: Mapping[str, Any]) -> str:
    """What a number without a name is: by its turn. Block weights may go without a name, too."""
    if is_blocks(item):
        return "lbw"
    return next(
        (key for key, field in (("te", "weight"), ("unet", "unet_weight")) if field not in values), ""
    )


def _weight(field: str) -> Callable[[str, str], dict[str, Any]]:
    def read(text: str, where: str) -> dict[str, Any]:
        if not re.fullmatch(NUMBER, text):
            raise UsageError(f"{where} has the weight {text!r}, which is no number; 1 is full strength")
        if not math.isfinite(float(text)):
            raise UsageError(f"the weight of {where} is too large; 1 is its full strength")
        return {field: float(text)}

    return read


def _step(field: str) -> Callable[[str, str], dict[str, Any]]:
    def read(text: str, where: str) -> dict[str, Any]:
        if not re.fullmatch(r"[0-9]{1,6}", text):
            raise UsageError(f"{where} says {field}={text}; a step is a whole number from 0")
        return {field: int(text)}

    return read


def _steps(text: str, where: str) -> dict[str, Any]:
    match = re.fullmatch(r"([0-9]{0,6})-([0-9]{0,6})", text)
    if match is None:
        raise UsageError(f"{where} says step={text}; say step=FIRST-END, like step=5-20")
    return {"start": int(match[1] or 0), "stop": int(match[2]) if match[2] else None}


SETTERS: Mapping[str, Callable[[str, str], dict[str, Any]]] = {
    "te": _weight("weight"),
    "unet": _weight("unet_weight"),
    "lbw": lambda text, where: {"blocks": parse_blocks(text, where)},
    "start": _step("start"),
    "stop": _step("stop"),
    "step": _steps,
}
