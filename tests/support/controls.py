"""A control whose residuals follow from its hint, its weight, the latent, the time and the prompt."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from sdscratch.models.config import UNetConfig, unet_groups
from sdscratch.models.control import Residuals

__all__ = ["FakeControl"]

PLACES = ("skips", "middle", "levels")


@dataclass(frozen=True)
class FakeControl:
    """Adds one map at every place asked for, in the place's size.

    Args:
        hint: [1|n, 1, h, w].
        weight: [1|n].
    """

    config: UNetConfig
    hint: Tensor
    weight: Tensor
    places: tuple[str, ...] = PLACES

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.hint, self.weight

    @property
    def network(self) -> Hashable:
        return self.places

    def with_tensors(self, tensors: Sequence[Tensor]) -> FakeControl:
        hint, weight = tensors
        return replace(self, hint=hint, weight=weight)

    def told(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """The map, [n, 1, h, w]."""
        rows = context.mean((1, 2)) + timesteps.to(x.dtype) / 1000
        told = self.hint + x.mean(1, keepdim=True) + rows[:, None, None, None]
        return told * self.weight[:, None, None, None]

    def __call__(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Residuals:
        told = self.told(x, timesteps, context)
        sizes = [x.shape[2:]]
        for _ in self.config.multipliers:  # as the U-Net's convolutions of stride 2 do, sides are rounded up
            sizes.append(tuple(-(-side // 2) for side in sizes[-1]))

        def sized(level: int, channels: int) -> Tensor:
            return F.interpolate(told, size=sizes[level]).expand(-1, channels, -1, -1)

        down, middle, _ = unet_groups(self.config)
        widths = [self.config.channels * m for m in self.config.multipliers]
        ends = [group[-1] for group in down]
        skips = tuple(sized(end.level + (end.kind == "down"), end.outputs) for end in ends)
        levels = tuple(sized(level, width) for level, width in enumerate(widths))
        return Residuals(
            skips if "skips" in self.places else (),
            sized(len(widths) - 1, middle[0][0].outputs) if "middle" in self.places else None,
            levels if "levels" in self.places else (),
        )
