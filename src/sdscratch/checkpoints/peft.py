"""What PEFT keeps beside a LoRA's tensors: how strong it is, in `adapter_config.json` or in the metadata.

PEFT saves a folder of two files; diffusers puts the same settings of each network into its file's metadata,
under `unet.` and `text_encoder.`. The tensors alone do not tell the strength, which is

    alpha / rank, or with rsLoRA alpha / √rank           (Kalajdzievski 2023)

with an alpha of its own for every module that a pattern names. This module imports no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from sdscratch.errors import CheckpointError
from sdscratch.show import printable
from sdscratch.texts import NotText, decode

__all__ = ["CONFIG", "PeftSettings", "lora_name", "peft_settings", "weights_in"]

CONFIG = "adapter_config.json"
OWN_NAMES = ("adapter_model.safetensors", "adapter_model.bin")
FOLDERS_WEIGHTS = (*OWN_NAMES, "pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
METADATA = "lora_adapter_metadata"  # diffusers' key: {"unet.lora_alpha": 8, …}
PARTS = {"unet": "unet", "text": "text_encoder"}
LARGEST = 1 << 20  # bytes; PEFT writes one of 1 KB
# What stands before a module's own name in a file.
WRAPPERS = re.compile(r"\A(base_model\.model\.)?((unet|text_encoder)\.)?(base_model\.model\.)?")
# PEFT's first steps that also change the model's own weights, so that its file alone means something else.
REBASED = ("pissa", "olora", "corda", "loftq")
# A pattern is a regular expression. One with more than so many repetitions, or with one of a group, could
# take for ever to try.
MOST_REPETITIONS = 2
REPETITION = re.compile(r"(?<!\\)[*+{]")
REPEATED_GROUP = re.compile(r"\)[*+?{]")


@dataclass(frozen=True)
class PeftSettings:
    """How strong a file's modules are, as far as PEFT's settings tell."""

    known: bool = False
    lora_alpha: float | None = None
    patterns: Mapping[str, float] = field(default_factory=dict)  # alphas of modules, by regular expression
    rslora: bool = False

    def alpha(self, module: str) -> float | None:
        """The alpha of a module by the file's name for it; None where nothing says one."""
        name = WRAPPERS.sub("", module)
        found = (value for key, value in self.patterns.items() if re.match(rf"(.*\.)?({key})$", name))
        return next(found, self.lora_alpha)

    def scale(self, alpha: float | None, rank: int) -> float:
        """What up·down is multiplied by; without an alpha, that is the rank."""
        size = rank if alpha is None else alpha
        return size / math.sqrt(rank) if self.rslora else size / rank


def peft_settings(path: Path, metadata: Mapping[str, str], part: str) -> PeftSettings:
    """What the metadata, or else the `adapter_config.json` beside a file, say of one part of the model.

    Args:
        part: "text" or "unet".

    Raises:
        CheckpointError: broken, or of a kind whose tensors alone do not say what it does.
    """
    if METADATA in metadata:
        return _of_part(metadata[METADATA], part, f"{METADATA} in the metadata of {printable(path)}")
    config = path.with_name(CONFIG)
    others = any(path.with_name(name).is_file() for name in OWN_NAMES)
    if not config.is_file() or (others and path.name not in OWN_NAMES):
        return PeftSettings()
    state = config.stat()
    return _of_config(config, state.st_size, state.st_mtime_ns)


def lora_name(path: Path) -> str:
    """What people call a LoRA: its file's name without suffix, or its folder's where all are named alike."""
    return path.absolute().parent.name if path.name in OWN_NAMES else path.stem


def weights_in(folder: Path) -> Path | None:
    """The file of weights in a LoRA's folder, as PEFT or diffusers save one.

    Raises:
        CheckpointError: there are several such folders in it.
    """
    for name in FOLDERS_WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    below = [part for part in ("unet", "text_encoder") if (folder / part / CONFIG).is_file()]
    if below and not (folder / "model_index.json").is_file():
        folders = " and ".join(printable(folder / part) for part in below)
        raise CheckpointError(f"{printable(folder)} is no LoRA itself; name {folders} in its place")
    return None


@lru_cache(maxsize=16)
def _of_config(config: Path, size: int, changed: int) -> PeftSettings:
    where = printable(config)
    try:
        if size > LARGEST:
            raise ValueError("is larger than any that PEFT writes")
        values = json.loads(decode(config.read_bytes(), f"in {where}"))
    except OSError as error:
        raise CheckpointError(f"{where} cannot be read: {error.strerror}") from None
    except NotText as error:
        raise CheckpointError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is broken ({printable(error)}); save the LoRA again") from None
    return _settings(values, where)


@lru_cache(maxsize=16)
def _of_part(text: str, part: str, where: str) -> PeftSettings:
    prefix = f"{PARTS[part]}."
    try:
        values = json.loads(text)
        own = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
    except (ValueError, AttributeError, RecursionError):
        raise CheckpointError(f"{where} is broken; it is damaged") from None
    return _settings(own, where) if own else PeftSettings()


def _settings(values: Any, where: str) -> PeftSettings:
    if not isinstance(values, dict):
        raise CheckpointError(f"{where} is no JSON object; save the LoRA again")
    start = values.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(REBASED):
        raise CheckpointError(
            f"{where} says {printable(start)}, which changes the model's own weights, too; let PEFT convert "
            "it to a plain LoRA (save_pretrained with path_initial_model_for_weight_conversion)"
        )
    alpha, patterns = values.get("lora_alpha"), values.get("alpha_pattern") or {}
    if not (alpha is None or _is_number(alpha)) or not isinstance(patterns, dict):
        raise CheckpointError(f"{where} has an alpha that is no number; save the LoRA again")
    for key, value in patterns.items():
        if not _is_number(value) or not _is_harmless(key):
            raise CheckpointError(f"{where} has a pattern that makes no sense: {printable(key)}")
    return PeftSettings(alpha is not None, alpha, patterns, values.get("use_rslora") is True)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_harmless(pattern: str) -> bool:
    """Whether it is a regular expression that ends soon on any name."""
    if len(REPETITION.findall(pattern)) > MOST_REPETITIONS or REPEATED_GROUP.search(pattern):
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
