"""The options that txt2img and img2img share, each defined once: name, type, help."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdscratch.addons.requests import parse_lora
from sdscratch.cli.look import check_film_options
from sdscratch.cli.parameters import parameters_of, typed_values, with_parameters
from sdscratch.errors import UsageError
from sdscratch.jobs.options import LineOptions, sized
from sdscratch.options import (
    DTYPES,
    LOW_MEMORY_TILE,
    MAX_SEED,
    MODEL,
    GenerateOptions,
    check_placement,
)
from sdscratch.settings import option_name, setting, settings_of

if TYPE_CHECKING:
    from sdscratch.generation.opening import Opened

__all__ = ["DEVICES", "Arguments", "split", "with_arguments"]

OUTPUT = "Output"
DEVICES = "Device to compute on: auto, cpu, cuda, cuda:1 (a number) or mps."


@dataclass(frozen=True)
class Arguments(LineOptions):
    """What is asked of a command that draws, besides what the picture itself depends on.

    Raises:
        UsageError: a value out of its range.
    """

    device: str = setting("auto", DEVICES, MODEL)
    dtype: str = setting("auto", f"Precision of the arithmetic: auto, {', '.join(DTYPES)}.", MODEL)
    compile: bool = setting(
        False,
        "Compile the U-Net at the first step, which takes a minute: worth it on a GPU, for many pictures.",
        MODEL,
        negative="",
    )
    batch_size: int = setting(
        1,
        "Number of pictures drawn at once. On a GPU they may differ in the last bit from pictures drawn one "
        "at a time.",
        MODEL,
        low=1,
    )
    low_memory: bool = setting(
        False,
        "Hold one network in memory at a time. Each is loaded again for every batch, so draw many pictures "
        f"with a --batch-size. Pictures beyond {LOW_MEMORY_TILE}x{LOW_MEMORY_TILE} are encoded and decoded "
        "in pieces, unless --tile 0 is given.",
        MODEL,
        negative="",
    )
    output: str | None = setting(
        None,
        "File to write (.png, .jpg or .webp), folder to put numbered files in, or - for PNG bytes on stdout.",
        OUTPUT,
        aliases=("-o",),
        default="outputs/0001-SEED.png, next free number",
    )
    preview: str | None = setting(
        None,
        "File that shows the picture so far while it is drawn: a rough sketch, which costs nothing.",
        OUTPUT,
        metavar="FILE",
    )
    film: str | None = setting(
        None,
        "File that shows the denoising step by step: .gif, .webp, .apng, or .png for a contact sheet.",
        OUTPUT,
        metavar="FILE",
    )
    film_to: str | None = setting(
        None,
        "Prompt that the film goes to: its frames are finished pictures between PROMPT and this.",
        OUTPUT,
        metavar="PROMPT",
    )
    film_to_seed: int | None = setting(
        None,
        "Seed that the film goes to: its frames are finished pictures between --seed's noise and this one's.",
        OUTPUT,
        metavar="SEED",
        low=0,
        high=MAX_SEED,
    )
    frames: int = setting(
        0, "Number of the film's frames.", OUTPUT, low=0, high=10_000, default="every step; to another: 24"
    )
    film_loop: bool = setting(
        False, "Let the film go back to its beginning, so that it loops without a jump.", OUTPUT, negative=""
    )
    show: bool = setting(
        False,
        "Show the picture in the terminal: as kitty, iTerm2 or sixel terminals take it, or in half blocks.",
        OUTPUT,
        negative="",
    )
    strip: bool = setting(False, "Write nothing into the picture of how it was made.", OUTPUT, negative="")
    sidecar: bool = setting(
        False, "Write the record into NAME.json beside the picture, too.", OUTPUT, negative=""
    )
    overwrite: bool = setting(False, "Replace files that exist.", OUTPUT, negative="")
    json: bool = setting(False, "Print a line of JSON for each picture, not its path.", OUTPUT, negative="")
    quiet: bool = setting(False, "Show nothing but errors.", OUTPUT, aliases=("-q",), negative="")
    verbose: bool = setting(False, "Say more, and show tracebacks.", OUTPUT, aliases=("-v",), negative="")

    @property
    def films_between(self) -> bool:
        """Whether the film goes from one picture to another."""
        return self.film_to is not None or self.film_to_seed is not None

    def opened(self) -> Opened:
        """The model and all add-ons that are asked for.

        Raises:
            CheckpointError: one of the files is missing, unreadable or refused.
        """
        from sdscratch.generation.opening import open_all

        return open_all(
            self.model,
            tokenizer=self.tokenizer,
            lora=self.lora,
            vae=self.vae,
            taesd=self.taesd,
            embedding=self.embedding,
        )

    def check_machine(self) -> None:
        """Check the names of device and precision, and how LoRAs are asked for.

        Raises:
            UsageError: one makes no sense.
        """
        check_placement(self.device, self.dtype)
        for text in self.lora:
            parse_lora(text)

    def check_preview(self) -> None:
        """Check the preview's name.

        Raises:
            UsageError: its suffix is no picture's.
        """
        if self.preview is not None:
            from sdscratch.images import check_suffix  # not for the help alone

            check_suffix(Path(self.preview))

    def generate_options(self, typed: Mapping[str, Any]) -> GenerateOptions:
        """What was asked of the picture, checked.

        Args:
            typed: fields of `GenerateOptions`.

        Raises:
            UsageError: a value out of its range, or options that do not go together.
        """
        self.check_machine()
        self.check_preview()
        if self.preview is None and self.taesd is not None and typed.get("decoder") != "tiny":
            raise UsageError(
                "--taesd draws with --decoder tiny and in --preview, and neither is asked for; add one"
            )
        check_film_options(self)
        if self.output == "-" and self.sidecar:
            raise UsageError("--sidecar writes beside a file, so it does not go with --output -")
        if self.output == "-" and self.json:
            raise UsageError("--output - and --json both write to stdout; give one of them")
        return GenerateOptions(**sized({**typed, "size": self.size}))


def with_arguments(without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command that takes `**given` an option for every field of `GenerateOptions` and `Arguments`.

    Args:
        without: fields that the command has in another form, or no use for.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        shared = [*parameters_of(GenerateOptions, without), *parameters_of(Arguments, without)]
        with_parameters(command, shared)
        said = settings_of(GenerateOptions) | settings_of(Arguments)
        command.alone = {  # type: ignore[attr-defined]
            option_name(name): about.alone for name, about in said.items() if about.alone is not None
        }
        return command

    return decorate


def split(given: Mapping[str, Any]) -> tuple[dict[str, Any], Arguments]:
    """What a command was given: fields of `GenerateOptions` as far as they were typed, and the rest."""
    typed = typed_values(given)
    names = {each.name for each in fields(Arguments)}
    others = {name: typed.pop(name) for name in names & typed.keys()}
    return typed, Arguments(**others)
