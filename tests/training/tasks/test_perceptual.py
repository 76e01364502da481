"""The perceptual distance: what eyes mind costs more than what they do not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from sdscratch.training.tasks.perceptual import normalised_pyramid, pyramid_distance


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """Squares of many sizes and greys: edges at every scale."""
    rng = torch.Generator().manual_seed(0)
    canvas = torch.zeros(1, 3, 64, 64)
    for _ in range(40):
        x, y, w, h = (int(v) for v in torch.randint(0, 48, (4,), generator=rng))
        canvas[:, :, y : y + h, x : x + w] = torch.rand(3, 1, 1, generator=rng) - 0.5
    return canvas


def blurred(picture: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(picture, (2, 2, 2, 2), mode="replicate"), 5, 1)


def scaled_to(difference: Tensor, like: Tensor) -> Tensor:
    return difference * (like.square().mean() / difference.square().mean()).sqrt()


def test_at_the_same_squared_error_blur_costs_more_than_a_change_of_brightness(picture: Tensor) -> None:
    blur = blurred(picture) - picture
    brightness = scaled_to(torch.ones_like(picture), blur)
    gradient = scaled_to(torch.linspace(-1, 1, 64).expand_as(picture), blur)
    cost = pyramid_distance(picture + blur, picture)
    assert pyramid_distance(picture + brightness, picture) < 0.01 * cost
    assert pyramid_distance(picture + gradient, picture) < 0.2 * cost


def test_noise_costs_less_where_there_is_texture_to_hide_it() -> None:
    noise = 0.1 * torch.randn((1, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    flat = torch.zeros_like(noise)
    texture = 1.6 * (torch.rand(noise.shape, generator=torch.Generator().manual_seed(2)) - 0.5)
    assert pyramid_distance(texture + noise, texture) < 0.75 * pyramid_distance(flat + noise, flat)


def test_the_distance_is_a_symmetric_zero_at_itself_and_grows(picture: Tensor) -> None:
    blur = blurred(picture) - picture
    assert pyramid_distance(picture, picture) == 0
    assert pyramid_distance(picture + blur, picture) == pyramid_distance(picture, picture + blur)
    costs = [float(pyramid_distance(picture + share * blur, picture)) for share in (0.25, 0.5, 0.75, 1.0)]
    assert costs == sorted(costs)


def test_a_constant_has_no_detail_and_bands_shrink() -> None:
    bands = normalised_pyramid(torch.full((2, 3, 40, 24), 0.7))
    assert [tuple(band.shape[2:]) for band in bands] == [(40, 24), (20, 12), (10, 6), (5, 3)]
    for band in bands:
        assert_close(band, torch.zeros_like(band), rtol=0, atol=1e-6)


def test_gradients_are_finite_even_where_pictures_agree_and_lead_back(picture: Tensor) -> None:
    output = picture.clone().requires_grad_()
    pyramid_distance(output, picture).backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()
    guess = blurred(picture).requires_grad_()
    optimiser = torch.optim.Adam([guess], 0.02)
    before = pyramid_distance(guess, picture).detach()
    for _ in range(60):
        optimiser.zero_grad()
        loss = pyramid_distance(guess, picture)
        loss.backward()
        optimiser.step()
    assert loss.detach() < 0.3 * before
    assert (guess.detach() - picture).abs().mean() < (blurred(picture) - picture).abs().mean()


def test_pictures_of_a_batch_do_not_mix(picture: Tensor) -> None:
    other = picture.flip(3)
    both = pyramid_distance(torch.cat([picture, other]), torch.cat([blurred(picture), other]))
    assert_close(both, pyramid_distance(picture, blurred(picture)) / 2)
