"""A request's latents, from noise or a picture to what the decoder takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import torch

from sdscratch.checks import parse_sigmas
from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.diffusion.noise import noise_sources
from sdscratch.diffusion.noise.seeded import Kind
from sdscratch.diffusion.sample import sample
from sdscratch.diffusion.samplers import Denoiser
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import SigmaSchedule, make_sigma_schedule, shortened
from sdscratch.generation.conditioning import PromptEncoder
from sdscratch.generation.controls import ControlRunner
from sdscratch.generation.denoise import UNetRunner, make_denoiser, one_after_another, sampler_options
from sdscratch.generation.inpaint import begin
from sdscratch.generation.known import Predictions
from sdscratch.generation.networks import Networks
from sdscratch.generation.ranges import LoraSteps
from sdscratch.generation.requests import Progress, Request
from sdscratch.generation.start import Encoder, Start, device_noise, together, varied_noise
from sdscratch.generation.windows import Keep, Window, Windowed
from sdscratch.models.config import ScheduleConfig
from sdscratch.options import ResolvedOptions

__all__ = ["LatentSampler"]


@lru_cache(8)
def schedule_with(config: ScheduleConfig, zero_snr: bool) -> Schedule:
    """A forward process, made once."""
    return Schedule(config, zero_snr=zero_snr)


class LatentSampler:
    """Requests → latents, with a model's networks.

    Args:
        encoder_for: options → what makes latents of init pictures.
    """

    def __init__(
        self,
        networks: Networks,
        encode_prompts: PromptEncoder,
        encoder_for: Callable[[ResolvedOptions], Encoder],
    ) -> None:
        self.networks = networks
        self.encode_prompts = encode_prompts
        self.encoder_for = encoder_for
        self.unet = UNetRunner(networks)
        self.steer = ControlRunner(networks)
        self.config = networks.files.config.schedule
        self.schedule = Schedule(self.config)
        self.keep: Keep | None = None  # remembers what windows gave
        self.known = Predictions()  # of requests that have variants

    def enter(self, window: Window) -> None:
        """A window of a larger picture is what the U-Net sees next."""
        self.unet.window = window

    def schedule_of(self, options: ResolvedOptions) -> Schedule:
        """The model's forward process, or what was asked for instead."""
        return self.schedule if options.zero_snr is None else schedule_with(self.config, options.zero_snr)

    def path(
        self, options: ResolvedOptions, *, from_init: bool = False, exactly: bool = False
    ) -> SigmaSchedule:
        """The noise levels that these options go through; with an init picture only the last of them.

        Args:
            exactly: as of `spacing.shortened`.
        """
        asked = self.schedule_of(options), options.sampler, options.scheduler, options.steps
        if options.sigmas is not None:
            path = make_sigma_schedule(*asked, like=options.like, sigmas=parse_sigmas(options.sigmas))
            return replace(path, start_scale=path.sigmas[0]) if from_init else path
        if from_init and options.strength > 0.0:
            return shortened(*asked, options.strength, like=options.like, exactly=exactly)
        path = make_sigma_schedule(*asked, like=options.like)
        return path.tail(0) if from_init else path

    def steps(
        self,
        request: Request,
        seeds: Sequence[int],
        variations: Sequence[int] = (),
        *,
        starts: Sequence[Start] = (),
        exactly: bool = False,
    ) -> Iterator[Progress]:
        """Denoise pictures at once, all as the request says but for their seeds.

        Yields a `Progress` before the first step and after each.

        Args:
            variations: the seeds of their variations, where there are any.
            starts: what gives each picture's latent to start from, in the place of the init picture.
            exactly: as of `spacing.shortened`.

        Raises:
            UsageError: a LoRA is asked for at some steps of a sampler that does not know its steps.
            NotFiniteError: the network gave NaN or an infinity.
        """
        options = request.options
        if options.variation_seed is not None and not variations:
            variations = [options.variation_seed + index for index in range(len(seeds))]
        if SAMPLERS[options.sampler].alone and len(seeds) > 1:
            alone = [
                self.steps(
                    request,
                    [seed],
                    variations[index : index + 1],
                    starts=starts[index : index + 1],
                    exactly=exactly,
                )
                for index, seed in enumerate(seeds)
            ]
            yield from one_after_another(alone)
            return
        config, device = self.networks.files.config, self.networks.placement.device
        sides = (side // config.autoencoder.downscale for side in (options.height, options.width))
        given = together(starts) if starts else None
        path = self.path(options, from_init=given is not None or request.init is not None, exactly=exactly)
        shape = (config.unet.latent_channels, *sides)
        kind: Kind = "nv" if options.noise == "nv" else "cpu"
        varied = varied_noise(options, variations, config.autoencoder.downscale)
        sources = noise_sources(
            options.sampler, path.sigmas, seeds, shape, like=options.like, kind=kind, **varied
        )
        start, noise = (device_noise(source, device) for source in sources)
        first = device_noise(getattr(sources[0], "posterior", sources[0]), device)
        whole, encode = self.path(options), self.encoder_for(options)
        beginning = begin(request, path, whole, len(seeds), start, encode, given, posterior=first)
        x = beginning.latent
        total = len(path.timesteps)
        denoise: Denoiser | None = None
        ranges = LoraSteps(self.networks, options.sampler)
        if total:
            told = self.encode_prompts.of(options, request.towards)
            prompt, negative = self.steer(request.controls, options, path, *told)
            self.unet.window = None
            self.unet.known = self.known if request.variants else None
            count, beside = len(seeds), beginning.concat
            denoise = make_denoiser(self.unet, path, options, prompt, negative, count, beside)
            if options.window:
                side = options.window // config.autoencoder.downscale
                denoise = Windowed(denoise, side, self.enter, self.keep)
            denoise = ranges.followed(beginning.keep(denoise))
        yield Progress(0, total, x, None)
        if denoise is None:
            return
        for step in sample(options.sampler, denoise, x, path, noise, **sampler_options(options)):
            # looking at every step would make a GPU wait for the CPU
            if step.done in (1, step.total) and not torch.isfinite(step.latent).all():
                raise self.networks.not_finite("unet")
            ranges.done = step.done
            latent = beginning.ended(step.latent) if step.done == step.total else step.latent
            yield Progress(step.done, step.total, latent, step.denoised)
