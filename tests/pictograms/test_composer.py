"""Pictures: a scene is drawn as it says, wherever and with whatever it is drawn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from sdscratch.pictograms.composer import Composer
from sdscratch.pictograms.mixtures import FULL
from sdscratch.pictograms.scenes import Scene, Thing, combinations, held_out
from sdscratch.pictograms.vocabulary import BACKGROUNDS, concepts
from support.sprites import COLOURS, RADIUS, disc_table

CPU = torch.device("cpu")
RED, GREEN, BLUE = (next(c.name for c in concepts()[i:]) for i in range(3))  # named after their discs


@pytest.fixture(scope="module")
def composer() -> Composer:
    table = disc_table()
    rows = table.rows | {(RED, ""): 0, (GREEN, ""): 1, (BLUE, ""): 2}
    return Composer(replace(table, rows=rows), size=64, mixture=FULL)


def levels(picture: torch.Tensor) -> torch.Tensor:
    return (picture + 1) / 2


def test_what_stands_at_a_place_depends_on_seed_step_and_place_alone(composer: Composer) -> None:
    whole = composer.batch(7, range(12), CPU)
    parts = [composer.batch(7, range(5), CPU), composer.batch(7, range(5, 12), CPU)]
    assert_close(torch.cat([part.pictures for part in parts]), whole.pictures, rtol=0, atol=1e-5)
    assert sum((part.captions for part in parts), ()) == whole.captions
    other_step, other_seed = composer.scenes(8, range(12)), Composer(composer.table, 64, FULL, seed=2)
    assert composer.scenes(7, range(12)) not in (other_step, other_seed.scenes(7, range(12)))


def test_a_picture_keeps_its_scene_while_its_caption_is_worded_anew(composer: Composer) -> None:
    batch = composer.batch(3, range(8), CPU)
    assert tuple(composer.caption(3, index, 0) for index in range(8)) == batch.captions
    assert len({composer.caption(3, 0, wording) for wording in range(20)}) > 3


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_background_is_exact_where_no_sprite_is(composer: Composer, background: str) -> None:
    picture = composer.draw([Scene((Thing(RED, scale=0.8),), background)])[0]
    expected = torch.tensor(BACKGROUNDS[background]) * 2 - 1
    for corner in (picture[:, 0, 0], picture[:, 0, -1], picture[:, -1, 0], picture[:, -1, -1]):
        assert_close(corner, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [0.25, 0.46, 0.9])
def test_edges_mix_sprite_and_background_and_nothing_else(composer: Composer, scale: float) -> None:
    # what is transparent in a red disc's sprite is black: wrong compositing leaves a dark rim on white
    picture = levels(composer.draw([Scene((Thing(RED, at=(0.013, -0.021), scale=scale),))])[0])
    red = torch.tensor(COLOURS[0])[:, None, None] / 255
    share = (1 - picture[2:]) / (1 - red[2:])  # of the disc in each pixel, by the blue channel
    assert_close(picture, share * red + (1 - share), rtol=0, atol=1e-5)
    assert ((share > 0.05) & (share < 0.95)).any(), "no antialiasing"


@pytest.mark.parametrize("scale", [0.2, 0.5])
def test_a_thing_is_as_large_and_as_far_off_as_the_scene_says(composer: Composer, scale: float) -> None:
    darkness = 1 - levels(composer.draw([Scene((Thing(BLUE, at=(0.125, -0.0625), scale=scale),))])[0][0])
    area = float((darkness / darkness.max()).sum())
    assert area == pytest.approx(torch.pi * (RADIUS * scale * 64) ** 2, rel=0.02)
    axis = torch.arange(64) + 0.5
    x, y = (float((darkness.sum(dim) * axis).sum() / darkness.sum()) for dim in (0, 1))
    assert (x, y) == pytest.approx((32 + 8, 32 - 4), abs=0.1)


def test_of_two_things_each_is_where_its_relation_says(composer: Composer) -> None:
    for scene in composer.held_out_scenes("pair", 30):
        first, second = scene.things
        right, down = (second.at[i] - first.at[i] for i in (0, 1))
        if scene.relation in ("left of", "right of"):
            assert right * (1 if scene.relation == "left of" else -1) > 0.4
        elif scene.relation in ("above", "below"):
            assert down * (1 if scene.relation == "above" else -1) > 0.4
        else:
            assert abs(right) > 0.4 > abs(down)


def test_a_hat_makes_a_head_smaller_and_stays_in_the_picture(composer: Composer) -> None:
    plain, dressed = composer.draw(
        [
            Scene((Thing("dog", scale=1.0),)),
            Scene((Thing("dog", worn=("sunglasses", "top hat"), scale=1.0),)),
        ]
    )
    seen = [(levels(picture) < 0.99).any(dim=0) for picture in (plain, dressed)]
    assert seen[1].any(dim=0).sum() < seen[0].any(dim=0).sum()  # narrower
    border = torch.cat([seen[1][0], seen[1][-1], seen[1][:, 0], seen[1][:, -1]])
    assert not border.any()


def test_styles_say_what_colours_a_picture_has(composer: Composer) -> None:
    things = (Thing(RED, scale=0.9),)
    styles = ("pixel art", "silhouette", "outline")
    pixels, silhouette, outline = composer.draw([Scene(things, style=style) for style in styles])
    middle = levels(torch.stack([picture[:, 32, 32] for picture in (pixels, silhouette, outline)]))
    assert_close(middle[0], torch.tensor([220, 30, 30]) / 255, rtol=0, atol=0.09)
    assert middle[1].max() < 0.1
    assert_close(middle[2], torch.ones(3))
    assert levels(outline).min() < 0.2


def test_a_scenery_lies_behind_the_thing(composer: Composer) -> None:
    night = levels(composer.draw([Scene((Thing(RED, at=(0, 0.1), scale=0.5),), scenery="night", view=3)])[0])
    assert_close(night[:, 38, 32], torch.tensor(COLOURS[0]) / 255, rtol=0, atol=1e-3)
    assert night[:, 0, 0].max() < 0.3


def test_held_out_pictures_are_always_the_same_and_all_held_out(composer: Composer) -> None:
    batch = composer.held_out(10, CPU)
    assert batch.captions == composer.held_out(10, CPU).captions
    assert batch.pictures.shape == (10, 3, 64, 64)
    for kind in ("recoloured", "worn", "count", "pair", "ground", "scenery", "style"):
        for scene in composer.held_out_scenes(kind, 3):
            assert scene.kind == kind
            assert all(map(held_out, combinations(scene)))
