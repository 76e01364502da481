"""What heads wear, and where: measured on the pictograms, in units of their side (0 0 = top left)."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ACCESSORIES", "HEADS", "Accessory", "Head", "Placed", "sets", "worn_at"]


class Head(NamedTuple):
    """Where a head that looks at us wears things."""

    eyes: tuple[float, float]  # the middle between the eyes
    gap: float  # from eye to eye
    brim: float  # how far down a hat's brim sits
    hat: float  # width of a hat


class Accessory(NamedTuple):
    """A thing that heads wear; itself a concept of the same name."""

    words: str  # "a top hat"
    slot: str  # "eyes" or "head": one thing in each
    width: float  # of its pictogram, in units of the gap between the eyes or of the hat's width
    anchor: tuple[float, float]  # the point of its pictogram that comes to the eyes' middle or the brim


class Placed(NamedTuple):
    """A pictogram somewhere, in units of another's side."""

    middle: tuple[float, float]
    side: float


# The lenses of both glasses are 0.475 of the pictogram's side apart; they look right a little further out.
ACCESSORIES: dict[str, Accessory] = {
    "sunglasses": Accessory("sunglasses", "eyes", 2.4, (0.5, 0.5)),
    "glasses": Accessory("glasses", "eyes", 2.4, (0.5, 0.5)),
    "top hat": Accessory("a top hat", "head", 1.0, (0.5, 0.84)),
    "crown": Accessory("a crown", "head", 1.0, (0.5, 0.84)),
    "graduation cap": Accessory("a graduation cap", "head", 1.15, (0.5, 0.72)),
    "sun hat": Accessory("a sun hat", "head", 1.25, (0.5, 0.78)),
}

HEADS: dict[str, Head] = {
    "dog": Head((0.505, 0.52), 0.285, 0.20, 0.55),
    "cat": Head((0.495, 0.52), 0.37, 0.26, 0.52),
    "mouse": Head((0.50, 0.59), 0.27, 0.36, 0.46),
    "hamster": Head((0.50, 0.545), 0.30, 0.28, 0.52),
    "rabbit": Head((0.50, 0.585), 0.23, 0.46, 0.46),
    "fox": Head((0.50, 0.56), 0.245, 0.33, 0.50),
    "bear": Head((0.50, 0.465), 0.325, 0.15, 0.58),
    "polar bear": Head((0.50, 0.375), 0.345, 0.24, 0.52),
    "panda": Head((0.50, 0.52), 0.35, 0.20, 0.56),
    "koala": Head((0.50, 0.51), 0.31, 0.25, 0.52),
    "tiger": Head((0.50, 0.335), 0.35, 0.13, 0.58),
    "lion": Head((0.50, 0.39), 0.225, 0.17, 0.56),
    "cow": Head((0.515, 0.445), 0.25, 0.24, 0.50),
    "pig": Head((0.495, 0.54), 0.39, 0.22, 0.58),
    "frog": Head((0.50, 0.335), 0.45, 0.24, 0.52),
    "monkey": Head((0.495, 0.465), 0.215, 0.20, 0.58),
    "wolf": Head((0.50, 0.47), 0.29, 0.20, 0.54),
    "raccoon": Head((0.51, 0.53), 0.24, 0.27, 0.58),
    "alien": Head((0.50, 0.47), 0.36, 0.17, 0.60),
    "robot": Head((0.50, 0.42), 0.30, 0.22, 0.60),
    "skull": Head((0.50, 0.50), 0.33, 0.20, 0.60),
    "smiley": Head((0.50, 0.39), 0.30, 0.17, 0.62),
    "pumpkin": Head((0.50, 0.46), 0.37, 0.22, 0.55),
    "teddy bear": Head((0.50, 0.26), 0.16, 0.14, 0.36),
    "owl": Head((0.50, 0.32), 0.30, 0.16, 0.46),
    "man": Head((0.50, 0.54), 0.27, 0.22, 0.66),
    "woman": Head((0.50, 0.48), 0.27, 0.17, 0.66),
    "boy": Head((0.50, 0.52), 0.27, 0.22, 0.66),
    "girl": Head((0.50, 0.50), 0.27, 0.20, 0.66),
    "baby": Head((0.50, 0.52), 0.27, 0.24, 0.60),
}


def worn_at(head: Head, accessory: Accessory) -> Placed:
    """Where the accessory's pictogram goes, in units of the head's."""
    eyes = accessory.slot == "eyes"
    side = accessory.width * (head.gap if eyes else head.hat)
    at = head.eyes if eyes else (head.eyes[0], head.brim)
    x, y = (a + (0.5 - b) * side for a, b in zip(at, accessory.anchor, strict=True))
    return Placed((x, y), side)


def sets() -> tuple[tuple[str, ...], ...]:
    """Everything that can be worn at once: one thing, or one for the eyes and one on the head."""
    eyes, head = (
        [name for name, each in ACCESSORIES.items() if each.slot == slot] for slot in ("eyes", "head")
    )
    pairs = [(first, second) for first in eyes for second in head]
    return tuple((name,) for name in ACCESSORIES) + tuple(pairs)
