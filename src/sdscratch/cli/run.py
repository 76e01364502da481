"""`run`: many pictures from one loading."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdscratch.cli.arguments import Arguments, split, with_arguments
from sdscratch.cli.look import FILMS
from sdscratch.cli.progress import View, make_view
from sdscratch.cli.run_shown import LAUNCHERS, Warm, draw_all, draw_stream, placed, started_together
from sdscratch.cli.telling import print_line
from sdscratch.cli.view import duration
from sdscratch.errors import SdscratchError, UsageError
from sdscratch.files import make_folder
from sdscratch.jobs.options import LineOptions, sized

if TYPE_CHECKING:
    from sdscratch.jobs.journal import Shard
    from sdscratch.jobs.names import Template
    from sdscratch.jobs.plan import Plan
    from sdscratch.jobs.tasks import Models, Task

__all__ = ["run"]

OWN = "Plan"
WITHOUT = ("prompt", "overwrite", "init_img", *FILMS)


@with_arguments(without=WITHOUT)
def run(
    plan: Annotated[
        Path,
        typer.Argument(
            metavar="PLAN",
            help="File of lines, a prompt or options each; or .jsonl, .csv, .toml. - reads lines from stdin.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="TEMPLATE",
            help="File name of each picture, like {n:05}-{seed}-{prompt:40}.png.",
            rich_help_panel=OWN,
            show_default="{n:05}-{seed}.png",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and list what would be drawn.", rich_help_panel=OWN)
    ] = False,
    grid: Annotated[
        bool,
        typer.Option(
            "--grid",
            help="Write contact sheets too: the plan's last axes as columns and rows, or captions.",
            rich_help_panel=OWN,
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Part of the plan to draw, of N parts; one folder serves all.",
            rich_help_panel=OWN,
            show_default="by torchrun's or SLURM's environment, else all of it",
        ),
    ] = None,
    **given: Any,
) -> None:
    """Draw all pictures of PLAN, from one loading of each model.

    PLAN holds a line a picture: a prompt, the web UI's --prompt "…" --steps …,
    or kohya's "… --n … --s …"; JSONL and CSV name any option; TOML has axes.
    What is drawn already is not drawn again: a run that was stopped goes on.
    With - each line of stdin is answered as soon as it is drawn.

    Examples:

      sdscratch run prompts.txt

      sdscratch run plan.jsonl -o pictures/ --steps 30 --json

      sdscratch run plan.toml --dry-run

      sdscratch run plan.csv --name "{n:04}-{prompt:30}.png" --shard 2/8

      cat prompts.txt | sdscratch run - --json
    """
    from sdscratch.jobs.journal import Shard, held, settled_seed, wait_for_others
    from sdscratch.jobs.names import DEFAULT, Template
    from sdscratch.jobs.plan import Plan
    from sdscratch.jobs.sheet import plan_sheets, refuse_sheet_names
    from sdscratch.jobs.tasks import Models, look_over

    typed, arguments = split(given)
    template = Template(name or DEFAULT)
    part = shard_of(shard)
    folder = Path(arguments.output or f"outputs/{'stdin' if str(plan) == '-' else plan.stem}")
    defaults = sized(typed | {"size": arguments.size}) | {
        key: getattr(arguments, key) for key in LineOptions.__dataclass_fields__.keys() - {"size", "init_img"}
    }
    arguments.check_machine()
    arguments.check_preview()
    if str(plan) == "-":
        for said, option in ((dry_run, "--dry-run"), (shard is not None, "--shard"), (grid, "--grid")):
            if said:
                raise UsageError(f"{option} needs a plan that can be read again; give it in a file")
        make_folder(folder)
        with make_view(quiet=arguments.quiet, verbose=arguments.verbose) as view, held(folder, Shard()):
            draw_stream(defaults, folder, template, arguments, view)
        return
    models = Models()
    with make_view(quiet=arguments.quiet, verbose=arguments.verbose) as view:
        if dry_run:
            listed(
                Plan(plan, defaults, 0 if "seed" in typed else _seed(folder)),
                models,
                template,
                folder,
                part,
                arguments,
                view,
            )
            return
        whole = Plan(plan, defaults, settled_seed(folder))
        with held(folder, part):
            with view.stage("checking", None):
                seen = refuse_sheet_names(folder) if grid else nothing
                overview = look_over(whole, models, template, seen)
            lost = draw_all(whole, overview, folder, template, models, part, arguments, view)
            if grid:
                for sheet in plan_sheets(whole, overview, folder, template, models, part):
                    view.note(f"contact sheet: {sheet}")
        if lost:
            if started_together():
                wait_for_others(folder, part)  # torchrun ends all when one of them ends with an error
            raise SdscratchError(
                f"{lost} of {overview.pictures} pictures failed; their lines are kept in {folder}, "
                f"{part.named('failed')}"
            )


def nothing(task: Task) -> None:
    """Where nobody has to be told of a picture."""


def _seed(folder: Path) -> int:
    """What seeds come from, as far as a run has settled it; a list alone settles nothing."""
    try:
        return int(json.loads((folder / "run.json").read_bytes())["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def listed(
    plan: Plan,
    models: Models,
    template: Template,
    folder: Path,
    shard: Shard,
    arguments: Arguments,
    view: View,
) -> None:
    """Check the plan, and say what would be drawn and how long that takes."""
    from sdscratch.jobs.estimate import Work
    from sdscratch.jobs.journal import done_names
    from sdscratch.jobs.tasks import look_over

    done, work = done_names(folder), Work()
    found = 0

    def tell(task: Task) -> None:
        nonlocal found
        options = task.options
        if task.name in done:
            found += 1
        elif shard.has(task.job.number):
            work.add(task)
        if arguments.json:
            line = {"job": task.job.number, "prompt": options.prompt, "seed": options.seed}
            print_line(json.dumps({**line, "options": asdict(options)}))
        else:
            print_line(f"{task.name}  seed {options.seed}  {options.prompt}")

    overview = look_over(plan, models, template, tell)
    there = f"; {found} of them are drawn already" if found else ""
    view.note(f"{overview.jobs} jobs, {overview.pictures} pictures, {overview.steps} steps{there}")
    if work.amounts:
        with Warm(arguments, placed(arguments, view)) as draw, view.stage("estimating", None):
            seconds = work.seconds(models, draw)
        view.note(f"about {duration(seconds)} on this machine")


def shard_of(text: str | None, environment: Mapping[str, str] = os.environ) -> Shard:
    """Which part of the plan is this process's.

    Raises:
        UsageError: `I/N` of another form.
    """
    from sdscratch.jobs.journal import Shard

    if text is not None:
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard is {text!r}, but must be I/N with I from 1 to N, like 2/8")
        return Shard(int(match[1]) - 1, int(match[2]))
    for rank, size, _ in LAUNCHERS:
        if environment.get(size, "1") != "1" and rank in environment:
            return Shard(int(environment[rank]), int(environment[size]))
    return Shard()
