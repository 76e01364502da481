"""Plans of plain lines: a prompt each, the web UI's `--prompt … --steps …`, or kohya's `prompt --n … --s …`.

The three are told apart line by line. `#` begins a comment, empty lines are nothing. No torch.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from sdscratch.errors import UsageError

__all__ = ["read_line"]

# The web UI's names ("Prompts from file or textbox"), and ours; None: what means nothing to a picture here.
A1111: Mapping[str, str | None] = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "steps": "steps",
    "cfg_scale": "cfg_scale",
    "width": "width",
    "height": "height",
    "sampler_name": "sampler",
    "scheduler": "scheduler",
    "sd_model": "model",
    "n_iter": "batch_count",
    "batch_size": "batch_count",
    "denoising_strength": "strength",
    "outpath_samples": None,
    "outpath_grids": None,
    "prompt_for_display": None,
    "do_not_save_samples": None,
    "do_not_save_grid": None,
}

# kohya's letters (gen_img.py)
KOHYA: Mapping[str, str] = {
    "n": "negative_prompt",
    "w": "width",
    "h": "height",
    "d": "seed",
    "s": "steps",
    "l": "cfg_scale",
    "t": "strength",
}
KOHYA_OPTION = re.compile(r" --(n|w|h|d|s|l|t|am|c|nl|v|g|ds1|ds2|r|glt|glr|gls|gle)\s")


def read_line(line: str, place: str) -> dict[str, Any] | None:
    """What a line asks for, as texts by field; None where it is empty or a comment.

    Args:
        place: how an error names the line.

    Raises:
        UsageError: an option that means nothing here.
    """
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    if text.startswith("--"):
        return _a1111(text, place)
    if KOHYA_OPTION.search(f"{text} "):
        return _kohya(text, place)
    return {"prompt": text}


def _a1111(text: str, place: str) -> dict[str, Any]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{place} cannot be taken apart ({error}); check its quotation marks") from None
    values: dict[str, Any] = {}
    count = 1
    index = 0
    while index < len(words):
        name = words[index].removeprefix("--")
        if not words[index].startswith("--") or name not in A1111:
            raise UsageError(f"{place} says {words[index]}, which means nothing to sdscratch here")
        if index + 1 == len(words):
            raise UsageError(f"{place} says {words[index]} without a value")
        ours, value = A1111[name], words[index + 1]
        index += 2
        if ours == "batch_count":  # pictures at once times how often: the pictures are the same
            count *= _whole(value, f"{place}: {name}")
        elif ours == "seed" and value == "-1":  # the web UI's word for chance
            continue
        elif ours is not None:
            values[ours] = value
    return values if count == 1 else values | {"batch_count": count}


def _kohya(text: str, place: str) -> dict[str, Any]:
    prompt, *options = re.split(r" --(?=[a-z])", f"{text} ")
    values: dict[str, Any] = {"prompt": prompt.strip()}
    for option in options:
        letter, _, value = option.strip().partition(" ")
        if letter not in KOHYA:
            raise UsageError(f"{place} says --{letter}, which means nothing to sdscratch here")
        values[KOHYA[letter]] = value.strip()
    return values


def _whole(value: str, name: str) -> int:
    read: Callable[[str], int] = int
    try:
        return read(value)
    except ValueError:
        raise UsageError(f"{name} is {value!r}, but must be a whole number") from None
