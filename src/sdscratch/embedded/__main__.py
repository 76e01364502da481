"""`python -m sdscratch.embedded`: how the embedded model is made.

    python -m sdscratch.embedded autoencoder --minutes 30
    python -m sdscratch.embedded diffusion --minutes 90
    python -m sdscratch.embedded refine --minutes 15
    python -m sdscratch.embedded export weights/default.safetensors
    python -m sdscratch.embedded samples weights/default.safetensors samples.png
    python -m sdscratch.embedded judge

Each stage goes on where it was stopped; everything it keeps lies in one folder outside the checkout.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from sdscratch.device import choose
from sdscratch.embedded import judging
from sdscratch.embedded import model as embedded
from sdscratch.embedded.composer import Composer
from sdscratch.embedded.judge import save_judge, usual_place
from sdscratch.embedded.mixtures import CPU, FULL
from sdscratch.embedded.pictograms import load_sprites
from sdscratch.errors import SdscratchError, UsageError
from sdscratch.pipeline import load, to_tensor
from sdscratch.training.autoencoder import (
    Autoencoder,
    ReconstructionLoss,
    fold_normalisation,
    held_out_psnr,
    latent_statistics,
)
from sdscratch.training.diffusion import DenoisingLoss, Diffusion, tokenized
from sdscratch.training.display import Display
from sdscratch.training.latents import FreshLatents, LaneLatents, encode_with
from sdscratch.training.loop import train
from sdscratch.training.machine import Machine, joined, workers_for
from sdscratch.training.pictures import save_grid
from sdscratch.training.recipe import Budget, Recipe
from sdscratch.training.state import load_weights

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

LATE_BIAS = 0.6  # late timesteps come more often: see `stratified_timesteps`

Folder = Annotated[Path, typer.Option(help="Where checkpoints, metrics and sprites are kept.")]
Font = Annotated[Path | None, typer.Option(help="NotoColorEmoji.ttf, if it is not where systems keep it.")]
Minutes = Annotated[float | None, typer.Option(help="How long to train, earlier parts of the run included.")]
Steps = Annotated[int | None, typer.Option(help="How many steps to train, instead of a time.")]
Batch = Annotated[int, typer.Option(help="Pictures a step that each process computes.")]
Rate = Annotated[float, typer.Option(help="The highest learning rate.")]
DecayFrom = Annotated[float, typer.Option(help="Share of the run after which the rate falls.")]
Workers = Annotated[
    int | None,
    typer.Option(help="Threads that share a batch.", show_default="on a CPU one a core, on a GPU one"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 (a number), mps.")]
Scenes = Annotated[
    str, typer.Option(help="Which: some (what a CPU can learn), all (what a GPU can), auto (by the device).")
]
Dtype = Annotated[str, typer.Option(help="Of the arithmetic: auto, float32, bfloat16.")]

HOME = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "sdscratch-training"


@dataclass(frozen=True)
class Workshop:
    """What every stage needs: pictures, a machine, and a folder."""

    folder: Path
    composer: Composer
    machine: Machine
    workers: int

    def preview(self, name: str, model: Autoencoder) -> None:
        """Held-out scenes above, their reconstructions below, as one picture."""
        picture = self.composer.held_out(16, self.machine.device).pictures
        with torch.no_grad():
            save_grid(torch.cat([picture, model(picture)[0]]), self.folder / name / "preview.png", columns=16)

    def keep(self, model: Autoencoder) -> None:
        """Measure an autoencoder on held-out pictures, and keep it for what follows."""
        if not self.machine.leads:
            return
        figures = {"psnr": held_out_psnr(self.composer, model, self.machine.device)}
        embedded.save_autoencoder(self.folder / "autoencoder.safetensors", model, figures)
        typer.echo(f"{figures['psnr']:.2f} dB on held-out pictures")


@contextmanager
def workshop(
    folder: Path,
    font: Path | None,
    device: str,
    dtype: str,
    scenes: str,
    batch: int,
    workers: int | None,
    *,
    seed: int,
) -> Iterator[Workshop]:
    """Everything made ready."""
    placement = choose(device, dtype)
    mixtures = {"some": CPU, "all": FULL, "auto": CPU if placement.device.type == "cpu" else FULL}
    if scenes not in mixtures:
        raise UsageError(f"no choice of scenes is called {scenes!r}; say {', '.join(mixtures)}")
    with joined(placement.device, placement.dtype) as machine:
        threads = workers or workers_for(machine, batch)
        if threads > 1:
            torch.set_num_threads(1)  # the workers share the work
        composer = Composer(load_sprites(folder, font), embedded.SIZE, mixtures[scenes], seed)
        yield Workshop(folder, composer, machine, threads)


@app.command()
def autoencoder(
    folder: Folder = HOME,
    font: Font = None,
    minutes: Minutes = None,
    steps: Steps = None,
    batch: Batch = 8,
    rate: Rate = 1.6e-3,
    decay_from: DecayFrom = 0.0,
    workers: Workers = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    scenes: Scenes = "auto",
) -> None:
    """Train the autoencoder, then normalise its latents and measure it on held-out pictures."""
    with workshop(folder, font, device, dtype, scenes, batch, workers, seed=1) as shop:
        torch.manual_seed(1)
        model = Autoencoder(embedded.AUTOENCODER).to(shop.machine.device)
        recipe = Recipe(
            _budget(minutes, steps), rate, batch, decay_from=decay_from, ema=0.995, workers=shop.workers
        )
        _train_autoencoder(shop, model, recipe, "autoencoder")
        fold_normalisation(model, *latent_statistics(shop.composer, model.encoder, shop.machine.device))
        shop.keep(model)


@app.command()
def refine(
    folder: Folder = HOME,
    font: Font = None,
    minutes: Minutes = None,
    steps: Steps = None,
    batch: Batch = 8,
    rate: Rate = 8e-4,
    decay_from: DecayFrom = 0.0,
    workers: Workers = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    scenes: Scenes = "auto",
) -> None:
    """Train the decoder further while the encoder, and with it what latents mean, stays as it is."""
    with workshop(folder, font, device, dtype, scenes, batch, workers, seed=2) as shop:
        model, _ = embedded.load_autoencoder(folder / "autoencoder.safetensors")
        model.to(shop.machine.device).decoder.requires_grad_(True)
        recipe = Recipe(
            _budget(minutes, steps), rate, batch, decay_from=decay_from, ema=0.995, workers=shop.workers
        )
        _train_autoencoder(shop, model, recipe, "decoder")
        shop.keep(model)


def _train_autoencoder(shop: Workshop, model: Autoencoder, recipe: Recipe, name: str) -> None:
    seed, machine = shop.composer.seed, shop.machine
    loss = ReconstructionLoss(
        shop.composer, model.config, machine, size=recipe.size(machine.processes), seed=seed
    )
    with Display(quiet=not machine.leads) as display:
        train(
            model,
            loss,
            recipe,
            shop.folder / name,
            machine,
            show=display,
            watch=lambda step: shop.preview(name, model),
        )


@app.command()
def diffusion(
    folder: Folder = HOME,
    font: Font = None,
    minutes: Minutes = None,
    steps: Steps = None,
    batch: Batch = 32,
    rate: Rate = 7e-4,
    decay_from: DecayFrom = 0.0,
    workers: Workers = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    scenes: Scenes = "auto",
) -> None:
    """Train text encoder and U-Net; at every checkpoint the model so far is `preview.safetensors`."""
    with workshop(folder, font, device, dtype, scenes, batch, workers, seed=1) as shop:
        machine = shop.machine
        coder, figures = embedded.load_autoencoder(folder / "autoencoder.safetensors")
        tokenizer = embedded.keep_tokenizer(
            folder / "diffusion" / "tokenizer.json", Composer(shop.composer.table, mixture=FULL)
        )
        config = embedded.model_config(tokenizer)
        torch.manual_seed(1)
        model = Diffusion.from_config(config).to(machine.device)
        encode = encode_with(coder.encoder.to(machine.device), config.autoencoder.latent_scale, machine)
        latents = (
            LaneLatents(shop.composer, encode, machine.device, shop.composer.seed)
            if machine.device.type == "cpu"
            else FreshLatents(shop.composer, encode, machine.device)
        )
        recipe = Recipe(
            _budget(minutes, steps), rate, batch, decay_from=decay_from, ema=0.998, workers=shop.workers
        )
        loss = DenoisingLoss(
            config.schedule,
            tokenized(tokenizer, machine.device),
            latents,
            machine,
            size=recipe.size(machine.processes),
            seed=shop.composer.seed,
            late_bias=LATE_BIAS,
        )

        def preview(step: int) -> None:
            provenance = {"steps": step, "samples": step * loss.size, **figures}
            path = folder / "preview.safetensors"
            embedded.save_embedded(path, config, coder, model, tokenizer, provenance)

        with Display(quiet=not machine.leads) as display:
            train(model, loss, recipe, folder / "diffusion", machine, show=display, watch=preview)


@app.command()
def export(path: Annotated[Path, typer.Argument(help="The file to write.")], folder: Folder = HOME) -> None:
    """Write the model as it is at the last checkpoint."""
    autoencoder, figures = embedded.load_autoencoder(folder / "autoencoder.safetensors")
    tokenizer = embedded.load_tokenizer(folder / "diffusion" / "tokenizer.json")
    config = embedded.model_config(tokenizer)
    model = Diffusion.from_config(config)
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


@app.command()
def judge(
    output: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default="where `evaluate` looks for it")
    ] = None,
    folder: Folder = HOME,
    font: Font = None,
    minutes: Minutes = None,
    steps: Steps = None,
    rate: Rate = judging.RATE,
    workers: Workers = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Train the judge that `sdscratch evaluate` asks, and measure it on held-out scenes."""
    with workshop(folder, font, device, dtype, "all", judging.BATCH, workers, seed=1) as shop:
        budget = _budget(minutes, steps if steps or minutes else judging.STEPS)
        with Display(quiet=not shop.machine.leads) as display:
            trained = judging.train_judge(
                shop.composer.table,
                budget,
                folder / "judge",
                shop.machine,
                rate=rate,
                workers=shop.workers,
                show=display,
            )
        if shop.machine.leads:
            path = output or usual_place()
            save_judge(path, trained)
            typer.echo(str(path))
            for name, share in judging.measure(trained, shop.composer.table).items():
                typer.echo(f"{name:10}{100 * share:6.1f} % right")


def _budget(minutes: float | None, steps: int | None) -> Budget:
    return Budget(steps=steps, seconds=None if minutes is None else minutes * 60)


if __name__ == "__main__":
    try:
        code = app(standalone_mode=False)
    except (SdscratchError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        print(f"error: {message}", file=sys.stderr)
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    sys.exit(code)
