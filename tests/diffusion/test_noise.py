from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdscratch.diffusion.noise import Noise

SHAPE = (4, 3, 5)
SEEDS = st.integers(0, 2**63 - 1)


@given(st.lists(SEEDS, min_size=1, max_size=4), st.integers(1, 3))
def test_a_picture_s_noise_depends_on_its_seed_alone(seeds: list[int], draws: int) -> None:
    together = Noise(seeds, SHAPE)
    alone = [Noise([seed], SHAPE) for seed in seeds]
    for _ in range(draws):
        batch = together()
        assert batch.shape == (len(seeds), *SHAPE)
        for picture, source in zip(batch, alone, strict=True):
            assert torch.equal(picture, source()[0])


@given(SEEDS)
def test_draws_follow_one_another(seed: int) -> None:
    noise = Noise([seed], SHAPE)
    assert not torch.equal(noise(), noise())


@pytest.mark.parametrize("shape", [(4, 64, 64), (4, 9, 13), (1, 1, 3)])
@pytest.mark.parametrize("seeds", [[0], [0, 1], [2**63 - 1, 5, 2**32]])
def test_noise_is_that_of_diffusers_generators(seeds: list[int], shape: tuple[int, ...]) -> None:
    from diffusers.utils.torch_utils import randn_tensor

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    noise = Noise(seeds, shape)
    for _ in range(3):
        assert torch.equal(noise(), randn_tensor((len(seeds), *shape), generator=generators))


def test_noise_is_float32_on_the_cpu_whatever_torch_s_defaults() -> None:
    before = Noise([3], SHAPE)()
    torch.set_default_dtype(torch.float64)
    try:
        after = Noise([3], SHAPE)()
    finally:
        torch.set_default_dtype(torch.float32)
    assert after.dtype == torch.float32
    assert after.device.type == "cpu"
    assert torch.equal(before, after)


def test_noise_leaves_torch_s_own_generator_alone() -> None:
    state = torch.random.get_rng_state()
    Noise([1, 2], SHAPE)()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_noise_is_of_unit_size() -> None:
    draw = Noise([11], (4, 128, 128))()
    assert float(draw.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(draw.std()) == pytest.approx(1.0, abs=0.01)
