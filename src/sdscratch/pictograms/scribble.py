"""The scribble adapter of the built-in model: a T2I-Adapter that reads sketches (Mou et al. 2023).

It learns beside a model that is done, of sketches of the model's own data (`sketches`), and goes on where it
was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from sdscratch.checkpoints.model import open_model
from sdscratch.models.conditioning import Conditioning
from sdscratch.models.t2i_adapter import Adapter
from sdscratch.pictograms import model as embedded
from sdscratch.pictograms.composer import Composer
from sdscratch.pictograms.folder import DATA, MADE_BY
from sdscratch.pictograms.sketches import SKETCHED, SketchedLatents
from sdscratch.training.engine.distributed import DistributedContext
from sdscratch.training.engine.loop import Show, train
from sdscratch.training.engine.recipe import Recipe
from sdscratch.training.tasks.control import Steered, adapter_for, save_control
from sdscratch.training.tasks.diffusion import DenoisingLoss, tokenized
from sdscratch.training.tasks.latents import encode_with

__all__ = ["PREVIEW", "train_scribble"]

DROPOUT = 0.3  # of captions: what a sketch shows has to be read from it, too
LATE_BIAS = 0.6  # where things are is decided while there is much noise (ibid., section 3.3)
PREVIEW = "scribble.safetensors"  # in the run's folder, written at every checkpoint


def train_scribble(
    model: Path,
    composer: Composer,
    recipe: Recipe,
    folder: Path,
    distributed: DistributedContext,
    show: Show = lambda progress: None,
) -> tuple[Adapter, int]:
    """Train it, or further; return it with the steps behind it.

    Args:
        model: the model's file, whose networks stay as they are.
        composer: draws what is sketched; its own mixture of scenes is not used.
        folder: of checkpoints, metrics and the adapter so far.

    Raises:
        CheckpointError: the model, or a checkpoint, is missing, unreadable or another's.
    """
    autoencoder, diffusion, tokenizer = embedded.open_trained(model)
    config = open_model(str(model)).config
    device = distributed.device
    for network in (autoencoder, diffusion):
        network.to(device, memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]
    text, ids = diffusion.text, tokenized(tokenizer, device)

    @torch.no_grad()
    def words(captions: Sequence[str]) -> Conditioning:
        return Conditioning(text(ids(captions)))

    torch.manual_seed(recipe.seed)
    adapter = adapter_for(config, hint_channels=1)
    module = Steered(diffusion.unet, adapter).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    source = Composer(composer.table, composer.size, SKETCHED, recipe.seed)
    encode = encode_with(autoencoder.encoder, config.autoencoder.latent_scale, distributed)
    loss = DenoisingLoss(
        config.schedule,
        words,
        SketchedLatents(source, encode, device, recipe.seed),
        distributed,
        size=recipe.size(distributed.processes),
        seed=recipe.seed,
        dropout=DROPOUT,
        late_bias=LATE_BIAS,
    )

    def keep(step: int) -> None:
        save_control(folder / PREVIEW, adapter, {"made_by": MADE_BY, "data": DATA, "steps": step})

    steps = train(module, loss, recipe, folder, distributed, show=show, validate=keep)
    return adapter, steps
