"""Latents as the sampler leaves them, each with the render that it should have become.

A decoder that has only seen encoded pictures meets others when it is used: what the U-Net draws lies a little
off them. So renders are noised as image-to-image does and sampled down again, under guidance, by the model's
own U-Net; what comes is near enough to the render that the render is what should be seen.

Sampling costs more than the step that learns from it. So latents are made in groups, of which the newest few
are drawn from, each latent several times, while new groups push out old ones. All of it is a function of
seed, step and index; groups are kept in a folder as well, for a run that goes on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sdscratch.diffusion.guidance import guided
from sdscratch.diffusion.sample import sample_to_end
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import make_sigma_schedule
from sdscratch.errors import SdscratchError
from sdscratch.files import atomic_write, make_folder
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import ScheduleConfig
from sdscratch.options import Defaults
from sdscratch.training.dataset.source import Source
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.rng import generator, seed_of
from sdscratch.training.tasks.diffusion import Diffusion, Words
from sdscratch.training.tasks.latents import Encode

__all__ = ["Example", "Redraw", "SampledLatents", "redrawing"]

GROUP = 16  # latents that are sampled together, at least; as many as a batch, where that is more
FIRST = 4  # groups that there are before the first step
NEWEST = 24  # groups that are drawn from
USES = 8  # how often a latent is seen, about, before new ones have pushed it out
# Of a batch: encoded renders, as image-to-image at little strength leaves them. With a quarter, what the
# decoder made of them fell to 25.3 dB in 1,500 steps.
CLEAN_SHARE = 0.5

# How many of 20 steps are left when a render is taken up again, and how often. Details are the U-Net's own
# from few steps on; the more there are, the less what comes lies where the render has it, and a decoder that
# is asked for the render then learns to blur.
LEFT = {2: 1, 3: 2, 4: 3, 5: 3, 6: 4, 7: 4, 8: 3, 9: 2, 10: 2, 11: 1, 12: 1}
OF_STEPS = 20

# (latents [n, c, h, w] as the U-Net sees them, captions, how many steps are left, rng) → latents
Redraw = Callable[[Tensor, Sequence[str], int, torch.Generator], Tensor]


def redrawing(
    model: Diffusion,
    schedule: ScheduleConfig,
    words: Words,
    defaults: Defaults,
    distributed: DistributedContext,
) -> Redraw:
    """Image-to-image on latents, with a model's own sampler, steps and guidance."""
    path = make_sigma_schedule(Schedule(schedule), defaults.sampler, defaults.scheduler, defaults.steps)

    @torch.no_grad()
    def redraw(latents: Tensor, captions: Sequence[str], left: int, rng: torch.Generator) -> Tensor:
        tail = path.tail(left * defaults.steps // OF_STEPS)

        def noise(sigma: float | None = None, next_sigma: float | None = None) -> Tensor:
            return torch.randn(latents.shape, generator=rng, device=latents.device)

        with distributed.autocast():
            prompt, negative = (Conditioning(model.text(words(texts))) for texts in (captions, [""]))
            denoise = guided(
                model.unet,
                tail,
                schedule.prediction,
                prompt=prompt,
                negative=negative,
                scale=defaults.cfg_scale,
            )
            x = latents + noise() * tail.sigmas[0]
            return sample_to_end(defaults.sampler, denoise, x, tail, noise).float()

    return redraw


@dataclass(frozen=True)
class Example:
    """Latents, as the U-Net sees them, with what should be seen in them."""

    latents: Tensor  # [n, c, h, w]
    pictures: Tensor  # [n, 3, H, W] in −1 to 1
    clean: int = 0  # how many of them, the first, were encoded only


class SampledLatents:
    """Examples for every step's indices: most of them sampled, the first few encoded only.

    Several threads may ask at once. Processes that share a batch make the same groups each: what one of them
    needs is random, and on a GPU a group takes a moment.

    Args:
        size: of a step's batch, over all processes.
        folder: where groups are kept.
    """

    def __init__(
        self,
        source: Source,
        encode: Encode,
        redraw: Redraw,
        device: torch.device,
        *,
        size: int,
        seed: int,
        folder: Path,
    ) -> None:
        self.source, self.encode, self.redraw, self.device = source, encode, redraw, device
        self.size, self.seed, self.folder = size, seed, folder
        self.clean = round(CLEAN_SHARE * size)
        self.group = max(GROUP, size)
        self.every = math.ceil(USES * self.group / max(size - self.clean, 1))  # steps between two groups
        self.groups: dict[int, Example] = {}
        self.lock = Lock()

    def __call__(self, step: int, indices: range) -> Example:
        """The examples at `indices` of step `step`'s batch."""
        encoded = range(indices.start, max(indices.start, min(indices.stop, self.clean)))
        parts = [self._encoded(step, encoded)] if encoded else []
        parts += [self._sampled(step, index) for index in range(encoded.stop, indices.stop)]
        return Example(
            torch.cat([part.latents for part in parts]),
            torch.cat([part.pictures for part in parts]),
            len(encoded),
        )

    def _encoded(self, step: int, indices: range) -> Example:
        pictures = self.source.batch(step, indices, self.device).pictures
        return Example(self.encode(pictures), pictures)

    def _sampled(self, step: int, index: int) -> Example:
        there = FIRST + step // self.every
        rng = random.Random(seed_of(self.seed, "sampled", step, index))
        index, row = rng.randrange(max(0, there - NEWEST), there), rng.randrange(self.group)
        with self.lock:
            if index not in self.groups:
                self._forget(there - NEWEST)
                self.groups[index] = self._group(index)
            group = self.groups[index]
        return Example(group.latents[row : row + 1], group.pictures[row : row + 1])

    def _group(self, index: int) -> Example:
        """A group, from its file or made, and kept."""
        # of indices that no step's batch has
        batch = self.source.batch(index, range(self.size, self.size + self.group), self.device)
        path = self._path(index)
        if path.is_file():
            return Example(self._read(path), batch.pictures)
        left = random.Random(seed_of(self.seed, "left", index)).choices(list(LEFT), list(LEFT.values()))[0]
        rng = generator(self.device, self.seed, "redrawn", index)
        latents = self.redraw(self.encode(batch.pictures), batch.captions, left, rng)
        make_folder(self.folder)
        with atomic_write(path, overwrite=True) as file:
            file.write(safetensors.torch.save({"latents": latents.cpu().contiguous()}))
        return Example(latents, batch.pictures)

    def _read(self, path: Path) -> Tensor:
        try:
            return safetensors.torch.load_file(path)["latents"].to(self.device)
        except (safetensors.SafetensorError, KeyError) as error:
            raise SdscratchError(f"{path} holds no latents; delete it, and it is made again") from error

    def _forget(self, before: int) -> None:
        """Drop the groups that no later step draws from, and their files."""
        for index in [each for each in self.groups if each < before]:
            del self.groups[index]
        for path in self.folder.glob("group-*.safetensors"):
            if path.name < self._path(max(before, 0)).name:
                path.unlink(missing_ok=True)

    def _path(self, index: int) -> Path:
        return self.folder / f"group-{index:06}.safetensors"
