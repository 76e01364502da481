"""Training samples: what a caption says is what the picture shows."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from sdscratch.embedded.composer import SCALES, SHIFT, Composer, Scene, caption, indefinite
from sdscratch.embedded.concepts import BACKGROUNDS
from sdscratch.embedded.pictograms import Sprite
from support.sprites import COLOURS, disc_table


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer(disc_table(), size=64)


def test_a_seed_always_gives_the_same_samples_and_another_one_others(composer: Composer) -> None:
    scenes = composer.scenes(7, 12)
    assert scenes == composer.scenes(7, 12)
    assert scenes != composer.scenes(8, 12)
    assert torch.equal(composer.draw(scenes), composer.draw(composer.scenes(7, 12)))


def test_a_picture_does_not_depend_on_its_batch(composer: Composer) -> None:
    scenes = composer.scenes(3, 5)
    assert_close(composer.draw(scenes)[3:4], composer.draw(scenes[3:4]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_background_is_exact_where_no_sprite_is(composer: Composer, background: str) -> None:
    scene = Scene(0, background, 0.8, (0.0, 0.0), "")
    picture = composer.draw([scene])[0]
    expected = torch.tensor(BACKGROUNDS[background]) * 2 - 1
    for corner in (picture[:, 0, 0], picture[:, 0, -1], picture[:, -1, 0], picture[:, -1, -1]):
        assert_close(corner, expected, rtol=0, atol=1e-6)


def test_edges_mix_sprite_and_background_and_nothing_else(composer: Composer) -> None:
    # a red disc on white, whose transparent pixels are black: wrong compositing leaves a dark rim
    picture = (composer.draw([Scene(0, "white", 0.9, (0.013, -0.021), "")])[0] + 1) / 2
    red = torch.tensor(COLOURS["red disc"])[:, None, None] / 255
    share = (1 - picture[2:]) / (1 - red[2:])  # of the disc in each pixel, by the blue channel
    assert_close(picture, share * red + (1 - share), rtol=0, atol=1e-5)
    assert ((share > 0.05) & (share < 0.95)).any(), "no antialiasing"


def test_a_sprite_is_as_large_and_as_far_off_as_the_scene_says(composer: Composer) -> None:
    scene = Scene(2, "white", 0.5, (0.125, -0.0625), "")
    darkness = 1 - composer.draw([scene])[0][0]
    area = float((darkness / darkness.max()).sum())
    radius = 0.45 * 0.5 * 64
    assert area == pytest.approx(torch.pi * radius**2, rel=0.02)
    axis = torch.arange(64) + 0.5
    x, y = (float((darkness.sum(dim) * axis).sum() / darkness.sum()) for dim in (0, 1))
    assert (x, y) == pytest.approx((32 + 8, 32 - 4), abs=0.1)


def test_scenes_keep_sprites_within_the_picture(composer: Composer) -> None:
    for scene in composer.scenes(1, 500):
        assert SCALES[0] <= scene.scale <= SCALES[1]
        assert max(map(abs, scene.shift)) <= min(SHIFT, (1 - scene.scale) / 2)


def test_captions_agree_with_the_picture(composer: Composer) -> None:
    silent = 0
    for scene in composer.scenes(2, 1000):
        _, name, rest = scene.caption.partition(composer.table.sprites[scene.sprite].names[0])
        assert name
        spoken = [colour for colour in BACKGROUNDS if colour in rest.split()]
        assert spoken in ([scene.background], [] if scene.background == "white" else None)
        silent += scene.background == "white" and not spoken
    assert 150 < silent < 350  # white in 35 %, of which 70 % silent


def test_heavier_sprites_are_shown_more_often() -> None:
    table = disc_table()
    first, *others = table.sprites
    composer = Composer(replace(table, sprites=(replace(first, weight=4.0), *others)))
    shown = [scene.sprite for scene in composer.scenes(0, 3000)]
    assert shown.count(0) / len(shown) == pytest.approx(4 / 6, abs=0.04)


def test_a_caption_names_what_is_worn_and_takes_the_right_article() -> None:
    chance = random.Random(0)
    dog = Sprite(("dog",), True, "a top hat")
    assert all(caption(dog, "blue", chance).count("a top hat") == 1 for _ in range(50))
    grapes = Sprite(("grapes",), False)
    captions = {caption(grapes, "orange", chance) for _ in range(200)}
    assert not any("a grapes" in text or "a orange" in text for text in captions)
    assert any("on an orange background" in text for text in captions)


@pytest.mark.parametrize(
    ("name", "article"),
    [
        ("octopus", "an"),
        ("hourglass", "an"),
        ("umbrella", "an"),
        ("unicorn", "a"),
        ("UFO", "a"),
        ("pig", "a"),
    ],
)
def test_articles_go_by_ear(name: str, article: str) -> None:
    assert indefinite(name) == article
