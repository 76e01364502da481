"""Pictograms: every concept can be drawn, and looks like what its words say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdscratch.errors import SdscratchError
from sdscratch.pictograms import pictograms
from sdscratch.pictograms.colours import HUES, RECOLOURED, recolour
from sdscratch.pictograms.pictograms import SIDE, SpriteTable, draw_sprites, find_font, keys, load_sprites
from sdscratch.pictograms.vocabulary import concepts
from support.sprites import disc_table, need_font


@pytest.fixture(scope="module")
def table() -> SpriteTable:
    need_font()
    return draw_sprites(find_font())


def picture(table: SpriteTable, name: str, colour: str = "") -> Image.Image:
    """As it is seen on white."""
    sprite = table.pixels[table.rows[name, colour]].astype(int)
    return Image.fromarray((sprite[:, :3] + 255 - sprite[:, 3:]).clip(0, 255).astype(np.uint8).swapaxes(1, 2))


def test_every_sprite_is_drawn_and_no_two_are_the_same(table: SpriteTable) -> None:
    assert table.pixels.shape == (len(keys()), SIDE, 4, SIDE)
    covered = (table.pixels[:, :, 3] > 127).mean(axis=(1, 2))
    assert covered.min() > 0.02
    assert covered.max() < 0.96
    assert len({pixels.tobytes() for pixels in table.pixels}) == len(table.rows)


def test_colours_are_multiplied_by_alpha_and_boxes_bound_what_is_drawn(table: SpriteTable) -> None:
    assert (table.pixels[:, :, :3] <= table.pixels[:, :, 3:]).all()
    alpha = table.pixels[:, :, 3] > 32
    for shown, box in zip(alpha[::40], table.boxes[::40], strict=True):
        left, top, right, bottom = (box * SIDE).round().astype(int)
        assert shown[top:bottom, left:right].sum() == shown.sum()
        assert shown[[top, bottom - 1]].any(axis=1).all()
        assert shown[:, [left, right - 1]].any(axis=0).all()


@pytest.mark.parametrize("colour", HUES)
@pytest.mark.parametrize("name", ["car", "apple", "dress", "cactus"])
def test_a_recoloured_thing_has_the_colour_that_its_words_say(
    table: SpriteTable, name: str, colour: str
) -> None:
    if colour == RECOLOURED[name]:  # it is what it is
        assert (name, colour) not in table.rows
        return
    hsv = np.asarray(picture(table, name, colour).convert("HSV")).astype(float)
    coloured = hsv[..., 1] > 80
    hue = np.median(hsv[..., 0][coloured]) * 360 / 255
    assert abs((hue - HUES[colour][0] + 180) % 360 - 180) < 25


def test_recolouring_leaves_white_black_and_transparency() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4] = (200, 20, 20, 255)
    pixels[:, 4:6] = (255, 255, 255, 255)
    pixels[:, 6] = (0, 0, 0, 255)
    turned = np.asarray(recolour(Image.fromarray(pixels), "blue"))
    np.testing.assert_array_equal(turned[:, 4:], pixels[:, 4:])
    assert (turned[:, :4, 2] > turned[:, :4, 0] + 100).all()


def test_sprites_come_from_the_cache_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_font()
    drawn = disc_table()
    monkeypatch.setattr(pictograms, "draw_sprites", lambda font: drawn)
    assert load_sprites(tmp_path) is drawn
    monkeypatch.setattr(pictograms, "draw_sprites", lambda font: pytest.fail("drawn again"))
    kept = load_sprites(tmp_path)
    assert list(kept.rows) == keys()
    np.testing.assert_array_equal(kept.pixels, drawn.pixels)
    np.testing.assert_array_equal(kept.boxes, drawn.boxes)


def test_a_missing_font_is_named_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(SdscratchError, match="fonts-noto-color-emoji"):
        find_font(tmp_path / "none.ttf")


def test_the_font_draws_a_glyph_of_its_own_for_each_concept(table: SpriteTable) -> None:
    rows = [table.rows[each.name, ""] for each in concepts()]
    assert len(set(rows)) == len(concepts())
