"""Everything that pictures are drawn with, found, opened and checked before anything is loaded. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sdscratch.addons.apply import open_with_addons, with_loras
from sdscratch.addons.embedding import Embedding, open_embedding
from sdscratch.addons.requests import take_loras
from sdscratch.checkpoints.model import ModelFiles
from sdscratch.checkpoints.taesd import TaesdFile, find_taesd, open_taesd
from sdscratch.checkpoints.tiny import TinyAutoencoder, tiny_autoencoder
from sdscratch.options import GenerateOptions

__all__ = ["Opened", "open_all"]


@dataclass(frozen=True)
class Opened:
    """A model with what was given beside it; nothing of it is in memory yet."""

    files: ModelFiles
    taesd: TaesdFile | None = None  # the tiny autoencoder, in the place of what lies beside the model
    embeddings: tuple[Embedding, ...] = ()  # that prompts may name, beside those in the usual folders

    @cached_property
    def tiny(self) -> TinyAutoencoder:
        """What decodes in the place of the model's own autoencoder.

        Raises:
            CheckpointError: there is none, or it is refused.
        """
        path, autoencoder = self.files.path, self.files.config.autoencoder
        return tiny_autoencoder(self.taesd or find_taesd(path, autoencoder), path, autoencoder)

    def check(self, options: GenerateOptions) -> None:
        """Find and check what a picture asks for: the LoRAs of its prompt's tags, a tiny autoencoder.

        Raises:
            CheckpointError: one is missing, unreadable or refused.
            UsageError: a tag that makes no sense.
        """
        with_loras(self.files, take_loras(options.prompt)[1])
        if options.decoder == "tiny":
            _ = self.tiny


def open_all(
    model: str,
    *,
    tokenizer: str | None = None,
    lora: str | Sequence[str] = (),
    vae: str | None = None,
    taesd: str | None = None,
    embedding: str | Sequence[str] = (),
) -> Opened:
    """Open a model and its add-ons; arguments as of `pipeline.load`.

    Raises:
        CheckpointError: one of the files is missing, unreadable or refused.
        UsageError: a LoRA's weight makes no sense.
    """
    files = open_with_addons(model, tokenizer=tokenizer, lora=lora, vae=vae)
    names = [embedding] if isinstance(embedding, str) else embedding
    width = files.config.text.width
    return Opened(
        files,
        open_taesd(taesd, files.config.autoencoder) if taesd is not None else None,
        tuple(open_embedding(name, width) for name in names),
    )
