from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdscratch.images import fit_picture
from support.pictures import gradient

SIDES = st.integers(1, 90)


@settings(deadline=None, max_examples=300)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(["cover", "stretch", "contain"]))
def test_any_picture_gets_exactly_the_size(
    width: int, height: int, new_width: int, new_height: int, fit: str
) -> None:
    fitted = fit_picture(Image.new("RGB", (width, height), "red"), new_width, new_height, fit, "red")  # type: ignore[arg-type]
    assert (fitted.mode, fitted.size) == ("RGB", (new_width, new_height))
    assert fitted.getcolors() == [(new_width * new_height, (255, 0, 0))]


@pytest.mark.parametrize("fit", ["cover", "stretch", "contain"])
def test_a_picture_of_the_size_is_untouched(fit: str) -> None:
    assert fit_picture(gradient(), *gradient().size, fit).tobytes() == gradient().tobytes()  # type: ignore[arg-type]


def test_stretch_is_what_diffusers_does() -> None:
    processor = pytest.importorskip("diffusers.image_processor").VaeImageProcessor(vae_scale_factor=8)
    image = gradient(101, 77)
    theirs = (processor.preprocess(image)[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.array_equal(np.asarray(fit_picture(image, 96, 72, "stretch")), np.round(theirs))


def test_cover_crops_the_longer_side_alike_at_both_ends() -> None:
    wide = Image.new("RGB", (96, 32), "blue")
    wide.paste("red", (32, 0, 64, 32))
    assert fit_picture(wide, 32, 32, "cover").getcolors() == [(1024, (255, 0, 0))]
    assert fit_picture(wide.transpose(Image.Transpose.ROTATE_90), 64, 64).getpixel((32, 32)) == (255, 0, 0)


def test_cover_only_crops_what_needs_no_scaling() -> None:
    image = gradient(45, 32)
    assert fit_picture(image, 40, 32).tobytes() == image.crop((2, 0, 42, 32)).tobytes()
    assert fit_picture(image, 45, 29).tobytes() == image.crop((0, 1, 45, 30)).tobytes()


def test_contain_adds_borders_of_the_background_alike_at_both_ends() -> None:
    framed = fit_picture(Image.new("RGB", (20, 10), "red"), 40, 40, "contain", "lime")
    rows = np.asarray(framed)[:, 0].tolist()
    assert rows == [[0, 255, 0]] * 10 + [[255, 0, 0]] * 20 + [[0, 255, 0]] * 10


def test_a_sliver_is_fitted_without_a_giant_between() -> None:
    sliver = Image.new("RGB", (1, 1_000_000), "red")
    for fit in ("cover", "contain"):
        assert fit_picture(sliver, 64, 64, fit).size == (64, 64)  # type: ignore[arg-type]
