"""A tiny autoencoder in the place of a model's own: a decoder, and the encoder that belongs to it.

diffusers keeps both in one file; TAESD's own files are two, `taesd_decoder` and `taesd_encoder`. What this
project trains is a decoder alone. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sdscratch.checkpoints.hashing import hash_files
from sdscratch.checkpoints.taesd import TaesdFile, taesd_beside
from sdscratch.checkpoints.tiny_encoder import TinyEncoderFile, holds_encoder, open_tiny_encoder
from sdscratch.errors import CheckpointError
from sdscratch.models.config import AutoencoderConfig
from sdscratch.show import printable

__all__ = ["TinyAutoencoder", "tiny_autoencoder"]


@dataclass(frozen=True)
class TinyAutoencoder:
    """What `--decoder tiny` decodes and encodes with; nothing of it is in memory yet."""

    decoder: TaesdFile
    encoder: TinyEncoderFile | None  # None: the model's own encodes

    @property
    def name(self) -> str:
        """What records call it: the decoder's file, without path and suffix."""
        path = self.decoder.path
        return path.stem if path.stem != "diffusion_pytorch_model" else path.parent.name

    @cached_property
    def hash(self) -> str:
        """The fingerprint (`hashing`) of its files."""
        files = [self.decoder.path, *([self.encoder.path] if self.encoder else [])]
        return hash_files(dict.fromkeys(files))


def tiny_autoencoder(
    decoder: TaesdFile | None, model: Path, autoencoder: AutoencoderConfig
) -> TinyAutoencoder:
    """A decoder with its encoder, of the same file or of the one beside it.

    Args:
        decoder: as given, or found beside the model.
        model: where the model is; names the file that is missing.
        autoencoder: the model's.

    Raises:
        CheckpointError: there is no decoder, or what should be its encoder is refused.
    """
    if decoder is None:
        raise CheckpointError(
            f"--decoder tiny needs a tiny autoencoder, and there is no {printable(taesd_beside(model))}; "
            "name one with --taesd FILE (madebyollin/taesd on the hub is Stable Diffusion 1.x's), "
            "or leave the option out"
        )
    path = decoder.path
    beside = path.with_name(path.name.replace("decoder", "encoder"))
    for file in dict.fromkeys((path, beside)):
        if file.is_file() and holds_encoder(file):
            return TinyAutoencoder(decoder, open_tiny_encoder(str(file), autoencoder))
    return TinyAutoencoder(decoder, None)
