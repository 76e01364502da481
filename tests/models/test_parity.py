"""Each network against diffusers' or transformers' on the same weights, handed over by the key tables.

Twice over: on weights at an ordinary scale, and on weights whose residual streams are small (`SMALL`), as
trained checkpoints have them in places. Only there do a normalisation's epsilons show, and the tests prove
that they would.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdscratch.checkpoints.folder_config import to_folder
from sdscratch.checkpoints.layouts import FOLDERS, Part, weights
from sdscratch.models.clip import TextEncoder
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import SD1, AutoencoderConfig, ModelConfig, TextEncoderConfig, UNetConfig
from sdscratch.models.unet import SpatialTransformer, UNet
from sdscratch.models.vae import Decoder, Encoder
from support.checkpoints import SMALLER, TINY, our_tensors
from support.diffusion import relative_error

TOLERANCE = 1e-5
NORMAL, SMALL = 1.0, 3e-3  # scale of what is written into residual streams

# Few levels of one residual block, transformers on the first and the last, one head.
SHALLOW = ModelConfig(
    TextEncoderConfig(vocabulary=600, length=20, width=48, layers=3, heads=1, feed_forward=32),
    UNetConfig(
        channels=24,
        multipliers=(1, 2, 2),
        attends=(True, False, True),
        residual_blocks=1,
        heads=1,
        context=48,
        norm_groups=3,
    ),
    AutoencoderConfig(channels=12, multipliers=(1, 2), residual_blocks=1, latent_channels=6, norm_groups=6),
)
CONFIGS = {"tiny": TINY, "smaller": SMALLER, "shallow": SHALLOW}
SIZES = [(8, 8), (16, 8), (9, 7), (5, 12), (11, 13)]  # of latents; most are no multiple of 8, or odd


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- Pairs of networks with the same weights --------------------------------------------------------------


def ours(part: Part, config: ModelConfig, tensors: dict[str, Tensor]) -> nn.Module:
    makers: dict[Part, Callable[[], nn.Module]] = {
        "text": lambda: TextEncoder(config.text),
        "unet": lambda: UNet(config.unet),
        "encoder": lambda: Encoder(config.autoencoder),
        "decoder": lambda: Decoder(config.autoencoder),
    }
    with torch.device("meta"):
        network = makers[part]()
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.eval()


def reference(part: Part, config: ModelConfig, parts: dict[str, dict[str, Tensor]]) -> Any:
    """The reference's network made from the config.json we would write, with the names we would write."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

    folder = FOLDERS[part]
    record = to_folder(config, 512)[f"{folder}/config.json"]
    state = {
        weight.diffusers.removeprefix(f"{folder}/"): parts[weight.part][weight.name]
        for weight in weights(config)
        if FOLDERS[weight.part] == folder
    }
    if folder == "text_encoder":
        network: Any = CLIPTextModel(CLIPTextConfig(**record))
        if "text_model.final_layer_norm.weight" not in network.state_dict():  # as of transformers 5
            state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    else:
        with torch.device("meta"):
            network = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[folder].from_config(record)
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


def pair(part: Part, config: ModelConfig, stream: float) -> tuple[nn.Module, Any]:
    parts = our_tensors(config, stream=stream)
    return ours(part, config, parts[part]), reference(part, config, parts)


# --- What each pair is asked, and what it answers ---------------------------------------------------------

Answers = Iterator[tuple[Tensor, Tensor]]  # (ours, reference)


def ask_text(network: Any, reference: Any, config: ModelConfig, _: Iterable[tuple[int, int]]) -> Answers:
    text = config.text
    ids = torch.randint(0, text.vocabulary, (2, text.length), generator=generator())
    hidden = reference(ids, output_hidden_states=True)
    yield network(ids), hidden.last_hidden_state
    norm = getattr(reference, "text_model", reference).final_layer_norm
    for skip in range(1, text.layers + 1):
        yield network(ids, skip), norm(hidden.hidden_states[-1 - skip])


def ask_unet(network: Any, reference: Any, config: ModelConfig, sizes: Iterable[tuple[int, int]]) -> Answers:
    unet = config.unet
    context = torch.randn(2, config.text.length, unet.context, generator=generator(1))
    for size in sizes:
        x = torch.randn(2, unet.latent_channels, *size, generator=generator(2))
        timesteps = torch.tensor([799.2, 0.0])
        yield network(x, timesteps, Conditioning(context)), reference(x, timesteps, context).sample


def ask_encoder(
    network: Any, reference: Any, config: ModelConfig, sizes: Iterable[tuple[int, int]]
) -> Answers:
    scale = config.autoencoder.downscale
    for height, width in sizes:
        picture = torch.rand(2, 3, scale * height, scale * width, generator=generator(3)) * 2 - 1
        posterior, theirs = network(picture), reference.encode(picture).latent_dist
        yield posterior.mean, theirs.mean
        yield posterior.log_variance, theirs.logvar
        noise = torch.randn(posterior.mean.shape, generator=generator(4))
        yield posterior.sample(noise), theirs.sample(generator(4))


def ask_decoder(
    network: Any, reference: Any, config: ModelConfig, sizes: Iterable[tuple[int, int]]
) -> Answers:
    for size in sizes:
        latent = torch.randn(2, config.autoencoder.latent_channels, *size, generator=generator(5))
        yield network(latent), reference.decode(latent).sample


ASK: dict[Part, Callable[..., Answers]] = {
    "text": ask_text,
    "unet": ask_unet,
    "encoder": ask_encoder,
    "decoder": ask_decoder,
}


def worst_error(
    part: Part, network: Any, reference: Any, config: ModelConfig, sizes: Iterable[tuple[int, int]]
) -> float:
    with torch.inference_mode():
        return max(relative_error(a, b) for a, b in ASK[part](network, reference, config, sizes))


@pytest.mark.parametrize("stream", [NORMAL, SMALL], ids=["normal", "small"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("part", ASK)
def test_network_is_the_reference_s(part: Part, config: ModelConfig, stream: float) -> None:
    network, theirs = pair(part, config, stream)
    assert worst_error(part, network, theirs, config, SIZES) <= TOLERANCE


def set_epsilon(
    network: nn.Module, kind: type[nn.Module], epsilon: float, *, inside: bool | None = None
) -> None:
    """Change the norms of one kind; `inside`: only those of spatial transformers, or only the others."""
    transformers = [m.norm for m in network.modules() if isinstance(m, SpatialTransformer)]
    for module in network.modules():
        if isinstance(module, kind) and inside in (None, any(module is norm for norm in transformers)):
            module.eps = epsilon  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("part", "kind", "epsilon", "inside"),
    [
        ("unet", nn.GroupNorm, 1e-6, False),
        ("unet", nn.GroupNorm, 1e-5, True),
        ("encoder", nn.GroupNorm, 1e-5, None),
        ("decoder", nn.GroupNorm, 1e-5, None),
        ("text", nn.LayerNorm, 1e-6, None),
    ],
)
def test_a_wrong_epsilon_would_fail(
    part: Part, kind: type[nn.Module], epsilon: float, inside: bool | None
) -> None:
    network, theirs = pair(part, TINY, SMALL)
    set_epsilon(network, kind, epsilon, inside=inside)
    assert worst_error(part, network, theirs, TINY, SIZES[:2]) > 100 * TOLERANCE


# One network of full size at a time, so that only its weights are made.
FULL: dict[Part, ModelConfig] = {
    "text": replace(TINY, text=SD1.text),
    "unet": replace(TINY, unet=SD1.unet),
    "encoder": replace(TINY, autoencoder=SD1.autoencoder),
    "decoder": replace(TINY, autoencoder=SD1.autoencoder),
}


@pytest.mark.full
@pytest.mark.parametrize("stream", [NORMAL, SMALL], ids=["normal", "small"])
@pytest.mark.parametrize("part", ASK)
def test_network_of_full_size_is_the_reference_s(part: Part, stream: float) -> None:
    config = FULL[part]
    network, theirs = pair(part, config, stream)
    assert worst_error(part, network, theirs, config, [(16, 16), (9, 13)]) <= TOLERANCE
