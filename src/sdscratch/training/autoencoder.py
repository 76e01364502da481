"""Training the autoencoder (Rombach et al. 2022, section 3.1), without perceptual and adversarial losses.

Pictograms have flat colours and sharp edges, so pixel losses and one on differences between neighbours do.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sdscratch.embedded.composer import Composer
from sdscratch.models.config import AutoencoderConfig
from sdscratch.models.vae import Decoder, Encoder, Gaussian
from sdscratch.training.loop import Recipe, train
from sdscratch.training.team import share_seed

__all__ = [
    "Autoencoder",
    "fold_normalisation",
    "held_out_psnr",
    "latent_statistics",
    "psnr",
    "reconstruction_loss",
    "save_grid",
    "train_autoencoder",
]

GRADIENT_WEIGHT = 1.0
KL_WEIGHT = 1e-6  # keeps latents near zero, without blurring
HELD_OUT = 1_000_003  # a seed that no training step uses


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


def reconstruction_loss(output: Tensor, picture: Tensor) -> Tensor:
    """|Δ| + Δ² + |∇Δ|, means over all pixels; ∇ = differences to the right and lower neighbour."""
    difference = output - picture
    gradients = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    return difference.abs().mean() + difference.square().mean() + GRADIENT_WEIGHT * gradients


def psnr(output: Tensor, picture: Tensor) -> Tensor:
    """Peak signal to noise in dB, one value a picture; both in −1 to 1, the output clamped to that."""
    error = ((output.clamp(-1, 1) - picture) / 2).square().flatten(1).mean(1)
    return -10.0 * error.clamp_min(1e-10).log10()


def train_autoencoder(
    model: Autoencoder, composer: Composer, recipe: Recipe, folder: Path, *, batch: int = 8, seed: int = 1
) -> Autoencoder:
    """Train on fresh scenes until the budget is spent, resuming from `folder`; return the average.

    Weights that require no gradient stay as they are: with the encoder so frozen, latents keep their meaning.
    After each checkpoint, `preview.png` in `folder` shows held-out scenes and their reconstructions.
    """
    side = composer.size // model.config.downscale

    def loss(replica: nn.Module, step: int, worker: int) -> tuple[Tensor, dict[str, float]]:
        share, own_seed = batch // recipe.workers, share_seed(seed, step, worker)
        picture = composer.draw(composer.scenes(own_seed, range(share)))
        chance = torch.Generator().manual_seed(own_seed)
        noise = torch.randn(share, model.config.latent_channels, side, side, generator=chance)
        with torch.autocast("cpu", torch.bfloat16):
            output, posterior = replica(picture, noise)
        output = output.float()
        kl = Gaussian(posterior.mean.float(), posterior.log_variance.float()).kl().mean()
        value = reconstruction_loss(output, picture) + KL_WEIGHT * kl
        return value, {"psnr": float(psnr(output.detach(), picture).mean()), "kl": float(kl.detach())}

    preview = folder / "preview.png"
    average = train(model, loss, recipe, folder, lambda _, ema: _preview(composer, ema, preview))
    assert isinstance(average, Autoencoder)
    return average


@torch.no_grad()
def held_out_psnr(composer: Composer, model: Autoencoder, count: int = 512) -> float:
    """Mean PSNR in dB over scenes that were never trained on (the sprites were), in float32."""
    values = []
    for index in range(0, count, 64):
        picture = composer.draw(composer.scenes(HELD_OUT + index, range(64)))
        values.append(psnr(model(picture)[0], picture))
    return float(torch.cat(values).mean())


@torch.no_grad()
def latent_statistics(composer: Composer, encoder: Encoder, count: int = 2048) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each latent channel over `count` scenes; [c] each."""
    latents = torch.cat(
        [
            encoder(composer.draw(composer.scenes(HELD_OUT - 1 - i, range(64)))).mean
            for i in range(count // 64)
        ]
    )
    return latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))


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


@torch.no_grad()
def _preview(composer: Composer, model: nn.Module, path: Path) -> None:
    """Held-out scenes above, their reconstructions below."""
    picture = composer.draw(composer.scenes(HELD_OUT, range(16)))
    save_grid(torch.cat([picture, model(picture)[0]]), path, columns=16)


def save_grid(pictures: Tensor, path: Path, columns: int) -> None:
    """Write [n, 3, H, W] in −1 to 1 as one PNG, row by row."""
    n, _, height, width = pictures.shape
    rows = -(-n // columns)
    blank = torch.ones(rows * columns - n, 3, height, width)
    levels = ((torch.cat([pictures.float(), blank]).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    table = levels.view(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2)
    Image.fromarray(table.reshape(rows * height, columns * width, 3).numpy()).save(path)
