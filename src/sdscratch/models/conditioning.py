"""All that a U-Net is told besides the noisy latent and the time.

Shapes: n pictures, t tokens, d numbers a token, h × w latent positions.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import Field, dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from sdscratch.models.control import Control, Residuals, stacked

__all__ = ["Conditioning"]


@dataclass(frozen=True)
class Conditioning:
    """What one prediction is conditioned on. Rows are n, or 1 for every picture alike.

    Attributes:
        context: [1|n, t, d], the encoded prompt; t is a multiple of the text encoder's length.
        pooled: [1|n, p], one vector a prompt, of models with more than one text encoder.
        concat: [1|n, k, h, w], channels beside the latent's: mask and masked picture of inpainting models,
            the picture of models that follow instructions.
        controls: what steers from beside: ControlNets and adapters; their residuals add up.
        sizes: [1|n, 6], of models that are told a picture's height and width, where it was cropped (top,
            left), and the height and width wanted (Podell et al. 2023, section 2.2), all in pixels.
        guidance: [1|n, g], the guidance scale as `guidance_embedding` has it, of models that are told it.
    """

    context: Tensor
    pooled: Tensor | None = None
    concat: Tensor | None = None
    controls: tuple[Control, ...] = ()
    sizes: Tensor | None = None
    guidance: Tensor | None = None

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
        """Several in one batch, one after another; each has the same tensors, alike but for rows.

        A control that only some of them have steers their rows alone.

        Raises:
            ValueError: one has a tensor that another lacks.
        """
        first = parts[0]
        present = [tuple(value is not None for value in part._own()) for part in parts]
        if any(each != present[0] for each in present):
            raise ValueError("conditionings of different kinds cannot be one batch")
        own = {
            field.name: torch.cat([getattr(part, field.name) for part in parts])
            for field, there in zip(first._own_fields(), present[0], strict=True)
            if there
        }
        controls = stacked([(len(part.context), part.controls) for part in parts])
        return replace(first, controls=controls, **own)

    def residuals(self, x: Tensor, timesteps: Tensor) -> Residuals:
        """What the controls add to the features at this step, [n, …]; x and timesteps as of a `Control`."""
        added = Residuals()
        for control in self.controls:
            added += control(x, timesteps, self.context)
        return added

    @property
    def kind(self) -> Hashable:
        """What of it is no tensor: equal kinds of equal shapes are one computation."""
        present = tuple(value is not None for value in self._own())
        return present, tuple((control.network, len(control.tensors)) for control in self.controls)

    def tensors(self) -> tuple[Tensor | None, ...]:
        """Its own tensors and the controls', for what records or compares a computation's inputs."""
        return (*self._own(), *(tensor for control in self.controls for tensor in control.tensors))

    def _own(self) -> tuple[Tensor | None, ...]:
        return tuple(getattr(self, field.name) for field in self._own_fields())

    def _own_fields(self) -> tuple[Field[Any], ...]:
        return tuple(field for field in fields(self) if field.name != "controls")

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Every tensor changed, in the order of `tensors`."""
        changed = {
            field.name: change(value)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        controls = tuple(
            control.with_tensors([change(tensor) for tensor in control.tensors]) for control in self.controls
        )
        return replace(self, controls=controls, **changed)
