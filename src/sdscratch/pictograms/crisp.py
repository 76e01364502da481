"""Teaching a decoder alone to draw what sampled latents stand for: flat where it is flat, and sharp.

The encoder and the U-Net stay as they are, so latents keep their meaning. Pixels, their differences and the
pyramid (`tasks.autoencoder`) say how the render looks; what is mottled is told apart by a term of its own;
and a discriminator that fades (`tasks.adversarial`) keeps edges from being hedged, which is what all the
others like best where the U-Net put an edge a pixel beside the render's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sdscratch.models.vae import Decoder, Gaussian
from sdscratch.pictograms.sampled import SampledLatents
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.metrics import Metrics
from sdscratch.training.tasks.adversarial import Discriminator, Scores, discriminator_loss
from sdscratch.training.tasks.autoencoder import TERMS, Reconstruction, Term, weighted_sum

__all__ = ["WEIGHTS", "CrispLoss", "DecoderWithDiscriminator", "fading", "mottling"]

DISCRIMINATOR_CHANNELS = 32
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

# Squared error, which PSNR is made of, for encoded latents alone: these hold where each edge is, so that it
# does not blur. Weighted by their share of the examples.
CLEAN_WEIGHT = 4.0

# Not balanced against the other terms (`adversarial.adaptive_weight`): a discriminator that knows nothing yet
# would pull as hard as one that does.
ADVERSARIAL_WEIGHT = 0.03
LEAST_ADVERSARIAL = 0.4  # of that weight, in the end
FADED = 1000  # steps after which it is at its least


def fading(step: int) -> float:
    """The discriminator's weight at a step: it falls, for what it knows best, late, is to invent texture."""
    fallen = min(step / FADED, 1.0)
    return ADVERSARIAL_WEIGHT * (1.0 - (1.0 - LEAST_ADVERSARIAL) * fallen)


class DecoderWithDiscriminator(nn.Module):
    """A decoder with its discriminator, trained as one; see `tasks.adversarial`."""

    def __init__(self, decoder: Decoder, discriminator: Discriminator) -> None:
        super().__init__()
        self.decoder = decoder
        self.critic = discriminator  # its name in checkpoints

    def forward(self, latents: Tensor, pictures: Tensor) -> tuple[Tensor, Scores]:
        """[n, c, h, w] as the decoder takes them, [n, 3, H, W] → what is drawn, and the scores of it."""
        output = self.decoder(latents)
        weights = {name: weight.detach() for name, weight in self.critic.named_parameters()}
        generated = functional_call(self.critic, weights, (output,))
        fake, real = self.critic(torch.cat([output.detach(), pictures])).chunk(2)
        return output, Scores(generated.float(), fake.float(), real.float())


class CrispLoss:
    """The mean loss at some indices of a step's batch: a `Loss`.

    Args:
        scale: the autoencoder's `latent_scale`, by which the U-Net's latents are divided for the decoder.
    """

    def __init__(self, examples: SampledLatents, scale: float, distributed: DistributedContext) -> None:
        self.examples, self.scale, self.distributed = examples, scale, distributed

    def __call__(self, module: nn.Module, step: int, indices: range) -> tuple[Tensor, Metrics]:
        """The loss of `module`, a `DecoderWithDiscriminator` or what is called like one."""
        example = self.examples(step, indices)
        with self.distributed.autocast():
            output, scores = module(example.latents / self.scale, example.pictures)
        nothing = Gaussian(example.latents, torch.zeros_like(example.latents))  # nothing is asked of it
        made = Reconstruction(output.float(), example.pictures, nothing)
        value, metrics = weighted_sum(made, WEIGHTS, CRISP_TERMS)
        clean = slice(0, example.clean)
        squares = (made.output[clean] - made.picture[clean]).square().mean(dim=(1, 2, 3)).sum()
        value = value + CLEAN_WEIGHT * squares / len(made.output)
        adversarial, critic = -scores.generated.mean(), discriminator_loss(scores)
        total = value + fading(step) * adversarial + critic
        return total, {**metrics, "adversarial": adversarial.detach(), "critic": critic.detach()}
