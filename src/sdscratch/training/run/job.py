"""What every `train` command does around its own networks: the source, the recipe, the loop, the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from sdscratch.device import choose
from sdscratch.errors import SdscratchError
from sdscratch.fast.processor import multiplies
from sdscratch.hardware import device_kind
from sdscratch.training.dataset.captions import COLUMNS
from sdscratch.training.dataset.folder_source import FolderSource, Framing, open_folder
from sdscratch.training.engine.distributed import DistributedContext, workers_for
from sdscratch.training.engine.gradient_checkpointing import recompute_blocks
from sdscratch.training.engine.loop import Show, train
from sdscratch.training.engine.metrics import METRICS, read_metrics
from sdscratch.training.engine.recipe import Budget, Recipe
from sdscratch.training.engine.step import Loss
from sdscratch.training.run.curve import draw_curve
from sdscratch.training.run.options import TrainOptions
from sdscratch.training.run.run_folder import SAMPLES, RunFolder
from sdscratch.version import __version__

__all__ = ["Job", "Work", "precision_of", "provenance", "recipe_of", "run_job", "source_of"]

LATENT = 8  # pixels that a latent position stands for, nearly everywhere
CURVE = "loss.png"
SKIPPED = "skipped.txt"  # pictures that could not be trained on, and why


@dataclass(frozen=True)
class Work:
    """What is trained, and what it becomes."""

    module: nn.Module
    loss: Loss
    validate: Callable[[Path], None]  # draws a grid of samples with the weights as they are
    save: Callable[[Path, Mapping[str, Any]], Path]  # into the run's folder, with provenance


class Job(Protocol):
    """One kind of training. Making one checks all that can be checked without reading any weights."""

    @property
    def options(self) -> TrainOptions:
        """What was asked."""
        ...

    @property
    def learning_rate(self) -> float:
        """Where none is asked for."""
        ...

    @property
    def framing(self) -> tuple[int, int]:
        """The resolution, and what sides must be multiples of."""
        ...

    def prepare(self, source: FolderSource, distributed: DistributedContext, size: int, folder: Path) -> Work:
        """Load and make everything; `size` is the number of a step's pictures."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What a run ended with."""

    path: Path
    steps: int
    loss: float


def precision_of(options: TrainOptions) -> tuple[torch.device, torch.dtype]:
    """Where to compute, and how exactly.

    In bfloat16 where it is the faster or was asked for, but never on a processor that does not multiply it:
    there a convolution takes a hundred times as long.

    Raises:
        DeviceError: the device is not there.
    """
    placement = choose(options.device)
    asked = options.mixed_precision
    half = asked == "bf16" or (asked == "auto" and placement.dtype == torch.bfloat16)
    half = half and (device_kind(placement.device) != "cpu" or multiplies(torch.bfloat16))
    return placement.device, torch.bfloat16 if half else torch.float32


def recipe_of(options: TrainOptions, rate: float, distributed: DistributedContext) -> Recipe:
    """The options as the loop takes them."""
    minutes = options.max_train_minutes
    averages = options.model is None if options.use_ema is None else options.use_ema
    return Recipe(
        Budget(options.max_train_steps, None if minutes is None else 60.0 * minutes),
        rate,
        batch=options.train_batch_size,
        accumulate=options.gradient_accumulation_steps,
        workers=options.workers or workers_for(distributed, options.train_batch_size),
        seed=options.seed,
        warm_up=options.lr_warmup_steps,
        decay=options.lr_scheduler,
        decay_from=options.lr_decay_from,
        betas=(options.adam_beta1, options.adam_beta2),
        eps=options.adam_epsilon,
        weight_decay=options.adam_weight_decay,
        clip=options.max_grad_norm,
        ema=options.ema_decay if averages else None,
        save_seconds=None,
        save_steps=options.checkpointing_steps,
        keep=options.checkpoints_total_limit,
        validation_steps=options.validation_steps,
    )


def source_of(options: TrainOptions, resolution: int, multiple: int, size: int) -> FolderSource:
    """The folder of pictures, read and checked.

    Raises:
        ImageError: it is not there, or holds nothing to train on.
        UsageError: the resolution does not suit the networks.
    """
    framing = Framing(
        resolution,
        size,
        options.seed,
        multiple,
        buckets=options.buckets,
        center_crop=options.center_crop,
        random_flip=options.random_flip,
    )
    return open_folder(
        Path(options.data),
        framing,
        captioned=options.needs_captions,
        validation=options.validation_share,
        columns=(options.caption_column,) if options.caption_column else COLUMNS,
    )


def provenance(options: TrainOptions, command: str, steps: int, pictures: int) -> dict[str, Any]:
    """Where a model comes from; no paths and no dates, so that the same run gives the same file."""
    return {
        "made_by": f"sdscratch {__version__} train {command}",
        "steps": steps,
        "pictures": pictures,
        "batch": options.train_batch_size * options.gradient_accumulation_steps,
        "resolution": options.resolution,
        "seed": options.seed,
    }


def run_job(
    job: Job,
    folder: RunFolder,
    source: FolderSource,
    distributed: DistributedContext,
    show: Show,
    record: Callable[[dict[str, float]], None],
) -> Outcome:
    """Train, and leave in the folder what a run leaves.

    Raises:
        SdscratchError: see `loop.train`.
    """
    options, path = job.options, folder.path
    recipe = recipe_of(options, options.learning_rate or job.learning_rate, distributed)
    if recipe.workers > 1:
        torch.set_num_threads(1)  # the workers share the work
    torch.manual_seed(options.seed)
    work = job.prepare(source, distributed, recipe.size(distributed.processes), path)
    if device_kind(distributed.device) == "cuda":
        work.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if options.gradient_checkpointing:
        recompute_blocks(work.module)

    def list_skipped() -> None:
        if distributed.leads and source.skipped:
            source.write_skipped(path / SKIPPED)

    def validate(step: int) -> None:
        work.validate(path / SAMPLES / f"step-{step:08}.png")

    list_skipped()
    steps = train(
        work.module,
        work.loss,
        recipe,
        path,
        distributed,
        positions=(job.framing[0] // LATENT) ** 2,
        resume=folder.checkpoint,
        show=show,
        validate=validate,
        record=record,
    )
    list_skipped()  # some are found to be broken when their turn comes
    records = read_metrics(path / METRICS)
    if distributed.leads:
        if not records:
            raise SdscratchError(f"{path} holds no metrics; nothing was trained")
        about = provenance(options, folder.command, steps, len(source.folder.pictures))
        saved = work.save(path, about)
        losses = [line["loss"] for line in records]
        draw_curve(path / CURVE, [line["step"] for line in records], losses, "loss")
        return Outcome(saved, steps, losses[-1])
    return Outcome(path, steps, float("nan"))
