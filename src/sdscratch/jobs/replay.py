"""Pictures drawn again from what they say of themselves: as lines of a plan, with the files that are here.

What a picture says (`ours`, `theirs`) becomes a line; what the line names is looked for (`finding`); what is
asked for besides comes on top. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from sdscratch.addons.requests import TAG, LoraRequest
from sdscratch.checkpoints.hashing import AUTOV2, hash_files
from sdscratch.checkpoints.places import find_lora, known_embeddings
from sdscratch.diffusion.spacing import has_spacing
from sdscratch.errors import CheckpointError, ImageError, UsageError
from sdscratch.images import ControlRecord, Record, Records, read_records
from sdscratch.jobs.finding import Found, Library, Wanted, find_picture, named_only
from sdscratch.jobs.options import LINE, line_values
from sdscratch.jobs.ours import told_by_record
from sdscratch.jobs.plan import Job, job_of
from sdscratch.jobs.theirs import TOOLS, Told, tagged, told_by, without_suffix
from sdscratch.jobs.wildcards import Expander
from sdscratch.options import ResolvedOptions, changed, random_seed
from sdscratch.settings import kind_of
from sdscratch.show import printable

__all__ = ["Recipe", "Replay", "parse_sets", "prepare", "read_recipe"]

FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Recipe:
    """What a picture says of how it was made.

    Attributes:
        source: the picture.
        tool: which tool says it: a name of `TOOLS`, or sdscratch.
        records: all that is said.
    """

    source: Path
    tool: str
    records: Records

    @property
    def record(self) -> Record | None:
        """Our own record, where that is what it says."""
        return self.records.record

    @property
    def like(self) -> str:
        """The tool that it is drawn like, unless another is asked for."""
        return TOOLS[self.tool][0]["like"] if self.record is None else self.record.options.like

    def files(self) -> list[Wanted]:
        """Every file that the picture names."""
        told = self.told()
        single = [each for each in (told.model, told.vae, told.taesd) if each is not None]
        loras = [wanted for _, wanted in (*told.loras, *tagged(told))]
        controls = [wanted for each in told.controls for wanted in control_files(each)]
        return [*single, *loras, *told.embeddings, *controls]

    def told(self, like: str | None = None) -> Told:
        """The same as a line, drawn like another tool if that is asked for."""
        if self.record is not None:
            return told_by_record(self.record, like)
        assert self.records.infotext is not None
        return told_by(self.tool, self.records.infotext, like)


def read_recipe(source: Path) -> Recipe:
    """What a picture says.

    Raises:
        ImageError: it is no picture, or says nothing of how it was made.
        CheckpointError: nothing that can be drawn from.
    """
    records = read_records(source)
    if records.tool is None:
        raise CheckpointError(
            f"{printable(source)} does not say how it was made; nothing can be drawn from it"
        )
    if records.record is None and (records.tool not in TOOLS or not _says_enough(records)):
        raise CheckpointError(f"{printable(source)} does not say enough of how it was made to draw it again")
    return Recipe(source, records.tool, records)


def _says_enough(records: Records) -> bool:
    text = records.infotext
    return text is not None and bool(text.prompt or text.parameters)


def parse_sets(texts: Sequence[str]) -> dict[str, Any]:
    """What `--set KEY=VALUE` asks for, by field of a line.

    Raises:
        UsageError: another form, a key that nothing is called, or a value of another type.
    """
    hints = get_type_hints(LINE)
    said: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or not name:
            raise UsageError(f"--set is {text!r}, but must be KEY=VALUE, like steps=30")
        if get_origin(hint := kind_of(hints.get(name, str))) is tuple:
            said.setdefault(name, []).append(value)
        else:
            said[name] = FLAGS.get(value.lower(), value) if hint is bool else value
    return line_values(said, "--set")


@dataclass(frozen=True)
class Replay:
    """One picture, ready to be drawn again.

    Attributes:
        line: the line of a plan that draws it.
        options: exactly those of the record, where nothing was asked for besides.
        differs: the names of what was asked to be otherwise.
        unmatched: what could not be matched, in words.
        by_name: files that were found by name alone, though the picture tells their hash.
    """

    recipe: Recipe
    line: Mapping[str, Any]
    options: ResolvedOptions | None
    differs: tuple[str, ...]
    unmatched: tuple[str, ...]
    by_name: tuple[str, ...]

    @cached_property
    def job(self) -> Job:
        """The line, checked.

        Raises:
            UsageError: it asks for what there is not.
        """
        place = str(self.recipe.source)
        job = job_of(1, place, self.plan_line, {}, random_seed(), Expander())
        return replace(job, options=changed(job.options, prompt=self.line["prompt"]))

    @property
    def plan_line(self) -> dict[str, Any]:
        """The line as plans take it: none goes without a prompt, and a blank is read as none."""
        return {**self.line, "prompt": self.line["prompt"] or " "}


def prepare(
    recipe: Recipe, library: Library, changes: Mapping[str, Any] | None = None, like: str | None = None
) -> Replay:
    """Find all that a picture names, and put on top what was asked for besides.

    Args:
        changes: fields of a line that are to be otherwise.
        like: a tool to draw like, instead of the one that made it.

    Raises:
        CheckpointError: a model or an add-on is not here.
        ImageError: the picture that it was drawn from is not here.
        UsageError: what is asked for does not go together.
    """
    changes = dict(changes or {})
    told = recipe.told(like)
    search = _Search(recipe, library, told)
    line = search.line(changes)
    if "scheduler" in line and not has_spacing(line["like"], line["scheduler"]):
        told.unmatched.append(f"Schedule type: {line.pop('scheduler')}, which {line['like']} has not")
    line["wildcards"] = False  # they had their turn
    before = dict(line)
    sides = {"width", "height", "size"}
    if "size" in changes:
        line = {key: value for key, value in line.items() if key not in sides}
    line |= changes
    differs = [name for name in changes if before.get(name) != changes[name]]
    if like not in (None, recipe.like):
        differs.append("like")
    options = None
    if told.exact is not None and not differs:
        options = replace(told.exact, prompt=line["prompt"], negative_prompt=line["negative_prompt"])
    return Replay(recipe, line, options, tuple(differs), tuple(told.unmatched), tuple(search.by_name))


class _Search:
    """One picture's files looked for."""

    def __init__(self, recipe: Recipe, library: Library, told: Told) -> None:
        self.recipe, self.library, self.told = recipe, library, told
        self.by_name: list[str] = []

    def line(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The line with every file in it, but for those that are to be others."""
        told = self.told
        line = dict(told.values)
        if "model" not in changes:
            line["model"] = self.model()
        if told.vae is not None and "vae" not in changes:
            line["vae"] = self.found(told.vae).path
        if told.taesd is not None and "taesd" not in changes:
            line["taesd"] = self.found(told.taesd).path
        if "lora" not in changes:
            self.add_loras(line)
        if "embedding" not in changes:
            self.add_embeddings(line)
        if told.controls and "control" not in changes:
            line["control"] = [self.control(each) for each in told.controls]
        if told.from_picture and "init_img" not in changes:
            line["init_img"] = str(self.init())
        if told.mask_hash is not None and "mask" not in changes:
            line["mask"] = str(self.mask(told.mask_hash))
        return line

    def model(self) -> str:
        if self.told.model is None:
            raise CheckpointError(
                f"{printable(self.recipe.source)} does not name its model; name one by --set model=FILE"
            )
        return self.found(self.told.model).path

    def found(self, wanted: Wanted) -> Found:
        found = self.library.find(wanted)
        if found is None:
            raise CheckpointError(
                f"{printable(self.recipe.source)} was drawn with the {wanted}, which is not here; name its "
                f"folder by --look-in, or another file by --set {wanted.kind}=FILE"
            )
        note = named_only(wanted, found)
        if note is not None and note not in self.by_name:
            self.by_name.append(note)
            self.told.unmatched.append(note)
        return found

    def add_loras(self, line: dict[str, Any]) -> None:
        """LoRAs beside the prompt; and those of its tags, where a tag alone would find another file."""
        given = [_spelled(request, self.found(wanted).path) for request, wanted in self.told.loras]
        tags = [(request, wanted, self.found(wanted)) for request, wanted in tagged(self.told)]
        if not all(_finds(request, found) for request, _, found in tags):
            given += [_spelled(request, found.path) for request, _, found in tags]
            line["prompt"] = TAG.sub("", line["prompt"])
        if given:
            line["lora"] = given

    def add_embeddings(self, line: dict[str, Any]) -> None:
        """Textual inversions that are not where prompts find them; one of another name is called by that."""
        known = {name.casefold(): path for name, path in known_embeddings().items()}
        given = []
        for wanted in self.told.embeddings:
            found = self.found(wanted)
            here = known.get(wanted.name.casefold())
            if here is not None and here.resolve() == Path(found.path).resolve():
                continue
            given.append(found.path)
            stem = without_suffix(found.path)
            if stem.casefold() != wanted.name.casefold():
                word = re.compile(rf"(?<!\w){re.escape(wanted.name)}(?!\w)", re.IGNORECASE)
                for prompt in ("prompt", "negative_prompt"):
                    line[prompt] = word.sub(stem.replace("\\", r"\\"), line[prompt])
        if given:
            line["embedding"] = given

    def control(self, each: ControlRecord) -> str:
        """A control as the option takes it, its file and its hint found by their hashes."""
        source = self.recipe.source
        file, *encoders = [self.found(wanted).path for wanted in control_files(each)]
        background = self.told.values.get("background", "white")
        folders = _folders(source, self.library.look_in)
        path = find_picture(each.image, folders, background, each.preprocess)
        if path is None:
            raise ImageError(
                f"the picture that the control {printable(each.name)} of {printable(source)} followed is not "
                "beside it, not here, nor in a folder given by --look-in"
            )
        return spelled_control(each, file, str(path), *encoders)

    def mask(self, digest: str) -> Path:
        source = self.recipe.source
        path = find_picture(digest, _folders(source, self.library.look_in), whole=True)
        if path is None:
            raise ImageError(
                f"the mask of {printable(source)} is not beside it, not here, nor in a folder given by "
                "--look-in; name it by --set mask=FILE"
            )
        return path

    def init(self) -> Path:
        source = self.recipe.source
        if self.told.init_hash is None:
            raise ImageError(
                f"{printable(source)} was drawn from a picture that it does not name; name it by "
                "--set init_img=FILE"
            )
        background = self.told.values.get("background", "white")
        folders = _folders(source, self.library.look_in)
        path = find_picture(self.told.init_hash, folders, background, whole=self.told.masked)
        if path is None:
            raise ImageError(
                f"the picture that {printable(source)} was drawn from is not beside it, not here, nor in a "
                "folder given by --look-in; name it by --set init_img=FILE"
            )
        return path


def control_files(each: ControlRecord) -> list[Wanted]:
    """A control's file, and an IP-Adapter's image encoder behind it."""
    own = Wanted("control", each.name, (each.hash,))
    return [own] if each.encoder is None else [own, Wanted("control", "image_encoder", (each.encoder,))]


def spelled_control(each: ControlRecord, file: str, image: str, encoder: str | None = None) -> str:
    """A control as `--control` has it."""
    items = [file, f"image={image}", f"weight={each.weight!r}", f"start={each.start!r}", f"end={each.end!r}"]
    items += [f"mode={each.mode}", *([f"preprocess={each.preprocess}"] if each.preprocess else [])]
    items += [f"encoder={encoder}"] if encoder else []
    return ",".join(item.replace(",", ",,") for item in items)


def _folders(source: Path, look_in: Sequence[Path]) -> Iterator[Path]:
    yield source.parent
    yield Path()
    for folder in look_in:
        yield folder
        yield from (path for path in sorted(folder.rglob("*")) if path.is_dir())


def _finds(request: LoraRequest, found: Found) -> bool:
    """Whether the tag, as it stands, finds that very file."""
    try:
        here = find_lora(request.name)
    except CheckpointError:
        return False
    if found.by == "hash" and Path(found.path).resolve() != here.resolve():
        return hash_files([here])[:AUTOV2] == hash_files([Path(found.path)])
    return True


def _spelled(request: LoraRequest, path: str) -> str:
    """A LoRA as the option takes it."""
    items = [f"te={_number(request.weight)}"]
    if request.unet_weight is not None:
        items.append(f"unet={_number(request.unet_weight)}")
    if request.blocks is not None:
        items.append(f"lbw={','.join(map(_number, request.blocks))}")
    items += [f"start={request.start}"] if request.start else []
    items += [f"stop={request.stop}"] if request.stop is not None else []
    return ":".join([path, *items])


def _number(value: float) -> str:
    return repr(float(value))
