"""Masks as A1111 computes with them, by numbers of its own; what is put back is what was there."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdscratch.errors import ImageError, UsageError
from sdscratch.images.fit import fitted_in
from sdscratch.images.masks import (
    REDUCTIONS,
    blurred,
    blurred_along,
    filled,
    grown,
    latent_mask,
    mask_of,
    mask_of_alpha,
    region,
)
from sdscratch.images.repaint import (
    Borders,
    parse_extend,
    plan_repaint,
    rounded_up,
)
from sdscratch.options import SD1_DEFAULTS, GenerateOptions, ResolvedOptions
from support.pictures import gradient
from support.shared import shared_path

BLURS = ((0, 0), (1, 1), (4, 4), (8, 3))


@cache
def golden() -> tuple[Any, Any]:
    return (
        np.load(shared_path("golden", "masks.npz")),
        json.loads(shared_path("golden", "masks.json").read_text()),
    )


def options(**asked: Any) -> ResolvedOptions:
    return GenerateOptions("", **asked).resolve(SD1_DEFAULTS, 0)


def test_blurs_are_opencvs_to_the_last_bit() -> None:
    arrays, table = golden()
    for each in table["masks"]:
        mask = arrays[f"{each['mask']}/mask"]
        for x, y in BLURS:
            ours = blurred_along(blurred_along(mask, x).T, y).T
            np.testing.assert_array_equal(ours, arrays[f"{each['mask']}/blur_{x}_{y}"])


def test_latent_masks_are_a1111s() -> None:
    arrays, table = golden()
    for each in table["masks"]:
        for x, y in BLURS:
            mask = Image.fromarray(arrays[f"{each['mask']}/blur_{x}_{y}"])
            size = each["width"] // 8, each["height"] // 8
            for way, name in (("bicubic", f"latent_{x}_{y}_soft"), ("rounded", f"latent_{x}_{y}")):
                np.testing.assert_array_equal(latent_mask(mask, size, way), arrays[f"{each['mask']}/{name}"])


def test_regions_and_their_growth_are_a1111s() -> None:
    arrays, table = golden()
    for each in table["masks"]:
        for crop in each["crop"]:
            x, y = crop["blur"]
            mask = Image.fromarray(arrays[f"{each['mask']}/blur_{x}_{y}"])
            if crop["v2"] is None:
                with pytest.raises(ValueError, match="empty"):
                    region(mask, crop["pad"])
                continue
            box = region(mask, crop["pad"])
            assert list(box) == crop["v2"]
            for size, expected in crop["expanded"].items():
                width, height = map(int, size.split("x"))
                assert list(grown(box, (width, height), mask.size)) == expected


@pytest.mark.parametrize("name", ["rect", "disc", "wide_rect", "soft"])
def test_the_whole_chain_is_a1111s(name: str) -> None:
    arrays, table = golden()
    (chain,) = [each for each in table["chain"] if each["mask"] == name]
    image = Image.fromarray(arrays[f"chain/{name}/image"])
    mask = Image.fromarray(arrays[f"{name}/mask"])
    width, height = chain["process"]
    plan = plan_repaint(
        image, mask.convert("RGB"),
        options(mask_blur=chain["blur"], only_masked=chain["pad"], width=width, height=height),
    )  # fmt: skip
    assert list(plan.box or ()) == chain["crop"]
    np.testing.assert_array_equal(plan.picture, arrays[f"chain/{name}/image_cropped"])
    np.testing.assert_array_equal(plan.drawn_mask, arrays[f"chain/{name}/mask_cropped"][..., 0])
    reduced = latent_mask(plan.drawn_mask, (width // 8, height // 8), "rounded")
    np.testing.assert_array_equal(reduced, arrays[f"chain/{name}/latent"])
    # Pillow's blur may change with its version
    fill = np.asarray(filled(image, plan.mask)).astype(int)
    assert np.abs(fill - arrays[f"chain/{name}/fill"]).max() <= 2
    # theirs is composed in premultiplied levels, and so rounded once more
    inverted = Image.fromarray(255 - np.asarray(plan.picture))
    pasted = np.asarray(plan.finished(inverted)).astype(int)
    assert np.abs(pasted - arrays[f"chain/{name}/pasted"]).max() <= 1


def test_a_mask_with_transparency_is_what_is_opaque() -> None:
    arrays, _ = golden()
    for given, expected in (("in", "round"), ("opaque_in", "opaque_out")):
        ours = mask_of(Image.fromarray(arrays[f"rgba/{given}"]))
        np.testing.assert_array_equal(ours, arrays[f"rgba/{expected}"])


@pytest.mark.parametrize("sigma", [0.3, 1, 4, 7.7, 30])
def test_a_blur_reaches_no_further_than_three_sigma_and_one(sigma: float) -> None:
    levels = np.zeros((61, 300), np.uint8)
    levels[:, :100] = 255
    reached = np.nonzero(np.asarray(blurred(Image.fromarray(levels), sigma)).max(0))[0].max()
    assert reached <= 99 + 3 * sigma + 1


def test_every_reduction_of_a_sharp_mask_on_the_grid_is_that_mask() -> None:
    wanted = (np.indices((6, 9)).sum(0) % 3 == 0).astype(np.float32)
    mask = Image.fromarray((wanted.repeat(8, 0).repeat(8, 1) * 255).astype(np.uint8))
    for way in set(REDUCTIONS) - {"bicubic"}:
        np.testing.assert_array_equal(latent_mask(mask, (9, 6), way), wanted, way)


def pictures(mode: str) -> tuple[Image.Image, Image.Image]:
    """An init picture of odd sides, and what was drawn: noise."""
    whole = gradient(101, 67).convert(mode)
    if mode == "RGBA":
        whole.putalpha(gradient(101, 67).getchannel(1))
    noise = np.random.default_rng(1).integers(0, 256, (72, 104, 3), np.uint8)
    return whole, Image.fromarray(noise)


def disc(size: tuple[int, int]) -> Image.Image:
    y, x = np.mgrid[: size[1], : size[0]]
    return Image.fromarray((((x - 40) ** 2 + (y - 30) ** 2 < 300) * 255).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(
    "asked", [{}, {"mask_blur": 0}, {"soft_mask": True}, {"mask_invert": True}, {"only_masked": 5}], ids=str
)
def test_what_lies_outside_keeps_its_bytes(mode: str, asked: dict[str, Any]) -> None:
    whole, drawn = pictures(mode)
    mask = disc(whole.size)
    plan = plan_repaint(whole, mask, options(width=104, height=72, **asked))
    result = plan.finished(drawn)
    assert (result.size, result.mode) == (whole.size, mode)
    levels = np.asarray(mask.convert("L"))
    levels = 255 - levels if asked.get("mask_invert") else levels
    reach = 3 * asked.get("mask_blur", 4) + 1
    y, x = np.nonzero(levels)
    rows, columns = np.indices(levels.shape)
    near = np.zeros(levels.shape, bool)
    for row, column in zip(y, x, strict=True):
        near |= (abs(rows - row) <= reach) & (abs(columns - column) <= reach)
    ours, before = np.asarray(result), np.asarray(whole)
    np.testing.assert_array_equal(ours[~near], before[~near])
    assert (ours[levels > 0][..., :3] != before[levels > 0][..., :3]).any()
    if mode == "RGBA":
        np.testing.assert_array_equal(ours[..., 3], before[..., 3])


def test_a_hole_is_filled_and_becomes_opaque() -> None:
    whole, drawn = pictures("RGB")
    hole = Image.eval(disc(whole.size).getchannel(0), lambda level: 255 - level)
    whole.putalpha(hole)
    assert np.array_equal(mask_of_alpha(whole), 255 - np.asarray(hole))
    result = plan_repaint(whole, "alpha", options(width=104, height=72)).finished(drawn)
    assert np.asarray(result.getchannel("A")).min() == 255
    outside = np.asarray(plan_repaint(whole, "alpha", options(width=104, height=72)).cover) == 0
    np.testing.assert_array_equal(np.asarray(result)[outside], np.asarray(whole)[outside])


def test_borders_are_added_and_painted() -> None:
    whole, _ = pictures("RGBA")
    size = rounded_up((101 + 24, 67 + 10))
    asked = options(width=size[0], height=size[1], mask_blur=0)
    plan = plan_repaint(whole, None, asked, extend="left=24,top=10")
    noise = Image.fromarray(np.random.default_rng(2).integers(0, 256, (size[1], size[0], 3), np.uint8))
    result = np.asarray(plan.finished(noise))
    assert result.shape == (77, 125, 4)
    np.testing.assert_array_equal(result[10:, 24:], np.asarray(whole))
    np.testing.assert_array_equal(result[:10, :, :3], np.asarray(noise)[:10, :125])
    assert (result[:10, :, 3] == 255).all()


def test_borders_are_read() -> None:
    assert parse_extend(" left=128, top=64") == Borders(left=128, top=64)
    for wrong in ("", "left", "left=-1", "left=1,left=2", "up=3", "left=0", "left=9000", "left=1.5"):
        with pytest.raises(UsageError, match="extend"):
            parse_extend(wrong)


def test_empty_masks_and_pictures_without_holes_are_refused() -> None:
    whole, _ = pictures("RGB")
    with pytest.raises(ImageError, match="empty"):
        plan_repaint(whole, Image.new("RGB", whole.size), options(width=104, height=72))
    with pytest.raises(ImageError, match="transparent"):
        plan_repaint(whole, "alpha", options(width=104, height=72))


def test_a_part_that_does_not_fit_is_framed_by_its_own_edge() -> None:
    framed = np.asarray(fitted_in(gradient(20, 40), (64, 64)))
    assert (framed[:, 0] == framed[:, 8]).all()
    assert not (framed == 0).all(-1).any(1).all()
