"""The options that txt2img and img2img share, each defined once: name, type, help."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sdscratch.addons.requests import parse_lora
from sdscratch.cli.parameters import parameters_of, typed_values, with_parameters
from sdscratch.errors import UsageError
from sdscratch.jobs.options import LineOptions, sized
from sdscratch.options import DTYPES, LOW_MEMORY_TILE, MODEL, GenerateOptions, check_placement
from sdscratch.settings import setting

__all__ = ["Arguments", "split", "with_arguments"]

OUTPUT = "Output"
DEVICES = "auto, cpu, cuda, cuda:1 (a number), mps."


@dataclass(frozen=True)
class Arguments(LineOptions):
    """What is asked of a command that draws, besides what the picture itself depends on.

    Raises:
        UsageError: a value out of its range.
    """

    device: str = setting("auto", DEVICES, MODEL)
    dtype: str = setting("auto", f"auto, {', '.join(DTYPES)}.", MODEL)
    compile: bool = setting(
        False,
        "Compile the U-Net at the first step: a minute, which pays on a GPU and for many pictures.",
        MODEL,
        negative="",
    )
    batch_size: int = setting(
        1,
        "Number of pictures at once. On a GPU the last bit may differ from one at a time.",
        MODEL,
        low=1,
    )
    low_memory: bool = setting(
        False,
        "Hold one network at a time: each is loaded again for every batch, so make many pictures with a "
        f"--batch-size. Pictures beyond {LOW_MEMORY_TILE}x{LOW_MEMORY_TILE} are decoded in tiles "
        "(--tile 0: whole).",
        MODEL,
        negative="",
    )
    output: str | None = setting(
        None,
        "A file (.png, .jpg, .webp), a folder, or - for PNG bytes on stdout.",
        OUTPUT,
        aliases=("-o",),
        default="outputs/0001-SEED.png, next free number",
    )
    preview: str | None = setting(
        None,
        "A picture to keep up to date while drawing: a rough sketch, which costs nothing.",
        OUTPUT,
        metavar="FILE",
    )
    taesd: str | None = setting(
        None,
        "A tiny autoencoder that draws --preview: finer than a sketch, for a little time a step.",
        OUTPUT,
        metavar="FILE",
        default="MODEL-taesd.safetensors beside the model, if it is there",
    )
    overwrite: bool = setting(False, "Replace files that exist.", OUTPUT, negative="")
    json: bool = setting(False, "A line of JSON for each picture on stdout.", OUTPUT, negative="")
    quiet: bool = setting(False, "Show nothing but errors.", OUTPUT, aliases=("-q",), negative="")
    verbose: bool = setting(False, "Say more; show tracebacks.", OUTPUT, aliases=("-v",), negative="")

    def check_machine(self) -> None:
        """Check the names of device and precision, and how LoRAs are asked for.

        Raises:
            UsageError: one makes no sense.
        """
        check_placement(self.device, self.dtype)
        for text in self.lora:
            parse_lora(text)

    def generate_options(self, typed: Mapping[str, Any]) -> GenerateOptions:
        """What was asked of the picture, checked.

        Args:
            typed: fields of `GenerateOptions`.

        Raises:
            UsageError: a value out of its range, or options that do not go together.
        """
        self.check_machine()
        if self.preview is not None:
            from sdscratch.images import check_suffix  # not for the help alone

            check_suffix(Path(self.preview))
        elif self.taesd is not None:
            raise UsageError("--taesd draws --preview, so it goes with it alone; add --preview FILE")
        if self.output == "-" and self.json:
            raise UsageError("--output - and --json both write to stdout; give one of them")
        values = sized({**typed, "size": self.size})
        if self.low_memory:
            values.setdefault("tile", LOW_MEMORY_TILE)
        return GenerateOptions(**values)


def with_arguments(without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command that takes `**given` an option for every field of `GenerateOptions` and `Arguments`.

    Args:
        without: fields that the command has in another form, or no use for.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        shared = [*parameters_of(GenerateOptions, without), *parameters_of(Arguments, without)]
        with_parameters(command, shared)
        return command

    return decorate


def split(given: Mapping[str, Any]) -> tuple[dict[str, Any], Arguments]:
    """What a command was given: fields of `GenerateOptions` as far as they were typed, and the rest."""
    typed = typed_values(given)
    names = {each.name for each in fields(Arguments)}
    others = {name: typed.pop(name) for name in names & typed.keys()}
    return typed, Arguments(**others)
