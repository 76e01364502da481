"""Checks of what was typed that no range of a setting says. No torch."""

from __future__ import annotations

import re

from sdscratch.errors import UsageError

__all__ = ["DTYPES", "check_placement", "check_text", "parse_interval"]

DTYPES = ("float32", "bfloat16", "float16")


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
            f"the cfg-interval is {text!r}, but must be FROM:TO, two noise levels of which the first is "
            "lower, like 0.28:5.42"
        )
    return interval


def check_placement(device: str, dtype: str) -> None:
    """Check the names of a device and a precision; whether the device is there, only torch knows.

    Raises:
        UsageError: a name that means nothing.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?", device):
        raise UsageError(f"no device is called {device!r}; say auto, cpu, cuda, cuda:1 (a number) or mps")
    if dtype != "auto" and dtype not in DTYPES:
        raise UsageError(f"no precision is called {dtype!r}; say auto, {', '.join(DTYPES)}")


def check_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes that are no UTF-8 arrive as surrogates
        raise UsageError(
            f"character {error.start + 1} of the {name} is not valid text; give it in UTF-8"
        ) from None
