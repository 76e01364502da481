"""`python -m sdscratch.pictograms`: how the built-in model is made.

    python -m sdscratch.pictograms autoencoder --size 64 --folder small --minutes 30
    python -m sdscratch.pictograms diffusion --size 64 --folder small --minutes 90
    python -m sdscratch.pictograms export small.safetensors --size 64 --folder small
    python -m sdscratch.pictograms autoencoder --grow small.safetensors --minutes 30
    python -m sdscratch.pictograms diffusion --grow small.safetensors --minutes 90
    python -m sdscratch.pictograms refine --minutes 15
    python -m sdscratch.pictograms decoder --minutes 75 --decay-from 0.5
    python -m sdscratch.pictograms taesd --minutes 5
    python -m sdscratch.pictograms export weights/default.safetensors
    python -m sdscratch.pictograms samples weights/default.safetensors samples.png
    python -m sdscratch.pictograms judge
    python -m sdscratch.pictograms scribble --minutes 90

and on from a model that there is, instead of the first four:

    python -m sdscratch.pictograms begin weights/default.safetensors
    python -m sdscratch.pictograms diffusion --grow weights/default.safetensors --minutes 90

Each stage goes on where it was stopped; everything it keeps lies in one folder outside the checkout. Sizes
are grown: the model for 64×64 pixels is trained first, that for 128×128 begins with its weights.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from sdscratch.errors import SdscratchError, UsageError
from sdscratch.generation.pipeline import load
from sdscratch.home import expanded
from sdscratch.images.tensors import to_tensor
from sdscratch.pictograms import judging
from sdscratch.pictograms.folder import DATA, MADE_BY
from sdscratch.pictograms.folder import begin as lay_out
from sdscratch.pictograms.folder import export as write_model
from sdscratch.pictograms.judge import save_judge, usual_place
from sdscratch.pictograms.model import LARGE, SHAPES, Shape
from sdscratch.pictograms.scribble import train_scribble
from sdscratch.pictograms.stages import MIXTURES, Stages, prepared
from sdscratch.training.engine.distributed import workers_for
from sdscratch.training.engine.recipe import Budget, Recipe
from sdscratch.training.run.display import Display
from sdscratch.training.tasks.control import save_control
from sdscratch.training.tasks.samples import save_grid

app = typer.Typer(help="Train the built-in model.", no_args_is_help=True, pretty_exceptions_enable=False)

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

Folder = Annotated[Path, typer.Option(help="Folder of checkpoints, metrics and sprites.")]
Size = Annotated[int, typer.Option(help=f"Side of the pictures in pixels: {' or '.join(map(str, SHAPES))}.")]
Grow = Annotated[
    Path | None,
    typer.Option(
        help="Model of half the size (diffusion: or of the same), with whose weights a new run begins.",
        show_default=False,
    ),
]
Font = Annotated[
    Path | None, typer.Option(help="File NotoColorEmoji.ttf, if it is not where systems keep it.")
]
Minutes = Annotated[float | None, typer.Option(help="Minutes to train, earlier parts of the run included.")]
Steps = Annotated[int | None, typer.Option(help="Steps to train, instead of a time.")]
Batch = Annotated[int, typer.Option(help="Pictures of a step that each process computes.")]
Rate = Annotated[float, typer.Option(help="Learning rate after the warm-up, the highest.")]
DecayFrom = Annotated[float, typer.Option(help="Share of the run after which the learning rate falls.")]
Workers = Annotated[
    int | None,
    typer.Option(help="Threads that share a batch.", show_default="on a CPU one a core, on a GPU one"),
]
Device = Annotated[str, typer.Option(help="Device to train on: auto, cpu, cuda, cuda:1 (a number), mps.")]
Scenes = Annotated[
    str | None,
    typer.Option(
        help=f"Scenes to learn: {' or '.join(MIXTURES)} of them.",
        show_default="what a CPU, or a GPU, can learn",
    ),
]
Dtype = Annotated[str, typer.Option(help="Precision of the arithmetic: auto, float32, bfloat16.")]

HOME = expanded(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "sdscratch-training"


Work = Callable[[Stages, Recipe, Path | None], None]


def stage(*, seed: int, batch: int, rate: float, ema: float) -> Callable[[Work], Work]:
    """Make a command of a stage of training: the same options for all, and defaults of its own."""

    def command(work: Work) -> Work:
        def run(
            folder: Folder = HOME,
            size: Size = 128,
            grow: Grow = None,
            font: Font = None,
            minutes: Minutes = None,
            steps: Steps = None,
            batch: Batch = batch,
            rate: Rate = rate,
            decay_from: DecayFrom = 0.0,
            workers: Workers = None,
            device: Device = "auto",
            dtype: Dtype = "auto",
            scenes: Scenes = None,
        ) -> None:
            shape = _shape(size)
            with prepared(
                folder, shape, font=font, device=device, dtype=dtype, scenes=scenes, seed=seed
            ) as stages:
                recipe = Recipe(
                    _budget(minutes, steps),
                    rate,
                    batch,
                    workers=_threads(stages, workers, batch),
                    seed=seed,
                    decay_from=decay_from,
                    ema=ema,
                )
                work(stages, recipe, grow)

        app.command(work.__name__, help=work.__doc__)(run)
        return work

    return command


@stage(seed=1, batch=8, rate=1e-3, ema=0.995)
def autoencoder(stages: Stages, recipe: Recipe, grow: Path | None) -> None:
    """Train the autoencoder, then normalise its latents and measure it on held-out pictures."""
    typer.echo(f"{stages.autoencoder(recipe, grow):.2f} dB on held-out pictures")


@stage(seed=2, batch=8, rate=8e-4, ema=0.995)
def refine(stages: Stages, recipe: Recipe, grow: Path | None) -> None:
    """Train the decoder further while the encoder, and with it what latents mean, stays as it is."""
    if grow is not None:
        raise UsageError("refine goes on with the autoencoder that there is; --grow is for a new one")
    typer.echo(f"{stages.refine(recipe):.2f} dB on held-out pictures")


@stage(seed=4, batch=4, rate=3e-4, ema=0.995)
def decoder(stages: Stages, recipe: Recipe, grow: Path | None) -> None:
    """Teach the decoder alone to draw what the model's own sampler leaves: flat colours, sharp edges."""
    if grow is not None:
        raise UsageError("decoder goes on with the model that there is; --grow is for a new one")
    typer.echo(f"{stages.decoder(recipe):.2f} dB on held-out pictures")


@stage(seed=3, batch=8, rate=2e-3, ema=0.995)
def taesd(stages: Stages, recipe: Recipe, grow: Path | None) -> None:
    """Train a tiny decoder that draws previews; `export` writes it beside the model."""
    if grow is not None:
        raise UsageError("a tiny decoder is made from nothing; leave out --grow")
    typer.echo(str(stages.taesd(recipe)))


@stage(seed=1, batch=32, rate=5e-4, ema=0.998)
def diffusion(stages: Stages, recipe: Recipe, grow: Path | None) -> None:
    """Train text encoder and U-Net; at every checkpoint the model so far is `preview.safetensors`."""
    stages.diffusion(recipe, grow)


@app.command()
def begin(
    model: Annotated[Path, typer.Argument(help="Model of the same size.")],
    folder: Folder = HOME,
    size: Size = 128,
) -> None:
    """Begin with a model: `decoder` goes on from it, and `diffusion --grow MODEL`."""
    lay_out(folder, _shape(size), model)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="File to write.")], folder: Folder = HOME, size: Size = 128
) -> None:
    """Write the model as it is at the last checkpoint."""
    steps = write_model(folder, _shape(size), path)
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {steps} steps")


@app.command()
def samples(
    model: Annotated[str, typer.Argument(help="Model, as `sdscratch --model` takes it.")],
    picture: Annotated[Path, typer.Argument(help="PNG file to write.")],
    prompt: Annotated[
        list[str] | None, typer.Option(help="Prompt to draw instead of the usual ones; repeatable.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of rows, one a seed: 0, 1, …")] = 4,
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
        Path | None, typer.Option(help="File to write.", show_default="where `evaluate` looks for it")
    ] = None,
    begin: Annotated[
        Path | None,
        typer.Option(help="Judge with whose weights a new run begins.", show_default=False),
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
    with prepared(folder, LARGE, font=font, device=device, dtype=dtype, scenes="all", seed=1) as stages:
        table, leads = stages.composer.table, stages.distributed.leads
        with Display(quiet=not leads) as display:
            trained = judging.train_judge(
                table,
                _budget(minutes, steps if steps or minutes else judging.STEPS),
                folder / "judge",
                stages.distributed,
                rate=rate,
                workers=_threads(stages, workers, judging.BATCH),
                begin=begin,
                show=display,
            )
        if leads:
            path = output or usual_place()
            save_judge(path, trained)
            typer.echo(str(path))
            for kind, (things, attributes) in judging.measure(trained, table).items():
                typer.echo(
                    f"{kind:10} {100 * things:5.1f} % of things, {100 * attributes:5.1f} % of attributes"
                )


@app.command()
def scribble(
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("weights/scribble.safetensors"),
    model: Annotated[Path, typer.Option(help="Model that it is for; it stays as it is.")] = Path(
        "weights/default.safetensors"
    ),
    folder: Folder = HOME,
    font: Font = None,
    minutes: Minutes = None,
    steps: Steps = None,
    batch: Batch = 16,
    rate: Rate = 1e-3,
    workers: Workers = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Train the T2I-Adapter that draws what a sketch shows, where it shows it."""
    with prepared(folder, LARGE, font=font, device=device, dtype=dtype, scenes="all", seed=1) as stages:
        leads = stages.distributed.leads
        recipe = Recipe(
            _budget(minutes, steps),
            rate,
            batch,
            workers=_threads(stages, workers, batch),
            seed=6,
            ema=0.995,
        )
        with Display(quiet=not leads) as display:
            adapter, done = train_scribble(
                model, stages.composer, recipe, folder / "scribble", stages.distributed, display
            )
        if leads:
            save_control(output, adapter, {"made_by": MADE_BY, "data": DATA, "steps": done})
            typer.echo(str(output))


def _shape(size: int) -> Shape:
    if size not in SHAPES:
        raise UsageError(f"--size is {size}; the model has the sizes {' and '.join(map(str, SHAPES))}")
    return SHAPES[size]


def _budget(minutes: float | None, steps: int | None) -> Budget:
    return Budget(steps=steps, seconds=None if minutes is None else minutes * 60)


def _threads(stages: Stages, workers: int | None, batch: int) -> int:
    threads = workers or workers_for(stages.distributed, batch)
    if threads > 1:
        torch.set_num_threads(1)  # the workers share the work
    return threads


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
