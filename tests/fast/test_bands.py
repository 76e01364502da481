"""The autoencoder by bands against itself as a whole: the same picture, to rounding, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sdscratch.errors import DeviceError
from sdscratch.fast import bands, features
from sdscratch.fast.bands import Moments, Norm, decode_in_bands, encode_in_bands
from sdscratch.fast.features import Features
from sdscratch.fast.prepare import prepare
from sdscratch.fast.seamless import make_seamless
from sdscratch.models.config import AutoencoderConfig
from sdscratch.models.vae import Decoder, Encoder

CONFIG = AutoencoderConfig(channels=32, multipliers=(1, 2, 4), residual_blocks=1, latent_channels=4)
LEVEL = 2 / 255  # of a picture from −1 to 1


def random_network(kind: type[nn.Module], config: AutoencoderConfig = CONFIG) -> nn.Module:
    """A network whose norms matter: weights and biases of norms are not 1 and 0."""
    torch.manual_seed(3)
    network = kind(config).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.weight.copy_(torch.rand(len(module.weight)) + 0.5)
            module.bias.copy_(torch.randn(len(module.bias)) / 2)
    return network


def latent(height: int, width: int) -> Tensor:
    """Each corner unlike the others, so that statistics of a part are not those of the whole."""
    x = torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(1))
    return x * torch.linspace(0.2, 3.0, height)[:, None] + torch.linspace(-2.0, 2.0, width)


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "LEAST_ROWS", 3)


@pytest.fixture(params=["plain", "fast"])
def form(request: pytest.FixtureRequest) -> Callable[[nn.Module], nn.Module]:
    return prepare if request.param == "fast" else lambda network: network


@pytest.mark.parametrize(("size", "axes"), [((13, 9), ""), ((8, 14), "x"), ((9, 8), "xy")], ids=str)
def test_decoding_by_bands_is_decoding(
    form: Callable[[nn.Module], nn.Module], size: tuple[int, int], axes: str
) -> None:
    decoder = form(random_network(Decoder))
    make_seamless(decoder, axes)
    assert isinstance(decoder, Decoder)
    with torch.inference_mode():
        whole = decoder(latent(*size))
        banded = decode_in_bands(decoder, latent(*size), 1)
    assert banded.shape == whole.shape
    assert (banded - whole).abs().max() < 0.02 * LEVEL
    assert whole.std() > 10 * LEVEL


@pytest.mark.parametrize(("size", "axes"), [((36, 28), ""), ((28, 36), "y"), ((32, 24), "xy")], ids=str)
def test_encoding_by_bands_is_encoding(
    form: Callable[[nn.Module], nn.Module], size: tuple[int, int], axes: str
) -> None:
    encoder = form(random_network(Encoder))
    make_seamless(encoder, axes)
    assert isinstance(encoder, Encoder)
    picture = latent(*size)[:, :3]
    with torch.inference_mode():
        whole, banded = encoder(picture), encode_in_bands(encoder, picture, 1)
    assert (banded.mean - whole.mean).abs().max() < 1e-4 * whole.mean.std()
    assert (banded.log_variance - whole.log_variance).abs().max() < 1e-4 * whole.log_variance.std()


def test_in_bfloat16_bands_are_as_close_to_float32_as_the_whole_is() -> None:
    wide = AutoencoderConfig(channels=64, multipliers=(1, 2, 4), residual_blocks=1, latent_channels=4)
    exact, x = random_network(Decoder, wide), latent(32, 24)
    rounded = prepare(random_network(Decoder, wide).bfloat16())
    with torch.inference_mode():
        wanted = exact(x)
        whole = (rounded(x.bfloat16()).float() - wanted).square().mean().sqrt()
        banded = (decode_in_bands(rounded, x.bfloat16(), 1).float() - wanted).square().mean().sqrt()
    assert 0.0 < banded <= 1.1 * whole


def test_statistics_are_those_of_groups_far_from_zero_too() -> None:
    x = torch.randn(1, 64, 40, 30, generator=torch.Generator().manual_seed(0)) * 0.01 + 300.0
    plain = nn.GroupNorm(32, 64, 1e-6)
    moments = Moments(64)
    for band in x.split(7, 2):
        moments.add(band)
    with torch.inference_mode():
        exact = nn.functional.group_norm(x.double(), 32, eps=1e-6)
        assert (Norm(plain, moments)(x) - exact).abs().max() < 0.01  # 300 is known to 3e-5 of 0.01 alone
        assert (moments.of_groups(32)[1][0] - x[:, :2].double().var(correction=0)).abs() < 1e-8


def test_features_in_a_file_are_what_they_are_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    decoder = random_network(Decoder)
    assert isinstance(decoder, Decoder)
    with torch.inference_mode():
        in_memory = decode_in_bands(decoder, latent(16, 16), 1)
        monkeypatch.setattr(features, "MAPPED", 1)
        monkeypatch.setattr(features.tempfile, "tempdir", str(tmp_path))
        assert torch.equal(decode_in_bands(decoder, latent(16, 16), 1), in_memory)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MAPPED", 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "_reserve", full)
    with pytest.raises(DeviceError, match=r"no room for 0.0 GB of features in .*No space left"):
        Features.of(latent(8, 8))
