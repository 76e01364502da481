"""What is chosen how often, and what never: the tenth that is held out."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import combinations as pairs_of

import pytest

from sdscratch.pictograms.colours import HUES
from sdscratch.pictograms.mixtures import CPU, FULL, KINDS, Chooser, Mixture
from sdscratch.pictograms.scenes import RELATIONS, SCENERIES, STYLES, Scene, Thing, combinations, held_out
from sdscratch.pictograms.vocabulary import BACKGROUNDS, BEST_KNOWN, TELLING_SHAPES, concepts
from sdscratch.pictograms.wardrobe import HEADS, sets

NAMES = [concept.name for concept in concepts()]
OF_KIND = {
    "colour": [f"colour: {name}, {colour}" for name in NAMES for colour in HUES],
    "ground": [f"ground: {name}, {colour}" for name in NAMES for colour in BACKGROUNDS],
    "worn": [f"worn: {name}, {', '.join(sorted(worn))}" for name in HEADS for worn in sets()],
    "count": [f"count: {name}, {number}" for name in NAMES for number in (2, 3, 4)],
    "style": [f"style: {name}, {style}" for name in NAMES for style in STYLES],
    "scenery": [f"scenery: {name}, {scenery}" for name in NAMES for scenery in SCENERIES],
    "beside": [f"beside: {', '.join(sorted(two))}" for two in pairs_of(NAMES[:BEST_KNOWN], 2)],
    "stacked": [f"stacked: {', '.join(sorted(two))}" for two in pairs_of(NAMES[:BEST_KNOWN], 2)],
}
# Some of the tenth, kept for ever: a change of the rule would mix what was trained with what was held out.
SAMPLE = [f"ground: {name}, {colour}" for name in ("dog", "car", "apple") for colour in BACKGROUNDS]
SAMPLE += [f"colour: {name}, {colour}" for name in ("cat", "car", "apple", "heart") for colour in HUES]
SAMPLE += [f"worn: dog, {', '.join(sorted(worn))}" for worn in sets()]
SAMPLE += [f"beside: {other}, dog" for other in ("apple", "bird", "car", "cat", "cow", "crab", "cactus")]
HELD_OUT = {
    "ground: dog, blue",
    "ground: car, yellow",
    "ground: apple, red",
    "ground: apple, purple",
    "colour: cat, blue",
    "colour: apple, yellow",
    "worn: dog, glasses, top hat",
    "beside: bird, dog",
}


@pytest.fixture(scope="module", params=[CPU, FULL], ids=["CPU", "FULL"])
def mixture(request: pytest.FixtureRequest) -> Mixture:
    assert isinstance(request.param, Mixture)
    return request.param


@pytest.fixture(scope="module")
def scenes(mixture: Mixture) -> list[Scene]:
    chooser, rng = Chooser(mixture), random.Random(0)
    return [chooser.scene(rng) for _ in range(20_000)]


def test_a_tenth_of_all_combinations_is_held_out() -> None:
    everything = [each for kind in OF_KIND.values() for each in kind]
    assert len(set(everything)) == len(everything)
    assert sum(map(held_out, everything)) / len(everything) == pytest.approx(0.1, abs=0.002)
    for kind, each in OF_KIND.items():
        four_deviations = 4 * (0.1 * 0.9 / len(each)) ** 0.5
        assert sum(map(held_out, each)) / len(each) == pytest.approx(0.1, abs=four_deviations), kind


def test_the_tenth_is_for_ever_the_same() -> None:
    assert {each for each in SAMPLE if held_out(each)} == HELD_OUT


def test_nothing_held_out_is_ever_trained(scenes: list[Scene]) -> None:
    assert not any(held_out(each) for scene in scenes for each in combinations(scene))


def test_everything_that_is_not_held_out_may_be_trained() -> None:
    rng = random.Random(1)
    chooser = Chooser(replace(CPU, shares={"worn": 1.0}))
    seen = {next(combinations(chooser.scene(rng))) for _ in range(30_000)}
    assert seen >= {each for each in OF_KIND["worn"] if not held_out(each)}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "plain"])
def test_held_out_scenes_are_of_their_kind_and_all_held_out(kind: str) -> None:
    chooser, rng = Chooser(FULL), random.Random(2)
    for _ in range(5):
        scene = chooser.held_out(kind, rng)
        assert scene.kind == kind
        assert list(combinations(scene))
        assert all(map(held_out, combinations(scene)))


def test_a_plain_thing_is_never_held_out() -> None:
    assert list(combinations(Scene((Thing("dog"),)))) == []
    with pytest.raises(ValueError, match="combines nothing"):
        Chooser(CPU).held_out("plain", random.Random(0))


def test_mirrored_and_reworded_relations_are_one_combination() -> None:
    cat, dog = Thing("cat"), Thing("dog")
    beside = [
        Scene(two, relation=relation)
        for two in ((cat, dog), (dog, cat))
        for relation in ("next to", "and", "left of", "right of")
    ]
    assert {each for scene in beside for each in combinations(scene)} == {"beside: cat, dog"}
    assert list(combinations(Scene((dog, cat), relation="above"))) == ["stacked: cat, dog"]


def test_kinds_come_as_often_as_the_mixture_says(mixture: Mixture, scenes: list[Scene]) -> None:
    assert sum(mixture.shares.values()) == pytest.approx(1)
    counted = Counter(scene.kind for scene in scenes)
    for kind, share in mixture.shares.items():
        assert counted[kind] / len(scenes) == pytest.approx(share, abs=0.012), kind


def test_fame_decides_how_often_a_thing_is_shown(mixture: Mixture, scenes: list[Scene]) -> None:
    shown = Counter(scene.things[0].concept for scene in scenes if scene.kind == "plain")
    first, others = (
        sum(shown[name] for name in names) / len(names) for names in (NAMES[:100], NAMES[100:BEST_KNOWN])
    )
    rates = [rate for _, rate in mixture.fame]
    assert first / others == pytest.approx(rates[0] / rates[1], rel=0.2)
    assert set(shown) <= set(NAMES[: mixture.fame[-1][0]])


def test_things_stay_within_the_picture(scenes: list[Scene]) -> None:
    for scene in scenes:
        for thing in scene.things:
            assert max(map(abs, thing.at)) + thing.scale / 2 <= 0.5 + 1e-9


def test_only_a_mixture_that_says_so_has_small_things_anywhere(mixture: Mixture, scenes: list[Scene]) -> None:
    single = [scene.things[0] for scene in scenes if scene.kind == "plain"]
    small = [thing for thing in single if thing.scale <= mixture.small[1]]
    assert len(small) / len(single) == pytest.approx(mixture.anywhere, abs=0.03)
    assert all(max(map(abs, thing.at)) <= mixture.shift for thing in single if thing not in small)
    if mixture.anywhere:
        assert max(abs(thing.at[0]) for thing in small) > 0.25


def test_several_things_do_not_cover_each_other(scenes: list[Scene]) -> None:
    for scene in scenes:
        for first, second in pairs_of(scene.things, 2):
            apart = max(abs(a - b) for a, b in zip(first.at, second.at, strict=True))
            assert apart > 0.9 * (first.scale + second.scale) / 2


def test_a_thing_never_has_the_colour_of_its_ground_and_a_silhouette_is_told_by_its_shape(
    scenes: list[Scene],
) -> None:
    for scene in scenes:
        assert scene.things[0].colour != scene.background
        if scene.style == "silhouette":
            assert scene.background != "black"
            assert scene.things[0].concept in TELLING_SHAPES


def test_every_relation_count_scenery_and_style_comes_up(scenes: list[Scene]) -> None:
    assert {scene.relation for scene in scenes} == {"", *RELATIONS}
    assert {scene.count for scene in scenes} == {1, 2, 3, 4}
    assert {scene.scenery for scene in scenes} == {"", *SCENERIES}
    assert {scene.style for scene in scenes} == {"", *STYLES}
    assert {len(scene.things[0].worn) for scene in scenes} == {0, 1, 2}
    assert set(NAMES[:BEST_KNOWN]) >= TELLING_SHAPES
