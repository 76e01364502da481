"""Whole files, mutated anywhere, and read as the commands read them: opened, told, loaded."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch

from faults import samples
from faults.headers import changed_records, changed_safetensors
from faults.hunt import Family
from faults.mutate import Mutation, changed_bytes, changed_json, changed_text, dumped, one_of
from sdscratch.addons.apply import with_loras
from sdscratch.addons.control import open_file
from sdscratch.addons.control_files import opened_files
from sdscratch.addons.describe import describe
from sdscratch.addons.embedding import read_embedding
from sdscratch.addons.requests import LoraRequest
from sdscratch.addons.upscaler import read_upscaler
from sdscratch.addons.vae import open_vae, with_vae
from sdscratch.checkpoints.model import ModelFiles, open_model
from sdscratch.errors import CheckpointError, ImageError, SdscratchError, TokenizerError, UsageError
from sdscratch.images.metadata.dialects import records_in
from sdscratch.images.metadata.texts import Texts
from sdscratch.jobs.journal import Journal, Shard, settled_names, settled_seed
from sdscratch.jobs.names import Template
from sdscratch.jobs.plan import Expander, Plan, job_of
from sdscratch.jobs.replay import TOOLS, Recipe
from sdscratch.jobs.tasks import Models, look_over
from sdscratch.options import GenerateOptions
from sdscratch.tensorfiles.reader import open_tensors
from sdscratch.text.reading import SYNTAXES, plan_prompt
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.text.wildcards.folders import Lists
from sdscratch.training.dataset.captions import read_captions
from sdscratch.training.run.config_file import read_config
from sdscratch.training.run.lora_options import LoraOptions
from support.checkpoints import TINY, ldm_tensors, self_contained, tiny_tokenizer, write_ldm

__all__ = ["families"]

CPU = torch.device("cpu")
WEIGHTS = one_of(*[changed_safetensors] * 2, *[changed_records] * 2, *[changed_bytes] * 2)


@cache
def base() -> ModelFiles:
    """The model that add-ons are opened for."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    return open_model(write_ldm(folder / "base.safetensors", ldm_tensors(TINY), self_contained(TINY)))


# --- weights --------------------------------------------------------------------------------------


def read_model(path: Path) -> None:
    """As `info` and drawing do."""
    describe(path)
    files = open_model(path)
    files.resolve(GenerateOptions(prompt="x"), 1)
    for part in files.parts:
        files.load(part, CPU, torch.float32)
    files.tokenizer.ids("a dog")


def read_lora(path: Path) -> None:
    """As `info` does, and put on a model."""
    json.dumps(describe(path))
    files = with_loras(base(), [LoraRequest(str(path), 0.7)])
    for change in files.changes:
        for weight in change.lora.modules:
            files.read(weight)


def read_one_embedding(path: Path) -> None:
    """Its vectors."""
    json.dumps(describe(path))
    embedding = read_embedding(path, TINY.text.width)
    embedding.vectors.sum()


def read_control(path: Path) -> None:
    """As a network."""
    json.dumps(describe(path))
    open_file(opened_files(path), base()).load(CPU, torch.float32)


def read_vae(path: Path) -> None:
    """In a model, as networks."""
    json.dumps(describe(path))
    files = with_vae(base(), open_vae(str(path), TINY.autoencoder))
    for part in ("encoder", "decoder"):
        files.load(part, CPU, torch.float32)


def read_one_upscaler(path: Path) -> None:
    """Upon a few pixels."""
    json.dumps(describe(path))
    network = read_upscaler(path, open_tensors(path)).load(CPU, torch.float32)
    with torch.inference_mode():
        network(torch.zeros(1, 3, 8, 8))


# --- texts ----------------------------------------------------------------------------------------


def as_text(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Its characters changed, or a byte."""
    if chance.random() < 0.15:
        return changed_bytes(chance, data, others)
    return changed_text(chance, data.decode(errors="replace")).encode(errors="surrogatepass")


def as_json(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Its tree changed, or its text."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return as_text(chance, data, others)
    return dumped(changed_json(chance, tree)) if chance.random() < 0.8 else as_text(chance, data, others)


def as_json_lines(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A line's tree changed, or the text."""
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    lines[at] = as_json(chance, lines[at] or b"{}", others)
    return b"\n".join(lines) if chance.random() < 0.8 else as_text(chance, data, others)


def read_journal(path: Path) -> None:
    """As a run that goes on, and `replay` of a sheet."""
    json.dumps(sorted(settled_names(path.parent)))
    json.dumps(Journal(path.parent, Shard()).done)


def read_record(path: Path) -> None:
    """Read, told in the web UIs' words, and as a line to be drawn again."""
    told_again(Texts(png={"sdscratch": path.read_bytes().decode("latin-1")}))


def read_infotext(path: Path) -> None:
    """The same of another tool's text, under the names that tools have for it."""
    text = path.read_bytes().decode(errors="replace")
    for key in ("parameters", "prompt", "Comment", "invokeai_metadata", "generation_data"):
        told_again(Texts(png={key: text}))
    told_again(Texts(exif={"UserComment": text}, xmp=text))


def one_sentence(refusal: UsageError) -> None:
    """A refusal that is not what the case is about is a sentence all the same."""
    if "\n" in str(refusal):
        raise AssertionError(f"no sentence: {refusal}")


def told_again(texts: Texts) -> None:
    """All that is made of a picture's texts."""
    records = records_in(texts)
    if records.record is not None:
        records.record.infotext()
        records.record.hash()
    if records.tool not in (*TOOLS, "sdscratch") or records.record is records.infotext is None:
        return
    recipe = Recipe(Path("x.png"), records.tool, records)
    recipe.files()
    for like in (None, "a1111"):
        values = dict(recipe.told(like).values)
        try:
            job = job_of(1, "x.png", {**values, "prompt": values["prompt"] or " "}, {}, 1, Expander())
            base().resolve(job.options, 1)
        except UsageError as refusal:  # what it asks for is not there, which is said of a line
            one_sentence(refusal)


def read_plan(path: Path) -> None:
    """As `run --dry-run` does."""
    models = Models()
    models.opened = lambda key: _opened()  # type: ignore[assignment]
    seen = 0

    def enough(task: object) -> None:
        nonlocal seen
        seen += 1
        if seen > 50:
            raise UsageError("enough")

    look_over(Plan(path, {"model": str(base().path)}, 5), models, Template(), enough)


@cache
def _opened() -> Any:
    from sdscratch.jobs.tasks import open_key

    return open_key((str(base().path), None, (), None, (), None))


def read_prompt(path: Path) -> None:
    """In every syntax, to ids."""
    text = path.read_bytes().decode(errors="replace").replace("\r", "")
    for syntax in SYNTAXES:
        try:
            plan_prompt(text, _tokenizer(), syntax, steps=10)
        except UsageError as refusal:
            one_sentence(refusal)


@cache
def _tokenizer() -> Tokenizer:
    return tiny_tokenizer()


def read_tokenizer(path: Path) -> None:
    """To ids."""
    if path.name == "metadata.json":
        Tokenizer.from_json(path.read_bytes().decode(errors="replace")).ids("a dog")
    else:
        Tokenizer.from_path(path).ids("a dog")


def families(folder: Path | None = None) -> dict[str, Family]:
    """Of every kind that is read."""
    work = folder or Path(tempfile.mkdtemp(prefix="faults-"))
    os.environ |= {"HOME": "", "XDG_CACHE_HOME": "", "XDG_DATA_HOME": ""}  # no home: nothing is remembered
    weights = {
        "checkpoints": (samples.models(), read_model, 2),
        "LoRAs": (samples.loras(work), read_lora, 3),
        "embeddings": (samples.embeddings(), read_one_embedding, 2),
        "ControlNets": (samples.controls(work), read_control, 2),
        "VAEs": (samples.vaes(), read_vae, 1),
        "upscalers": (samples.upscalers(), read_one_upscaler, 2),
    }
    found = {
        name: Family(seeds, WEIGHTS, read, (CheckpointError,), f"{name}/case", share=share)
        for name, (seeds, read, share) in weights.items()
    }
    texts: dict[str, tuple[Sequence[bytes], Mutation, Callable[[Path], object], type[Exception], str]] = {
        "journals": (
            samples.journals(),
            as_json_lines,
            read_journal,
            SdscratchError,
            "journal/journal.jsonl",
        ),
        "run.json": (
            [b'{"seed": 5}\n'],
            as_json,
            lambda path: settled_seed(path.parent),
            SdscratchError,
            "run/run.json",
        ),
        "records": (samples.records(), as_json, read_record, ImageError, "record.json"),
        "infotexts": (
            [each.encode() for each in samples.INFOTEXTS],
            one_of(as_json, as_text),
            read_infotext,
            ImageError,
            "text",
        ),
        "prompts": ([each.encode() for each in samples.PROMPTS], as_text, read_prompt, UsageError, "prompt"),
        "captions.jsonl": (
            _bytes(samples.CAPTIONS["metadata.jsonl"]),
            as_json_lines,
            _captions,
            SdscratchError,
            "data/metadata.jsonl",
        ),
        "captions.csv": (
            _bytes(samples.CAPTIONS["metadata.csv"]),
            as_text,
            _captions,
            SdscratchError,
            "data/metadata.csv",
        ),
        "train's TOML": (_bytes(samples.CONFIGS), as_text, _config, UsageError, "config.toml"),
    }
    for name, seed in samples.tokenizers().items():
        change = as_text if name.endswith(".txt") else as_json
        texts[f"tokenizers, {Path(name).name}"] = ([seed], change, read_tokenizer, TokenizerError, name)
    for name, seeds in samples.PLANS.items():
        change = as_json_lines if name.endswith("jsonl") else as_text
        texts[name] = (_bytes(seeds), change, read_plan, SdscratchError, f"plans/{name}")
    for name, seeds in samples.WILDCARDS.items():
        texts[f"wildcards, {name}"] = (
            _bytes(seeds),
            as_text,
            _wildcards,
            UsageError,
            f"wildcards-{name[-4:]}/{name}",
        )
    begins = frozenset({"os.mkdir", "open", "os.remove", "os.chmod"})  # a run makes its folder, if need be
    found |= {
        name: Family(
            seeds, mutate, read, (refusal,), place, may=begins if name == "run.json" else frozenset()
        )
        for name, (seeds, mutate, read, refusal, place) in texts.items()
    }
    return found


def _bytes(texts: Sequence[str]) -> list[bytes]:
    return [text.encode() for text in texts]


def _captions(path: Path) -> None:
    read_captions(path.parent, [path.name])


def _config(path: Path) -> None:
    read_config(path, "lora", LoraOptions)


def _wildcards(path: Path) -> None:
    from sdscratch.text.wildcards.expand import expand

    lists = Lists((path.parent,))
    for template in ("__**__", "{__*__|2$$__**__}"):
        expand(template, 1, lists)
