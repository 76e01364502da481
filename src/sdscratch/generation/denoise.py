"""The U-Net as a denoiser: in its own precision, as its device runs it best, guided by the prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdscratch.diffusion.approximations import deep_cached, guided_between
from sdscratch.diffusion.guidance import Network, guided, network_denoiser
from sdscratch.diffusion.samplers import Denoiser
from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.fast.compute import Compute
from sdscratch.generation.networks import Networks, dtype_of
from sdscratch.models.conditioning import Conditioning
from sdscratch.options import ResolvedOptions, parse_interval

__all__ = ["UNetRunner", "make_denoiser", "one_by_one", "sampler_options"]


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
    told: Sequence[Conditioning],
    count: int,
) -> Denoiser:
    """The denoiser of `count` pictures.

    Args:
        told: the negative prompt's conditioning where there is guidance, and the prompt's.
    """
    placement, prediction = runner.networks.placement, runner.networks.files.config.schedule.prediction
    *negative, prompt = told

    def denoiser() -> Denoiser:
        """For one picture, or one batch: approximations keep what they have seen of it."""
        network = runner.network(options.deep_cache)
        plain = network_denoiser(network, path, prediction, prompt)
        if not negative:
            return plain
        scale = options.cfg_scale
        whole = guided(network, path, prediction, prompt=prompt, negative=negative[0], scale=scale)
        if options.cfg_interval is None:
            return whole
        return guided_between(*parse_interval(options.cfg_interval), whole, plain)

    return denoiser() if placement.batches else one_by_one([denoiser() for _ in range(count)])


def one_by_one(denoisers: Sequence[Denoiser]) -> Denoiser:
    """A denoiser that runs pictures one after another, each by its own, so that none depends on its batch."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        pictures = zip(denoisers, x.split(1), strict=True)
        return torch.cat([one(picture, sigma) for one, picture in pictures])

    return denoise


def sampler_options(options: ResolvedOptions) -> dict[str, float]:
    """What a sampler takes beyond the four arguments that all take."""
    return {"eta": options.eta} if options.sampler == "ddim" else {}
