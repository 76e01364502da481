"""What A1111 1.10 and Forge make of an infotext: all settings, with the defaults of what it does not say.

An infotext leaves out what was usual when it was written, and old versions drew some things in other ways;
the rules here are those of the web UIs' "paste": what is missing has a meaning, and a version below 1.6.0,
1.7.0-225 or 1.8.0 turns on switches of compatibility.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from sdscratch.images.metadata.infotext import pairs, parse_infotext

__all__ = ["settings", "uses_emphasis"]

SIZE = re.compile(r"(\d+)x(\d+)\Z")  # for any key, not for Size alone
DEFAULTS: Mapping[str, Any] = {
    "Clip skip": "1",
    "Hires resize-1": 0,
    "Hires resize-2": 0,
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires checkpoint": "Use same checkpoint",
    "Hires prompt": "",
    "Hires negative prompt": "",
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": 32,
    "RNG": "GPU",
    "Schedule type": "Automatic",
    "Schedule max sigma": 0,
    "Schedule min sigma": 0,
    "Schedule rho": 0,
    "VAE Encoder": "Full",
    "VAE Decoder": "Full",
    "FP8 weight": "Disable",
    "Refiner switch by sampling steps": False,
}
Version = tuple[tuple[int, ...], int, int]  # release; 0 for a release candidate, else 1; commits after it


def settings(text: str) -> dict[str, Any]:
    """Every setting that A1111 and Forge read from an infotext: strings, or their defaults' own types."""
    told = parse_infotext(text)
    found: dict[str, Any] = {}
    for key, value in told.parameters.items():
        if size := SIZE.match(value):
            found |= {f"{key}-1": size[1], f"{key}-2": size[2]}
        else:
            found[key] = value
    _mend_flux(found, text)
    found |= {"Prompt": told.prompt, "Negative prompt": told.negative_prompt}
    if "Hypernet" in found:
        found["Prompt"] += f"<hypernet:{found['Hypernet']}:{found.get('Hypernet strength', '1.0')}>"
    for key, value in DEFAULTS.items():
        found.setdefault(key, value)
    _old_hires(found)
    if found["FP8 weight"] != DEFAULTS["FP8 weight"]:
        found.setdefault("Cache FP16 weight for LoRA", False)
    if uses_emphasis(told.prompt) or uses_emphasis(told.negative_prompt):
        found.setdefault("Emphasis", "Original")
    _switches(found)
    _modules(found)
    return found


def _mend_flux(found: dict[str, Any], text: str) -> None:
    """CivitAI's own generator tells Flux pictures in words of SD 1.x; Forge knows what it means."""
    last = dict(pairs(text.strip().rpartition("\n")[2]))
    if found.get("Sampler") == "Undefined" and "FLUX" in last.get("Civitai resources", ""):
        found |= {"Sampler": "Euler", "Schedule type": "Simple"}
        found["Distilled CFG Scale"] = found.get("CFG scale", "3.5")
        found["CFG scale"] = "1"
        found.pop("Clip skip", None)


def _old_hires(found: dict[str, Any]) -> None:
    """Before hires had a size of its own, the first pass had one; 0x0 meant about 512x512 pixels."""
    try:
        first = [int(found[f"First pass size-{axis}"]) for axis in (1, 2)]
        size = [int(found.get(f"Size-{axis}", 512)) for axis in (1, 2)]
    except (KeyError, ValueError):
        return
    if 0 in first:
        share = math.sqrt(512 * 512 / max(size[0] * size[1], 1))
        first = [math.ceil(share * side / 64) * 64 for side in size]
    for axis, pass_side, side in zip((1, 2), first, size, strict=True):
        found[f"Size-{axis}"], found[f"Hires resize-{axis}"] = pass_side, side


def _switches(found: dict[str, Any]) -> None:
    """What the version that wrote the text did in another way."""
    version = _version(found.get("Version", ""))
    if version is None:
        return
    if version < ((1, 6, 0), 1, 0):
        if "[" in found["Prompt"]:
            found["Old prompt editing timelines"] = True
        if found.get("Sampler") in ("DDIM", "PLMS"):
            found["Pad conds v0"] = True
    if version < ((1, 7, 0), 1, 225):
        found["Downcast alphas_cumprod"] = True
    if version < ((1, 8, 0), 1, 0) and found.get("Refiner"):
        found["Refiner switch by sampling steps"] = True


def _version(text: str) -> Version | None:
    """`v1.7.0-300-gabcdef12`, as `git describe` says it; None for what is no version of A1111's."""
    match = re.fullmatch(r"v?(\d+(?:\.\d+)*)(?:-?(rc|RC)\d*)?(?:-(\d+))?(?:-g\w+)?", text.strip())
    if match is None:
        return None
    release = tuple(map(int, match[1].split(".")))
    return (*release, 0, 0, 0)[: max(3, len(release))], int(match[2] is None), int(match[3] or 0)


def _modules(found: dict[str, Any]) -> None:
    """Forge keeps VAE and text encoders as one list."""
    vae = found.pop("VAE", None)
    own = [vae] if vae else list(_numbered(found, "Module"))
    if own:
        found["VAE/TE"] = own
    found["Hires VAE/TE"] = list(_numbered(found, "Hires Module")) or ["Use same choices"]


def _numbered(found: Mapping[str, Any], name: str) -> Iterator[Any]:
    for number in count(1):
        if f"{name} {number}" not in found:
            return
        yield found[f"{name} {number}"]


TOKENS = re.compile(
    r"\\.|(?P<open>[(\[])|:\s*(?P<weight>[+-]?[.\d]+)\s*\)|(?P<close>[)\]])|[^\\()\[\]:]+|:|\\", re.DOTALL
)
BREAK = re.compile(r"\s*\bBREAK\b\s*", re.DOTALL)
ROUND, SQUARE = 1.1, 1 / 1.1


def uses_emphasis(prompt: str) -> bool:
    """Whether a piece of the prompt has another weight than 1, as A1111 counts brackets."""
    tokens = list(TOKENS.finditer(prompt))
    factors: dict[int, float] = {}  # of an opening bracket, by its place among the tokens
    open_: dict[str, list[int]] = {"(": [], "[": []}
    closes: dict[int, int] = {}
    for place, token in enumerate(tokens):
        if bracket := token["open"]:
            open_[bracket].append(place)
        elif token["weight"] is not None and open_["("]:
            factors[closes.setdefault(place, open_["("].pop())] = _number(token["weight"])
        elif token["close"] == ")" and open_["("]:
            factors[closes.setdefault(place, open_["("].pop())] = ROUND
        elif token["close"] == "]" and open_["["]:
            factors[closes.setdefault(place, open_["["].pop())] = SQUARE
    factors |= dict.fromkeys(open_["("], ROUND) | dict.fromkeys(open_["["], SQUARE)
    within: dict[int, float] = {}  # the brackets that are open
    for place, token in enumerate(tokens):
        if place in factors:
            within[place] = factors[place]
        elif place in closes:
            within.pop(closes[place], None)
        elif _says_something(token[0]) and not math.isclose(math.prod(within.values()), 1.0, abs_tol=1e-12):
            return True
        if len(within) > 1000:  # nobody's prompt
            return True
    return False


def _says_something(piece: str) -> bool:
    return any(BREAK.split(piece))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # 1.2.3
        return 1.0
