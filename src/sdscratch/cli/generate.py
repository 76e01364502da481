"""`txt2img` and `img2img`: parse, call the pipeline, show, save, print."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdscratch.cli.arguments import Arguments, split, with_arguments
from sdscratch.cli.films import check_between, draw_between
from sdscratch.cli.look import film_of
from sdscratch.cli.masks import WITH_INIT, given_by
from sdscratch.cli.progress import View, make_view
from sdscratch.cli.telling import Telling
from sdscratch.errors import UsageError
from sdscratch.files import refuse_existing
from sdscratch.options import MAX_SEED, changed, random_seed, seeds_of
from sdscratch.options.large import LargeOptions
from sdscratch.settings import option_name
from sdscratch.texts import NotText, decode, without_end

if TYPE_CHECKING:
    from sdscratch.checkpoints.layouts import Part
    from sdscratch.generation.inits import Given
    from sdscratch.generation.outputs import OutputPlan
    from sdscratch.generation.pipeline import Pipeline
    from sdscratch.generation.requests import Request
    from sdscratch.jobs.wildcards import Expanded
    from sdscratch.options import GenerateOptions

__all__ = ["img2img", "txt2img"]

log = logging.getLogger(__name__)

HIRES = tuple(each.name for each in fields(LargeOptions) if each.name.startswith("hires"))  # from noise alone


@with_arguments(without=WITH_INIT)
def txt2img(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="Text of what to draw; - reads it from stdin.")
    ],
    **given: Any,
) -> None:
    """Draw a picture of PROMPT; - reads the prompt from stdin.

    The paths of the pictures are printed on stdout, everything else on stderr.

    Examples:

      sdscratch txt2img "a dog wearing sunglasses"

      sdscratch txt2img "a red apple" --seed 1 -b 4 -o apples/

      sdscratch txt2img "an astronaut" -m v1-5.safetensors --sampler dpm++2m

      sdscratch txt2img "a fox" -m v1-5.safetensors --lora ink.safetensors:0.7

      sdscratch txt2img "a bird" --control canny,image=a.png,preprocess=canny

      sdscratch txt2img "pizza" -o - > pizza.png
    """
    draw(given, prompt)


@with_arguments(without=HIRES)
def img2img(
    init: Annotated[
        str | None,
        typer.Argument(
            metavar="INIT", help="Picture to start from, PNG, JPEG or WebP; - reads it from stdin."
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="Text of what it should become; - reads it from stdin."),
    ] = None,
    **given: Any,
) -> None:
    """Change the picture INIT towards PROMPT.

    --strength says how much: 0 keeps the picture (it is only encoded and
    decoded), 1 ignores it. Of --steps, that share is run.

    Examples:

      sdscratch img2img sketch.png "a lemon"

      sdscratch img2img photo.jpg "a watercolour" --strength 0.5 --size 512x512

      sdscratch img2img photo.png "a blue apple" --mask mask.png -o new.png

      sdscratch img2img photo.png "a wide beach" --extend left=128,right=128
    """
    init_img = given["init_img"]
    if init_img is not None:
        if prompt is not None:
            raise UsageError("INIT is given twice: as an argument and by --init-img")
        init, prompt = init_img, init
    if not init:
        raise UsageError("INIT is missing: the picture to start from")
    if prompt is None:
        raise UsageError("PROMPT is missing: what the picture should become")
    draw(given, prompt, init)


def plan_pictures(arguments: Arguments, seeds: Sequence[int]) -> OutputPlan:
    """Where the pictures go."""
    from sdscratch.generation.outputs import plan_outputs
    from sdscratch.images import sidecar_of

    plan = plan_outputs(arguments.output, seeds, overwrite=arguments.overwrite)
    if arguments.sidecar and not arguments.overwrite:
        for name in plan.names:
            refuse_existing(sidecar_of(Path(name)))
    return plan


def draw_pictures(
    arguments: Arguments, pipeline: Pipeline, plan: OutputPlan, view: View, requests: Iterator[Request]
) -> None:
    """Draw, show, save and report them."""
    from sdscratch.generation.generate import generate

    if arguments.films_between:
        draw_between(arguments, pipeline, plan, view, requests)
        return
    events = generate(pipeline, requests, batch_size=arguments.batch_size)
    film = film_of(arguments, len(plan.seeds))
    Telling(arguments, pipeline, plan, view, film=film).all(events)


def draw(
    given: Mapping[str, Any],
    prompt: str,
    init: str | None = None,
    *,
    plan: Callable[[Arguments, Sequence[int]], Any] = plan_pictures,
    carry_out: Callable[[Arguments, Pipeline, Any, View, Iterator[Request]], None] = draw_pictures,
) -> None:
    """Everything between what was typed and the last picture; cheap checks come before slow work.

    Args:
        plan: where results go: what is refused before anything is loaded.
        carry_out: what is done with the requests, and with what `plan` gave.
    """
    typed, arguments = split(given)
    if [prompt, init, arguments.mask].count("-") > 1:
        raise UsageError("two of INIT, PROMPT and --mask are -, but stdin can be only one of them")
    asked = {"prompt": read_prompt(prompt), "negative_prompt": "", "seed": random_seed(), **typed}
    expanded = expanded_prompts(asked, arguments)
    if expanded:
        asked |= {"prompt": expanded[0].prompt, "negative_prompt": expanded[0].negative_prompt}
    options = arguments.generate_options(asked)
    if arguments.films_between:
        check_between(arguments, options)
    seed = asked["seed"]
    count = arguments.batch_count
    if seed + count - 1 > MAX_SEED:
        raise UsageError(f"the seed is {seed}, too high for {count} pictures; the last is {MAX_SEED}")
    with make_view(quiet=arguments.quiet, verbose=arguments.verbose) as view:  # shows what is logged, too
        start_from = None if init is None else given_by(init, typed, arguments)
        seeds = [each.seed for each in expanded] or seeds_of(options, seed, count)
        planned = plan(arguments, seeds)
        pipeline, requests = requested(options, seed, arguments, start_from, expanded, view)
        carry_out(arguments, pipeline, planned, view, requests)


def requested(
    options: GenerateOptions,
    seed: int,
    arguments: Arguments,
    start_from: Given | None,
    expanded: Sequence[Expanded],
    view: View,
) -> tuple[Pipeline, Iterator[Request]]:
    """What draws, and what it is to draw; all files are found and checked before torch is imported.

    Raises:
        SdscratchError: what is asked for is not there, or makes no sense.
    """
    from sdscratch.addons.control import open_controls

    opened = arguments.opened()
    sized, beginning = options, None
    if start_from is not None:
        sized = start_from.sized(options, opened.files.defaults)
        beginning = start_from.init(options, opened.files.resolve(sized, seed))
    controls = open_controls(arguments.control, opened.files, arguments.background)
    for text in dict.fromkeys([options.prompt, *(each.prompt for each in expanded)]):
        opened.check(changed(options, prompt=text))
    parts: list[Part] = ["text", "unet", "decoder"]
    if start_from is not None:
        parts.insert(0, "encoder")
    Thread(target=opened.files.read_ahead, args=[parts], daemon=True).start()  # while torch is imported
    with view.stage("starting", None):
        from sdscratch.device import choose
        from sdscratch.generation.pipeline import start
        from sdscratch.generation.requests import Request, numbered

        placement = choose(arguments.device, arguments.dtype, compiled=arguments.compile)
        pipeline = start(opened, placement, low_memory=arguments.low_memory)
        log.info("computing on %s", pipeline.placement.reason)
        resolved = pipeline.resolve(sized)
    if start_from is not None:
        start_from.notice(options, resolved, opened.files.defaults)
    pipeline.hash_ahead()
    request = Request(resolved, beginning, controls)
    if not expanded:
        return pipeline, numbered(request, arguments.batch_count)
    settled = (pipeline.resolve(changed(sized, **each.asked)) for each in expanded)
    return pipeline, (
        replace(request, options=own, template=each.template)
        for own, each in zip(settled, expanded, strict=True)
    )


def expanded_prompts(asked: Mapping[str, Any], arguments: Arguments) -> list[Expanded]:
    """Every picture's prompts, where wildcards are to be expanded and there are some.

    Raises:
        UsageError: a template makes no sense, or options that do not go together.
    """
    if not arguments.wildcards:
        for name in ("wildcard_seed", "wildcard_folder", "combinations"):
            if getattr(arguments, name) not in (None, False):
                raise UsageError(f"{option_name(name)} says how wildcards are expanded; add --wildcards")
        return []
    from sdscratch.jobs.wildcards import Expander

    prompts, expander = (asked["prompt"], asked["negative_prompt"]), Expander()
    if not expander.applies(arguments, *prompts):
        return []
    found = list(expander.pictures(arguments, *prompts, asked["seed"]))
    if not found:
        raise UsageError("the wildcards have no combination at all")
    return found


def read_prompt(prompt: str) -> str:
    """The prompt itself, or for - what stdin holds, without the last line's end.

    Raises:
        UsageError: it is no text, or there is nothing.
    """
    if prompt != "-":
        return prompt
    data = sys.stdin.buffer.read()
    if not data:  # a pipe that failed upstream, above all; an empty line says that it is meant
        raise UsageError('stdin is empty; pipe a prompt into it, or give "" as PROMPT to draw without one')
    try:
        return without_end(decode(data, "on stdin").replace("\r\n", "\n"))
    except NotText as error:
        raise UsageError(str(error)) from None
