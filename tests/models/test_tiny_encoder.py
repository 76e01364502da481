"""The tiny encoder against diffusers' and in TAESD's own layout, through files in both."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdscratch.checkpoints.tiny_encoder import open_tiny_encoder
from sdscratch.errors import CheckpointError
from sdscratch.models.config import SD1, AutoencoderConfig
from support.diffusion import relative_error

CPU = torch.device("cpu")
EIGHT = AutoencoderConfig(multipliers=(1, 2), latent_channels=8)  # positions of 2 × 2 pixels
SHAPES = {"taesd": (64, (3, 3, 3, 1), SD1.autoencoder), "narrow": (12, (2, 1), EIGHT)}


@pytest.fixture(params=SHAPES)
def case(request: pytest.FixtureRequest) -> tuple[Any, AutoencoderConfig]:
    """diffusers' network, and whose latents it makes."""
    channels, blocks, config = SHAPES[request.param]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import AutoencoderTiny
    torch.manual_seed(0)
    network = AutoencoderTiny(
        encoder_block_out_channels=(channels,) * len(blocks),
        decoder_block_out_channels=(channels,) * len(blocks),
        num_encoder_blocks=tuple(reversed(blocks)),
        num_decoder_blocks=blocks,
        latent_channels=config.latent_channels,
    )
    return network.eval(), config


def check(reference: Any, path: Path, config: AutoencoderConfig) -> None:
    pictures = torch.rand(2, 3, 5 * config.downscale, 7 * config.downscale) * 2 - 1
    with torch.inference_mode():
        found = open_tiny_encoder(str(path), config).load(CPU, torch.float32)(pictures)
        expected = reference.encode(pictures).latents
    assert found.shape == (2, config.latent_channels, 5, 7)
    assert relative_error(found, expected) < 1e-6


def test_it_gives_diffusers_latents_from_a_folder_in_diffusers_names(case: Any, tmp_path: Path) -> None:
    reference, config = case
    reference.save_pretrained(tmp_path / "taesd")
    check(reference, tmp_path / "taesd", config)


@pytest.mark.parametrize("prefix", ["", "encoder.", "taesd_encoder."])
def test_it_reads_taesds_own_names(case: Any, prefix: str, tmp_path: Path) -> None:
    reference, config = case
    state = {f"{prefix}{name}": tensor for name, tensor in reference.encoder.layers.state_dict().items()}
    save_file(state, tmp_path / "taesd_encoder.safetensors")
    check(reference, tmp_path / "taesd_encoder.safetensors", config)


def test_what_is_no_whole_encoder_for_the_model_is_refused(case: Any, tmp_path: Path) -> None:
    reference, config = case
    reference.save_pretrained(tmp_path / "taesd")
    other = EIGHT if config is SD1.autoencoder else SD1.autoencoder
    with pytest.raises(CheckpointError, match="take one that is made for this model"):
        open_tiny_encoder(str(tmp_path / "taesd"), other)
    state = load_file(tmp_path / "taesd" / "diffusion_pytorch_model.safetensors")
    path = tmp_path / "part.safetensors"
    save_file({name: t for name, t in state.items() if name.startswith("decoder")}, path)
    with pytest.raises(CheckpointError, match="holds no encoder of TAESD's"):
        open_tiny_encoder(str(path), config)
    save_file({name: t for name, t in state.items() if name != "encoder.layers.1.conv.2.bias"}, path)
    with pytest.raises(
        CheckpointError, match=r"no whole encoder .* encoder\.layers\.1\.conv\.2\.bias is missing"
    ):
        open_tiny_encoder(str(path), config)
    with pytest.raises(CheckpointError, match="no such file"):
        open_tiny_encoder(str(tmp_path / "nothing"), config)
