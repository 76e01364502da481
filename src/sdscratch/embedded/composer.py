"""Training samples, made on the fly: a sprite on a coloured background, and a sentence that says so.

Everything is a function of a seed: sample k of seed s is the same on every machine and in every batch.
Shapes: n samples, pictures [n, 3, size, size] in −1 to 1.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sdscratch.embedded.concepts import BACKGROUNDS
from sdscratch.embedded.pictograms import Sprite, SpriteTable

__all__ = ["Composer", "Scene", "caption", "indefinite"]

SCALES = (0.82, 0.94)  # a sprite's side, in units of the picture's
SHIFT = 0.02  # of a sprite from the middle, at most; more makes shapes slow to learn
WHITE_SHARE = 0.35
WHITE_SILENT = 0.7  # how often a white background is not spoken of
OVERSAMPLING = 2  # the picture is sampled this much finer, then averaged down: antialiasing

ARTICLES = (("a", 0.5), ("the", 0.12), ("", 0.38))
OPENINGS = (
    ("", 0.9),
    ("a picture of", 0.03),
    ("a photo of", 0.03),
    ("a drawing of", 0.02),
    ("an emoji of", 0.02),
)
# They change nothing here: a prompt may say more than pictograms can show.
ADJECTIVES = ("cute", "little", "big", "happy", "beautiful", "nice", "small", "funny")
ADJECTIVE_SHARE = 0.05
GROUNDS = (
    ("on a {} background", 0.75),
    ("on {}", 0.1),
    ("against a {} background", 0.05),
    ("with a {} background", 0.1),
)
WEARING = (("wearing", 0.8), ("with", 0.2))


@dataclass(frozen=True)
class Scene:
    """What one sample shows, before it is drawn."""

    sprite: int
    background: str
    scale: float
    shift: tuple[float, float]  # right, down; of the sprite's middle from the picture's, in units of its side
    caption: str


class Composer:
    """Draws scenes from a sprite table.

    Args:
        size: the pictures' side in pixels.
    """

    def __init__(self, table: SpriteTable, size: int = 64) -> None:
        self.table = table
        self.size = size
        self.weights = [sprite.weight for sprite in table.sprites]

    def scene(self, chance: random.Random) -> Scene:
        """Choose sprite, background, place and words."""
        (index,) = chance.choices(range(len(self.weights)), self.weights)
        colours = list(BACKGROUNDS)
        background = "white" if chance.random() < WHITE_SHARE else chance.choice(colours[1:])
        scale = chance.uniform(*SCALES)
        room = min(SHIFT, (1.0 - scale) / 2)
        shift = (chance.uniform(-room, room), chance.uniform(-room, room))
        return Scene(index, background, scale, shift, caption(self.table.sprites[index], background, chance))

    def scenes(self, seed: int, count: int) -> list[Scene]:
        """`count` scenes; another seed gives others."""
        chance = random.Random(seed)
        return [self.scene(chance) for _ in range(count)]

    def draw(self, scenes: list[Scene]) -> Tensor:
        """[n, 3, size, size] float32 in −1 to 1: each sprite resampled once, over its background."""
        pixels = torch.from_numpy(self.table.pixels[[scene.sprite for scene in scenes]])
        rgba = pixels.permute(0, 3, 1, 2).float() / 255.0
        alpha = rgba[:, 3:]
        # resampling must see colours multiplied by alpha, else what is transparent bleeds into the edges
        layers = torch.cat([rgba[:, :3] * alpha, alpha], dim=1)

        scale = torch.tensor([scene.scale for scene in scenes])
        shift = torch.tensor([scene.shift for scene in scenes])
        fine = OVERSAMPLING * self.size
        axis = (torch.arange(fine) + 0.5) / fine - 0.5  # positions in the picture, −½ to ½
        # and in the sprite, −1 to 1
        x, y = (2.0 * (axis[None, :] - shift[:, i, None]) / scale[:, None] for i in (0, 1))
        grid = torch.stack([x[:, None, :].expand(-1, fine, -1), y[:, :, None].expand(-1, -1, fine)], dim=-1)
        sampled = F.grid_sample(layers, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        small = F.avg_pool2d(sampled, OVERSAMPLING)  # [n, 4, size, size]

        ground = torch.tensor([BACKGROUNDS[scene.background] for scene in scenes])[:, :, None, None]
        return (small[:, :3] + ground * (1.0 - small[:, 3:])) * 2.0 - 1.0


def caption(sprite: Sprite, background: str, chance: random.Random) -> str:
    """A sentence about a sprite on a background; a white one is mostly not spoken of."""
    name = chance.choice(sprite.names)
    if chance.random() < ADJECTIVE_SHARE:
        name = f"{chance.choice(ADJECTIVES)} {name}"
    words = [_pick(OPENINGS, chance), _noun(name, sprite.article, chance)]
    if sprite.wearing:
        words += [_pick(WEARING, chance), sprite.wearing]
    if background != "white" or chance.random() > WHITE_SILENT:
        words.append(_pick(GROUNDS, chance).format(background).replace("a orange", "an orange"))
    return " ".join(word for word in words if word)


def _noun(name: str, takes_article: bool, chance: random.Random) -> str:
    article = _pick(ARTICLES, chance)
    if article == "a":
        article = indefinite(name) if takes_article else ""
    return f"{article} {name}".strip()


def _pick(choices: tuple[tuple[str, float], ...], chance: random.Random) -> str:
    return chance.choices([text for text, _ in choices], [weight for _, weight in choices])[0]


def indefinite(name: str) -> str:
    """The article "a" or "an", by ear."""
    vowel = name.startswith(("a", "e", "i", "o", "u", "hour")) and not name.startswith(("uni", "ewe"))
    return "an" if vowel else "a"
