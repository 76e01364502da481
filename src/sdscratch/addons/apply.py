"""A model with add-ons: found, opened and checked, and changed where its weights are read. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdscratch.addons.blocks import block_of
from sdscratch.addons.lora import Lora, open_lora
from sdscratch.addons.requests import LoraRequest, parse_lora
from sdscratch.addons.vae import open_vae, with_vae
from sdscratch.checkpoints.layouts import Weight
from sdscratch.checkpoints.model import ModelFiles, open_model
from sdscratch.checkpoints.places import find_lora
from sdscratch.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "AppliedLora",
    "add",
    "applied_loras",
    "at_step",
    "open_with_addons",
    "refuse_ranges",
    "with_loras",
]


@dataclass(frozen=True, eq=False)
class AppliedLora:
    """A LoRA upon a model, as it was asked for: a `checkpoints.changes.Change`."""

    lora: Lora
    request: LoraRequest
    what: str = "loras"

    @property
    def name(self) -> str:
        """The file's name without suffix."""
        return self.lora.name

    @property
    def weight(self) -> float:
        """The strength of the text encoder's changes, and of the U-Net's where they have no other."""
        return self.request.weight

    def strength(self, weight: Weight) -> float:
        """How strongly it acts on one weight."""
        request = self.request
        own = (
            request.unet_weight
            if weight.part == "unet" and request.unet_weight is not None
            else request.weight
        )
        block = block_of(weight.ldm) if request.blocks is not None else None
        return own if block is None or request.blocks is None else own * request.blocks[block]

    def apply(self, weight: Weight, tensor: Tensor) -> Tensor:
        """As `Lora.add`."""
        return self.lora.add(weight, tensor, self.strength(weight))

    def record(self) -> dict[str, Any]:
        """Name, strength and fingerprint, and what else was asked for."""
        request = self.request
        more = {"unet_weight": request.unet_weight, "blocks": request.blocks and list(request.blocks)}
        more |= {"start": request.start or None, "stop": request.stop}
        told = {key: value for key, value in more.items() if value is not None}
        return {"name": self.name, "weight": self.weight, "hash": self.lora.hash(), **told}


def with_loras(files: ModelFiles, requests: Iterable[LoraRequest]) -> ModelFiles:
    """The same model with more LoRAs, each looked up, opened and checked; they act one after another.

    Raises:
        CheckpointError: one is missing, unreadable, refused, or made for another kind of model.
    """
    applied = tuple(
        AppliedLora(open_lora(find_lora(request.name), files.config), request) for request in requests
    )
    return replace(files, changes=files.changes + applied) if applied else files


def applied_loras(files: ModelFiles) -> tuple[AppliedLora, ...]:
    """The LoRAs upon a model, in the order in which they act."""
    return tuple(change for change in files.changes if isinstance(change, AppliedLora))


def at_step(files: ModelFiles, step: int) -> ModelFiles:
    """The model as its U-Net is at sampling step `step` (from 0); the very one where nothing is left out.

    Only the U-Net follows the steps: the prompt is encoded once, with every LoRA.
    """
    active = tuple(
        change
        for change in files.changes
        if not isinstance(change, AppliedLora) or change.request.active_at(step)
    )
    return files if len(active) == len(files.changes) else replace(files, changes=active)


def refuse_ranges(files: ModelFiles, why: str) -> None:
    """
    Raises:
        UsageError: a LoRA is asked for at some steps only.
    """
    for lora in applied_loras(files):
        if not lora.request.always:
            raise UsageError(f"the LoRA {lora.name} has start= or stop=, but {why}; leave them out")


def open_with_addons(
    name: str | Path,
    *,
    ema: bool = False,
    tokenizer: str | None = None,
    lora: str | Sequence[str] = (),
    vae: str | None = None,
) -> ModelFiles:
    """`open_model`, and LoRAs and another VAE upon the model.

    Args:
        lora: LoRAs to add, each as `requests.parse_lora` reads it, a file or a name in ./loras or the user's.
        vae: a file or folder whose autoencoder takes the place of the model's.

    Raises:
        CheckpointError, TokenizerError: as `open_model`, for any of the files.
        UsageError: a LoRA's weight makes no sense.
    """
    files = open_model(name, ema=ema, tokenizer=tokenizer, without_vae=vae is not None)
    return add(files, lora=lora, vae=vae)


def add(files: ModelFiles, *, lora: str | Sequence[str] = (), vae: str | None = None) -> ModelFiles:
    """A model with LoRAs and another VAE; arguments and errors are those of `open_with_addons`."""
    requests = [parse_lora(text) for text in ([lora] if isinstance(lora, str) else lora)]
    if vae is not None:
        files = with_vae(files, open_vae(vae, files.config.autoencoder))
    return with_loras(files, requests)
