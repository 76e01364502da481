"""Films from one picture to another: finished pictures of prompts, or of seeds, that lie between two."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdscratch.addons.requests import take_loras
from sdscratch.cli.arguments import Arguments
from sdscratch.cli.look import film_of, show_picture
from sdscratch.cli.progress import View
from sdscratch.cli.stages import STAGES, Stages
from sdscratch.cli.telling import print_line
from sdscratch.cli.told import json_of
from sdscratch.errors import UsageError

if TYPE_CHECKING:
    from sdscratch.generation.outputs import OutputPlan
    from sdscratch.generation.pipeline import Pipeline
    from sdscratch.generation.requests import Picture, Request, Started
    from sdscratch.options import GenerateOptions

__all__ = ["check_between", "draw_between", "frames_between"]

FRAMES = 24  # of a film that says no number


def check_between(arguments: Arguments, options: GenerateOptions) -> None:
    """Refuse what does not go together with a film between two pictures.

    Raises:
        UsageError: there is such a thing.
    """
    if arguments.batch_count > 1 or arguments.combinations:
        raise UsageError("a film to another picture begins with one; leave out --batch-count")
    if arguments.frames == 1:
        raise UsageError("--frames is 1, but a film to another picture has two at least")
    if arguments.film_to is not None and take_loras(arguments.film_to)[1]:
        raise UsageError(
            "--film-to holds a <lora:…> tag, but a LoRA does not come little by little; put it in PROMPT"
        )
    varied = options.variation_strength or options.variation_seed is not None
    if arguments.film_to_seed is not None and varied:
        raise UsageError("--film-to-seed varies the noise itself, so it goes with no --variation-seed")


def frames_between(arguments: Arguments, first: Request) -> Iterator[Request]:
    """The pictures of a film, from the first, which is the one without a film, to the last."""
    from sdscratch.generation.requests import Towards

    count = arguments.frames or FRAMES
    yield first
    for index in range(1, count):
        share = index / (count - 1)
        options = first.options
        if arguments.film_to_seed is not None:
            seed = arguments.film_to_seed
            options = replace(options, variation_seed=seed, variation_strength=share)
        towards = None if arguments.film_to is None else Towards(arguments.film_to, share)
        yield replace(first, options=options, towards=towards)


def draw_between(
    arguments: Arguments, pipeline: Pipeline, plan: OutputPlan, view: View, requests: Iterator[Request]
) -> None:
    """Draw the film; its first picture is saved and told of as if it were alone.

    Raises:
        SdscratchError: a picture of it cannot be drawn, or something cannot be written.
    """
    from sdscratch.generation.generate import generate
    from sdscratch.generation.requests import Failed, Picture
    from sdscratch.images import write_sidecar

    frames = list(frames_between(arguments, next(requests)))
    film = film_of(arguments, 1)
    assert film is not None
    film.most = 0  # all of them
    first: Picture | None = None

    def name(event: Started) -> str:
        number = "" if event.stage == "load" else f" {event.first + 1}/{len(frames)}"
        return STAGES[event.stage] + number

    with Stages(view, name) as stages:
        for event in generate(pipeline, frames):
            match event:
                case Failed():
                    raise event.error
                case Picture():
                    stages.close()
                    first = first or event
                    film.add(event.image)
                    if arguments.show:
                        show_picture(event.image)
                case _:
                    stages.show(event)
    assert first is not None
    film.end(film.frames.pop())
    record = first.record()
    path = plan.save(0, first.image, None if arguments.strip else record)
    if arguments.sidecar and path is not None:
        write_sidecar(Path(path), record, overwrite=arguments.overwrite)
    if arguments.json:
        print_line(json.dumps(json_of(path, record, first.timings)))
    elif path is not None:
        print_line(path)
    view.note(f"seed {record.options.seed}")
