"""Preprocessors: each map is what its definition says, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from sdscratch.errors import UsageError
from sdscratch.images.edges import canny, gaussian
from sdscratch.images.hints import PREPROCESSORS, hint_levels, make_hint, parse_preprocessor, read_hint
from support.reference import sketch

NOISY = np.random.default_rng(1).integers(0, 256, (21, 17, 3)).astype(np.uint8)
SMOOTH = np.asarray(sketch(40, 31).resize((20, 16)).resize((40, 31)))


def plain_canny(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """The definition, pixel by pixel: Sobel, the strongest channel, four directions, two thresholds."""
    height, width, channels = pixels.shape
    levels = np.pad(pixels.astype(int), ((1, 1), (1, 1), (0, 0)), mode="edge")
    gradients = np.zeros((height, width, 2), dtype=int)
    for y in range(height):
        for x in range(width):
            best = -1
            for c in range(channels):
                part = levels[y : y + 3, x : x + 3, c]
                dx = int((part[:, 2] - part[:, 0]) @ [1, 2, 1])
                dy = int((part[2] - part[0]) @ [1, 2, 1])
                if abs(dx) + abs(dy) > best:
                    best, gradients[y, x] = abs(dx) + abs(dy), (dx, dy)
    strength = np.pad(np.abs(gradients).sum(-1), 1)
    marks = np.zeros((height, width), dtype=int)
    for y in range(height):
        for x in range(width):
            dx, dy = map(int, gradients[y, x])
            own = strength[y + 1, x + 1]
            slope = np.degrees(np.arctan2(abs(dy), abs(dx)))
            step = (0, 1) if slope < 22.5 else (1, 0) if slope > 67.5 else (1, -1 if dx * dy < 0 else 1)
            before = strength[y + 1 - step[0], x + 1 - step[1]]
            after = strength[y + 1 + step[0], x + 1 + step[1]]
            ridge = own > before and (own > after if 0 not in step else own >= after)
            marks[y, x] = int(own > low) + int(own > high) if ridge else 0
    groups, _ = ndimage.label(marks, np.ones((3, 3)))
    return np.isin(groups, np.unique(groups[marks == 2])) & (groups > 0)


@pytest.mark.parametrize("pixels", [NOISY, SMOOTH, SMOOTH[..., :1]], ids=["noise", "disc", "grey"])
@pytest.mark.parametrize(("low", "high"), [(100, 200), (30, 90), (400, 700)])
def test_canny_is_its_definition(pixels: np.ndarray, low: float, high: float) -> None:
    wanted = plain_canny(pixels, low, high)
    assert np.array_equal(canny(pixels, low, high), wanted)
    assert np.array_equal(canny(pixels, high, low), wanted)


@pytest.mark.parametrize(("sigma", "reach"), [(0.5, 4.0), (3.0, 3.0), (9.0, 3.0)])
def test_a_gaussian_is_scipys_of_mirrored_borders(sigma: float, reach: float) -> None:
    radius = (round(sigma * reach * 2 + 1) | 1) // 2
    wanted = ndimage.gaussian_filter1d(SMOOTH.astype(float), sigma, axis=0, mode="mirror", radius=radius)
    wanted = ndimage.gaussian_filter1d(wanted, sigma, axis=1, mode="mirror", radius=radius)
    assert np.abs(gaussian(SMOOTH.astype(np.float32), sigma, reach) - wanted).max() < 1e-3


def test_maps_are_what_they_are_called() -> None:
    picture = Image.fromarray(SMOOTH)
    maps = {name: np.asarray(make_hint(picture, name)) for name in PREPROCESSORS}
    assert {each.shape for each in maps.values()} == {SMOOTH.shape}
    assert np.array_equal(maps["invert"], 255 - SMOOTH)
    assert np.array_equal(maps["threshold"][..., 0] == 255, SMOOTH.min(-1) > 127)
    assert set(np.unique(maps["canny"])) == {0, 255}
    assert maps["blur"].std() < SMOOTH.std()
    assert 0 < (maps["scribble"] == 255).mean() < 0.6
    rough = np.abs(np.diff(SMOOTH.astype(int), axis=1)).mean()
    assert np.abs(np.diff(maps["tile"].astype(int), axis=1)).mean() < rough
    assert abs(float(maps["shuffle"].mean()) - float(SMOOTH.mean())) < 60
    assert not np.array_equal(maps["shuffle"], SMOOTH)
    assert np.array_equal(maps["shuffle"], np.asarray(make_hint(picture, "shuffle")))


def test_a_dark_stroke_on_white_is_a_white_stroke_on_black() -> None:
    pixels = np.full((48, 48, 3), 255, dtype=np.uint8)
    pixels[20:23] = 0
    stroke = np.asarray(make_hint(Image.fromarray(pixels), "scribble"))[..., 0]
    assert (stroke[20:23] == 255).all()
    assert (stroke[:15] == 0).all()


def test_numbers_stand_behind_colons() -> None:
    assert parse_preprocessor("canny") == ("canny", (100.0, 200.0))
    assert parse_preprocessor("canny:50") == ("canny", (50.0, 200.0))
    assert parse_preprocessor("blur_gaussian:2.5") == ("blur", (2.5,))
    assert parse_preprocessor("scribble-xdog") == ("scribble", (32.0,))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("depth", "depth maps are made by networks"),
        ("dw_openpose_full", "made by networks"),
        ("kanny", "no preprocessor is called 'kanny'"),
        ("", "no preprocessor is called ''"),
        ("canny:x", "low 'x', which is no number"),
        ("canny:1:2:3", "takes 2 numbers"),
        ("blur:0", "must be from 0.01 to 64"),
        ("blur:nan", "must be from 0.01 to 64"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_preprocessor(text)


def test_an_inpainting_hint_is_minus_one_where_the_picture_is_transparent() -> None:
    picture = Image.fromarray(SMOOTH).convert("RGBA")
    alpha = np.full(SMOOTH.shape[:2], 255, dtype=np.uint8)
    alpha[:, :20] = 0
    picture.putalpha(Image.fromarray(alpha))
    levels = hint_levels(make_hint(read_hint(picture, "inpaint"), "inpaint"))
    assert (levels[:, :20] == -1.0).all()
    assert np.array_equal(levels[:, 20:], SMOOTH[:, 20:].astype(np.float32) / np.float32(255))
    assert read_hint(picture, None).mode == "RGB"
    with pytest.raises(UsageError, match="nothing of it is"):
        read_hint(Image.fromarray(SMOOTH), "inpaint")
