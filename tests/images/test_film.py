"""Films: as many frames as asked for, in their order, in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from sdscratch.errors import UsageError
from sdscratch.images.film import HELD, chosen, save_film, there_and_back

COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 0), (0, 90, 90)]
FRAMES = [Image.new("RGB", (24, 16), colour) for colour in COLOURS]


def seen(path: Path) -> tuple[list[np.ndarray], list[int]]:
    with Image.open(path) as film:
        frames = [frame.copy() for frame in ImageSequence.Iterator(film)]
    return [np.asarray(frame.convert("RGB"))[8, 12].astype(int) for frame in frames], [
        int(frame.info.get("duration", 0)) for frame in frames
    ]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".apng"])
def test_every_frame_is_shown_in_its_turn_and_the_last_one_stays(tmp_path: Path, suffix: str) -> None:
    save_film(FRAMES, tmp_path / f"a{suffix}")
    colours, durations = seen(tmp_path / f"a{suffix}")
    assert len(colours) == len(FRAMES)
    for colour, expected in zip(colours, COLOURS, strict=True):
        assert np.abs(colour - expected).max() <= 6
    assert set(durations[:-1]) <= {80, 83}
    assert durations[-1] == HELD
    with Image.open(tmp_path / f"a{suffix}") as film:
        assert film.info["loop"] == 0  # for ever


def test_a_contact_sheet_has_all_of_them(tmp_path: Path) -> None:
    save_film(FRAMES, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (2 * 24, 3 * 16)
        pixels = np.asarray(image.convert("RGB"))
    for index, colour in enumerate(COLOURS):
        assert tuple(pixels[(index // 2) * 16 + 8, (index % 2) * 24 + 12]) == colour


def test_frames_are_spread_evenly_and_end_with_the_picture() -> None:
    assert chosen(31, 4) == [0, 10, 20, 30]
    assert chosen(3, 10) == [0, 1, 2]
    assert chosen(5, 1) == [4]


def test_there_and_back_ends_beside_its_beginning() -> None:
    assert there_and_back(FRAMES) == [*FRAMES, FRAMES[3], FRAMES[2], FRAMES[1]]


def test_what_is_no_film_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must end in"):
        save_film(FRAMES, tmp_path / "a.mp4")
    save_film(FRAMES, tmp_path / "a.gif")
    with pytest.raises(UsageError, match="exists already"):
        save_film(FRAMES, tmp_path / "a.gif")
