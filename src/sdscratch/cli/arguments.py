"""The options that txt2img and img2img share, each defined once: name, type, help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from sdscratch.addons.requests import parse_lora
from sdscratch.errors import UsageError
from sdscratch.options import (
    DTYPES,
    LOW_MEMORY_TILE,
    SAMPLERS,
    SCHEDULERS,
    Fit,
    GenerateOptions,
    check_placement,
)

__all__ = ["PICTURE", "Arguments", "Fit", "option", "with_arguments"]

OWN = "the model's own"
OWN_SIDE = f"{OWN}; img2img: INIT's"
PICTURE, SAMPLING, MODEL, OUTPUT = "Picture", "Sampling", "Model and machine", "Output"
APPROXIMATIONS = "Approximations: faster, and not quite the same picture"


def option(*names: str, help: str, panel: str, **more: Any) -> Any:
    """An option in one of the help's panels; a default of None shows as nothing."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


@dataclass(frozen=True)
class Arguments:
    """What was typed, unchecked but for types."""

    negative_prompt: Annotated[
        str, option("-n", "--negative-prompt", help="What the picture should not show.", panel=PICTURE)
    ] = ""
    width: Annotated[
        int | None,
        option("-W", "--width", help="Pixels, a multiple of 8.", panel=PICTURE, show_default=OWN_SIDE),
    ] = None
    height: Annotated[
        int | None,
        option("-H", "--height", help="Pixels, a multiple of 8.", panel=PICTURE, show_default=OWN_SIDE),
    ] = None
    size: Annotated[
        str | None, option("--size", metavar="WxH", help="Both at once, like 512x768.", panel=PICTURE)
    ] = None
    batch_count: Annotated[
        int, option("-b", "--batch-count", "--count", min=1, help="How many pictures.", panel=PICTURE)
    ] = 1
    seed: Annotated[
        int | None,
        option(
            "-s",
            "--seed",
            help="0 to 2⁶³−1; picture i has seed + i.",
            panel=SAMPLING,
            show_default="random, always printed",
        ),
    ] = None
    steps: Annotated[
        int | None,
        option("--steps", help="Denoising steps.", panel=SAMPLING, show_default=f"{OWN}; SD 1.x: 30"),
    ] = None
    cfg_scale: Annotated[
        float | None,
        option(
            "--cfg-scale",
            "--cfg",
            "--scale",
            help="How closely to follow the prompt; 1 is no guidance.",
            panel=SAMPLING,
            show_default=f"{OWN}; SD 1.x: 7.5",
        ),
    ] = None
    sampler: Annotated[
        str | None,
        option(
            "--sampler", help=", ".join(SAMPLERS) + ".", panel=SAMPLING, show_default=f"{OWN}; SD 1.x: ddpm"
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        option(
            "--scheduler", help=", ".join(SCHEDULERS) + ".", panel=SAMPLING, show_default="the sampler's own"
        ),
    ] = None
    eta: Annotated[float, option("--eta", help="ddim's share of fresh noise, 0 to 1.", panel=SAMPLING)] = 0.0
    clip_skip: Annotated[
        int,
        option(
            "--clip-skip",
            help="Leave out the text encoder's last N layers (the web UIs count one more).",
            panel=SAMPLING,
        ),
    ] = 0
    cfg_interval: Annotated[
        str | None,
        option(
            "--cfg-interval",
            metavar="FROM:TO",
            help="Guide only at noise levels σ in between, like 0.28:5.42 (SD 1.x begins at 14.6).",
            panel=APPROXIMATIONS,
            show_default="everywhere",
        ),
    ] = None
    deep_cache: Annotated[
        int,
        option(
            "--deep-cache",
            metavar="N",
            help="Run the deep part of the U-Net at every N-th step alone; 1 is exact.",
            panel=APPROXIMATIONS,
        ),
    ] = 1
    tile: Annotated[
        int | None,
        option(
            "--tile",
            metavar="PIXELS",
            help="Decode in overlapping tiles of this side: memory for one tile only. 0 is exact; "
            "512 gives about 37 dB PSNR against it, 256 about 31.",
            panel=APPROXIMATIONS,
            show_default=f"0; with --low-memory {LOW_MEMORY_TILE}",
        ),
    ] = None
    model: Annotated[
        str,
        option(
            "-m",
            "--model",
            "--ckpt",
            envvar="SDSCRATCH_MODEL",
            help="A .safetensors or .ckpt file, a diffusers folder, a name in ./weights, or a hub id.",
            panel=MODEL,
            show_default="the embedded model",
        ),
    ] = "default"
    tokenizer: Annotated[
        str | None,
        option(
            "--tokenizer", help="A folder with vocab.json and merges.txt, or tokenizer.json.", panel=MODEL
        ),
    ] = None
    lora: Annotated[
        list[str] | None,
        option(
            "--lora",
            metavar="FILE[:WEIGHT]",
            help="A LoRA to add: a file, or a name in ./loras or in loras of the user's data folder; "
            "1 is full strength; repeatable. In PROMPT: <lora:name:0.8>.",
            panel=MODEL,
        ),
    ] = None
    device: Annotated[
        str, option("--device", help="auto, cpu, cuda, cuda:1 (a number), mps.", panel=MODEL)
    ] = "auto"
    dtype: Annotated[str, option("--dtype", help=f"auto, {', '.join(DTYPES)}.", panel=MODEL)] = "auto"
    compile: Annotated[
        bool,
        option(
            "--compile",
            help="Compile the U-Net at the first step: a minute, which pays on a GPU and for many pictures.",
            panel=MODEL,
        ),
    ] = False
    batch_size: Annotated[
        int,
        option(
            "--batch-size",
            min=1,
            help="How many pictures at once. On a GPU the last bit may differ from one at a time.",
            panel=MODEL,
        ),
    ] = 1
    low_memory: Annotated[
        bool,
        option(
            "--low-memory",
            help="Hold one network at a time: each is loaded again for every batch, so make many pictures "
            "with a --batch-size. Pictures beyond "
            f"{LOW_MEMORY_TILE}x{LOW_MEMORY_TILE} are decoded in tiles (--tile 0: whole).",
            panel=MODEL,
        ),
    ] = False
    output: Annotated[
        str | None,
        option(
            "-o",
            "--output",
            help="A file (.png, .jpg, .webp), a folder, or - for PNG bytes on stdout.",
            panel=OUTPUT,
            show_default="outputs/0001-SEED.png, next free number",
        ),
    ] = None
    preview: Annotated[
        str | None,
        option(
            "--preview",
            metavar="FILE",
            help="Keep this picture up to date while drawing: a rough sketch, which costs nothing.",
            panel=OUTPUT,
        ),
    ] = None
    taesd: Annotated[
        str | None,
        option(
            "--taesd",
            metavar="FILE",
            help="A tiny autoencoder that draws --preview: finer than a sketch, for a little time a step.",
            panel=OUTPUT,
            show_default="MODEL-taesd.safetensors beside the model, if it is there",
        ),
    ] = None
    overwrite: Annotated[bool, option("--overwrite", help="Replace files that exist.", panel=OUTPUT)] = False
    json: Annotated[
        bool, option("--json", help="A line of JSON for each picture on stdout.", panel=OUTPUT)
    ] = False
    quiet: Annotated[bool, option("-q", "--quiet", help="Show nothing but errors.", panel=OUTPUT)] = False
    verbose: Annotated[bool, option("-v", "--verbose", help="Say more; show tracebacks.", panel=OUTPUT)] = (
        False
    )

    def generate_options(self, prompt: str, strength: float | None = None) -> GenerateOptions:
        """What was asked for, checked.

        Raises:
            UsageError: a value out of its range, or options that do not go together.
        """
        check_placement(self.device, self.dtype)
        for text in self.lora or ():
            parse_lora(text)
        if self.preview is not None:
            from sdscratch.images import check_suffix  # not for the help alone

            check_suffix(Path(self.preview))
        elif self.taesd is not None:
            raise UsageError("--taesd draws --preview, so it goes with it alone; add --preview FILE")
        if self.output == "-" and self.json:
            raise UsageError("--output - and --json both write to stdout; give one of them")
        width, height = self.width, self.height
        if self.size is not None:
            if width is not None or height is not None:
                raise UsageError("--size says both sides, so it goes with neither --width nor --height")
            width, height = parse_size(self.size)
        sides: dict[str, Any] = {"width": width, "height": height}
        if strength is not None:
            sides["strength"] = strength
        return GenerateOptions(
            prompt,
            self.negative_prompt,
            eta=self.eta,
            clip_skip=self.clip_skip,
            steps=self.steps,
            cfg_scale=self.cfg_scale,
            seed=self.seed,
            sampler=self.sampler,
            scheduler=self.scheduler,
            cfg_interval=self.cfg_interval,
            deep_cache=self.deep_cache,
            tile=(LOW_MEMORY_TILE if self.low_memory else 0) if self.tile is None else self.tile,
            **sides,
        )


def parse_size(size: str) -> tuple[int, int]:
    """The two sides in "512x768".

    Raises:
        UsageError: another form.
    """
    match = re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", size.strip())
    if match is None:
        raise UsageError(f"the size is {size!r}, but must be WIDTHxHEIGHT, like 512x768")
    return int(match[1]), int(match[2])


def with_arguments(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, besides its own parameters, an option for every field of `Arguments`.

    The command receives them as one value, `arguments`; Typer reads the signature made here.
    """
    hints = get_type_hints(Arguments, include_extras=True)
    shared = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(Arguments)
    ]
    own = [
        parameter
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
        if name != "arguments"
    ]

    @wraps(command)
    def collected(**values: Any) -> None:
        command(
            arguments=Arguments(**{field.name: values.pop(field.name) for field in fields(Arguments)}),
            **values,
        )

    collected.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    collected.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *shared]}
    return collected
