"""The files that a picture names, looked for, as the words of a line. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdscratch.addons.requests import TAG, LoraRequest
from sdscratch.checkpoints.hashing import AUTOV2, hash_files
from sdscratch.checkpoints.places import find_lora, known_embeddings
from sdscratch.errors import CheckpointError, ImageError
from sdscratch.images import ControlRecord
from sdscratch.jobs.finding import Found, Library, Wanted, find_picture, named_only
from sdscratch.jobs.theirs import Told, tagged, without_suffix
from sdscratch.show import printable

__all__ = ["Search", "control_files"]


class Search:
    """One picture's files looked for.

    Args:
        source: the picture.
        told: what it says.

    Attributes:
        by_name: notes of files that were found by name alone, though the picture tells their hash.
    """

    def __init__(self, source: Path, library: Library, told: Told) -> None:
        self.source, self.library, self.told = source, library, told
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
        if told.upscaler is not None and told.upscales not in changes:
            line[told.upscales] = self.found(told.upscaler).path
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
                f"{printable(self.source)} does not name its model; name one by --set model=FILE"
            )
        return self.found(self.told.model).path

    def found(self, wanted: Wanted) -> Found:
        found = self.library.find(wanted)
        if found is None:
            option = self.told.upscales if wanted.kind == "upscaler" else wanted.kind
            raise CheckpointError(
                f"{printable(self.source)} was drawn with the {wanted}, which is not here; name its "
                f"folder by --look-in, or another file by --set {option}=FILE"
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
        source = self.source
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
        source = self.source
        path = find_picture(digest, _folders(source, self.library.look_in), whole=True)
        if path is None:
            raise ImageError(
                f"the mask of {printable(source)} is not beside it, not here, nor in a folder given by "
                "--look-in; name it by --set mask=FILE"
            )
        return path

    def init(self) -> Path:
        source = self.source
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
