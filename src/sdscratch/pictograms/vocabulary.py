"""What the built-in model knows: things, each by its pictogram and the words for it, and the ten grounds.

The things lie in `concepts.txt`, which is meant to be read and edited: the best known first, in the order of
their fame, then the others by the alphabet. A line is

    <emoji> <word> / <another word for the same>

where a `*` stands before words that take no "a" and are not counted (fire, grapes).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["BACKGROUNDS", "BEST_KNOWN", "TELLING_SHAPES", "Concept", "Word", "concept", "concepts", "parse"]

# Red, green, blue in 0 to 1. A caption that names no background means white.
BACKGROUNDS: dict[str, tuple[float, float, float]] = {
    "white": (1.0, 1.0, 1.0),
    "black": (0.05, 0.05, 0.05),
    "red": (0.9, 0.2, 0.2),
    "green": (0.3, 0.75, 0.35),
    "blue": (0.25, 0.45, 0.9),
    "yellow": (1.0, 0.9, 0.35),
    "pink": (1.0, 0.7, 0.8),
    "purple": (0.6, 0.35, 0.8),
    "orange": (1.0, 0.6, 0.2),
    "gray": (0.6, 0.6, 0.6),
}

BEST_KNOWN = 300  # so many lines at the top of the list stand in the order of fame
# Things that are known by their outer shape alone; a smiley, for one, would be a disc.
_KNOWN_BY_SHAPE = """
cat, car, house, tree, sun, moon, star, heart, sunflower, bird, fish, horse, rabbit, elephant, fox,
penguin, owl, duck, chick, snake, turtle, butterfly, bee, spider, octopus, whale, dolphin, shark,
dinosaur, dragon, unicorn, giraffe, banana, grapes, cherries, pineapple, carrot, mushroom, ice
cream, train, airplane, bicycle, rocket, sailboat, truck, fire truck, helicopter, UFO, castle,
snowman, ghost, crown, sunglasses, top hat, guitar, light bulb, key, umbrella, balloon, rose,
cactus, fire, teddy bear, snowflake, Christmas tree, pine tree, palm tree, tulip, lightning bolt,
planet, pear, chili pepper, pretzel, lollipop, teapot, glass of wine, eagle, bat, snail, ant,
lizard, crab, shrimp, lobster, jellyfish, crocodile, rhino, hippo, camel, gorilla, kangaroo, llama,
squirrel, goat, deer, rooster, swan, flamingo, parrot, hedgehog, T-Rex, race car, tractor,
motorcycle, scooter, anchor, drum, trumpet, violin, saxophone, headphones, musical note, hourglass,
candle, scissors, hammer, wrench, screwdriver, axe, magnet, gear, ladder, broom, telescope, spoon,
bed, chair, toilet, bathtub, t-shirt, jeans, dress, socks, high heel, magic wand, crossed swords,
bow and arrow, bell, trophy, puzzle piece, bomb, tennis racket, skateboard, four-leaf clover, maple
leaf, bone, tooth, thumbs up, tornado, church, ferris wheel, wizard, mermaid
"""
TELLING_SHAPES = frozenset(" ".join(name.split()) for name in _KNOWN_BY_SHAPE.split(","))


@dataclass(frozen=True)
class Word:
    """What a thing may be called."""

    text: str  # "slice of pizza"
    article: bool  # whether one says "a" before it, and counts it


@dataclass(frozen=True)
class Concept:
    """One thing that can be drawn."""

    emoji: str
    words: tuple[Word, ...]

    @property
    def name(self) -> str:
        """Its first word, which no other concept has: by it, everything else refers to the concept."""
        return self.words[0].text

    @property
    def countable(self) -> bool:
        """Whether one of its words has a plural."""
        return any(word.article for word in self.words)


def parse(line: str) -> Concept:
    """One line of the list."""
    emoji, _, words = line.partition(" ")
    return Concept(
        emoji, tuple(Word(text.removeprefix("*"), text[0] != "*") for text in words.strip().split(" / "))
    )


@cache
def concepts() -> tuple[Concept, ...]:
    """All of them, the best known first."""
    text = files("sdscratch.pictograms").joinpath("concepts.txt").read_text(encoding="utf-8")
    return tuple(parse(line) for line in text.splitlines())


def concept(name: str) -> Concept:
    """The concept of this name.

    Raises:
        KeyError: there is none.
    """
    return _by_name()[name]


@cache
def _by_name() -> dict[str, Concept]:
    return {each.name: each for each in concepts()}
