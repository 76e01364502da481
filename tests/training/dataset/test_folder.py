"""A folder: what is trained on, in which order, and what is skipped, with reasons."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from sdscratch.errors import ImageError
from sdscratch.training.dataset.folder import Folder, digest, read_folder, write_skipped
from support.folders import captioned, noise_picture, reasons
from support.pictures import gradient, png


def paths(folder: Folder) -> list[str]:
    return [picture.path for picture in folder.pictures]


def test_every_kind_of_broken_picture_is_listed_and_none_is_fatal(tmp_path: Path) -> None:
    captioned(tmp_path, 2)
    bodies = {
        "empty.png": b"",
        "text.jpg": b"not a picture",
        "gif.png": b"GIF89a" + b"\0" * 50,
        "cut.jpg": b"\xff\xd8\xff\xe0\x00\x10JF",
        "header.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 20,
        "huge.png": png(65_000, 65_000, 8, 0, b""),
        "zero.webp": b"RIFF\0\0\0\0WEBP",
        "page.webp": b"<!doctype html>",
    }
    for name, body in bodies.items():
        (tmp_path / name).write_bytes(body)
        (tmp_path / name).with_suffix(".txt").write_text("x")
    (tmp_path / "silent.png").write_bytes((tmp_path / "00.png").read_bytes())
    (tmp_path / "animated.gif").write_bytes(b"GIF89a")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    folder = read_folder(tmp_path)
    assert paths(folder) == ["00.png", "01.png"]
    found = reasons(tmp_path)
    assert found.keys() == bodies.keys() | {"silent.png", "animated.gif", "dangling.png", "pipe.png"}
    assert found["silent.png"] == "it has no caption"
    assert "89 megapixels" in found["huge.png"]
    assert "GIF" in found["gif.png"]
    assert found["pipe.png"] == "it is no regular file"
    assert [reason for reason in found.values() if str(tmp_path) in reason] == []


def test_captionless_pictures_are_used_where_captions_do_not_matter(tmp_path: Path) -> None:
    noise_picture(tmp_path / "a.png")
    (folder,) = (read_folder(tmp_path, captioned=False),)
    assert [(each.path, each.caption) for each in folder.pictures] == [("a.png", "")]
    assert reasons(tmp_path) == {"a.png": "it has no caption"}


def test_a_file_that_cannot_be_read_is_listed(tmp_path: Path) -> None:
    captioned(tmp_path, 2)
    (tmp_path / "00.txt").unlink()
    (tmp_path / "00.txt").write_bytes(b"caf\xe9")
    assert reasons(tmp_path) == {"00.png": "its caption is not in UTF-8"}


def test_the_order_is_that_of_names_whatever_the_file_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["z.png", "a/y.png", "ä b.png", "B.png", "a.png", "b/a.png", "10.png", "9.png"]
    for name in names:
        noise_picture(tmp_path / name)
    listed = paths(read_folder(tmp_path, captioned=False))
    assert listed == ["10.png", "9.png", "B.png", "a.png", "z.png", "ä b.png", "a/y.png", "b/a.png"]
    walk = os.walk

    def backwards(*arguments: object, **options: object):  # type: ignore[no-untyped-def]
        for folder, folders, files in walk(*arguments, **options):  # type: ignore[call-overload]
            folders.reverse()
            yield folder, folders, files[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    assert paths(read_folder(tmp_path, captioned=False)) == listed


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    root = captioned(tmp_path / "root", 1)
    elsewhere = captioned(tmp_path / "elsewhere", 1)
    (root / "linked").symlink_to(elsewhere)
    (root / "linked too").symlink_to(elsewhere)
    (root / "circle").symlink_to(root)
    (root / "b.png").symlink_to(elsewhere / "00.png")
    (root / "b.txt").write_text("linked")
    assert paths(read_folder(root)) == ["00.png", "b.png", "linked/00.png"]
    assert reasons(root) == dict.fromkeys(
        ["circle", "linked too"], "this folder is listed under another name"
    )


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    captioned(tmp_path, 1)
    captioned(tmp_path / ".thumbnails", 1)
    (tmp_path / "._00.png").write_bytes(b"\0")
    assert paths(read_folder(tmp_path)) == ["00.png"]
    assert reasons(tmp_path) == {}


def test_tables_come_before_text_files_and_name_pictures_in_any_spelling(tmp_path: Path) -> None:
    captioned(tmp_path, 2)
    noise_picture(tmp_path / "sub" / "e\u0301.png")
    rows = [
        {"file_name": "00.png", "text": "from the table"},
        {"file_name": "sub/\u00e9.png", "text": "accented"},
        {"file_name": "gone.png", "text": "x"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    folder = read_folder(tmp_path)
    assert [each.caption for each in folder.pictures] == ["from the table", "number 1", "accented"]
    assert reasons(tmp_path) == {"metadata.jsonl, line 3": "there is no picture gone.png"}


def test_sizes_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "b.png", "c.webp"):
        gradient(48, 32).save(tmp_path / name, exif=exif)
    gradient(48, 32).save(tmp_path / "d.png")
    sizes = [(each.width, each.height) for each in read_folder(tmp_path, captioned=False).pictures]
    assert sizes == [(32, 48)] * 3 + [(48, 32)]


def test_no_folder_and_no_pictures_are_each_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is not there; give a folder"):
        read_folder(tmp_path / "nowhere")
    path = noise_picture(tmp_path / "x" / "a.png")
    with pytest.raises(ImageError, match="is a file, not a folder"):
        read_folder(path)
    with pytest.raises(ImageError, match=r"none of the pictures .*1 skipped; a.png: it has no caption"):
        read_folder(tmp_path / "x").needs_some()
    (tmp_path / "y").mkdir()
    with pytest.raises(ImageError, match="holds no pictures"):
        read_folder(tmp_path / "y").needs_some()


def test_what_is_skipped_is_written_a_line_each(tmp_path: Path) -> None:
    root = captioned(tmp_path / "root", 1)
    (root / "line\nbreak.png").write_bytes(b"")
    (root / os.fsdecode(b"\xff.png")).write_bytes(b"")
    write_skipped(read_folder(root).skipped, tmp_path / "skipped.txt")
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["line\\nbreak.png", "\\udcff.png"]


def test_a_part_is_chosen_by_content_alone(tmp_path: Path) -> None:
    folder = read_folder(captioned(tmp_path / "a", 40))
    kept, apart = folder.part(0.25)
    assert {*paths(kept), *paths(apart)} == set(paths(folder))
    assert 3 <= len(apart.pictures) <= 18
    chosen = {digest(tmp_path / "a" / each.path) for each in apart.pictures}
    # renamed, moved, copied and in other company
    for index, path in enumerate(sorted((tmp_path / "a").glob("*.png"))[::2]):
        for copy in ("one", "two"):
            target = tmp_path / "b" / copy / f"{99 - index}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    other_kept, other_apart = read_folder(tmp_path / "b", captioned=False).part(0.25)
    assert {digest(tmp_path / "b" / each.path) for each in other_apart.pictures} <= chosen
    assert not {digest(tmp_path / "b" / each.path) for each in other_kept.pictures} & chosen
    # a larger share takes more, and lets none go
    assert set(paths(apart)) < set(paths(folder.part(0.5)[1]))


@pytest.mark.parametrize("suffix", [".txt", ".TXT", ".Txt"])
def test_captions_are_found_whatever_the_case_of_their_suffix(tmp_path: Path, suffix: str) -> None:
    noise_picture(tmp_path / "a.png")
    (tmp_path / f"a{suffix}").write_text("a fox")
    assert [each.caption for each in read_folder(tmp_path).pictures] == ["a fox"]


def test_of_two_captions_the_one_in_small_letters_counts(tmp_path: Path) -> None:
    noise_picture(tmp_path / "a.png")
    (tmp_path / "a.TXT").write_text("large")
    (tmp_path / "a.txt").write_text("small")
    assert [each.caption for each in read_folder(tmp_path).pictures] == ["small"]


@pytest.mark.parametrize("name", ["metadata.csv", "Metadata.CSV", "METADATA.JSONL"])
def test_tables_are_found_whatever_the_case_of_their_name(tmp_path: Path, name: str) -> None:
    noise_picture(tmp_path / "a.png")
    row = {"file_name": "a.png", "text": "a fox"}
    csv = "file_name,text\na.png,a fox\n"
    (tmp_path / name).write_text(csv if name.lower().endswith("csv") else json.dumps(row))
    assert [each.caption for each in read_folder(tmp_path).pictures] == ["a fox"]


@pytest.mark.parametrize("name", ["a.caption", "a.png.txt", "A.TXT.bak", "a.json", "a.tags"])
def test_what_lies_beside_a_picture_without_a_caption_is_named(tmp_path: Path, name: str) -> None:
    noise_picture(tmp_path / "a.png")
    (tmp_path / name).write_text("a fox")
    assert reasons(tmp_path) == {
        "a.png": f"it has no caption; {name} is not read, its caption stands in a.txt"
    }


@pytest.mark.parametrize("name", ["captions.csv", "metadata.json", "metadata.tsv"])
def test_a_table_of_another_name_is_named(tmp_path: Path, name: str) -> None:
    noise_picture(tmp_path / "a.png")
    (tmp_path / name).write_text("a fox")
    (reason,) = reasons(tmp_path).values()
    assert f"{name} is not read" in reason
    assert "metadata.csv" in reason


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["a.txt", "metadata.csv", "metadata.jsonl"])
def test_captions_may_begin_with_a_mark(tmp_path: Path, name: str, coding: str) -> None:
    noise_picture(tmp_path / "a.png")
    text = {
        "a.txt": "a fox\r\n",
        "metadata.csv": "file_name,text\r\na.png,a fox\r\n",
        "metadata.jsonl": '{"file_name": "a.png", "text": "a fox"}\r\n',
    }[name]
    (tmp_path / name).write_bytes(text.encode(coding))
    assert [each.caption for each in read_folder(tmp_path).pictures] == ["a fox"]
