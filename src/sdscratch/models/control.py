"""What steers a U-Net from beside it: ControlNets and adapters, through one seam.

Shapes: n pictures, c channels, h × w latent positions, t tokens, d numbers a token.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from torch import Tensor

__all__ = ["Control", "Residuals"]


@dataclass(frozen=True)
class Residuals:
    """What is added to a U-Net's features at one step; what a control leaves alone is None or ().

    Attributes:
        skips: one for each skip, in the order in which the way down makes them (SD 1.x: 12), added to the
            skip where the way up takes it (ControlNet: Zhang et al. 2023, section 3.2).
        middle: added to what the middle gives (ibid.).
        levels: one for each level of the way down, added to its last features before they are halved, and so
            to the skip that they are as well (T2I-Adapter: Mou et al. 2023, eq. 2).
    """

    skips: tuple[Tensor, ...] = ()
    middle: Tensor | None = None
    levels: tuple[Tensor, ...] = ()

    def __add__(self, other: Residuals) -> Residuals:
        """What two controls add together."""
        return Residuals(
            _sums(self.skips, other.skips), _sum(self.middle, other.middle), _sums(self.levels, other.levels)
        )

    def onto_skip(self, skip: Tensor, index: int) -> Tensor:
        """A skip with what is added to it; a new tensor, for the way down may still need the old one."""
        return skip + self.skips[index] if self.skips else skip

    def onto_middle(self, x: Tensor) -> Tensor:
        """The middle's features with what is added to them."""
        return x if self.middle is None else x + self.middle

    def onto_level(self, x: Tensor, level: int | None) -> Tensor:
        """A group's features with what is added to them; `level` is the one that ends there, if one does."""
        return x + self.levels[level] if self.levels and level is not None else x


class Control(Protocol):
    """A network beside the U-Net, with its hint and its weight.

    It is a value: what it computes follows from its network and its tensors alone, so that a computation with
    it can be recorded and played back with other tensors. Its weight is a tensor, too, of one number a row.
    """

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Hint, weight, and whatever else differs from call to call; each has 1 or n rows."""
        ...

    @property
    def network(self) -> Hashable:
        """What computes; two controls of one network differ in their tensors alone."""
        ...

    def with_tensors(self, tensors: Sequence[Tensor]) -> Self:
        """The same control of other tensors, in the order of `tensors`."""
        ...

    def __call__(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Residuals:
        """Compute.

        Args:
            x: [n, c, h, w], the noisy latent without the channels that `Conditioning.concat` adds.
            timesteps: [n] float32.
            context: [n, t, d].
        """
        ...


def _sum(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    return y if x is None else x if y is None else x + y


def _sums(xs: tuple[Tensor, ...], ys: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x + y for x, y in zip(xs, ys, strict=True)) if xs and ys else xs or ys
