"""What the diffusion tests share: random networks, and diffusers' samplers run as its pipelines run them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from sdscratch.models.conditioning import Conditioning

# The facts of Stable Diffusion 1.5's published scheduler configuration (a PNDM scheduler's).
SD15_SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}

REFERENCE_CLASSES = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler",
}
# those with which fewer things can be combined
MORE_CLASSES = {
    "plms": "PNDMScheduler",
    "lms": "LMSDiscreteScheduler",
    "dpm2": "KDPM2DiscreteScheduler",
    "dpm2_a": "KDPM2AncestralDiscreteScheduler",
    "dpm++2m_sde": "DPMSolverMultistepScheduler",
    "lcm": "LCMScheduler",
    "tcd": "TCDScheduler",
    "unipc": "UniPCMultistepScheduler",
}


SAMPLERS = tuple(REFERENCE_CLASSES)
# What each of these samplers can be combined with in diffusers, and k-diffusion's own
SPACINGS = ("leading", "trailing", "linspace", "normal", "karras", "exponential")


def reference_scheduler(sampler: str, **changes: Any) -> Any:
    """diffusers' own class of a sampler, made from SD 1.5's configuration."""
    import diffusers

    return getattr(diffusers, (REFERENCE_CLASSES | MORE_CLASSES)[sampler]).from_config(
        SD15_SCHEDULER, **changes
    )


Network = Callable[[Tensor, Tensor, Tensor], Tensor]


def random_network(kind: str, seed: int) -> Network:
    """A smooth nonlinear function of x [n,4,h,w], timesteps [n] and contexts [n,t,d], of about unit size.

    It computes in x's precision; each picture's output depends on that picture alone.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    mix1, mix2, bias, rates = draw(8, 4) / 2, draw(4, 8) / math.sqrt(8), draw(8), draw(8)

    def neighbours(x: Tensor) -> Tensor:
        return 0.6 * x + 0.3 * x.roll(1, -1) - 0.2 * x.roll(1, -2)

    def condition(timesteps: Tensor, told: Conditioning, like: Tensor) -> Tensor:
        time = timesteps.to(like.dtype)[:, None] / 1000
        waves = torch.sin(3 * time * rates.to(like) + bias.to(like)) + 0.3 * time
        return (waves + told.context.to(like.dtype).mean((1, 2))[:, None])[:, :, None, None]  # [n, 8, 1, 1]

    def perceptron(x: Tensor, timesteps: Tensor, told: Conditioning) -> Tensor:
        hidden = torch.einsum("hc,ncyx->nhyx", mix1.to(x), neighbours(x)) + condition(timesteps, told, x)
        return torch.einsum("ch,nhyx->ncyx", mix2.to(x), torch.tanh(hidden))

    def waves(x: Tensor, timesteps: Tensor, told: Conditioning) -> Tensor:
        return torch.sin(1.3 * neighbours(x) + condition(timesteps, told, x)[:, :4]) + 0.2 * x.flip(1)

    def shrinking(x: Tensor, timesteps: Tensor, told: Conditioning) -> Tensor:
        # near what a trained network does: most of a noisy latent is noise
        level = 0.2 + 0.8 * timesteps.to(x.dtype)[:, None, None, None] / 1000
        return level * x + (1 - level) * torch.tanh(x.roll(1, 1) + condition(timesteps, told, x)[:, 4:])

    return {"perceptron": perceptron, "waves": waves, "shrinking": shrinking}[kind]


NETWORKS = ("perceptron", "waves", "shrinking")


@dataclass
class Trajectory:
    """Everything a network was shown during one sampling run, and what came of it."""

    timesteps: list[float] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)  # in variance-preserving scale
    end: Tensor = field(default_factory=lambda: torch.empty(0))  # what the decoder would get

    def watching(self, network: Network, halves: int) -> Network:
        """The network, noting what it is shown (once where both halves of guidance are shown the same)."""

        def watched(x: Tensor, timesteps: Tensor, told: Conditioning) -> Tensor:
            self.timesteps.append(float(timesteps[0]))
            self.inputs.append(x.chunk(halves)[0].clone())
            return network(x, timesteps, told)

        return watched


def reference_trajectory(
    scheduler: Any,
    network: Network,
    contexts: Sequence[Tensor],
    seeds: Sequence[int],
    shape: tuple[int, ...],
    steps: int,
    *,
    scale: float = 1.0,
    eta: float = 0.0,
    init: Tensor | None = None,
    strength: float = 1.0,
) -> Trajectory:
    """What diffusers' text-to-image pipeline does (image-to-image with `init`) around a U-Net.

    Args:
        contexts: negative prompt and prompt, each [n, t, d].
    """
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import (
        StableDiffusionImg2ImgPipeline,
    )
    from diffusers.utils.torch_utils import randn_tensor

    seen = Trajectory()
    guidance = scale > 1.0
    watched = seen.watching(network, 2 if guidance else 1)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    batch = (len(seeds), *shape)
    context = torch.cat(list(contexts)) if guidance else contexts[1]

    scheduler.set_timesteps(steps)
    if init is None:
        timesteps = scheduler.timesteps
        latents = randn_tensor(batch, generator=generators) * scheduler.init_noise_sigma
    else:
        pipeline = SimpleNamespace(scheduler=scheduler)
        timesteps, _ = StableDiffusionImg2ImgPipeline.get_timesteps(pipeline, steps, strength, "cpu")
        noise = randn_tensor(batch, generator=generators)
        latents = scheduler.add_noise(init, noise, timesteps[:1].repeat(len(seeds)))

    taken = inspect.signature(scheduler.step).parameters
    extra: dict[str, Any] = {"generator": generators} if "generator" in taken else {}
    if type(scheduler).__name__ == "DDIMScheduler":
        extra["eta"] = eta
    for t in timesteps:
        shown = scheduler.scale_model_input(torch.cat([latents] * 2) if guidance else latents, t)
        output = watched(shown, t.expand(shown.shape[0]), Conditioning(context))
        if guidance:
            without, with_prompt = output.chunk(2)
            output = without + scale * (with_prompt - without)
        latents = scheduler.step(output, t, latents, **extra, return_dict=False)[0]
    seen.end = latents
    return seen


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """max|Δ| / max|reference|."""
    assert ours.shape == reference.shape
    return float((ours.double() - reference.double()).abs().max() / reference.double().abs().max())
