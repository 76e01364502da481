"""Teaching a decoder alone to draw what sampled latents stand for: flat where it is flat, and sharp.

The encoder and the U-Net stay as they are, so latents keep their meaning. Pixels, their differences and the
pyramid (`training.autoencoder`) say how the render looks; what is mottled is told apart by a term of its own;
and a critic that fades (`training.adversarial`) keeps edges from being hedged, which is what all the others
like best where the U-Net put an edge a pixel beside the render's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sdscratch.models.vae import Decoder, Gaussian
from sdscratch.pictograms.sampled import SampledLatents
from sdscratch.training.engine.distributed import Machine
from sdscratch.training.engine.replicas import Figures
from sdscratch.training.tasks.adversarial import Critic, Verdict, critic_loss
from sdscratch.training.tasks.autoencoder import TERMS, Reconstruction, Term, weighted_sum

__all__ = ["WEIGHTS", "CrispLoss", "DecoderWithCritic", "fading", "mottling"]

CRITIC_CHANNELS = 32
STILL = 2.5 / 127.5  # neighbours that differ by less, in −1 to 1, are of one flat colour: 2 levels of 255


def mottling(made: Reconstruction) -> Tensor:
    """|∇ output| where the picture's own is nothing, as a mean over such places."""
    sums = made.output.new_zeros(())
    places = made.output.new_zeros(())
    for dim in (2, 3):
        flat = made.picture.diff(dim=dim).abs().amax(dim=1, keepdim=True) < STILL
        sums = sums + (made.output.diff(dim=dim).abs() * flat).sum()
        places = places + flat.sum() * made.output.shape[1]
    return sums / places.clamp_min(1)


CRISP_TERMS: Mapping[str, Term] = {**TERMS, "mottling": mottling}
WEIGHTS = {"l1": 1.0, "gradient": 1.0, "perceptual": 0.1, "mottling": 2.0}

# Not balanced against the other terms (`adversarial.adaptive_weight`): a critic that knows nothing yet would
# pull as hard as one that does.
ADVERSARIAL_WEIGHT = 0.03
LEAST_ADVERSARIAL = 0.4  # of that weight, in the end
FADED = 1000  # steps after which it is at its least


def fading(step: int) -> float:
    """The critic's weight at a step: it falls evenly, for what it knows best, late, is to invent texture."""
    fallen = min(step / FADED, 1.0)
    return ADVERSARIAL_WEIGHT * (1.0 - (1.0 - LEAST_ADVERSARIAL) * fallen)


class DecoderWithCritic(nn.Module):
    """A decoder with its critic, trained as one; see `training.adversarial`."""

    def __init__(self, decoder: Decoder, critic: Critic) -> None:
        super().__init__()
        self.decoder = decoder
        self.critic = critic

    def forward(self, latents: Tensor, pictures: Tensor) -> tuple[Tensor, Verdict]:
        """[n, c, h, w] as the decoder takes them, [n, 3, H, W] → what is drawn, and the verdict on it."""
        output = self.decoder(latents)
        weights = {name: weight.detach() for name, weight in self.critic.named_parameters()}
        tried = functional_call(self.critic, weights, (output,))
        made, real = self.critic(torch.cat([output.detach(), pictures])).chunk(2)
        return output, Verdict(tried.float(), made.float(), real.float())


class CrispLoss:
    """The mean loss at some places of a step's batch, as `Team` descends it.

    Args:
        scale: the autoencoder's `latent_scale`, by which the U-Net's latents are divided for the decoder.
    """

    def __init__(self, examples: SampledLatents, scale: float, machine: Machine) -> None:
        self.examples, self.scale, self.machine = examples, scale, machine

    def __call__(self, module: nn.Module, step: int, places: range) -> tuple[Tensor, Figures]:
        """The loss of `module`, a `DecoderWithCritic` or what is called like one."""
        example = self.examples(step, places)
        with self.machine.autocast():
            output, verdict = module(example.latents / self.scale, example.pictures)
        nothing = Gaussian(example.latents, torch.zeros_like(example.latents))  # nothing is asked of it
        made = Reconstruction(output.float(), example.pictures, nothing)
        value, figures = weighted_sum(made, WEIGHTS, CRISP_TERMS)
        adversarial, critic = -verdict.tried.mean(), critic_loss(verdict)
        total = value + fading(step) * adversarial + critic
        return total, {**figures, "adversarial": adversarial.detach(), "critic": critic.detach()}
