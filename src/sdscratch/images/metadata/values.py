"""JSON from strangers, and its values in the web UIs' words, so that settings of any tool read alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["a_list", "an_object", "json_object", "named", "said", "size_of"]

LONGEST = 16 << 20  # characters of JSON that are parsed


def json_object(text: str | None) -> dict[str, Any] | None:
    """The object in a text; None where it is anything else."""
    if text is None or len(text) > LONGEST or not text.lstrip("\ufeff \t\r\n").startswith("{"):
        return None
    try:
        value = json.loads(text.lstrip("\ufeff").rstrip("\0"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def an_object(value: Any) -> dict[str, Any]:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def a_list(value: Any) -> list[Any]:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def said(value: Any) -> str:
    """A value as the web UIs write it: numbers without needless digits, True and False, nothing for null."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.10g}"
    return (
        value
        if isinstance(value, str)
        else json.dumps(value)
        if isinstance(value, dict | list)
        else str(value)
    )


def named(values: Mapping[str, Any], names: Mapping[str, str], drop: Iterable[str] = ()) -> dict[str, str]:
    """Values under the web UIs' keys where `names` knows one, then the rest under their own.

    What says nothing is left out, and what is in `drop`.
    """
    found = {key: said(values[own]) for own, key in names.items() if own in values}
    rest = {own: said(value) for own, value in values.items() if own not in names and own not in drop}
    return {key: text for key, text in (found | rest).items() if text}


def size_of(values: Mapping[str, Any]) -> dict[str, str]:
    """`Size` of a width and a height."""
    width, height = values.get("width"), values.get("height")
    return {"Size": f"{said(width)}x{said(height)}"} if width and height else {}
