"""Stable Diffusion 1.x written from scratch: `from sdscratch import load` (see `sdscratch.pipeline.load`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdscratch.pipeline import Pipeline, load

__all__ = ["Pipeline", "__version__", "load"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # torch takes a second to import; the command line's help should not wait for it
    if name in ("Pipeline", "load"):
        from sdscratch import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
