"""The decoder's own lesson: what its terms see, how the discriminator fades; nothing else is taught."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sdscratch.models.config import AutoencoderConfig
from sdscratch.models.vae import Decoder, Gaussian
from sdscratch.pictograms.crisp import (
    ADVERSARIAL_WEIGHT,
    FADED,
    LEAST_ADVERSARIAL,
    CrispLoss,
    DecoderWithDiscriminator,
    fading,
    mottling,
)
from sdscratch.pictograms.sampled import Example
from sdscratch.training.tasks.adversarial import Discriminator, discriminator_loss
from sdscratch.training.tasks.autoencoder import Reconstruction
from support.training import CPU, Squares

TINY = AutoencoderConfig(8, (1, 2), 1, 4, 1.0, 4)


def made(output: Tensor, picture: Tensor) -> Reconstruction:
    return Reconstruction(output, picture, Gaussian(output, output))


def test_mottling_is_what_varies_where_the_picture_does_not() -> None:
    flat = torch.zeros(1, 3, 8, 8)
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 0.25
    assert float(mottling(made(flat + 0.7, flat))) == 0  # a wrong colour is another term's business
    assert float(mottling(made(flat + board, flat))) == pytest.approx(2 * 0.25 / 2)
    stripes = (torch.arange(8) % 2 * 0.25).expand(1, 3, 8, 8)
    assert float(mottling(made(stripes, flat))) == pytest.approx(0.25 / 2)  # the half of all steps


def test_edges_of_the_picture_are_not_mottling_wherever_they_are_drawn() -> None:
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1.0
    assert float(mottling(made(edge, edge))) == 0
    assert float(mottling(made(edge * 5, edge))) == 0
    beside = torch.zeros(1, 3, 8, 8)
    beside[..., 5:] = 1.0
    # 8 steps of 1 a channel, among 8 · 6 to the right and 7 · 8 downwards
    assert float(mottling(made(beside, edge))) == pytest.approx(8 / (8 * 6 + 7 * 8))
    everywhere = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert float(mottling(made(beside, everywhere))) == 0  # no flat place: nothing, and not 0 / 0


def test_a_step_within_a_flat_colours_rounding_counts_as_flat() -> None:
    stepped = torch.zeros(1, 3, 8, 8)
    stepped[..., 4:] = 2 / 127.5
    rough = torch.zeros(1, 3, 8, 8)
    rough[..., 4:] = 0.5
    assert float(mottling(made(rough, stepped))) > 0
    stepped[:, 1, :, 4:] = 3 / 127.5  # one channel is enough
    assert float(mottling(made(rough, stepped))) == 0


def test_the_critic_fades_to_its_least_and_stays() -> None:
    weights = [fading(step) for step in range(0, 3 * FADED, FADED // 10)]
    assert weights[0] == ADVERSARIAL_WEIGHT
    assert all(later <= earlier for earlier, later in pairwise(weights))
    assert weights[-1] == fading(FADED) == pytest.approx(ADVERSARIAL_WEIGHT * LEAST_ADVERSARIAL)
    assert fading(FADED // 2) == pytest.approx(ADVERSARIAL_WEIGHT * (1 + LEAST_ADVERSARIAL) / 2)


class Fixed:
    """The same examples at every step."""

    def __init__(self, scale: float = 1.0) -> None:
        rng = torch.Generator().manual_seed(0)
        pictures = Squares(size=32).batch(0, range(4), torch.device("cpu")).pictures
        self.example = Example(torch.randn(4, 4, 16, 16, generator=rng) * scale, pictures)

    def __call__(self, step: int, indices: range) -> Example:
        chosen = slice(indices.start, indices.stop)
        return Example(self.example.latents[chosen], self.example.pictures[chosen])


def module() -> DecoderWithDiscriminator:
    torch.manual_seed(0)
    return DecoderWithDiscriminator(Decoder(TINY), Discriminator(channels=16))


def test_decoder_and_critic_each_learn_their_own_lesson() -> None:
    taught = module()
    loss, metrics = CrispLoss(Fixed(), 1.0, CPU)(taught, 0, range(4))  # type: ignore[arg-type]
    loss.backward()
    assert all(weight.grad is not None for weight in taught.parameters())
    assert {"l1", "gradient", "perceptual", "mottling", "psnr", "adversarial", "critic"} == set(metrics)

    apart = module()
    example = Fixed().example
    _, verdict = apart(example.latents, example.pictures)
    discriminator_loss(verdict).backward()
    for one, other in zip(taught.critic.parameters(), apart.critic.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)
    assert all(weight.grad is None for weight in apart.decoder.parameters())


def test_the_adversarial_term_counts_less_as_it_fades() -> None:
    taught = module()
    losses = []
    for step in (0, FADED):
        loss, metrics = CrispLoss(Fixed(), 1.0, CPU)(taught, step, range(4))  # type: ignore[arg-type]
        losses.append(float(loss.detach()))
        pull = float(metrics["adversarial"])
    assert losses[0] - losses[1] == pytest.approx((fading(0) - fading(FADED)) * pull, rel=1e-3, abs=1e-5)


def test_latents_reach_the_decoder_in_its_own_scale() -> None:
    taught = module()
    one, _ = CrispLoss(Fixed(), 1.0, CPU)(taught, 0, range(4))  # type: ignore[arg-type]
    other, _ = CrispLoss(Fixed(scale=0.25), 0.25, CPU)(taught, 0, range(4))  # type: ignore[arg-type]
    torch.testing.assert_close(one, other)


def test_learning_makes_flat_colours_flat() -> None:
    taught, source = module(), Fixed()
    descent = torch.optim.AdamW(taught.parameters(), lr=3e-3)
    history = []
    for step in range(40):
        loss, metrics = CrispLoss(source, 1.0, CPU)(taught, step, range(4))  # type: ignore[arg-type]
        history.append((float(metrics["l1"]), float(metrics["mottling"])))
        descent.zero_grad()
        loss.backward()
        descent.step()
    assert history[-1][0] < history[0][0] / 2
    assert history[-1][1] < history[5][1]
