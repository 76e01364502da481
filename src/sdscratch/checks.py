"""Checks of what was typed that no range of a setting says. No torch."""

from __future__ import annotations

import math
import re
from itertools import pairwise

from sdscratch.errors import UsageError
from sdscratch.show import quoted

__all__ = [
    "DTYPES",
    "check_placement",
    "check_text",
    "parse_apg",
    "parse_freeu",
    "parse_interval",
    "parse_size",
    "parse_threshold",
]

DTYPES = ("float32", "bfloat16", "float16", "int8")
APG = (0.0, -0.5, 0.0)  # what is meant where less is said: η, momentum, the most length (0: any)


def parse_interval(text: str) -> tuple[float, float]:
    """The two noise levels in "0.28:5.42", the lower first; either may be left out.

    Raises:
        UsageError: another form, or nothing between the two.
    """
    low, colon, high = text.partition(":")
    try:
        interval = float(low or 0.0), float(high or "inf")
    except ValueError:
        interval = (0.0, 0.0)
    if not colon or not 0.0 <= interval[0] < interval[1]:
        raise UsageError(
            f"the cfg-interval is {quoted(text)}, but must be FROM:TO, two noise levels of which the first "
            "is "
            "lower, like 0.28:5.42"
        )
    return interval


def parse_size(size: str, what: str = "the size") -> tuple[int, int]:
    """The two sides in "512x768".

    Args:
        what: how an error names it.

    Raises:
        UsageError: another form.
    """
    match = re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", size.strip())
    if match is None:
        raise UsageError(f"{what} is {quoted(size)}, but must be WIDTHxHEIGHT, like 512x768")
    return int(match[1]), int(match[2])


def parse_freeu(text: str) -> tuple[float, float, float, float]:
    """The four factors in "1.5,1.6,0.9,0.2": b₁, b₂, s₁ and s₂.

    Raises:
        UsageError: another form, or a factor below 0.
    """
    values = _numbers(text)
    if len(values) != 4 or not all(0.0 <= value < math.inf for value in values):
        raise UsageError(
            f"the freeu is {quoted(text)}, but must be B1,B2,S1,S2, four factors from 0 on, like "
            "1.5,1.6,0.9,0.2 "
            "for SD 1.5"
        )
    return values[0], values[1], values[2], values[3]


def parse_apg(text: str) -> tuple[float, float, float]:
    """What adaptive projected guidance is given in "0,-0.5,15": η, the momentum β, and the most length r.

    Raises:
        UsageError: another form, or out of range.
    """
    values = _numbers(text)
    if 1 <= len(values) <= 3:
        eta, momentum, length = [*values, *APG[len(values) :]]
        if math.isfinite(eta) and -1.0 < momentum < 1.0 and 0.0 <= length < math.inf:
            return eta, momentum, length
    raise UsageError(
        f"the apg is {quoted(text)}, but must be ETA, ETA,MOMENTUM or ETA,MOMENTUM,LENGTH: the share of the "
        "parallel part, a momentum between -1 and 1, and the most that a change may be long (0: any), "
        "like 0,-0.5,15"
    )


def parse_threshold(text: str) -> tuple[float, float]:
    """What dynamic thresholding is given in "7,99.5": the scale it mimics, and a percentile, 100 by default.

    Raises:
        UsageError: another form, or out of range.
    """
    values = _numbers(text)
    mimic, percentile = values if len(values) == 2 else (values[0] if len(values) == 1 else -1.0, 100.0)
    if not (0.0 <= mimic < math.inf and 0.0 < percentile <= 100.0):
        raise UsageError(
            f"the dynamic-threshold is {quoted(text)}, but must be SCALE or SCALE,PERCENTILE: the guidance "
            "whose "
            "range is kept, and how many per cent of the values lie within its bounds, like 7,99.5"
        )
    return mimic, percentile


def _numbers(text: str) -> list[float]:
    """Numbers with commas between; none where one is no number."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        return []


def parse_sigmas(text: str) -> tuple[float, ...]:
    """Noise levels of one's own, "14.6, 7, 2.5, 0.9, 0".

    Raises:
        UsageError: fewer than two, no numbers, below 0, or not falling.
    """
    try:
        levels = tuple(float(word) for word in text.replace(",", " ").split())
    except ValueError:
        raise UsageError(f"--sigmas is {quoted(text)}, but must be numbers with commas between") from None
    if len(levels) < 2:
        raise UsageError("--sigmas needs two noise levels or more, the last usually 0")
    for before, after in pairwise(levels):
        if not (math.isfinite(before) and before > after >= 0.0):
            raise UsageError(
                f"--sigmas must fall from step to step and stay above 0 until the end, but {after:g} comes "
                f"after {before:g}"
            )
    return levels


def check_placement(device: str, dtype: str) -> None:
    """Check the names of a device and a precision; whether the device is there, only torch knows.

    Raises:
        UsageError: a name that means nothing.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?", device):
        raise UsageError(
            f"no device is called {quoted(device)}; say auto, cpu, cuda, cuda:1 (a number) or mps"
        )
    if dtype != "auto" and dtype not in DTYPES:
        raise UsageError(f"no precision is called {quoted(dtype)}; say auto, {', '.join(DTYPES)}")


def check_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes that are no UTF-8 arrive as surrogates
        raise UsageError(
            f"character {error.start + 1} of the {name} is not valid text; give it in UTF-8"
        ) from None
