"""Pictures in the terminal: what is written is read back, and is the picture."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from sdscratch.images.terminal import shown, way_of
from support.pictures import gradient


def of_png(data: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("RGB"))


def test_kitty_gets_the_very_picture_in_pieces() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8))
    text = shown(noise, "kitty", 40)
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert "".join(f"\x1b_G{keys};{data}\x1b\\" for keys, data in pieces) + "\n" == text
    assert len(pieces) > 2
    assert all(len(data) <= 4096 for _, data in pieces)
    assert [re.search(r"m=(\d)", keys)[1] for keys, _ in pieces] == ["1"] * (len(pieces) - 1) + ["0"]  # type: ignore[index]
    assert {"a=T", "f=100", "c=10"} <= set(pieces[0][0].split(","))
    assert np.array_equal(of_png("".join(data for _, data in pieces)), np.asarray(noise))


def test_iterm_gets_the_very_picture() -> None:
    match = re.fullmatch(r"\x1b\]1337;File=([^:]*):([^\x07]*)\x07\n", shown(gradient(), "iterm", 4))
    assert match is not None
    keys = dict(key.split("=") for key in match[1].split(";"))
    assert keys["inline"] == "1"
    assert keys["width"] == "4"  # as many characters as there are
    assert int(keys["size"]) == len(base64.b64decode(match[2]))
    assert np.array_equal(of_png(match[2]), np.asarray(gradient()))


def of_sixel(text: str) -> np.ndarray:
    """A terminal's view of a sixel picture."""
    match = re.fullmatch(r'\x1bP[\d;]*q"1;1;(\d+);(\d+)(.*)\x1b\\\n', text, re.DOTALL)
    assert match is not None
    width, height, body = int(match[1]), int(match[2]), match[3]
    pixels = np.zeros((height + 6, width, 3))
    colours: dict[str, tuple[float, ...]] = {}
    x = y = 0
    colour = ""
    for name, levels, repeat, character, move in re.findall(
        r"#(\d+)(?:;2;([\d;]+))?|(?:!(\d+))?([?-~])|([$-])", body
    ):
        if name:
            colour = name
            if levels:
                colours[name] = tuple(int(level) * 2.55 for level in levels.split(";"))
        elif move == "$":
            x = 0
        elif move == "-":
            x, y = 0, y + 6
        else:
            count = int(repeat or 1)
            for bit in range(6):
                if (ord(character) - 63) >> bit & 1:
                    pixels[y + bit, x : x + count] = colours[colour]
            x += count
    return pixels[:height]


def test_sixel_shows_the_picture_in_its_colours() -> None:
    few = Image.fromarray(np.asarray(gradient(40, 20)) // 85 * 85)  # 64 colours at most
    assert np.abs(of_sixel(shown(few, "sixel", 80)) - np.asarray(few)).max() <= 2  # levels are in percent
    many = gradient(90, 50)
    near = of_sixel(shown(many, "sixel", 80)) - np.asarray(many)
    assert np.sqrt((near**2).mean()) < 10
    assert of_sixel(shown(many, "sixel", 5)).shape[1] == 40


def of_blocks(text: str) -> np.ndarray:
    rows = []
    for line in text.removesuffix("\n").split("\n"):
        upper, lower, colours = [], [], [0] * 6
        for levels, _block in re.findall(r"\x1b\[38;2;([\d;]+)m|(\u2580)", line.replace(";48;2;", ";")):
            if levels:
                colours = [int(level) for level in levels.split(";")]
            else:
                upper.append(colours[:3])
                lower.append(colours[3:])
        assert line.endswith("\x1b[0m")
        rows += [upper, lower]
    return np.asarray(rows)


@pytest.mark.parametrize("size", [(20, 12), (21, 13)])
def test_half_blocks_show_two_pixels_a_character(size: tuple[int, int]) -> None:
    picture = gradient(*size)
    seen = of_blocks(shown(picture, "blocks", 80))
    assert np.array_equal(seen[: size[1]], np.asarray(picture))
    assert len(seen) == size[1] + size[1] % 2


def test_no_way_is_wider_than_the_terminal() -> None:
    assert of_blocks(shown(gradient(200, 100), "blocks", 30)).shape == (16, 30, 3)  # 15 rows, an even count


@pytest.mark.parametrize(
    ("environment", "way"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty", "TERM": "xterm-256color"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"LC_TERMINAL": "iTerm2", "TERM": "xterm"}, "iterm"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color"}, "blocks"),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "TMUX": "x"}, "blocks"),
        ({}, "blocks"),
    ],
)
def test_the_terminal_is_known_by_its_variables(environment: dict[str, str], way: str) -> None:
    assert way_of(environment) == way
