"""Training of text encoder and U-Net: targets, timesteps, captions, latents; resuming changes nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from sdscratch.diffusion.guidance import network_denoiser
from sdscratch.diffusion.schedule import Schedule, make_path
from sdscratch.embedded.composer import Composer
from sdscratch.models.config import (
    AutoencoderConfig,
    ModelConfig,
    ScheduleConfig,
    TextEncoderConfig,
    UNetConfig,
)
from sdscratch.models.vae import Encoder
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.training import diffusion
from sdscratch.training.diffusion import (
    Captions,
    Diffusion,
    Latents,
    stratified_timesteps,
    train_diffusion,
    velocity_target,
)
from sdscratch.training.loop import Budget, Recipe
from support.sprites import disc_table

TOKENIZER = Tokenizer.from_merges([], length=12)
TINY = ModelConfig(
    text=TextEncoderConfig(TOKENIZER.size, length=12, width=16, layers=1, heads=2, feed_forward=32),
    unet=UNetConfig(
        channels=8,
        multipliers=(1, 2),
        attends=(False, True),
        residual_blocks=1,
        heads=2,
        context=16,
        norm_groups=4,
    ),
    autoencoder=AutoencoderConfig(
        channels=8, multipliers=(1, 2), residual_blocks=1, latent_scale=1.0, norm_groups=4
    ),
    schedule=ScheduleConfig(beta_end=0.0224, prediction="v"),
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion, "BLOCK", 16)


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer(disc_table(), size=16)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(TINY.autoencoder).eval().requires_grad_(False)


def test_the_samplers_read_the_target_as_it_is_meant() -> None:
    """A network that gives exactly the target is denoised to exactly the latent."""
    schedule = Schedule(TINY.schedule)
    path = make_path(schedule, "euler", "trailing", 5)
    torch.manual_seed(0)
    latent, noise = torch.randn(2, 1, 4, 4, 4)
    for sigma, timestep in zip(path.sigmas, path.timesteps, strict=False):
        alpha_bar = torch.tensor([schedule.alphas_bar[int(timestep)]]).float()
        noisy, target = velocity_target(latent, noise, alpha_bar)
        denoise = network_denoiser(lambda x, t, c, v=target: v, path, "v", torch.zeros(1, 1, 1))
        assert_close(denoise(noisy * math.sqrt(1 + sigma**2), sigma), latent, rtol=1e-4, atol=1e-4)


def test_timesteps_are_stratified_from_end_to_end_and_more_often_late() -> None:
    chance = torch.Generator().manual_seed(0)
    for _ in range(20):
        timesteps = stratified_timesteps(10, 1000, chance)
        shares = (timesteps / 1000) ** (1 / diffusion.LATE_BIAS)  # of all draws, how many come earlier
        assert ((shares * 10 - torch.arange(10) - 0.5).abs() < 0.52).all()  # a timestep is rounded down
    drawn = torch.cat([stratified_timesteps(100, 1000, chance) for _ in range(200)])
    assert drawn.max() == 999
    assert 0 <= drawn.min() < 10
    assert (drawn >= 500).float().mean() > 0.6


def test_captions_are_padded_as_prompts_are() -> None:
    ids = Captions(TOKENIZER)(["dog", ""])
    assert ids.shape == (2, 12)
    assert ids[1].tolist() == [TOKENIZER.start, TOKENIZER.end] + [TOKENIZER.pad] * 10
    assert ids[0].tolist() == TOKENIZER.encode("dog").padded(12, TOKENIZER.pad)


def test_a_block_is_passed_over_whole_in_a_new_order_each_time(composer: Composer, encoder: Encoder) -> None:
    stream = Latents(composer, encoder, seed=1, worker=0, share=4)
    passes = [[scene for k in range(4) for scene in stream(4 * turn + k)[1]] for turn in range(5)]
    assert all(len(set(scenes)) == 16 for scenes in passes)
    assert passes[0] != passes[1]
    assert set(passes[0]) == set(passes[3])  # PASSES = 4
    assert not set(passes[0]) & set(passes[4])


def test_latents_belong_to_their_scenes_wherever_a_run_begins(composer: Composer, encoder: Encoder) -> None:
    latents, scenes = Latents(composer, encoder, seed=1, worker=1, share=4)(6)
    expected = encoder(composer.draw(scenes)).mean
    assert_close(latents, expected, rtol=0, atol=0.05)  # the stream encodes in bfloat16
    warm = Latents(composer, encoder, seed=1, worker=1, share=4)
    for step in (40, 2):
        warm(step)
    assert warm(6)[1] == scenes
    assert Latents(composer, encoder, seed=1, worker=0, share=4)(6)[1] != scenes


def test_an_untrained_network_predicts_nothing_rather_than_something_random() -> None:
    torch.manual_seed(0)
    model = Diffusion(TINY)
    velocity = model(torch.randn(1, 4, 8, 8), torch.tensor([5.0]), torch.zeros(1, 12, dtype=torch.long))
    assert torch.equal(velocity, torch.zeros(1, 4, 8, 8))


def test_a_resumed_run_is_the_same_run_bit_for_bit(
    composer: Composer, encoder: Encoder, tmp_path: Path
) -> None:
    def run(folder: str, steps: int) -> Diffusion:
        # the rate must not depend on where the run ends
        recipe = Recipe(Budget(steps=steps), 1e-3, final_share=1.0)
        return train_diffusion(composer, encoder, TOKENIZER, TINY, recipe, tmp_path / folder, batch=8)

    whole = run("whole", 6)
    run("parts", 3)
    parts = run("parts", 6)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


def test_training_reaches_both_networks_and_beats_no_prediction(
    composer: Composer, encoder: Encoder, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    untrained = Diffusion(TINY).text.tokens.weight
    recipe = Recipe(Budget(steps=25), 3e-3, warm_up=5, ema=0.5)
    model = train_diffusion(composer, encoder, TOKENIZER, TINY, recipe, tmp_path, batch=8)
    assert (model.text.tokens.weight[TOKENIZER.start] != untrained[TOKENIZER.start]).any()

    scenes = composer.scenes(99, range(32))
    latent = encoder(composer.draw(scenes)).mean
    chance = torch.Generator().manual_seed(0)
    timesteps = stratified_timesteps(32, 1000, chance)
    alpha_bar = torch.from_numpy(Schedule(TINY.schedule).alphas_bar).float()[timesteps]
    noisy, target = velocity_target(latent, torch.randn(latent.shape, generator=chance), alpha_bar)
    with torch.no_grad():
        velocity = model(
            noisy,
            timesteps.float(),
            Captions(TOKENIZER)([composer.caption(99, place, 0) for place in range(32)]),
        )
    assert (velocity - target).square().mean() < 0.8 * target.square().mean()
