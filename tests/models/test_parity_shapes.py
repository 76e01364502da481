"""Shapes beyond Stable Diffusion 1.x, tiny: U-Nets of 2.x, XL and inpainting, OpenCLIP's text encoder.

Each against diffusers' or transformers' network on the same weights, handed over by the layouts.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from sdscratch.checkpoints.empty import empty_network
from sdscratch.checkpoints.folder_config import to_folder
from sdscratch.checkpoints.layouts import FOLDERS, Part, weights
from sdscratch.fast.prepare import prepare
from sdscratch.fast.unet import FastUNet
from sdscratch.models.clip import TextEncoder
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import ModelConfig, TextEncoderConfig, UNetConfig
from sdscratch.models.unet import guidance_embedding
from support.checkpoints import TINY, our_tensors
from support.diffusion import relative_error

TOLERANCE = 1e-5
SIZES = [(8, 8), (9, 7), (16, 12)]

# Heads of one width, matrices into and out of transformers, as in Stable Diffusion 2.x.
SD2 = UNetConfig(
    channels=16, head_width=8, projection="linear", context=40, norm_groups=8, multipliers=(1, 2, 4, 4)
)
# No transformer on the first level, deeper ones below; pooled prompt and sizes added to the time.
SDXL = UNetConfig(
    channels=16,
    multipliers=(1, 2, 4),
    attends=(False, True, True),
    head_width=8,
    depth=(1, 2, 3),
    projection="linear",
    context=56,
    norm_groups=8,
    pooled=24,
    size_width=32,
)
INPAINTING = replace(TINY.unet, in_channels=9)
INSTRUCTED = replace(TINY.unet, in_channels=8)
HEADS = replace(TINY.unet, heads=(2, 4, 8, 1))  # one number a level
LCM = replace(TINY.unet, guidance=20)  # told the guidance
# BK-SDM's three, and SDXS.
BASE = replace(TINY.unet, residual_blocks=1)
SMALL = replace(BASE, middle=False)
THREE = replace(SMALL, multipliers=(1, 2, 4), attends=(True, True, True))
SDXS = replace(THREE, attends=(False, True, True))
UNETS = {
    "2.x": SD2,
    "XL": SDXL,
    "inpainting": INPAINTING,
    "instructed": INSTRUCTED,
    "heads a level": HEADS,
    "LCM": LCM,
    "BK-SDM base": BASE,
    "BK-SDM small": SMALL,
    "BK-SDM tiny": THREE,
    "SDXS": SDXS,
}

OPENCLIP = TextEncoderConfig(
    vocabulary=600, length=20, width=48, layers=4, heads=3, feed_forward=96, activation="gelu",
    family="openclip", skip=1, normed=False, projection=24,
)  # fmt: skip
SECOND = replace(OPENCLIP, width=32, heads=2, projection=16)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair(part: Part, config: ModelConfig) -> tuple[nn.Module, Any]:
    """Our network and the reference's of the same weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    state = our_tensors(config)[part]
    ours = empty_network(part, config)
    ours.load_state_dict(state, assign=True)
    folder = FOLDERS[part]
    record = to_folder(config, 512)[f"{folder}/config.json"]
    theirs: Any
    if part == "unet":
        with torch.device("meta"):
            theirs = UNet2DConditionModel.from_config(record)
    else:
        theirs = CLIPTextModelWithProjection(CLIPTextConfig(**record))
    named = {w.diffusers.removeprefix(f"{folder}/"): state[w.name] for w in weights(config) if w.part == part}
    theirs.load_state_dict(named, strict=True, assign=True)
    return ours.eval(), theirs.eval()


def told(config: UNetConfig, n: int) -> Conditioning:
    context = torch.randn(n, 11, config.context, generator=generator(1))
    if config.guidance is not None:
        told = [guidance_embedding(scale, config.guidance) for scale in (1.0, 7.5, 30.0)]
        return Conditioning(context, guidance=torch.cat(told[:n]))
    if config.pooled is None:
        return Conditioning(context)
    pooled = torch.randn(n, config.pooled, generator=generator(2))
    sizes = torch.tensor([[1024.0, 768.0, 0.0, 64.0, 512.0, 640.0]]).repeat(n, 1) + torch.arange(n)[:, None]
    return Conditioning(context, pooled=pooled, sizes=sizes)


@pytest.mark.parametrize("name", UNETS)
def test_u_nets_of_other_shapes_are_the_references(name: str) -> None:
    config = UNETS[name]
    ours, theirs = pair("unet", replace(TINY, unet=config))
    conditioning, timesteps = told(config, 2), torch.tensor([799.2, 0.0])
    more = {"text_embeds": conditioning.pooled, "time_ids": conditioning.sizes} if config.pooled else None
    fast = prepare(empty_network("unet", replace(TINY, unet=config)))
    fast.load_state_dict(ours.state_dict(), assign=True)
    with torch.inference_mode():
        for size in SIZES:
            x = torch.randn(2, config.in_channels, *size, generator=generator(3))
            latent, beside = x.split([config.out_channels, config.in_channels - config.out_channels], 1)
            given = replace(conditioning, concat=beside if beside.shape[1] else None)
            told_guidance = {"timestep_cond": conditioning.guidance}
            wanted = theirs(
                x, timesteps, conditioning.context, added_cond_kwargs=more, **told_guidance
            ).sample
            assert wanted.shape[1] == config.out_channels
            assert relative_error(ours(latent, timesteps, given), wanted) <= TOLERANCE
            assert relative_error(fast(latent, timesteps, given), wanted) <= TOLERANCE


def test_the_guidance_is_told_as_diffusers_tells_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import LatentConsistencyModelPipeline
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    for scale, width in ((8.5, 256), (1.0, 256), (30.0, 20), (2.0, 7)):
        wanted = theirs(None, torch.tensor([scale - 1]), width)
        assert relative_error(guidance_embedding(scale, width), wanted) <= 1e-6


@pytest.mark.parametrize("config", [OPENCLIP, replace(OPENCLIP, normed=True, skip=0)], ids=["XL", "normed"])
def test_openclips_text_encoder_is_the_references(config: TextEncoderConfig) -> None:
    ours, theirs = pair("text", replace(TINY, text=config))
    assert isinstance(ours, TextEncoder)
    end = config.vocabulary - 1
    ids = torch.randint(0, end, (3, config.length), generator=generator(4))
    ids[torch.arange(3), torch.tensor([4, 19, 11])] = end
    ids[0, 5:] = 0  # padded as OpenCLIP pads
    theirs.config.eos_token_id = theirs.text_model.eos_token_id = end
    with torch.inference_mode():
        hidden = theirs(ids, output_hidden_states=True)
        context, pooled = ours.encode(ids)
        assert pooled is not None
        assert relative_error(pooled, hidden.text_embeds) <= TOLERANCE
        wanted = hidden.hidden_states[-2] if config.skip else hidden.last_hidden_state
        assert relative_error(context, wanted) <= TOLERANCE
        assert torch.equal(ours(ids), context)


def test_a_model_of_two_text_encoders_has_the_references_names() -> None:
    config = replace(TINY, unet=SDXL, text=replace(TINY.text, skip=1, normed=False), more_texts=(SECOND,))
    pair("text2", config)  # which loads strictly
    ldm = {w.ldm for w in weights(config) if w.part.startswith("text")}
    assert {name.split(".")[1] + name.split(".")[2] + name.split(".")[3] for name in ldm} >= {
        "embedders0transformer", "embedders1model",
    }  # fmt: skip


def test_one_number_of_the_time_would_be_missed() -> None:
    config = SDXL
    ours, _ = pair("unet", replace(TINY, unet=config))
    conditioning = told(config, 2)
    x, timesteps = torch.randn(2, 4, 8, 8, generator=generator(3)), torch.tensor([500.0, 500.0])
    assert conditioning.sizes is not None
    other = conditioning.sizes.clone()
    other[:, 2] += 100.0
    with torch.inference_mode():
        one, two = (ours(x, timesteps, replace(conditioning, sizes=s)) for s in (conditioning.sizes, other))
        assert relative_error(one, two) > 10 * TOLERANCE
        with pytest.raises(ValueError, match="got none"):
            ours(x, timesteps, Conditioning(conditioning.context))


def test_halves_of_another_pooled_prompt_are_not_computed_once() -> None:
    network = FastUNet(empty_network("unet", replace(TINY, unet=SDXL)))  # type: ignore[arg-type]
    network.load_state_dict(our_tensors(replace(TINY, unet=SDXL))["unet"], assign=True)
    network = network.bfloat16()
    conditioning = told(SDXL, 2).to(torch.bfloat16)
    assert conditioning.pooled is not None
    assert conditioning.sizes is not None
    sizes = conditioning.sizes[:1].repeat(2, 1)
    x = torch.randn(1, 4, 8, 8, generator=generator(3)).bfloat16().repeat(2, 1, 1, 1)
    seen: list[int] = []
    network.down[0][0].register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    with torch.inference_mode():
        for pooled in (conditioning.pooled, conditioning.pooled[:1].repeat(2, 1)):
            network(x, torch.tensor([500.0, 500.0]), replace(conditioning, pooled=pooled, sizes=sizes))
    assert seen == [2, 1]
