"""`txt2img` and `img2img`: parse, call the pipeline, show, save, print."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdscratch.cli.arguments import PICTURE, Arguments, Fit, option, with_arguments
from sdscratch.cli.progress import View, make_view
from sdscratch.errors import SdscratchError, UsageError
from sdscratch.options import MAX_SEED, ResolvedOptions, random_seed

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdscratch.outputs import OutputPlan
    from sdscratch.pipeline import Pipeline

__all__ = ["IMG2IMG_HELP", "TXT2IMG_HELP", "img2img", "txt2img"]

log = logging.getLogger(__name__)

TXT2IMG_HELP = """Draw a picture of PROMPT; - reads the prompt from stdin.

Examples:

  sdscratch txt2img "a dog wearing sunglasses"

  sdscratch txt2img "a red apple" --seed 1 -b 4 -o apples/

  sdscratch txt2img "an astronaut" -m v1-5.safetensors --sampler dpm++2m

  sdscratch txt2img "pizza" --size 64x64 -o - > pizza.png
"""

IMG2IMG_HELP = """Change the picture INIT towards PROMPT.

--strength says how much: 0 keeps the picture (it is only encoded and decoded), 1 ignores it. Of --steps, that
share is run.

Examples:

  sdscratch img2img sketch.png "a lemon"

  sdscratch img2img photo.jpg "a watercolour" --strength 0.5 --size 512x512
"""


@with_arguments
def txt2img(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to draw; - reads it from stdin.")],
    arguments: Arguments,
) -> None:
    """Text to image."""
    generate(arguments, prompt)


@with_arguments
def img2img(
    arguments: Arguments,
    init: Annotated[
        str | None, typer.Argument(metavar="INIT", help="The picture to start from: PNG, JPEG or WebP.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="What to change it to; - reads it from stdin.")
    ] = None,
    init_img: Annotated[
        str | None,
        option("-i", "--init-img", help="INIT by another name; then only PROMPT is left.", panel=PICTURE),
    ] = None,
    strength: Annotated[
        float, option("--strength", help="0 keeps the picture, 1 ignores it.", panel=PICTURE)
    ] = 0.75,
    fit: Annotated[
        Fit,
        option(
            "--fit", help="How INIT meets another size: cover crops, contain adds borders.", panel=PICTURE
        ),
    ] = "cover",
    background: Annotated[
        str, option("--background", help="The colour under transparent parts and borders.", panel=PICTURE)
    ] = "white",
) -> None:
    """Image to image."""
    if init_img is not None:
        if prompt is not None:
            raise UsageError("INIT is given twice: as an argument and by --init-img")
        init, prompt = init_img, init
    if init is None:
        raise UsageError("INIT is missing: the picture to start from")
    if prompt is None:
        raise UsageError("PROMPT is missing: what the picture should become")
    generate(arguments, prompt, init, strength=strength, fit=fit, background=background)


def generate(
    arguments: Arguments,
    prompt: str,
    init: str | None = None,
    *,
    strength: float | None = None,
    fit: Fit = "cover",
    background: str = "white",
) -> None:
    """Everything between what was typed and the last picture; cheap checks come before slow work."""
    from sdscratch.checkpoints.model import open_model
    from sdscratch.images import fit_picture, picture_hash, read_picture
    from sdscratch.outputs import plan_outputs

    options = arguments.generate_options(read_prompt(prompt), strength)
    if arguments.output == "-" and arguments.json:
        raise UsageError("--output - and --json both write to stdout; give one of them")
    seed = random_seed() if options.seed is None else options.seed
    if seed + arguments.batch_count - 1 > MAX_SEED:
        raise UsageError(
            f"the seed is {seed}, too high for {arguments.batch_count} pictures; the last is {MAX_SEED}"
        )
    files = open_model(arguments.model, tokenizer=arguments.tokenizer)
    picture = None if init is None else read_picture(init, background)
    seeds = [seed + index for index in range(arguments.batch_count)]
    plan = plan_outputs(arguments.output, seeds, overwrite=arguments.overwrite)

    with make_view(quiet=arguments.quiet, verbose=arguments.verbose) as view:
        with view.stage("starting", None):
            from sdscratch.device import choose
            from sdscratch.pipeline import Pipeline

            pipeline = Pipeline(files, choose(arguments.device, arguments.dtype))
            log.info("computing on %s", pipeline.placement.reason)
            resolved = pipeline.resolve(replace(options, seed=seed), picture)
        init_record: dict[str, Any] = {}
        if picture is not None:
            init_record = {"fit": fit, "init_hash": picture_hash(picture)}
            picture = fit_picture(picture, resolved.width, resolved.height, fit, background)
        Run(arguments, pipeline, resolved, picture, init_record, plan, view).all()


def read_prompt(prompt: str) -> str:
    """The prompt itself, or for - what stdin holds, without the last line's end."""
    return sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt


@dataclass
class Run:
    """One command's pictures: made in batches, saved and reported one by one."""

    arguments: Arguments
    pipeline: Pipeline
    options: ResolvedOptions  # of the first picture; the others differ in their seed
    init: Image | None  # of the options' size
    init_record: dict[str, Any]  # what the picture's record says of it
    plan: OutputPlan
    view: View
    timings: dict[str, float] = field(default_factory=dict)  # seconds, of the newest picture

    def all(self) -> None:
        """Make every picture; the first that fails ends the run, and those before it are kept."""
        count = self.arguments.batch_count
        with ThreadPoolExecutor(1) as executor:
            self.model_hash = executor.submit(
                self.pipeline.files.hash
            )  # reads the whole file, beside the work
            self.load()
            for first in range(0, count, self.arguments.batch_size):
                try:
                    self.batch(first, min(self.arguments.batch_size, count - first))
                except SdscratchError as error:
                    if first == 0:
                        raise
                    raise SdscratchError(
                        f"{first} of {count} pictures are done, then this failed: {error}"
                    ) from error

    def load(self) -> None:
        """Load the networks that the task needs."""
        parts = self.pipeline.parts_for(self.options, from_init=self.init is not None)
        with self.timed("load"), self.view.stage("loading", len(parts)) as advance:
            for done, _ in enumerate(self.pipeline.load(parts), start=1):
                advance(done)

    def batch(self, first: int, size: int) -> None:
        """Make, save and report `size` pictures at once."""
        options = replace(self.options, seed=self.options.seed + first)
        count = self.arguments.batch_count
        which = (
            ""
            if count == 1
            else f" {first + 1}/{count}"
            if size == 1
            else f" {first + 1}-{first + size}/{count}"
        )
        steps = self.pipeline.steps(options, count=size, init=self.init)
        start = next(steps)  # the prompts and the init picture are encoded before it
        with self.timed("denoise"), self.view.stage(f"denoising{which}", start.total, "it") as advance:
            last = start
            for last in steps:
                advance(last.done)
        for index, latent in enumerate(last.latent.split(1)):
            with self.timed("decode"), self.view.stage(f"decoding{which}", 1) as advance:
                (picture,) = self.pipeline.decode(latent)
                advance(1)
            self.finish(first + index, picture)

    def finish(self, index: int, picture: Image) -> None:
        """Save one picture with its records, and say where it is."""
        from sdscratch.images import Record

        options = replace(self.options, seed=self.options.seed + index)
        placement = self.pipeline.placement
        record = Record(
            mode="txt2img" if self.init is None else "img2img",
            options=options,
            model=self.pipeline.files.name,
            model_hash=self.model_hash.result(),
            dtype=placement.dtype_name,
            device=placement.device.type,
            **self.init_record,
        )
        path = self.plan.save(index, picture, record)
        if self.arguments.json:
            line = {
                "path": path,
                "seed": options.seed,
                "prompt": options.prompt,
                "options": asdict(options),
                "model_hash": record.model_hash,
                "timings": {name: round(seconds, 3) for name, seconds in self.timings.items()},
            }
            print(json.dumps(line, ensure_ascii=False), flush=True)
        elif path is not None:
            print(path, flush=True)
        self.view.note(f"seed {options.seed}")

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Remember how long a stage took."""
        start = time.perf_counter()
        yield
        self.timings[stage] = time.perf_counter() - start
