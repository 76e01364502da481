"""`python -m sdscratch.embedded`: how the embedded model is made.

    python -m sdscratch.embedded autoencoder --minutes 30
    python -m sdscratch.embedded diffusion --minutes 90
    python -m sdscratch.embedded refine --minutes 15
    python -m sdscratch.embedded export weights/default.safetensors
    python -m sdscratch.embedded samples weights/default.safetensors samples.png

Each stage goes on where it was stopped; everything it keeps lies in one folder outside the checkout.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from sdscratch.embedded import model as embedded
from sdscratch.embedded.composer import Composer
from sdscratch.embedded.pictograms import load_sprites
from sdscratch.errors import SdscratchError
from sdscratch.pipeline import load, to_tensor
from sdscratch.training.autoencoder import (
    Autoencoder,
    fold_normalisation,
    held_out_psnr,
    latent_statistics,
    save_grid,
    train_autoencoder,
)
from sdscratch.training.diffusion import Diffusion, train_diffusion
from sdscratch.training.loop import Budget, Recipe, load_weights

app = typer.Typer(help="Train the embedded model.", no_args_is_help=True, pretty_exceptions_enable=False)

SAMPLES = (
    "a dog wearing sunglasses",
    "a red apple",
    "a rocket on a blue background",
    "an octopus on a purple background",
    "pizza",
    "a snowman",
    "dog",
    "a fox wearing a crown",
    "a tiger with sunglasses on a yellow background",
    "a cat wearing a top hat on a green background",
    "grapes on a pink background",
    "a strawberry on a black background",
    "an owl",
    "a house",
    "a guitar on an orange background",
    "a green car on a red background",
)

Folder = Annotated[Path, typer.Option(help="Where checkpoints, metrics and sprites are kept.")]
Font = Annotated[Path | None, typer.Option(help="NotoColorEmoji.ttf, if it is not where systems keep it.")]
Minutes = Annotated[float | None, typer.Option(help="How long to train, earlier parts of the run included.")]
Steps = Annotated[int | None, typer.Option(help="How many steps to train, instead of a time.")]
Batch = Annotated[int, typer.Option(help="Pictures a step, split between the workers.")]
Rate = Annotated[float, typer.Option(help="The highest learning rate.")]
Workers = Annotated[int, typer.Option(help="Threads that each compute a share of the batch.")]

HOME = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "sdscratch-training"


@app.command()
def autoencoder(
    folder: Folder = HOME,
    font: Font = None,
    minutes: Minutes = None,
    steps: Steps = None,
    batch: Batch = 8,
    rate: Rate = 1.6e-3,
    workers: Workers = 2,
) -> None:
    """Train the autoencoder, then normalise its latents and measure it on held-out pictures."""
    composer = Composer(load_sprites(folder, font), embedded.SIZE)
    recipe = Recipe(_budget(minutes, steps), rate, ema=0.995, workers=workers)
    torch.manual_seed(1)
    model = Autoencoder(embedded.AUTOENCODER)
    model = train_autoencoder(model, composer, recipe, folder / "autoencoder", batch=batch)
    fold_normalisation(model, *latent_statistics(composer, model.encoder))
    _keep(folder, composer, model)


@app.command()
def refine(
    folder: Folder = HOME,
    font: Font = None,
    minutes: Minutes = None,
    steps: Steps = None,
    batch: Batch = 8,
    rate: Rate = 8e-4,
    workers: Workers = 2,
) -> None:
    """Train the decoder further while the encoder, and with it what latents mean, stays as it is."""
    composer = Composer(load_sprites(folder, font), embedded.SIZE)
    model, _ = embedded.load_autoencoder(folder / "autoencoder.safetensors")
    model.decoder.requires_grad_(True)
    recipe = Recipe(_budget(minutes, steps), rate, ema=0.995, workers=workers)
    _keep(
        folder, composer, train_autoencoder(model, composer, recipe, folder / "decoder", batch=batch, seed=2)
    )


@app.command()
def diffusion(
    folder: Folder = HOME,
    font: Font = None,
    minutes: Minutes = None,
    steps: Steps = None,
    batch: Batch = 32,
    rate: Rate = 7e-4,
    workers: Workers = 2,
    decay_from: Annotated[float, typer.Option(help="Share of the run after which the rate falls.")] = 0.0,
) -> None:
    """Train text encoder and U-Net; at every checkpoint the model so far is `preview.safetensors`."""
    composer = Composer(load_sprites(folder, font), embedded.SIZE)
    autoencoder, figures = embedded.load_autoencoder(folder / "autoencoder.safetensors")
    tokenizer = embedded.keep_tokenizer(folder / "diffusion" / "tokenizer.json", composer)
    config = embedded.model_config(tokenizer)

    def preview(step: int, average: nn.Module) -> None:
        assert isinstance(average, Diffusion)
        provenance = {"steps": step, "samples": step * batch, **figures}
        embedded.save_embedded(
            folder / "preview.safetensors", config, autoencoder, average, tokenizer, provenance
        )

    recipe = Recipe(_budget(minutes, steps), rate, decay_from=decay_from, ema=0.998, workers=workers)
    train_diffusion(
        composer,
        autoencoder.encoder,
        tokenizer,
        config,
        recipe,
        folder / "diffusion",
        batch=batch,
        watch=preview,
    )


@app.command()
def export(path: Annotated[Path, typer.Argument(help="The file to write.")], folder: Folder = HOME) -> None:
    """Write the model as it is at the last checkpoint."""
    autoencoder, figures = embedded.load_autoencoder(folder / "autoencoder.safetensors")
    tokenizer = embedded.load_tokenizer(folder / "diffusion" / "tokenizer.json")
    config = embedded.model_config(tokenizer)
    model = Diffusion(config)
    steps = load_weights(folder / "diffusion", model)
    provenance = {
        "made_by": "python -m sdscratch.embedded",
        "data": "Noto Color Emoji (SIL OFL 1.1) on coloured backgrounds",
        "steps": steps,
        **figures,
    }
    embedded.save_embedded(path, config, autoencoder, model, tokenizer, provenance)
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {steps} steps")


@app.command()
def samples(
    model: Annotated[str, typer.Argument(help="A model, as `sdscratch --model` takes it.")],
    picture: Annotated[Path, typer.Argument(help="The PNG to write.")],
    prompt: Annotated[list[str] | None, typer.Option(help="Instead of the usual ones; repeatable.")] = None,
    seeds: Annotated[int, typer.Option(help="Rows: seeds 0, 1, …")] = 4,
    steps: Annotated[int | None, typer.Option()] = None,
    cfg_scale: Annotated[float | None, typer.Option()] = None,
    sampler: Annotated[str | None, typer.Option()] = None,
    scheduler: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Draw one column a prompt and one row a seed, none picked."""
    pipeline = load(model)
    prompts = prompt or SAMPLES
    asked = {"steps": steps, "cfg_scale": cfg_scale, "sampler": sampler, "scheduler": scheduler}
    columns = [pipeline.txt2img(text, batch_count=seeds, seed=0, **asked) for text in prompts]
    rows = [to_tensor(column[row]) for row in range(seeds) for column in columns]
    save_grid(torch.cat(rows), picture, columns=len(prompts))


def _keep(folder: Path, composer: Composer, model: Autoencoder) -> None:
    """Measure an autoencoder on held-out pictures, and keep it for what follows."""
    figures = {"psnr": held_out_psnr(composer, model)}
    embedded.save_autoencoder(folder / "autoencoder.safetensors", model, figures)
    typer.echo(f"{figures['psnr']:.2f} dB on held-out pictures")


def _budget(minutes: float | None, steps: int | None) -> Budget:
    return Budget(steps=steps, seconds=None if minutes is None else minutes * 60)


if __name__ == "__main__":
    torch.set_num_threads(1)  # the workers share the work; see training.loop.Team
    try:
        code = app(standalone_mode=False)
    except (SdscratchError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        print(f"error: {message}", file=sys.stderr)
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    sys.exit(code)
