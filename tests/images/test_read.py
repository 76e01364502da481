from __future__ import annotations

import io
import struct
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from sdscratch.errors import ImageError, UsageError
from sdscratch.images import fit_picture, parse_colour, picture_hash, picture_size, read_picture, read_records
from sdscratch.images.chunks import before_pixels
from support.pictures import gradient, png, png_chunk

GREY, RGB, GREY_ALPHA, RGB_ALPHA = 0, 2, 4, 6  # PNG's colour types


def read(tmp_path: Path, data: bytes, background: str = "white") -> np.ndarray:
    path = tmp_path / "picture"
    path.write_bytes(data)
    image = read_picture(path, background)
    assert image.mode == "RGB"
    assert image.info == {}
    return np.asarray(image).astype(int)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def assert_alike(found: np.ndarray, expected: Image.Image | np.ndarray, tolerance: int = 0) -> None:
    assert np.abs(found - np.asarray(expected).astype(int)).max() <= tolerance


def row16(*values: int) -> bytes:
    return b"\0" + struct.pack(f">{len(values)}H", *values)


# Kinds of pictures


@pytest.mark.parametrize(("kind", "tolerance"), [("PNG", 0), ("WEBP", 0), ("JPEG", 12)])
def test_the_three_formats_are_read(tmp_path: Path, kind: str, tolerance: int) -> None:
    data = encoded(gradient(), kind, lossless=True, quality=95)
    assert_alike(read(tmp_path, data), gradient(), tolerance)


@pytest.mark.parametrize("colour", [GREY, RGB])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, colour: int) -> None:
    levels = [0, 255, 256, 4863, 30000, 32768, 65000, 65535]
    channels = 3 if colour == RGB else 1
    data = png(len(levels), 1, 16, colour, row16(*np.repeat(levels, channels)))
    expected = np.repeat(np.array(levels) / 257, 3).reshape(1, -1, 3)
    assert np.abs(read(tmp_path, data) - expected).max() < 1


def test_16_bit_grey_is_scaled_exactly(tmp_path: Path) -> None:
    levels = np.arange(0, 65536, 8).reshape(64, 128)
    data = png(128, 64, 16, GREY, b"".join(row16(*line) for line in levels))
    assert (read(tmp_path, data)[..., 0] == np.floor(levels / 257 + 0.5)).all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_shows_the_background(tmp_path: Path, depth: int) -> None:
    level = 1 if depth < 8 else 0x12
    bits = f"{level:0{depth}b}" + f"{0:0{depth}b}"
    row = int(bits.ljust(max(8, 2 * depth), "0"), 2).to_bytes(max(1, 2 * depth // 8), "big")
    data = png(2, 1, depth, GREY, b"\0" + row, png_chunk(b"tRNS", struct.pack(">H", level)))
    assert read(tmp_path, data, "red").tolist() == [[[255, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_shows_the_background(tmp_path: Path, depth: int) -> None:
    levels = (10, 20, 30) if depth == 8 else (0x1234, 0x5678, 0x9ABC)
    row = bytes([0, *levels, 1, 2, 3]) if depth == 8 else row16(*levels, 257, 514, 771)
    data = png(2, 1, depth, RGB, row, png_chunk(b"tRNS", struct.pack(">3H", *levels)))
    assert read(tmp_path, data, "#0000ff").tolist() == [[[0, 0, 255], [1, 2, 3]]]


def test_alpha_is_laid_over_the_background(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (2, 1), (200, 100, 0, 128))
    rgba.putpixel((1, 0), (9, 9, 9, 0))
    share = 128 / 255
    for kind in ("PNG", "WEBP"):
        found = read(tmp_path, encoded(rgba, kind, lossless=True, exact=True), "#204060")
        over = [round(a * share + b * (1 - share)) for a, b in zip((200, 100, 0), (32, 64, 96), strict=True)]
        assert_alike(found, np.array([[over, [32, 64, 96]]]), 1)


def test_alpha_lies_over_white_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "clear.png"
    Image.new("RGBA", (1, 1), (0, 0, 0, 0)).save(path)
    assert read_picture(path).getpixel((0, 0)) == (255, 255, 255)


def test_grey_with_alpha_and_16_bit_alpha(tmp_path: Path) -> None:
    assert read(tmp_path, encoded(Image.new("LA", (1, 1), (80, 255)), "PNG")).tolist() == [[[80] * 3]]
    assert read(tmp_path, encoded(Image.new("LA", (1, 1), (80, 0)), "PNG")).tolist() == [[[255] * 3]]
    data = png(2, 1, 16, RGB_ALPHA, row16(25700, 0, 0, 65535, 5, 5, 5, 0))
    assert read(tmp_path, data, "lime").tolist() == [[[100, 0, 0], [0, 255, 0]]]
    data = png(2, 1, 16, GREY_ALPHA, row16(25700, 65535, 5, 0))
    assert read(tmp_path, data, "lime").tolist() == [[[100, 100, 100], [0, 255, 0]]]


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    assert read(tmp_path, encoded(palette, "PNG")).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    for transparency in (1, b"\xff\x00"):
        data = encoded(palette, "PNG", transparency=transparency)
        assert read(tmp_path, data, "lime").tolist() == [[[255, 0, 0], [0, 255, 0]]]


def test_grey_and_one_bit(tmp_path: Path) -> None:
    grey = gradient().convert("L")
    assert_alike(read(tmp_path, encoded(grey, "PNG")), grey.convert("RGB"))
    assert_alike(read(tmp_path, encoded(grey, "JPEG", quality=95)), grey.convert("RGB"), 8)
    assert_alike(
        read(tmp_path, encoded(gradient().convert("1"), "PNG")), gradient().convert("1").convert("RGB")
    )


def test_cmyk_stored_inverted_as_adobe_does(tmp_path: Path) -> None:
    cmyk = gradient().convert("CMYK")
    data = encoded(cmyk, "JPEG", quality=95)
    assert b"Adobe" in data  # Adobe's marker: stored inverted
    assert_alike(read(tmp_path, data), gradient(), 12)


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    first, second = gradient(), Image.new("RGB", gradient().size, "red")
    for kind in ("PNG", "WEBP"):
        data = encoded(first, kind, save_all=True, append_images=[second], lossless=True)
        assert_alike(read(tmp_path, data), first)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = gradient()
    # How each orientation stores the upright picture (EXIF 2.3: where row 0 and column 0 lie).
    pixels = np.asarray(upright)
    stored = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.transpose(1, 0, 2), 6: np.rot90(pixels), 7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, lossless=True, quality=95)
    found = read(tmp_path, data)
    assert found.shape == pixels.shape
    assert_alike(found, upright, 12)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_exif_that_makes_no_sense_turns_nothing(tmp_path: Path, exif: bytes) -> None:
    assert_alike(read(tmp_path, encoded(gradient(), "JPEG", quality=95, exif=exif)), gradient(), 12)


# Colour profiles


def profile_with_swapped_primaries(name: str = "test") -> bytes:
    """sRGB's profile with the tags of its red and blue primaries exchanged, under a name of four letters."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = data.replace(b"rXYZ", b"____").replace(b"bXYZ", b"rXYZ").replace(b"____", b"bXYZ")
    return swapped.replace("sRGB".encode("utf-16-be"), name.encode("utf-16-be"))


def test_a_colour_profile_is_applied(tmp_path: Path) -> None:
    data = encoded(gradient(), "PNG", icc_profile=profile_with_swapped_primaries())
    assert_alike(read(tmp_path, data), np.asarray(gradient())[..., ::-1], 2)


def test_a_profile_that_calls_itself_srgb_changes_nothing(tmp_path: Path) -> None:
    # Versions of sRGB differ by rounding; this one differs by more, so that the test would see it applied.
    profile = profile_with_swapped_primaries("sRGB")
    assert_alike(read(tmp_path, encoded(gradient(), "PNG", icc_profile=profile)), gradient())


def test_a_broken_profile_or_one_for_other_pictures_counts_as_none(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (b"garbage" * 30, profile_with_swapped_primaries()[:200], lab):
        assert_alike(read(tmp_path, encoded(gradient(), "PNG", icc_profile=profile)), gradient())
    grey = gradient().convert("L")
    data = encoded(grey, "PNG", icc_profile=profile_with_swapped_primaries())
    assert_alike(read(tmp_path, data), grey.convert("RGB"))


# What is refused


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\n\n  <HTML>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"GIF89a" + bytes(40), "a GIF picture"),
        (b"BM" + bytes(40), "a BMP picture"),
        (b"II*\0" + bytes(40), "a TIFF picture"),
        (b"%PDF-1.7", "a PDF document"),
        (b"PK\x03\x04" + bytes(40), "a zip archive"),
        (b"\0\0\0\x20ftypavif", "an AVIF, HEIC or video file"),
        (b'\x10\0\0\0\0\0\0\0{"a":1}', "a safetensors file"),
        (b"\x80\x02}q\x01.", "a Python pickle"),
        (b"<svg xmlns=''/>", "an SVG drawing"),
        (b"a dog\n", "a text file"),
        (b"RIFF\0\0\0\0WAVEfmt ", "no picture"),
        (b"\xfe\xed\xfa\xce" + bytes(40), "no picture"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=f"picture.* is {words}.*; give a PNG, JPEG or WebP picture$"):
        read(tmp_path, data)


def test_folders_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder"):
        read_picture(tmp_path)
    with pytest.raises(ImageError, match="there is no picture"):
        read_picture(tmp_path / "no.png")
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match=r"cannot read .*: Not a directory"):
        read_picture(tmp_path / "file" / "a.png")
    with pytest.raises(ImageError, match="cannot read"):
        read_picture("a\0b")
    assert ImageError.exit_code == 4


@pytest.mark.parametrize("side", [9_500, 60_000])
def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    data = png(side, side, 8, RGB, b"\0" * 1000)
    assert len(data) < 200
    tracemalloc.start()
    with pytest.raises(ImageError, match="more than 89 megapixels"):
        read(tmp_path, data)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_pixels_are_counted_even_where_pillow_was_told_not_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="more than 89 megapixels"):
        read(tmp_path, png(60_000, 60_000, 8, RGB, b""))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_picture_is_refused_or_all_there(tmp_path: Path, kind: str) -> None:
    whole = encoded(gradient(), kind, lossless=True)
    expected = read(tmp_path, whole)
    refused = 0
    for length in range(1, len(whole)):
        try:
            assert_alike(read(tmp_path, whole[:length]), expected)
        except ImageError:
            refused += 1
    assert refused > 0.9 * (len(whole) - 20)


@settings(deadline=None, max_examples=300)
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "WEBP"]))
def test_damage_anywhere_gives_a_picture_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    whole = bytearray(encoded(gradient(), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(tmp_path_factory.getbasetemp(), bytes(whole))
    except ImageError as error:
        sentence = str(error)
    else:
        sentence = ""
    assert "\n" not in sentence


@pytest.mark.parametrize("size", [(1 << 20) + 1, 50_000_000])
@pytest.mark.parametrize("chunk", [b"zTXt", b"iCCP", b"iTXt"])
def test_what_unpacks_to_too_much_is_left_out_and_the_pixels_are_read(
    tmp_path: Path, chunk: bytes, size: int
) -> None:
    middle = b"\0\x01\0\0\0" if chunk == b"iTXt" else b"\0\0"
    bomb = png_chunk(chunk, b"parameters" + middle + zlib.compress(bytes(size)))
    picture = png(1, 1, 8, GREY, b"\0\7", bomb)
    assert read(tmp_path, picture).tolist() == [[[7, 7, 7]]]
    path = tmp_path / "bomb.png"
    path.write_bytes(picture)
    assert picture_size(path) == (1, 1)
    (left_out,) = read_records(path).texts.left_out
    assert "more than 1 MiB unpacked" in left_out


@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"parameters\0\0no zlib"),
        (b"zTXt", b"parameters\0\7" + zlib.compress(b"x")),  # a method that nobody knows
        (b"iTXt", b"parameters\0\1\0\0\0no zlib"),
        (b"iCCP", b"profile\0\0no zlib"),
        (b"iCCP", b"profile"),
    ],
)
@pytest.mark.parametrize("behind", [False, True])
def test_what_cannot_be_unpacked_is_left_out_too(
    tmp_path: Path, chunk: tuple[bytes, bytes], behind: bool
) -> None:
    broken = png_chunk(*chunk)
    picture = png(1, 1, 8, GREY, b"\0\7", *([] if behind else [broken]))
    if behind:
        picture = picture[:-12] + broken + picture[-12:]  # before IEND
    assert read(tmp_path, picture).tolist() == [[[7, 7, 7]]]
    path = tmp_path / "broken.png"
    path.write_bytes(picture)
    assert picture_size(path) == (1, 1)
    assert "cannot be unpacked" in read_records(path).texts.left_out[0]


def test_text_without_end_is_left_out_beyond_48_mib(tmp_path: Path) -> None:
    texts = [png_chunk(b"tEXt", b"k%d\0" % number + b"x" * (8 << 20)) for number in range(9)]
    path = tmp_path / "long.png"
    path.write_bytes(png(1, 1, 8, GREY, b"\0\7", *texts))
    records = read_records(path)
    assert list(records.texts.png) == ["k0", "k1", "k2", "k3", "k4"]
    assert len(records.texts.left_out) == 4


def test_the_picture_can_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def stdin(data: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    stdin(encoded(gradient(), "PNG"))
    assert read_picture("-").tobytes() == gradient().tobytes()
    stdin(b"")
    with pytest.raises(ImageError, match="standard input is empty"):
        read_picture("-")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_endless_files_end() -> None:
    with pytest.raises(ImageError, match="no picture"):
        read_picture("/dev/zero")


# Colours and hashes


@pytest.mark.parametrize(
    ("name", "expected"),
    [("white", (255, 255, 255)), ("RebeccaPurple", (102, 51, 153)), ("#f80", (255, 136, 0)),
     ("#123456", (18, 52, 86)), ("rgb(1, 2, 3)", (1, 2, 3)), ("rgb(300,0,0)", (255, 0, 0))],
)  # fmt: skip
def test_colours_have_their_css_names(name: str, expected: tuple[int, int, int]) -> None:
    assert parse_colour(name) == expected


@pytest.mark.parametrize("name", ["", "whit", "#12345", "#ggg", "rgb(1,2)", "\0", "a" * 1000])
def test_a_wrong_colour_is_a_wrong_use(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no colour is called"):
        read_picture(tmp_path / "not even looked at", background=name)


def test_the_hash_is_of_size_and_pixels_only(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    gradient().save(path, lossless=True)
    assert picture_hash(read_picture(path)) == picture_hash(gradient())
    assert picture_hash(Image.new("RGB", (2, 3))) != picture_hash(Image.new("RGB", (3, 2)))
    assert picture_hash(Image.new("RGB", (2, 3))) != picture_hash(Image.new("RGB", (2, 3), (0, 0, 1)))


# Sizes, from a file's beginning


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_size_is_that_of_the_picture_as_it_is_read(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "picture"
    path.write_bytes(encoded(gradient(), kind, exif=exif))
    assert picture_size(path) == read_picture(path).size


def test_a_size_is_known_without_decoding(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    data = encoded(Image.effect_noise((64, 48), 50).convert("RGB"), "PNG")
    path.write_bytes(data[:200])
    assert picture_size(path) == (64, 48)
    with pytest.raises(ImageError, match="truncated"):
        read_picture(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"GIF89a", "is a GIF picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "truncated or damaged$"),
        (png(65_000, 65_000, 8, GREY, b""), "more than 89 megapixels"),
    ],
)
def test_what_has_no_size_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "picture"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=reason):
        picture_size(path)
    with pytest.raises(ImageError, match="there is no picture"):
        picture_size(tmp_path / "nowhere")


def test_pillow_is_kept_quiet_in_all_threads_and_the_filters_come_back(tmp_path: Path) -> None:
    """Each thread setting and restoring the one list of filters would leave it as another had it."""
    exif = b"Exif\0\0II*\0\x08\0\0\0" + bytes([1, 0, 0x12, 1, 3, 0, 255, 255, 255, 0, 0, 0, 0, 0])  # it warns
    path = tmp_path / "odd.jpg"
    path.write_bytes(encoded(gradient(), "JPEG", exif=exif))
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda _: read_picture(path).size, range(64)))
    assert set(sizes) == {(48, 32)}
    assert warnings.filters == before


# Where a crop lies


def test_a_crop_can_lie_anywhere_along_what_is_left_over() -> None:
    wide = gradient(48, 32)
    for at, left in ((0.0, 0), (0.5, 8), (0.999, 15), (1.0, 16)):
        assert (
            fit_picture(wide, 32, 32, at=(at, 0.3)).tobytes() == wide.crop((left, 0, left + 32, 32)).tobytes()
        )


class Asked(io.BytesIO):
    """Remembers how much was asked for at once: a file makes room for that, whether it is there or not."""

    most = 0

    def read(self, count: int | None = -1, /) -> bytes:
        self.most = max(self.most, count or 0)
        return super().read(count)


def test_no_room_is_made_for_a_chunk_that_only_says_it_is_large() -> None:
    data = io.BytesIO()
    gradient().save(data, "PNG")
    lying = data.getvalue()[:33] + (2**31 - 1).to_bytes(4, "big") + b"tEXtparameters"
    file = Asked(lying)
    before_pixels(file)
    assert file.most <= 1 << 20
