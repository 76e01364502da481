"""From prompt to picture: load, encode, denoise, decode.

Every stage reports (generators that yield) and never draws; the command line puts its bars around the same
code that Python users call:

    >>> from sdscratch import load
    >>> load("default").txt2img("a dog wearing sunglasses", seed=0).save("dog.png")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Self, overload

from PIL import Image
from torch import Tensor

from sdscratch.addons.apply import AppliedLora, applied_loras, with_loras
from sdscratch.addons.control import Controls, OpenedControl, open_controls
from sdscratch.addons.embedding import Embedding
from sdscratch.addons.requests import LoraRequest, take_loras
from sdscratch.checkpoints.model import ModelFiles, Part
from sdscratch.checkpoints.taesd import TaesdFile, find_taesd
from sdscratch.checkpoints.tiny import TinyAutoencoder, tiny_autoencoder
from sdscratch.device import Placement, choose, out_of_memory_explained
from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.errors import UsageError
from sdscratch.generation.ahead import Ahead
from sdscratch.generation.conditioning import PromptEncoder
from sdscratch.generation.decode import decode, previewer
from sdscratch.generation.generate import drawn
from sdscratch.generation.hires import SecondPass
from sdscratch.generation.inits import given_pictures
from sdscratch.generation.networks import Networks, NotFiniteError
from sdscratch.generation.opening import Opened, open_all
from sdscratch.generation.ranges import check_ranges, turn_to
from sdscratch.generation.requests import Init, Progress, Request, numbered
from sdscratch.generation.sampling import LatentSampler
from sdscratch.generation.start import Encoder, PictureEncoder, TinyPictureEncoder
from sdscratch.generation.tiles import tile_by_memory
from sdscratch.images.tensors import to_picture
from sdscratch.options import (
    Fit,
    GenerateOptions,
    ResolvedOptions,
    hires_size,
    random_seed,
    size_of_init,
)

__all__ = ["Pipeline", "Progress", "load", "start"]


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
    vae: str | None = None,
    embedding: str | Sequence[str] = (),
) -> Pipeline:
    """Open a model.

    Args:
        model: "default" (the embedded one), a file, a diffusers folder, a name, or a hub id.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: auto, float32, bfloat16, float16 or int8.
        tokenizer: a tokenizer file or folder; by default the model's own.
        lora: LoRAs to add, each `FILE[:WEIGHT]`; more can stand in a prompt as `<lora:name:weight>`.
        compile: compile the U-Net at the first step, which takes a minute and makes the others faster on a
            GPU.
        low_memory: hold one network at a time, each loaded when its turn comes.
        taesd: a tiny autoencoder that draws previews, and pictures with `decoder="tiny"`; by default the
            model's own, if one lies beside it.
        vae: a file or folder whose autoencoder takes the place of the model's.
        embedding: textual inversions that prompts may name, each a file or a name in ./embeddings or the
            user's; what lies in those folders need not be given.

    Raises:
        CheckpointError: the model, a LoRA or the tiny autoencoder is missing, unreadable or refused.
        DeviceError: the device is not there.
        UsageError: a name that means nothing.
    """
    opened = open_all(model, tokenizer=tokenizer, lora=lora, vae=vae, taesd=taesd, embedding=embedding)
    return start(opened, choose(device, dtype, compiled=compile), low_memory=low_memory)


def start(opened: Opened, placement: Placement, *, low_memory: bool = False) -> Pipeline:
    """What is open, on a device."""
    taesd, known = opened.taesd, opened.embeddings
    return Pipeline(opened.files, placement, low_memory=low_memory, taesd=taesd, embeddings=known)


class Pipeline:
    """A model on a device; its networks are loaded when needed, and kept while that pays (`networks`)."""

    def __init__(
        self,
        files: ModelFiles,
        placement: Placement,
        *,
        low_memory: bool = False,
        taesd: TaesdFile | None = None,
        embeddings: Sequence[Embedding] = (),
    ) -> None:
        self.files = files
        self.placement = placement
        self.networks = Networks(files, placement, low_memory)
        self.encode_prompts = PromptEncoder(self.networks, embeddings)
        self.encode_picture = PictureEncoder(self.networks)
        self.sampling = LatentSampler(self.networks, self.encode_prompts, self.encoder_for)
        self.second_pass = SecondPass(self.networks, self.sampling, self.decode)
        self.tags: tuple[LoraRequest, ...] = ()  # LoRAs that the newest prompt asked for
        self._taesd = taesd
        self._preview: Callable[[Tensor], Tensor] | None = None
        self._hash = Ahead(files.hash)

    # Loading

    def load(self, parts: Iterable[Part]) -> Iterator[Part]:
        """Load networks ahead, yielding each one's name once it stands; with `low_memory` none is."""
        turn_to(self.networks, 0)  # so that the U-Net is not loaded twice
        for part in () if self.networks.low_memory else parts:
            self.networks.load_ahead(part)
            yield part

    @property
    def loras(self) -> tuple[AppliedLora, ...]:
        """The LoRAs that pictures are made with now: those of `load`, then those of the newest prompt."""
        return applied_loras(self.networks.files)

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        """The textual inversions in the newest picture's prompts."""
        return self.encode_prompts.newest

    def adopt_loras(self, prompt: str) -> None:
        """Apply the LoRAs that the prompt's tags name beside those of `load`, and no others.

        Where they are not the newest prompt's, text encoder and U-Net will be loaded again.

        Raises:
            CheckpointError: one is missing, unreadable or refused.
            UsageError: a tag that makes no sense.
        """
        _, tags = take_loras(prompt)
        if tags != self.tags:
            self.networks.exchange(with_loras(self.files, tags))
            self.encode_prompts.clear()
            self.tags = tags

    @cached_property
    def taesd(self) -> TaesdFile | None:
        """The tiny autoencoder, which draws previews: as given, else what lies beside the model.

        Raises:
            CheckpointError: what lies there is unreadable, or made for another model.
        """
        return self._taesd or find_taesd(self.files.path, self.files.config.autoencoder)

    @cached_property
    def tiny(self) -> TinyAutoencoder:
        """What decodes, and encodes if it can, with `decoder="tiny"`.

        Raises:
            CheckpointError: there is none, or it is refused.
        """
        return tiny_autoencoder(self.taesd, self.files.path, self.files.config.autoencoder)

    def encoder_for(self, options: ResolvedOptions) -> Encoder:
        """What makes latents of init pictures."""
        if options.decoder == "full" or self.tiny.encoder is None:
            return self.encode_picture.tiled(options.tile)
        return TinyPictureEncoder(self.networks, self.tiny.encoder)

    def hash_ahead(self) -> None:
        """Begin to find the model's hash, beside other work: all of its file is read."""
        self._hash.begin()

    def model_hash(self) -> str:
        """The model's fingerprint, once it is known.

        Raises:
            CheckpointError: a file of it cannot be read.
        """
        return self._hash.result()

    # From options to latents

    def resolve(self, options: GenerateOptions, init: Image.Image | None = None) -> ResolvedOptions:
        """Fill what was not asked for: by the init picture's size, the model's defaults, and chance."""
        if init is not None:
            options = size_of_init(options, init.size)
        resolved = self.files.resolve(options, random_seed())
        if init is not None and resolved.hires is not None:
            raise UsageError(
                "--hires is for pictures drawn from noise; draw INIT at a larger --size, or use upscale"
            )
        self.second_pass.check(resolved)
        if options.tile is not None:
            return resolved
        size = hires_size(resolved.width, resolved.height, resolved.hires or 1.0)
        config, networks = self.files.config.autoencoder, self.networks
        return replace(
            resolved, tile=tile_by_memory(size, config, self.placement, low_memory=networks.low_memory)
        )

    def parts_for(self, options: ResolvedOptions, *, from_init: bool = False) -> tuple[Part, ...]:
        """The networks that a task needs.

        Raises:
            UsageError: a LoRA is asked for at some steps of a sampler that does not know its steps.
        """
        check_ranges(self.loras, options.sampler)
        runs = not from_init or bool(self.path(options, from_init=True).timesteps)
        wanted: list[Part] = ["text", "unet"] if runs else []
        tiny = self.tiny if options.decoder == "tiny" else None
        encodes = from_init or self.files.config.unet.beside == "mask"  # which is told of grey
        if encodes and (tiny is None or tiny.encoder is None):
            wanted.append("encoder")
        return (*wanted, *(("decoder",) if tiny is None else ()))

    def path(self, options: ResolvedOptions, *, from_init: bool = False) -> SigmaSchedule:
        """The noise levels that these options go through; with an init picture only the last of them."""
        return self.sampling.path(options, from_init=from_init)

    def steps(
        self,
        options: ResolvedOptions,
        *,
        count: int = 1,
        seeds: Sequence[int] | None = None,
        init: Image.Image | None = None,
        controls: Sequence[OpenedControl] = (),
    ) -> Iterator[Progress]:
        """Denoise pictures at once: of these seeds, or `count` of seeds `options.seed`, `options.seed` + 1, …

        Args:
            init: a picture to start from (img2img), of exactly the options' size.
            controls: what steers: ControlNets and adapters with their hints.

        Yields and raises what `latents` does.
        """
        request = Request(options, None if init is None else Init(init), tuple(controls))
        each = [one.options for one in numbered(request, count if seeds is None else len(seeds))]
        variations = [one.variation_seed or 0 for one in each]
        yield from self.latents(request, [one.seed for one in each] if seeds is None else seeds, variations)

    def latents(
        self, request: Request, seeds: Sequence[int], variations: Sequence[int] = ()
    ) -> Iterator[Progress]:
        """Denoise pictures of these seeds at once, which are otherwise as the request says.

        Yields a `Progress` before the first step and after each. Should the network give NaN, the whole
        stage runs again in float32, and the count of steps done begins anew.

        Args:
            variations: the seeds of their variations, where the request has any.

        Raises:
            SdscratchError: not finite in float32 either.
            CheckpointError: a LoRA that the prompt names is missing, unreadable or refused.
            DeviceError: out of memory.
            ValueError: the init picture has another size.
        """
        request = self.second_pass.brought_to_size(request)
        options, init = request.options, request.init
        if init is not None and init.image.size != (options.width, options.height):
            raise ValueError(f"the init picture is {init.image.size}, not {options.width, options.height}")
        self.adopt_loras(options.prompt)
        with out_of_memory_explained():
            try:
                yield from self.passes(request, seeds, variations)
            except NotFiniteError as error:
                if error.part != "unet":  # the others have been tried again already
                    raise
                self.networks.fall_back(error)
                yield from self.passes(request, seeds, variations)

    def passes(self, request: Request, seeds: Sequence[int], variations: Sequence[int]) -> Iterator[Progress]:
        """The denoising: once, or with `hires` twice."""
        self.networks.wrap(request.options.seamless or "")
        if request.options.hires is not None:
            return self.second_pass.steps(request, seeds, variations, self.adopt_loras)
        return self.sampling.steps(request, seeds, variations)

    # From latents to pictures

    def decode(self, latents: Tensor, tile: int | None = None, *, tiny: bool = False) -> list[Image.Image]:
        """Latents [n, c, h, w] as the last `Progress` holds them → n pictures (one at a time: memory).

        Args:
            tile: decode in bands of as many pixels as a tile of this side has (`tiles`); 0: whole; None: by
                memory.
            tiny: by the tiny autoencoder, which is an approximation.

        Raises:
            SdscratchError: not finite in float32 either; no black picture is ever given.
            DeviceError: out of memory.
        """
        return decode(self.networks, latents, tile, self.tiny.decoder if tiny else None)

    def preview(self, latents: Tensor) -> list[Image.Image]:
        """What `decode` would show of latents, roughly and at once.

        Takes a `Progress`'s `denoised` as well as its last `latent`. Drawn by the tiny autoencoder (`taesd`);
        without one by a linear map (`preview.py`), for which the first call loads the encoder.

        Raises:
            CheckpointError: the tiny autoencoder beside the model is unreadable, or made for another one.
        """
        if self._preview is None:
            self._preview = previewer(self.networks, self.taesd, partial(self.encode_picture, noise=None))
        return [to_picture(one) for one in self._preview(latents).split(1)]

    # Everything at once

    @overload
    def txt2img(self, prompt: str, *, batch_count: None = None, **options: Any) -> Image.Image: ...
    @overload
    def txt2img(self, prompt: str, *, batch_count: int, **options: Any) -> list[Image.Image]: ...

    def txt2img(
        self,
        prompt: str,
        *,
        batch_count: int | None = None,
        batch_size: int = 1,
        control: Controls = (),
        **options: Any,
    ) -> Image.Image | list[Image.Image]:
        """A picture of the prompt, or with `batch_count` a list of them, of seeds `seed`, `seed` + 1, …

        Args:
            batch_size: how many are made at once.
            control: ControlNets and adapters, as --control has them, or as `ControlRequest`s.
            options: the fields of `GenerateOptions`, named as on the command line.
        """
        resolved = self.resolve(GenerateOptions(prompt, **options))
        request = Request(resolved, controls=open_controls(control, self.files))
        return drawn(self, request, batch_count, batch_size)

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
        mask: Image.Image | str | None = None,
        extend: str | None = None,
        strict: bool = False,
        fit: Fit = "cover",
        background: str = "white",
        init_upscaler: str | None = None,
        control: Controls = (),
        **options: Any,
    ) -> Image.Image | list[Image.Image]:
        """The picture changed towards the prompt, or with `batch_count` a list of such pictures.

        Args:
            image: the picture to start from, of any mode.
            batch_size: how many are made at once.
            mask: what of it is repainted: white, or opaque; "alpha": what is transparent in `image`.
            extend: borders to add and paint, in pixels, like "left=128,top=64".
            strict: refuse a mask of another size, which is resized else.
            fit, background, init_upscaler: as of `inits.Given`, how it is brought to another size.
            control, options: as of `txt2img`.
        """
        given = given_pictures(image, mask, extend, fit, background, strict, init_upscaler)
        asked = GenerateOptions(prompt, **options)
        given.check(invert=asked.mask_invert)
        resolved = self.resolve(given.sized(asked, self.files.defaults), given.whole)
        controls = open_controls(control, self.files, background)
        return drawn(self, Request(resolved, given.init(asked, resolved), controls), batch_count, batch_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.networks.clear()
        self.encode_prompts.clear()
        self.encode_picture.clear()
        self.sampling.steer.clear()
