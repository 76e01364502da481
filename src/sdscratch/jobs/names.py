"""What pictures of a plan are called: by a template, safe for every file system. No torch.

    {n}      the picture's number in the plan, from 1
    {job}    its line's number
    {seed} {steps} {width} {height} {cfg_scale} {sampler} {strength} {clip_skip}
    {model} {prompt} {negative_prompt}

What follows a colon is a width: `{n:05}` with zeros before it, `{prompt:40}` no longer than that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdscratch.errors import UsageError
from sdscratch.images import SUFFIXES

__all__ = ["DEFAULT", "Template"]

DEFAULT = "{n:05}-{seed}.png"
FIELD = re.compile(r"\{(\w+)(?::(\d{1,3}))?\}")
FIELDS = (
    *("n", "job", "seed", "steps", "width", "height", "cfg_scale", "sampler", "strength", "clip_skip"),
    *("model", "prompt", "negative_prompt"),
)
LONGEST = 200  # bytes of a name: file systems take 255, and programs add to them
# Names that Windows keeps for itself, whatever the suffix.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Template:
    """A template that makes sense.

    Raises:
        UsageError: a field that there is not, a suffix that no picture has, or a folder above.
    """

    text: str = DEFAULT

    def __post_init__(self) -> None:
        for match in FIELD.finditer(self.text):
            if match[1] not in FIELDS:
                raise UsageError(
                    f"the name {self.text!r} has a field {{{match[1]}}}; there are {', '.join(FIELDS)}"
                )
        if re.search(r"[{}]", FIELD.sub("", self.text)):
            raise UsageError(f"the name {self.text!r} has a brace that belongs to no field, like {{seed}}")
        if Path(self.text).suffix.lower() not in SUFFIXES:
            raise UsageError(f"the name {self.text!r} ends in none of {', '.join(SUFFIXES)}")
        if "/" in self.text or "\\" in self.text:
            raise UsageError(f"the name {self.text!r} names a folder; --output does that")

    @property
    def numbers(self) -> bool:
        """Whether no two pictures can have one name."""
        return any(match[1] == "n" for match in FIELD.finditer(self.text))

    def name(self, values: Mapping[str, Any]) -> str:
        """A picture's file name."""
        suffix = Path(self.text).suffix
        filled = FIELD.sub(lambda match: _filled(values[match[1]], match[2]), self.text.removesuffix(suffix))
        stem = filled.encode()[: LONGEST - len(suffix)].decode(errors="ignore").strip(". ") or "picture"
        return f"{'_' if RESERVED.fullmatch(stem) else ''}{stem}{suffix}"


def _filled(value: Any, width: str | None) -> str:
    if isinstance(value, int) and width is not None:
        return f"{value:{width}}"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    safe = re.sub(r"[^\w.,+ ()=-]+", "_", text).strip()
    return safe if width is None else safe[: int(width)].strip()
