"""A folder as a source: the same pictures whoever asks, in whatever parts, before and after a stop."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sdscratch.errors import ImageError, UsageError
from sdscratch.images import fit_picture
from sdscratch.images.tensors import to_tensor
from sdscratch.training.dataset.folder_source import FolderSource, Framing, open_folder
from sdscratch.training.dataset.source import Source
from support.folders import captioned, folder_source, noise_picture

CPU = torch.device("cpu")
MIXED = ((64, 64), (96, 60), (60, 96), (70, 64))
AUGMENTED = {"multiple": 16, "random_flip": True, "seed": 3, "batch": 4}


def pictures(source: Source, step: int, indices: range) -> Tensor:
    return source.batch(step, indices, CPU).pictures


def test_a_batch_shows_the_pictures_with_their_captions(tmp_path: Path) -> None:
    source = folder_source(captioned(tmp_path), center_crop=True)
    batch = source.batch(0, range(2), CPU)
    assert batch.pictures.dtype == torch.float32
    for picture, caption in zip(batch.pictures, batch.captions, strict=True):
        with Image.open(tmp_path / f"{int(caption.split()[1]):02}.png") as image:
            torch.testing.assert_close(picture[None], to_tensor(image.convert("RGB")), rtol=0, atol=0)


def test_parts_of_a_batch_are_parts_of_the_whole(tmp_path: Path) -> None:
    """Two processes, or four parts that are accumulated: the same pictures as one of all indices."""
    captioned(tmp_path, 12, MIXED)
    whole, half, other, parts = (folder_source(tmp_path, **AUGMENTED) for _ in range(4))
    for step in range(6):
        expected = pictures(whole, step, range(4))
        assert torch.equal(pictures(half, step, range(2)), expected[:2])
        assert torch.equal(pictures(other, step, range(2, 4)), expected[2:])
        for index in range(4):
            assert torch.equal(pictures(parts, step, range(index, index + 1)), expected[index : index + 1])


@pytest.mark.parametrize("threads", [1, 5])
def test_a_resumed_run_sees_what_it_would_have_seen(tmp_path: Path, threads: int) -> None:
    captioned(tmp_path, 9, MIXED)
    whole = folder_source(tmp_path, **AUGMENTED)
    seen = [pictures(whole, step, range(4)) for step in range(9)]
    resumed = folder_source(tmp_path, threads=threads, **AUGMENTED)
    for step in (5, 6, 7, 2, 8):
        assert torch.equal(pictures(resumed, step, range(4)), seen[step])


def test_several_threads_may_ask_at_once(tmp_path: Path) -> None:
    captioned(tmp_path, 9, MIXED)
    alone, shared = (folder_source(tmp_path, **AUGMENTED) for _ in range(2))
    asked = [(step, index) for step in range(8) for index in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda at: pictures(shared, at[0], range(at[1], at[1] + 1)), asked))
    for (step, index), picture in zip(asked, found, strict=True):
        assert torch.equal(picture, pictures(alone, step, range(index, index + 1)))


def test_a_step_has_pictures_of_one_bucket(tmp_path: Path) -> None:
    source = folder_source(captioned(tmp_path, 12, MIXED), multiple=16, batch=2)
    sizes = {tuple(pictures(source, step, range(2)).shape[2:]) for step in range(source.plan.steps)}
    assert sizes == {(64, 64), (48, 80), (80, 48)}
    square = folder_source(tmp_path, multiple=16, batch=2, buckets=False)
    assert {tuple(pictures(square, step, range(2)).shape[2:]) for step in range(6)} == {(64, 64)}


def test_crops_and_flips_are_of_the_picture(tmp_path: Path) -> None:
    noise_picture(tmp_path / "a.png", 64, 128).with_suffix(".txt").write_text("x")
    source = folder_source(tmp_path, batch=1, random_flip=True, buckets=False)
    with Image.open(tmp_path / "a.png") as image:
        column = np.asarray(image.convert("RGB"))
    flips, tops = set(), set()
    for step in range(40):
        found = source.levels(source.plan.view(step, 0))
        for flipped in (False, True):
            for top in range(65):
                expected = column[top : top + 64]
                if np.array_equal(found, expected[:, ::-1] if flipped else expected):
                    flips.add(flipped)
                    tops.add(top)
                    break
    assert flips == {False, True}
    assert len(tops) > 20
    centred = folder_source(tmp_path, batch=1, center_crop=True, buckets=False)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(fit_picture(image.convert("RGB"), 64, 64))
    assert np.array_equal(centred.levels(centred.plan.view(0, 0)), expected)
    assert np.array_equal(expected, column[32:96])


def test_a_picture_that_breaks_later_is_replaced_and_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    captioned(tmp_path, 4)
    whole = (tmp_path / "02.png").read_bytes()
    (tmp_path / "02.png").write_bytes(whole[: len(whole) // 2])  # its header is sound
    source, again = (folder_source(tmp_path, batch=4) for _ in range(2))
    with caplog.at_level(logging.WARNING):
        for step in (0, 1, 2):
            batch = source.batch(step, range(4), CPU)
            order = source.plan.batch(step)[1]
            expected = [f"number {index if index != 2 else 3}" for index in order]
            assert list(batch.captions) == expected
            assert torch.equal(batch.pictures, pictures(again, step, range(4)))
    assert [each.path for each in source.skipped] == ["02.png"]
    assert "truncated" in source.skipped[0].reason
    assert len([record for record in caplog.records if "02.png" in record.message]) == 2  # two sources
    source.write_skipped(tmp_path / "skipped.txt")
    assert (tmp_path / "skipped.txt").read_text().startswith("02.png\t")


def test_nothing_left_to_show_is_one_error(tmp_path: Path) -> None:
    captioned(tmp_path, 2)
    source = folder_source(tmp_path)
    for path in tmp_path.glob("*.png"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ImageError, match="none of the pictures of one size can be read any more"):
        source.batch(0, range(2), CPU)


def test_pictures_that_are_too_small_are_skipped(tmp_path: Path) -> None:
    captioned(tmp_path, 3, ((64, 64), (31, 31), (32, 32)))
    source = folder_source(tmp_path)
    assert [each.path for each in source.folder.pictures] == ["00.png", "02.png"]
    assert {each.path: each.reason for each in source.skipped} == {
        "01.png": "31x31 pixels are too few to be made twice as large"
    }
    with pytest.raises(ImageError, match="none of the pictures"):
        folder_source(tmp_path, resolution=256)


def test_what_is_held_out_is_never_trained_on(tmp_path: Path) -> None:
    captioned(tmp_path, 40)
    source = folder_source(tmp_path, validation=0.3)
    held_out = source.held_out(99, CPU)
    trained = {
        caption for step in range(source.plan.steps) for caption in source.batch(step, range(2), CPU).captions
    }
    assert trained | set(held_out.captions) == {f"number {index}" for index in range(40)}
    assert not trained & set(held_out.captions)
    assert held_out.pictures.shape == (len(held_out.captions), 3, 64, 64)
    few = source.held_out(3, CPU)
    assert torch.equal(few.pictures, source.held_out(3, CPU).pictures)
    assert set(few.captions) <= set(held_out.captions)
    assert len(few.captions) == 3
    assert set(source.captions) == trained


def test_a_folder_can_be_held_out(tmp_path: Path) -> None:
    root = captioned(tmp_path / "a", 4)
    other = captioned(tmp_path / "b", 3, ((96, 64), (64, 64)))
    (other / "broken.png").write_bytes((other / "00.png").read_bytes()[:200])
    (other / "broken.txt").write_text("broken")
    source = folder_source(root, validation=other)
    assert source.held_out(9, CPU).captions == ("number 0", "number 1", "number 2")
    assert [each.path for each in source.skipped] == ["broken.png"]
    assert folder_source(root).held_out(9, CPU).pictures.shape == (0, 3, 64, 64)
    with pytest.raises(ImageError, match="is not there"):
        folder_source(root, validation=tmp_path / "c")
    with pytest.raises(UsageError, match="from 0 to below 1"):
        folder_source(root, validation=1.0)


def test_views_are_fixed_where_nothing_is_cropped_at_random(tmp_path: Path) -> None:
    captioned(tmp_path, 4, ((64, 64), (128, 128)))
    assert folder_source(tmp_path).fixed_views
    noise_picture(tmp_path / "x.png", 64, 65).with_suffix(".txt").write_text("x")
    assert not folder_source(tmp_path).fixed_views
    assert folder_source(tmp_path, center_crop=True).fixed_views
    source = folder_source(tmp_path, center_crop=True, random_flip=True, seed=1)
    views = source.views()
    assert len(views) == 10 == len(set(views))
    assert {source.plan.view(step, index) for step in range(30) for index in range(2)} == set(views)


def test_autoencoders_need_no_captions(tmp_path: Path) -> None:
    noise_picture(tmp_path / "a.png")
    framing = Framing(64, 1)
    assert open_folder(tmp_path, framing, captioned=False).batch(0, range(1), CPU).captions == ("",)
    with pytest.raises(ImageError, match="no caption"):
        open_folder(tmp_path, framing)


def test_a_folder_is_a_source(tmp_path: Path) -> None:
    source: Source = folder_source(captioned(tmp_path))
    assert isinstance(source, FolderSource)
