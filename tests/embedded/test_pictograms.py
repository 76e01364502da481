"""Pictograms: every concept can be drawn, and looks like what its words say."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sdscratch.embedded import pictograms
from sdscratch.embedded.concepts import ACCESSORIES, CONCEPTS, HEADS, HUES, MORE_CONCEPTS, RECOLOURED
from sdscratch.embedded.pictograms import SIDE, SpriteTable, draw_sprites, find_font, load_sprites, recolour
from sdscratch.errors import SdscratchError
from support.sprites import need_font

MUST_KNOW = [
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
]


@pytest.fixture(scope="module")
def table() -> SpriteTable:
    need_font()
    return draw_sprites(find_font())


def find(table: SpriteTable, name: str, wearing: str = "") -> np.ndarray:
    (index,) = [i for i, s in enumerate(table.sprites) if name in s.names and s.wearing == wearing]
    return table.pixels[index]


def test_every_sprite_is_drawn_once_with_room_around_it(table: SpriteTable) -> None:
    assert table.pixels.shape == (len(table.sprites), SIDE, SIDE, 4)
    covered = (table.pixels[..., 3] > 127).mean(axis=(1, 2))
    assert covered.min() > 0.04
    assert covered.max() < 0.95
    assert len({pixels.tobytes() for pixels in table.pixels}) == len(table.sprites)


def test_no_two_sprites_share_their_words(table: SpriteTable) -> None:
    words = [(name, sprite.wearing) for sprite in table.sprites for name in sprite.names]
    assert len(set(words)) == len(words)


def test_the_well_known_is_known(table: SpriteTable) -> None:
    known = {name for sprite in table.sprites for name in sprite.names}
    assert known >= set(MUST_KNOW)
    assert 200 <= len((CONCEPTS + MORE_CONCEPTS).strip().splitlines()) <= 300


def test_tables_name_concepts_that_exist() -> None:
    short_names = {line.partition(" = ")[0] for line in (CONCEPTS + MORE_CONCEPTS).splitlines()}
    assert short_names >= HEADS.keys() | RECOLOURED.keys() | ACCESSORIES.keys()


@pytest.mark.parametrize("colour", HUES)
def test_a_recoloured_thing_has_the_colour_that_its_words_say(table: SpriteTable, colour: str) -> None:
    pixels = find(table, f"{colour} car")
    rgb = Image.fromarray(pixels[..., :3])
    hsv = np.asarray(rgb.convert("HSV")).astype(float)
    coloured = (pixels[..., 3] > 200) & (hsv[..., 1] > 80)
    hue = np.median(hsv[..., 0][coloured]) * 360 / 255
    assert abs((hue - HUES[colour][0] + 180) % 360 - 180) < 12


def test_recolouring_leaves_white_black_and_transparency() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4] = (200, 20, 20, 255)
    pixels[:, 4:6] = (255, 255, 255, 255)
    pixels[:, 6] = (0, 0, 0, 255)
    turned = np.asarray(recolour(Image.fromarray(pixels), "blue"))
    np.testing.assert_array_equal(turned[:, 4:], pixels[:, 4:])
    assert (turned[:, :4, 2] > turned[:, :4, 0] + 100).all()


def test_sunglasses_darken_the_eyes_and_a_hat_makes_a_head_taller(table: SpriteTable) -> None:
    dog, cool, hat = (find(table, "dog", worn) for worn in ("", "sunglasses", "a top hat"))
    between = np.s_[int(0.47 * SIDE) : int(0.57 * SIDE), int(0.3 * SIDE) : int(0.7 * SIDE), :3]
    assert cool[between].mean() < 0.6 * dog[between].mean()

    def height_by_width(pixels: np.ndarray) -> float:
        rows, columns = (np.flatnonzero(pixels[..., 3].any(axis=axis)) for axis in (1, 0))
        return float(np.ptp(rows) / np.ptp(columns))

    assert height_by_width(hat) > 1.2 * height_by_width(dog)


def test_sprites_come_from_the_cache_the_second_time(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    need_font()
    drawn = load_sprites(tmp_path)
    monkeypatch.setattr(pictograms, "draw_sprites", lambda font: pytest.fail("drawn again"))
    kept = load_sprites(tmp_path)
    assert kept.sprites == drawn.sprites
    np.testing.assert_array_equal(kept.pixels, drawn.pixels)


def test_a_missing_font_is_named_with_its_package(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SdscratchError, match="fonts-noto-color-emoji"):
        find_font(tmp_path / "none.ttf")
