"""The folder that the stages share: what they hand on in it, how it begins, and the model that leaves it."""

from __future__ import annotations

import json
from pathlib import Path

from sdscratch.checkpoints.model import open_model
from sdscratch.checkpoints.taesd import taesd_beside
from sdscratch.checkpoints.writer import PROVENANCE
from sdscratch.errors import UsageError
from sdscratch.files import atomic_write
from sdscratch.pictograms import model as embedded
from sdscratch.pictograms.model import Shape
from sdscratch.text.tokenizer import Tokenizer
from sdscratch.training.engine.state import FOLDER, load_weights, newest_checkpoint
from sdscratch.training.tasks.diffusion import Diffusion

__all__ = [
    "AUTOENCODER",
    "DATA",
    "HARD_EXAMPLES",
    "MADE_BY",
    "TAESD",
    "TOKENIZER",
    "begin",
    "export",
    "trained_diffusion",
]

# What stages hand on, in their folder.
AUTOENCODER = Path("autoencoder.safetensors")
TOKENIZER = Path("diffusion", "tokenizer.json")
HARD_EXAMPLES = Path("diffusion", "focus.json")
TAESD = Path("taesd.safetensors")
BEGUN = Path("begun.safetensors")  # the model that a folder began with

# What the files say of themselves.
MADE_BY = "python -m sdscratch.pictograms"
DATA = "Noto Color Emoji (SIL OFL 1.1), composed with captions"


def begin(folder: Path, shape: Shape, path: Path) -> None:
    """Lay a model into a new folder, so that training goes on from it.

    Raises:
        UsageError: the model has another shape, or the folder is in use.
        CheckpointError: the model is missing, unreadable or refused.
    """
    target = folder / AUTOENCODER
    if target.exists():
        raise UsageError(f"{target} is there already; name another --folder, or go on with this one")
    autoencoder, diffusion, tokenizer = embedded.open_trained(path)
    if autoencoder.config != shape.autoencoder:
        raise UsageError(f"{path} is no model for {shape.size}×{shape.size} pixels; say another --size")
    provenance = json.loads(open_model(str(path)).metadata.get(PROVENANCE, "{}"))
    embedded.save_tokenizer(folder / TOKENIZER, tokenizer)
    embedded.save_embedded(folder / BEGUN, shape, autoencoder, diffusion, tokenizer, provenance)
    metrics = {name: provenance[name] for name in ("psnr",) if name in provenance}
    embedded.save_autoencoder(target, autoencoder, metrics)  # last: it says that the folder is in use


def trained_diffusion(folder: Path, shape: Shape) -> tuple[Diffusion, Tokenizer, int]:
    """Text encoder and U-Net as they are in a folder, with their tokenizer and the steps behind them.

    They are those of the last checkpoint, or those of the model that the folder began with.

    Raises:
        SdscratchError: there are none.
    """
    tokenizer = embedded.load_tokenizer(folder / TOKENIZER)
    if (folder / BEGUN).is_file() and newest_checkpoint(folder / TOKENIZER.parent / FOLDER) is None:
        _, model, _ = embedded.open_trained(folder / BEGUN)
        steps = json.loads(open_model(str(folder / BEGUN)).metadata[PROVENANCE]).get("steps", 0)
    else:
        model = Diffusion.from_config(embedded.model_config(tokenizer, shape))
        steps = load_weights(folder / TOKENIZER.parent, model)
    return model.eval(), tokenizer, steps


def export(folder: Path, shape: Shape, path: Path) -> int:
    """Write the model as it is at the last checkpoint in `folder`; return the steps behind it.

    The tiny decoder, where there is one, goes beside it, under the name by which it is found there.
    """
    autoencoder, metrics = embedded.load_autoencoder(folder / AUTOENCODER, shape)
    model, tokenizer, steps = trained_diffusion(folder, shape)
    provenance = {
        "made_by": MADE_BY,
        "data": DATA,
        "steps": steps,
        **metrics,
    }
    embedded.save_embedded(path, shape, autoencoder, model, tokenizer, provenance)
    if (folder / TAESD).is_file():
        with atomic_write(taesd_beside(path), overwrite=True) as file:
            file.write((folder / TAESD).read_bytes())
    return steps
