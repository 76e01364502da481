"""Captions: they say what a scene shows, in English."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from sdscratch.pictograms.captions import SMALL, caption, indefinite, plural
from sdscratch.pictograms.mixtures import FULL, Chooser
from sdscratch.pictograms.scenes import Scene, Thing
from sdscratch.pictograms.vocabulary import BACKGROUNDS, Word
from sdscratch.text.tokenizer import Tokenizer, learn_merges

DOG = Thing("dog")


def wordings(scene: Scene, count: int = 300) -> set[str]:
    return {caption(scene, random.Random(seed)) for seed in range(count)}


def test_a_scene_is_worded_by_chance_alone() -> None:
    scene = Scene((DOG,), "blue")
    assert caption(scene, random.Random(3)) == caption(scene, random.Random(3))
    assert len(wordings(scene)) > 20


def test_every_caption_names_one_of_the_words_and_the_ground() -> None:
    for background in BACKGROUNDS:
        spoken = 0
        for text in wordings(Scene((DOG,), background)):
            assert "dog" in text or "puppy" in text
            colours = [colour for colour in BACKGROUNDS if colour in text.replace("grey", "gray").split()]
            assert colours in ([background], [] if background == "white" else None)
            spoken += bool(colours)
        assert spoken


def test_white_is_mostly_not_spoken_of() -> None:
    texts = [caption(Scene((DOG,)), random.Random(seed)) for seed in range(1000)]
    assert 130 < sum("white" in text for text in texts) < 270


@pytest.mark.parametrize(
    ("scene", "said"),
    [
        (Scene((Thing("apple", colour="blue"),)), "blue apple"),
        (Scene((Thing("cat", worn=("sunglasses", "crown")),)), "sunglasses and a crown"),
        (Scene((Thing("mouse"),) * 3), "three mice"),
        (Scene((DOG, Thing("pizza")), relation="left of"), "left of"),
        (Scene((DOG, Thing("pizza")), relation="and"), " and "),
        (Scene((DOG,), scenery="desert"), "in the desert"),
        (Scene((DOG,), style="pixel art"), "pixel art"),
        (Scene((DOG,), "orange"), "on an orange background"),
    ],
)
def test_captions_say_what_makes_a_scene(scene: Scene, said: str) -> None:
    assert any(said in text for text in wordings(scene))


def test_what_is_worn_is_named_in_either_order_and_always_whole() -> None:
    texts = wordings(Scene((Thing("fox", worn=("glasses", "top hat")),)))
    assert all("glasses" in text and "a top hat" in text for text in texts)
    assert any("glasses and a top hat" in text for text in texts)
    assert any("a top hat and glasses" in text for text in texts)


def test_a_colour_of_its_own_is_only_spoken_of_where_it_is_seen() -> None:
    apple = Scene((Thing("apple"),))
    assert any("red apple" in text for text in wordings(apple))
    for style in ("silhouette", "outline"):
        assert not any("red" in text for text in wordings(replace(apple, style=style)))


def test_small_is_said_of_small_things_alone() -> None:
    small, large = (wordings(Scene((Thing("dog", scale=scale),))) for scale in (0.5, 0.88))
    assert sum(any(word in text for word in SMALL) for text in small) > len(small) / 2
    assert not any(word in text for word in SMALL for text in large)


def test_articles_stand_where_one_says_them_and_nowhere_else() -> None:
    assert not any(" a fire" in f" {text}" for text in wordings(Scene((Thing("fire"),))))
    for text in wordings(Scene((Thing("octopus"),))):
        assert "a octopus" not in text
    assert any("an octopus" in text for text in wordings(Scene((Thing("octopus"),))))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("octopus", "an"),
        ("hourglass", "an"),
        ("SUV", "an"),
        ("OK hand", "an"),
        ("unicorn", "a"),
        ("UFO", "a"),
        ("euro note", "a"),
        ("European flag", "a"),
        ("Indian flag", "an"),
        ("ATM sign", "an"),
        ("SOS sign", "an"),
        ("pig", "a"),
    ],
)
def test_indefinite_articles_go_by_ear(name: str, said: str) -> None:
    assert indefinite(name) == said


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("apple", "apples"),
        ("slice of pizza", "slices of pizza"),
        ("mouse", "mice"),
        ("computer mouse", "computer mice"),
        ("fox", "foxes"),
        ("butterfly", "butterflies"),
        ("monkey", "monkeys"),
        ("wolf", "wolves"),
        ("fireman", "firemen"),
        ("tropical fish", "tropical fish"),
        ("face with heart eyes", "faces with heart eyes"),
        ("person running", "people running"),
        ("woman running", "women running"),
        ("woman farmer", "women farmers"),
        ("flag of the Netherlands", "flags of the Netherlands"),
        ("diamond ring", "diamond rings"),
        ("bow and arrow", "bows and arrows"),
        ("paintbrush", "paintbrushes"),
    ],
)
def test_plurals(one: str, many: str) -> None:
    assert plural(Word(one, True)) == many


def test_captions_fit_the_prompt_of_the_embedded_model() -> None:
    """32 tokens, of at most 2,300 pieces learnt from captions."""
    rng, chooser = random.Random(0), Chooser(FULL)
    captions = [caption(chooser.scene(rng), rng) for _ in range(6000)]
    tokenizer = Tokenizer.from_merges(learn_merges(captions[:4000], 2300 - 514), length=32)
    assert tokenizer.size <= 2300
    assert max(len(tokenizer.encode(text).pieces) for text in captions[4000:]) <= 32
