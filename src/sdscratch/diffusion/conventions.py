"""What `--like` stands for: one row a tool, of everything in which the tools differ.

Facts read in the tools' own sources, at the versions named beside each row; `docs/dialects.md` explains
them. This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sdscratch.errors import UsageError

__all__ = ["CONVENTIONS", "Convention", "convention_of", "sampler_parameters"]


@dataclass(frozen=True)
class Convention:
    """How one tool reads what it is asked for.

    Attributes:
        syntax: of prompts, a name of `text.reading.SYNTAXES`.
        emphasis: what weights do to the encoded prompt: original (the mean restored), interpolate (from the
            empty prompt) or none.
        comma_tokens: how far back a comma may lie at which a full chunk is cut; 0: nothing is moved.
        padded_contexts: contexts of unequal length meet padded in one batch, not in two calls.
        spacings: whose formulas the names of spacings stand for.
        timesteps: what the network is told: the interpolated timestep, the nearest whole one, or what the
            sampler's class in diffusers tells it.
        start: what plain noise is multiplied by: σ₀; √(1+σ₀²) where sampling starts at σmax ("full"); or
            as the sampler's class in diffusers does.
        strength: how image-to-image counts its steps (`spacing.shortened`).
        posterior: what image-to-image takes of an encoded picture.
        noise: whose generator: an NVIDIA GPU's (nv) or the CPU's.
        draws: where samplers' noise comes from: each picture's generator goes on after the start noise; or it
            begins anew at the seed, one for the whole batch.
        clip_skip_none: the number that means that no layer is skipped.
        sigmas_in_float32: when ᾱ is rounded to float32 before σ is made of it.
        steps_offset: where whole strides begin (diffusers' `steps_offset`).
        rescales: what `--rescale-cfg` rescales: what the network predicts, or the velocity that it stands
            for.
        source: where this was read.
    """

    name: str
    syntax: Literal["a1111", "comfyui", "kohya", "sdcpp", "plain"]
    emphasis: Literal["original", "interpolate", "none"]
    spacings: Literal["diffusers", "webui", "comfyui"]
    timesteps: Literal["fractional", "nearest", "sampler"]
    start: Literal["sigma", "full", "sampler"]
    strength: Literal["diffusers", "webui", "comfyui"]
    posterior: Literal["sample", "mean"]
    noise: Literal["cpu", "nv"]
    draws: Literal["continued", "batch"]
    clip_skip_none: Literal[0, 1]
    source: str
    comma_tokens: int = 0
    padded_contexts: bool = False
    sigmas_in_float32: Literal["always", "zero_snr", "never"] = "never"
    steps_offset: int = 1
    rescales: Literal["prediction", "velocity"] = "prediction"

    @property
    def encodes_with_noise(self) -> bool:
        """Whether an init picture's latent takes the first of the picture's noise.

        The web UIs sample it too, but with noise that depends on no seed; the mean is the nearest to that.
        """
        return self.posterior == "sample" and self.strength == "diffusers"


CONVENTIONS: Mapping[str, Convention] = {
    row.name: row
    for row in (
        Convention(
            "sdscratch",
            syntax="a1111",
            emphasis="original",
            comma_tokens=20,
            spacings="diffusers",
            timesteps="sampler",
            start="sampler",
            strength="diffusers",
            posterior="sample",
            noise="cpu",
            draws="continued",
            clip_skip_none=0,
            source="diffusers' arithmetic, A1111's prompts",
        ),
        Convention(
            "a1111",
            syntax="a1111",
            emphasis="original",
            comma_tokens=20,
            spacings="webui",
            timesteps="fractional",
            start="sigma",
            strength="webui",
            posterior="sample",
            noise="nv",
            draws="continued",
            clip_skip_none=1,
            sigmas_in_float32="always",
            source="AUTOMATIC1111 1.10: modules/sd_schedulers.py, sd_samplers_*.py, rng.py, prompt_parser.py",
        ),
        Convention(
            "forge",
            syntax="a1111",
            emphasis="original",
            comma_tokens=20,
            spacings="webui",
            timesteps="nearest",
            start="sigma",
            strength="webui",
            posterior="sample",
            noise="nv",
            draws="continued",
            clip_skip_none=1,
            sigmas_in_float32="zero_snr",
            source="Forge dfdcbab6: backend/modules/k_prediction.py, modules/sd_samplers_kdiffusion.py",
        ),
        Convention(
            "comfyui",
            syntax="comfyui",
            emphasis="interpolate",
            spacings="comfyui",
            timesteps="nearest",
            start="full",
            strength="comfyui",
            posterior="mean",
            noise="cpu",
            draws="batch",
            clip_skip_none=1,
            rescales="velocity",
            source="ComfyUI a125cd84: comfy/samplers.py, model_sampling.py, sd1_clip.py, sample.py, "
            "comfy_extras/nodes_model_advanced.py",
        ),
        Convention(
            "diffusers",
            syntax="plain",
            emphasis="none",
            spacings="diffusers",
            timesteps="sampler",
            start="sampler",
            strength="diffusers",
            posterior="sample",
            noise="cpu",
            draws="continued",
            clip_skip_none=0,
            source="diffusers 0.42: schedulers made from Stable Diffusion 1.5's configuration",
        ),
        Convention(
            "kohya",
            syntax="kohya",
            emphasis="original",
            spacings="diffusers",
            timesteps="sampler",
            start="sampler",
            strength="diffusers",
            posterior="sample",
            noise="nv",
            draws="continued",
            clip_skip_none=1,
            steps_offset=0,
            source="sd-scripts 48d368fa: gen_img.py, whose schedulers lack steps_offset",
        ),
        Convention(
            "sdcpp",
            syntax="sdcpp",
            emphasis="original",
            spacings="comfyui",
            timesteps="fractional",
            start="sigma",
            strength="webui",
            posterior="sample",
            noise="nv",
            draws="continued",
            clip_skip_none=1,
            source="stable-diffusion.cpp 97d29908: runtime/denoiser.hpp, conditioning/conditioner.hpp",
        ),
    )
}


# What samplers do otherwise in some tools than by default (which is k-diffusion's and the web UIs' way).
IN_COMFYUI: Mapping[str, Mapping[str, Any]] = {
    "lms": {"ends_denoised": True},
    "ipndm": {"ends_denoised": True},
    "ipndm_v": {"ends_denoised": True},
    "euler": {"spare_draws": False},
    "heun": {"spare_draws": False},
    "heunpp2": {"spare_draws": False},
    "dpm2": {"spare_draws": False},
}
IN_DIFFUSERS: Mapping[str, Mapping[str, Any]] = {
    "unipc": {"variant": "bh2", "order": 2, "ends_denoised": True},
    "unipc_bh2": {"order": 2, "ends_denoised": True},
}
PARAMETERS = {
    "comfyui": IN_COMFYUI,
    "sdscratch": IN_DIFFUSERS,
    "diffusers": IN_DIFFUSERS,
    "kohya": IN_DIFFUSERS,
}


def sampler_parameters(like: str, sampler: str) -> dict[str, Any]:
    """What a sampler is to be called with to do as a tool does."""
    return dict(PARAMETERS.get(like, {}).get(sampler, {}))


def convention_of(name: str) -> Convention:
    """The row of a tool.

    Raises:
        UsageError: no such tool.
    """
    if name not in CONVENTIONS:
        raise UsageError(f"no tool is called {name!r}; --like takes one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]
