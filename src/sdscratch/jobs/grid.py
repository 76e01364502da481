"""Contact sheets: a plan's pictures side by side with labels, its axes as columns and rows; pages for many.

The last axis of a TOML plan makes the columns, the one before it the rows, those before that a block each.
Of other plans pictures stand in the plan's order, each over its seed and prompt. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from math import ceil, sqrt
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from sdscratch.errors import ImageError, UsageError
from sdscratch.files import atomic_write
from sdscratch.images.open import opened
from sdscratch.jobs.axes import Axis

__all__ = ["Block", "Cell", "Style", "blocks_of", "check_sheets", "sheet_names", "write_sheets"]

PAGE = 8192  # pixels a side, at most
LARGEST, LEAST = 512, 64  # pixels of a cell's side
PLAIN_COLUMNS = 12  # of pictures without columns of their own
MARGIN = 8
INK, PAPER, MISSING = "black", "white", "lightgrey"
MARK = ("Software", "sdscratch contact sheet")  # PNG text that tells our sheets from other pictures
LINES = 3  # of a label


@dataclass(frozen=True)
class Cell:
    """A picture, and what stands below it where no axis says it."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Block:
    """Rows of cells with labels.

    Attributes:
        title: what all of it shares.
        columns: a label each; none where cells have captions.
        rows: a label each.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    width: int  # cells in a row
    count: int  # cells


@dataclass(frozen=True)
class Style:
    """What a sheet's measures are, from the largest picture and the widest row."""

    cell: tuple[int, int]
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont
    line: int  # height of a line of text
    labels: int  # width of what stands left of the rows

    @classmethod
    def of(cls, largest: tuple[int, int], width: int, *, rows: bool) -> Style:
        """For pictures of these sides at most, `width` in a row."""
        side = min(LARGEST, max(largest), max(LEAST, (PAGE - 2 * MARGIN) // (width + rows) - MARGIN))
        scale = min(1.0, side / max(largest))
        cell = (max(1, round(largest[0] * scale)), max(1, round(largest[1] * scale)))
        size = min(20, max(11, side // 14))
        return cls(cell, ImageFont.load_default(size), size + 3, min(max(cell[0], 90), 220) if rows else 0)


def blocks_of(tables: Iterable[Sequence[Axis]], copies: int) -> Iterator[Block]:
    """The blocks of a plan's tables of axes, each job of which stands for `copies` pictures."""
    for table in tables:
        axes = [*table, *([Axis("picture", [str(n + 1) for n in range(copies)])] if copies > 1 else [])]
        axes = [axis for axis in axes if len(axis.labels) > 1]
        if not axes:
            yield plain(copies)
            continue
        *told, columns = axes
        rows = told.pop() if told else None
        if len(columns.labels) > PAGE // (LEAST + MARGIN) - 2 or (
            not rows and len(columns.labels) > PLAIN_COLUMNS
        ):
            yield plain(_count(axes))
            continue
        for labels in product(*(axis.labels for axis in told)):
            title = ", ".join(f"{axis.name}: {label}" for axis, label in zip(told, labels, strict=True))
            yield Block(
                title,
                tuple(f"{columns.name}: {label}" for label in columns.labels),
                () if rows is None else tuple(f"{rows.name}: {label}" for label in rows.labels),
                len(columns.labels),
                len(columns.labels) * (1 if rows is None else len(rows.labels)),
            )


def plain(count: int) -> Block:
    """Cells with captions."""
    return Block("", (), (), min(PLAIN_COLUMNS, ceil(sqrt(count))), count)


def _count(axes: Sequence[Axis]) -> int:
    count = 1
    for axis in axes:
        count *= len(axis.labels)
    return count


def write_sheets(
    folder: Path, blocks: Sequence[Block], cells: Iterator[Cell], largest: tuple[int, int]
) -> list[Path]:
    """Write the sheets of a plan into its folder: grid.png, or grid-1.png, grid-2.png, …

    Args:
        cells: in the plan's order, as many as the blocks hold.
        largest: the sides of the largest picture.

    Raises:
        SdscratchError: one cannot be written.
    """
    style = Style.of(largest, max(block.width for block in blocks), rows=any(block.rows for block in blocks))
    written: list[Path] = []
    first: Image.Image | None = None
    for number, page in enumerate(_pages(blocks, cells, style), start=1):
        if number == 1:
            first = page
            continue
        if first is not None:
            written.append(_write(folder / "grid-1.png", first))
            first = None
        written.append(_write(folder / f"grid-{number}.png", page))
    if first is not None:
        written.append(_write(folder / "grid.png", first))
    for path in sheet_names(folder):  # of a run with more of them, or fewer
        if path not in written and _ours(path):
            path.unlink()
    return written


def sheet_names(folder: Path) -> list[Path]:
    """The files that have a sheet's name."""
    return sorted(path for path in folder.glob("grid*.png") if is_sheet_name(path.name))


def is_sheet_name(name: str) -> bool:
    """Whether a sheet may be called so."""
    stem = name.casefold().removesuffix(".png")
    return name.casefold().endswith(".png") and (
        stem == "grid" or (stem[:5] == "grid-" and stem[5:].isdigit())
    )


def check_sheets(folder: Path) -> None:
    """Refuse to replace pictures that are no sheets.

    Raises:
        UsageError: one has a sheet's name.
    """
    for path in sheet_names(folder):
        if not _ours(path):
            raise UsageError(f"{path} exists already and is no contact sheet; move it, or leave --grid out")


def _ours(path: Path) -> bool:
    try:
        with opened(path) as image:
            return image.info.get(MARK[0]) == MARK[1]
    except ImageError:
        return False


def _write(path: Path, page: Image.Image) -> Path:
    mark = PngInfo()
    mark.add_text(*MARK)
    with atomic_write(path, overwrite=True) as file:
        page.save(file, "PNG", pnginfo=mark)
    return path


@dataclass(frozen=True)
class _Strip:
    """A part of a page, over its whole width."""

    image: Image.Image
    head: bool  # belongs to what follows


def _pages(blocks: Sequence[Block], cells: Iterator[Cell], style: Style) -> Iterator[Image.Image]:
    """Strips one below the other, as many as a page holds; a block's head is said again on the next page."""
    page: list[Image.Image] = []
    height = MARGIN
    head: list[Image.Image] = []
    for block in blocks:
        fresh = True
        for strip in _strips(block, cells, style):
            if strip.head:
                head = [strip.image]
                fresh = True
                continue
            added = [*(head if fresh else []), strip.image]
            tall = sum(each.height for each in added)
            if page and height + tall > PAGE:
                yield _joined(page)
                page, height = [], MARGIN
                added = [*head, strip.image]
                tall = sum(each.height for each in added)
            page += added
            height += tall
            fresh = False
    if page:
        yield _joined(page)


def _joined(strips: Sequence[Image.Image]) -> Image.Image:
    width = max(strip.width for strip in strips)
    page = Image.new("RGB", (width, sum(strip.height for strip in strips) + MARGIN), PAPER)
    top = MARGIN // 2
    for strip in strips:
        page.paste(strip, (0, top))
        top += strip.height
    return page


def _strips(block: Block, cells: Iterator[Cell], style: Style) -> Iterator[_Strip]:
    wide, high = style.cell
    left = MARGIN + (style.labels + MARGIN if block.rows else 0)
    width = left + block.width * (wide + MARGIN)
    if block.title or block.columns:
        yield _Strip(_head(block, style, left, width), head=True)
    rows = ceil(block.count / block.width)
    for row in range(rows):
        count = min(block.width, block.count - row * block.width)
        below = 0 if block.columns else LINES * style.line
        strip = Image.new("RGB", (width, high + below + MARGIN), PAPER)
        draw = ImageDraw.Draw(strip)
        if block.rows:
            _label(draw, (MARGIN, high // 3), block.rows[row], style, style.labels)
        for column, cell in enumerate(islice(cells, count)):
            x = left + column * (wide + MARGIN)
            _paste(strip, draw, cell, (x, 0), style)
            if not block.columns:
                _label(draw, (x, high + 1), cell.caption, style, wide)
        yield _Strip(strip, head=False)


def _head(block: Block, style: Style, left: int, width: int) -> Image.Image:
    lines = [_lines(label, style, style.cell[0]) for label in block.columns]
    title = style.line + 2 if block.title else 0
    strip = Image.new("RGB", (width, title + max(map(len, lines), default=0) * style.line + 2), PAPER)
    draw = ImageDraw.Draw(strip)
    if block.title:
        _label(draw, (MARGIN, 0), block.title, style, width - 2 * MARGIN)
    for column, label in enumerate(block.columns):
        _label(draw, (left + column * (style.cell[0] + MARGIN), title), label, style, style.cell[0])
    return strip


def _paste(
    strip: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, place: tuple[int, int], style: Style
) -> None:
    """A picture in the middle of its cell; a grey cell where there is none."""
    wide, high = style.cell
    try:
        with opened(cell.path) as image:
            picture = image.convert("RGB")
    except ImageError:
        draw.rectangle((*place, place[0] + wide - 1, place[1] + high - 1), fill=MISSING)
        _label(draw, (place[0] + 2, place[1] + high // 2), "failed", style, wide - 4)
        return
    picture.thumbnail(style.cell, Image.Resampling.LANCZOS)
    strip.paste(picture, (place[0] + (wide - picture.width) // 2, place[1] + (high - picture.height) // 2))


def _label(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, style: Style, width: int) -> None:
    for index, line in enumerate(_lines(text, style, width)):
        draw.text((place[0], place[1] + index * style.line), line, fill=INK, font=style.font)


def _lines(text: str, style: Style, width: int) -> list[str]:
    """A text in lines of that width, at most `LINES`; what does not fit is cut off."""
    words, lines = " ".join(text.split()).split(" "), [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and style.font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    cut = len(lines) > LINES
    lines = lines[:LINES]
    for index, line in enumerate(lines):
        ends = cut and index == LINES - 1
        while line and style.font.getlength(line + ("…" if ends else "")) > width:
            line, ends = line[:-1], True
        lines[index] = line + ("…" if ends else "")
    return lines
