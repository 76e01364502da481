"""Contact sheets: every picture in its place, on as many pages as it takes; the last of several writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdscratch.errors import SdscratchError, UsageError
from sdscratch.generation.opening import Opened
from sdscratch.generation.requests import Event, Failed, Picture, Request
from sdscratch.images import Record
from sdscratch.jobs import grid
from sdscratch.jobs.axes import Axis
from sdscratch.jobs.grid import Cell, blocks_of, check_sheets, plain, write_sheets
from sdscratch.jobs.journal import Shard, settled_seed
from sdscratch.jobs.names import Template
from sdscratch.jobs.plan import Plan
from sdscratch.jobs.run import run_plan
from sdscratch.jobs.sheet import plan_sheets, refuse_sheet_names
from sdscratch.jobs.tasks import Models, look_over

SIDE = 64


def colour(n: int) -> tuple[int, int, int]:
    return (200, (n * 53) % 256, (n * 97) % 256)


def drawn(folder: Path, count: int) -> Iterator[Cell]:
    """That many pictures, each of its own colour."""
    for n in range(count):
        path = folder / f"{n}.png"
        if not path.exists():
            Image.new("RGB", (SIDE, SIDE), colour(n)).save(path)
        yield Cell(path, f"{n} a dog")


def places(path: Path, count: int) -> dict[int, tuple[int, int]]:
    """Where on a sheet each colour begins, as (x, y)."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    found = {}
    for n in range(count):
        ys, xs = np.nonzero((pixels == colour(n)).all(2))
        if len(xs):
            assert len(xs) == SIDE * SIDE, f"picture {n} is there {len(xs) / SIDE**2} times"
            found[n] = int(xs.min()), int(ys.min())
    return found


def test_axes_are_columns_and_rows_and_blocks(tmp_path: Path) -> None:
    axes = [Axis("prompt", ["a", "b"]), Axis("steps", ["1", "2", "3"]), Axis("seed", ["7", "8", "9", "10"])]
    blocks = list(blocks_of([axes], 1))
    assert [block.title for block in blocks] == ["prompt: a", "prompt: b"]
    assert blocks[0].columns == ("seed: 7", "seed: 8", "seed: 9", "seed: 10")
    assert blocks[0].rows == ("steps: 1", "steps: 2", "steps: 3")
    (sheet,) = write_sheets(tmp_path, blocks, drawn(tmp_path, 24), (SIDE, SIDE))
    assert sheet.name == "grid.png"
    at = places(sheet, 24)
    for n in range(24):
        assert at[n][0] == at[n % 4][0]  # a column for a seed
        assert at[n][1] == at[n // 4 * 4][1]  # a row for a number of steps
    assert len({x for x, _ in at.values()}) == 4
    rows = sorted({y for _, y in at.values()})
    assert len(rows) == 6
    assert rows[3] - rows[2] > rows[2] - rows[1]  # a title between the blocks


def test_several_pictures_of_a_job_are_columns(tmp_path: Path) -> None:
    (block,) = blocks_of([[Axis("steps", ["1", "2"])]], 3)
    assert (block.rows, block.width) == (("steps: 1", "steps: 2"), 3)
    (block,) = blocks_of([[Axis("seed", list(map(str, range(30))))]], 1)
    assert (block.columns, block.width) == ((), 6)  # too many for one row
    assert list(blocks_of([[]], 1)) == [plain(1)]


def test_many_pictures_are_pages_and_their_heads_are_said_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "PAGE", 400)
    axes = [Axis("steps", list(map(str, range(12)))), Axis("seed", ["1", "2"])]
    sheets = write_sheets(tmp_path, list(blocks_of([axes], 1)), drawn(tmp_path, 24), (SIDE, SIDE))
    assert [sheet.name for sheet in sheets] == ["grid-1.png", "grid-2.png", "grid-3.png"]
    found = [places(sheet, 24) for sheet in sheets]
    assert sorted(n for each in found for n in each) == list(range(24))
    tops = {min(y for _, y in each.values()) for each in found}
    assert len(tops) == 1
    for sheet in sheets:
        with Image.open(sheet) as image:
            assert image.height <= 400 + grid.MARGIN
    before = sheets[0].read_bytes()
    write_sheets(tmp_path, list(blocks_of([axes], 1)), drawn(tmp_path, 24), (SIDE, SIDE))
    assert sheets[0].read_bytes() == before
    write_sheets(tmp_path, [plain(2)], drawn(tmp_path, 2), (SIDE, SIDE))
    assert [path.name for path in sorted(tmp_path.glob("grid*"))] == ["grid.png"]


def test_large_pictures_are_made_smaller_and_a_missing_one_is_grey(tmp_path: Path) -> None:
    Image.new("RGB", (900, 600), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    cells = iter([Cell(tmp_path / "a.png", "größe"), Cell(tmp_path / "b.png", "x" * 500)])
    (sheet,) = write_sheets(tmp_path, [plain(2)], cells, (900, 600))
    with Image.open(sheet) as image:
        assert image.width < 2 * grid.LARGEST + 4 * grid.MARGIN
        counts = {each: n for n, each in image.convert("RGB").getcolors(1 << 20) or ()}
    assert counts[255, 0, 0] == pytest.approx(grid.LARGEST * grid.LARGEST * 2 / 3, rel=0.01)
    assert (211, 211, 211) in counts


def test_nothing_but_a_sheet_is_replaced(tmp_path: Path) -> None:
    write_sheets(tmp_path, [plain(1)], drawn(tmp_path, 1), (SIDE, SIDE))
    check_sheets(tmp_path)
    for name in ("grid.png", "grid-7.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
        with pytest.raises(UsageError, match="is no contact sheet"):
            check_sheets(tmp_path)
        (tmp_path / name).unlink()


def draw(opened: Opened, requests: Iterator[Request]) -> Iterator[Event]:
    """A colour for a seed; seed 3 fails."""
    for index, request in enumerate(requests):
        options = request.options
        if options.seed == 3:
            yield Failed(index, (request,), SdscratchError("no"))
            continue
        image = Image.new("RGB", (SIDE, SIDE), colour(options.seed))
        record = Record("txt2img", options, opened.files.name, "0123456789", "float32", "cpu")
        yield Picture(index, request, image, lambda record=record: record, {})  # type: ignore[misc]


def test_the_shard_that_ends_last_writes_the_sheet(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('prompt = "a"\nsize = "64x64"\n[axes]\nsteps = [1, 2]\nseed = "0..4"\n')
    out = tmp_path / "out"
    plan, models, template = Plan(path, {}, settled_seed(out)), Models(), Template()
    overview = look_over(plan, models, template, refuse_sheet_names(out))
    written = []
    for index in (2, 0, 1):
        shard = Shard(index, 3)
        list(run_plan(plan, overview, out, template, models, draw, shard))
        written.append(plan_sheets(plan, overview, out, template, models, shard))
    assert written == [[], [], [out / "grid.png"]]
    with Image.open(out / "grid.png") as image:
        counts = {each: n for n, each in image.convert("RGB").getcolors(1 << 20) or ()}
    assert [counts.get(colour(seed), 0) for seed in range(5)] == [2 * SIDE**2] * 3 + [0, 2 * SIDE**2]
    with pytest.raises(UsageError, match="as a contact sheet is"):
        look_over(plan, models, Template("grid-{n}.png"), refuse_sheet_names(out))
