"""`txt2img` and `img2img`: parse, call the pipeline, show, save, print."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from sdscratch.addons.requests import take_loras
from sdscratch.cli.arguments import PICTURE, Arguments, Fit, option, with_arguments
from sdscratch.cli.progress import View, make_view
from sdscratch.errors import SdscratchError, UsageError
from sdscratch.files import write_stream
from sdscratch.options import MAX_SEED, ResolvedOptions, fit_of_init, random_seed, size_of_init

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdscratch.checkpoints.layouts import Part
    from sdscratch.generation.outputs import OutputPlan
    from sdscratch.generation.pipeline import Pipeline, Progress
    from sdscratch.images import LoraRecord, Record

__all__ = ["img2img", "txt2img"]

log = logging.getLogger(__name__)


@with_arguments
def txt2img(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to draw; - reads it from stdin.")],
    arguments: Arguments,
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
    generate(arguments, prompt)


@with_arguments
def img2img(
    arguments: Arguments,
    init: Annotated[
        str | None,
        typer.Argument(
            metavar="INIT", help="The picture to start from, PNG, JPEG or WebP; - reads it from stdin."
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="What to change it to; - reads it from stdin.")
    ] = None,
    init_img: Annotated[
        str | None,
        option("-i", "--init-img", help="INIT by another name; then PROMPT alone is left.", panel=PICTURE),
    ] = None,
    strength: Annotated[
        float, option("--strength", help="0 keeps the picture, 1 ignores it.", panel=PICTURE)
    ] = 0.75,
    fit: Annotated[
        Fit,
        option(
            "--fit",
            metavar="HOW",
            help="To another size: cover crops, contain adds borders, stretch distorts.",
            panel=PICTURE,
        ),
    ] = "cover",
    background: Annotated[
        str, option("--background", help="The colour under transparent parts and borders.", panel=PICTURE)
    ] = "white",
) -> None:
    """Change the picture INIT towards PROMPT.

    --strength says how much: 0 keeps the picture (it is only encoded and
    decoded), 1 ignores it. Of --steps, that share is run.

    Examples:

      sdscratch img2img sketch.png "a lemon"

      sdscratch img2img photo.jpg "a watercolour" --strength 0.5 --size 512x512
    """
    if init_img is not None:
        if prompt is not None:
            raise UsageError("INIT is given twice: as an argument and by --init-img")
        init, prompt = init_img, init
    if not init:
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
    from sdscratch.addons.apply import open_with_addons, with_loras
    from sdscratch.checkpoints.taesd import open_taesd
    from sdscratch.generation.outputs import plan_outputs
    from sdscratch.images import fit_picture, picture_hash, read_picture

    if prompt == init == "-":
        raise UsageError("INIT and PROMPT are both -, but stdin can be only one of them")
    options = arguments.generate_options(read_prompt(prompt), strength)
    seed = random_seed() if options.seed is None else options.seed
    if seed + arguments.batch_count - 1 > MAX_SEED:
        raise UsageError(
            f"the seed is {seed}, too high for {arguments.batch_count} pictures; the last is {MAX_SEED}"
        )
    picture = None
    if init is not None:
        picture = read_picture(init, background)
        fit = fit_of_init(options, fit)
        options = size_of_init(options, picture.size)
    seeds = [seed + index for index in range(arguments.batch_count)]
    plan = plan_outputs(arguments.output, seeds, overwrite=arguments.overwrite)
    files = open_with_addons(arguments.model, tokenizer=arguments.tokenizer, lora=arguments.lora or ())
    taesd = None
    if arguments.taesd is not None:
        taesd = open_taesd(arguments.taesd, files.config.autoencoder)
    with_loras(
        files, take_loras(options.prompt)[1]
    )  # what is wrong with one is said before torch is imported
    parts: list[Part] = (
        ["text", "unet", "decoder"] if init is None else ["encoder", "text", "unet", "decoder"]
    )
    Thread(target=files.read_ahead, args=[parts], daemon=True).start()  # while torch is imported

    with make_view(quiet=arguments.quiet, verbose=arguments.verbose) as view:
        with view.stage("starting", None):
            from sdscratch.device import choose
            from sdscratch.generation.pipeline import Pipeline

            placement = choose(arguments.device, arguments.dtype, compiled=arguments.compile)
            pipeline = Pipeline(files, placement, low_memory=arguments.low_memory, taesd=taesd)
            log.info("computing on %s", pipeline.placement.reason)
            resolved = pipeline.resolve(replace(options, seed=seed), picture)
        init_record: dict[str, Any] = {}
        if picture is not None:
            init_record = {"fit": fit, "init_hash": picture_hash(picture)}
            picture = fit_picture(picture, resolved.width, resolved.height, fit, background)
        Run(arguments, pipeline, resolved, picture, init_record, plan, view).all()


def read_prompt(prompt: str) -> str:
    """The prompt itself, or for - what stdin holds, without the last line's end.

    Raises:
        UsageError: it is not UTF-8.
    """
    if prompt != "-":
        return prompt
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"byte {error.start + 1} on stdin is not UTF-8; convert the prompt to UTF-8"
        ) from None


def print_line(line: str) -> None:
    """Print a result; a path in the bytes it was typed in, whatever the encoding of stdout."""
    write_stream(sys.stdout.buffer, os.fsencode(f"{line}\n"))


class Written(NamedTuple):
    """A picture that is saved, and not told of yet."""

    path: str | None  # None: stdout
    record: Record
    timings: dict[str, float]


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
    model_hash: Future[str] = field(default_factory=Future)
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    writing: Future[Written] | None = None  # the newest picture, until it is told of
    done: int = 0  # pictures saved and reported

    def all(self) -> None:
        """Make every picture; the first that fails ends the run, and those before it are kept."""
        # A daemon: who presses Ctrl-C does not wait for it.
        Thread(target=self.hash_model, daemon=True).start()
        self.load()
        count, size = self.arguments.batch_count, self.arguments.batch_size
        try:
            with self.writer:
                try:
                    for first in range(0, count, size):
                        self.batch(first, min(size, count - first))
                finally:
                    self.tell()  # what has been made is kept, after Ctrl-C; if it failed, it failed first
        except SdscratchError as error:
            if self.done == 0:
                raise
            raise SdscratchError(f"picture {self.done + 1} of {count} failed: {error}") from error

    def hash_model(self) -> None:
        """Find the model's hash, beside the work: all of its file is read."""
        try:
            self.model_hash.set_result(self.pipeline.files.hash())
        except Exception as error:
            self.model_hash.set_exception(error)

    def load(self) -> None:
        """Load the networks that the task needs."""
        self.pipeline.adopt_loras(self.options.prompt)
        parts = self.pipeline.parts_for(self.options, from_init=self.init is not None)
        if "text" in parts:
            _ = self.pipeline.files.tokenizer  # a missing one is said before gigabytes are loaded
        with self.timed("load"), self.view.stage("loading", len(parts)) as advance:
            for done, _ in enumerate(self.pipeline.load(parts), start=1):
                advance(done)

    def batch(self, first: int, size: int) -> None:
        """Make, save and report `size` pictures at once."""
        options = replace(self.options, seed=self.options.seed + first)
        count = self.arguments.batch_count
        which = f" {first + 1}" + (f"-{first + size}" if size > 1 else "") + f"/{count}" if count > 1 else ""
        steps = self.pipeline.steps(options, count=size, init=self.init)
        with self.timed("encode"), self.view.stage(f"encoding{which}", None):
            last = next(steps)  # the prompts and the init picture are encoded before it
        if last.total:
            with self.timed("denoise"), self.view.stage(f"denoising{which}", last.total, "it") as advance:
                for last in steps:
                    advance(last.done)
                    self.preview(last)
        for index, latent in enumerate(last.latent.split(1), start=first):
            which = f" {index + 1}/{count}" if count > 1 else ""
            with self.timed("decode"), self.view.stage(f"decoding{which}", 1) as advance:
                (picture,) = self.pipeline.decode(latent, self.options.tile)
                advance(1)
            self.tell()
            self.writing = self.writer.submit(self.write, index, picture, dict(self.timings))
            if not self.pipeline.placement.batches:
                self.tell()  # on a CPU the next one takes long, and writing no time to speak of

    def preview(self, progress: Progress) -> None:
        """Show the batch's first picture as far as it is, where that was asked for."""
        from sdscratch.images import save_picture

        if self.arguments.preview is not None and progress.denoised is not None:
            (picture,) = self.pipeline.preview(progress.denoised[:1])
            save_picture(picture, Path(self.arguments.preview), overwrite=True)

    def write(self, index: int, picture: Image, timings: dict[str, float]) -> Written:
        """Save one picture with its records; on a GPU the next one is made meanwhile."""
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
            loras=self.loras() or None,
            **self.init_record,
        )
        return Written(self.plan.save(index, picture, record), record, timings)

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
            line = {
                "path": path,
                "seed": options.seed,
                "prompt": options.prompt,
                "options": asdict(options),
                "model_hash": record.model_hash,
                **({"loras": [asdict(lora) for lora in record.loras]} if record.loras else {}),
                "timings": {name: round(seconds, 3) for name, seconds in timings.items()},
            }
            print_line(json.dumps(line))
        elif path is not None:
            print_line(path)
        self.done += 1
        self.view.note(f"seed {options.seed}")

    def loras(self) -> tuple[LoraRecord, ...]:
        """The LoRAs in use, as the record has them: those of the options come first."""
        from sdscratch.images import LoraRecord

        given = len(self.pipeline.files.changes)
        return tuple(
            LoraRecord(lora.name, lora.weight, lora.lora.hash(), tagged=index >= given)
            for index, lora in enumerate(self.pipeline.loras)
        )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Remember how long a stage took."""
        start = time.perf_counter()
        yield
        self.timings[stage] = time.perf_counter() - start
