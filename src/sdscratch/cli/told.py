"""What `--json` says of a picture, in every command that draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdscratch.images import Record

__all__ = ["json_of"]

ADDONS = ("vae", "taesd", "upscaler")  # of which a picture has one


def json_of(path: str | None, record: Record, timings: Mapping[str, float]) -> dict[str, Any]:
    """What `--json` says of a picture."""
    lists = {name: getattr(record, name) for name in ("loras", "embeddings", "controls")}
    return {
        "path": path,
        "seed": record.options.seed,
        "prompt": record.options.prompt,
        "options": asdict(record.options),
        "model_hash": record.model_hash,
        **{name: [each.to_record() for each in several] for name, several in lists.items() if several},
        **{name: each.to_record() for name in ADDONS if (each := getattr(record, name))},
        "timings": {name: round(seconds, 3) for name, seconds in timings.items()},
    }
