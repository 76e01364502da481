"""The second pass: a picture drawn, enlarged, and drawn over (A1111's `modules/processing.py`, "hires fix").

Either the latent is interpolated, or the picture decoded, enlarged in pixels and encoded again. The second
pass is image-to-image: its noise is drawn anew, of the same seeds, for the larger size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from sdscratch.addons.upscaler import open_upscaler
from sdscratch.device import Placement
from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.diffusion.spellings import parse_sampler, parse_scheduler
from sdscratch.generation.enlarge import Upscaler, enlarged_latent
from sdscratch.generation.networks import Networks
from sdscratch.generation.requests import Progress, Request
from sdscratch.generation.sampling import LatentSampler
from sdscratch.generation.start import Start
from sdscratch.images import AddonRecord
from sdscratch.images.tensors import to_tensor
from sdscratch.options import ResolvedOptions, hires_size
from sdscratch.options.large import LATENT_UPSCALERS, PIXEL_UPSCALERS

__all__ = ["SecondPass", "second_pass_options", "upscaler_record"]


def second_pass_options(options: ResolvedOptions) -> ResolvedOptions:
    """What the second pass is asked for: as the first, but for its size and what is said of it."""
    assert options.hires is not None
    width, height = hires_size(options.width, options.height, options.hires)
    sampler, scheduler = options.sampler, options.scheduler
    if options.hires_sampler is not None:
        sampler, named = parse_sampler(options.hires_sampler)
        scheduler = named or scheduler
    if options.hires_scheduler is not None:
        scheduler = parse_scheduler(options.hires_scheduler)
    said: dict[str, Any] = {
        "prompt": options.hires_prompt,
        "negative_prompt": options.hires_negative_prompt,
        "cfg_scale": options.hires_cfg_scale,
        "steps": options.hires_steps or None,
    }
    return replace(
        options,
        width=width,
        height=height,
        sampler=sampler,
        scheduler=scheduler,
        strength=options.hires_strength,
        sigmas=None,  # they were the first pass's
        hires=None,
        **{name: value for name, value in said.items() if value is not None},
    )


class SecondPass:
    """Draws requests in two passes; the upscalers that it has loaded stay."""

    def __init__(
        self, networks: Networks, sampling: LatentSampler, decode: Callable[..., list[Image]]
    ) -> None:
        self.networks, self.sampling, self.decode = networks, sampling, decode
        self._upscalers: dict[str, Upscaler] = {}

    def upscaler(self, name: str) -> Upscaler:
        """An upscaler that is no latent's.

        Raises:
            CheckpointError: a file that is missing, unreadable or no upscaler.
        """
        if name not in self._upscalers:
            placement: Placement = self.networks.placement
            self._upscalers[name] = Upscaler(name, placement)
        return self._upscalers[name]

    def check(self, options: ResolvedOptions) -> None:
        """Find and check what enlarges, before anything is drawn.

        Raises:
            CheckpointError: as of `upscaler`.
        """
        if options.hires is not None and options.hires_upscaler not in LATENT_UPSCALERS:
            self.upscaler(options.hires_upscaler)

    def steps(
        self,
        request: Request,
        seeds: Sequence[int],
        variations: Sequence[int],
        adopt: Callable[[str], None],
    ) -> Iterator[Progress]:
        """Both passes as one count of steps.

        Args:
            variations: as of `LatentSampler.steps`.
            adopt: applies the LoRAs that a prompt names.
        """
        first, options = request.options, second_pass_options(request.options)
        self.check(first)
        path = self.sampling.path(options, from_init=True, exactly=True)
        more = SAMPLERS[options.sampler].steps(len(path.timesteps)) or 1
        if SAMPLERS[options.sampler].alone and len(seeds) > 1:
            more = len(seeds)
        newest = None
        once = replace(request, options=replace(first, hires=None))
        for newest in self.sampling.steps(once, seeds, variations):
            yield replace(newest, total=newest.total + more)
        assert newest is not None
        done, latent = newest.done, newest.latent
        if path.timesteps:
            adopt(options.prompt)
        starts = self.enlarged(latent, first, options)
        if not path.timesteps:
            yield Progress(done, done, torch.cat([start(None) for start in starts]), None)
            return
        second = self.sampling.steps(
            replace(request, options=options), seeds, variations, starts=starts, exactly=True
        )
        for each in second:
            if each.done:
                yield replace(each, done=done + each.done, total=done + each.total)

    def brought_to_size(self, request: Request) -> Request:
        """A request whose picture to start from has the options' size, where it was to be enlarged first.

        Raises:
            SdscratchError: as of `enlarge.Upscaler`.
        """
        init, options = request.init, request.options
        if init is None or init.enlarge_by is None:
            return request
        image = self.upscaler(init.enlarge_by)(init.image, (options.width, options.height))
        return replace(request, init=replace(init, image=image, enlarge_by=None))

    def enlarged(self, latent: Tensor, first: ResolvedOptions, second: ResolvedOptions) -> list[Start]:
        """What the second pass starts from, picture by picture."""
        downscale = self.networks.files.config.autoencoder.downscale
        if first.hires_upscaler in LATENT_UPSCALERS:
            size = second.height // downscale, second.width // downscale
            return [_given(each) for each in enlarged_latent(latent, size, first.hires_upscaler).split(1)]
        upscale, axes = self.upscaler(first.hires_upscaler), first.seamless or ""
        pictures = [
            upscale(image, (second.width, second.height), axes=axes)
            for image in self.decode(latent, first.tile, tiny=first.decoder == "tiny")
        ]
        encode = self.sampling.encoder_for(second)
        return [partial(encode, to_tensor(picture)) for picture in pictures]


def _given(latent: Tensor) -> Start:
    return lambda noise: latent


def upscaler_record(options: ResolvedOptions) -> AddonRecord | None:
    """The file that enlarged a picture between its passes, if one did.

    Raises:
        CheckpointError: it is no longer what it was.
    """
    if options.hires is None or options.hires_upscaler in (*LATENT_UPSCALERS, *PIXEL_UPSCALERS):
        return None
    file = open_upscaler(options.hires_upscaler)
    return AddonRecord(file.name, file.hash())
