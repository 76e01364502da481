"""`upscale`: a picture made larger, by an upscaler, or redrawn in windows by a model."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdscratch.cli.arguments import Arguments, split, with_arguments
from sdscratch.cli.look import FILMS, show_picture
from sdscratch.cli.progress import View, make_view
from sdscratch.cli.telling import Telling, print_line
from sdscratch.cli.upscale_shown import duration, kept
from sdscratch.errors import UsageError
from sdscratch.options import GenerateOptions
from sdscratch.options.fields import SAMPLING
from sdscratch.options.large import LATENT_UPSCALERS, PIXEL_UPSCALERS, LargeOptions, parse_upscaler

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdscratch.generation.enlarge import Upscaler
    from sdscratch.generation.opening import Opened
    from sdscratch.generation.outputs import OutputPlan

__all__ = ["upscale"]

OWN = "Upscaling"
SCALE = 4.0  # of filters, which have none of their own
STRENGTH = 0.35  # of redrawing: what is there stays recognisable
MOST_PIXELS = 500_000_000
WITHOUT = (
    *("prompt", "width", "height", "size", "init_img", "init_upscaler", "fit", "batch_count", "batch_size"),
    *("preview", "seamless", "cfg_scale", *FILMS),
    *(each.name for each in fields(LargeOptions) if each.name.startswith("hires")),
)  # fmt: skip


@with_arguments(without=WITHOUT)
def upscale(
    image: Annotated[
        str,
        typer.Argument(metavar="IMAGE", help="Picture to enlarge, PNG, JPEG or WebP; - reads it from stdin."),
    ],
    destination: Annotated[
        str | None,
        typer.Argument(
            metavar="DST",
            help="File to write (--output says the same), or folder.",
            show_default="beside IMAGE, NAME-4x.png",
        ),
    ] = None,
    upscaler: Annotated[
        str | None,
        typer.Option(
            "--upscaler",
            metavar="NAME|FILE",
            help="Upscaler of the ESRGAN family: a file, or a name in ./upscalers or in upscalers of the "
            "user's data folder; or a filter: lanczos, bicubic, nearest.",
            rich_help_panel=OWN,
            show_default="lanczos, with --redraw",
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale",
            metavar="X",
            help="Factor of width and height.",
            rich_help_panel=OWN,
            show_default="the upscaler's own, else 4",
        ),
    ] = None,
    redraw: Annotated[
        str | None,
        typer.Option(
            "--redraw",
            metavar="PROMPT",
            help="Text of what is to be seen: the enlarged picture is drawn over by a model, in windows.",
            rich_help_panel=OWN,
            show_default=False,
        ),
    ] = None,
    cfg_scale: Annotated[
        float | None,
        typer.Option(
            "--cfg-scale",
            "--cfg",
            help="Guidance, how closely to follow the prompt; 1 is none.",
            rich_help_panel=SAMPLING,
            show_default="the model's own",
        ),
    ] = None,
    **given: Any,
) -> None:
    """Enlarge IMAGE, by an upscaler's file, or drawn over by a model.

    --redraw draws windows of the model's size, blended at every step; what is
    done is kept in DST.partial, and a run that was stopped goes on.

    Examples:

      sdscratch upscale photo.jpg --upscaler 4x-UltraSharp.pth

      sdscratch upscale owl.png owl-large.png --upscaler lanczos --scale 3

      sdscratch upscale photo.png --redraw "a harbour" -m v1-5.safetensors

      sdscratch upscale photo.png --redraw "a harbour" -m v1-5.safetensors \\
        --control control_v11f1e_sd15_tile.pth,image=photo.png
    """
    asked = Asked(image, upscaler, scale, redraw)
    typed, arguments = split(given | {"cfg_scale": cfg_scale})
    if redraw is None:
        asked.refuse_options_of_redrawing(typed)
    from sdscratch.images import read_picture

    picture = read_picture(image, arguments.background)
    asked.open()
    size = asked.size(picture, step=1 if redraw is None else 8)
    plan = asked.plan(destination, arguments)
    if redraw is None:
        _enlarge(asked, arguments, picture, size, plan)
    else:
        options = {"strength": STRENGTH, **typed, "prompt": redraw, "width": size[0], "height": size[1]}
        _redraw(asked, replace(arguments, output=plan.path(0)), picture, options, plan)


@dataclass
class Asked:
    """What is asked of an enlargement; `upscaler` is a name of ours, or a file's."""

    image: str
    upscaler: str | None
    scale: float | None
    redraw: str | None

    def __post_init__(self) -> None:
        if self.upscaler is None and self.redraw is None:
            raise UsageError(
                "nothing says how to enlarge; give --upscaler FILE (or lanczos), or --redraw PROMPT, or both"
            )
        self.name = parse_upscaler(self.upscaler or "lanczos")
        if self.name in LATENT_UPSCALERS:
            raise UsageError(
                f"{self.name} enlarges latents between two passes (--hires); name a file or a filter"
            )
        if self.scale is not None and not 1.0 <= self.scale <= 16.0:
            raise UsageError(f"--scale is {self.scale:g}, but must be from 1 to 16")

    def refuse_options_of_redrawing(self, typed: Mapping[str, Any]) -> None:
        """Options of a model that is not asked.

        Raises:
            UsageError: there is one.
        """
        for name in typed:
            raise UsageError(
                f"--{name.replace('_', '-')} is of redrawing by a model; add --redraw PROMPT, or leave it out"
            )

    def open(self) -> None:
        """Find and check the upscaler's file.

        Raises:
            CheckpointError: missing, unreadable, or of another family.
        """
        from sdscratch.addons.upscaler import open_upscaler

        file = None if self.name in PIXEL_UPSCALERS else open_upscaler(self.name)
        if self.scale is None:
            self.scale = SCALE if file is None else float(file.config.scale)

    def size(self, picture: Image, step: int) -> tuple[int, int]:
        """The result's width and height, multiples of `step`.

        Raises:
            UsageError: too large, or too small.
        """
        assert self.scale is not None
        width, height = (int(side * self.scale / step + (step == 1) / 2) * step for side in picture.size)
        if width * height > MOST_PIXELS:
            raise UsageError(
                f"the result would be {width}x{height}, more than {MOST_PIXELS // 10**6} megapixels; "
                "ask for a smaller --scale"
            )
        return width, height

    def plan(self, destination: str | None, arguments: Arguments) -> OutputPlan:
        """Where the result goes.

        Raises:
            UsageError: two places, an unknown suffix, or a name that is taken.
        """
        from sdscratch.generation.outputs import plan_outputs

        if destination is not None and arguments.output is not None:
            raise UsageError("DST is given twice: as an argument and by --output")
        wanted = destination or arguments.output
        if wanted == "-" and arguments.json:
            raise UsageError("--output - and --json both write to stdout; give one of them")
        source = Path(self.image)
        name = f"{source.stem}-{self.scale:g}x.png"
        if wanted is None and self.image == "-":
            raise UsageError("a picture from stdin has no name to go by; say where the result goes: DST")
        if wanted is None:
            wanted = str(source.with_name(name))
        elif wanted != "-" and (wanted.endswith("/") or Path(wanted).is_dir()):
            Path(wanted).mkdir(parents=True, exist_ok=True)
            wanted = str(Path(wanted) / name)
        return plan_outputs(wanted, [0], overwrite=arguments.overwrite)


def _enlarge(
    asked: Asked, arguments: Arguments, picture: Image, size: tuple[int, int], plan: OutputPlan
) -> None:
    """By the upscaler alone."""
    with make_view(quiet=arguments.quiet, verbose=arguments.verbose) as view:
        upscaler = _started(asked, arguments, view)
        began = time.perf_counter()
        made = _enlarged(upscaler, picture, size, view)
        seconds = time.perf_counter() - began
        path = plan.save(0, made, _extras(asked, upscaler))
    if arguments.show:
        show_picture(made)
    record = {"name": upscaler.name} if upscaler.file is None else _told(upscaler)
    if arguments.json:
        facts = {"path": path, "size": list(made.size), "scale": asked.scale, "upscaler": record}
        print_line(json.dumps(facts | {"timings": {"enlarge": round(seconds, 3)}}))
    elif path is not None:
        print_line(path)


def _told(upscaler: Upscaler) -> dict[str, str]:
    assert upscaler.file is not None
    return {"name": upscaler.file.name, "hash": upscaler.file.hash()}


def _extras(asked: Asked, upscaler: Upscaler) -> Any:
    """What the result says of itself."""
    from sdscratch.images import Extras, read_records

    infotext = None
    if asked.image != "-":
        records = read_records(asked.image)
        own = records.record.infotext() if records.record is not None else None
        infotext = own or records.texts.png.get("parameters")
    told = {"name": upscaler.name, "hash": None} if upscaler.file is None else _told(upscaler)
    assert asked.scale is not None
    return Extras(infotext, asked.scale, str(told["name"]), told["hash"])


def _started(asked: Asked, arguments: Arguments, view: View) -> Upscaler:
    with view.stage("starting", None):
        from sdscratch.device import choose
        from sdscratch.generation.enlarge import Upscaler

        return Upscaler(asked.name, choose(arguments.device, arguments.dtype))


def _enlarged(upscaler: Upscaler, picture: Image, size: tuple[int, int], view: View) -> Image:
    """The picture at its new size; first it is said how long that will take."""
    if upscaler.file is not None and (seconds := upscaler.estimate(picture, size)) is not None:
        view.note(f"{picture.width}x{picture.height} to {size[0]}x{size[1]}: {duration(seconds)}")
    with view.stage("enlarging", 100.0, "%") as advance:
        return upscaler(picture, size, lambda share: advance(100.0 * share))


def _redraw(
    asked: Asked, arguments: Arguments, picture: Image, typed: dict[str, Any], plan: OutputPlan
) -> None:
    """By a model, in windows; the upscaler comes first."""
    from sdscratch.addons.control import open_controls

    options = arguments.generate_options(typed)
    opened = arguments.opened()
    opened.check(options)
    controls = open_controls(arguments.control, opened.files, arguments.background)
    with make_view(quiet=arguments.quiet, verbose=arguments.verbose) as view:
        upscaler = _started(asked, arguments, view)
        from sdscratch.device import choose
        from sdscratch.generation.generate import generate
        from sdscratch.generation.inits import upscaler_told
        from sdscratch.generation.pipeline import start
        from sdscratch.generation.requests import Init, Request
        from sdscratch.images import picture_hash

        placement = choose(arguments.device, arguments.dtype, compiled=arguments.compile)
        pipeline = start(opened, placement, low_memory=arguments.low_memory)
        resolved = pipeline.resolve(_windowed(options, opened))
        size = resolved.width, resolved.height
        enlarged = _enlarged(upscaler, picture, size, view)
        by, background = upscaler_told(asked.name), arguments.background
        init = Init(enlarged, "stretch", picture_hash(picture), background, by)
        request = Request(resolved, init, controls)
        with kept(pipeline, request, plan, view):
            Telling(arguments, pipeline, replace(plan, seeds=(resolved.seed,)), view).all(
                generate(pipeline, [request])
            )


def _windowed(options: GenerateOptions, opened: Opened) -> GenerateOptions:
    """With windows of the model's own size, unless another is asked for.

    The seed is 0 unless it is given: a run that goes on must draw the same noise.
    """
    from sdscratch.options import changed

    own = max(opened.files.defaults.width, opened.files.defaults.height)
    return changed(options, window=options.window or own, seed=options.seed or 0)
