"""A request's latents, from noise or a picture to what the decoder takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.diffusion.noise import noise_sources
from sdscratch.diffusion.noise.seeded import Kind
from sdscratch.diffusion.sample import sample
from sdscratch.diffusion.samplers import Denoiser
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import SigmaSchedule, make_sigma_schedule, shortened
from sdscratch.generation.conditioning import PromptEncoder
from sdscratch.generation.denoise import UNetRunner, make_denoiser, one_after_another, sampler_options
from sdscratch.generation.inpaint import begin
from sdscratch.generation.networks import Networks
from sdscratch.generation.requests import Progress, Request
from sdscratch.generation.start import Encoder, Start, device_noise, together
from sdscratch.generation.windows import Keep, Window, Windowed
from sdscratch.options import ResolvedOptions

__all__ = ["LatentSampler"]


class LatentSampler:
    """Requests → latents, with a model's networks."""

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
        given = together(starts) if starts else None
        path = self.path(options, from_init=given is not None or request.init is not None, exactly=exactly)
        shape = (config.unet.latent_channels, *sides)
        kind: Kind = "nv" if options.noise == "nv" else "cpu"
        sources = noise_sources(options.sampler, path.sigmas, seeds, shape, like=options.like, kind=kind)
        start, noise = (device_noise(source, device) for source in sources)
        whole, encode = self.path(options), self.encoder_for(options)
        beginning = begin(request, path, whole, len(seeds), start, encode, given)
        x = beginning.latent
        total = len(path.timesteps)
        denoise: Denoiser | None = None
        if total:
            prompt, negative = self.encode_prompts.of(options)
            self.unet.window = None
            count, beside = len(seeds), beginning.concat
            denoise = make_denoiser(self.unet, path, options, prompt, negative, count, beside)
            if options.window:
                side = options.window // config.autoencoder.downscale
                denoise = Windowed(denoise, side, self.enter, self.keep)
            denoise = beginning.keep(denoise)
        yield Progress(0, total, x, None)
        if denoise is None:
            return
        for step in sample(options.sampler, denoise, x, path, noise, **sampler_options(options)):
            # looking at every step would make a GPU wait for the CPU
            if step.done in (1, step.total) and not torch.isfinite(step.latent).all():
                raise self.networks.not_finite("unet")
            latent = beginning.ended(step.latent) if step.done == step.total else step.latent
            yield Progress(step.done, step.total, latent, step.denoised)
