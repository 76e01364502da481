"""The stages that `generate` tells of, as bars."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from sdscratch.cli.view import Advance, View

if TYPE_CHECKING:
    from sdscratch.generation.requests import Advanced, Progress, Started

__all__ = ["STAGES", "Stages"]

STAGES = {"load": "loading", "encode": "encoding", "denoise": "denoising", "decode": "decoding"}


class Stages:
    """Shows one stage at a time, until the next one begins; a context manager.

    Args:
        name: what a stage is called.
    """

    def __init__(self, view: View, name: Callable[[Started], str]) -> None:
        self.view, self.name = view, name
        self.stage = ExitStack()
        self.advance: Advance = nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        self.stage.__exit__(*raised)  # a stage that failed is not told of as one that ended

    def show(self, event: Started | Advanced | Progress) -> None:
        """A stage that begins, or goes on."""
        from sdscratch.generation.requests import Started

        if isinstance(event, Started):
            self.close()
            unit = "it" if event.stage == "denoise" else ""
            self.advance = self.stage.enter_context(self.view.stage(self.name(event), event.total, unit))
        else:
            self.advance(event.done)

    def close(self) -> None:
        """The stage has ended."""
        self.stage.close()
        self.advance = nothing


def nothing(done: float) -> None:
    """Where no stage is shown."""
