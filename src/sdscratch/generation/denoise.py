"""The U-Net as a denoiser: in its own precision, as its device runs it best, guided by the prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sdscratch.diffusion.approximations import deep_cached, guided_between
from sdscratch.diffusion.conventions import sampler_parameters
from sdscratch.diffusion.guidance import (
    GuidedDenoiser,
    Network,
    PairPredictor,
    Predictor,
    Pull,
    by_evaluation,
    classifier_free,
    conditioned,
    denoiser,
    pair_predictor,
)
from sdscratch.diffusion.samplers import Denoiser
from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.fast.compute import Compute
from sdscratch.generation.conditioning import ToldPart, second_pass
from sdscratch.generation.networks import Networks, dtype_of
from sdscratch.generation.requests import Progress
from sdscratch.generation.windows import Window, cropped
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import UNetConfig
from sdscratch.models.unet import guidance_embedding
from sdscratch.options import ResolvedOptions, parse_interval

__all__ = ["OneByOne", "UNetRunner", "make_denoiser", "one_after_another", "sampler_options"]


class UNetRunner:
    """The U-Net from float32 to float32, recorded or compiled where that is faster."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self.window: Window | None = None  # the part of a larger picture that is predicted now

    def network(self, deep_cache: int) -> Network:
        """The U-Net for one picture, or one batch: what `deep_cache` keeps belongs to it alone."""
        dtype = dtype_of(self.networks["unet"])
        compute = self.computation(deep_cache > 1)

        def run(x: Tensor, timesteps: Tensor, told: Conditioning, *deep: Tensor | None) -> tuple[Tensor, ...]:
            with torch.inference_mode():
                prediction, *features = compute(
                    x.to(dtype), timesteps, cropped(told, self.window).to(dtype), *deep
                )
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
        negative: the negative prompt's one part; nothing where guidance needs none.
    """
    placement, prediction = runner.networks.placement, runner.networks.files.config.schedule.prediction
    unet = runner.networks.files.config.unet

    def denoise_at(network: Network, scale: float) -> Denoiser:
        network = told_guidance(network, unet, scale, placement.device)
        scale = second_pass(scale, unet)

        def alone(evaluation: int) -> Predictor:
            return conditioned(network, prompt[0].at(evaluation))

        def pair(evaluation: int) -> PairPredictor:
            pulls = [Pull(part.at(evaluation), part.weight) for part in prompt]
            return pair_predictor(network, pulls, negative[0].at(evaluation))

        changes = any(part.changes for part in (*prompt, *negative))
        if not negative or (scale <= 1.0 and len(prompt) == 1 and prompt[0].weight == 1.0):
            return denoiser(by_evaluation(alone) if changes else alone(0), path, prediction)
        both = by_evaluation(pair) if changes else pair(0)
        return GuidedDenoiser(both, path, prediction, classifier_free(scale))

    def one() -> Denoiser:
        """For one picture, or one batch: approximations keep what they have seen of it."""
        network = runner.network(options.deep_cache)
        whole = denoise_at(network, options.cfg_scale)
        if options.cfg_interval is None or not (negative or unet.guidance):
            return whole
        return guided_between(*parse_interval(options.cfg_interval), whole, denoise_at(network, 1.0))

    return one() if placement.batches else OneByOne([one() for _ in range(count)])


def told_guidance(network: Network, unet: UNetConfig, scale: float, device: torch.device) -> Network:
    """A network that is told the guidance with all else, where it was distilled under it; else itself."""
    if unet.guidance is None:
        return network
    embedding = guidance_embedding(scale, unet.guidance).to(device)

    def told(x: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        return network(x, timesteps, replace(conditioning, guidance=embedding.expand(len(x), -1)))

    return told


class OneByOne:
    """A denoiser that runs pictures one after another, each by its own, so that none depends on its batch."""

    def __init__(self, denoisers: Sequence[Denoiser]) -> None:
        self._denoisers = denoisers
        self._newest: tuple[Tensor, tuple[Tensor, ...]] | None = None

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor:
        """The estimates of x₀, guided where each is."""
        self._newest = x, x.split(1)
        pictures = zip(self._denoisers, self._newest[1], strict=True)
        return torch.cat([one(picture, sigma) for one, picture in pictures])

    def unconditional(self, x: Tensor, sigma: float, /) -> Tensor:
        """The estimates without the prompt; of the newest x at no cost."""
        known = self._newest is not None and self._newest[0] is x
        pictures = self._newest[1] if self._newest is not None and known else x.split(1)
        estimates = (getattr(one, "unconditional", one) for one in self._denoisers)
        return torch.cat([one(picture, sigma) for one, picture in zip(estimates, pictures, strict=True)])


def one_after_another(runs: Sequence[Iterator[Progress]]) -> Iterator[Progress]:
    """Pictures whose samplers choose their own steps, each on its own; a step is a picture."""
    newest = [next(run) for run in runs]
    yield Progress(0, len(runs), torch.cat([each.latent for each in newest]), None)
    for index, run in enumerate(runs):
        for newest[index] in run:
            pass
        denoised = torch.cat([each.latent if each.denoised is None else each.denoised for each in newest])
        yield Progress(index + 1, len(runs), torch.cat([each.latent for each in newest]), denoised)


def sampler_options(options: ResolvedOptions) -> dict[str, Any]:
    """What a sampler takes beyond the four arguments that all take."""
    own = {"eta": options.eta} if options.sampler == "ddim" else {}
    return sampler_parameters(options.like, options.sampler) | own
