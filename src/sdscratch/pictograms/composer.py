"""Draws scenes: sprites resampled and laid over each other, in a few tensor operations on any device.

Shapes: n scenes, pictures [n, 3, size, size] in −1 to 1. Until the end a picture lies as [size, 3, size],
rows of channels of pixels, as sprites do (`pictograms`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from sdscratch.pictograms.backdrops import backdrops
from sdscratch.pictograms.captions import caption
from sdscratch.pictograms.mixtures import CPU, Chooser, Mixture
from sdscratch.pictograms.pictograms import SIDE, SpriteTable
from sdscratch.pictograms.scenes import SCENERIES, VIEWS, Scene, Thing
from sdscratch.pictograms.styles import STYLED
from sdscratch.pictograms.vocabulary import BACKGROUNDS
from sdscratch.pictograms.wardrobe import ACCESSORIES, HEADS, worn_at
from sdscratch.training.dataset.source import Batch

__all__ = ["Composer"]

MARGIN = 12 / SIDE  # around a dressed head, as the font leaves around its own pictograms
LEAST = 120 / SIDE  # a dressed head is drawn smaller where it needs to be, never larger


@dataclass(frozen=True)
class _Layer:
    """A sprite's place in a picture, in units of the picture's side."""

    row: int  # of the sprite table
    left: float
    top: float
    side: float


class Composer:
    """A `training.dataset.source.Source` of scenes that are chosen by a mixture.

    Everything is a function of (seed, step, index): the same scene on every machine and in every batch, and
    the same pixels but for float32's rounding.

    Args:
        size: the pictures' side in pixels.
        weights: see `Chooser`.
    """

    def __init__(
        self,
        table: SpriteTable,
        size: int = 128,
        mixture: Mixture = CPU,
        seed: int = 1,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.table = table
        self.size = size
        self.seed = seed
        self.chooser = Chooser(mixture, weights)
        self._on_device = lru_cache(maxsize=4)(self._moved)

    def weighted(self, weights: Mapping[str, float]) -> Composer:
        """The same with things that come more often, or less; see `Chooser`."""
        return Composer(self.table, self.size, self.chooser.mixture, self.seed, weights)

    def scene(self, step: int, index: int) -> Scene:
        """What stands at one index of a step's batch."""
        return self.chooser.scene(random.Random(f"{self.seed} {step} {index}"))

    def scenes(self, step: int, indices: range) -> list[Scene]:
        """What stands at these indices of a step's batch."""
        return [self.scene(step, index) for index in indices]

    def caption(self, step: int, index: int, wording: int) -> str:
        """A caption of the picture at one index; wording 0 is the one that `batch` gives with it."""
        return self._worded(self.scene(step, index), step, index, wording)

    def batch(self, step: int, indices: range, device: torch.device) -> Batch:
        """The pictures at `indices` of step `step`'s batch."""
        scenes = self.scenes(step, indices)
        captions = (self._worded(scene, step, index, 0) for scene, index in zip(scenes, indices, strict=True))
        return Batch(self.draw(scenes, device), tuple(captions))

    def held_out(self, count: int, device: torch.device) -> Batch:
        """Pictures of the mixture's kinds that no step is ever given: each shows a held-out combination."""
        kinds = random.Random(0)
        scenes: list[Scene] = []
        while len(scenes) < count:
            kind = self.chooser.kinds(kinds)
            if kind != "plain":
                scenes += self.held_out_scenes(kind, 1, seed=len(scenes))
        captions = tuple(caption(scene, random.Random(index)) for index, scene in enumerate(scenes))
        return Batch(self.draw(scenes, device), captions)

    def held_out_scenes(self, kind: str, count: int, seed: int = 0) -> list[Scene]:
        """Scenes of one kind, all of whose combinations are held out of training; see `scenes.held_out`."""
        rng = random.Random(f"held out {seed}")
        return [self.chooser.held_out(kind, rng) for _ in range(count)]

    @torch.no_grad()
    def draw(self, scenes: Sequence[Scene], device: torch.device | str = "cpu") -> Tensor:
        """[n, 3, size, size] float32 in −1 to 1, on the device."""
        sprites, views, colours = self._on_device(torch.device(device))
        canvas = self._grounds(scenes, views, colours)
        layers = [list(self._layers(scene)) for scene in scenes]
        for depth in range(max(map(len, layers))):
            chosen = [index for index, each in enumerate(layers) if len(each) > depth]
            rows = [layers[index][depth] for index in chosen]
            pixels = (
                sprites[torch.tensor([layer.row for layer in rows], device=sprites.device)].float() / 255.0
            )
            drawn = self._resampled(self._styled(pixels, [scenes[index] for index in chosen]), rows)
            at = slice(None) if len(chosen) == len(scenes) else torch.tensor(chosen, device=canvas.device)
            canvas[at] = drawn[:, :, :3] + canvas[at] * (1.0 - drawn[:, :, 3:])
        return (canvas * 2.0 - 1.0).transpose(1, 2).contiguous()

    def _worded(self, scene: Scene, step: int, index: int, wording: int) -> str:
        return caption(scene, random.Random(f"{self.seed} {step} {index} {wording}"))

    def _moved(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Sprites, views of sceneries and colours of grounds, on a device once and for all."""
        grounds = torch.tensor(list(BACKGROUNDS.values()), device=device)
        sprites, views = (
            torch.from_numpy(each).to(device) for each in (self.table.pixels, backdrops(self.size))
        )
        return sprites, views, grounds

    def _grounds(self, scenes: Sequence[Scene], views: Tensor, colours: Tensor) -> Tensor:
        """[n, size, 3, size] in 0 to 1."""
        names = list(BACKGROUNDS)
        chosen = torch.tensor([names.index(scene.background) for scene in scenes], device=colours.device)
        canvas = colours[chosen][:, None, :, None].expand(-1, self.size, -1, self.size).clone()
        with_view = [index for index, scene in enumerate(scenes) if scene.scenery]
        if with_view:
            seen = [SCENERIES.index(scenes[i].scenery) * VIEWS + scenes[i].view for i in with_view]
            canvas[with_view] = views[seen].float() / 255.0
        return canvas

    def _layers(self, scene: Scene) -> Iterator[_Layer]:
        for thing in scene.things:
            left, top = (0.5 + at - thing.scale / 2 for at in thing.at)
            for layer in self._dressed(thing):
                yield _Layer(
                    layer.row,
                    left + thing.scale * layer.left,
                    top + thing.scale * layer.top,
                    thing.scale * layer.side,
                )

    def _dressed(self, thing: Thing) -> list[_Layer]:
        """A thing and what it wears, in units of the thing's side: together they fill it as it does alone."""
        layers = [_Layer(self.table.rows[thing.concept, thing.colour], 0.0, 0.0, 1.0)]
        for name in sorted(thing.worn, key=list(ACCESSORIES).index):
            (x, y), side = worn_at(HEADS[thing.concept], ACCESSORIES[name])
            layers.append(_Layer(self.table.rows[name, ""], x - side / 2, y - side / 2, side))
        if len(layers) == 1:
            return layers
        boxes = [
            [
                corner + layer.side * value
                for value, corner in zip(box, (layer.left, layer.top) * 2, strict=True)
            ]
            for layer, box in ((layer, self.table.boxes[layer.row]) for layer in layers)
        ]
        left, top = (min(box[i] for box in boxes) for i in (0, 1))
        right, bottom = (max(box[i] for box in boxes) for i in (2, 3))
        side = max(right - left, bottom - top, LEAST) + MARGIN
        x, y = (left + right - side) / 2, (top + bottom - side) / 2
        return [
            _Layer(each.row, (each.left - x) / side, (each.top - y) / side, each.side / side)
            for each in layers
        ]

    def _styled(self, pixels: Tensor, scenes: Sequence[Scene]) -> Tensor:
        for style, styled in STYLED.items():
            at = [index for index, scene in enumerate(scenes) if scene.style == style]
            if at:
                pixels[at] = styled(pixels[at])
        return pixels

    def _resampled(self, pixels: Tensor, layers: Sequence[_Layer]) -> Tensor:
        """[m, SIDE, 4, SIDE] sprites → [m, size, 4, size] layers: each axis by one matrix product."""
        at = [(layer.left, layer.top, layer.side) for layer in layers]
        squares = torch.tensor(at, dtype=torch.float32, device=pixels.device)
        left, top, side = squares.unbind(dim=1)
        across, down = (self._averages(start, side) for start in (left, top))
        rows = down @ pixels.flatten(2)  # [m, size, 4 · SIDE]
        m = len(layers)
        return (rows.view(m, self.size * 4, SIDE) @ across.transpose(1, 2)).view(m, self.size, 4, self.size)

    def _averages(self, start: Tensor, side: Tensor) -> Tensor:
        """[m, size, SIDE]: how much each pixel of a sprite counts in each of the picture's, along one axis.

        A pixel of the picture is the mean of the sprite over the pixel's own extent, and not over less than
        one of the sprite's pixels: area averaging where a sprite is made smaller, linear interpolation where
        it is made larger.

        Args:
            start, side: [m], of the sprite in units of the picture's side.
        """
        scale = (SIDE / (self.size * side))[:, None, None]  # the sprite's pixels in one of the picture's
        middles = torch.arange(self.size, device=start.device) + 0.5
        at = (middles[None, :, None] - self.size * start[:, None, None]) * scale  # in the sprite's pixels
        edges = torch.arange(SIDE + 1, device=start.device)[None, None, :]
        return ((edges - at) / scale.clamp_min(1.0) + 0.5).clamp(0, 1).diff(dim=2)
