"""Upscalers: files of every generation, the networks against spandrel's, bands against the whole."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sdscratch.addons.describe import describe
from sdscratch.addons.upscaler import open_upscaler
from sdscratch.errors import CheckpointError
from sdscratch.fast import upscale
from sdscratch.fast.upscale import upscaled_bands
from sdscratch.models.config import CompactConfig, RRDBConfig, UpscalerConfig
from support.diffusion import relative_error
from support.upscalers import TINY_COMPACT, TINY_RRDB, random_tensors, write_pth

RRDB = {"channels": 8, "growth": 32, "blocks": 2}  # spandrel knows no other growth
SHAPES = {
    "Real-ESRGAN": RRDBConfig(**RRDB),
    "BSRGAN": RRDBConfig(**RRDB),
    "ESRGAN": RRDBConfig(**RRDB),
    "ESRGAN twice": RRDBConfig(**RRDB, upsamplings=1),
    "ESRGAN eight times": RRDBConfig(**RRDB, upsamplings=3),
    "Real-ESRGAN x2": RRDBConfig(**RRDB, unshuffle=2),
    "Real-ESRGAN x1": RRDBConfig(**RRDB, unshuffle=4),
    "Real-ESRGAN 6B": RRDBConfig(**{**RRDB, "blocks": 6}),
    "compact": CompactConfig(channels=8, convolutions=3),
    "compact twice": CompactConfig(channels=8, convolutions=10, scale=2),
}


def picture(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(2))


STUBBED = ("torchvision", "torchvision.ops", "torchvision.transforms", "torchvision.transforms.functional")


@contextmanager
def spandrel() -> Iterator[Any]:
    """spandrel, without torchvision, which other architectures of it import and which weighs a gigabyte."""
    pytest.importorskip("einops")
    absent = importlib.util.find_spec("torchvision") is None
    if absent:
        for name in STUBBED:
            sys.modules[name] = stub(name)
    try:
        yield pytest.importorskip("spandrel")
    finally:
        if absent:
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]


def stub(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__path__ = []
    module.__getattr__ = lambda attribute: type(attribute, (), {})  # type: ignore[method-assign]
    return module


def load(path: Path) -> torch.nn.Module:
    return open_upscaler(str(path)).load(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def reference() -> Iterator[Any]:
    with spandrel() as module:
        yield module


@pytest.mark.parametrize("name", SHAPES)
def test_every_network_draws_what_spandrel_draws(name: str, reference: Any, tmp_path: Path) -> None:
    config = SHAPES[name]
    tensors = random_tensors(config, name.split()[0])
    theirs = reference.ModelLoader().load_from_state_dict(dict(tensors))
    path = tmp_path / "up.safetensors"
    save_file(tensors, path)
    assert open_upscaler(str(path)).config == config
    assert theirs.scale == config.scale
    with torch.inference_mode():
        for size in ((8, 12), (9, 7)):
            wanted = theirs.model(picture(*size))
            ours = load(path)(picture(*size))
            assert ours.shape == wanted.shape == (1, 3, config.scale * size[0], config.scale * size[1])
            assert (ours - wanted).abs().max() < 1e-5 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("prefix", ["", "params.", "params_ema."])
def test_a_pickle_is_read_as_safely_as_any(prefix: str, tmp_path: Path) -> None:
    tensors = random_tensors(TINY_RRDB, "Real-ESRGAN", prefix)
    path = write_pth(tmp_path / "up.pth", tensors)
    assert open_upscaler(str(path)).config == TINY_RRDB
    state = load(path).state_dict()
    assert torch.equal(state["blocks.1.2.conv5.weight"], tensors[f"{prefix}body.1.rdb3.conv5.weight"])


def test_averaged_weights_are_taken_where_both_are_there(tmp_path: Path) -> None:
    tensors = random_tensors(TINY_RRDB, "Real-ESRGAN", "params_ema.")
    others = {name.replace("_ema", ""): 0 * tensor for name, tensor in tensors.items()}
    network = load(write_pth(tmp_path / "up.pth", others | tensors))
    assert torch.equal(network.state_dict()["conv_last.bias"], tensors["params_ema.conv_last.bias"])


@pytest.mark.parametrize(
    "config",
    [TINY_RRDB, RRDBConfig(channels=8, growth=4, blocks=1, unshuffle=2), TINY_COMPACT,
     RRDBConfig(channels=8, growth=4, blocks=1, upsamplings=3),
     CompactConfig(channels=8, convolutions=19, scale=2)],
    ids=["x4", "x2", "compact", "x8", "compact x2"],
)  # fmt: skip
@pytest.mark.parametrize("height", [37, 64])
def test_bands_have_no_seams(
    config: UpscalerConfig, height: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = "Real-ESRGAN" if isinstance(config, RRDBConfig) else "compact"
    monkeypatch.setattr(upscale, "LEAST_ROWS", 5)
    path = tmp_path / "up.safetensors"
    save_file(random_tensors(config, layout), path)
    network = load(path)
    with torch.inference_mode():
        whole = network(picture(height, 11))
        found = list(upscaled_bands(network, picture(height, 11), 1))
    assert len(found) > 3
    assert [top for top, _ in found] == [sum(b.shape[2] for _, b in found[:i]) for i in range(len(found))]
    assert relative_error(torch.cat([band for _, band in found], 2), whole) < 2e-6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("conv_hr.bias"), "no whole upscaler of Real-ESRGAN's: conv_hr.bias is missing"),
        (lambda t: t.update({"body.0.rdb2.conv1x1.weight": torch.zeros(4, 8, 1, 1)}), "conv1x1.*nother make"),
        (lambda t: t.update({"conv_up2.weight": torch.zeros(8, 8, 5, 5)}), r"\[8, 8, 5, 5\], not \[8, 8, 3"),
        (lambda t: t.pop("conv_first.weight"), "a damaged upscaler"),
        (lambda t: [t.pop(name) for name in list(t) if "rdb" in name], "is no upscaler of the ESRGAN family"),
        (lambda t: t.update({"body.999999999.rdb1.conv1.weight": torch.zeros(1)}), "another make"),
    ],
)  # fmt: skip
def test_what_is_no_such_upscaler_is_refused_in_a_sentence(change: Any, said: str, tmp_path: Path) -> None:
    tensors = random_tensors(TINY_RRDB, "Real-ESRGAN")
    change(tensors)
    save_file(tensors, tmp_path / "up.safetensors")
    with pytest.raises(CheckpointError, match=said):
        open_upscaler(str(tmp_path / "up.safetensors"))


def test_of_another_model_it_says_what_it_is(tiny_model: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no upscaler of the ESRGAN family.*it is a Stable Diffusion"):
        open_upscaler(str(tiny_model))
    with pytest.raises(CheckpointError, match=r"there is no upscaler nowhere.*\./upscalers"):
        open_upscaler("nowhere")


@pytest.mark.parametrize(("config", "layout"), [(TINY_RRDB, "ESRGAN"), (TINY_COMPACT, "compact")])
def test_info_tells_upscalers(config: UpscalerConfig, layout: str, tmp_path: Path) -> None:
    facts = describe(write_pth(tmp_path / "up.pth", random_tensors(config, layout)))
    assert facts["what"] == "an upscaler of the ESRGAN family"
    assert facts["upscaler"]["family"] == layout
    assert facts["upscaler"]["scale"] == 4
