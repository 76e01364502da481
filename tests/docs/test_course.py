"""The course: each script runs, prints what its chapter says, and draws the picture that stands there."""

from __future__ import annotations

import re
import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.markdown import ROOT, Page

COURSE = ROOT / "docs" / "course"
CHAPTERS = [Page(path) for path in sorted(COURSE.glob("[1-7]-*.md"))]
SUBJECTS = ["noise", "schedules", "unet", "text", "guidance", "latents", "samplers"]
FULL = {"samplers"}  # draws for half a minute
MOST_LINES = 40
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def subject(chapter: Page) -> str:
    return chapter.path.stem.partition("-")[2]


def script(chapter: Page) -> Path:
    return chapter.path.with_suffix(".py")


MARKED = [
    pytest.param(each, id=subject(each), marks=[pytest.mark.full] if subject(each) in FULL else [])
    for each in CHAPTERS
]


def numbers(text: str) -> list[float]:
    return [float(each.replace(",", "")) for each in NUMBER.findall(text)]


@pytest.mark.parametrize("chapter", MARKED)
def test_a_script_prints_and_draws_what_its_chapter_shows(
    chapter: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made.png"
    monkeypatch.setattr("sys.argv", [str(script(chapter)), str(made)])
    runpy.run_path(str(script(chapter)), run_name="__main__")
    printed = capsys.readouterr().out
    (shown,) = chapter.blocks("")
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", shown).split()
    # another processor adds up in another order
    assert numbers(printed) == pytest.approx(numbers(shown), rel=0.02, abs=0.02)
    picture = Image.open(made).convert("RGB")
    kept = Image.open(chapter.path.with_name(f"{subject(chapter)}.webp")).convert("RGB")
    assert picture.size == kept.size
    apart = np.abs(np.asarray(picture, dtype=np.float32) - np.asarray(kept, dtype=np.float32))
    assert apart.mean() < 3.0  # of 255: what WebP leaves out


def test_there_are_seven_short_chapters_in_a_row() -> None:
    assert [subject(each) for each in CHAPTERS] == SUBJECTS
    index = Page(COURSE / "README.md")
    assert [each.path.name for each in CHAPTERS] == [
        link for link in index.links if re.match(r"\d-\w+\.md$", link)
    ]
    for chapter, following in pairwise(CHAPTERS):
        assert following.path.name in chapter.links
    assert "docs/course/README.md" in Page(ROOT / "README.md").links
    assert sum(path.stat().st_size for path in COURSE.glob("*.webp")) <= 500_000


@pytest.mark.parametrize("chapter", CHAPTERS, ids=subject)
def test_a_chapter_has_its_script_its_picture_and_its_sources(chapter: Page) -> None:
    source = script(chapter).read_text()
    assert len(source.splitlines()) <= MOST_LINES
    assert "from sdscratch" in source
    links = chapter.links
    for needed in (script(chapter).name, f"{subject(chapter)}.webp", "../explain.md", "../glossary.md"):
        assert any(link.partition("#")[0] == needed for link in links), needed
    assert any(link.startswith("https://arxiv.org/abs/") for link in links)
    assert "## Try" in chapter.text


@pytest.mark.parametrize("chapter", CHAPTERS, ids=subject)
def test_lines_of_code_in_a_chapter_are_the_scripts_or_the_packages(chapter: Page) -> None:
    linked = [(chapter.path.parent / link).resolve() for link in chapter.links if link.endswith(".py")]
    known = {line.strip() for path in linked for line in path.read_text().splitlines()}
    blocks = chapter.blocks("python")
    assert blocks
    for line in "\n".join(blocks).splitlines():
        assert line.strip() in known, line
