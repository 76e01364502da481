"""How good a model is on pictures with captions: what its autoencoder loses, how well its U-Net denoises.

Shapes: n pictures [n, 3, H, W] in −1 to 1, latents [n, c, h, w], T timesteps in p parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdscratch.diffusion.guidance import Prediction
from sdscratch.diffusion.noise import Noise
from sdscratch.errors import ImageError
from sdscratch.generation.networks import dtype_of
from sdscratch.generation.pipeline import Pipeline
from sdscratch.images import fit_picture, read_picture
from sdscratch.images.tensors import to_tensor
from sdscratch.models.conditioning import Conditioning
from sdscratch.text.cutting import plain_row
from sdscratch.training.dataset.folder import Picture
from sdscratch.training.dataset.source import Batch
from sdscratch.training.tasks.autoencoder import psnr
from sdscratch.training.tasks.diffusion import denoising_target

__all__ = ["PARTS", "PartLoss", "Quality", "evaluate", "folder_batches", "ssim"]

PARTS = 10  # equal parts of the timesteps, each with a loss of its own

LUMA = (0.299, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601
WINDOW, SPREAD = 11, 1.5  # of SSIM's Gaussian window, in pixels
STABLE = (0.01**2, 0.03**2)  # C₁ and C₂ for a range of 1


@dataclass(frozen=True)
class PartLoss:
    """The mean loss over one part of the timesteps."""

    first: int
    last: int  # included
    weight: float  # the part's share of all timesteps
    loss: float


@dataclass(frozen=True)
class Quality:
    """What was measured over the pictures so far."""

    pictures: int
    psnr: float  # dB, mean over pictures, of the posterior mean's reconstruction
    ssim: float  # mean over pictures
    prediction: Prediction  # what the loss is about
    by_timestep: tuple[PartLoss, ...]

    @property
    def loss(self) -> float:
        """The mean over all timesteps, each as likely as another."""
        return sum(part.weight * part.loss for part in self.by_timestep)


def ssim(output: Tensor, picture: Tensor) -> Tensor:
    """Structural similarity of luma (Wang et al. 2004, eq. 13), at most 1; [n] float64 on the CPU.

    Both in −1 to 1, the output clamped to that, at least 11×11 pixels. Windows stay within the picture, as in
    the authors' own programme; variances are those of the population.
    """
    # float64: in flat parts, variances are small differences of large numbers
    axis = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    bell = torch.exp(-(axis**2) / (2 * SPREAD**2))
    window = torch.outer(bell, bell)[None, None] / bell.sum() ** 2
    luma = torch.tensor(LUMA, dtype=torch.float64)[:, None, None]
    x, y = (
        (p.to("cpu", torch.float64).clamp(-1, 1) / 2 + 0.5).mul(luma).sum(1, keepdim=True)
        for p in (output, picture)
    )

    mean_x, mean_y, xx, yy, xy = (F.conv2d(z, window) for z in (x, y, x * x, y * y, x * y))
    variances, covariance = xx - mean_x**2 + yy - mean_y**2, xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + STABLE[0]) / (mean_x**2 + mean_y**2 + STABLE[0])
    structure = (2 * covariance + STABLE[1]) / (variances + STABLE[1])
    return (luminance * structure).flatten(1).mean(1)


def evaluate(pipeline: Pipeline, batches: Iterable[Batch], *, seed: int = 0) -> Iterator[Quality]:
    """Measure a model on pictures with captions; yields what is known after each batch.

    Every picture is encoded (its posterior's mean), decoded and compared; and noise is added to its latent at
    one timestep of each part, which the U-Net predicts with the caption. Timesteps and noise of picture i are
    those of seed + i, whatever the batches.

    Raises:
        SdscratchError: a network gives NaN in float32 too.
        DeviceError: out of memory.
    """
    config = pipeline.files.config
    bounds = part_bounds(len(pipeline.sampling.schedule))
    similarity: list[Tensor] = []
    losses: list[Tensor] = []
    done = 0
    for batch in batches:
        seeds = range(seed + done, seed + done + len(batch.captions))
        latent, output = reconstruct(pipeline, batch.pictures)
        picture = batch.pictures.to(output.device)
        similarity.append(torch.stack([psnr(output, picture).cpu(), ssim(output, picture)]))
        losses.append(denoising_losses(pipeline, latent, batch.captions, seeds, bounds))
        done += len(seeds)
        decibels, alike = torch.cat(similarity, 1).mean(1).tolist()
        by_part = torch.cat(losses, 1).double().mean(1).tolist()
        yield Quality(done, decibels, alike, config.schedule.prediction, part_losses(bounds, by_part))


def folder_batches(
    root: Path,
    pictures: Sequence[Picture],
    size: tuple[int, int],
    batch: int,
    skip: Callable[[str, str], None],
) -> Iterator[Batch]:
    """The pictures of a folder at one size (width, height), scaled and cropped, in their order.

    Args:
        skip: told the path of a picture that is broken, and the reason; it is left out.
    """
    found: list[tuple[Tensor, str]] = []
    for picture in pictures:
        try:
            shown = fit_picture(read_picture(root / picture.path), *size)
        except ImageError as error:
            skip(picture.path, str(error))
            continue
        found.append((to_tensor(shown), picture.caption))
        if len(found) == batch:
            yield _batch(found)
            found = []
    if found:
        yield _batch(found)


def _batch(found: Sequence[tuple[Tensor, str]]) -> Batch:
    return Batch(torch.cat([picture for picture, _ in found]), tuple(caption for _, caption in found))


def part_bounds(timesteps: int) -> list[int]:
    """Where each part begins, and T at the end; where T does not divide, parts differ by one."""
    parts = min(PARTS, timesteps)
    return [index * timesteps // parts for index in range(parts + 1)]


def part_losses(bounds: Sequence[int], losses: Sequence[float]) -> tuple[PartLoss, ...]:
    """The parts with their shares."""
    return tuple(
        PartLoss(first, end - 1, (end - first) / bounds[-1], loss)
        for first, end, loss in zip(bounds[:-1], bounds[1:], losses, strict=True)
    )


def reconstruct(pipeline: Pipeline, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Latents as the decoder takes them (the posterior's mean), and what it makes of them, both float32."""
    device = pipeline.placement.device
    latent = pipeline.networks.run(
        "encoder", lambda network: network(pictures.to(device, dtype_of(network))).mean
    )
    return latent, pipeline.networks.run("decoder", lambda network: network(latent.to(dtype_of(network))))


def denoising_losses(
    pipeline: Pipeline, latent: Tensor, captions: Sequence[str], seeds: Sequence[int], bounds: Sequence[int]
) -> Tensor:
    """[p, n] mean squared errors of the U-Net's prediction, at one timestep of every part."""
    config, tokenizer, device = pipeline.files.config, pipeline.files.tokenizer, latent.device
    rows = [plain_row(tokenizer, text) for text in captions]
    ids = torch.tensor(rows, device=device)
    context = pipeline.networks.run("text", lambda network: network(ids))
    scaled = latent * config.autoencoder.latent_scale
    noise = Noise(seeds, tuple(scaled.shape[1:]))
    # one row a picture, one timestep a part
    timesteps = np.stack([np.random.default_rng(seed).integers(bounds[:-1], bounds[1:]) for seed in seeds])
    losses = []
    for chosen in timesteps.T:
        alpha_bar = torch.from_numpy(pipeline.sampling.schedule.alphas_bar[chosen]).float().to(device)
        noisy, target = denoising_target(scaled, noise().to(device), alpha_bar, config.schedule.prediction)
        times = torch.from_numpy(chosen).float().to(device)
        predicted = predict(pipeline, noisy, times, context)
        losses.append((predicted - target).square().flatten(1).mean(1).cpu())
    return torch.stack(losses)


def predict(pipeline: Pipeline, noisy: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
    """What the U-Net says, float32."""

    def run(network: torch.nn.Module) -> Tensor:
        dtype = dtype_of(network)
        return network(noisy.to(dtype), timesteps, Conditioning(context.to(dtype)))  # type: ignore[no-any-return]

    return pipeline.networks.run("unet", run)
