"""Random checkpoints, tiny and full-size, in every form that users have them.

The weights are at a sane scale: activations stay near one, and the U-Net passes its input through to its
output beside everything else it computes, so that its prediction looks like noise where the latent is noise.
A full-size random model therefore gives a finite picture, not a saturated one, that moves when anything is
computed wrongly.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import types
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from sdscratch.checkpoints.folder_config import to_folder
from sdscratch.checkpoints.layouts import Weight, weights
from sdscratch.checkpoints.names import ema_name
from sdscratch.models.config import (
    SD1,
    AutoencoderConfig,
    ModelConfig,
    TextEncoderConfig,
    UNetConfig,
    unet_groups,
)
from sdscratch.text.tokenizer import Tokenizer

__all__ = [
    "MERGES",
    "SMALLER",
    "TINY",
    "full_size_checkpoint",
    "ldm_tensors",
    "our_tensors",
    "tiny_tokenizer",
    "write_ckpt",
    "write_diffusers",
    "write_ldm",
]

MERGES = [
    ("d", "o"), ("do", "g</w>"), ("c", "a"), ("ca", "t</w>"), ("t", "h"), ("th", "e</w>"), ("r", "e"),
    ("re", "d</w>"), ("a", "p"), ("ap", "p"), ("l", "e</w>"), ("app", "le</w>"), ("i", "n</w>"),
    ("o", "n</w>"),
]  # fmt: skip

# Stable Diffusion 1.x in everything but its widths: the U-Net and the autoencoder have its very names.
TINY = ModelConfig(
    TextEncoderConfig(vocabulary=514 + len(MERGES), width=32, layers=2, heads=4, feed_forward=64),
    UNetConfig(channels=16, multipliers=(1, 2, 4, 4), heads=4, context=32, norm_groups=8),
    AutoencoderConfig(channels=8, multipliers=(1, 2, 4, 4), norm_groups=4),
)
# Another topology: fewer levels and blocks, transformers where SD 1.x has none.
SMALLER = ModelConfig(
    TextEncoderConfig(
        vocabulary=514 + len(MERGES), width=24, layers=1, heads=2, feed_forward=32, activation="gelu"
    ),
    UNetConfig(
        channels=16,
        multipliers=(1, 3),
        attends=(False, True),
        residual_blocks=1,
        heads=2,
        context=24,
        norm_groups=4,
    ),
    AutoencoderConfig(channels=8, multipliers=(1, 2, 3), residual_blocks=1, latent_scale=0.5, norm_groups=4),
)


def tiny_tokenizer() -> Tokenizer:
    """The tokenizer of `TINY` and `SMALLER`."""
    return Tokenizer.from_merges(MERGES)


# --- Weights ---------------------------------------------------------------------------------------------

# What begins a residual stream, what adds to it, and what takes it to another width or size.
STREAM_STARTS = ("down.0.0", "conv_in", "tokens", "positions")
BRANCH_ENDS = ("conv2", "out", "contract", "project_out")
STREAM_STEPS = ("skip", "conv")


def _random(weight: Weight, seed: int, stream: float) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {weight.part} {weight.name}".encode()))
    values = torch.randn(weight.shape, generator=generator)
    module, leaf = weight.name.rsplit(".", 1)
    last = module.rsplit(".", 1)[-1]
    writes = module in STREAM_STARTS or last in BRANCH_ENDS
    if "norm" in last:
        return values.mul_(0.1).add_(1.0) if leaf == "weight" else values.mul_(0.1)
    if leaf == "bias":
        return values.mul_(0.02 * (stream if writes or last in STREAM_STEPS else 1.0))
    fan_in = math.prod(weight.shape[1:]) if module not in ("tokens", "positions") else 1
    gain = 0.5 if last in BRANCH_ENDS and "cross" not in module else 1.0
    return values.mul_(gain / math.sqrt(fan_in) * (stream if writes else 1.0))


def _pass_through(tensors: Mapping[str, Tensor], config: UNetConfig, stream: float) -> None:
    """Let the U-Net's input reach its output by the first and the last skip; silu(x) − silu(−x) = x."""
    names = [f"up.{len(unet_groups(config)[2]) - 1}.0.skip.weight", "down.0.0.weight", "conv_out.weight"]
    skip, first, last = (tensors[name] for name in names)
    kept = skip.shape[1] - config.channels  # the skip stands behind what comes up
    for channel in range(config.latent_channels):
        for index, sign in ((2 * channel, 1.0), (2 * channel + 1, -1.0)):
            first[index] = 0.0
            first[index, channel, 1, 1] = sign * stream
            skip[index] = 0.0
            skip[index, kept + index] = 1.0
            last[channel, index, 1, 1] = 1.2 * sign
    last[:, 2 * config.latent_channels :] *= 0.5


def our_tensors(config: ModelConfig, seed: int = 0, stream: float = 1.0) -> dict[str, dict[str, Tensor]]:
    """Random float32 weights by part and by our names; the same for a seed whatever else is made.

    Args:
        stream: what writes into residual streams is this much smaller: at 3e-3 a wrong epsilon shows.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for weight in weights(config):
        parts.setdefault(weight.part, {})[weight.name] = _random(weight, seed, stream)
    _pass_through(parts["unet"], config.unet, stream)
    latents = config.autoencoder.latent_channels
    parts["encoder"]["quant.weight"][:latents] /= config.autoencoder.latent_scale  # U-Net latents near one
    parts["encoder"]["quant.weight"][latents:] *= 0.1
    parts["encoder"]["quant.bias"][latents:] = -4.0  # log variance
    parts["decoder"]["quant.weight"] *= config.autoencoder.latent_scale
    parts["decoder"]["conv_out.weight"] *= 0.6  # pixels within −1 to 1
    return parts


def ldm_tensors(config: ModelConfig = TINY, seed: int = 0, stream: float = 1.0) -> dict[str, Tensor]:
    """The same by LDM's names and in its shapes."""
    parts = our_tensors(config, seed, stream)
    return {w.ldm: parts[w.part].pop(w.name).reshape(w.ldm_shape) for w in weights(config)}


def ldm_extras(config: ModelConfig = TINY) -> dict[str, Tensor]:
    """What the published files hold beside the weights: the schedule's buffers, positions, a counter."""
    schedule = config.schedule
    roots = np.linspace(schedule.beta_start**0.5, schedule.beta_end**0.5, schedule.timesteps)
    bars = np.cumprod(1.0 - roots**2)
    buffers = {
        "betas": roots**2,
        "alphas_cumprod": bars,
        "alphas_cumprod_prev": np.append(1.0, bars[:-1]),
        "sqrt_alphas_cumprod": np.sqrt(bars),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1.0 - bars),
        "posterior_mean_coef1": bars,
    }
    return {name: torch.from_numpy(values).float() for name, values in buffers.items()} | {
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(config.text.length)[
            None
        ],
        "first_stage_model.loss.logvar": torch.zeros(()),
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(7, dtype=torch.int32),
    }


def ema_tensors(config: ModelConfig = TINY, seed: int = 1) -> dict[str, Tensor]:
    """Averages of the U-Net's weights under LDM's dotless names; other values than the weights' own."""
    named = ((ema_name(name), tensor) for name, tensor in ldm_tensors(config, seed).items())
    return {name: tensor for name, tensor in named if name is not None}


# --- Files -----------------------------------------------------------------------------------------------


def write_ldm(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    """A .safetensors file, written by the safetensors library."""
    save_file(dict(tensors), path, metadata or {"format": "pt"})
    return path


def self_contained(config: ModelConfig = TINY) -> dict[str, str]:
    """The metadata that make a file of ours one model."""
    return {
        "format": "pt",
        "sdscratch.config": config.to_json(),
        "sdscratch.tokenizer": tiny_tokenizer().to_json(),
    }


@contextmanager
def _lightning() -> Iterator[type]:
    """A stand-in for the class that Lightning's pickles name, importable only while it is written."""
    names = [
        "pytorch_lightning",
        "pytorch_lightning.callbacks",
        "pytorch_lightning.callbacks.model_checkpoint",
    ]
    modules = {name: types.ModuleType(name) for name in names}
    checkpoint = type("ModelCheckpoint", (), {"__module__": names[-1]})
    modules[names[-1]].ModelCheckpoint = checkpoint  # type: ignore[attr-defined]
    sys.modules.update(modules)
    try:
        yield checkpoint
    finally:
        for name in names:
            del sys.modules[name]


def write_ckpt(path: Path, tensors: Mapping[str, Tensor], *, legacy: bool = False) -> Path:
    """A .ckpt file as PyTorch Lightning wrote Stable Diffusion's: the weights among a trainer's leftovers.

    Args:
        legacy: the pickle without a zip around it, of torch before 1.6.
    """
    with _lightning() as checkpoint:
        record: dict[str, Any] = {
            "epoch": 3,
            "global_step": 470000,
            "pytorch-lightning_version": "1.4.2",
            "state_dict": dict(tensors),
            "callbacks": {checkpoint: {"best_model_score": np.float64(0.1), "monitor": None}},
            "optimizer_states": [{"state": {0: {"step": 1, "exp_avg": torch.zeros(3)}}, "param_groups": []}],
            "lr_schedulers": [],
        }
        torch.save(record, path, _use_new_zipfile_serialization=not legacy)
    return path


def write_diffusers(
    folder: Path,
    config: ModelConfig = TINY,
    tensors: Mapping[str, Tensor] | None = None,
    *,
    variant: str = "",
    pickled: bool = False,
    shards: int = 1,
    old_attention: bool = False,
    text_prefix: bool = True,
    tokenizer: Tokenizer | None = None,
) -> Path:
    """A diffusers folder, written by the safetensors library (or torch).

    Args:
        tensors: by LDM's names; random ones otherwise.
        variant: "fp16" or "non_ema": stands in the files' names.
        pickled: `.bin` files.
        shards: into how many files the U-Net is cut.
        old_attention: the autoencoder's attention as diffusers before 0.15 called it.
        text_prefix: `text_model.` in the text encoder's names; transformers 5 leaves it out.
    """
    tensors = ldm_tensors(config) if tensors is None else tensors
    files: dict[str, dict[str, Tensor]] = {}
    for weight in weights(config):
        part, name = weight.diffusers.split("/", 1)
        if old_attention and part == "vae":
            for new, old in (
                ("to_q", "query"),
                ("to_k", "key"),
                ("to_v", "value"),
                ("to_out.0", "proj_attn"),
            ):
                name = name.replace(f".{new}.", f".{old}.")
        if not text_prefix:
            name = name.removeprefix("text_model.")
        files.setdefault(part, {})[name] = tensors[weight.ldm].reshape(weight.shape).contiguous()
    for name, record in to_folder(config, 512).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(record))
    for part, state in files.items():
        stem = {("text_encoder", True): "pytorch_model", ("text_encoder", False): "model"}.get(
            (part, pickled), "diffusion_pytorch_model"
        )
        _write_state(folder / part, stem, state, variant, pickled, shards if part == "unet" else 1)
    if tokenizer is not None:
        (folder / "tokenizer").mkdir()
        for name, text in tokenizer.to_files().items():
            (folder / "tokenizer" / name).write_text(text)
    return folder


def _write_state(
    folder: Path, stem: str, state: dict[str, Tensor], variant: str, pickled: bool, shards: int
) -> None:
    suffix = ".bin" if pickled else ".safetensors"
    dotted = f".{variant}" if variant else ""
    if shards == 1:
        _write_one(folder / f"{stem}{dotted}{suffix}", state)
        return
    names = sorted(state)
    index = {}
    for number in range(shards):
        file = f"{stem}{dotted}-{number + 1:05}-of-{shards:05}{suffix}"
        chosen = names[number::shards]
        _write_one(folder / file, {name: state[name] for name in chosen})
        index |= dict.fromkeys(chosen, file)
    record = {"metadata": {"total_size": 0}, "weight_map": index}
    (folder / f"{stem}{suffix}.index{dotted}.json").write_text(json.dumps(record))


def _write_one(path: Path, state: dict[str, Tensor]) -> None:
    if path.suffix == ".bin":
        torch.save(state, path)
    else:
        save_file(state, path, {"format": "pt"})


# --- Full size -------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where full-size files stay between runs: $SDSCRATCH_TEST_CACHE, or else with the temporary files."""
    folder = Path(
        os.environ.get("SDSCRATCH_TEST_CACHE") or Path(tempfile.gettempdir()) / "sdscratch-test-cache"
    )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def full_size_checkpoint(
    kind: Literal["safetensors", "ckpt"] = "safetensors", config: ModelConfig = SD1
) -> Path:
    """A random checkpoint of Stable Diffusion 1.x's full size in LDM layout, float32, 4.3 GB; made once.

    Args:
        config: SD 1.x's, or the same with more channels.
    """
    more = "" if config == SD1 else f"-{config.unet.in_channels}"
    path = cache_folder() / f"sd1-random-2{more}.{kind}"
    if not path.exists():
        temporary = path.with_suffix(f".{os.getpid()}.part")
        make(temporary, config, kind)
        temporary.replace(path)
    return path


def make(path: Path, config: ModelConfig, kind: str, extra: Iterable[Mapping[str, Tensor]] = ()) -> None:
    """A random checkpoint of `kind` ckpt, safetensors (both in LDM layout) or diffusers (a folder)."""
    tensors = ldm_tensors(config)
    if kind == "diffusers":
        write_diffusers(path, config, tensors, tokenizer=tiny_tokenizer() if config == TINY else None)
        return
    for more in (ldm_extras(config), *extra):
        tensors |= more
    if kind == "ckpt":
        write_ckpt(path, tensors)
    else:
        write_ldm(path, tensors, self_contained(config) if config == TINY else None)
