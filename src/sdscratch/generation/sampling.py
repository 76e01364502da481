"""A request's latents, from noise or a picture to what the decoder takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.diffusion.conventions import convention_of
from sdscratch.diffusion.noise import noise_sources
from sdscratch.diffusion.noise.seeded import Kind
from sdscratch.diffusion.sample import sample
from sdscratch.diffusion.samplers import Denoiser
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import SigmaSchedule, make_sigma_schedule, shortened
from sdscratch.generation.conditioning import PromptEncoder
from sdscratch.generation.denoise import UNetRunner, make_denoiser, one_after_another, sampler_options
from sdscratch.generation.networks import Networks
from sdscratch.generation.requests import Progress, Request
from sdscratch.generation.start import Draw, Start, device_noise, start_latent, together
from sdscratch.generation.windows import Keep, Window, Windowed
from sdscratch.images.tensors import to_tensor
from sdscratch.options import ResolvedOptions

__all__ = ["LatentSampler"]


class LatentSampler:
    """Requests → latents, with a model's networks."""

    def __init__(
        self,
        networks: Networks,
        encode_prompts: PromptEncoder,
        encoder_for: Callable[[ResolvedOptions], Callable[[Tensor, Draw | None], Tensor]],
    ) -> None:
        self.networks = networks
        self.encode_prompts = encode_prompts
        self.encoder_for = encoder_for
        self.unet = UNetRunner(networks)
        self.schedule = Schedule(networks.files.config.schedule)
        self.keep: Keep | None = None  # remembers what windows gave

    def enter(self, window: Window) -> None:
        """A window of a larger picture is what the U-Net sees next."""
        self.unet.window = window

    def path(
        self, options: ResolvedOptions, *, from_init: bool = False, exactly: bool = False
    ) -> SigmaSchedule:
        """The noise levels that these options go through; with an init picture only the last of them.

        Args:
            exactly: as of `spacing.shortened`.
        """
        asked = self.schedule, options.sampler, options.scheduler, options.steps
        if from_init and options.strength > 0.0:
            return shortened(*asked, options.strength, like=options.like, exactly=exactly)
        path = make_sigma_schedule(*asked, like=options.like)
        return path.tail(0) if from_init else path

    def steps(
        self,
        request: Request,
        seeds: Sequence[int],
        *,
        starts: Sequence[Start] = (),
        exactly: bool = False,
    ) -> Iterator[Progress]:
        """Denoise pictures at once, all as the request says but for their seeds.

        Yields a `Progress` before the first step and after each.

        Args:
            starts: what gives each picture's latent to start from, in the place of the init picture.
            exactly: as of `spacing.shortened`.

        Raises:
            NotFiniteError: the network gave NaN or an infinity.
        """
        options = request.options
        if SAMPLERS[options.sampler].alone and len(seeds) > 1:
            alone = [
                self.steps(request, [seed], starts=starts[index : index + 1], exactly=exactly)
                for index, seed in enumerate(seeds)
            ]
            yield from one_after_another(alone)
            return
        config, device = self.networks.files.config, self.networks.placement.device
        sides = (side // config.autoencoder.downscale for side in (options.height, options.width))
        encode = together(starts) if starts else None
        if encode is None and request.init is not None:
            encode = partial(self.encoder_for(options), to_tensor(request.init.image))
        path = self.path(options, from_init=encode is not None, exactly=exactly)
        shape = (config.unet.latent_channels, *sides)
        kind: Kind = "nv" if options.noise == "nv" else "cpu"
        sources = noise_sources(options.sampler, path.sigmas, seeds, shape, like=options.like, kind=kind)
        start, noise = (device_noise(source, device) for source in sources)
        own_noise = convention_of(options.like).encodes_with_noise
        x = start_latent(path, len(seeds), start, encode, sampled=own_noise)
        total = len(path.timesteps)
        denoise: Denoiser | None = None
        if total:
            prompt, negative = self.encode_prompts.of(options)
            self.unet.window = None
            denoise = make_denoiser(self.unet, path, options, prompt, negative, len(seeds))
            if options.window:
                side = options.window // config.autoencoder.downscale
                denoise = Windowed(denoise, side, self.enter, self.keep)
        yield Progress(0, total, x, None)
        if denoise is None:
            return
        for step in sample(options.sampler, denoise, x, path, noise, **sampler_options(options)):
            # looking at every step would make a GPU wait for the CPU
            if step.done in (1, step.total) and not torch.isfinite(step.latent).all():
                raise self.networks.not_finite("unet")
            yield Progress(step.done, step.total, step.latent, step.denoised)
