"""`run`: many pictures from one loading."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdscratch.cli.arguments import Arguments, split, with_arguments
from sdscratch.cli.generate import json_of, print_line
from sdscratch.cli.progress import View, make_view
from sdscratch.cli.stages import STAGES, Stages
from sdscratch.errors import SdscratchError, UsageError

if TYPE_CHECKING:
    from sdscratch.generation.opening import Opened
    from sdscratch.generation.requests import Event, Request
    from sdscratch.jobs.journal import Shard
    from sdscratch.jobs.names import Template
    from sdscratch.jobs.plan import Plan
    from sdscratch.jobs.run import Done, Models, Overview, Task

__all__ = ["run"]

# where torchrun and SLURM say which of how many processes this one is
LAUNCHERS = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
OWN = "Plan"


@with_arguments(without=("prompt", "size", "preview", "overwrite", "init_img"))
def run(
    plan: Annotated[
        Path,
        typer.Argument(
            metavar="PLAN",
            help="File of lines, a prompt or options each; or .jsonl, .csv, .toml.",
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

    Examples:

      sdscratch run prompts.txt

      sdscratch run plan.jsonl -o pictures/ --steps 30 --json

      sdscratch run plan.toml --dry-run

      sdscratch run plan.csv --name "{n:04}-{prompt:30}.png" --shard 2/8
    """
    from sdscratch.jobs.journal import held, settled_seed
    from sdscratch.jobs.names import DEFAULT, Template
    from sdscratch.jobs.plan import Plan
    from sdscratch.jobs.run import Models, look_over

    typed, arguments = split(given)
    template = Template(name or DEFAULT)
    part = shard_of(shard)
    folder = Path(arguments.output or f"outputs/{plan.stem}")
    defaults = typed | {
        key: getattr(arguments, key)
        for key in (
            *("model", "tokenizer", "lora", "embedding", "vae", "taesd"),
            *("batch_count", "fit", "background"),
        )
    }
    arguments.check_machine()
    models = Models()
    with make_view(quiet=arguments.quiet, verbose=arguments.verbose) as view:
        if dry_run:
            listed(
                Plan(plan, defaults, 0 if "seed" in typed else _seed(folder)),
                models,
                template,
                arguments,
                view,
            )
            return
        whole = Plan(plan, defaults, settled_seed(folder))
        with held(folder, part):
            with view.stage("checking", None):
                overview = look_over(whole, models, template)
            draw_all(whole, overview, folder, template, models, part, arguments, view)


def _seed(folder: Path) -> int:
    """What seeds come from, as far as a run has settled it; a list alone settles nothing."""
    try:
        return int(json.loads((folder / "run.json").read_bytes())["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def listed(plan: Plan, models: Models, template: Template, arguments: Arguments, view: View) -> None:
    """Check the plan, and say what would be drawn."""
    from sdscratch.jobs.run import look_over

    def tell(task: Task) -> None:
        options = task.options
        if arguments.json:
            line = {"job": task.job.number, "prompt": options.prompt, "seed": options.seed}
            print_line(json.dumps({**line, "options": asdict(options)}))
        else:
            print_line(f"{task.name}  seed {options.seed}  {options.prompt}")

    overview = look_over(plan, models, template, tell)
    view.note(f"{overview.jobs} jobs, {overview.pictures} pictures, {overview.steps} steps")


def draw_all(
    plan: Plan,
    overview: Overview,
    folder: Path,
    template: Template,
    models: Models,
    shard: Shard,
    arguments: Arguments,
    view: View,
) -> None:
    """Draw what is missing; what fails is told of, and the run goes on.

    Raises:
        SdscratchError: some pictures failed; says how many.
    """
    from sdscratch.jobs.run import Done, Lost, run_plan

    with view.stage("starting", None):
        from sdscratch.device import choose

        placement = choose(own_device(arguments.device), arguments.dtype, compiled=arguments.compile)

    def draw(opened: Opened, requests: Iterator[Request]) -> Iterator[Event]:
        from sdscratch.generation.generate import generate
        from sdscratch.generation.pipeline import start

        with start(opened, placement, low_memory=arguments.low_memory) as pipeline:
            yield from generate(pipeline, requests, batch_size=arguments.batch_size)

    lost = finished = 0
    outcomes = run_plan(plan, overview, folder, template, models, draw, shard)
    with (
        view.stage("pictures", overview.pictures, "picture") as advance,
        Stages(view, lambda event: STAGES[event.stage]) as stages,
    ):
        for event in outcomes:
            match event:
                case Done() | Lost():
                    stages.close()
                    finished += 1
                    advance(finished)
                    if isinstance(event, Done):
                        tell(event, arguments, view, overview.pictures)
                    else:
                        lost += 1
                        view.note(f"{event.task.job.place}: {event.error}")
                case _:
                    stages.show(event)  # type: ignore[arg-type]
    if lost:
        raise SdscratchError(
            f"{lost} of {finished} pictures failed; their lines are kept in {folder}, failed.jsonl"
        )


def tell(done: Done, arguments: Arguments, view: View, count: int) -> None:
    """Say where a picture is."""
    if arguments.json:
        said: dict[str, Any] = {"job": done.task.job.number}
        if done.record is not None:
            said = json_of(str(done.path), done.record, done.timings) | said
        else:
            options = done.task.options
            said |= {"path": str(done.path), "seed": options.seed, "prompt": options.prompt, "done": True}
            said["options"] = asdict(options)
        print_line(json.dumps(said))
    elif not done.found:
        print_line(str(done.path))
    if not done.found:
        view.note(f"{done.task.number}/{count}: seed {done.task.options.seed}")


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


def own_device(device: str, environment: Mapping[str, str] = os.environ) -> str:
    """The GPU of this process, where a launcher started several on one machine."""
    for _, size, local in LAUNCHERS:
        if device in ("auto", "cuda") and environment.get(size, "1") != "1" and local in environment:
            import torch

            if torch.cuda.is_available():
                return f"cuda:{int(environment[local]) % torch.cuda.device_count()}"
    return device
