"""Everything that is measured of one model: on a folder of pictures, or on pictograms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL.Image import Image
from torch import Tensor

from sdscratch.checkpoints.places import cache_folder
from sdscratch.errors import UsageError
from sdscratch.evaluation.quality import Quality, evaluate, folder_batches
from sdscratch.files import make_folder
from sdscratch.generation.pipeline import Pipeline
from sdscratch.hardware import device_kind
from sdscratch.images import Record, read_picture, read_records, save_picture
from sdscratch.images.tensors import to_tensor
from sdscratch.options import GenerateOptions
from sdscratch.pictograms.agreement import Finding, agreement, prompts, summary
from sdscratch.pictograms.agreement import record as as_record
from sdscratch.pictograms.composer import Composer
from sdscratch.pictograms.crispness import Looks
from sdscratch.pictograms.judge import Classes, Judge, find_judge, load_judge
from sdscratch.pictograms.mixtures import FULL
from sdscratch.pictograms.pictograms import load_sprites
from sdscratch.pictograms.vocabulary import concepts
from sdscratch.training.dataset.folder import read_folder
from sdscratch.training.dataset.source import Batch

__all__ = ["Evaluation", "View"]


class View(Protocol):
    """Where the stages are shown; what enters a stage is told how many of its units are done."""

    def stage(
        self, name: str, total: float | None, unit: str = ""
    ) -> AbstractContextManager[Callable[[float], None]]:
        """Show a stage while the context lasts."""
        ...

    def note(self, text: str) -> None:
        """Show a line of text."""
        ...


@dataclass
class Evaluation:
    """The measurements of one model."""

    pipeline: Pipeline
    view: View
    batch_size: int
    seed: int
    quality: Quality | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)  # path and reason
    findings: list[Finding] = field(default_factory=list)
    classes: Classes | None = None  # that the judge knows
    looks: Mapping[str, Any] | None = None  # of pictures beside renders

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures: the model's own."""
        defaults = self.pipeline.files.defaults
        return defaults.width, defaults.height

    def on_folder(self, root: Path, limit: int | None = None) -> None:
        """Measure on the pictures of a folder, scaled and cropped to the model's size.

        Raises:
            ImageError: there is no such folder, or nothing in it to look at.
        """
        folder = read_folder(root).needs_some()
        self.skipped += [(each.path, each.reason) for each in folder.skipped]
        pictures = folder.pictures[:limit]
        self.measure(folder_batches(root, pictures, self.size, self.batch_size, self.skip), len(pictures))
        if self.quality is None:
            folder.without(dict(self.skipped)).needs_some()

    def skip(self, path: str, reason: str) -> None:
        """Remember a picture that could not be looked at, and say so."""
        self.skipped.append((path, reason))
        self.view.note(f"skipping {path}: {reason}")

    def on_pictograms(self, renders: int, count: int, judge: Path | None, folder: Path | None = None) -> None:
        """Measure on held-out renders, and the agreement of pictures with prompts.

        Args:
            renders: how many are looked at.
            count: how many prompts are drawn and judged.
            folder: of the drawn pictures.

        Raises:
            CheckpointError: the judge is missing, or of another vocabulary.
            UsageError: a picture in the folder is none of these.
            SdscratchError: what renders are made of is missing.
        """
        names = [concept.name for concept in concepts()]
        knows = load_judge(judge or find_judge(), names) if count else None
        if folder is not None:
            make_folder(folder)
        self.measure(self.renders(renders), renders)
        if knows is not None:
            self.compare(knows, count, folder)

    @cached_property
    def composer(self) -> Composer:
        """What draws renders, of the pictures' size."""
        return Composer(load_sprites(cache_folder()), self.size[0], FULL)

    def renders(self, count: int) -> Iterator[Batch]:
        """Held-out renders in batches."""
        held_out = self.composer.held_out(count, torch.device("cpu"))
        for start in range(0, count, self.batch_size):
            part = slice(start, start + self.batch_size)
            yield Batch(held_out.pictures[part], held_out.captions[part])

    def measure(self, batches: Iterator[Batch], count: int) -> None:
        """What autoencoder and U-Net make of pictures."""
        with self.view.stage("measuring", count, "img") as advance:
            for quality in evaluate(self.pipeline, batches, seed=self.seed):
                self.quality = quality
                advance(quality.pictures)

    def compare(self, judge: Judge, count: int, folder: Path | None) -> None:
        """Draw prompts and look at what came."""
        numbers = iter(range(1, count + 1))
        looks = Looks(judge)

        def draw(prompt: str, seed: int) -> Tensor:
            path = None if folder is None else folder / f"{next(numbers):04d}.png"
            picture = to_tensor(self.drawn(prompt, seed, path))
            looks.add(picture)
            return picture

        self.classes = judge.classes
        with self.view.stage("judging", count, "img") as advance:
            for finding in agreement(draw, judge, prompts(count, self.seed), seed=self.seed):
                self.findings.append(finding)
                advance(len(self.findings))
        self.looks = looks.beside(self.wanted(judge, count))

    def wanted(self, judge: Judge, count: int) -> Looks:
        """Renders of what as many other prompts ask for: no picture is compared with its own render."""
        scenes = [prompt.scene for prompt in prompts(count, self.seed + 1)]
        looks = Looks(judge)
        with self.view.stage("rendering", count, "img") as advance:
            for start in range(0, count, self.batch_size):
                looks.add(self.composer.draw(scenes[start : start + self.batch_size]))
                advance(len(looks.each))
        return looks

    def drawn(self, prompt: str, seed: int, path: Path | None) -> Image:
        """The picture of a prompt: from its file where it was drawn before, else drawn, and kept there.

        Raises:
            UsageError: the file is of another model or prompt.
            SdscratchError: it cannot be read, or written.
        """
        if path is None:
            return self.pipeline.txt2img(prompt, seed=seed)
        files, placement = self.pipeline.files, self.pipeline.placement
        record = Record(
            mode="txt2img",
            options=self.pipeline.resolve(GenerateOptions(prompt, seed=seed)),
            model=files.name,
            model_hash=files.hash(),
            dtype=placement.dtype_name,
            device=device_kind(placement.device),
        )
        if path.exists():
            # whatever the model is called, and whichever version drew it
            kept = read_records(path).record
            if kept is None or replace(kept, model=record.model, sdscratch=record.sdscratch) != record:
                raise UsageError(f"{path} is no picture of this model and {prompt!r}; name another folder")
            return read_picture(path)
        picture = self.pipeline.txt2img(prompt, seed=seed)
        save_picture(picture, path, record)
        return picture

    def facts(self) -> dict[str, Any]:
        """Everything that was found, as plain data."""
        quality, placement = self.quality, self.pipeline.placement
        assert quality is not None
        found: dict[str, Any] = {
            "device": device_kind(placement.device),
            "dtype": placement.dtype_name,
            "seed": self.seed,
            "pictures": quality.pictures,
            "width": self.size[0],
            "height": self.size[1],
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped],
            "autoencoder": {"psnr": quality.psnr, "ssim": quality.ssim},
            "denoising": {
                "prediction": quality.prediction,
                "loss": quality.loss,
                "by_timestep": [asdict(part) for part in quality.by_timestep],
            },
        }
        if self.classes is not None:
            found["agreement"] = summary(self.findings)
            found["looks"] = self.looks
            found["judged"] = [as_record(finding, self.classes) for finding in self.findings]
        return found
