"""Training the autoencoder (Rombach et al. 2022, section 3.1), and giving its latents mean 0 and deviation 1.

Shapes: n pictures [n, 3, H, W] in −1 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdscratch.models.config import AutoencoderConfig
from sdscratch.models.vae import Decoder, Encoder, Gaussian
from sdscratch.training.dataset.source import Source
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.metrics import Metrics
from sdscratch.training.engine.rng import generator
from sdscratch.training.tasks.perceptual import pyramid_distance

__all__ = [
    "LOSS_WEIGHTS",
    "TERMS",
    "Autoencoder",
    "Reconstruction",
    "ReconstructionLoss",
    "Term",
    "fold_normalisation",
    "held_out_psnr",
    "latent_statistics",
    "psnr",
    "weighted_sum",
]

AT_ONCE = 16  # pictures, where nothing is trained


class Autoencoder(nn.Module):
    """Both halves, trained together."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def forward(self, picture: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Gaussian]:
        """[n, 3, H, W] → its reconstruction and the posterior; without noise, from the posterior's mean."""
        posterior: Gaussian = self.encoder(picture)
        latent = posterior.mean if noise is None else posterior.sample(noise)
        return self.decoder(latent), posterior


@dataclass(frozen=True)
class Reconstruction:
    """What a loss can be about; float32."""

    output: Tensor
    picture: Tensor
    posterior: Gaussian


def gradient_term(made: Reconstruction) -> Tensor:
    """|∇Δ|, with ∇ = differences to the right and to the lower neighbour: sees blur where |Δ| does not."""
    difference = made.output - made.picture
    return difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()


Term = Callable[[Reconstruction], Tensor]

# The terms of the loss, each a mean over pictures; what has no weight is not computed.
TERMS: Mapping[str, Term] = {
    "l1": lambda made: (made.output - made.picture).abs().mean(),
    "l2": lambda made: (made.output - made.picture).square().mean(),
    "gradient": gradient_term,
    "perceptual": lambda made: pyramid_distance(made.output, made.picture),
    "kl": lambda made: made.posterior.kl().mean(),
}
# Pixels and their differences suit flat colours and sharp edges; so little KL does not blur.
LOSS_WEIGHTS: Mapping[str, float] = {"l1": 1.0, "l2": 1.0, "gradient": 1.0, "kl": 1e-6}


def psnr(output: Tensor, picture: Tensor) -> Tensor:
    """Peak signal to noise in dB, one value a picture; both in −1 to 1, the output clamped to that."""
    error = ((output.clamp(-1, 1) - picture) / 2).square().flatten(1).mean(1)
    return -10.0 * error.clamp_min(1e-10).log10()


def weighted_sum(
    made: Reconstruction, weights: Mapping[str, float], terms: Mapping[str, Term] = TERMS
) -> tuple[Tensor, Metrics]:
    """The loss: the weighted sum of the terms that have a weight; each of them, and the PSNR."""
    values = {name: terms[name](made) for name in weights}
    total = torch.stack([weights[name] * value for name, value in values.items()]).sum()
    metrics = {name: value.detach() for name, value in values.items()}
    return total, metrics | {"psnr": psnr(made.output.detach(), made.picture).mean()}


class ReconstructionLoss:
    """The mean loss at some indices of a step's batch: a `Loss`.

    Weights that require no gradient stay as they are: with the encoder so frozen, latents keep their meaning.

    Args:
        size: of a step's batch, over all processes.
        weights: of the terms, by their names.
    """

    def __init__(
        self,
        source: Source,
        config: AutoencoderConfig,
        distributed: DistributedContext,
        *,
        size: int,
        seed: int,
        weights: Mapping[str, float] = LOSS_WEIGHTS,
        terms: Mapping[str, Term] = TERMS,
    ) -> None:
        self.terms = terms
        self.source, self.config, self.distributed = source, config, distributed
        self.size, self.seed = size, seed
        self.weights = {name: weight for name, weight in weights.items() if weight}

    def __call__(self, module: nn.Module, step: int, indices: range) -> tuple[Tensor, Metrics]:
        """The loss of `module`, an `Autoencoder` or what is called like one."""
        picture, noise = self.inputs(step, indices)
        with self.distributed.autocast():
            output, posterior = module(picture, noise)
        return self.of(output, posterior, picture)

    def inputs(self, step: int, indices: range) -> tuple[Tensor, Tensor]:
        """Pictures and the noise that their latents are drawn with."""
        picture = self.source.batch(step, indices, self.distributed.device).pictures
        return picture, self._noise(step, picture.shape[2:])[indices.start : indices.stop]

    def of(self, output: Tensor, posterior: Gaussian, picture: Tensor) -> tuple[Tensor, Metrics]:
        """The weighted sum of the terms, and each of them."""
        exact = Gaussian(posterior.mean.float(), posterior.log_variance.float())
        return weighted_sum(Reconstruction(output.float(), picture, exact), self.weights, self.terms)

    def _noise(self, step: int, size: torch.Size) -> Tensor:
        rng = generator(self.distributed.device, self.seed, "noise", step)
        sides = (side // self.config.downscale for side in size)
        shape = (self.size, self.config.latent_channels, *sides)
        return torch.randn(shape, generator=rng, device=self.distributed.device)


@torch.no_grad()
def held_out_psnr(source: Source, model: Autoencoder, device: torch.device, count: int = 256) -> float:
    """Mean PSNR in dB over pictures that were never trained on, in float32."""
    pictures = source.held_out(count, device).pictures
    values = [psnr(model(part)[0], part) for part in pictures.split(AT_ONCE)]
    return float(torch.cat(values).mean())


@torch.no_grad()
def latent_statistics(
    source: Source, encoder: Encoder, device: torch.device, count: int = 512, batch: int = AT_ONCE
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each latent channel over `count` pictures; [c] each.

    Args:
        batch: size of one of the source's batches; pictures of several batches may have several sizes.
    """
    parts = [
        encoder(source.batch(step, range(batch), device).pictures).mean.transpose(0, 1).flatten(1)
        for step in range(-(-count // batch))
    ]
    values = torch.cat(parts, dim=1)  # [c, all positions of all pictures]
    return values.mean(dim=1), values.std(dim=1)


@torch.no_grad()
def fold_normalisation(model: Autoencoder, mean: Tensor, std: Tensor) -> None:
    """Give the latent mean 0 and deviation 1 by its two 1×1 convolutions alone; reconstructions stay.

    z′ = (z − μ) / σ: mean′ = (mean − μ) / σ and log σ²′ = log σ² − 2 log σ in the encoder; z = σ · z′ + μ in
    the decoder. So no other tool that reads the file needs to know of it.
    """
    into = model.encoder.quant
    assert into.bias is not None
    scale = torch.cat([1.0 / std, torch.ones_like(std)])
    shift = torch.cat([-mean / std, -2.0 * std.log()])
    into.weight.mul_(scale[:, None, None, None])
    into.bias.mul_(scale).add_(shift)
    out = model.decoder.quant
    assert out.bias is not None
    out.bias.add_(F.conv2d(mean[None, :, None, None], out.weight)[0, :, 0, 0])
    out.weight.mul_(std[None, :, None, None])
