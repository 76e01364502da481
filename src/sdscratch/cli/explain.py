"""`explain`: a picture drawn as by txt2img, and a page of how that went."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdscratch.addons.requests import take_loras
from sdscratch.cli.arguments import OUTPUT, Arguments, with_arguments
from sdscratch.cli.generate import draw
from sdscratch.cli.progress import View
from sdscratch.cli.stages import Stages
from sdscratch.cli.telling import Telling, print_line
from sdscratch.cli.told import json_of
from sdscratch.errors import SdscratchError, UsageError
from sdscratch.options import GenerateOptions
from sdscratch.settings import kind_of, option_name, settings_of

if TYPE_CHECKING:
    from sdscratch.explain.capture import Run
    from sdscratch.explain.page import Told
    from sdscratch.explain.places import Places
    from sdscratch.generation.pipeline import Pipeline
    from sdscratch.generation.requests import Picture, Request

__all__ = ["explain"]

# Options of a command that draws which mean the same here. Of the others in their panel this one has its own,
# or none.
KEPT = {"overwrite", "json", "quiet", "verbose", "preview", "taesd"}
OWN = {name for name, about in settings_of(Arguments).items() if about.panel == OUTPUT} - KEPT
# One picture is explained, by the network as it is.
SINGLE = {"batch_count", "batch_size", "compile", "init_img", "init_upscaler"}
FROM_INIT = ("strength", "fit", "background")  # what is said of a picture to start from
NAMES = (("run.npz", "run.json"), ("run-b.npz", "run-b.json"))


@with_arguments(without=OWN | SINGLE)
def explain(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="Text of what to draw; - reads it from stdin.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Page to write (.html), folder to put it in, or - for stdout.",
            rich_help_panel=OUTPUT,
            show_default="outputs/explain-SEED.html, next free name",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            "--init-img",
            "-i",
            metavar="PICTURE",
            help="Picture to start from, as img2img does; - reads it from stdin.",
            rich_help_panel="Picture",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="PROMPT",
            help="Second prompt: drawn with the same seed, and shown beside the first.",
            rich_help_panel="Picture",
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(
            "--save",
            metavar="FOLDER",
            help="Folder to write the tensors into, too: run.npz, and run.json with their shapes.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    **given: Any,
) -> None:
    """Draw a picture of PROMPT, and show on a page how it came about.

    The page is one HTML file with nothing from elsewhere: tokens, context,
    noise, schedule, every step, the inside of the U-Net and where each word
    looks, the decoder, and the command that draws the picture again.

    Examples:

      sdscratch explain "a dog wearing sunglasses"

      sdscratch explain "a red apple" --seed 1 -o apple.html

      sdscratch explain "a lemon" --init sketch.png --strength 0.6

      sdscratch explain "a dog wearing a hat" --compare "a dog wearing a crown"
    """
    if init is None:
        for name in FROM_INIT:
            if given[name] is not None:
                raise UsageError(f"{option_name(name)} goes with a picture to start from; add --init PICTURE")
    if output == "-" and given["json"]:
        raise UsageError("--output - and --json both write to stdout; give one of them")
    if given["window"]:
        raise UsageError(
            "a page shows a picture that is drawn whole, so it goes with no --window; leave it out"
        )
    work = Explaining(given, output, init, compare, save)
    draw(given, prompt, init, plan=work.plan, carry_out=work.carry_out)


@dataclass
class Explaining:
    """What is done with a request when its making is asked for."""

    given: Mapping[str, Any]
    output: str | None
    init: str | None
    compare: str | None
    save: str | None

    def plan(self, arguments: Arguments, seeds: Sequence[int]) -> Places:
        """Check where everything goes, and the second prompt."""
        from sdscratch.explain.places import plan_page

        if len(seeds) > 1:
            raise UsageError("--combinations asks for several pictures, and one is explained; leave it out")
        names = NAMES[0] if self.compare is None else (*NAMES[0], *NAMES[1])
        if self.compare is not None:
            GenerateOptions(prompt=self.compare)  # refuses what is no prompt
        return plan_page(self.output, seeds[0], self.save, names, overwrite=arguments.overwrite)

    def carry_out(
        self,
        arguments: Arguments,
        pipeline: Pipeline,
        places: Places,
        view: View,
        requests: Iterator[Request],
    ) -> None:
        """Draw, watch, and write."""
        from sdscratch.addons.apply import with_loras
        from sdscratch.explain.page import Told, page
        from sdscratch.explain.save import saved
        from sdscratch.generation.outputs import OutputPlan

        if self.compare is not None:
            with_loras(pipeline.files, take_loras(self.compare)[1])  # what is wrong is said before a long run
        request = next(requests)
        asked = [request]
        if self.compare is not None:
            asked.append(replace(request, options=replace(request.options, prompt=self.compare)))
        telling = Telling(arguments, pipeline, OutputPlan((request.options.seed,)), view)  # saves nothing
        runs = [self.watch(telling, pipeline, each, view) for each in asked]
        with view.stage("writing", None):
            told = [Told(run, self.again(arguments, pipeline, run)) for run in runs]
            tensors: dict[str, bytes] = {}
            if self.save is not None:
                for run, names in zip(runs, NAMES, strict=False):
                    tensors |= dict(zip(names, saved(run, pipeline.files.tokenizer), strict=True))
            path = places.write(page(pipeline, told), tensors)
        self.tell(arguments, path, told)
        view.note(f"seed {request.options.seed}")

    def watch(self, telling: Telling, pipeline: Pipeline, request: Request, view: View) -> Run:
        """Draw one picture, watched."""
        from sdscratch.explain.capture import Run, watched
        from sdscratch.generation.requests import Failed, Picture, Progress

        with Stages(view, telling.stage_name) as stages:
            for event in watched(pipeline, request):
                match event:
                    case Run():
                        return event
                    case Picture():
                        stages.close()
                    case Failed():
                        raise event.error
                    case _:
                        stages.show(event)
                        if isinstance(event, Progress):
                            telling.preview(event)
        raise SdscratchError("nothing was drawn")

    def again(self, arguments: Arguments, pipeline: Pipeline, run: Run) -> list[str]:
        """The command that draws a run's picture again."""
        from sdscratch.explain.views.made import command, option_words

        picture = picture_of(run)
        options, init = run.request.options, run.request.init
        plain = pipeline.resolve(GenerateOptions(options.prompt, seed=options.seed, like=options.like))
        if init is not None or arguments.size is not None:  # said by --size, or as it was typed
            plain = replace(plain, width=options.width, height=options.height)
        typed = [name for name in ("width", "height") if self.given[name] is not None]
        words = [*argument_words(arguments), *option_words(options, plain, typed)]
        return command(picture.record(), words, self.init)

    def tell(self, arguments: Arguments, path: str | None, told: Sequence[Told]) -> None:
        """Say where the page is."""
        if arguments.json:
            picture = picture_of(told[0].run)
            print_line(json.dumps(json_of(path, picture.record(), picture.timings)))
        elif path is not None:
            print_line(path)


def picture_of(run: Run) -> Picture:
    """The picture that a run gave."""
    if run.picture is None:
        raise SdscratchError("nothing was drawn")
    return run.picture


def argument_words(arguments: Arguments) -> list[str]:
    """What was asked of the command besides the picture's own options, as far as a picture depends on it."""
    plain, words = Arguments(), []
    settings = settings_of(Arguments)
    for each in fields(Arguments):
        value = getattr(arguments, each.name)
        about = settings.get(each.name)
        if (
            about is None
            or about.panel == OUTPUT
            or each.name in SINGLE
            or value == getattr(plain, each.name)
        ):
            continue
        name = option_name(each.name)
        if kind_of(type(value)) is bool:
            words.append(name)
        elif isinstance(value, tuple):
            words += [word for item in value for word in (name, item)]
        else:
            words += [name, str(value)]
    return words
