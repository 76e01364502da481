"""Sketches of scenes, as a hand may draw them, with what was sketched: what the scribble adapter learns from.

A sketch has one channel. Its strokes are the things' contours, or the lines within them, or both; thin or
thick, hard or soft, a little off their place, sometimes broken; light on black or dark on white, for people
have both. All of it is a function of (seed, step, index).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sdscratch.pictograms.composer import Composer
from sdscratch.pictograms.mixtures import CPU
from sdscratch.pictograms.scenes import Scene
from sdscratch.training.dataset.source import Latents
from sdscratch.training.engine.rng import generator, seed_of
from sdscratch.training.tasks.latents import Encode

__all__ = ["SKETCHED", "SketchedLatents", "contours", "lines", "sketch"]

# Of one thing mostly, at any size and place: that is what a sketch is there to say.
SKETCHED = replace(
    CPU,
    shares={
        **dict.fromkeys(CPU.shares, 0.02),
        "plain": 0.48,
        "ground": 0.26,
        "count": 0.08,
        "pair": 0.08,
    },
    anywhere=0.65,
    small=(0.34, 0.82),
)

SEEN = 0.08  # from this difference to the ground on, of 1, a pixel belongs to a thing
SHARPNESS = 5.0  # a step of a fifth of the full range is a whole line

PASSES = 8  # how often a picture is sketched, each time anew: encoding it takes half a step
BUFFER = 96  # pictures of an index that are sketched in turn


def contours(pictures: Tensor, grounds: Tensor) -> Tensor:
    """Where things begin, from what their scenes look like with and without them.

    Args:
        pictures: [n, 3, h, w] in −1 to 1.
        grounds: the same.

    Returns:
        [n, 1, h, w]: 1 on a contour two pixels wide, 0 elsewhere.
    """
    shape = ((pictures - grounds).abs().amax(1, keepdim=True) > 2.0 * SEEN).float()
    return F.max_pool2d(shape, 3, 1, 1) + F.max_pool2d(-shape, 3, 1, 1)


def lines(pictures: Tensor) -> Tensor:
    """How much each pixel differs from its neighbours: [n, 3, h, w] in −1 to 1 → [n, 1, h, w] in 0 to 1."""
    levels = pictures * 0.5
    steps = F.max_pool2d(levels, 3, 1, 1) + F.max_pool2d(-levels, 3, 1, 1)
    return (steps.amax(1, keepdim=True) * SHARPNESS - 0.3).clamp(0.0, 1.0)


def sketch(contour: Tensor, inner: Tensor, rng: torch.Generator) -> Tensor:
    """One sketch, of many that a hand may draw.

    Args:
        contour: [1, h, w], as of `contours`.
        inner: [1, h, w], as of `lines`.
        rng: of the CPU.

    Returns:
        [1, h, w] in 0 to 1.
    """

    def chance(share: float) -> bool:
        return float(torch.rand((), generator=rng)) < share

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=rng))

    kind = between(0.0, 1.0)
    strokes = contour if kind < 0.4 else inner if kind < 0.7 else torch.maximum(contour, inner)
    if chance(0.5):  # hard, as a threshold leaves them
        strokes = (strokes > 0.5).float()
    strokes = _displaced(strokes[None], between(0.0, 3.0), rng)
    width = int(between(0.0, 3.99))
    if width and (kind < 0.4 or width < 2):
        strokes = F.max_pool2d(strokes, 2 * width + 1, 1, width)
    if chance(0.4):
        strokes = F.avg_pool2d(strokes, 3, 1, 1, count_include_pad=False)
    if chance(0.25):
        strokes = strokes * (_smooth(strokes, 6, rng) > -0.9).float()  # broken
    strokes = strokes[0].clamp(0.0, 1.0) * between(0.55, 1.0)
    return 1.0 - strokes if chance(0.5) else strokes


def _smooth(like: Tensor, cells: int, rng: torch.Generator) -> Tensor:
    """Smooth noise about 0, a hill or hollow a cell: [1, 1, h, w]."""
    coarse = torch.randn(1, 1, cells, cells, generator=rng)
    return F.interpolate(coarse, like.shape[2:], mode="bicubic", align_corners=True)


def _displaced(strokes: Tensor, pixels: float, rng: torch.Generator) -> Tensor:
    """[1, 1, h, w], each pixel taken from up to about so many pixels away: a hand is never exact."""
    height, width = strokes.shape[2:]
    offsets = torch.cat([_smooth(strokes, 5, rng) for _ in range(2)], dim=1).permute(0, 2, 3, 1)
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[None]
    step = torch.tensor([2.0 / width, 2.0 / height]) * pixels * 0.6
    return F.grid_sample(strokes, grid + offsets * step, align_corners=True)


@dataclass
class _Shown:
    """A picture that is sketched several times."""

    latent: Tensor  # [c, h, w]
    contour: Tensor  # [1, H, W] uint8, 0 to 255
    inner: Tensor
    caption: str


@dataclass
class _Buffer:
    """What one index of a batch shows for a while."""

    filling: int
    shown: dict[int, _Shown] = field(default_factory=dict)


class SketchedLatents:
    """A `LatentSource` with hints: scenes of a composer, encoded, and sketched anew each time."""

    def __init__(self, composer: Composer, encode: Encode, device: torch.device, seed: int) -> None:
        self.composer, self.encode, self.device, self.seed = composer, encode, device, seed
        self.buffers: dict[int, _Buffer] = {}

    def __call__(self, step: int, indices: range) -> Latents:
        """The scenes at `indices` of step `step`'s batch."""
        filling, within = divmod(step, PASSES * BUFFER)
        turn, position = divmod(within, BUFFER)
        found: list[_Shown] = []
        sketches: list[Tensor] = []
        captions: list[str] = []
        for index in indices:
            row = self._order(index, filling, turn)[position]
            shown = self._shown(index, filling, row)
            rng = generator("cpu", self.seed, "sketch", step, index)
            sketches.append(sketch(shown.contour / 255.0, shown.inner / 255.0, rng))
            at = BUFFER * filling + row
            captions.append(self.composer.caption(at, index, turn) if turn else shown.caption)
            found.append(shown)
        latents = torch.stack([shown.latent for shown in found])
        return Latents(latents, tuple(captions), torch.stack(sketches).to(self.device))

    def _order(self, index: int, filling: int, turn: int) -> Sequence[int]:
        order = list(range(BUFFER))
        random.Random(seed_of(self.seed, "order", filling, turn, index)).shuffle(order)
        return order

    def _shown(self, index: int, filling: int, row: int) -> _Shown:
        buffer = self.buffers.get(index)
        if buffer is None or buffer.filling != filling:
            buffer = self.buffers[index] = _Buffer(filling)
        if row not in buffer.shown:
            buffer.shown[row] = self._made(BUFFER * filling + row, index)
        return buffer.shown[row]

    def _made(self, step: int, index: int) -> _Shown:
        """Encoded by itself: in a batch its last bits would be others, and a resumed run would differ."""
        scene = self.composer.scene(step, index)
        picture, ground = (self.composer.draw([each], self.device) for each in (scene, emptied(scene)))
        contour, inner = (
            (255 * each[0]).round().to("cpu", torch.uint8)
            for each in (contours(picture, ground), lines(picture))
        )
        return _Shown(self.encode(picture)[0], contour, inner, self.composer.caption(step, index, 0))


def emptied(scene: Scene) -> Scene:
    """Its ground alone."""
    return replace(scene, things=(), style="")
