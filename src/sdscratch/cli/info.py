"""`info`: what a model, an add-on or a picture is, without running it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sdscratch.cli.info_files import file_words, files_named
from sdscratch.errors import ImageError, UsageError
from sdscratch.show import escaped, printable

__all__ = ["info"]

WIDTH, LABEL = 80, 16  # columns
MISFITS = 5  # that are told by name

PICTURE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}

PARTS = {"text": "text encoder", "unet": "U-Net", "encoder": "VAE encoder", "decoder": "VAE decoder"}
LAYOUTS = {"ldm": "one file, LDM's names", "diffusers": "diffusers folder"}
PREDICTIONS = {"epsilon": "the noise (epsilon)", "v": "the velocity (v)"}

TOOLS = {  # in their own spelling
    "a1111": "AUTOMATIC1111's web UI (or one that writes as it does)",
    "forge": "Stable Diffusion WebUI Forge",
    "comfyui": "ComfyUI",
    "diffusers": "a program on diffusers",
    "kohya": "kohya's gen_img.py",
    "sdcpp": "stable-diffusion.cpp",
    "invokeai": "InvokeAI",
    "novelai": "NovelAI",
    "fooocus": "Fooocus",
    "drawthings": "Draw Things",
}
LONGEST_TEXT = 10_000  # characters of a text that no tool is known by, in JSON
LONGEST_SHOWN = 300  # the same for people

Row = tuple[str, str]


def info(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="File to describe: a model (a folder, a name or default, too), an add-on, or a picture.",
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="MODEL",
            help="Model that an add-on should fit: what of it would not is listed.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Argument(metavar="[OUT]", help="With --preprocess: the picture to write.", show_default=False),
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(
            "--preprocess",
            metavar="NAME",
            help="Preprocessor that makes a control's hint of the picture FILE, written to OUT: "
            "canny, invert, blur, threshold, scribble, shuffle, tile or inpaint.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT where it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show tracebacks.")] = False,
) -> None:
    """Say what FILE is: a model, an add-on, or a picture and how it was made.

    Examples:

      sdscratch info default

      sdscratch info v1-5-pruned-emaonly.safetensors --json

      sdscratch info outputs/0001-42.png

      sdscratch info --preprocess canny photo.png edges.png
    """
    if preprocess is not None:
        write_hint(preprocess, file, out, overwrite=overwrite)
        return
    if out is not None:
        raise UsageError("OUT is written with --preprocess alone; say --preprocess NAME FILE OUT")
    path = find(file)
    if is_picture(path):
        facts = picture_facts(path)
        facts["files"] = files_named(path, verbose)
        rows = picture_rows(facts)
    else:
        from sdscratch.addons.describe import describe

        facts = describe(path, against)
        rows = model_rows(facts) if "parts" in facts else file_rows(facts)
    if as_json:
        print(json.dumps({"path": str(path), **facts}))
    else:
        show(("file", str(path)), *rows)


def write_hint(preprocess: str, file: str, out: str | None, *, overwrite: bool) -> None:
    """Make a control's hint of a picture, as `--control …,preprocess=NAME` would at its size, and save it.

    Raises:
        UsageError: no such preprocessor, no OUT, or one that exists.
        ImageError: the picture is missing or unreadable.
    """
    from sdscratch.files import refuse_existing
    from sdscratch.images import check_suffix, save_picture
    from sdscratch.images.hints import make_hint, parse_preprocessor, read_hint

    parse_preprocessor(preprocess)
    if out is None:
        raise UsageError("OUT is missing: the picture to write; say --preprocess NAME FILE OUT")
    path = Path(out)
    check_suffix(path)
    if not overwrite:
        refuse_existing(path)
    save_picture(make_hint(read_hint(file, preprocess), preprocess), path, overwrite=overwrite)
    print(out)


def find(name: str) -> Path:
    """What is meant by `name` on this machine.

    Raises:
        ImageError: it looks like a picture's name, and is not there.
        CheckpointError: it is nowhere.
    """
    from sdscratch.checkpoints.peft import weights_in
    from sdscratch.checkpoints.places import find_local, missing

    path = find_local(name)
    if path is not None:
        return (weights_in(path) if path.is_dir() else None) or path
    if Path(name).suffix.lower() in PICTURE_SUFFIXES:
        raise ImageError(f"there is no picture {printable(name)}; check its name")
    raise missing(name)


def is_picture(path: Path) -> bool:
    """Whether the file begins like a picture, whatever its name."""
    try:
        with path.open("rb") as file:
            return file.read(8).startswith(PICTURE_STARTS)
    except OSError:  # a folder; or unreadable, which is said better later
        return False


def picture_facts(path: Path) -> dict[str, Any]:
    """Size, and how the picture was made, as it says itself."""
    from sdscratch.images import read_picture, read_records

    width, height = read_picture(path).size
    records = read_records(path)
    infotext = records.infotext or records.beside
    facts: dict[str, Any] = {
        "kind": "image",
        "what": "a picture",
        "width": width,
        "height": height,
        "tool": records.tool,
        "record": None if records.record is None else json.loads(records.record.to_json()),
        "infotext": None
        if infotext is None
        else asdict(infotext) | {"parameters": dict(infotext.parameters)},
    }
    if records.tool is None:
        facts["texts"] = {name: text[:LONGEST_TEXT] for name, text in records.texts.named()}
    if records.texts.left_out:
        facts["left_out"] = list(records.texts.left_out)
    return facts


def picture_rows(facts: Mapping[str, Any]) -> Iterator[Row]:
    """A picture's facts as lines."""
    yield "what", f"{facts['what']} of {facts['width']}×{facts['height']} pixels"
    if facts["record"] is not None:
        record = dict(facts["record"])
        yield from record.pop("options").items()
        yield from record.items()
    elif facts["infotext"] is not None:
        text = facts["infotext"]
        yield "made by", TOOLS.get(facts["tool"], facts["tool"])
        yield "prompt", text["prompt"]
        yield "negative", text["negative_prompt"]
        yield from text["parameters"].items()
    else:
        yield "record", "none: it does not say how it was made"
        for name, text in facts["texts"].items():
            yield "text", f"{name}, no image generator's: {text[:LONGEST_SHOWN]}"
    for file in facts["files"]:
        yield file["kind"], file_words(file)
    for what in facts.get("left_out", ()):
        yield "left out", what


def model_rows(facts: Mapping[str, Any]) -> Iterator[Row]:
    """A model's facts as lines."""
    config, defaults = facts["config"], facts["defaults"]
    yield "what", facts["what"]
    yield "layout", LAYOUTS[facts["layout"]]
    yield "size", size(facts["bytes"])
    yield "hash", facts["hash"]
    yield "parameters", f"{facts['parameters']:,}"
    for part, label in PARTS.items():
        yield f"  {label}", amount(facts["parts"][part])
    yield "predicts", PREDICTIONS[config["schedule"]["prediction"]]
    spacing = f", {defaults['scheduler']}" if defaults["scheduler"] else ""
    yield (
        "defaults",
        f"{defaults['width']}×{defaults['height']}, {defaults['steps']} steps, "
        f"scale {defaults['cfg_scale']:g}, {defaults['sampler']}{spacing}",
    )
    yield "tokenizer", "inside" if facts["tokenizer"] else "none inside; CLIP's is looked for elsewhere"
    yield "averages", "inside (convert-weights --ema takes them)" if facts["ema"] else "none (EMA)"
    if facts["what"] != "a Stable Diffusion 1.x model":
        for part, values in config.items():
            for each in values if isinstance(values, list) else [values]:  # text encoders may be several
                yield part, ", ".join(f"{name} {plain(value)}" for name, value in each.items())
    if facts["dropped"]:
        yield "besides", f"{len(facts['dropped'])} entries that no picture needs"


def file_rows(facts: Mapping[str, Any]) -> Iterator[Row]:
    """An add-on's facts as lines, or those of any other file of tensors."""
    yield "what", facts["what"] + (f" (by {printable(facts['told_by'])})" if facts["told_by"] else "")
    if "lora" in facts:
        yield from lora_rows(facts["lora"], peft="PEFT" in facts["what"])
        yield from training_rows(facts["training"])
    if "embedding" in facts:
        embedding = facts["embedding"]
        yield "in a prompt", printable(embedding["name"])
        yield "vectors", f"{embedding['vectors']} of {embedding['width']}, for {embedding['made_for']}"
    if "control" in facts:
        yield from ((key.replace("_", " "), plain(value)) for key, value in facts["control"].items())
    if "upscaler" in facts:
        upscaler = dict(facts["upscaler"])
        yield "names", f"{upscaler.pop('family')}'s"
        yield "enlarges", f"{upscaler.pop('scale')} times"
        yield "network", ", ".join(f"{name} {value}" for name, value in upscaler.items())
    if "misfits" in facts:
        told = [printable(text) for text in facts["misfits"]]
        more = f" and {len(told) - MISFITS} more (--json tells all)" if len(told) > MISFITS else ""
        yield "does not fit", ", ".join(told[:MISFITS]) + more if told else "nothing: all of it fits"
    if "hash" in facts:
        yield "AutoV2", facts["hash"]
    if "autov3" in facts:
        yield "AutoV3", facts["autov3"]
    if "format" in facts:
        yield "format", facts["format"]
    yield "size", size(facts["bytes"])
    if "tensors" in facts:
        yield "tensors", f"{facts['tensors']:,}"
        yield "parameters", amount(facts)
    told_already = ("ss_tag_frequency", "ss_bucket_info", "ss_dataset_dirs", "ss_datasets")
    for key, text in facts.get("metadata", {}).items():
        yield key, f"({len(text):,} characters)" if key in told_already else printable(text)


def lora_rows(lora: Mapping[str, Any], peft: bool) -> Iterator[Row]:
    """What a LoRA changes, as lines."""
    yield "network", lora["network"]
    yield "rank", ", ".join(map(str, lora["ranks"])) or "none"
    none = (
        "unknown: PEFT keeps it in adapter_config.json; the rank is taken" if peft else "none: it is the rank"
    )
    yield "alpha", ", ".join(f"{value:g}" for value in lora["alphas"]) or none
    yield "modules", str(lora["modules"])
    for part, count in lora["parts"].items():
        yield f"  {PARTS[part]}", str(count)
    for name, count in lora["embeddings"].items():
        yield "embedding", f"{printable(name)}, {count} vectors"
    if lora["unknown"]:
        yield "unknown", f"{len(lora['unknown'])} tensors, like {printable(lora['unknown'][0])}"


TRAINING = {
    "title": "title", "trigger": "trigger words", "base_model": "trained upon", "version": "version",
    "resolution": "resolution", "clip_skip": "clip skip", "steps": "steps", "epochs": "epochs",
}  # fmt: skip


def training_rows(training: Mapping[str, Any]) -> Iterator[Row]:
    """How a LoRA was trained, as lines."""
    for key, label in TRAINING.items():
        if key in training:
            yield label, printable(training[key])
    if "words" in training:
        yield (
            "trained words",
            ", ".join(f"{printable(word)} ({count})" for word, count in training["words"].items()),
        )


def size(count: int) -> str:
    """Bytes as people say them."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def amount(facts: Mapping[str, Any]) -> str:
    """How many parameters, and in which types."""
    return f"{facts['parameters']:,} in {', '.join(facts['dtypes'])}"


def plain(value: Any) -> str:
    """A setting as people write it: lists without brackets."""
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


def show(*rows: Row) -> None:
    """Lines of a label and a text; what does not fit goes on below."""
    for label, value in (map(escaped, row) for row in rows):
        head = f"{label} " if len(label) >= LABEL else label.ljust(LABEL)
        lines = textwrap.wrap(value, WIDTH - LABEL, break_on_hyphens=False) or [""]
        print(f"{head}{lines[0]}" if len(head) <= LABEL else f"{head}\n{' ' * LABEL}{lines[0]}")
        for line in lines[1:]:
            print(f"{' ' * LABEL}{line}")
