"""What a picture shows, before it is drawn: scenes say everything that a label or a caption needs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "RELATIONS",
    "SCENERIES",
    "STYLES",
    "VIEWS",
    "Relation",
    "Scene",
    "Thing",
    "combinations",
    "held_out",
]

HELD_OUT_SHARE = 0.1  # of all combinations


@dataclass(frozen=True)
class Thing:
    """One thing in a scene."""

    concept: str  # a concept's name
    colour: str = ""  # that it was painted in, one of `colours.HUES`; none means its own
    worn: tuple[str, ...] = ()  # of `wardrobe.ACCESSORIES`
    at: tuple[float, float] = (
        0.0,
        0.0,
    )  # right, down, from the picture's middle to its own; 1 = a picture's side
    scale: float = 0.88  # its pictogram's side; 1 = a picture's side


@dataclass(frozen=True)
class Scene:
    """What one picture shows.

    Several things are either equal ones (`count`), or two: the first stands in `relation` to the second.
    """

    things: tuple[Thing, ...]
    background: str = "white"  # one of `vocabulary.BACKGROUNDS`; where there is scenery, it says nothing
    scenery: str = ""  # one of SCENERIES, or none
    view: int = 0  # which of a scenery's pictures; below VIEWS
    style: str = ""  # one of STYLES, or none
    relation: str = ""  # one of RELATIONS, or none

    @property
    def count(self) -> int:
        """How many of its first thing there are."""
        return 1 if self.relation else len(self.things)

    @property
    def kind(self) -> str:
        """Which of `mixtures.KINDS` it belongs to: what is said of it, beside the thing's name."""
        first = self.things[0]
        said = {
            "pair": self.relation,
            "count": self.count > 1,
            "scenery": self.scenery,
            "style": self.style,
            "worn": first.worn,
            "recoloured": first.colour,
            "ground": self.background != "white",
        }
        return next((kind for kind, true in said.items() if true), "plain")


@dataclass(frozen=True)
class Relation:
    """How two things stand to each other."""

    words: tuple[str, ...]
    first: tuple[float, float]  # which way from the middle the first one lies; the second lies the other way
    either_way: bool = False  # whether the other way is as good

    @property
    def arrangement(self) -> str:
        """What one sees of it: relations that differ in the order alone are of one arrangement."""
        return "beside" if self.first[0] else "stacked"


RELATIONS: dict[str, Relation] = {
    "next to": Relation(("next to", "beside"), (-1.0, 0.0), either_way=True),
    "and": Relation(("and",), (-1.0, 0.0), either_way=True),
    "left of": Relation(("to the left of", "left of"), (-1.0, 0.0)),
    "right of": Relation(("to the right of", "right of"), (1.0, 0.0)),
    "above": Relation(("above", "over", "on top of"), (0.0, -1.0)),
    "below": Relation(("below", "under", "beneath"), (0.0, 1.0)),
}
SCENERIES = ("meadow", "night", "sea", "desert", "snow", "room")
VIEWS = 16  # pictures of each scenery
STYLES = ("pixel art", "silhouette", "outline")


def combinations(scene: Scene) -> Iterator[str]:
    """What a scene puts together, one text for each: "colour: apple, blue".

    Whatever may be said with the same words is the same combination: "a cat left of a dog" and "a dog next to
    a cat" are one.
    """
    names = [thing.concept for thing in scene.things]
    if scene.relation:
        yield f"{RELATIONS[scene.relation].arrangement}: {', '.join(sorted(names))}"
    elif len(names) > 1:
        yield f"count: {names[0]}, {len(names)}"
    for thing in scene.things[: 2 if scene.relation else 1]:
        if thing.colour:
            yield f"colour: {thing.concept}, {thing.colour}"
        if thing.worn:
            yield f"worn: {thing.concept}, {', '.join(sorted(thing.worn))}"
        if scene.scenery:
            yield f"scenery: {thing.concept}, {scene.scenery}"
        elif scene.background != "white":
            yield f"ground: {thing.concept}, {scene.background}"
        if scene.style:
            yield f"style: {thing.concept}, {scene.style}"


def held_out(combination: str) -> bool:
    """Whether a combination is of the tenth that no training picture ever shows: for ever the same tenth."""
    digest = hashlib.blake2b(combination.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < HELD_OUT_SHARE * 2**64
