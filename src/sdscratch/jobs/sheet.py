"""The contact sheet of a plan that has been drawn: written by whoever draws the last of it. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sdscratch.errors import UsageError
from sdscratch.jobs.grid import Block, Cell, blocks_of, check_sheets, is_sheet_name, plain, write_sheets
from sdscratch.jobs.journal import Shard, settled_names
from sdscratch.jobs.names import Template
from sdscratch.jobs.plan import Plan
from sdscratch.jobs.tasks import Models, Overview, Task, tasks_of

__all__ = ["plan_sheets", "refuse_sheet_names"]


def refuse_sheet_names(folder: Path) -> Callable[[Task], None]:
    """What refuses pictures that would be called as a sheet is.

    Raises:
        UsageError: a file that is no sheet has a sheet's name already.
    """
    check_sheets(folder)

    def seen(task: Task) -> None:
        if is_sheet_name(task.name):
            raise UsageError(
                f"{task.job.place}: its picture would be called {task.name}, as a contact sheet is; choose "
                "another --name, or leave --grid out"
            )

    return seen


def plan_sheets(
    plan: Plan, overview: Overview, folder: Path, template: Template, models: Models, shard: Shard
) -> list[Path]:
    """Write a plan's sheets; none while pictures of other shards are missing: the last one writes them.

    Raises:
        SdscratchError: one cannot be written.
    """
    settled = settled_names(folder) if shard.count > 1 else None
    if settled is not None and any(task.name not in settled for task in tasks_of(plan, models, template)):
        return []
    blocks = _blocks(plan, overview)
    cells = _cells(plan, folder, template, models)
    return write_sheets(folder, blocks, cells, overview.largest)


def _blocks(plan: Plan, overview: Overview) -> list[Block]:
    """By the plan's axes, where each of their places is one job of as many pictures."""
    if plan.is_toml and overview.copies is not None:
        blocks = list(blocks_of(plan.tables(), overview.copies))
        if sum(block.count for block in blocks) == overview.pictures:
            return blocks
    return [plain(overview.pictures)]


def _cells(plan: Plan, folder: Path, template: Template, models: Models) -> Iterator[Cell]:
    for task in tasks_of(plan, models, template):
        yield Cell(folder / task.name, f"{task.options.seed} {task.options.prompt}")
