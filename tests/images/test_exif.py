"""EXIF data are what the standard says, and other libraries read them."""

from __future__ import annotations

import io
from pathlib import Path

import piexif
import piexif.helper
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdscratch.images import read_records, save_picture
from sdscratch.images.exif import exif_data
from support.pictures import gradient, record

UNDEFINED = 7


def raw_type(data: bytes, tag: int) -> int:
    """The TIFF type of an EXIF tag, read by hand."""
    at = data.index(tag.to_bytes(2, "big") + UNDEFINED.to_bytes(2, "big"))
    return int.from_bytes(data[at + 2 : at + 4], "big")


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_a_second_library_reads_both_records(tmp_path: Path, suffix: str) -> None:
    made = record(prompt="りんご 🍎", negative_prompt="bad")
    path = tmp_path / f"a.{suffix}"
    save_picture(gradient(), path, made)
    with Image.open(path) as image:
        found = piexif.load(image.info["exif"])
    comment = found["Exif"][piexif.ExifIFD.UserComment]
    assert isinstance(comment, bytes)  # of another type than UNDEFINED it is a tuple of numbers
    assert piexif.helper.UserComment.load(comment) == made.infotext()
    assert found["0th"][piexif.ImageIFD.ImageDescription] == made.to_json().encode()
    if suffix != "webp":
        assert piexif.load(str(path)) == found
    assert raw_type(path.read_bytes(), piexif.ExifIFD.UserComment) == UNDEFINED


@given(
    description=st.text(st.characters(max_codepoint=126, min_codepoint=32), max_size=9),
    comment=st.text(max_size=9),
)
def test_any_text_comes_back_from_either_library(description: str, comment: str) -> None:
    data = exif_data(description, comment)
    found = piexif.load(data)
    assert found["0th"][piexif.ImageIFD.ImageDescription].rstrip(b"\0") == description.encode()
    value = found["Exif"][piexif.ExifIFD.UserComment]
    assert value == b"UNICODE\0" + comment.encode("utf-16-be", "surrogatepass")
    image = Image.new("RGB", (8, 8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=data)
    exif = Image.open(buffer).getexif()
    assert exif.get(0x010E, "").rstrip("\0") == description.rstrip("\0")
    assert exif.get_ifd(0x8769)[0x9286] == value


def test_without_a_comment_there_is_no_exif_directory() -> None:
    found = piexif.load(exif_data("{}", None))
    assert found["0th"] == {piexif.ImageIFD.ImageDescription: b"{}"}
    assert found["Exif"] == {}


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_what_older_versions_wrote_is_still_read(tmp_path: Path, suffix: str) -> None:
    made = record(prompt="りんご")
    exif = Image.Exif()  # as until 0.1: Pillow's own types, BYTE for the comment
    exif[0x010E] = made.to_json()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + made.infotext().encode("utf-16-be")
    gradient().save(tmp_path / f"a.{suffix}", exif=exif)
    found = read_records(tmp_path / f"a.{suffix}")
    assert found.record == made
    assert found.beside is not None
    assert found.beside.prompt == "りんご"
