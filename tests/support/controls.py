"""A control that a test can compute by hand: what it adds follows from its hint, the latent and the prompt."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from sdscratch.models.config import UNetConfig, unet_groups
from sdscratch.models.control import Residuals

__all__ = ["FakeControl"]


@dataclass(frozen=True)
class FakeControl:
    """Adds its hint [1|n, 1, h, w] at every place asked for, in the place's size, times the weight [1|n]."""

    config: UNetConfig
    hint: Tensor
    weight: Tensor
    places: tuple[str, ...] = ("skips", "middle", "levels")

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.hint, self.weight

    @property
    def network(self) -> Hashable:
        return self.places

    def with_tensors(self, tensors: Sequence[Tensor]) -> FakeControl:
        hint, weight = tensors
        return replace(self, hint=hint, weight=weight)

    def __call__(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Residuals:
        told = self.hint + x.mean(1, keepdim=True) + context.mean((1, 2))[:, None, None, None]
        told = told * self.weight[:, None, None, None] * (1.0 + timesteps.to(x.dtype)[:, None, None, None] / 1000)

        def sized(level: int, channels: int) -> Tensor:
            for _ in range(level):  # as the U-Net's convolutions of stride 2 do, sides are rounded up
                told_size = [-(-side // 2) for side in shapes[-1]]
                shapes.append(told_size)
            size = shapes[level]
            del shapes[1:]
            return F.interpolate(told, size=size).expand(-1, channels, -1, -1)

        shapes = [list(x.shape[2:])]
        down, middle, _ = unet_groups(self.config)
        levels = [block[-1].level + (block[-1].kind == "down") for block in down]
        last = len(self.config.multipliers) - 1
        return Residuals(
            skips=tuple(
                sized(level, block[-1].outputs) for level, block in zip(levels, down, strict=True)
            )
            if "skips" in self.places
            else (),
            middle=sized(last, middle[0][0].outputs) if "middle" in self.places else None,
            levels=tuple(
                sized(level, self.config.channels * m) for level, m in enumerate(self.config.multipliers)
            )
            if "levels" in self.places
            else (),
        )
