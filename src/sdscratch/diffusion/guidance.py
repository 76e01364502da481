"""From a network to a denoiser, in wrappers: network → prediction → estimate of x₀.

A sampler sees a `Denoiser` and cannot tell what stands behind it. What acts on the network's prediction
(guidance) wraps a `Predictor`; what acts on the estimate (inpainting) can wrap the `Denoiser`.
Shapes: n pictures, c channels, h × w positions, t tokens of d.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from sdscratch.diffusion.samplers import Denoiser
from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.models.conditioning import Conditioning

__all__ = [
    "Combine",
    "GuidedDenoiser",
    "Network",
    "Prediction",
    "Predictor",
    "both_predictor",
    "classifier_free",
    "conditioned",
    "denoiser",
    "guided",
    "network_denoiser",
]

# (x [n, c, h, w] in variance-preserving scale, timesteps [n], n rows of conditioning) → noise or velocity
Network = Callable[[Tensor, Tensor, Conditioning], Tensor]
# the same for one timestep and a conditioning that is settled
Predictor = Callable[[Tensor, float], Tensor]
# the same without the prompt, and with it
BothPredictor = Callable[[Tensor, float], tuple[Tensor, Tensor]]
# (what is predicted without the prompt, with it, σ) → what is gone by
Combine = Callable[[Tensor, Tensor, float], Tensor]
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
    prompt: Conditioning | Sequence[tuple[Conditioning, float]],
    negative: Conditioning,
    scale: float,
    padding: Tensor | None = None,
    combine: Combine | None = None,
    on_estimates: bool = False,
) -> Denoiser:
    """A network under classifier-free guidance as a denoiser; arguments as of `network_denoiser`.

    Args:
        prompt: what the network is told, one row or n; or the parts of a prompt, with weights.
        negative: what it is told besides, one row or n.
        scale: 1 or less means no guidance: the network sees the prompt alone.
        padding: as of `both_predictor`.
        combine: another way to guide than Ho & Salimans' (tricks.py).
        on_estimates: combine estimates of x₀, not what the network predicts.
    """
    parts = [(prompt, 1.0)] if isinstance(prompt, Conditioning) else list(prompt)
    if scale <= 1.0 and len(parts) == 1:
        return denoiser(conditioned(network, parts[0][0]), path, prediction)
    both = both_predictor(network, parts, negative, padding)
    return GuidedDenoiser(both, path, prediction, combine or classifier_free(scale), on_estimates)


def conditioned(network: Network, conditioning: Conditioning) -> Predictor:
    """The network with its conditioning (one row, or n) settled."""

    def predict(x: Tensor, timestep: float) -> Tensor:
        n = x.shape[0]
        timesteps = torch.full((n,), timestep, dtype=torch.float32, device=x.device)
        return network(x, timesteps, conditioning.expand(n))

    return predict


def classifier_free(scale: float) -> Combine:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6). `scale` counts as users do, s = 1 + w."""
    return lambda without, with_prompt, sigma: without + scale * (with_prompt - without)


def both_predictor(
    network: Network,
    parts: Sequence[tuple[Conditioning, float]],
    negative: Conditioning,
    padding: Tensor | None = None,
) -> BothPredictor:
    """What a network predicts without the prompt and with it; one batch where contexts have one length.

    Args:
        parts: the prompt, or its parts with weights: without + Σ wᵢ·(withᵢ − without) counts as one
            prediction (Liu et al. 2022, eq. 11; the web UIs' AND).
        negative: what the network is told without the prompt.
        padding: [1, t, d], the empty prompt's context, with which shorter ones are filled up; None: contexts
            of other lengths are calls of their own, as is the web UIs' default.
    """
    told = padded([negative, *(part for part, _ in parts)], padding)
    weights = [weight for _, weight in parts]

    def predict(x: Tensor, timestep: float) -> tuple[Tensor, Tensor]:
        without, *with_parts = predict_all(network, told, x, timestep)
        if weights == [1.0]:
            return without, with_parts[0]
        pulls = (weight * (part - without) for weight, part in zip(weights, with_parts, strict=True))
        return without, sum(pulls, without)

    return predict


def predict_all(network: Network, told: Sequence[Conditioning], x: Tensor, timestep: float) -> list[Tensor]:
    """A prediction for each conditioning, in one batch (the first first) or one after another."""
    n = x.shape[0]
    if len({each.context.shape[1] for each in told}) > 1:
        return [conditioned(network, each)(x, timestep) for each in told]
    together = Conditioning.stack([each.expand(n) for each in told])
    predictions = conditioned(network, together)(torch.cat([x] * len(told)), timestep)
    return list(predictions.chunk(len(told)))


def padded(told: Sequence[Conditioning], padding: Tensor | None) -> list[Conditioning]:
    """Conditionings whose contexts are as long as the longest, where there is something to fill up with."""
    longest = max(each.context.shape[1] for each in told)
    if padding is None:
        return list(told)

    def fill(each: Conditioning) -> Conditioning:
        missing = longest - each.context.shape[1]
        if not missing:
            return each
        times = -(-missing // padding.shape[1])
        filling = padding.to(each.context).repeat(1, times, 1)[:, :missing]
        rows = filling.expand(each.context.shape[0], -1, -1)
        return replace(each, context=torch.cat([each.context, rows], 1))

    return [fill(each) for each in told]


class GuidedDenoiser:
    """A denoiser under guidance, which tells the estimate without the prompt too (CFG++ asks for it)."""

    def __init__(
        self,
        both: BothPredictor,
        path: SigmaSchedule,
        prediction: Prediction,
        combine: Combine,
        on_estimates: bool,
    ) -> None:
        self._both, self._path, self._combine = both, path, combine
        self._estimate, self._on_estimates = ESTIMATES[prediction], on_estimates
        self._newest: tuple[Tensor, float, Tensor] | None = None  # x, σ, the prediction without

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor:
        """The guided estimate of x₀."""
        without, with_prompt = self._predict(x, sigma)
        if self._on_estimates:
            estimates = [self._estimate(each, x, sigma) for each in (without, with_prompt)]
            return self._combine(estimates[0], estimates[1], sigma)
        return self._estimate(self._combine(without, with_prompt, sigma), x, sigma)

    def unconditional(self, x: Tensor, sigma: float, /) -> Tensor:
        """The estimate of x₀ without the prompt; of the newest x at no cost."""
        newest = self._newest
        known = newest is not None and newest[0] is x and newest[1] == sigma
        without = newest[2] if newest is not None and known else self._predict(x, sigma)[0]
        return self._estimate(without, x, sigma)

    def _predict(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        without, with_prompt = self._both(x / math.sqrt(1.0 + sigma**2), self._path.timestep(sigma))
        self._newest = x, sigma, without
        return without, with_prompt


def denoiser(predict: Predictor, path: SigmaSchedule, prediction: Prediction) -> Denoiser:
    """The estimate of x₀ that a prediction of noise or velocity stands for."""
    estimate = ESTIMATES[prediction]

    def denoise(x: Tensor, sigma: float, /) -> Tensor:
        return estimate(predict(x / math.sqrt(1.0 + sigma**2), path.timestep(sigma)), x, sigma)

    return denoise


def from_noise(noise: Tensor, x: Tensor, sigma: float) -> Tensor:
    """From x = x₀ + σ·ε: x₀ = x − σ·ε."""
    return x - sigma * noise


def from_velocity(velocity: Tensor, x: Tensor, sigma: float) -> Tensor:
    """The velocity of Salimans & Ho (2022, appendix D), v = √ᾱ·ε − √(1−ᾱ)·x₀: x₀ = x/(1+σ²) − v·σ/√(1+σ²)."""
    scale = math.sqrt(1.0 + sigma**2)
    return x / scale**2 - sigma / scale * velocity


ESTIMATES: Mapping[Prediction, Callable[[Tensor, Tensor, float], Tensor]] = {
    "epsilon": from_noise,
    "v": from_velocity,
}
