"""From prompt to picture: load, encode, denoise, decode.

Every stage reports (generators that yield) and never draws; the command line puts its bars around the same
code that Python users call:

    >>> from sdscratch import load
    >>> load("default").txt2img("a dog wearing sunglasses", seed=0).save("dog.png")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sdscratch.addons import LoraRequest, take_loras
from sdscratch.checkpoints.lora import AppliedLora
from sdscratch.checkpoints.model import ModelFiles, Part, open_model
from sdscratch.checkpoints.taesd import TaesdFile, find_taesd, open_taesd
from sdscratch.device import Placement, choose, out_of_memory_explained
from sdscratch.diffusion.approximations import deep_cached, guided_between
from sdscratch.diffusion.guidance import Network, guided, network_denoiser
from sdscratch.diffusion.noise import Noise
from sdscratch.diffusion.samplers import SAMPLERS, Denoiser
from sdscratch.diffusion.schedule import Path, Schedule, make_path, steps_from_strength
from sdscratch.errors import UsageError
from sdscratch.fast.accelerate import Compute, accelerate
from sdscratch.generation.networks import Networks, NotFiniteError, dtype_of, trim
from sdscratch.generation.preview import fit_preview
from sdscratch.generation.tiles import in_tiles
from sdscratch.images import fit_picture, plain_picture
from sdscratch.models.conditioning import Conditioning
from sdscratch.options import (
    Fit,
    GenerateOptions,
    ResolvedOptions,
    fit_of_init,
    parse_interval,
    random_seed,
    size_of_init,
)
from sdscratch.text.chunks import encode_prompt

__all__ = ["Pipeline", "Progress", "load"]

CONTEXTS_KEPT = 32  # encoded prompts, of 240 kB each in Stable Diffusion


@dataclass(frozen=True)
class Progress:
    """How far the denoising is.

    `latent` is what the decoder takes when `done == total`; before, it is noisy, in σ-space
    (x = x₀ + σ·noise). `denoised` is the picture that the network sees in it so far (None before the
    first step), which the decoder takes too.
    """

    done: int
    total: int
    latent: Tensor  # [n, c, h, w] float32
    denoised: Tensor | None


def load(
    model: str = "default",
    *,
    device: str = "auto",
    dtype: str = "auto",
    tokenizer: str | None = None,
    lora: str | Sequence[str] = (),
    compile: bool = False,
    low_memory: bool = False,
    taesd: str | None = None,
) -> Pipeline:
    """Open a model.

    Args:
        model: "default" (the embedded one), a file, a diffusers folder, a name, or a hub id.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: auto, float32, bfloat16 or float16.
        tokenizer: a tokenizer file or folder; by default the model's own.
        lora: LoRAs to add, each `FILE[:WEIGHT]`; more can stand in a prompt as `<lora:name:weight>`.
        compile: compile the U-Net at the first step, which takes a minute and makes the others faster on a
            GPU.
        low_memory: hold one network at a time, each loaded when its turn comes.
        taesd: a tiny autoencoder that draws previews; by default the model's own, if one lies beside it.

    Raises:
        CheckpointError: the model, a LoRA or the tiny autoencoder is missing, unreadable or refused.
        DeviceError: the device is not there.
        UsageError: a name that means nothing.
    """
    files = open_model(model, tokenizer=tokenizer, lora=lora)
    tiny = open_taesd(taesd, files.config.autoencoder) if taesd is not None else None
    return Pipeline(files, choose(device, dtype, compiled=compile), low_memory=low_memory, taesd=tiny)


class Pipeline:
    """A model on a device; its networks are loaded when needed, and kept while that pays (`networks`)."""

    def __init__(
        self,
        files: ModelFiles,
        placement: Placement,
        *,
        low_memory: bool = False,
        taesd: TaesdFile | None = None,
    ) -> None:
        self.files = files
        self.placement = placement
        self.schedule = Schedule(files.config.schedule)
        self.networks = Networks(files, placement, low_memory)
        self._contexts: dict[tuple[str, int], Tensor] = {}  # prompts, encoded, the newest last
        self._init: tuple[Tensor, Tensor] | None = None  # the newest init picture, and its posterior
        self._taesd = taesd
        self._preview: Callable[[Tensor], Tensor] | None = None
        self._tags: tuple[LoraRequest, ...] = ()  # of the newest prompt
        self._computations: dict[bool, Compute] = {}  # of the U-Net as it is loaded now, recorded or compiled

    # Loading

    def load(self, parts: Iterable[Part]) -> Iterator[Part]:
        """Load networks ahead, yielding each one's name once it stands; with `low_memory` none is."""
        for part in () if self.networks.low_memory else parts:
            _ = self.networks[part]
            yield part

    @property
    def loras(self) -> tuple[AppliedLora, ...]:
        """The LoRAs that pictures are made with now: those of `load`, then those of the newest prompt."""
        return self.networks.files.loras

    def adopt_loras(self, prompt: str) -> None:
        """Apply the LoRAs that the prompt's tags name beside those of `load`, and no others.

        Where they are not the newest prompt's, text encoder and U-Net will be loaded again.

        Raises:
            CheckpointError: one is missing, unreadable or refused.
            UsageError: a tag that makes no sense.
        """
        _, tags = take_loras(prompt)
        if tags != self._tags:
            self.networks.exchange(self.files.with_loras(tags))
            self._contexts.clear()
            self._computations.clear()
            self._tags = tags

    @cached_property
    def taesd(self) -> TaesdFile | None:
        """What draws previews, where a linear map does not: as given, else what lies beside the model.

        Raises:
            CheckpointError: what lies there is unreadable, or made for another model.
        """
        return self._taesd or find_taesd(self.files.path, self.files.config.autoencoder)

    # From options to latents

    def resolve(self, options: GenerateOptions, init: Image.Image | None = None) -> ResolvedOptions:
        """Fill what was not asked for: by the init picture's size, the model's defaults, and chance."""
        if init is not None:
            options = size_of_init(options, init.size)
        layers = self.files.config.text.layers
        if options.clip_skip >= layers:
            raise UsageError(f"clip-skip is {options.clip_skip}, but the text encoder has {layers} layers")
        return options.resolve(self.files.defaults, random_seed())

    def parts_for(self, options: ResolvedOptions, *, from_init: bool = False) -> tuple[Part, ...]:
        """The networks that a task needs."""
        if not from_init:
            return ("text", "unet", "decoder")
        runs = steps_from_strength(options.steps, options.strength) > 0
        return ("text", "unet", "encoder", "decoder") if runs else ("encoder", "decoder")

    def path(self, options: ResolvedOptions, *, from_init: bool = False) -> Path:
        """The noise levels that these options go through; with an init picture only the last of them."""
        path = make_path(self.schedule, options.sampler, options.scheduler, options.steps)
        return path.tail(steps_from_strength(options.steps, options.strength)) if from_init else path

    def steps(
        self,
        options: ResolvedOptions,
        *,
        count: int = 1,
        init: Image.Image | None = None,
    ) -> Iterator[Progress]:
        """Denoise `count` pictures at once, of seeds `options.seed`, `options.seed` + 1, …

        Yields a `Progress` before the first step and after each. Should the network give NaN, the whole
        stage runs again in float32, and the count of steps done begins anew.

        Args:
            init: a picture to start from (img2img), of exactly the options' size.

        Raises:
            SdscratchError: not finite in float32 either.
            CheckpointError: a LoRA that the prompt names is missing, unreadable or refused.
            DeviceError: out of memory.
            ValueError: the init picture has another size.
        """
        if init is not None and init.size != (options.width, options.height):
            raise ValueError(f"the init picture is {init.size}, not {options.width, options.height}")
        self.adopt_loras(options.prompt)
        seeds = [options.seed + index for index in range(count)]
        picture = None if init is None else to_tensor(init)
        with out_of_memory_explained():
            try:
                yield from self._denoise(options, seeds, picture)
            except NotFiniteError as error:
                if error.part != "unet":  # the others have been tried again already
                    raise
                self._computations.clear()
                self.networks.fall_back(error)
                yield from self._denoise(options, seeds, picture)

    def _prompts(self, options: ResolvedOptions) -> list[str]:
        """What the text encoder reads; guidance needs the negative prompt, and only above scale 1."""
        prompt, _ = take_loras(options.prompt)
        return [options.negative_prompt, prompt] if options.cfg_scale > 1.0 else [prompt]

    def _encode(self, text: str, clip_skip: int) -> Tensor:
        ids = torch.tensor([encode_prompt(self.files.tokenizer, text)], device=self.placement.device)
        return self.networks.run("text", lambda network: network(ids, clip_skip))

    def _encode_prompts(self, prompts: Sequence[str], clip_skip: int) -> list[Tensor]:
        """Contexts [1, t, c], of which the newest are kept: encoded once, and warned of once.

        One prompt at a time: no picture depends on another's prompt.
        """
        contexts = []
        for text in prompts:
            known = self._contexts.pop((text, clip_skip), None)
            context = self._encode(text, clip_skip) if known is None else known
            contexts.append(context)
            self._contexts[text, clip_skip] = context
        for oldest in list(self._contexts)[:-CONTEXTS_KEPT]:
            del self._contexts[oldest]
        self.networks.done("text")
        return contexts

    def _denoise(
        self, options: ResolvedOptions, seeds: Sequence[int], picture: Tensor | None
    ) -> Iterator[Progress]:
        config, device = self.files.config, self.placement.device
        downscale = config.autoencoder.downscale
        shape = (config.unet.latent_channels, options.height // downscale, options.width // downscale)
        path = self.path(options, from_init=picture is not None)
        source = Noise(seeds, shape)

        def noise() -> Tensor:
            drawn = source()
            # from pinned memory, a GPU takes it without waiting for the steps before
            return (
                drawn.pin_memory().to(device, non_blocking=True)
                if device.type == "cuda"
                else drawn.to(device)
            )

        if picture is None:
            x = noise() * path.start_scale
        elif path.timesteps:
            latent = self._encode_picture(picture, noise)  # draws its noise before the sampler's (diffusers)
            x = latent + noise() * path.sigmas[0]
        else:
            x = self._encode_picture(picture, None).repeat(len(seeds), 1, 1, 1)
        total = len(path.timesteps)
        denoise = self._denoiser(path, options, len(seeds)) if total else None
        yield Progress(0, total, x, None)
        if denoise is None:
            return
        for step in SAMPLERS[options.sampler](denoise, x, path.sigmas, noise, **sampler_options(options)):
            done = step.index + 1
            # looking at every step would make a GPU wait for the CPU
            if done in (1, total) and not torch.isfinite(step.latent).all():
                raise self.networks.not_finite("unet")
            latent = step.latent * path.end_scale if done == total else step.latent
            yield Progress(done, total, latent, step.denoised)

    def _denoiser(self, path: Path, options: ResolvedOptions, count: int) -> Denoiser:
        contexts = self._encode_prompts(self._prompts(options), options.clip_skip)
        *negative, prompt = map(Conditioning, contexts)
        prediction = self.files.config.schedule.prediction

        def denoiser() -> Denoiser:
            """For one picture, or one batch: approximations keep what they have seen of it."""
            network = self._network(options)
            plain = network_denoiser(network, path, prediction, prompt)
            if not negative:
                return plain
            scale = options.cfg_scale
            whole = guided(network, path, prediction, prompt=prompt, negative=negative[0], scale=scale)
            if options.cfg_interval is None:
                return whole
            return guided_between(*parse_interval(options.cfg_interval), whole, plain)

        if self.placement.batches:
            return denoiser()
        return one_by_one([denoiser() for _ in range(count)])

    def _network(self, options: ResolvedOptions) -> Network:
        """The U-Net in its own precision, from float32 to float32."""
        dtype = dtype_of(self.networks["unet"])
        compute = self._computation(options.deep_cache > 1)

        def run(x: Tensor, timesteps: Tensor, told: Conditioning, *deep: Tensor | None) -> tuple[Tensor, ...]:
            with torch.inference_mode():
                prediction, *features = compute(x.to(dtype), timesteps, told.to(dtype), *deep)
                return prediction.float(), *features

        if options.deep_cache > 1:
            return deep_cached(run, options.deep_cache)
        return lambda x, timesteps, told: run(x, timesteps, told)[0]

    def _computation(self, deep: bool) -> Compute:
        """The U-Net as this device runs it best, with its deep features or without."""
        network = self.networks["unet"]
        compute: Compute = network.predict if deep else lambda *inputs: (network(*inputs),)
        if not self.placement.accelerates:
            return compute
        if deep not in self._computations:
            self._computations[deep] = accelerate(compute, self.placement, self.files.config.unet)
        return self._computations[deep]

    def _encode_picture(self, picture: Tensor, noise: Callable[[], Tensor] | None) -> Tensor:
        """[1, 3, H, W] → latents [n, c, h, w]: samples of the posterior, or its mean without noise."""

        def encode(network: Any) -> Tensor:
            posterior = network(picture.to(self.placement.device, dtype_of(network)))
            return torch.cat([posterior.mean, posterior.log_variance], 1).float()

        if self._init is None or not torch.equal(self._init[0], picture):  # a batch shares one
            self._init = picture, self.networks.run("encoder", encode)
            self.networks.done("encoder")
        mean, log_variance = self._init[1].chunk(2, dim=1)
        drawn = mean if noise is None else mean + torch.exp(0.5 * log_variance) * noise()
        return drawn * self.files.config.autoencoder.latent_scale

    # From latents to pictures

    def decode(self, latents: Tensor, tile: int = 0) -> list[Image.Image]:
        """Latents [n, c, h, w] as the last `Progress` holds them → n pictures (one at a time: memory).

        Args:
            tile: decode in overlapping tiles of so many pixels a side (`tiles`); 0: whole, which is exact.

        Raises:
            SdscratchError: not finite in float32 either; no black picture is ever given.
            DeviceError: out of memory.
        """
        scaled = latents / self.files.config.autoencoder.latent_scale
        side = tile // self.files.config.autoencoder.downscale
        if self.networks.low_memory:
            self._computations.clear()  # they hold the U-Net
        if not self.placement.batches:
            trim(self.placement.device)  # the decoder wants other pieces of memory than the U-Net

        def decode_one(latent: Tensor) -> Image.Image:
            def run(network: Any) -> Tensor:
                cast = latent.to(dtype_of(network))
                return in_tiles(network, cast, side) if side else network(cast)

            return to_picture(self.networks.run("decoder", run))

        return [decode_one(latent) for latent in scaled.split(1)]

    def preview(self, latents: Tensor) -> list[Image.Image]:
        """What `decode` would show of latents, roughly and at once.

        Takes a `Progress`'s `denoised` as well as its last `latent`. Drawn by the tiny autoencoder (`taesd`);
        without one by a linear map (`preview.py`), for which the first call loads the encoder.

        Raises:
            CheckpointError: the tiny autoencoder beside the model is unreadable, or made for another one.
        """
        if self._preview is None:
            self._preview = self._make_preview()
        return [to_picture(one) for one in self._preview(latents).split(1)]

    def _make_preview(self) -> Callable[[Tensor], Tensor]:
        if self.taesd is None:
            downscale = self.files.config.autoencoder.downscale
            return fit_preview(lambda picture: self._encode_picture(picture, None), downscale)
        device, dtype = self.placement.device, self.placement.dtype
        network = self.taesd.load(device, dtype)

        def show(latents: Tensor) -> Tensor:
            with torch.inference_mode():
                pixels: Tensor = network(latents.to(device, dtype))
            return pixels.float()

        return show

    # Everything at once

    @overload
    def txt2img(self, prompt: str, *, batch_count: None = None, **options: Any) -> Image.Image: ...
    @overload
    def txt2img(self, prompt: str, *, batch_count: int, **options: Any) -> list[Image.Image]: ...

    def txt2img(
        self, prompt: str, *, batch_count: int | None = None, batch_size: int = 1, **options: Any
    ) -> Image.Image | list[Image.Image]:
        """A picture of the prompt, or with `batch_count` a list of them, of seeds `seed`, `seed` + 1, …

        Args:
            batch_size: how many are made at once.
            options: the fields of `GenerateOptions`, named as on the command line.
        """
        resolved = self.resolve(GenerateOptions(prompt, **options))
        return self._generate(resolved, batch_count, batch_size)

    @overload
    def img2img(
        self, image: Image.Image, prompt: str, *, batch_count: None = None, **options: Any
    ) -> Image.Image: ...
    @overload
    def img2img(
        self, image: Image.Image, prompt: str, *, batch_count: int, **options: Any
    ) -> list[Image.Image]: ...

    def img2img(
        self,
        image: Image.Image,
        prompt: str,
        *,
        batch_count: int | None = None,
        batch_size: int = 1,
        fit: Fit = "cover",
        background: str = "white",
        **options: Any,
    ) -> Image.Image | list[Image.Image]:
        """The picture changed towards the prompt, or with `batch_count` a list of such pictures.

        Args:
            image: the picture to start from, of any mode.
            batch_size: how many are made at once.
            fit: how it is brought to another size, where one is asked for.
            background: the colour under transparent parts and borders.
            options: the fields of `GenerateOptions`, named as on the command line.
        """
        plain = plain_picture(image, background)
        asked = GenerateOptions(prompt, **options)
        resolved = self.resolve(asked, plain)
        init = fit_picture(plain, resolved.width, resolved.height, fit_of_init(asked, fit), background)
        return self._generate(resolved, batch_count, batch_size, init)

    def _generate(
        self, options: ResolvedOptions, count: int | None, size: int, init: Image.Image | None = None
    ) -> Image.Image | list[Image.Image]:
        """A list of `count` pictures, `size` at once; without a count, one picture by itself."""
        wanted = 1 if count is None else count
        if min(wanted, size) < 1:
            raise UsageError(f"batch_count is {wanted} and batch_size {size}, but both must be at least 1")
        pictures: list[Image.Image] = []
        while (made := len(pictures)) < wanted:
            batch = replace(options, seed=options.seed + made)
            for progress in self.steps(batch, count=min(size, wanted - made), init=init):
                last = progress
            pictures += self.decode(last.latent, options.tile)
        return pictures[0] if count is None else pictures

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.networks.clear()
        self._contexts.clear()
        self._computations.clear()
        self._init = None


def sampler_options(options: ResolvedOptions) -> dict[str, float]:
    """What a sampler takes beyond the four arguments that all take."""
    return {"eta": options.eta} if options.sampler == "ddim" else {}


def one_by_one(denoisers: Sequence[Denoiser]) -> Denoiser:
    """A denoiser that runs pictures one after another, each by its own, so that none depends on its batch."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        pictures = zip(denoisers, x.split(1), strict=True)
        return torch.cat([one(picture, sigma) for one, picture in pictures])

    return denoise


def to_tensor(picture: Image.Image) -> Tensor:
    """RGB picture → [1, 3, H, W] float32 in −1 to 1."""
    levels = torch.from_numpy(np.array(picture, dtype=np.float32))
    return (levels / 255.0 * 2.0 - 1.0).permute(2, 0, 1)[None]


def to_picture(pixels: Tensor) -> Image.Image:
    """[1, 3, H, W] float32, −1 to 1 (clamped) → RGB picture, rounded to the nearest level."""
    levels = ((pixels[0] / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round()
    return Image.fromarray(levels.permute(1, 2, 0).to("cpu", torch.uint8).numpy())
