"""From a network to a denoiser, in wrappers: network → prediction → estimate of x₀.

A sampler sees a `Denoiser` and cannot tell what stands behind it. What acts on the network's prediction
(guidance) wraps a `Predictor`; what acts on the estimate (inpainting) can wrap the `Denoiser`.
Shapes: n pictures, c channels, h × w positions, t tokens of d.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal, TypeVar

import torch
from torch import Tensor

from sdscratch.diffusion.samplers import Denoiser
from sdscratch.diffusion.spacing import SigmaSchedule
from sdscratch.models.conditioning import Conditioning

__all__ = [
    "Combine",
    "Guidance",
    "GuidedDenoiser",
    "Network",
    "PairPredictor",
    "Prediction",
    "Predictor",
    "Pull",
    "by_evaluation",
    "classifier_free",
    "conditioned",
    "denoiser",
    "guided",
    "network_denoiser",
    "pair_predictor",
    "rescaled",
    "twice",
]

# (x [n, c, h, w] in variance-preserving scale, timesteps [n], n rows of conditioning) → noise or velocity
Network = Callable[[Tensor, Tensor, Conditioning], Tensor]
# the same for one timestep and a conditioning that is settled
Predictor = Callable[[Tensor, float], Tensor]
# the same without the prompt, with it, and where attention is perturbed too, with it and that
PairPredictor = Callable[[Tensor, float], tuple[Tensor, ...]]
# (what is predicted without the prompt, with it, σ) → what is gone by
Combine = Callable[[Tensor, Tensor, float], Tensor]
Prediction = Literal["epsilon", "v"]
Kind = Literal["epsilon", "v", "estimate"]  # of what is known of x: a prediction, or the estimate of x₀


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
    prompt: Conditioning | Sequence[Pull],
    negative: Conditioning,
    scale: float,
    filler: Tensor | None = None,
    guidance: Guidance | None = None,
) -> Denoiser:
    """A network under classifier-free guidance as a denoiser; arguments as of `network_denoiser`.

    Args:
        prompt: what the network is told, one row or n; or several prompts.
        negative: what it is told besides, one row or n.
        scale: 1 or less means no guidance: the network sees the prompt alone, if it is one of weight 1.
        filler: as of `pair_predictor`.
        guidance: another than Ho & Salimans' of that scale.
    """
    pulls = [Pull(prompt)] if isinstance(prompt, Conditioning) else list(prompt)
    if scale <= 1.0 and len(pulls) == 1 and pulls[0].weight == 1.0:
        return denoiser(conditioned(network, pulls[0].prompt), path, prediction)
    pair = pair_predictor(network, pulls, negative, filler=filler)
    return GuidedDenoiser(pair, path, prediction, guidance or Guidance(classifier_free(scale)))


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


@dataclass(frozen=True)
class Pull:
    """One of the prompts that pull at a picture."""

    prompt: Conditioning
    weight: float = 1.0


def pair_predictor(
    network: Network,
    pulls: Sequence[Pull],
    negative: Conditioning,
    *,
    filler: Tensor | None = None,
    perturbed: Network | None = None,
) -> PairPredictor:
    """What a network predicts without the prompt, e₋, and with it; in one batch, the negative first.

    Several prompts count as one, e₋ + Σ wᵢ·(eᵢ − e₋) (Liu et al. 2022, eq. 11). The weights are not made to
    sum to one: two prompts of weight 1 pull twice as hard.

    Args:
        filler: [1, t, d], the empty prompt's context: contexts of unequal length are filled up with it and
            meet in one batch. Without one each length is a call of its own, as the web UI's default is.
        perturbed: the network with perturbed attention, which predicts with the prompt too.
    """
    told = [negative, *(pull.prompt for pull in pulls)]
    if filler is not None:
        told = filled_up(told, filler)

    def predict(x: Tensor, timestep: float) -> tuple[Tensor, ...]:
        without, *others = predictions(network, told, x, timestep)
        together = pulled(without, pulls, others)
        if perturbed is None:
            return without, together
        return without, together, pulled(without, pulls, predictions(perturbed, told[1:], x, timestep))

    return predict


def pulled(without: Tensor, pulls: Sequence[Pull], others: Sequence[Tensor]) -> Tensor:
    """What several prompts come to, e₋ + Σ wᵢ·(eᵢ − e₋); one of weight 1 is itself."""
    if len(pulls) == 1 and pulls[0].weight == 1.0:
        return others[0]
    together = without
    for pull, other in zip(pulls, others, strict=True):
        together = together + pull.weight * (other - without)
    return together


def twice(predict: Predictor, perturbed: Predictor) -> PairPredictor:
    """What a network predicts with a prompt, twice (nothing guides), and with perturbed attention."""

    def both(x: Tensor, timestep: float) -> tuple[Tensor, ...]:
        predicted = predict(x, timestep)
        return predicted, predicted, perturbed(x, timestep)

    return both


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


Predicted = TypeVar("Predicted")


def by_evaluation(
    choose: Callable[[int], Callable[[Tensor, float], Predicted]], evaluations: Iterator[int] | None = None
) -> Callable[[Tensor, float], Predicted]:
    """A predictor that counts how often it was asked, from 0: prompts may change on the way.

    Args:
        evaluations: the numbers, where several predictors share them, of which each time one is asked.
    """
    numbers = count() if evaluations is None else evaluations

    def predict(x: Tensor, timestep: float) -> Predicted:
        return choose(next(numbers))(x, timestep)

    return predict


@dataclass(frozen=True)
class Guidance:
    """How the predictions without a prompt, with it, and with perturbed attention become one.

    In this order: `combine`; the pull away from perturbed attention, + s·(e − ê) (Ahn et al. 2024, section
    4); the rescaling.

    Attributes:
        combine: Ho & Salimans' way, or another (tricks.py).
        on_estimates: combine estimates of x₀, not what the network predicts.
        perturbed: s; 0 without perturbed attention.
        rescale: φ of `tricks.rescaled`; 0 without.
        rescale_as: what is rescaled, noise or velocity; None: what the network predicts.
    """

    combine: Combine
    on_estimates: bool = False
    perturbed: float = 0.0
    rescale: float = 0.0
    rescale_as: Prediction | None = None


class GuidedDenoiser:
    """A denoiser under guidance, which tells the estimate without the prompt too (CFG++ asks for it)."""

    def __init__(
        self, pair: PairPredictor, path: SigmaSchedule, prediction: Prediction, guidance: Guidance
    ) -> None:
        self._pair, self._path, self._guidance = pair, path, guidance
        self._kind: Kind = prediction
        self._newest: tuple[Tensor, float, Tensor] | None = None  # x, σ, the prediction without

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor:
        """The guided estimate of x₀."""
        told, kind = self._guidance, self._kind
        predicted = self._predict(x, sigma)
        if told.on_estimates:
            predicted = tuple(moved(each, x, sigma, kind, "estimate") for each in predicted)
            kind = "estimate"
        without, with_prompt, *perturbed = predicted
        guided = told.combine(without, with_prompt, sigma)
        for each in perturbed:
            guided = guided + told.perturbed * (with_prompt - each)
        if told.rescale > 0.0:
            own: Kind = told.rescale_as or self._kind
            guided, with_prompt = (moved(each, x, sigma, kind, own) for each in (guided, with_prompt))
            guided, kind = rescaled(guided, with_prompt, told.rescale), own
        return moved(guided, x, sigma, kind, "estimate")

    def unconditional(self, x: Tensor, sigma: float, /) -> Tensor:
        """The estimate of x₀ without the prompt; of the newest x at no cost."""
        newest = self._newest
        known = newest is not None and newest[0] is x and newest[1] == sigma
        without = newest[2] if newest is not None and known else self._predict(x, sigma)[0]
        return moved(without, x, sigma, self._kind, "estimate")

    def _predict(self, x: Tensor, sigma: float) -> tuple[Tensor, ...]:
        predicted = self._pair(x / math.sqrt(1.0 + sigma**2), self._path.timestep(sigma))
        self._newest = x, sigma, predicted[0]
        return predicted


def rescaled(guided: Tensor, with_prompt: Tensor, share: float) -> Tensor:
    """A guided prediction whose spread is drawn back to the prompt's own (Lin et al. 2023, eq. 15, 16).

    Args:
        share: φ, 0 (no rescaling) to 1 (all of it); the paper's is 0.7.
    """
    dims = tuple(range(1, guided.ndim))
    spread = with_prompt.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
    return share * (guided * spread) + (1.0 - share) * guided


def denoiser(predict: Predictor, path: SigmaSchedule, prediction: Prediction) -> Denoiser:
    """The estimate of x₀ that a prediction of noise or velocity stands for."""
    estimate = ESTIMATES[prediction]

    def denoise(x: Tensor, sigma: float, /) -> Tensor:
        return estimate(predict(x / math.sqrt(1.0 + sigma**2), path.timestep(sigma)), x, sigma)

    return denoise


def moved(value: Tensor, x: Tensor, sigma: float, kind: Kind, to: Kind) -> Tensor:
    """What is said of x in one way, said in another."""
    if kind == to:
        return value
    estimate = ESTIMATES[kind](value, x, sigma)
    if to == "estimate":
        return estimate
    noise = (x - estimate) / sigma
    if to == "epsilon":
        return noise
    scale = math.sqrt(1.0 + sigma**2)  # v = √ᾱ·ε − √(1−ᾱ)·x₀
    return (noise - sigma * estimate) / scale


def from_noise(noise: Tensor, x: Tensor, sigma: float) -> Tensor:
    """From x = x₀ + σ·ε: x₀ = x − σ·ε."""
    return x - sigma * noise


def from_velocity(velocity: Tensor, x: Tensor, sigma: float) -> Tensor:
    """The velocity of Salimans & Ho (2022, appendix D), v = √ᾱ·ε − √(1−ᾱ)·x₀: x₀ = x/(1+σ²) − v·σ/√(1+σ²)."""
    scale = math.sqrt(1.0 + sigma**2)
    return x / scale**2 - sigma / scale * velocity


ESTIMATES: Mapping[Kind, Callable[[Tensor, Tensor, float], Tensor]] = {
    "epsilon": from_noise,
    "v": from_velocity,
    "estimate": lambda estimate, x, sigma: estimate,
}
