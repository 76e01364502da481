"""Nothing lost, nothing twice: runs that are stopped anywhere, shards, failures. No network draws here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from sdscratch.errors import DeviceError, SdscratchError, UsageError
from sdscratch.generation.opening import Opened
from sdscratch.generation.requests import Event, Failed, Picture, Request
from sdscratch.images import Record
from sdscratch.jobs.journal import Journal, Shard, held, settled_seed
from sdscratch.jobs.names import Template
from sdscratch.jobs.plan import Plan
from sdscratch.jobs.run import Done, Lost, run_plan
from sdscratch.jobs.tasks import Models, look_over


class Drawing:
    """Draws a colour for a seed; counts, and may fail or be killed."""

    def __init__(self, *, killed_after: int | None = None, failing: frozenset[str] = frozenset()) -> None:
        self.killed_after, self.failing = killed_after, failing
        self.drawn: list[int] = []

    def __call__(self, opened: Opened, requests: Iterator[Request]) -> Iterator[Event]:
        for index, request in enumerate(requests):
            if self.killed_after is not None and len(self.drawn) >= self.killed_after:
                raise KeyboardInterrupt
            options = request.options
            if options.prompt in self.failing:
                yield Failed(index, (request,), DeviceError("out of memory"))
                continue
            self.drawn.append(options.seed)
            record = Record("txt2img", options, opened.files.name, "0123456789", "float32", "cpu")
            image = Image.new("RGB", (8, 8), (options.seed % 256, options.steps, len(options.prompt)))
            yield Picture(index, request, image, lambda record=record: record, {})  # type: ignore[misc]


def draw(
    plan: Path, folder: Path, drawing: Drawing, shard: Shard | None = None, name: str = "{n:03}-{seed}.png"
) -> list[Done | Lost]:
    whole = Plan(plan, {"steps": 2}, settled_seed(folder))
    models, template = Models(), Template(name)
    overview = look_over(whole, models, template)
    events = run_plan(whole, overview, folder, template, models, drawing, shard)
    return [event for event in events if isinstance(event, Done | Lost)]


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.jsonl"
    lines = [{"prompt": f"thing {index}", "batch_count": 1 + index % 2} for index in range(6)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_every_picture_is_drawn_once_and_found_again(plan: Path, tmp_path: Path) -> None:
    drawing = Drawing()
    outcomes = draw(plan, tmp_path / "out", drawing)
    assert len(outcomes) == len(drawing.drawn) == len(pictures(tmp_path / "out")) == 9
    again = Drawing()
    found = draw(plan, tmp_path / "out", again)
    assert not again.drawn
    assert [outcome.found for outcome in found if isinstance(outcome, Done)] == [True] * 9
    assert [done.task.number for done in found] == list(range(1, 10))


@pytest.mark.parametrize("after", range(9))
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_pictures(
    plan: Path, tmp_path: Path, after: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    broken.mkdir()
    whole.mkdir()
    for folder in (whole, broken):
        (folder / "run.json").write_text('{"seed": 5}')
    draw(plan, whole, Drawing())
    with pytest.raises(KeyboardInterrupt):
        draw(plan, broken, Drawing(killed_after=after))
    rest = Drawing()
    draw(plan, broken, rest)
    assert len(rest.drawn) == 9 - after
    assert pictures(broken) == pictures(whole)


def test_a_picture_that_the_journal_missed_is_not_written_twice(plan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    draw(plan, out, Drawing())
    before = pictures(out)
    journal = out / "journal.jsonl"
    whole = journal.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 20, 3, 0):  # the power went while it was being written
        journal.write_bytes(whole[:cut])
        draw(plan, out, Drawing())
        assert pictures(out) == before
        assert journal.read_bytes().splitlines() == whole.splitlines()


def test_a_strangers_file_is_never_overwritten(plan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    draw(plan, out, Drawing())
    (out / "journal.jsonl").unlink()
    victim = sorted(out.glob("*.png"))[0]
    Image.new("RGB", (8, 8)).save(victim)
    kept = victim.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        draw(plan, out, Drawing())
    assert victim.read_bytes() == kept


def test_a_picture_that_was_removed_is_drawn_again(plan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    draw(plan, out, Drawing())
    before = pictures(out)
    for path in sorted(out.glob("*.png"))[2:4]:
        path.unlink()
    drawing = Drawing()
    draw(plan, out, drawing)
    assert len(drawing.drawn) == 2
    assert pictures(out) == before


def test_lines_that_fail_are_kept_to_be_run_again_and_the_others_are_drawn(
    plan: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    outcomes = draw(plan, out, Drawing(failing=frozenset({"thing 1", "thing 4"})))
    assert sum(isinstance(outcome, Lost) for outcome in outcomes) == 3
    assert len(pictures(out)) == 6
    failed = out / "failed.jsonl"
    lines = [json.loads(line) for line in failed.read_text().splitlines()]
    assert [line["prompt"] for line in lines] == ["thing 1", "thing 1", "thing 4"]
    rerun = tmp_path / "again.jsonl"
    rerun.write_bytes(failed.read_bytes())
    seeds = Drawing()
    draw(rerun, tmp_path / "other", seeds)
    assert seeds.drawn == [line["seed"] for line in lines]
    drawing = Drawing()
    draw(plan, out, drawing)  # the plan itself goes on, too
    assert len(drawing.drawn) == 3
    assert not failed.exists()


@pytest.mark.parametrize("count", [2, 3, 7])
def test_shards_share_a_folder_and_together_draw_the_plan(plan: Path, tmp_path: Path, count: int) -> None:
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    for folder in (whole, shared):
        folder.mkdir()
        (folder / "run.json").write_text('{"seed": 5}')
    draw(plan, whole, Drawing())
    drawn = []
    for index in range(count):
        drawing = Drawing()
        draw(plan, shared, drawing, Shard(index, count))
        drawn.append(drawing.drawn)
    assert sum(map(len, drawn)) == 9
    assert pictures(shared) == pictures(whole)
    again = Drawing()
    draw(plan, shared, again)  # one process finds what all shards did
    assert not again.drawn


def test_a_second_run_in_a_folder_says_so(tmp_path: Path) -> None:
    first, second = held(tmp_path, Shard()), held(tmp_path, Shard())
    with first, pytest.raises(SdscratchError, match="another run is at work"), second:
        pass
    with held(tmp_path, Shard(0, 2)), held(tmp_path, Shard(1, 2)):
        pass


def test_two_pictures_of_one_name_are_refused_before_the_first(plan: Path, tmp_path: Path) -> None:
    drawing = Drawing()
    with pytest.raises(UsageError, match=r"line 2: a second picture would be called thing 1\.png"):
        draw(plan, tmp_path / "out", drawing, name="{prompt}.png")
    assert not drawing.drawn


def test_a_plan_is_checked_whole_before_the_first_picture(tmp_path: Path) -> None:
    plan = tmp_path / "plan.jsonl"
    plan.write_text('{"prompt": "a"}\n{"prompt": "b", "model": "absent"}\n')
    drawing = Drawing()
    with pytest.raises(SdscratchError, match=r"line 2: there is no model absent"):
        draw(plan, tmp_path / "out", drawing)
    plan.write_text('{"prompt": "a"}\n{"prompt": "b", "init_img": "absent.png"}\n')
    with pytest.raises(SdscratchError, match=r"line 2: .*absent\.png"):
        draw(plan, tmp_path / "out", drawing)
    plan.write_text("# nothing\n")
    with pytest.raises(UsageError, match="asks for no picture"):
        draw(plan.rename(tmp_path / "plan.txt"), tmp_path / "out", drawing)
    assert not drawing.drawn


def test_a_damaged_journal_says_nothing_and_hurts_nothing(plan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "journal.jsonl").write_bytes(b'\xff\xfe{}\n[]\n{"key": 1}\n' + b"[" * 9999 + b"\n{")
    assert len(draw(plan, out, Drawing())) == 9
    assert Journal(out, Shard()).done


def test_the_loop_costs_as_little_for_the_last_picture_as_for_the_first(tmp_path: Path) -> None:
    """In calls of functions, which no other process's work changes."""
    calls: list[int] = []
    for count in (8, 40, 72):
        path = tmp_path / f"{count}.jsonl"
        path.write_text(
            "".join(f'{{"prompt": "thing {index}", "seed": {index}}}\n' for index in range(count))
        )
        made = 0

        def called(frame: object, event: str, about: object) -> None:
            nonlocal made
            made += event in ("call", "c_call")

        sys.setprofile(called)
        try:
            draw(path, tmp_path / str(count), Drawing())
        finally:
            sys.setprofile(None)
        calls.append(made)
    each = [(more - fewer) / 32 for fewer, more in pairwise(calls)]
    assert each[1] <= each[0] * 1.02
    assert each[1] < 10_000  # about ten milliseconds
