"""The U-Net as a denoiser: in its own precision, as its device runs it best, guided by the prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdscratch.diffusion.approximations import deep_cached, guided_between
from sdscratch.diffusion.guidance import (
    Network,
    Predictor,
    Pull,
    by_evaluation,
    composed_predictor,
    conditioned,
    denoiser,
)
from sdscratch.diffusion.samplers import Denoiser
from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.fast.compute import Compute
from sdscratch.generation.conditioning import ToldPart
from sdscratch.generation.networks import Networks, dtype_of
from sdscratch.models.conditioning import Conditioning
from sdscratch.options import ResolvedOptions, parse_interval

__all__ = ["UNetRunner", "guides", "make_denoiser", "one_by_one", "sampler_options"]


class UNetRunner:
    """The U-Net from float32 to float32, recorded or compiled where that is faster."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks

    def network(self, deep_cache: int) -> Network:
        """The U-Net for one picture, or one batch: what `deep_cache` keeps belongs to it alone."""
        dtype = dtype_of(self.networks["unet"])
        compute = self.computation(deep_cache > 1)

        def run(x: Tensor, timesteps: Tensor, told: Conditioning, *deep: Tensor | None) -> tuple[Tensor, ...]:
            with torch.inference_mode():
                prediction, *features = compute(x.to(dtype), timesteps, told.to(dtype), *deep)
                return prediction.float(), *features

        if deep_cache > 1:
            return deep_cached(run, deep_cache)
        return lambda x, timesteps, told: run(x, timesteps, told)[0]

    def computation(self, deep: bool) -> Compute:
        """The U-Net as this device runs it best, with its deep features or without."""
        return self.networks.computation("unet", "predict" if deep else "forward")


def make_denoiser(
    runner: UNetRunner,
    path: SigmaSchedule,
    options: ResolvedOptions,
    prompt: Sequence[ToldPart],
    negative: Sequence[ToldPart],
    count: int,
) -> Denoiser:
    """The denoiser of `count` pictures.

    Args:
        prompt: its parts.
        negative: the negative prompt's one part; nothing where `guides` says that it is not asked for.
    """
    placement, prediction = runner.networks.placement, runner.networks.files.config.schedule.prediction

    def denoise_at(network: Network, scale: float) -> Denoiser:
        def predictor(evaluation: int) -> Predictor:
            pulls = [Pull(part.at(evaluation), part.weight) for part in prompt]
            if not negative:
                return conditioned(network, pulls[0].prompt)
            return composed_predictor(network, pulls, negative[0].at(evaluation), scale)

        changes = any(part.changes for part in (*prompt, *negative))
        return denoiser(by_evaluation(predictor) if changes else predictor(0), path, prediction)

    def one() -> Denoiser:
        """For one picture, or one batch: approximations keep what they have seen of it."""
        network = runner.network(options.deep_cache)
        whole = denoise_at(network, options.cfg_scale)
        if options.cfg_interval is None or not negative:
            return whole
        return guided_between(*parse_interval(options.cfg_interval), whole, denoise_at(network, 1.0))

    return one() if placement.batches else one_by_one([one() for _ in range(count)])


def guides(options: ResolvedOptions, prompt: Sequence[ToldPart]) -> bool:
    """Whether the negative prompt plays a part: above scale 1, and where the prompt is not one text alone."""
    return options.cfg_scale > 1.0 or len(prompt) > 1 or prompt[0].weight != 1.0


def one_by_one(denoisers: Sequence[Denoiser]) -> Denoiser:
    """A denoiser that runs pictures one after another, each by its own, so that none depends on its batch."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        pictures = zip(denoisers, x.split(1), strict=True)
        return torch.cat([one(picture, sigma) for one, picture in pictures])

    return denoise


def sampler_options(options: ResolvedOptions) -> dict[str, float]:
    """What a sampler takes beyond the four arguments that all take."""
    return {"eta": options.eta} if options.sampler == "ddim" else {}
