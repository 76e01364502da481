"""The tiny decoder against diffusers' and against TAESD's own layout, through files in both."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sdscratch.addons.describe import describe
from sdscratch.checkpoints.taesd import find_taesd, open_taesd, tensor_names
from sdscratch.errors import CheckpointError
from sdscratch.models.config import SD1, AutoencoderConfig
from sdscratch.models.taesd import TinyDecoder
from support.diffusion import relative_error

CPU = torch.device("cpu")
EIGHT = AutoencoderConfig(multipliers=(1, 2), latent_channels=8)  # positions of 2 × 2 pixels
SHAPES = {  # channels, blocks, whose latents
    "taesd": (64, (3, 3, 3, 1), SD1.autoencoder),
    "narrow": (12, (2, 1), EIGHT),
}


def theirs(channels: int, blocks: tuple[int, ...], latents: int) -> Any:
    """diffusers' network, with weights at a scale that neither fades nor explodes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    levels = len(blocks)
    return AutoencoderTiny(
        encoder_block_out_channels=(channels,) * levels,
        decoder_block_out_channels=(channels,) * levels,
        num_encoder_blocks=tuple(reversed(blocks)),
        num_decoder_blocks=blocks,
        latent_channels=latents,
    ).eval()


@pytest.fixture(params=SHAPES)
def case(request: pytest.FixtureRequest) -> tuple[Any, tuple[int, ...], AutoencoderConfig]:
    channels, blocks, config = SHAPES[request.param]
    return theirs(channels, blocks, config.latent_channels), blocks, config


def latents_for(config: AutoencoderConfig) -> Tensor:
    """Some beyond what is drawn in unbounded."""
    return 3.0 * torch.randn(2, config.latent_channels, 5, 7, generator=torch.Generator().manual_seed(1))


def as_taesd(decoder: Any) -> nn.Sequential:
    """TAESD's own form: the first layer bounds latents, the others are diffusers'."""
    return nn.Sequential(nn.Identity(), *decoder.layers)


def test_it_gives_diffusers_picture_from_a_folder_in_diffusers_names(case: Any, tmp_path: Path) -> None:
    reference, blocks, config = case
    reference.save_pretrained(tmp_path / "taesd")  # the encoder, too
    opened = open_taesd(str(tmp_path / "taesd"), config)
    assert opened.config.blocks == blocks
    latents = latents_for(config)
    network = opened.load(CPU, torch.float32)
    with torch.inference_mode():
        shown = network(latents)
        expected = reference.decode(latents).sample
    assert shown.shape == (2, 3, 5 * config.downscale, 7 * config.downscale)
    assert relative_error(shown, expected) < 1e-6


@pytest.mark.parametrize("prefix", ["", "decoder.", "taesd_decoder."])
def test_it_reads_taesds_own_names(case: Any, prefix: str, tmp_path: Path) -> None:
    reference, _, config = case
    state = as_taesd(reference.decoder).state_dict()
    save_file({f"{prefix}{name}": tensor for name, tensor in state.items()}, tmp_path / "taesd.safetensors")
    network = open_taesd(str(tmp_path / "taesd.safetensors"), config).load(CPU, torch.float32)
    latents = latents_for(config)
    with torch.inference_mode():
        assert relative_error(network(latents), reference.decode(latents).sample) < 1e-6


def test_a_pickle_is_read_as_well(tmp_path: Path) -> None:
    reference = theirs(64, (3, 3, 3, 1), 4)
    torch.save(as_taesd(reference.decoder).state_dict(), tmp_path / "taesd_decoder.pth")
    network = open_taesd(str(tmp_path / "taesd_decoder.pth"), SD1.autoencoder).load(CPU, torch.float32)
    assert torch.equal(network.conv_out.bias, reference.decoder.layers[-1].bias)


def test_every_tensor_of_the_network_has_one_name_in_the_file() -> None:
    for channels, blocks, config in SHAPES.values():
        names = tensor_names(blocks)
        decoder = theirs(channels, blocks, config.latent_channels).decoder
        assert set(names.values()) == set(as_taesd(decoder).state_dict())
        path_config = open_config(channels, blocks, config)
        assert set(names) == set(TinyDecoder(path_config).state_dict())


def open_config(channels: int, blocks: tuple[int, ...], config: AutoencoderConfig) -> Any:
    from sdscratch.models.config import TinyDecoderConfig

    return TinyDecoderConfig(config.latent_channels, channels, blocks)


def test_the_file_beside_a_model_is_found_and_others_are_not(tmp_path: Path) -> None:
    decoder = as_taesd(theirs(12, (2, 1), 8).decoder)
    assert find_taesd(tmp_path / "mine.safetensors", EIGHT) is None
    save_file(decoder.state_dict(), tmp_path / "mine-taesd.safetensors")
    found = find_taesd(tmp_path / "mine.safetensors", EIGHT)
    assert found is not None
    assert found.path.name == "mine-taesd.safetensors"
    assert find_taesd(tmp_path / "yours.safetensors", EIGHT) is None


def test_info_knows_one(tmp_path: Path) -> None:
    save_file(as_taesd(theirs(12, (2, 1), 8).decoder).state_dict(), tmp_path / "it.safetensors")
    assert describe(tmp_path / "it.safetensors")["what"] == "a TAESD autoencoder"


def refused(path: Path, config: AutoencoderConfig) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_taesd(str(path), config)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    whole = as_taesd(theirs(12, (2, 1), 8).decoder).state_dict()
    assert "no such file" in refused(path, EIGHT)
    assert "diffusion_pytorch_model.safetensors: no such file" in refused(tmp_path, EIGHT)
    save_file(whole, path)
    assert "the model's have 4 and 8×8" in refused(path, SD1.autoencoder)
    save_file({name: tensor for name, tensor in whole.items() if name != "4.conv.2.bias"}, path)
    assert "4.conv.2.bias is missing" in refused(path, EIGHT)
    save_file(whole | {"4.conv.2.bias": torch.zeros(7)}, path)
    assert "of another shape" in refused(path, EIGHT)
    save_file(theirs(12, (2, 1), 8).encoder.state_dict(), path)  # numbered layers, but no decoder
    refused(path, EIGHT)
    empty = {name: torch.zeros([0 if side == 12 else side for side in t.shape]) for name, t in whole.items()}
    save_file(empty, path)
    assert "holds no decoder of TAESD's" in refused(path, EIGHT)
    save_file({"model.weight": torch.zeros(3)}, path)
    assert "holds no decoder of TAESD's" in refused(path, EIGHT)
