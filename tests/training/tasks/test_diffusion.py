"""Training of text encoder and U-Net: targets, weights, timesteps, captions, latents."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from sdscratch.diffusion.guidance import Prediction, network_denoiser
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import make_sigma_schedule
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import (
    AutoencoderConfig,
    ModelConfig,
    ScheduleConfig,
    TextEncoderConfig,
    UNetConfig,
)
from sdscratch.models.vae import Encoder
from sdscratch.training.engine.loop import train
from sdscratch.training.engine.recipe import Budget, Recipe
from sdscratch.training.tasks import latents as latents_module
from sdscratch.training.tasks.diffusion import (
    DenoisingLoss,
    Diffusion,
    denoising_target,
    snr_weight,
    stratified_timesteps,
    tokenized,
)
from sdscratch.training.tasks.latents import Encode, FreshLatents, ReplayLatents, encode_with
from support.training import CPU, TOKENIZER, Squares

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


class Rewording(Squares):
    """Says at each wording what it is asked."""

    def caption(self, step: int, index: int, wording: int) -> str:
        return f"{step} {index} {wording}"


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents_module, "BUFFER", 4)
    monkeypatch.setattr(latents_module, "PASSES", 4)


@pytest.fixture(scope="module")
def encode() -> Encode:
    torch.manual_seed(0)
    return encode_with(Encoder(TINY.autoencoder).eval().requires_grad_(False), 0.5, CPU)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_samplers_read_the_target_as_it_is_meant(prediction: Prediction) -> None:
    """A network that gives exactly the target is denoised to exactly the latent."""
    schedule = Schedule(TINY.schedule)
    path = make_sigma_schedule(schedule, "euler", "trailing", 5)
    torch.manual_seed(0)
    latent, noise = torch.randn(2, 1, 4, 4, 4)
    for sigma, timestep in zip(path.sigmas, path.timesteps, strict=False):
        alpha_bar = torch.tensor([schedule.alphas_bar[int(timestep)]]).float()
        noisy, target = denoising_target(latent, noise, alpha_bar, prediction)
        denoise = network_denoiser(
            lambda x, t, c, v=target: v, path, prediction, Conditioning(torch.zeros(1, 1, 1))
        )
        atol = 1e-4 if prediction == "v" else 1e-6 * sigma  # ε is divided by √ᾱ
        assert_close(denoise(noisy * math.sqrt(1 + sigma**2), sigma), latent, rtol=1e-4, atol=max(atol, 1e-4))


def test_min_snr_weights_the_error_of_the_latent_alike_for_both_predictions() -> None:
    """‖x₀ − x̂₀‖² · min(SNR, γ), whether x̂₀ comes from a noise or from a velocity (Hang et al. 2023)."""
    torch.manual_seed(0)
    latent, noise, wrong = torch.randn(3, 5, 4, 4, 4, dtype=torch.float64)
    alpha_bar = torch.tensor([0.999, 0.9, 0.5, 0.1, 0.005], dtype=torch.float64)
    signal, spread = alpha_bar.sqrt()[:, None, None, None], (1 - alpha_bar).sqrt()[:, None, None, None]
    for prediction in ("epsilon", "v"):
        noisy, target = denoising_target(latent, noise, alpha_bar, prediction)  # type: ignore[arg-type]
        said = target + wrong
        guess = (
            (noisy - spread * said) / signal if prediction == "epsilon" else signal * noisy - spread * said
        )
        snr = alpha_bar / (1 - alpha_bar)
        expected = (guess - latent).square().flatten(1).mean(1) * snr.clamp(max=5.0)
        loss = (said - target).square().flatten(1).mean(1)
        assert_close(loss * snr_weight(alpha_bar, 5.0, prediction), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("bias", [1.0, 0.6])
def test_timesteps_are_stratified_from_end_to_end_in_any_order(bias: float) -> None:
    rng = torch.Generator().manual_seed(0)
    firsts = set()
    for _ in range(40):
        timesteps = stratified_timesteps(10, 1000, rng, bias)
        firsts.add(int(timesteps[0]) // 100)
        shares = (timesteps.sort().values / 1000) ** (1 / bias)  # of all draws, how many come earlier
        assert ((shares * 10 - torch.arange(10) - 0.5).abs() < 0.52).all()  # a timestep is rounded down
    assert len(firsts) > 5
    drawn = torch.cat([stratified_timesteps(100, 1000, rng, bias) for _ in range(200)])
    assert (0 <= drawn.min() < 10, drawn.max()) == (True, 999)
    assert float((drawn >= 500).float().mean()) == pytest.approx(1 - 0.5 ** (1 / bias), abs=0.01)


def test_captions_are_padded_as_prompts_are() -> None:
    ids = tokenized(TOKENIZER, CPU.device)(["dog", ""])
    assert ids.shape == (2, 12)
    assert ids[1].tolist() == [TOKENIZER.start, TOKENIZER.end] + [TOKENIZER.pad] * 10
    assert ids[0].tolist() == TOKENIZER.encode("dog").padded(12, TOKENIZER.pad)


def test_a_lane_is_passed_over_whole_in_a_new_order_each_time(encode: Encode) -> None:
    stream = ReplayLatents(Squares(), encode, CPU.device, seed=1)
    captions = [stream(step, range(3)).captions for step in range(4 * 5)]
    for index in range(3):
        passes = [[captions[4 * turn + k][index] for k in range(4)] for turn in range(5)]
        assert all(len(set(shown)) == 4 for shown in passes)
        assert len({tuple(shown) for shown in passes[:4]}) > 1
        assert set(passes[0]) == set(passes[3])
        assert not set(passes[0]) & set(passes[4])


def test_latents_belong_to_their_captions_wherever_a_run_begins_and_however_it_is_shared(
    encode: Encode,
) -> None:
    source = Squares()
    known = {
        caption: picture
        for step in range(8)
        for batch in [source.batch(step, range(4), CPU.device)]
        for caption, picture in zip(batch.captions, batch.pictures, strict=True)
    }
    whole = ReplayLatents(source, encode, CPU.device, seed=1)(22, range(4))
    expected = encode(torch.stack([known[caption] for caption in whole.captions]))
    assert_close(whole.values, expected)
    warm = ReplayLatents(source, encode, CPU.device, seed=1)
    for step in (40, 2):
        warm(step, range(2, 4))
    assert torch.equal(warm(22, range(2, 4)).values, whole.values[2:])  # to the last bit: runs go on exactly
    assert warm(22, range(2, 4)).captions == whole.captions[2:]


def test_a_picture_is_encoded_when_it_is_first_shown(encode: Encode) -> None:
    encoded: list[int] = []

    def counting(pictures: Tensor) -> Tensor:
        encoded.append(len(pictures))
        return encode(pictures)

    stream = ReplayLatents(Squares(), counting, CPU.device, seed=1)
    stream(0, range(3))
    assert encoded == [1, 1, 1]
    for step in range(16):  # LANE × PASSES
        stream(step, range(3))
    assert len(encoded) == 4 * 3


def test_each_pass_has_its_own_words(encode: Encode) -> None:
    stream = ReplayLatents(Rewording(), encode, CPU.device, seed=1)
    plain = ReplayLatents(Squares(), encode, CPU.device, seed=1)
    assert stream(3, range(2)).captions == plain(3, range(2)).captions
    turned = [stream(step, range(2)).captions for step in range(8, 12)]
    assert sorted(turned[k][1] for k in range(4)) == [f"{row} 1 2" for row in range(4)]
    assert stream(3, range(2)).values.dtype == torch.float32


def test_an_untrained_network_predicts_nothing_rather_than_something_random() -> None:
    torch.manual_seed(0)
    model = Diffusion.from_config(TINY)
    velocity = model(torch.randn(1, 4, 8, 8), torch.tensor([5.0]), torch.zeros(1, 12, dtype=torch.long))
    assert torch.equal(velocity, torch.zeros(1, 4, 8, 8))


def make_loss(encode: Encode, size: int, **options: float) -> DenoisingLoss:
    latents = FreshLatents(Squares(), encode, CPU.device)
    words = tokenized(TOKENIZER, CPU.device)
    return DenoisingLoss(TINY.schedule, words, latents, CPU, size=size, seed=3, **options)  # type: ignore[arg-type]


def warmed(model: Diffusion) -> Diffusion:
    torch.nn.init.normal_(model.unet.conv_out.weight, std=0.1)
    return model


@pytest.mark.parametrize("options", [{}, {"snr_gamma": 5.0, "late_bias": 0.6}])
def test_the_loss_is_the_same_for_any_split(encode: Encode, options: dict[str, float]) -> None:
    torch.manual_seed(0)
    model = warmed(Diffusion.from_config(TINY))
    loss = make_loss(encode, 6, **options)
    whole = loss(model, 7, range(6))[0]
    parts = [loss(model, 7, indices)[0] for indices in (range(2), range(2, 4), range(4, 6))]
    assert_close(torch.stack(parts).mean(), whole)
    assert loss(model, 8, range(6))[0] != whole


def test_so_many_captions_are_dropped(encode: Encode) -> None:
    heard: list[str] = []

    def words(captions: list[str]) -> torch.Tensor:
        heard.extend(captions)
        return torch.zeros(len(captions), 12, dtype=torch.long)

    model = Diffusion.from_config(TINY)
    for dropout, low, high in ((0.0, 0, 0), (0.25, 15, 60), (1.0, 128, 128)):
        loss = make_loss(encode, 64, dropout=dropout)
        loss.words = words  # type: ignore[assignment]
        heard.clear()
        for step in range(2):
            loss(model, step, range(64))
        assert low <= heard.count("") <= high


def test_training_reaches_both_networks_and_beats_no_prediction(encode: Encode, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Diffusion.from_config(TINY)
    before = model.text.tokens.weight.detach().clone()
    plan = Recipe(Budget(steps=30), 3e-3, batch=8, warm_up=5, ema=0.5)
    train(model, make_loss(encode, 8), plan, tmp_path, CPU)
    assert (model.text.tokens.weight[TOKENIZER.start] != before[TOKENIZER.start]).any()
    with torch.no_grad():
        other = make_loss(encode, 64)
        trained = other(model, 1000, range(64))[0]
        assert trained < 0.8 * other(Diffusion.from_config(TINY), 1000, range(64))[0]
