"""The picture, its record, and the command that makes it again."""

from __future__ import annotations

import base64
import io
import json
import shlex
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from sdscratch.explain.capture import Run
from sdscratch.images import Record, save_picture
from sdscratch.options import ResolvedOptions
from sdscratch.settings import kind_of, option_name, settings_of

__all__ = ["command", "option_words", "picture_view"]


def picture_view(run: Run, again: Sequence[str]) -> dict[str, Any]:
    """What the stage shows.

    Args:
        again: the words of the command that draws the picture once more.
    """
    assert run.picture is not None
    record = run.picture.record()
    buffer = io.BytesIO()
    save_picture(run.picture.image, buffer, record)
    said = json.loads(record.to_json())
    return {
        "png": base64.b64encode(buffer.getvalue()).decode(),
        "size": run.picture.image.size,
        "bytes": f"{len(buffer.getvalue()):,}",
        "seed": record.options.seed,
        "rows": rows(said),
        "record": json.dumps(said, indent=2, ensure_ascii=False),
        "infotext": record.infotext(),
        "command": shlex.join(again),
        "model": record.model,
        "model_hash": record.model_hash,
    }


def rows(said: dict[str, Any]) -> list[tuple[str, str]]:
    """A record as names and values, options among them."""
    found = []
    for name, value in said.items():
        if name == "options":
            found += [(key.replace("_", " "), shown(each)) for key, each in value.items()]
        else:
            found.append((name.replace("_", " "), shown(value)))
    return [(name, value) for name, value in found if value != ""]


def shown(value: Any) -> str:
    """A value as text."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def command(record: Record, words: Sequence[str], init: str | None) -> list[str]:
    """The command that draws a picture again.

    Args:
        words: its options.
        init: the picture that it starts from, as it was named.
    """
    prompt = record.options.prompt
    last = ["--", prompt] if prompt.startswith("-") else [prompt]
    if init is None:
        return ["sdscratch", "txt2img", *words, *last]
    return ["sdscratch", "img2img", *words, "--init-img", init, *last]


def option_words(options: ResolvedOptions, plain: ResolvedOptions, typed: Sequence[str] = ()) -> list[str]:
    """The options that make of a plain request this one.

    Args:
        plain: what it would be without any of them.
        typed: names of fields that are said though they are the same.
    """
    hints, words = get_type_hints(ResolvedOptions), []
    settings = settings_of(ResolvedOptions)
    for each in fields(ResolvedOptions):
        value = getattr(options, each.name)
        same = value == getattr(plain, each.name) and each.name not in typed
        if each.name not in settings or value is None or (same and each.name != "seed"):
            continue
        name = option_name(each.name)
        if kind_of(hints[each.name]) is bool:
            negative = settings[each.name].negative or name.replace("--", "--no-", 1)
            words.append(name if value else negative)
        elif isinstance(value, tuple):
            words += [word for item in value for word in (name, str(item))]
        else:
            words += [name, f"{value}"]
    return words
