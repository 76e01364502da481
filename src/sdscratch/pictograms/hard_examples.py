"""Hard-example weighting: what a model knows least is shown more often where training goes on from it.

What is known needs no more views, and what is not needs hundreds; a step's loss does not tell them apart.
What a model makes of nearly nothing but noise does, for there the caption alone says what to draw.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from sdscratch.diffusion.guidance import network_denoiser
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import make_sigma_schedule
from sdscratch.files import atomic_write
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import ScheduleConfig
from sdscratch.pictograms.composer import Composer
from sdscratch.pictograms.scenes import Scene, Thing
from sdscratch.pictograms.vocabulary import BEST_KNOWN, concepts
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.rng import generator
from sdscratch.training.tasks.diffusion import Diffusion, Words
from sdscratch.training.tasks.latents import Encode

__all__ = ["hard_example_weights", "kept_weights", "unexplained_variance"]

AT_ONCE = 64  # things

USUAL = 0.3  # about what remains unexplained of a thing that the judge recognises
STEEPNESS = 1.5
LEAST, MOST = 0.5, 5.0
KEPT = 2.0  # the best known are asked for most, and must not be forgotten while the others are learnt


@torch.no_grad()
def unexplained_variance(
    model: Diffusion,
    schedule: ScheduleConfig,
    composer: Composer,
    encode: Encode,
    words: Words,
    distributed: DistributedContext,
) -> dict[str, float]:
    """How much of each thing's looks its name does not tell the model: 0 for nothing, about 1 for all of it.

    At the last timestep the best estimate is the mean of all pictures with that caption (Karras et al. 2022,
    appendix B.3). So this is its squared error in the latent of the thing on white, as a share of the error
    that the mean of all things would have.
    """
    names = [each.name for each in concepts()]
    path = make_sigma_schedule(Schedule(schedule), "ddim", "trailing", 1)
    clean, errors = [], []
    for start in range(0, len(names), AT_ONCE):
        asked = names[start : start + AT_ONCE]
        latent = encode(composer.draw([Scene((Thing(name),)) for name in asked], distributed.device))
        rng = generator(distributed.device, "focus", start)
        noise = torch.randn(latent.shape, generator=rng, device=distributed.device)
        with distributed.autocast():
            told = Conditioning(model.text(words(asked)))
            denoise = network_denoiser(model.unet, path, schedule.prediction, told)
            estimate = denoise(latent + path.sigmas[0] * noise, path.sigmas[0]).float()
        clean.append(latent)
        errors.append((estimate - latent).square().flatten(1).mean(1))
    latents = torch.cat(clean)
    spread = (latents - latents.mean(0)).square().flatten(1).mean(1)
    return dict(zip(names, (torch.cat(errors) / spread).tolist(), strict=True))


def hard_example_weights(shares: Mapping[str, float]) -> dict[str, float]:
    """How often to show things of which so much is unexplained, where 1 is as often as without weights."""
    best_known = {each.name for each in concepts()[:BEST_KNOWN]}
    often = {name: min(max((share / USUAL) ** STEEPNESS, LEAST), MOST) for name, share in shares.items()}
    return {name: round(times * (KEPT if name in best_known else 1), 3) for name, times in often.items()}


def kept_weights(path: Path, measure: Callable[[], Mapping[str, float]]) -> dict[str, float]:
    """The weights that a run began with, from `path`; measured and kept there by a new run."""
    if not path.is_file():
        content = json.dumps(hard_example_weights(measure()), ensure_ascii=False, indent=0)
        with atomic_write(path, overwrite=True) as file:
            file.write(content.encode())
    weights: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return weights
