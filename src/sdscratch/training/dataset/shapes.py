"""A data set to begin with: coloured shapes with captions, drawn from a seed, without end and without torch.

One, two or three shapes of a kind and a colour: "a red circle", "two blue squares on a yellow background". As
with the built-in model, a background that is not named is white. Each shape lacks one colour in all pictures
(`UNSEEN`): so what a model learnt, as opposed to what it remembers, is there to be seen.
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from random import Random
from typing import TypeVar

from PIL import Image, ImageDraw

from sdscratch.errors import SdscratchError, UsageError
from sdscratch.files import make_folder, write_error

__all__ = ["BACKGROUNDS", "COLOURS", "OUTLINES", "UNSEEN", "Scene", "draw", "scene", "write_shapes"]

T = TypeVar("T")
Point = tuple[float, float]
Place = tuple[float, float, float, float]  # x, y and radius by the picture's side; tilt in radians

COLOURS = {
    "red": (222, 40, 45),
    "orange": (248, 140, 25),
    "yellow": (248, 212, 40),
    "green": (45, 165, 75),
    "blue": (40, 95, 220),
    "purple": (140, 65, 190),
    "pink": (245, 130, 185),
    "black": (28, 28, 32),
}
BACKGROUNDS = COLOURS | {"white": (255, 255, 255), "gray": (150, 150, 155)}
WHITE_SHARE = 0.5  # of backgrounds
SAID_SHARE = 0.3  # of white backgrounds whose caption says so

NUMBERS = ("a", "two", "three")
SHARES = (0.6, 0.2, 0.2)  # of one, two and three shapes
RADII = (
    (0.26, 0.40),
    (0.16, 0.21),
    (0.13, 0.17),
)  # smallest and largest for each number, by the picture's side
TILT = math.radians(8)  # at most; a square that stands on its corner is a diamond
GAP = 0.03  # between shapes, and to the edge

FINER = 4  # drawn so much larger, then reduced: smooth edges


def _turned(corners: int, first: float = -math.pi / 2, radii: Sequence[float] = (1.0,)) -> list[Point]:
    """Points around (0, 0), the first at an angle (upwards), at these distances in turn."""
    return [
        (
            radii[index % len(radii)] * math.cos(first + 2 * math.pi * index / corners),
            radii[index % len(radii)] * math.sin(first + 2 * math.pi * index / corners),
        )
        for index in range(corners)
    ]


def _cross(arm: float = 0.3, reach: float = 0.92) -> list[Point]:
    quarter = [(arm, -reach), (arm, -arm), (reach, -arm)]
    points = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]
    return points


def _heart(points: int = 60) -> list[Point]:
    """x = 16 sin³ t, y = 13 cos t − 5 cos 2t − 2 cos 3t − cos 4t, brought into the unit circle."""
    angles = [2 * math.pi * index / points for index in range(points)]
    return [
        (
            0.89 * math.sin(t) ** 3,
            -0.89 * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16
            - 0.12,
        )
        for t in angles
    ]


# Outlines within the unit circle, y downwards.
OUTLINES: dict[str, list[Point]] = {
    "circle": _turned(90, radii=(0.9,)),
    "square": _turned(4, first=math.pi / 4),
    "triangle": _turned(3),
    "star": _turned(10, radii=(1.0, 0.42)),
    "heart": _heart(),
    "ring": _turned(90, radii=(0.95,)),
    "cross": _cross(),
    "diamond": [(0.0, -1.0), (0.66, 0.0), (0.0, 1.0), (-0.66, 0.0)],
}
HOLES = {"ring": _turned(90, radii=(0.52,))}

# The colour that each shape never has.
UNSEEN = {shape: tuple(COLOURS)[(3 - index) % len(COLOURS)] for index, shape in enumerate(OUTLINES)}


@dataclass(frozen=True)
class Scene:
    """What a picture shows."""

    shape: str
    colour: str
    background: str
    places: tuple[
        tuple[float, float, float, float], ...
    ]  # x, y, radius by the picture's side; tilt in radians
    caption: str


def scene(seed: int, index: int) -> Scene:
    """Picture `index` of the data set `seed`; it depends on nothing else."""
    rng = Random(f"shapes {seed} {index}")
    shape = _pick(tuple(OUTLINES), rng)
    colour = _pick([name for name in COLOURS if name != UNSEEN[shape]], rng)
    others = [name for name in BACKGROUNDS if name not in ("white", colour)]
    background = "white" if rng.random() < WHITE_SHARE else _pick(others, rng)
    number = _number(rng.random())
    words = f"{_article(colour) if number == 1 else NUMBERS[number - 1]} {colour} {_plural(shape, number)}"
    if background != "white" or rng.random() < SAID_SHARE:
        words += f" on {_article(background)} {background} background"
    return Scene(shape, colour, background, _places(number, rng), words)


def draw(what: Scene, size: int) -> Image.Image:
    """A scene as a picture of `size` × `size` pixels."""
    side = size * FINER
    picture = Image.new("RGB", (side, side), BACKGROUNDS[what.background])
    pencil = ImageDraw.Draw(picture)
    for place in what.places:
        pencil.polygon(_placed(OUTLINES[what.shape], place, side), COLOURS[what.colour])
        if what.shape in HOLES:
            pencil.polygon(_placed(HOLES[what.shape], place, side), BACKGROUNDS[what.background])
    return picture.reduce(FINER)


def write_shapes(
    folder: Path, count: int, size: int, seed: int, report: Callable[[int], None] = lambda done: None
) -> None:
    """Make a folder of `count` pictures with `metadata.jsonl`: complete, or not there at all.

    Raises:
        UsageError: something is in the folder already.
        SdscratchError: it cannot be written.
    """
    try:
        taken = folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
    except OSError as error:
        raise SdscratchError(f"cannot read {folder}: {error.strerror}") from error
    if taken:
        raise UsageError(f"{folder} is there already, and not empty; choose another name")
    make_folder(folder.parent)
    growing = folder.parent / f".sdscratch-{secrets.token_hex(8)}.part"
    try:
        growing.mkdir()
        digits = len(str(count - 1))
        lines = []
        for index in range(count):
            name, what = f"{index:0{digits}}.png", scene(seed, index)
            draw(what, size).save(growing / name)
            lines.append(json.dumps({"file_name": name, "text": what.caption}) + "\n")
            report(index + 1)
        (growing / "metadata.jsonl").write_text("".join(lines))
        growing.rename(folder)
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def _pick(items: Sequence[T], rng: Random) -> T:
    return items[int(rng.random() * len(items))]  # `random()` alone is promised to stay as it is


def _number(drawn: float) -> int:
    one, two, _ = SHARES
    return 1 if drawn < one else 2 if drawn < one + two else 3


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _plural(shape: str, number: int) -> str:
    return shape if number == 1 else shape + ("es" if shape.endswith("s") else "s")


def _places(number: int, rng: Random) -> tuple[Place, ...]:
    """Shapes of about one size that do not touch."""
    low, high = RADII[number - 1]
    radius = low + (high - low) * rng.random()
    margin = radius + GAP
    while True:  # all anew: beside two there may be no room for a third
        points = [[margin + (1 - 2 * margin) * rng.random() for _ in "xy"] for _ in range(number)]
        if all(math.dist(one, other) > 2 * radius + GAP for one, other in combinations(points, 2)):
            return tuple((x, y, radius, TILT * (2 * rng.random() - 1)) for x, y in points)


def _placed(outline: Sequence[Point], place: Place, side: int) -> list[Point]:
    x, y, radius, tilt = place
    sine, cosine = math.sin(tilt) * radius, math.cos(tilt) * radius
    return [(side * (x + cosine * a - sine * b), side * (y + sine * a + cosine * b)) for a, b in outline]
