"""What may be done to a model's weights where they are read: the port that add-ons fill. No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sdscratch.checkpoints.layouts import Weight

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Change"]


class Change(Protocol):
    """One add-on upon a model; several act one after another."""

    @property
    def what(self) -> str:
        """The key under which a converted model's metadata tells of it."""
        ...

    @property
    def name(self) -> str:
        """What people call it; a part of a converted model's name."""
        ...

    def apply(self, weight: Weight, tensor: Tensor) -> Tensor:
        """A weight with the change: the very tensor where it changes nothing.

        Raises:
            CheckpointError: the add-on's file is damaged.
        """
        ...

    def record(self) -> dict[str, Any]:
        """What it is, for a converted model's metadata, as JSON takes it; may read the whole file."""
        ...
