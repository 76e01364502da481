"""Stable Diffusion 1.x written from scratch: `from sdscratch import load` (see `generation.pipeline`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdscratch.version import __version__

if TYPE_CHECKING:
    from sdscratch.generation.pipeline import Pipeline, load

__all__ = ["Pipeline", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # torch takes a second to import; the command line's help should not wait for it
    if name in ("Pipeline", "load"):
        from sdscratch.generation import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
