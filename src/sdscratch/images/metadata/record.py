"""Our own record of how a picture was made, and the web UIs' infotext written beside it.

The record is JSON in pure ASCII, so nothing in a prompt can break it. The infotext is for other tools; it is
not injective (a prompt may contain "Steps: 3, Sampler: x, Seed: 1"), so the record is read first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from reprlib import repr as short
from typing import Any, Literal, Self, TypeVar, get_args, get_origin

from sdscratch.diffusion.catalogue import SAMPLERS, SPACINGS
from sdscratch.errors import ImageError
from sdscratch.images.metadata.control import ControlRecord
from sdscratch.images.metadata.infotext import HASHES, NEGATIVE, quote
from sdscratch.images.metadata.sampling_words import sampling_words
from sdscratch.options import Fit, ResolvedOptions
from sdscratch.options.large import spelled_upscaler
from sdscratch.settings import hints_of
from sdscratch.version import __version__

__all__ = ["AddonRecord", "LoraRecord", "MaskRecord", "Record", "TemplateRecord"]

T = TypeVar("T")
AUTOV2, AUTOV3 = 10, 12  # hex digits

# Options of which a record says nothing where they do nothing.
OFF = {each.name: each.metadata["absent"] for each in fields(ResolvedOptions) if each.metadata.get("off")}
# What a record means that lacks an option, as those do that are older than it.
ABSENT = {each.name: each.metadata["absent"] for each in fields(ResolvedOptions) if "absent" in each.metadata}


# The web UI's words; it says nothing of what is its default.
MASKED_CONTENT = {"original": "", "fill": "fill", "noise": "latent noise", "nothing": "latent nothing"}


@dataclass(frozen=True)
class AddonRecord:
    """A file besides the model that a picture depends on."""

    name: str  # no path
    hash: str  # hex digits of the file's SHA-256, as many as the web UIs write; the first ten are AutoV2
    autov3: str | None = None  # twelve of a safetensors file without its header

    def to_record(self) -> dict[str, Any]:
        """Its fields without what does not apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class LoraRecord:
    """A LoRA that a picture was made with."""

    name: str  # no path
    weight: float
    hash: str  # AutoV2: first 10 hex digits of the file's SHA-256
    tagged: bool  # a tag in the prompt asked for it, no option
    unet_weight: float | None = None  # where the U-Net's is another
    blocks: tuple[float, ...] | None = None  # weights of the U-Net's blocks
    start: int | None = None  # the first sampling step with it, where it is not there from the beginning
    stop: int | None = None  # the first one without
    autov3: str | None = None  # first 12 hex digits of the SHA-256 of a safetensors file without its header

    def to_record(self) -> dict[str, Any]:
        """Its fields without what does not apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def tag(self) -> str:
        """What a prompt would say to ask for it."""
        items = [self.name, f"{self.weight:.10g}"]
        if self.unet_weight is not None:
            items.append(f"{self.unet_weight:.10g}")
        if self.blocks is not None:
            items.append("lbw=" + ",".join(f"{block:.10g}" for block in self.blocks))
        items += [
            f"{name}={step}"
            for name, step in (("start", self.start), ("stop", self.stop))
            if step is not None
        ]
        return f"<lora:{':'.join(items)}>"


@dataclass(frozen=True)
class MaskRecord:
    """What of the init picture was repainted."""

    hash: str | None = None  # `picture_hash` of the mask's file as `read_whole` gives it
    from_alpha: bool | None = None  # the init picture's own transparency was the mask
    extend: str | None = None  # borders that were added, "left=128,top=64"
    kept: bool = True  # every pixel outside the (blurred) mask is the init picture's

    def to_record(self) -> dict[str, Any]:
        """Its fields without what does not apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class TemplateRecord:
    """What prompts were before their wildcards were expanded; `options` hold what became of them."""

    prompt: str
    negative_prompt: str
    seed: int  # of the wildcards


@dataclass(frozen=True)
class Record:
    """All that a picture depends on; the model's weights and the init picture it names by hash.

    It says nothing about the batch, the time or the place: a picture's file is the same whether it was made
    alone or among others. `options.seed` is therefore the picture's own.
    """

    mode: Literal["txt2img", "img2img"]
    options: ResolvedOptions
    model: str  # its name, no path
    model_hash: str  # first 10 hex digits of the SHA-256
    dtype: str
    device: str  # its kind: cpu, cuda, mps
    fit: Fit | None = None  # img2img: how the init picture was brought to size
    init_hash: str | None = None  # img2img: picture_hash of the init picture as read, before fitting
    background: str | None = None  # img2img: the colour of borders and under transparency, unless white
    mask: MaskRecord | None = None  # img2img: what of the init picture was repainted
    loras: tuple[LoraRecord, ...] | None = None  # in the order in which they are added
    embeddings: tuple[AddonRecord, ...] | None = None  # whose vectors stand in the prompts
    vae: AddonRecord | None = None  # in the place of the model's own
    controls: tuple[ControlRecord, ...] | None = None  # in the order in which they were asked for
    upscaler: AddonRecord | None = None  # between two passes
    template: TemplateRecord | None = None  # where prompts had wildcards
    taesd: AddonRecord | None = None  # what drew the picture, with `decoder` "tiny"
    threads: int | None = None  # of the CPU that drew it
    compiled: bool | None = None  # true where torch.compile made the U-Net
    sdscratch: str = __version__

    def to_json(self) -> str:
        """The record as one line of ASCII JSON; what does not apply is left out."""
        own = {name: value for name, value in asdict(self).items() if value is not None}
        for name in ("loras", "embeddings", "controls"):
            if name in own:
                own[name] = [each.to_record() for each in getattr(self, name)]
        for name in {"vae", "upscaler", "taesd", "mask"} & own.keys():
            own[name] = getattr(self, name).to_record()
        for name, value in OFF.items():
            if own["options"][name] == value:
                del own["options"][name]
        return json.dumps({"sdscratch": own.pop("sdscratch"), **own}, separators=(",", ":"))

    def hash(self) -> str:
        """Of the record itself: the infotext says it, so that no character of either can be another."""
        return sha256(self.to_json().encode()).hexdigest()[:AUTOV3]

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            ImageError: not a record that this version understands.
        """
        try:
            values = json.loads(text)
            options = _typed(ResolvedOptions, {**ABSENT, **values.pop("options")})
            if "loras" in values:
                values["loras"] = tuple(_typed(LoraRecord, _with_tuples(each)) for each in values["loras"])
            if "embeddings" in values:
                values["embeddings"] = tuple(_typed(AddonRecord, each) for each in values["embeddings"])
            if "controls" in values:
                values["controls"] = tuple(_typed(ControlRecord, each) for each in values["controls"])
            for name in {"vae", "upscaler", "taesd"} & values.keys():
                values[name] = _typed(AddonRecord, values[name])
            if "mask" in values:
                values["mask"] = _typed(MaskRecord, values["mask"])
            if "template" in values:
                values["template"] = _typed(TemplateRecord, values["template"])
            return _typed(cls, {**values, "options": options})
        # RecursionError: JSON nested deeper than the interpreter's stack
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise ImageError(f"its sdscratch record cannot be read ({error})") from error

    def infotext(self) -> str:
        """The web UIs' text: prompt, negative prompt if there is one, and a line of parameters.

        A LoRA that was not asked for in the prompt is added to it as a tag, as the web UIs would have it.
        A NUL, which PNG text cannot hold, and halves of surrogate pairs become replacement characters.
        """
        options = self.options
        tags = "".join(f" {lora.tag()}" for lora in self.loras or () if not lora.tagged)
        negative = f"{NEGATIVE} {options.negative_prompt}\n" if options.negative_prompt else ""
        said = [f"{key}: {_quoted(value)}" for key, value in self._parameters().items() if value]
        line = ", ".join([*said, self._resources()])
        text = f"{options.prompt}{tags}\n{negative}{line}".replace("\0", "\ufffd")
        return re.sub("[\ud800-\udfff]", "\ufffd", text)

    def _parameters(self) -> dict[str, str]:
        options = self.options
        loras = self.loras or ()
        return {
            "Steps": str(options.steps),
            "Sampler": _title(SAMPLERS, options.sampler),
            "Schedule type": _title(SPACINGS, options.scheduler or ""),
            "CFG scale": f"{options.cfg_scale:.10g}",
            "Seed": str(options.seed),
            "Size": f"{options.width}x{options.height}",
            "Model hash": self.model_hash,
            "Model": self.model,
            "Denoising strength": f"{options.strength:.10g}" if self.mode == "img2img" else "",
            **self._second_pass(),
            "Tiling": "True" if options.seamless == "xy" else "",
            "Tiling axis": options.seamless if options.seamless in ("x", "y") else "",
            "Clip skip": str(options.clip_skip + 1) if options.clip_skip else "",  # theirs counts one more
            "Eta DDIM": f"{options.eta:.10g}" if options.sampler == "ddim" and options.eta else "",
            "Guidance interval": options.cfg_interval or "",
            "DeepCache": str(options.deep_cache) if options.deep_cache > 1 else "",
            **self._mask_parameters(),
            "Image CFG scale": f"{options.image_cfg_scale:.10g}" if options.image_cfg_scale != 1.5 else "",
            "VAE Decoder": "TAESD" if options.decoder == "tiny" else "",
            **sampling_words(options),
            "RNG": options.noise.upper(),  # theirs is a GPU's unless it is said
            "VAE": self.vae.name if self.vae else "",
            "VAE hash": self.vae.hash if self.vae else "",
            "TI hashes": ", ".join(f"{each.name}: {each.hash}" for each in self.embeddings or ()),
            **{f"ControlNet {i}": each.infotext() for i, each in enumerate(self.controls or ())},
            "Lora hashes": ", ".join(f"{lora.name}: {lora.autov3 or lora.hash}" for lora in loras),
            "Template": self.template.prompt if self.template else "",
            "Negative Template": self.template.negative_prompt if self.template else "",
            "Record hash": self.hash(),
            "Version": f"sdscratch {self.sdscratch}",
        }

    def _second_pass(self) -> dict[str, str]:
        """The second pass in the web UIs' words."""
        options = self.options
        if options.hires is None:
            return {}
        upscaler = self.upscaler.name if self.upscaler else spelled_upscaler(options.hires_upscaler)
        scale = options.hires_cfg_scale
        return {
            "Denoising strength": f"{options.hires_strength:.10g}",
            "Hires upscale": f"{options.hires:.10g}",
            "Hires steps": str(options.hires_steps or ""),
            "Hires upscaler": upscaler,
            "Hires sampler": _title(SAMPLERS, options.hires_sampler or ""),
            "Hires schedule type": _title(SPACINGS, options.hires_scheduler or ""),
            "Hires CFG Scale": "" if scale is None else f"{scale:.10g}",
            "Hires prompt": options.hires_prompt or "",
            "Hires negative prompt": options.hires_negative_prompt or "",
        }

    def _mask_parameters(self) -> dict[str, str]:
        """The web UI's names for what a mask asks."""
        options = self.options
        if self.mask is None:
            return {}
        padding = options.only_masked
        return {
            "Mask blur": f"{options.mask_blur:.10g}",
            "Mask mode": "Inpaint not masked" if options.mask_invert else "",
            "Masked content": MASKED_CONTENT.get(options.masked_content, options.masked_content),
            "Inpaint area": "" if padding is None else "Only masked",
            "Masked area padding": "" if padding is None else str(padding),
            "Soft mask": "True" if options.soft_mask else "",
            "Extended": self.mask.extend or "",
            "Unmasked pixels": "kept" if self.mask.kept else "",
        }

    def _resources(self) -> str:
        """`Hashes` as CivitAI reads it: JSON without quotation marks around it, at the line's end.

        Colons, commas and braces in names are escaped, so that A1111 finds no further keys in it.
        """
        hashes = {"model": self.model_hash}
        if self.vae:
            hashes["vae"] = self.vae.hash[:AUTOV2]
        hashes |= {f"lora:{lora.name}": lora.hash for lora in self.loras or ()}
        hashes |= {f"embed:{each.name}": each.hash[:AUTOV2] for each in self.embeddings or ()}
        pairs = (f"{_escaped(json.dumps(name))}: {json.dumps(value)}" for name, value in hashes.items())
        return f"{HASHES}: {{{', '.join(pairs)}}}"


def _title(rows: Mapping[str, Any], name: str) -> str:
    """What the web UIs list a sampler or a spacing as; where they have none, theirs would look like this."""
    return str(rows[name].title) if name in rows else name


def _escaped(text: str) -> str:
    return re.sub("[:,{}]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _with_tuples(values: Any) -> dict[str, Any]:
    """JSON's lists as tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _quoted(value: str) -> str:
    """As `quote`, and also where blanks at the ends or a quotation mark would not come back."""
    plain = value == value.strip() and not value.startswith('"')
    return str(quote(value)) if plain else json.dumps(value, ensure_ascii=False)


def _typed(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass made from untrusted values, each of its declared type.

    Raises:
        TypeError: a value of another type, or a name that is unknown or missing.
    """
    hints = hints_of(kind)
    for name, value in values.items():
        if name not in hints:
            raise TypeError(f"it has a field {short(name)}, unknown to version {__version__}")
        if not _fits(value, hints[name]):
            raise TypeError(f"its {name} is {short(value)}")
    return kind(**values)


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:  # tuple[X, ...]
        return isinstance(value, tuple) and all(_fits(item, get_args(hint)[0]) for item in value)
    if get_args(hint):  # X | None
        return any(_fits(value, choice) for choice in get_args(hint))
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint  # no isinstance: True is an int to it
