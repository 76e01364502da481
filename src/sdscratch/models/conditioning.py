"""All that a U-Net is told besides the noisy latent and the time.

Shapes: n pictures, t tokens, d numbers a token, h × w latent positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

__all__ = ["Conditioning"]


@dataclass(frozen=True)
class Conditioning:
    """What one prediction is conditioned on. Rows are n, or 1 for every picture alike.

    Attributes:
        context: [1|n, t, d], the encoded prompt; t is a multiple of the text encoder's length.
        pooled: [1|n, p], one vector a prompt, of models with more than one text encoder.
        concat: [1|n, k, h, w], channels beside the latent's: mask and masked picture of inpainting models,
            the picture of models that follow instructions.
    """

    context: Tensor
    pooled: Tensor | None = None
    concat: Tensor | None = None

    def expand(self, n: int) -> Self:
        """The same with n rows in every tensor."""
        return self._each(lambda x: x.expand(n, *x.shape[1:]))

    def to(self, dtype: torch.dtype) -> Self:
        """The same in another precision."""
        return self._each(lambda x: x.to(dtype))

    def clone(self) -> Self:
        """The same in memory of its own."""
        return self._each(Tensor.clone)

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """Several in one batch, one after another; each has the same tensors, alike but for rows."""
        first = parts[0]
        joined = {
            field.name: torch.cat([getattr(part, field.name) for part in parts])
            for field in fields(first)
            if isinstance(getattr(first, field.name), Tensor)
        }
        return replace(first, **joined)

    def tensors(self) -> tuple[Tensor | None, ...]:
        """The tensors in the order of the fields, for what records or compares a computation's inputs."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        changed = {
            field.name: change(value)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **changed)
