"""From a network to a denoiser, in wrappers: network → prediction → estimate of x₀.

A sampler sees a `Denoiser` and cannot tell what stands behind it. What acts on the network's prediction
(guidance) wraps a `Predictor`; what acts on the estimate (inpainting) can wrap the `Denoiser`.
Shapes: n pictures, c channels, h × w positions, t tokens of d.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    "Pull",
    "by_evaluation",
    "composed_predictor",
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
    return composed_predictor(network, [Pull(prompt)], negative, scale)


@dataclass(frozen=True)
class Pull:
    """One of the prompts that pull at a picture."""

    prompt: Conditioning
    weight: float = 1.0


def composed_predictor(
    network: Network,
    pulls: Sequence[Pull],
    negative: Conditioning,
    scale: float,
    *,
    filler: Tensor | None = None,
) -> Predictor:
    """Guidance by several prompts: e₋ + Σ wᵢ·s·(eᵢ − e₋) (Liu et al. 2022, eq. 11), e₋ the negative one's.

    The weights are not made to sum to one: two prompts of weight 1 pull twice as hard. At a scale of 1 or
    less a single prompt of weight 1 is seen alone.

    Args:
        filler: [1, t, d], the empty prompt's context: contexts of unequal length are filled up with it and
            meet in one batch. Without one each length is a call of its own, as the web UI's default is.
    """
    if scale <= 1.0 and len(pulls) == 1 and pulls[0].weight == 1.0:
        return conditioned(network, pulls[0].prompt)
    told = [negative, *(pull.prompt for pull in pulls)]
    if filler is not None:
        told = filled_up(told, filler)

    def predict(x: Tensor, timestep: float) -> Tensor:
        without, *others = predictions(network, told, x, timestep)
        result = without
        for pull, prediction in zip(pulls, others, strict=True):
            result = result + scale * pull.weight * (prediction - without)
        return result

    return predict


def predictions(network: Network, told: Sequence[Conditioning], x: Tensor, timestep: float) -> list[Tensor]:
    """What the network says to each conditioning: one batch for all whose contexts are as long."""
    n = x.shape[0]
    lengths = [conditioning.context.shape[1] for conditioning in told]
    found: dict[int, Tensor] = {}
    for length in dict.fromkeys(lengths):
        chosen = [index for index, own in enumerate(lengths) if own == length]
        rows = Conditioning.stack([told[index].expand(n) for index in chosen])
        both = conditioned(network, rows)(torch.cat([x] * len(chosen)), timestep)
        found |= dict(zip(chosen, both.chunk(len(chosen)), strict=True))
    return [found[index] for index in range(len(told))]


def filled_up(told: Sequence[Conditioning], filler: Tensor) -> list[Conditioning]:
    """Conditionings of one length: the shorter ones go on with the empty prompt's context."""
    most = max(conditioning.context.shape[1] for conditioning in told)
    filled = []
    for conditioning in told:
        context = conditioning.context
        times, rest = divmod(most - context.shape[1], filler.shape[1])
        if rest:
            raise ValueError(f"{most - context.shape[1]} tokens are no multiple of the filler's")
        more = filler.expand(context.shape[0], -1, -1).repeat(1, times, 1)
        filled.append(replace(conditioning, context=torch.cat([context, more], dim=1)))
    return filled


def by_evaluation(choose: Callable[[int], Predictor]) -> Predictor:
    """A predictor that counts how often it was asked, from 0: prompts may change on the way."""
    evaluation = 0

    def predict(x: Tensor, timestep: float) -> Tensor:
        nonlocal evaluation
        now, evaluation = choose(evaluation), evaluation + 1
        return now(x, timestep)

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
