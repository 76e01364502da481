"""Pictures that tile: networks that know no edge, and a picture whose sides meet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sdscratch.fast.prepare import prepare
from sdscratch.fast.seamless import axes_of, make_seamless
from sdscratch.generation.pipeline import Pipeline, load
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.config import AutoencoderConfig, TinyDecoderConfig
from sdscratch.models.esrgan import upscaler_of
from sdscratch.models.taesd import TinyDecoder
from sdscratch.models.unet import UNet
from sdscratch.models.vae import Decoder, Encoder
from support.checkpoints import TINY
from support.diffusion import relative_error
from support.upscalers import TINY_COMPACT, TINY_RRDB

VAE = AutoencoderConfig(channels=32, multipliers=(1, 2), residual_blocks=1)
Run = Callable[[nn.Module, Tensor], Tensor]


def predict(network: nn.Module, x: Tensor) -> Tensor:
    context = torch.randn(1, 77, TINY.unet.context, generator=torch.Generator().manual_seed(2))
    return network(x, torch.tensor([500.0]), Conditioning(context))


# a network, how it is run, the channels of what it takes, and a shift that is a whole one at every level
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Run, int, int]] = {
    "unet": (lambda: UNet(TINY.unet), predict, 4, 8),
    "decoder": (lambda: Decoder(VAE), lambda network, x: network(x), 4, 1),
    "encoder": (lambda: Encoder(VAE), lambda network, x: network(x).mean, 3, 2),
    "tiny decoder": (
        lambda: TinyDecoder(TinyDecoderConfig(channels=16, blocks=(1, 1))),
        lambda network, x: network(x), 4, 1,
    ),
    "upscaler": (lambda: upscaler_of(TINY_RRDB), lambda network, x: network(x), 3, 1),
    "compact upscaler": (lambda: upscaler_of(TINY_COMPACT), lambda network, x: network(x), 3, 1),
}  # fmt: skip


@pytest.fixture(params=["plain", "fast"])
def form(request: pytest.FixtureRequest) -> Callable[[nn.Module], nn.Module]:
    return prepare if request.param == "fast" else lambda network: network


@pytest.mark.parametrize("name", NETWORKS)
def test_a_shifted_picture_gives_the_result_shifted(
    name: str, form: Callable[[nn.Module], nn.Module]
) -> None:
    make, run, channels, step = NETWORKS[name]
    torch.manual_seed(0)
    network = form(make().eval().requires_grad_(False))
    side = 16
    x = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        plain = run(network, x.clone())
        grown = plain.shape[2] / side

        def shift(axis: int) -> float:
            moved = run(network, x.roll(step, axis))
            return relative_error(moved.roll(-int(step * grown), axis), run(network, x.clone()))

        assert shift(3) > 1e-3  # with edges it is another picture
        for axes, along in (("x", {3}), ("y", {2}), ("xy", {2, 3})):
            make_seamless(network, axes)
            assert axes_of(network) == axes
            for axis in (2, 3):
                assert (shift(axis) < 2e-5) == (axis in along), (axes, axis)
        make_seamless(network, "")
        assert torch.equal(run(network, x.clone()), plain)
    assert not [module for module in network.modules() if type(module).__name__.startswith("Circular")]


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load(str(tiny_model), device="cpu", dtype="float32")


def seams(image: Image.Image) -> tuple[float, float]:
    """How large the steps over a picture's own sides are, by the largest inside: along x, along y."""
    pixels = np.asarray(image, dtype=float)
    tiled = np.tile(pixels, (2, 2, 1))
    found = []
    for axis, length in ((1, image.width), (0, image.height)):
        steps = np.abs(np.diff(tiled, axis=axis)).mean(axis=(1 - axis, 2))
        inside = np.delete(steps, length - 1)
        found.append(float(steps[length - 1] / inside.max()))
    return found[0], found[1]


@pytest.mark.parametrize("size", [(72, 104)], ids=str)
def test_sides_meet_without_a_seam_above_the_pictures_own_steps(
    pipeline: Pipeline, size: tuple[int, int]
) -> None:
    asked = {"width": size[0], "height": size[1], "steps": 4, "seed": 3, "sampler": "euler"}
    plain = pipeline.txt2img("leaves", **asked)
    both = pipeline.txt2img("leaves", seamless="xy", **asked)
    assert max(seams(both)) <= 1.0
    assert seams(pipeline.txt2img("leaves", seamless="x", **asked))[0] <= 1.0
    assert np.array_equal(np.asarray(plain), np.asarray(pipeline.txt2img("leaves", **asked)))
    again = pipeline.txt2img("leaves", seamless="xy", tile=128, hires=2, hires_upscaler="latent", **asked)
    assert max(seams(again)) <= 1.0


def test_image_to_image_tiles_too(pipeline: Pipeline) -> None:
    ramp = Image.fromarray(np.linspace(0, 255, 64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))
    asked = {"steps": 4, "strength": 1.0, "seed": 3, "sampler": "euler"}
    assert max(seams(pipeline.img2img(ramp, "leaves", seamless="xy", **asked))) <= 1.0
