"""What a scene is called: the same scene in many words, by any generator of random numbers."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from sdscratch.pictograms.colours import RECOLOURED
from sdscratch.pictograms.scenes import RELATIONS, Scene, Thing
from sdscratch.pictograms.vocabulary import Word, concept
from sdscratch.pictograms.wardrobe import ACCESSORIES

__all__ = ["caption", "indefinite", "plural"]

Choices = tuple[tuple[str, float], ...]  # texts, and how often each is said

WHITE_SPOKEN = 0.2  # how often a white ground is spoken of
OWN_COLOUR_SPOKEN = 0.12  # how often a thing's own colour is

ARTICLES: Choices = (("a", 0.55), ("the", 0.1), ("", 0.35))
OPENINGS: Choices = (
    ("", 0.9),
    ("a picture of", 0.03),
    ("a photo of", 0.02),
    ("a drawing of", 0.02),
    ("an emoji of", 0.02),
    ("an image of", 0.01),
)
# They change nothing here: a prompt may say more than pictograms can show.
ADJECTIVES = ("cute", "happy", "beautiful", "nice", "funny")
ADJECTIVE_SHARE = 0.04
# These do: of a single thing below this scale.
SMALL = ("small", "little", "tiny")
SMALL_BELOW, SMALL_SPOKEN = 0.7, 0.6
GROUNDS: Choices = (
    ("on a {} background", 0.75),
    ("on {}", 0.1),
    ("against a {} background", 0.05),
    ("with a {} background", 0.1),
)
SPELLINGS = {"gray": ("gray", "grey")}
WEARING: Choices = (("wearing", 0.8), ("with", 0.2))
SCENERY_WORDS: dict[str, Choices] = {
    "meadow": (("on a meadow", 0.4), ("on the grass", 0.3), ("in a field", 0.3)),
    "night": (("at night", 0.5), ("under the stars", 0.3), ("under a night sky", 0.2)),
    "sea": (("on the sea", 0.4), ("at sea", 0.3), ("in the ocean", 0.3)),
    "desert": (("in the desert", 0.7), ("in a desert", 0.3)),
    "snow": (("in the snow", 0.7), ("in winter", 0.3)),
    "room": (("in a room", 0.6), ("in the living room", 0.4)),
}
STYLE_WORDS: dict[str, Choices] = {
    "pixel art": (("pixel art of {}", 0.5), ("{} in pixel art style", 0.2), ("{}, pixel art", 0.3)),
    "silhouette": (("a silhouette of {}", 0.5), ("the silhouette of {}", 0.3), ("{}, silhouette", 0.2)),
    "outline": (
        ("an outline drawing of {}", 0.5),
        ("a line drawing of {}", 0.3),
        ("{}, outline drawing", 0.2),
    ),
}
COLOURLESS = ("silhouette", "outline")
NUMBERS = {2: "two", 3: "three", 4: "four"}

# What begins with a vowel to the ear, and what only to the eye.
VOWELS = (*"aeiouAEIO", "hour", "SUV", "SOS", "8")
NO_VOWELS = ("uni", "ewe", "euro", "Euro", "one")

SAME_IN_PLURAL = ("sheep", "fish", "deer", "shrimp", "squid", "bison", "aircraft", "sushi")
IRREGULAR = {
    "mouse": "mice",
    "man": "men",
    "woman": "women",
    "child": "children",
    "person": "people",
    "tooth": "teeth",
    "foot": "feet",
    "goose": "geese",
    "die": "dice",
    "wolf": "wolves",
    "knife": "knives",
    "leaf": "leaves",
    "loaf": "loaves",
    "elf": "elves",
    "scarf": "scarves",
    "ox": "oxen",
    "cactus": "cacti",
    "hippopotamus": "hippos",
    "crossbones": "crossbones",
    "sheaf": "sheaves",
    "thumbs up": "thumbs up",
    "thumbs down": "thumbs down",
}
# A plural belongs to what stands before these: "slices of pizza", "faces with heart eyes", "people running".
HEADS_OF_PHRASES = (
    re.compile(r"(.+?)( (?:of|with|in|on|from|behind|over|to) .+)"),
    re.compile(r"((?:.+ )?(?:person|woman|man|airplane|monkey|hand|face))( \w+ing\b.*)"),
)
TWICE = re.compile(r"(woman|man) (\w+)")  # "women farmers": both words


def caption(scene: Scene, rng: random.Random) -> str:
    """A sentence that says what a scene shows; a white ground is mostly not spoken of."""
    if scene.relation:
        first, second = (_single(thing, scene, rng) for thing in scene.things)
        said = f"{first} {rng.choice(RELATIONS[scene.relation].words)} {second}"
    elif scene.count > 1:
        said = _several(scene.things[0], scene, rng)
    else:
        said = _single(scene.things[0], scene, rng)
    if scene.style:
        said = _pick(STYLE_WORDS[scene.style], rng).format(said)
    else:
        said = f"{_pick(OPENINGS, rng)} {said}".lstrip()
    return f"{said} {_surroundings(scene, rng)}".rstrip()


def _surroundings(scene: Scene, rng: random.Random) -> str:
    if scene.scenery:
        return _pick(SCENERY_WORDS[scene.scenery], rng)
    if scene.background == "white" and rng.random() >= WHITE_SPOKEN:
        return ""
    colour = rng.choice(SPELLINGS.get(scene.background, (scene.background,)))
    return _pick(GROUNDS, rng).format(colour).replace("a orange", "an orange")


def _single(thing: Thing, scene: Scene, rng: random.Random) -> str:
    """ "a cute dog wearing sunglasses and a crown"."""
    word = _word(concept(thing.concept).words, rng)
    named = _with_adjectives(thing, word.text, scene, rng)
    article = _pick(ARTICLES, rng)
    if article == "a":
        article = indefinite(named) if word.article else ""
    said = f"{article} {named}".lstrip()
    if thing.worn:
        said += f" {_pick(WEARING, rng)} {_worn(thing, rng)}"
    return said


def _worn(thing: Thing, rng: random.Random) -> str:
    names = [ACCESSORIES[name].words for name in thing.worn]
    rng.shuffle(names)
    return " and ".join(names)


def _several(thing: Thing, scene: Scene, rng: random.Random) -> str:
    """ "three apples"."""
    word = _word([word for word in concept(thing.concept).words if word.article], rng)
    named = _with_adjectives(thing, plural(word), scene, rng)
    return f"{NUMBERS[scene.count]} {named}"


def _word(words: Sequence[Word], rng: random.Random) -> Word:
    """One of them, the first twice as often as any other."""
    return rng.choice([words[0], *words])


def _with_adjectives(thing: Thing, named: str, scene: Scene, rng: random.Random) -> str:
    seen = not thing.worn and scene.style not in COLOURLESS
    own = RECOLOURED.get(thing.concept, "") if seen else ""
    if thing.colour:
        named = f"{thing.colour} {named}"
    elif own and own not in named.split() and rng.random() < OWN_COLOUR_SPOKEN:
        named = f"{own} {named}"
    alone = len(scene.things) == 1 and not scene.scenery
    if alone and thing.scale < SMALL_BELOW and rng.random() < SMALL_SPOKEN:
        named = f"{rng.choice(SMALL)} {named}"
    elif rng.random() < ADJECTIVE_SHARE:
        named = f"{rng.choice(ADJECTIVES)} {named}"
    return named


def _pick(choices: Choices, rng: random.Random) -> str:
    return rng.choices([text for text, _ in choices], [weight for _, weight in choices])[0]


def indefinite(name: str) -> str:
    """The article "a" or "an", by ear."""
    vowel = name.startswith(VOWELS) and not name.startswith(NO_VOWELS)
    return "an" if vowel else "a"


def plural(word: Word) -> str:
    """More than one of it: "slices of pizza", "mice", "boxes"."""
    text = word.text
    if text in IRREGULAR:
        return IRREGULAR[text]
    for phrase in HEADS_OF_PHRASES:
        if found := phrase.fullmatch(text):
            return plural(Word(found[1], True)) + found[2]
    if found := TWICE.fullmatch(text):
        return f"{IRREGULAR[found[1]]} {_plural_noun(found[2])}"
    first, both, second = text.partition(" and ")
    if both:
        return f"{plural(Word(first, True))} and {plural(Word(second, True))}"
    before, _, last = text.rpartition(" ")
    return f"{before} {_plural_noun(last)}".lstrip()


def _plural_noun(noun: str) -> str:
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun.endswith(SAME_IN_PLURAL):
        return noun
    if noun.endswith(("man", "woman")):
        return noun[:-2] + "en"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun in ("potato", "tomato", "volcano", "mango"):
        return noun + "es"
    return noun + "s"
