"""How noise becomes a picture."""

from __future__ import annotations

from dataclasses import dataclass

from sdscratch.diffusion.conventions import CONVENTIONS
from sdscratch.diffusion.spacing import parse_sigmas
from sdscratch.diffusion.spellings import parse_sampler, parse_scheduler
from sdscratch.options.fields import MAX_SEED, OWN, SAMPLERS, SAMPLING, SCHEDULERS, asked

__all__ = ["SamplingOptions"]


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """The panel Sampling."""

    like: str = asked(
        "sdscratch",
        f"Tool to draw like: {', '.join(CONVENTIONS)}. Prompts, noise levels, noise and the count of steps "
        "are read as it reads them.",
        SAMPLING,
        choices=tuple(CONVENTIONS),
        before="sdscratch",
    )
    noise: str = asked(
        None,
        "Noise: cpu, or nv, what an NVIDIA GPU would draw, on any device.",
        SAMPLING,
        choices=("cpu", "nv"),
        default="as --like: cpu",
        before="cpu",
    )
    seed: int = asked(
        None,
        "Seed of the noise, 0 to 2⁶³−1; picture i has seed + i.",
        SAMPLING,
        aliases=("-s",),
        low=0,
        high=MAX_SEED,
        default="random, always printed",
    )
    steps: int = asked(
        None, "Number of denoising steps.", SAMPLING, low=1, high=1000, default=f"{OWN}; SD 1.x: 30"
    )
    cfg_scale: float = asked(
        None,
        "Guidance, how closely to follow the prompt; 1 is none.",
        SAMPLING,
        aliases=("--cfg", "--scale"),
        low=0,
        high=1000,
        default=f"{OWN}; SD 1.x: 7.5",
    )
    sampler: str = asked(
        None,
        f"Sampler: {', '.join(SAMPLERS)}; in any tool's spelling.",
        SAMPLING,
        default=f"{OWN}; SD 1.x: ddpm",
        check=parse_sampler,
    )
    scheduler: str | None = asked(
        None,
        f"Spacing of the noise levels: {', '.join(SCHEDULERS)}.",
        SAMPLING,
        default="the sampler's own",
        check=parse_scheduler,
    )
    sigmas: str | None = asked(
        None,
        "Noise levels of your own in place of a scheduler's, falling, with commas between, like "
        "14.6,7,2.5,0.9,0; img2img goes through all of them.",
        SAMPLING,
        metavar="LIST",
        default="the scheduler's",
        check=parse_sigmas,
        off=True,
    )
    prediction: str | None = asked(
        None,
        "Prediction of the U-Net: epsilon (the noise) or v (the velocity), for files that do not say.",
        SAMPLING,
        choices=("epsilon", "v"),
        default=OWN,
        off=True,
    )
    zero_snr: bool | None = asked(
        None,
        "Noise levels of a model trained with zero terminal SNR, for files that do not say.",
        SAMPLING,
        default=OWN,
        off=True,
    )
    eta: float = asked(0.0, "Share of fresh noise in ddim, 0 to 1.", SAMPLING, low=0, high=1)
    clip_skip: int = asked(
        0,
        "Number of last layers of the text encoder to leave out (the web UIs count one more).",
        SAMPLING,
        low=0,
        high=11,
    )
