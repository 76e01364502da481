"""Training text encoder and U-Net together on the autoencoder's latents (Rombach et al. 2022, section 3.3).

Pictures are composed and encoded in blocks, and each block is passed over a few times, with other words,
other noise and in another order: encoding then costs next to nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sdscratch.diffusion.schedule import Schedule
from sdscratch.embedded.captions import caption
from sdscratch.embedded.composer import Composer
from sdscratch.embedded.scenes import Scene
from sdscratch.models.clip import TextEncoder
from sdscratch.models.config import ModelConfig
from sdscratch.models.layers import ResidualBlock
from sdscratch.models.unet import SpatialTransformer, UNet
from sdscratch.models.vae import Encoder
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.training.loop import Recipe, train
from sdscratch.training.team import share_seed

__all__ = ["Captions", "Diffusion", "Latents", "stratified_timesteps", "train_diffusion", "velocity_target"]

BLOCK = 1024  # pictures a worker encodes at once
PASSES = 4  # over a block
ENCODED_AT_ONCE = 16
# Below 1, late timesteps come more often: what a caption looks like is learnt from noise, and learnt slowest.
LATE_BIAS = 0.6
PROMPT_DROPPED = (
    0.1  # so that guidance knows what there is without a prompt (Ho & Salimans 2022, section 3.2)
)


class Diffusion(nn.Module):
    """Text encoder and U-Net as one trainable thing."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.text = TextEncoder(config.text)
        self.unet = UNet(config.unet)
        initialise(self)

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        """[n, 4, h, w] noisy latents, [n] timesteps, [n, t] token ids → [n, 4, h, w] velocities."""
        return self.unet(noisy, timesteps, self.text(ids))  # type: ignore[no-any-return]


@torch.no_grad()
def initialise(model: Diffusion) -> None:
    """Begin with blocks that pass their input on: each block's last layer is 0 (Dhariwal & Nichol 2021)."""
    nn.init.normal_(model.text.positions.weight, std=0.1)  # words matter more than places
    last = [model.unet.conv_out]
    for module in model.unet.modules():
        if isinstance(module, ResidualBlock):
            last.append(module.conv2)
        elif isinstance(module, SpatialTransformer):
            last.append(module.project_out)
    for layer in last:
        nn.init.zeros_(layer.weight)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


def velocity_target(latent: Tensor, noise: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy latent √ᾱ·x₀ + √(1−ᾱ)·ε, and its velocity √ᾱ·ε − √(1−ᾱ)·x₀ (Salimans & Ho 2022, appendix D).

    Args:
        alpha_bar: [n].
    """
    signal = alpha_bar.sqrt()[:, None, None, None]
    spread = (1.0 - alpha_bar).sqrt()[:, None, None, None]
    return signal * latent + spread * noise, signal * noise - spread * latent


def stratified_timesteps(count: int, total: int, chance: torch.Generator) -> Tensor:
    """`count` timesteps of 0…total−1, one in each of as many equally likely parts: the loss wobbles less."""
    places = (torch.arange(count) + torch.rand(count, generator=chance)) / count
    return (places**LATE_BIAS * total).long().clamp(max=total - 1)


class Captions:
    """Captions to rows of ids, each worked out once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}

    def __call__(self, captions: list[str]) -> Tensor:
        """[n, t] int64, padded."""
        return torch.tensor([self._ids(text) for text in captions])

    def _ids(self, text: str) -> list[int]:
        if text not in self.known:
            tokens = self.tokenizer.encode(text)
            self.known[text] = tokens.padded(self.tokenizer.length, self.tokenizer.pad)
        return self.known[text]


class Latents:
    """One worker's stream of latents and scenes; what step k gets depends on the seed and on k alone."""

    def __init__(self, composer: Composer, encoder: Encoder, seed: int, worker: int, share: int) -> None:
        self.composer, self.encoder = composer, encoder
        self.seed, self.worker, self.share = seed, worker, share
        self.index = -1
        self.scenes: list[Scene] = []
        self.latents = torch.empty(0)

    def __call__(self, step: int) -> tuple[Tensor, list[Scene]]:
        """[share, 4, h, w] and what they show."""
        steps = BLOCK // self.share
        index, within = divmod(step, PASSES * steps)
        if index != self.index:
            self._encode(index)
        turn, place = divmod(within, steps)
        order = list(range(BLOCK))
        random.Random(share_seed(self.seed, PASSES * index + turn, self.worker)).shuffle(order)
        chosen = order[place * self.share : (place + 1) * self.share]
        return self.latents[chosen], [self.scenes[i] for i in chosen]

    @torch.no_grad()
    def _encode(self, index: int) -> None:
        self.index = index
        self.scenes = self.composer.scenes(share_seed(self.seed, index, self.worker), range(BLOCK))
        parts = []
        for start in range(0, BLOCK, ENCODED_AT_ONCE):
            picture = self.composer.draw(self.scenes[start : start + ENCODED_AT_ONCE])
            with torch.autocast("cpu", torch.bfloat16):
                parts.append(self.encoder(picture).mean.float())
        self.latents = torch.cat(parts)


def train_diffusion(
    composer: Composer,
    encoder: Encoder,
    tokenizer: Tokenizer,
    config: ModelConfig,
    recipe: Recipe,
    folder: Path,
    *,
    batch: int = 64,
    seed: int = 1,
    watch: Callable[[int, nn.Module], None] = lambda step, average: None,
) -> Diffusion:
    """Train until the budget is spent, or go on from `folder`'s checkpoint; return the averaged networks."""
    torch.manual_seed(seed)
    model = Diffusion(config)
    share = batch // recipe.workers
    streams = [Latents(composer, encoder, seed, worker, share) for worker in range(recipe.workers)]
    alphas_bar = torch.from_numpy(Schedule(config.schedule).alphas_bar).float()
    words = Captions(tokenizer)

    def loss(replica: nn.Module, step: int, worker: int) -> tuple[Tensor, dict[str, float]]:
        latent, scenes = streams[worker](step)
        own_seed = share_seed(seed, step, worker)
        chance, dice = torch.Generator().manual_seed(own_seed), random.Random(own_seed)
        captions = [caption(scene, dice) for scene in scenes]
        ids = words([text if dice.random() >= PROMPT_DROPPED else "" for text in captions])
        timesteps = stratified_timesteps(share, len(alphas_bar), chance)
        noise = torch.randn(latent.shape, generator=chance)
        noisy, target = velocity_target(latent, noise, alphas_bar[timesteps])
        with torch.autocast("cpu", torch.bfloat16):
            velocity = replica(noisy, timesteps.float(), ids)
        return (velocity.float() - target).square().mean(), {}

    average = train(model, loss, recipe, folder, watch)
    assert isinstance(average, Diffusion)
    return average
