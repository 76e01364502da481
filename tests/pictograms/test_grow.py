"""A grown model begins where the small one ended."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch.testing import assert_close

from sdscratch.models.config import AutoencoderConfig, ModelConfig, TextEncoderConfig, UNetConfig
from sdscratch.models.vae import Gaussian, steps
from sdscratch.pictograms.grow import grow_autoencoder, grow_diffusion, kept_meaning
from sdscratch.text.tokenizer import Tokenizer, learn_merges
from sdscratch.training.tasks.autoencoder import Autoencoder, Reconstruction
from sdscratch.training.tasks.diffusion import Diffusion

SMALL = AutoencoderConfig(
    channels=8, multipliers=(1, 2), residual_blocks=1, latent_channels=4, latent_scale=1.0, norm_groups=4
)
LARGE = replace(SMALL, multipliers=(1, 1, 2), latent_channels=6)


def grown() -> tuple[Autoencoder, Autoencoder]:
    torch.manual_seed(0)
    small, large = Autoencoder(SMALL).eval(), Autoencoder(LARGE).eval()
    grow_autoencoder(small, large)
    return small, large


@torch.no_grad()
def test_the_new_level_of_the_encoder_averages_and_the_rest_is_the_small_one() -> None:
    small, large = grown()
    picture = torch.randn(1, 3, 32, 32)
    features = F.avg_pool2d(large.encoder.conv_in(picture), 2)
    first = large.encoder.conv_in(picture)
    for step in steps(large.encoder.down[:1]):
        first = step(first)
    assert_close(first, features)
    x, y = features, features
    for step in steps(small.encoder.down):
        x = step(x)
    for step in steps(large.encoder.down[1:]):
        y = step(y)
    assert_close(x, y)
    top = torch.randn(1, 16, 8, 8)
    narrow = small.encoder.quant(small.encoder.conv_out(top))
    wide = large.encoder.quant(large.encoder.conv_out(top))
    assert_close(wide[:, :4], narrow[:, :4])
    assert_close(wide[:, 6:10], narrow[:, 4:])


@torch.no_grad()
def test_the_new_level_of_the_decoder_repeats_what_the_small_one_would_show() -> None:
    small, large = grown()
    latent = torch.zeros(2, 6, 8, 8)
    latent[:, :4] = torch.randn(2, 4, 8, 8)
    x = small.decoder.middle(small.decoder.conv_in(small.decoder.quant(latent[:, :4])))
    y = large.decoder.middle(large.decoder.conv_in(large.decoder.quant(latent)))
    for step in steps(small.decoder.up):
        x = step(x)
    for step in steps(large.decoder.up):
        y = step(y)
    assert_close(y, x.repeat_interleave(2, 2).repeat_interleave(2, 3))


@torch.no_grad()
def test_a_grown_network_predicts_what_the_small_one_does_and_nothing_for_new_channels() -> None:
    words = Tokenizer.from_merges(learn_merges(["a cat on a mat"] * 9, 12), length=8)
    small, large = (Diffusion.from_config(model_config(words, channels)) for channels in (4, 6))
    for weight in small.parameters():  # `initialise` leaves the last layers at 0
        weight.normal_(std=0.1)
    grow_diffusion(small, large, words, words)
    noisy, timesteps = torch.randn(2, 6, 8, 8), torch.tensor([10.0, 900.0])
    ids = torch.tensor([words.encode(text).padded(8, words.pad) for text in ("a cat", "mat")])
    velocity = large(noisy, timesteps, ids)
    assert_close(velocity[:, :4], small(noisy[:, :4], timesteps, ids))
    assert not velocity[:, 4:].any()


@torch.no_grad()
def test_known_words_keep_their_embeddings_and_new_ones_begin_as_the_mean_of_their_parts() -> None:
    texts = ["a cat on a mat"] * 9
    old = Tokenizer.from_merges(learn_merges(texts, 12), length=8)
    new = Tokenizer.from_merges(learn_merges([*texts, *["a rocket"] * 30], 24), length=12)
    small, large = Diffusion.from_config(model_config(old, 4)), Diffusion.from_config(model_config(new, 4))
    grow_diffusion(small, large, old, new)
    before, after = small.text.tokens.weight, large.text.tokens.weight
    for word in ("cat</w>", "<|startoftext|>"):
        assert_close(after[new.vocabulary.ids[word]], before[old.vocabulary.ids[word]])
    parts = list(old.encode("rocket").ids[1:-1])
    assert len(parts) > 1
    assert_close(after[new.vocabulary.ids["rocket</w>"]], before[parts].mean(0))
    assert_close(large.text.positions.weight[:8], small.text.positions.weight)
    assert_close(large.text.positions.weight[8:], small.text.positions.weight[7:].expand(4, -1))


def model_config(words: Tokenizer, latent_channels: int) -> ModelConfig:
    return ModelConfig(
        text=TextEncoderConfig(
            vocabulary=words.size, length=words.length, width=16, layers=1, heads=2, feed_forward=32
        ),
        unet=UNetConfig(
            in_channels=latent_channels,
            out_channels=latent_channels,
            channels=16,
            multipliers=(1, 2),
            attends=(False, True),
            residual_blocks=1,
            heads=2,
            context=16,
            norm_groups=8,
        ),
    )


def test_kept_meaning_counts_how_far_the_first_channels_drift_from_the_small_encoders() -> None:
    small, large = grown()
    picture = torch.randn(2, 3, 32, 32)
    term = kept_meaning(small.encoder)
    meant = small.encoder(F.avg_pool2d(picture, 2)).mean
    posterior = Gaussian(torch.cat([meant + 0.5, meant[:, :2]], dim=1), torch.zeros(2, 6, 8, 8))
    assert_close(term(Reconstruction(picture, picture, posterior)), torch.tensor(0.25))
    assert term(Reconstruction(picture, picture, large.encoder(picture))).requires_grad
