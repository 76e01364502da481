"""The list of concepts: what is known, under which words."""

from __future__ import annotations

from collections import Counter

from sdscratch.pictograms.colours import HUES, RECOLOURED, colours_of
from sdscratch.pictograms.vocabulary import BEST_KNOWN, concept, concepts, parse
from sdscratch.pictograms.wardrobe import ACCESSORIES, HEADS

MUST_KNOW = {
    "dog",
    "cat",
    "fox",
    "tiger",
    "lion",
    "bear",
    "panda",
    "rabbit",
    "frog",
    "monkey",
    "pig",
    "mouse",
    "cow",
    "octopus",
    "apple",
    "pizza",
    "snowman",
    "rocket",
    "strawberry",
    "grapes",
    "owl",
    "house",
    "guitar",
    "car",
    "castle",
    "ghost",
}


def test_no_two_concepts_share_a_word() -> None:
    words = Counter(word.text for each in concepts() for word in each.words)
    assert [word for word, count in words.items() if count > 1] == []


def test_the_well_known_is_known_and_stands_at_the_top() -> None:
    names = [each.name for each in concepts()]
    assert len(names) > 1550
    assert set(names[:BEST_KNOWN]) >= MUST_KNOW
    assert names[BEST_KNOWN:] == sorted(names[BEST_KNOWN:], key=str.casefold)


def test_there_are_many_words_for_things() -> None:
    assert sum(len(each.words) for each in concepts()) > 2000


def test_a_line_gives_words_and_says_which_take_an_article() -> None:
    coffee = parse("☕ *coffee / cup of coffee")
    assert (coffee.emoji, coffee.name) == ("☕", "coffee")
    assert [word.article for word in coffee.words] == [False, True]
    assert coffee.countable
    assert not parse("🔥 *fire").countable


def test_tables_name_concepts_and_colours_that_exist() -> None:
    for name in (*HEADS, *ACCESSORIES, *RECOLOURED):
        assert concept(name).name == name
    assert {colour for colour in RECOLOURED.values() if colour} <= set(HUES)
    assert "red" not in colours_of("apple")
    assert "blue" in colours_of("apple")
    assert colours_of("panda") == ()
