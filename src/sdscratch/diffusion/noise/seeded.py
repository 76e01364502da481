"""Seeded noise that no picture shares, and the web UIs' ways to vary it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from sdscratch.diffusion.noise.philox import Philox

__all__ = ["BatchNoise", "Kind", "Noise", "slerp"]

Kind = Literal["cpu", "nv"]  # whose numbers: PyTorch's on the CPU, or on an NVIDIA GPU
Draw = Callable[[tuple[int, ...]], Tensor]

NEARLY_PARALLEL = 0.9995  # mean cosine above which slerp mixes by a line


def normals(kind: Kind, seed: int) -> Draw:
    """A generator: shape → the next normal numbers, float32 on the CPU."""
    if kind == "nv":
        return Philox(seed)
    generator = torch.Generator("cpu").manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=generator, dtype=torch.float32)


class Noise:
    """A source of unit noise with one random generator a picture.

    Draws are made in float32 on the CPU, whatever the device. Of kind "cpu" they are those that diffusers
    makes when given one `torch.Generator("cpu").manual_seed(seed)` a picture. What follows from the other
    arguments is the web UIs' (A1111's `modules/rng.py`), and acts on the first draw, the start noise.

    Args:
        seeds: one a picture, 0 to 2⁶⁴ − 1.
        shape: of one picture's noise, without the batch: (c, h, w).
        kind: whose numbers.
        variation_seeds: mixed into the pictures' noise; those beyond the last get 0.
        variation_strength: how much, 0 (nothing) to 1 (nothing else).
        ensd: where not 0, every later draw is by generators that begin at seed + ensd ("eta noise seed
            delta").
        resize_from: (h, w) of the latent whose noise is pasted into the middle, so that another size
            resembles it.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: tuple[int, ...],
        *,
        kind: Kind = "cpu",
        variation_seeds: Sequence[int] = (),
        variation_strength: float = 0.0,
        ensd: int = 0,
        resize_from: tuple[int, int] | None = None,
    ) -> None:
        self.shape = shape
        self._seeds, self._kind, self._ensd = tuple(seeds), kind, ensd
        self._variation = tuple(variation_seeds), variation_strength
        self._small = None if resize_from is None else (shape[0], *resize_from)
        self._generators = [normals(kind, seed) for seed in seeds]
        self._drawn = False

    def __call__(self, sigma: float | None = None, next_sigma: float | None = None) -> Tensor:
        """The next draw of every picture, stacked: [n, *shape] float32 on the CPU; of any interval."""
        if self._drawn:
            return torch.stack([draw(self.shape) for draw in self._generators])
        self._drawn = True
        start = torch.stack([self._first(index) for index in range(len(self._seeds))])
        if self._ensd:
            self._generators = [normals(self._kind, seed + self._ensd) for seed in self._seeds]
        return start

    def posterior(self, sigma: float | None = None, next_sigma: float | None = None) -> Tensor:
        """A draw before the start noise, which nothing varies: that of an encoder's posterior."""
        return torch.stack([draw(self.shape) for draw in self._generators])

    def _first(self, index: int) -> Tensor:
        """One picture's start noise."""
        own = self._generators[index]
        small = self._small
        noise = own(self.shape) if small is None else normals(self._kind, self._seeds[index])(small)
        variations, strength = self._variation
        if variations and strength:
            seed = variations[index] if index < len(variations) else 0
            noise = slerp(strength, noise, normals(self._kind, seed)(small or self.shape))
        return noise if small is None else pasted(noise, own(self.shape))


def slerp(share: float, low: Tensor, high: Tensor) -> Tensor:
    """Between two noises along a great circle (Shoemake 1985), column by column over the second dimension.

    Of one picture's [c, h, w] that is the height: the web UIs' habit. Nearly parallel ones are mixed by a
    line, with the shares the other way round.
    """
    cosine = (low / norm(low) * (high / norm(high))).sum(1, keepdim=True)
    if float(cosine.mean()) > NEARLY_PARALLEL:
        return low * share + high * (1.0 - share)
    angle = torch.acos(cosine)
    sine = torch.sin(angle)
    return torch.sin((1.0 - share) * angle) / sine * low + torch.sin(share * angle) / sine * high


def norm(x: Tensor) -> Tensor:
    """The length over the second dimension."""
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return length


def pasted(small: Tensor, into: Tensor) -> Tensor:
    """`into` [c, h, w] with the middle of another noise in its middle, as much as fits."""
    result = into.clone()
    inside, outside = [slice(None)], [slice(None)]
    for size, other in zip(into.shape[1:], small.shape[1:], strict=True):
        gap = (size - other) // 2
        length = other if gap >= 0 else other + 2 * gap
        outside.append(slice(max(gap, 0), max(gap, 0) + length))
        inside.append(slice(max(-gap, 0), max(-gap, 0) + length))
    result[tuple(outside)] = small[tuple(inside)]
    return result


class BatchNoise:
    """One generator for a whole batch, which begins anew after the start noise, as ComfyUI draws.

    Its start noise is the CPU's; what its samplers draw is made on the device, of the same seed, so by
    default as an NVIDIA GPU would. A picture depends on its place in the batch.

    Args:
        seed: 0 to 2⁶⁴ − 1.
        count: n, pictures in the batch.
        shape: of one picture's noise.
        then: whose numbers samplers get; the CPU's are of seed + 1.
    """

    def __init__(self, seed: int, count: int, shape: tuple[int, ...], *, then: Kind = "nv") -> None:
        self.shape = (count, *shape)
        self._draws = [normals("cpu", seed), normals(then, seed + (then == "cpu"))]

    def __call__(self, sigma: float | None = None, next_sigma: float | None = None) -> Tensor:
        """The next draw [n, *shape] float32 on the CPU; of any interval."""
        draw = self._draws.pop(0) if len(self._draws) > 1 else self._draws[0]
        return draw(self.shape)
