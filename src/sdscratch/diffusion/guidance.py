"""From a network to a denoiser, in wrappers: network → prediction → estimate of x₀.

A sampler sees a `Denoiser` and cannot tell what stands behind it. What acts on the network's prediction
(guidance) wraps a `Predictor`; what acts on the estimate (inpainting) can wrap the `Denoiser`.
Shapes: n pictures, c channels, h × w positions, t tokens of d.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from sdscratch.diffusion.samplers import Denoiser
from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.models.conditioning import Conditioning

__all__ = [
    "Network",
    "Prediction",
    "Predictor",
    "conditioned",
    "denoiser",
    "guided",
    "guided_predictor",
    "network_denoiser",
]

# (x [n, c, h, w] in variance-preserving scale, timesteps [n], n rows of conditioning) → noise or velocity
Network = Callable[[Tensor, Tensor, Conditioning], Tensor]
# the same for one timestep and a conditioning that is settled
Predictor = Callable[[Tensor, float], Tensor]
Prediction = Literal["epsilon", "v"]


def network_denoiser(
    network: Network, path: SigmaSchedule, prediction: Prediction, prompt: Conditioning
) -> Denoiser:
    """A network and one prompt as a denoiser.

    Args:
        network: what predicts.
        path: tells which timestep a sigma is.
        prediction: what the network was trained to predict: the noise ("epsilon") or the velocity ("v").
        prompt: what the network is told, one row for every picture, or n.
    """
    return denoiser(conditioned(network, prompt), path, prediction)


def guided(
    network: Network,
    path: SigmaSchedule,
    prediction: Prediction,
    *,
    prompt: Conditioning,
    negative: Conditioning,
    scale: float,
) -> Denoiser:
    """A network under classifier-free guidance as a denoiser; arguments as of `network_denoiser`.

    Args:
        prompt, negative: what the network is told, each one row or n.
        scale: 1 or less means no guidance: the network sees the prompt alone.
    """
    return denoiser(guided_predictor(network, prompt, negative, scale), path, prediction)


def conditioned(network: Network, conditioning: Conditioning) -> Predictor:
    """The network with its conditioning (one row, or n) settled."""

    def predict(x: Tensor, timestep: float) -> Tensor:
        n = x.shape[0]
        timesteps = torch.full((n,), timestep, dtype=torch.float32, device=x.device)
        return network(x, timesteps, conditioning.expand(n))

    return predict


def guided_predictor(
    network: Network, prompt: Conditioning, negative: Conditioning, scale: float
) -> Predictor:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6), both halves in one batch, the negative first.

    `scale` counts as users do, s = 1 + w. It acts on what the network predicts; on the estimates of x₀ it
    would be the same but for rounding, and this way rounds as diffusers does.
    """
    if scale <= 1.0:
        return conditioned(network, prompt)

    def predict(x: Tensor, timestep: float) -> Tensor:
        n = x.shape[0]
        halves = Conditioning.stack([negative.expand(n), prompt.expand(n)])
        both = conditioned(network, halves)(torch.cat([x, x]), timestep)
        without, with_prompt = both.chunk(2)
        return without + scale * (with_prompt - without)

    return predict


def denoiser(predict: Predictor, path: SigmaSchedule, prediction: Prediction) -> Denoiser:
    """The estimate of x₀ that a prediction of noise or velocity stands for.

    From x = x₀ + σ·ε: x₀ = x − σ·ε. The velocity of Salimans & Ho (2022, appendix D), v = √ᾱ·ε − √(1−ᾱ)·x₀,
    gives x₀ = x/(1+σ²) − v·σ/√(1+σ²).
    """

    def denoise_epsilon(x: Tensor, sigma: float) -> Tensor:
        return x - sigma * predict(x / math.sqrt(1.0 + sigma**2), path.timestep(sigma))

    def denoise_v(x: Tensor, sigma: float) -> Tensor:
        scale = math.sqrt(1.0 + sigma**2)
        return x / scale**2 - sigma / scale * predict(x / scale, path.timestep(sigma))

    return denoise_v if prediction == "v" else denoise_epsilon
