"""What a line of a plan may say, and every command that draws: which model, and from which picture.

What the picture itself depends on besides is `options.ResolvedOptions`. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, make_dataclass
from typing import Any, get_type_hints

from sdscratch.addons.control_requests import parse_control
from sdscratch.checks import parse_size
from sdscratch.errors import UsageError
from sdscratch.options import MASKS, MAX_SEED, MODEL, PICTURE, Fit, GenerateOptions
from sdscratch.settings import check_ranges, kind_of, read_values, setting
from sdscratch.show import quoted

__all__ = ["HINTS", "LINE", "LineOptions", "line_values", "parse_size", "sized"]

WILDCARDS = "Wildcards"


LISTED = ("control", "lora")  # fields of which a line may say one, or a list
CONTROL = "Control"


@dataclass(frozen=True)
class LineOptions:
    """What is drawn with, and from."""

    size: str | None = setting(None, "Width and height at once, like 512x768.", PICTURE, metavar="WxH")
    batch_count: int = setting(1, "Number of pictures.", PICTURE, aliases=("-b", "--count"), low=1)
    init_img: str | None = setting(
        None,
        "Picture to start from, given as an option; the only argument is then PROMPT.",
        PICTURE,
        metavar="INIT",
        aliases=("-i",),
    )
    mask: str | None = setting(
        None,
        "Mask of what is repainted: a picture of INIT's size that is white (or opaque) there, or alpha, what "
        "is transparent in INIT. All other pixels stay as they are.",
        MASKS,
        metavar="FILE",
    )
    extend: str | None = setting(
        None,
        "Borders to add to INIT and paint, in pixels, like left=128,top=64 (right, bottom).",
        MASKS,
        metavar="SIDES",
    )
    strict: bool = setting(
        False, "Refuse a mask of another size than INIT's, which is resized else.", MASKS, negative=""
    )
    fit: Fit = setting(  # noqa: RUF009 (it makes a field)
        "cover",
        "Way in which INIT is brought to another size: cover crops, contain adds borders, stretch distorts.",
        PICTURE,
        metavar="HOW",
    )
    background: str = setting(
        "white", "Colour of borders, and under transparent parts.", PICTURE, metavar="COLOUR"
    )
    init_upscaler: str | None = setting(
        None,
        "Upscaler that brings INIT to the size, as upscale --redraw does: an upscaler's file or name, or a "
        "filter (lanczos, bicubic, nearest).",
        PICTURE,
        metavar="NAME|FILE",
        default="Lanczos' filter",
    )
    model: str = setting(
        "default",
        "Model to draw with: a .safetensors or .ckpt file, a diffusers folder, a name in ./weights, or a "
        "hub id.",
        MODEL,
        aliases=("-m", "--ckpt"),
        envvar="SDSCRATCH_MODEL",
        default="the built-in model",
    )
    tokenizer: str | None = setting(
        None,
        "Tokenizer to use: a folder with vocab.json and merges.txt, or a tokenizer.json.",
        MODEL,
        default="the model's own",
    )
    lora: tuple[str, ...] = setting(
        (),
        "LoRA to add: a file, or a name in ./loras or in loras of the user's data folder; "
        "1 is full strength; repeatable. In PROMPT: <lora:name:0.8>.",
        MODEL,
        metavar="FILE[:WEIGHT[:UNET_WEIGHT]]",
    )
    embedding: tuple[str, ...] = setting(
        (),
        "Textual inversion that PROMPT may name: a file, or a name in ./embeddings or in embeddings of the "
        "user's data folder; those need not be given. Repeatable.",
        MODEL,
        metavar="FILE",
    )
    vae: str | None = setting(
        None,
        "VAE to encode and decode with: a file, a diffusers folder, or a name in ./weights.",
        MODEL,
        metavar="FILE",
        default="the model's own",
    )
    taesd: str | None = setting(
        None,
        "Tiny autoencoder, which draws with --decoder tiny and in --preview: a file, a diffusers folder, or "
        "a name in ./weights.",
        MODEL,
        metavar="FILE",
        default="MODEL-taesd.safetensors beside the model, if it is there",
    )
    wildcards: bool | None = setting(
        None,
        "Expand wildcards in prompts before anything else: {a|b}, {2$$a|b|c}, __list__, ${variable}.",
        WILDCARDS,
        default="in plans only",
    )
    wildcard_seed: int | None = setting(
        None,
        "Seed of the wildcards' choices; picture i has it + i.",
        WILDCARDS,
        low=0,
        high=MAX_SEED,
        default="the picture's seed",
    )
    wildcard_folder: str | None = setting(
        None,
        "Folder with the lists that __name__ means: .txt, .json or .yaml. ./wildcards and wildcards in the "
        "user's data folder come after it.",
        WILDCARDS,
        metavar="FOLDER",
    )
    combinations: bool = setting(
        False, "Draw every combination of the wildcards, not one by chance.", WILDCARDS, negative=""
    )

    control: tuple[str, ...] = setting(
        (),
        "ControlNet or T2I-Adapter to steer by, and the picture that it follows: a file, a diffusers folder, "
        "or a name in ./controls or in controls of the user's data folder; preprocess= makes the hint of an "
        "ordinary picture (docs/control.md); a comma in a path is written twice. Repeatable.",
        CONTROL,
        metavar="FILE,image=PATH[,KEY=VALUE]",
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        for text in self.control:
            parse_control(text)


# Everything that a line may say: a value of this class is never made.
LINE: type[Any] = make_dataclass(
    "Line",
    [
        (each.name, get_type_hints(kind)[each.name], each)
        for kind in (GenerateOptions, LineOptions)
        for each in fields(kind)  # type: ignore[arg-type]  # made at run time
    ],
    kw_only=True,
)

HINTS = get_type_hints(LINE)


def line_values(record: Mapping[str, Any], place: str) -> dict[str, Any]:
    """A line's values by field, from text (CSV) or JSON and TOML; None and "" say nothing.

    Raises:
        UsageError: a key that nothing is called, or a value of another type.
    """
    said = {key: value for key, value in record.items() if value not in (None, "")}
    return read_values(LINE, {key: _from_text(key, value, place) for key, value in said.items()}, place)


def _from_text(key: str, value: Any, place: str) -> Any:
    """A value that was written as text, in its field's type; others, and unknown keys, as they are."""
    if key in LISTED and isinstance(value, str):
        return [value]
    hint = HINTS.get(key.replace("-", "_"))
    if not isinstance(value, str) or hint is None:
        return value
    kind = kind_of(hint)
    if kind is bool:
        if value.lower() not in ("true", "false"):
            raise UsageError(f"{place}: {key} is {quoted(value)}, but must be true or false")
        return value.lower() == "true"
    if kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise UsageError(f"{place}: {key} is {quoted(value)}, but must be {word}") from None
    return value


def sized(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with both sides in the place of `size`.

    Raises:
        UsageError: a size of another form, or beside a side.
    """
    size, rest = values.get("size"), {key: value for key, value in values.items() if key != "size"}
    if size is None:
        return rest
    if "width" in rest or "height" in rest:
        raise UsageError("--size says both sides, so it goes with neither --width nor --height")
    width, height = parse_size(size)
    return rest | {"width": width, "height": height}
