"""`evaluate`: how good a model is, on a folder of pictures or on the embedded model's own kind."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdscratch.cli.evaluation_tables import show
from sdscratch.cli.progress import View, make_view
from sdscratch.errors import UsageError
from sdscratch.files import make_folder
from sdscratch.options import MAX_SEED, check_placement

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdscratch.evaluation.quality import Quality
    from sdscratch.generation.pipeline import Pipeline
    from sdscratch.pictograms.agreement import Finding
    from sdscratch.pictograms.composer import Composer
    from sdscratch.pictograms.crispness import Looks
    from sdscratch.pictograms.judge import Classes, Judge
    from sdscratch.training.dataset.source import Batch

__all__ = ["evaluate"]

PICTOGRAMS = "pictograms"
RENDERS = 512  # of pictograms, where --limit says nothing


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A file, a folder, a name, or a hub id.")],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder of pictures with captions; or pictograms: renders of the embedded model's kind.",
        ),
    ],
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Look at so many pictures.", show_default=f"all; pictograms: {RENDERS}"),
    ] = None,
    prompts: Annotated[
        int, typer.Option(min=0, help="pictograms: how many prompts are drawn and judged.")
    ] = 1000,
    judge: Annotated[
        Path | None,
        typer.Option(
            help="pictograms: the judge that says what a picture shows, made by `make judge`.",
            show_default="the user's own, or the project's",
        ),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="pictograms: keep what is drawn in this folder, and take from it what was drawn before.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option("-s", "--seed", min=0, max=MAX_SEED - 2**32, help="Of noise, timesteps and prompts."),
    ] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="How many pictures at once.")] = 8,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 (a number), mps.")
    ] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16, float16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show nothing but the result.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more; show tracebacks.")] = False,
) -> None:
    """Measure MODEL on pictures with captions.

    What the autoencoder loses (PSNR, and SSIM of luma), and the U-Net's loss by timestep. On pictograms also
    how often pictures show what their prompts ask for, as a small classifier sees it, and how crisp they are
    beside renders: flat where it should be flat, sharp at edges.

    Examples:

      sdscratch evaluate model.safetensors photos/

      sdscratch evaluate model.safetensors photos/ --limit 64 --json

      sdscratch evaluate default pictograms --prompts 300 --pictures drawn/
    """
    check_placement(device, dtype)
    with make_view(quiet=quiet, verbose=verbose) as view:
        with view.stage("opening", None):
            from sdscratch.generation.pipeline import load

            pipeline = load(model, device=device, dtype=dtype)
        exam = Exam(pipeline, view, limit, batch_size, seed)
        if data == PICTOGRAMS:
            exam.on_pictograms(prompts, judge, pictures)
        else:
            exam.on_folder(Path(data))
        facts = {"model": model, "model_hash": pipeline.files.hash(), "data": data, **exam.facts()}
    print(json.dumps(facts)) if as_json else show(facts)


@dataclass
class Exam:
    """One command's measurements."""

    pipeline: Pipeline
    view: View
    limit: int | None
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

    def on_folder(self, root: Path) -> None:
        """Measure on the pictures of a folder, scaled and cropped to the model's size.

        Raises:
            ImageError: there is no such folder, or nothing in it to look at.
        """
        from sdscratch.evaluation.quality import folder_batches
        from sdscratch.training.dataset.folder import read_folder

        folder = read_folder(root).needs_some()
        self.skipped += [(each.path, each.reason) for each in folder.skipped]
        pictures = folder.pictures[: self.limit]
        self.measure(folder_batches(root, pictures, self.size, self.batch_size, self.skip), len(pictures))
        if self.quality is None:
            folder.without(dict(self.skipped)).needs_some()

    def skip(self, path: str, reason: str) -> None:
        """Remember a picture that could not be looked at, and say so."""
        self.skipped.append((path, reason))
        self.view.note(f"skipping {path}: {reason}")

    def on_pictograms(self, prompts: int, judge: Path | None, folder: Path | None = None) -> None:
        """Measure on held-out renders, and the agreement of pictures with prompts.

        Args:
            folder: of the drawn pictures.

        Raises:
            CheckpointError: the judge is missing, or of another vocabulary.
            UsageError: a picture in the folder is none of these.
            SdscratchError: what renders are made of is missing.
        """
        from sdscratch.pictograms.judge import find_judge, load_judge
        from sdscratch.pictograms.vocabulary import concepts

        names = [concept.name for concept in concepts()]
        knows = load_judge(judge or find_judge(), names) if prompts else None
        if folder is not None:
            make_folder(folder)
        count = self.limit or RENDERS
        self.measure(self.renders(count), count)
        if knows is not None:
            self.compare(knows, prompts, folder)

    @cached_property
    def composer(self) -> Composer:
        """What draws renders, of the pictures' size."""
        from sdscratch.checkpoints.places import cache_folder
        from sdscratch.pictograms.composer import Composer
        from sdscratch.pictograms.mixtures import FULL
        from sdscratch.pictograms.pictograms import load_sprites

        return Composer(load_sprites(cache_folder()), self.size[0], FULL)

    def renders(self, count: int) -> Iterator[Batch]:
        """Held-out renders in batches."""
        import torch

        from sdscratch.training.dataset.source import Batch

        held_out = self.composer.held_out(count, torch.device("cpu"))
        for start in range(0, count, self.batch_size):
            part = slice(start, start + self.batch_size)
            yield Batch(held_out.pictures[part], held_out.captions[part])

    def measure(self, batches: Iterator[Batch], count: int) -> None:
        """What autoencoder and U-Net make of pictures."""
        from sdscratch.evaluation.quality import evaluate as measured

        with self.view.stage("measuring", count, "img") as advance:
            for quality in measured(self.pipeline, batches, seed=self.seed):
                self.quality = quality
                advance(quality.pictures)

    def compare(self, judge: Judge, count: int, folder: Path | None) -> None:
        """Draw prompts and look at what came."""
        from sdscratch.images.tensors import to_tensor
        from sdscratch.pictograms.agreement import agreement, prompts
        from sdscratch.pictograms.crispness import Looks

        numbers = iter(range(1, count + 1))
        looks = Looks(judge)

        def draw(prompt: str, seed: int) -> Any:
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
        from sdscratch.pictograms.agreement import prompts
        from sdscratch.pictograms.crispness import Looks

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
        from sdscratch.images import Record, read_picture, read_records, save_picture
        from sdscratch.options import GenerateOptions

        if path is None:
            return self.pipeline.txt2img(prompt, seed=seed)
        files, placement = self.pipeline.files, self.pipeline.placement
        record = Record(
            mode="txt2img",
            options=self.pipeline.resolve(GenerateOptions(prompt, seed=seed)),
            model=files.name,
            model_hash=files.hash(),
            dtype=placement.dtype_name,
            device=placement.device.type,
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
            "device": placement.device.type,
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
            from sdscratch.pictograms.agreement import record, summary

            found["agreement"] = summary(self.findings)
            found["looks"] = self.looks
            found["judged"] = [record(finding, self.classes) for finding in self.findings]
        return found
