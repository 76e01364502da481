"""What lies outside a mask is put back as each tool does it; soft masks are strengths; instructions pull."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from sdscratch.diffusion.catalogue import SAMPLERS
from sdscratch.diffusion.guidance import classifier_free, pair_predictor
from sdscratch.diffusion.inpaint import Blended, Blending, Pull, Surroundings, instructed, soft_mask
from sdscratch.diffusion.sample import sample
from sdscratch.diffusion.schedule import Schedule
from sdscratch.diffusion.spacing import make_sigma_schedule
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import ScheduleConfig

SCHEDULE = Schedule(ScheduleConfig())


def setting() -> tuple[Surroundings, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(1, 1, 6, 8, generator=generator) > 0.5).double()
    latent, noise = (torch.randn(1, 4, 6, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    return Surroundings(mask, latent, noise), latent + 10.0 * noise


def tell(seen: list[Tensor]) -> Any:
    def denoise(x: Tensor, sigma: float, /) -> Tensor:
        seen.append(x)
        return 0.5 * x / (1.0 + sigma) + x.mean() * 0.01  # every position feels all others

    return denoise


@pytest.mark.parametrize("blending", ["estimates", "both", "steps"])
def test_each_way_puts_the_surroundings_where_its_tool_does(blending: Blending) -> None:
    kept, x = setting()
    seen: list[Tensor] = []
    plain: list[Tensor] = []
    blend = Blended(tell(seen), kept, blending)
    results = [blend(x, 10.0), blend(x, 5.0)]
    noisy = [x * kept.mask + (kept.latent + s * kept.noise) * (1 - kept.mask) for s in (10.0, 5.0)]
    expected = {"estimates": [x, x], "both": noisy, "steps": [x, noisy[1]]}[blending]
    for sigma, ours, wanted, result in zip((10.0, 5.0), seen, expected, results, strict=True):
        torch.testing.assert_close(ours, wanted)
        raw = tell(plain)(wanted, sigma)
        around = raw * kept.mask + kept.latent * (1 - kept.mask)
        torch.testing.assert_close(result, raw if blending == "steps" else around)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_keeps_the_surroundings(sampler: str) -> None:
    kept, _ = setting()
    path = make_sigma_schedule(SCHEDULE, sampler, None, 5)
    x = kept.latent + path.sigmas[0] * kept.noise
    generator = torch.Generator().manual_seed(1)

    def noise(*_: float | None) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    blend = Blended(tell([]), kept, "estimates")
    *_, last = sample(sampler, blend, x, path, noise)
    end = kept.around(last.latent)
    outside = (kept.mask == 0).expand_as(end)
    torch.testing.assert_close(end[outside], kept.latent[outside])
    assert torch.isfinite(end).all()
    if SAMPLERS[sampler].denoisings and path.sigmas[-1] == 0.0 and sampler in ("euler", "heun", "dpm++2m"):
        # the sampler's own latent has come down to the picture too
        torch.testing.assert_close(last.latent[outside], kept.latent[outside])


def test_putting_back_before_the_network_is_putting_back_after_the_step() -> None:
    """diffusers blends the sampler's latent after every step; ours blends what the network sees."""
    kept, _ = setting()
    path = make_sigma_schedule(SCHEDULE, "euler", None, 6)
    x = kept.noise * path.start_scale
    denoise = tell([])
    theirs = x
    for sigma, following in pairwise(path.sigmas):
        slope = (theirs - denoise(theirs, sigma)) / sigma
        theirs = theirs + slope * (following - sigma)
        theirs = kept.mask * theirs + (1 - kept.mask) * (kept.latent + following * kept.noise)
    blend = Blended(tell([]), kept, "steps")
    *_, last = sample("euler", blend, x, path, lambda *_: torch.zeros_like(x))
    torch.testing.assert_close(kept.around(last.latent), theirs)


def test_a_soft_mask_is_a_strength_for_each_position() -> None:
    path = make_sigma_schedule(SCHEDULE, "euler", "linspace", 5)
    levels = torch.tensor([0.0, 0.1, 0.3, 0.5, 0.8, 1.0])[None, None, None]
    at = soft_mask(levels, path)
    masks = torch.cat([at(sigma) for sigma in path.sigmas[:-1]])[:, 0, 0]
    # how much of the way is left: 1, 3/4, 1/2, 1/4, 0
    assert masks.sum(0).tolist() == [0, 1, 2, 3, 4, 5]
    assert all((after >= before).all() for before, after in pairwise(masks))


def test_instructions_pull_as_the_paper_says() -> None:
    """Brooks et al. 2023, eq. 3."""
    generator = torch.Generator().manual_seed(3)
    x, picture = (torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    prompt, negative = (Conditioning(torch.randn(1, 7, 3, generator=generator)) for _ in range(2))

    def network(x: Tensor, timesteps: Tensor, told: Conditioning) -> Tensor:
        assert told.concat is not None
        return torch.sin(x + 2.0 * told.concat + told.context.mean((1, 2))[:, None, None, None])

    def ask(told: Conditioning, beside: Tensor) -> Tensor:
        return torch.sin(x + 2.0 * beside + told.context.mean())

    pulls, without = instructed([Pull(prompt)], negative, picture, 7.5, 1.5)
    ours = classifier_free(1.0)(*pair_predictor(network, pulls, without)(x, 500.0), 1.0)
    none, image, text = ask(negative, torch.zeros_like(x)), ask(negative, picture), ask(prompt, picture)
    torch.testing.assert_close(ours, none + 7.5 * (text - image) + 1.5 * (image - none))
