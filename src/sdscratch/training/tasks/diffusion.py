"""Training text encoder and U-Net on the autoencoder's latents (Rombach et al. 2022, section 3.3).

Shapes: n latents [n, c, h, w], T timesteps, t tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from sdscratch.diffusion.guidance import Prediction
from sdscratch.diffusion.schedule import Schedule
from sdscratch.hardware import device_kind
from sdscratch.models.clip import TextEncoder
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import ModelConfig, ScheduleConfig
from sdscratch.models.layers import ResidualBlock
from sdscratch.models.unet import SpatialTransformer, UNet
from sdscratch.text.cutting import plain_row
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.training.dataset.cache import CachedTexts, fingerprint
from sdscratch.training.dataset.source import LatentSource
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.metrics import Metrics
from sdscratch.training.engine.rng import generator

__all__ = [
    "DenoisingLoss",
    "Diffusion",
    "FrozenText",
    "Words",
    "denoising_target",
    "initialise",
    "snr_weight",
    "stratified_timesteps",
    "tokenized",
]

KNOWN_CAPTIONS = 1 << 16  # whose tokens are remembered

Words = Callable[[Sequence[str]], Tensor | Conditioning]
"""Captions → what a module is told of them: [n, t] ids, or, where it has no text encoder, a conditioning."""


class Diffusion(nn.Module):
    """Text encoder and U-Net as one thing that is trained."""

    def __init__(self, text: TextEncoder, unet: UNet) -> None:
        super().__init__()
        self.text = text
        self.unet = unet

    @classmethod
    def from_config(cls, config: ModelConfig) -> Diffusion:
        """Untrained, of a model's shape, and ready to begin."""
        model = cls(TextEncoder(config.text), UNet(config.unet))
        initialise(model)
        return model

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        """[n, c, h, w] noisy latents, [n] timesteps, [n, t] token ids → [n, c, h, w], what they predict."""
        return self.unet(noisy, timesteps, Conditioning(self.text(ids)))  # type: ignore[no-any-return]


@torch.no_grad()
def initialise(model: Diffusion) -> None:
    """Begin with blocks that pass their input on: each block's last layer is 0 (Dhariwal & Nichol 2021)."""
    nn.init.normal_(model.text.positions.weight, std=0.1)  # words matter more than places
    last: list[nn.Conv2d | nn.Linear] = [model.unet.conv_out]
    for module in model.unet.modules():
        if isinstance(module, ResidualBlock):
            last.append(module.conv2)
        elif isinstance(module, SpatialTransformer):
            last.append(module.project_out)
    for layer in last:
        nn.init.zeros_(layer.weight)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


def denoising_target(
    latent: Tensor, noise: Tensor, alpha_bar: Tensor, prediction: Prediction
) -> tuple[Tensor, Tensor]:
    """The noisy latent √ᾱ·x₀ + √(1−ᾱ)·ε, and what a network should say of it.

    That is ε (Ho et al. 2020, eq. 14), or the velocity √ᾱ·ε − √(1−ᾱ)·x₀ (Salimans & Ho 2022, appendix D).

    Args:
        alpha_bar: [n].
    """
    signal = alpha_bar.sqrt()[:, None, None, None]
    spread = (1.0 - alpha_bar).sqrt()[:, None, None, None]
    target = noise if prediction == "epsilon" else signal * noise - spread * latent
    return signal * latent + spread * noise, target


def stratified_timesteps(count: int, total: int, rng: torch.Generator, late_bias: float = 1.0) -> Tensor:
    """`count` timesteps of 0…total−1, one in each of as many equally likely parts: the loss wobbles less.

    Which index gets which part is drawn, too.

    Args:
        late_bias: below 1, late timesteps come more often: what a caption looks like is learnt from noise,
            and learnt slowest.
    """
    device = rng.device
    parts = torch.randperm(count, generator=rng, device=device)
    shares = (parts + torch.rand(count, generator=rng, device=device)) / count
    return (shares**late_bias * total).long().clamp(max=total - 1)


def snr_weight(alpha_bar: Tensor, gamma: float, prediction: Prediction) -> Tensor:
    """Weights of the loss that keep easy timesteps from ruling it (min-SNR-γ: Hang et al. 2023, section 3.4).

    With SNR = ᾱ/(1−ᾱ), the loss of x₀ is weighted min(SNR, γ); one of ε is SNR times one of x₀, and one of
    the velocity SNR + 1 times.
    """
    snr = alpha_bar / (1.0 - alpha_bar)
    return snr.clamp(max=gamma) / (snr if prediction == "epsilon" else snr + 1.0)


def tokenized(tokenizer: Tokenizer, device: torch.device) -> Callable[[Sequence[str]], Tensor]:
    """Captions to [n, t] padded ids on a device."""

    @lru_cache(KNOWN_CAPTIONS)
    def ids(text: str) -> list[int]:
        return plain_row(tokenizer, text)

    return lambda captions: torch.tensor([ids(text) for text in captions]).to(device, non_blocking=True)


class FrozenText:
    """`Words` of a text encoder that does not change: kept on disk, and let go of once all are known."""

    def __init__(
        self,
        load: Callable[[torch.device], nn.Module],
        tokenizer: Tokenizer,
        distributed: DistributedContext,
        folder: Path,
    ) -> None:
        self.load, self.distributed = load, distributed
        self.ids = tokenized(tokenizer, distributed.device)
        self.network: nn.Module | None = load(distributed.device)
        key = fingerprint(self.network, tokenizer.to_json())
        self.cache = CachedTexts(self._encode, key, folder, distributed.device)

    def fill(self, captions: Sequence[str]) -> None:
        """Compute what training will ask for, and let go of the encoder."""
        for caption in ("", *captions):
            self.cache([caption])
        self.network = None

    def __call__(self, captions: Sequence[str]) -> Conditioning:
        """What a U-Net alone is told."""
        return Conditioning(self.context(captions))

    def context(self, captions: Sequence[str]) -> Tensor:
        """[n, t, d]."""
        return self.cache(captions)

    @torch.no_grad()
    def _encode(self, caption: str) -> Tensor:
        network = self.network or self.load(self.distributed.device)  # loaded again for a prompt that is new
        with torch.autocast(device_kind(self.distributed.device), enabled=False):
            context: Tensor = network(self.ids([caption]))
        return context[0].float().cpu()


class DenoisingLoss:
    """The mean loss at some indices of a step's batch: a `Loss`.

    Noise, timesteps and which captions are dropped are drawn for the whole batch, whoever computes what part
    of it.

    Args:
        size: of a step's batch, over all processes.
        dropout: share of captions that are left out, so that guidance knows what there is without a prompt
            (Ho & Salimans 2022, section 3.2).
        late_bias: see `stratified_timesteps`.
        snr_gamma: γ of `snr_weight`; None weights all timesteps alike.
    """

    def __init__(
        self,
        schedule: ScheduleConfig,
        words: Words,
        latents: LatentSource,
        distributed: DistributedContext,
        *,
        size: int,
        seed: int,
        dropout: float = 0.1,
        late_bias: float = 1.0,
        snr_gamma: float | None = None,
    ) -> None:
        self.prediction = schedule.prediction
        self.alphas_bar = torch.from_numpy(Schedule(schedule).alphas_bar).float().to(distributed.device)
        self.words, self.latents, self.distributed = words, latents, distributed
        self.size, self.seed, self.dropout = size, seed, dropout
        self.late_bias, self.snr_gamma = late_bias, snr_gamma

    def __call__(self, module: nn.Module, step: int, indices: range) -> tuple[Tensor, Metrics]:
        """The loss of `module`, a `Diffusion` or what is called like one; hints, if any, come last."""
        chosen = slice(indices.start, indices.stop)
        rng = generator(self.distributed.device, self.seed, "noise", step)
        timesteps = stratified_timesteps(self.size, len(self.alphas_bar), rng, self.late_bias)[chosen]
        clean = self.latents(step, indices)
        shape = (self.size, *clean.values.shape[1:])
        noise = torch.randn(shape, generator=rng, device=self.distributed.device)[chosen]
        alpha_bar = self.alphas_bar[timesteps]
        noisy, target = denoising_target(clean.values, noise, alpha_bar, self.prediction)
        captions = self._dropped(clean.captions, step, chosen)
        hints = () if clean.hints is None else (clean.hints,)
        with self.distributed.autocast():
            prediction = module(noisy, timesteps.float(), self.words(captions), *hints)
        losses = (prediction.float() - target).square().flatten(1).mean(1)
        if self.snr_gamma is not None:
            losses = losses * snr_weight(alpha_bar, self.snr_gamma, self.prediction)
        return losses.mean(), {}

    def _dropped(self, captions: Sequence[str], step: int, chosen: slice) -> list[str]:
        drawn = torch.rand(self.size, generator=generator("cpu", self.seed, "dropout", step))[chosen]
        kept = (drawn >= self.dropout).tolist()
        return [text if keep else "" for text, keep in zip(captions, kept, strict=True)]
