"""How add-ons are asked for: `FILE[:WEIGHT]` as an option, `<lora:name:weight>` in a prompt (no torch)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from sdscratch.errors import UsageError

__all__ = ["LoraRequest", "other_tags", "parse_lora", "take_loras"]

NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
# The web UIs' spelling, in any case; lyco is that of LyCORIS' extension.
TAG = re.compile(r"<(?:lora|lyco):([^>]*)>", re.IGNORECASE)
OTHER_TAG = re.compile(r"<[A-Za-z][\w-]*:[^<>]*>")


@dataclass(frozen=True)
class LoraRequest:
    """A LoRA as it was asked for."""

    name: str  # a path, or a name (places.find_lora)
    weight: float = 1.0  # its change of the weights is multiplied by this; may be negative


def parse_lora(text: str) -> LoraRequest:
    """The meaning of `FILE[:WEIGHT]`: the last colon counts only if a number follows it (C:\\a.safetensors).

    Raises:
        UsageError: no file, or a weight without end.
    """
    match = re.fullmatch(rf"(.*):({NUMBER})", text, re.DOTALL)
    name, weight = (match[1], float(match[2])) if match else (text, 1.0)
    if not name:
        raise UsageError(
            f"the LoRA {text!r} names no file; say FILE or FILE:WEIGHT, like style.safetensors:0.8"
        )
    if not math.isfinite(weight):
        raise UsageError(f"the weight of the LoRA {name} is too large; 1 is its full strength")
    return LoraRequest(name, weight)


def take_loras(prompt: str) -> tuple[str, tuple[LoraRequest, ...]]:
    """The prompt without its `<lora:name:weight>` tags, as the web UIs take them out, and what they ask for.

    Raises:
        UsageError: a tag that says anything else.
    """
    found = TAG.findall(prompt)
    for inner in found:
        if not re.fullmatch(rf"[^:]+(:{NUMBER})?", inner):
            raise UsageError(f"the prompt holds <lora:{inner}>; a tag says <lora:name> or <lora:name:weight>")
    return TAG.sub("", prompt), tuple(parse_lora(inner) for inner in found)


def other_tags(prompt: str) -> list[str]:
    """What looks like a tag of the web UIs and is none that is known here: it would be drawn as words."""
    return OTHER_TAG.findall(TAG.sub("", prompt))
