"""The shapes: what captions say is what is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdscratch.errors import SdscratchError, UsageError
from sdscratch.training.dataset.folder import read_folder
from sdscratch.training.dataset.shapes import (
    BACKGROUNDS,
    COLOURS,
    GAP,
    OUTLINES,
    UNSEEN,
    Scene,
    draw,
    scene,
    write_shapes,
)

SCENES = [scene(0, index) for index in range(2000)]


def components(mask: np.ndarray) -> int:
    """How many connected parts a mask has, by flood filling; the last pixels of a tip may stand alone."""
    rest, count = {(int(y), int(x)) for y, x in np.argwhere(mask)}, 0
    while rest:
        edge, area = [rest.pop()], 0
        while edge:
            y, x = edge.pop()
            area += 1
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in rest:
                    rest.remove(near)
                    edge.append(near)
        count += area > 4
    return count


@pytest.mark.parametrize("what", SCENES[:60], ids=lambda what: what.caption)
def test_a_picture_shows_what_its_caption_says(what: Scene) -> None:
    levels = np.asarray(draw(what, 96)).astype(int)
    far, near = (
        np.abs(levels - each).sum(2) for each in (BACKGROUNDS[what.background], COLOURS[what.colour])
    )
    of_shape = near < far
    assert components(of_shape) == len(what.places)
    assert (levels[0, 0] == BACKGROUNDS[what.background]).all()
    numbers = {"a": 1, "an": 1, "two": 2, "three": 3}
    article, colour, shape, *rest = what.caption.split()
    assert numbers[article] == len(what.places)
    assert colour == what.colour
    assert shape.startswith(what.shape)
    assert rest in ([], ["on", rest[1] if rest else "", what.background, "background"])
    assert rest or what.background == "white"


def test_captions_are_english() -> None:
    texts = {what.caption for what in SCENES}
    assert {"a red circle", "two blue squares", "an orange ring"} <= texts
    assert any(text.endswith("on an orange background") for text in texts)
    assert any("crosses" in text for text in texts)
    assert not any(text.startswith(("a orange", "an red")) for text in texts)


def test_each_shape_lacks_one_colour_and_has_all_others() -> None:
    assert len(set(UNSEEN.values())) == len(UNSEEN) == len(OUTLINES)
    seen = {(what.shape, what.colour) for what in SCENES}
    everything = {(shape, colour) for shape in OUTLINES for colour in COLOURS}
    assert everything - seen == set(UNSEEN.items())


def test_no_shape_has_the_colour_of_its_background() -> None:
    assert all(what.colour != what.background for what in SCENES)
    assert {what.background for what in SCENES} == set(BACKGROUNDS)


def test_shapes_lie_within_the_picture_and_apart() -> None:
    for what in SCENES:
        for index, (x, y, radius, _) in enumerate(what.places):
            assert radius + GAP <= min(x, y, 1 - x, 1 - y) + 1e-9
            for other_x, other_y, *_ in what.places[:index]:
                assert np.hypot(x - other_x, y - other_y) > 2 * radius
    for outline in OUTLINES.values():
        assert 0.9 <= max(np.hypot(x, y) for x, y in outline) <= 1.001


def test_edges_are_smooth() -> None:
    levels = np.asarray(draw(next(each for each in SCENES if each.shape == "circle"), 64))
    assert len(np.unique(levels.reshape(-1, 3), axis=0)) > 10


@given(seed=st.integers(0, 2**63 - 1), index=st.integers(0, 10**6))
def test_a_picture_depends_on_seed_and_number_alone(seed: int, index: int) -> None:
    assert scene(seed, index) == scene(seed, index)
    assert len({scene(seed, index), scene(seed + 1, index), scene(seed, index + 1)}) == 3


def test_a_folder_of_shapes_can_be_trained_on_and_is_the_same_again(tmp_path: Path) -> None:
    write_shapes(tmp_path / "a" / "b", 12, 64, 3)
    write_shapes(tmp_path / "c", 11, 64, 3)
    folder = read_folder(tmp_path / "a" / "b")
    assert folder.skipped == ()
    assert [each.caption for each in folder.pictures] == [scene(3, index).caption for index in range(12)]
    assert {(each.width, each.height) for each in folder.pictures} == {(64, 64)}
    for path in sorted((tmp_path / "c").glob("*.png")):
        assert path.read_bytes() == (tmp_path / "a" / "b" / path.name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    for name in ("full", "file"):
        with pytest.raises(UsageError, match="is there already"):
            write_shapes(tmp_path / name, 2, 64, 0)
    (tmp_path / "empty").mkdir()
    write_shapes(tmp_path / "empty", 2, 64, 0)
    assert len(list((tmp_path / "empty").iterdir())) == 3


def test_nothing_is_left_where_it_was_interrupted(tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / "a", 5, 64, 0, interrupt)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(SdscratchError, match="a part of its path is a file"):
        write_shapes(tmp_path / "file" / "a", 5, 64, 0)
