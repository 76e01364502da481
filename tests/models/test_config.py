"""Configurations as JSON: older files' are read, and what makes no sense is refused in a sentence."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sdscratch.models.config import SD1, ModelConfig, TextEncoderConfig, UNetConfig

# As files have it that were written before input and output channels were apart.
FORMER = {
    "autoencoder": {"channels": 32, "latent_channels": 8, "latent_scale": 1, "multipliers": [1, 2, 4, 4]},
    "schedule": {"prediction": "v"},
    "text": {"activation": "quick_gelu", "heads": 4, "vocabulary": 1000, "width": 192},
    "unet": {
        "attends": [False, True, True],
        "channels": 64,
        "context": 192,
        "heads": 4,
        "latent_channels": 8,
        "multipliers": [1, 2, 4],
        "norm_groups": 32,
        "residual_blocks": 1,
    },
}


def test_what_older_files_say_is_read() -> None:
    config = ModelConfig.from_json(json.dumps(FORMER))
    assert config.unet == UNetConfig(
        in_channels=8, out_channels=8, channels=64, multipliers=(1, 2, 4), attends=(False, True, True),
        residual_blocks=1, heads=4, context=192,
    )  # fmt: skip
    assert config.autoencoder.latent_scale == 1.0
    assert type(config.autoencoder.latent_scale) is float
    assert [config.unet.heads_at(level) for level in range(3)] == [4, 4, 4]


@pytest.mark.parametrize(
    "config",
    [
        SD1,
        replace(SD1, unet=UNetConfig(in_channels=9, head_width=64, projection="linear", context=1024)),
        replace(
            SD1,
            unet=UNetConfig(
                multipliers=(1, 2, 4),
                attends=(False, True, True),
                head_width=64,
                depth=(1, 2, 10),
                pooled=1280,
            ),
            more_texts=(TextEncoderConfig(family="openclip", skip=1, normed=False, projection=1280),),
        ),
        replace(SD1, unet=UNetConfig(heads=(5, 10, 20, 20))),
    ],
    ids=["1.x", "2.x inpainting", "XL", "heads a level"],
)
def test_there_and_back(config: ModelConfig) -> None:
    assert ModelConfig.from_json(config.to_json()) == config


def test_heads_are_many_or_wide() -> None:
    assert [UNetConfig(head_width=64).heads_at(level) for level in range(4)] == [5, 10, 20, 20]
    assert [UNetConfig(heads=(1, 2, 3, 4)).heads_at(level) for level in range(4)] == [1, 2, 3, 4]
    assert [UNetConfig(depth=(1, 2, 10, 10)).depth_at(level) for level in range(4)] == [1, 2, 10, 10]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"unet": {"heads": "many"}}, "UNetConfig.heads is 'many', expected int or tuple"),
        ({"unet": {"heads": [1, 2]}}, "UNetConfig.heads has 2 values for 4 levels"),
        ({"unet": {"depth": [1, 2.5, 1, 1]}}, "UNetConfig.depth is 2.5, expected int"),
        ({"unet": {"head_width": True}}, "UNetConfig.head_width is True, expected int or tuple or null"),
        ({"unet": {"projection": "none"}}, "UNetConfig.projection is 'none', expected conv or linear"),
        ({"unet": {"width": 3}}, "UNetConfig has no field width"),
        ({"unet": [1]}, "UNetConfig is not an object"),
        ({"autoencoder": {"latent_scale": "1"}}, "AutoencoderConfig.latent_scale is '1', expected float"),
        ({"more_texts": {}}, "ModelConfig.more_texts is {}, expected tuple"),
        ({"texts": []}, "expected the keys text, unet, autoencoder, schedule, more_texts"),
        ([], "expected the keys text"),
    ],
)
def test_what_makes_no_sense_is_refused(record: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelConfig.from_json(json.dumps(record))
