"""`txt2img` and `img2img`: parse, call the pipeline, show, save, print."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from sdscratch.cli.arguments import Arguments, split, with_arguments
from sdscratch.cli.look import Film, film_names, show_picture
from sdscratch.cli.progress import View, make_view
from sdscratch.cli.stages import STAGES, Stages
from sdscratch.errors import SdscratchError, UsageError
from sdscratch.files import make_folder, refuse_existing, write_stream
from sdscratch.options import (
    MAX_SEED,
    changed,
    fit_of_init,
    large_init_notice,
    random_seed,
    seeds_of,
    size_of_init,
)
from sdscratch.options.large import LargeOptions
from sdscratch.settings import option_name
from sdscratch.texts import NotText, decode, without_end

if TYPE_CHECKING:
    from sdscratch.checkpoints.layouts import Part
    from sdscratch.generation.outputs import OutputPlan
    from sdscratch.generation.pipeline import Pipeline
    from sdscratch.generation.requests import Event, Picture, Progress, Started
    from sdscratch.images import Record
    from sdscratch.jobs.wildcards import Expanded

__all__ = ["img2img", "txt2img"]

log = logging.getLogger(__name__)

HIRES = tuple(each.name for each in fields(LargeOptions) if each.name.startswith("hires"))  # from noise alone


@with_arguments(without=("strength", "init_img", "fit", "background"))
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


def draw(
    given: Mapping[str, Any],
    prompt: str,
    init: str | None = None,
) -> None:
    """Everything between what was typed and the last picture; cheap checks come before slow work."""
    from sdscratch.generation.opening import open_all
    from sdscratch.generation.outputs import plan_outputs
    from sdscratch.images import fit_picture, picture_hash, read_picture, sidecar_of

    if prompt == init == "-":
        raise UsageError("INIT and PROMPT are both -, but stdin can be only one of them")
    typed, arguments = split(given)
    asked = {"prompt": read_prompt(prompt), "negative_prompt": "", "seed": random_seed(), **typed}
    expanded = expanded_prompts(asked, arguments)
    if expanded:
        asked |= {"prompt": expanded[0].prompt, "negative_prompt": expanded[0].negative_prompt}
    options = arguments.generate_options(asked)
    seed = asked["seed"]
    count = arguments.batch_count
    if seed + count - 1 > MAX_SEED:
        raise UsageError(f"the seed is {seed}, too high for {count} pictures; the last is {MAX_SEED}")
    keeps_size = options.width is None and options.height is None
    picture = None
    if init is not None:
        picture = read_picture(init, arguments.background)
        fit = fit_of_init(options, arguments.fit)
        options = size_of_init(options, picture.size)
    seeds = [each.seed for each in expanded] or seeds_of(options, seed, count)
    plan = plan_outputs(arguments.output, seeds, overwrite=arguments.overwrite)
    if arguments.sidecar and not arguments.overwrite:
        for name in plan.names:
            refuse_existing(sidecar_of(Path(name)))
    opened = open_all(
        arguments.model,
        tokenizer=arguments.tokenizer,
        lora=arguments.lora,
        vae=arguments.vae,
        taesd=arguments.taesd,
        embedding=arguments.embedding,
    )
    for text in dict.fromkeys([options.prompt, *(each.prompt for each in expanded)]):
        opened.check(changed(options, prompt=text))  # what is wrong is said before torch is imported
    parts: list[Part] = (
        ["text", "unet", "decoder"] if init is None else ["encoder", "text", "unet", "decoder"]
    )
    Thread(target=opened.files.read_ahead, args=[parts], daemon=True).start()  # while torch is imported

    with make_view(quiet=arguments.quiet, verbose=arguments.verbose) as view:
        with view.stage("starting", None):
            from sdscratch.device import choose
            from sdscratch.generation.generate import generate
            from sdscratch.generation.pipeline import start
            from sdscratch.generation.requests import Init, Request, numbered

            placement = choose(arguments.device, arguments.dtype, compiled=arguments.compile)
            pipeline = start(opened, placement, low_memory=arguments.low_memory)
            log.info("computing on %s", pipeline.placement.reason)
            resolved = pipeline.resolve(options, picture)
        beginning = None
        if picture is not None:
            own = (opened.files.defaults.width, opened.files.defaults.height)
            if keeps_size and (notice := large_init_notice((resolved.width, resolved.height), own)):
                log.warning(notice)
            fitted = fit_picture(picture, resolved.width, resolved.height, fit, arguments.background)
            beginning = Init(fitted, fit, picture_hash(picture), arguments.background)
        pipeline.hash_ahead()
        requests: Iterable[Request] = numbered(Request(resolved, beginning), arguments.batch_count)
        if expanded:
            requests = (
                Request(pipeline.resolve(changed(options, **each.asked), picture), beginning, each.template)
                for each in expanded
            )
        events = generate(pipeline, requests, batch_size=arguments.batch_size)
        Telling(arguments, pipeline, plan, view, film=film_of(arguments, len(seeds))).all(events)


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


def film_of(arguments: Arguments, count: int) -> Film | None:
    """What makes the films that are asked for."""
    if arguments.film is None:
        return None
    names = film_names(arguments.film, count)
    make_folder(names[0].parent)
    return Film(names, arguments.frames, arguments.film_loop, arguments.overwrite)


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


def print_line(line: str) -> None:
    """Print a result; a path in the bytes it was typed in, whatever the encoding of stdout."""
    write_stream(sys.stdout.buffer, os.fsencode(f"{line}\n"))


class Written(NamedTuple):
    """A picture that is saved, and not told of yet."""

    path: str | None  # None: stdout
    record: Record
    timings: Mapping[str, float]


@dataclass
class Telling:
    """Shows what `generate` tells of, saves the pictures and reports them one by one."""

    arguments: Arguments
    pipeline: Pipeline
    plan: OutputPlan
    view: View
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    writing: Future[Written] | None = None  # the newest picture, until it is told of
    film: Film | None = None
    done: int = 0  # pictures saved and reported

    def all(self, events: Iterable[Event]) -> None:
        """Take every event; the first picture that fails ends the run, and those before it are kept."""
        count = len(self.plan.seeds)
        try:
            with self.writer:
                try:
                    self.take(events)
                finally:
                    self.tell()  # what has been made is kept, after Ctrl-C; if it failed, it failed first
        except SdscratchError as error:
            if self.done == 0:
                raise
            raise SdscratchError(f"picture {self.done + 1} of {count} failed: {error}") from error

    def take(self, events: Iterable[Event]) -> None:
        """Show stages as bars, and hand pictures to the writer."""
        from sdscratch.generation.requests import Failed, Picture, Progress

        with Stages(self.view, self.stage_name) as stages:
            for event in events:
                match event:
                    case Picture():
                        stages.close()
                        self.tell()
                        if self.film is not None:
                            self.film.end(event.image)
                        if self.arguments.show:
                            show_picture(event.image)
                        self.writing = self.writer.submit(self.write, event)
                        if not self.pipeline.placement.batches:
                            self.tell()  # on a CPU the next one takes long, and writing no time to speak of
                    case Failed():
                        raise event.error
                    case _:
                        stages.show(event)
                        if isinstance(event, Progress):
                            self.preview(event)

    def stage_name(self, event: Started) -> str:
        """The stage in words, and which of several pictures it is for."""
        count, name = len(self.plan.seeds), STAGES[event.stage]
        if count == 1 or event.stage == "load":
            return name
        last = f"-{event.first + event.count}" if event.count > 1 else ""
        return f"{name} {event.first + 1}{last}/{count}"

    def preview(self, progress: Progress) -> None:
        """Show the batch's first picture as far as it is, where that was asked for."""
        from sdscratch.images import save_picture

        wanted = self.arguments.preview is not None or self.film is not None
        if progress.denoised is None or not wanted:
            return
        (picture,) = self.pipeline.preview(progress.denoised[:1])
        if self.film is not None:
            self.film.add(picture)
        if self.arguments.preview is not None:
            save_picture(picture, Path(self.arguments.preview), overwrite=True)

    def write(self, picture: Picture) -> Written:
        """Save one picture with its records; on a GPU the next one is made meanwhile."""
        from sdscratch.images import write_sidecar

        record = picture.record()
        arguments = self.arguments
        path = self.plan.save(picture.index, picture.image, None if arguments.strip else record)
        if arguments.sidecar and path is not None:
            write_sidecar(Path(path), record, overwrite=arguments.overwrite)
        return Written(path, record, picture.timings)

    def tell(self) -> None:
        """Say where the picture is that was made last, once it is there, and which seed it has.

        Raises:
            SdscratchError: it could not be written.
        """
        if self.writing is None:
            return
        writing, self.writing = self.writing, None
        path, record, timings = writing.result()
        options = record.options
        if self.arguments.json:
            print_line(json.dumps(json_of(path, record, timings)))
        elif path is not None:
            print_line(path)
        self.done += 1
        self.view.note(f"seed {options.seed}")


def json_of(path: str | None, record: Record, timings: Mapping[str, float]) -> dict[str, Any]:
    """What `--json` says of a picture."""
    options = record.options
    return {
        "path": path,
        "seed": options.seed,
        "prompt": options.prompt,
        "options": asdict(options),
        "model_hash": record.model_hash,
        **({"loras": [lora.to_record() for lora in record.loras]} if record.loras else {}),
        **({"embeddings": [each.to_record() for each in record.embeddings]} if record.embeddings else {}),
        **({"vae": record.vae.to_record()} if record.vae else {}),
        **({"taesd": record.taesd.to_record()} if record.taesd else {}),
        **({"upscaler": record.upscaler.to_record()} if record.upscaler else {}),
        "timings": {name: round(seconds, 3) for name, seconds in timings.items()},
    }
