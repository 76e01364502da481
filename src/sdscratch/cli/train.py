"""`train`: a command for each kind of network; the options are defined once, in `training.run.options`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdscratch.cli.help import CONTEXT, Command, Group
from sdscratch.cli.parameters import parameters_of, typed_values, with_parameters
from sdscratch.cli.progress import make_view
from sdscratch.cli.shapes import shapes
from sdscratch.cli.telling import print_line
from sdscratch.errors import SdscratchError, UsageError
from sdscratch.training.run.control_options import ControlOptions
from sdscratch.training.run.lora_options import LoraOptions
from sdscratch.training.run.options import (
    AutoencoderOptions,
    DiffusionOptions,
    TaesdOptions,
    TrainOptions,
)
from sdscratch.training.run.run_folder import LATEST, RunFolder, collect

if TYPE_CHECKING:
    from sdscratch.training.engine.loop import Record
    from sdscratch.training.run.job import Job

__all__ = ["KINDS", "app", "train_command"]

KINDS: dict[str, type[TrainOptions]] = {}  # each command's options

app = typer.Typer(
    cls=Group,
    help="Train or fine-tune, on one CPU, one GPU, or many machines (torchrun).",
    rich_markup_mode=None,  # help.py says why
    context_settings=CONTEXT,
    add_completion=False,
)

COMMON = """
With --config FILE.toml options come from a file, and what is typed beside it
comes first. A run's folder holds its own config.toml, which repeats it.

The path of the model is printed on stdout, everything else on stderr.
Ctrl-C saves a checkpoint; --resume-from-checkpoint latest goes on from it.
"""

AUTOENCODER_HELP = f"""Train an autoencoder on the pictures in DATA; captions do not matter.
{COMMON}
Examples:

  sdscratch train autoencoder photos/ --output runs/vae --max-train-minutes 30

  sdscratch train autoencoder photos/ --model v1-5.safetensors \\
    --freeze-encoder --output runs/decoder --max-train-steps 2000
"""

DIFFUSION_HELP = f"""Train text encoder and U-Net on the captioned pictures in DATA.

A caption stands in NAME.txt beside NAME.png, or in a metadata.jsonl or .csv.
{COMMON}
Examples:

  sdscratch train diffusion shapes/ --output runs/it --max-train-minutes 15

  sdscratch train diffusion photos/ --model v1-5.safetensors \\
    --output runs/photos --max-train-steps 2000

  sdscratch train diffusion --output runs/it --resume-from-checkpoint latest

  torchrun --nproc-per-node 8 -m sdscratch train diffusion --config photos.toml
"""

LORA_HELP = f"""Train a LoRA: small changes beside a model's weights, in a file of its own.

The result is RUN/lora.safetensors, which txt2img --lora, web UIs and diffusers
take; convert-weights --lora bakes it into the model.
{COMMON}
Examples:

  sdscratch train lora photos/ --output runs/cat --max-train-steps 500

  sdscratch train lora photos/ --model v1-5.safetensors --rank 16 \\
    --gradient-checkpointing --output runs/cat --max-train-steps 1000

  sdscratch txt2img "my cat on the moon" --lora runs/cat/lora.safetensors:0.8
"""

TAESD_HELP = f"""Train a tiny decoder that draws a model's previews in a moment.

It learns what the model's own decoder shows of the pictures in DATA; captions
do not matter. The result is RUN/taesd.safetensors, in TAESD's layout.
{COMMON}
Examples:

  sdscratch train taesd photos/ --model v1-5.safetensors --resolution 256 \\
    --output runs/taesd --max-train-steps 5000

  sdscratch txt2img "a castle" -m v1-5.safetensors \\
    --preview now.png --taesd runs/taesd/taesd.safetensors
"""

CONTROL_HELP = f"""Train a ControlNet or a T2I-Adapter, which lets pictures follow a hint.

The model stays as it is. Hints are made of the pictures in DATA by
--preprocess, or lie in --hints FOLDER under the pictures' names. The result is
RUN/control.safetensors, which txt2img --control and other tools take.
{COMMON}
Examples:

  sdscratch train control photos/ --preprocess canny --model v1-5.safetensors \\
    --learning-rate 1e-5 --output runs/edges --max-train-steps 20000

  sdscratch train control faces/ --hints outlines/ --kind t2i-adapter \\
    --hint-channels 1 --output runs/outlines --max-train-minutes 60

  sdscratch txt2img "a face" --control runs/outlines/control.safetensors,image=me.png
"""

OWN = "Run"
CONFIG = typer.Option("--config", metavar="FILE.toml", help="File to take options from.", rich_help_panel=OWN)
RESUME = typer.Option(
    "--resume-from-checkpoint",
    metavar=f"{LATEST}|FILE",
    help=f"Go on with RUN from its newest checkpoint ({LATEST}; where there is none, begin), or from FILE.",
    rich_help_panel=OWN,
)
AS_JSON = typer.Option("--json", help="Print a line of JSON, not the path.", rich_help_panel=OWN)
QUIET = typer.Option("-q", "--quiet", help="Show nothing but errors.", rich_help_panel=OWN)
VERBOSE = typer.Option("-v", "--verbose", help="Say more, and show tracebacks.", rich_help_panel=OWN)
DATA = typer.Argument(
    metavar="DATA", help="Folder of pictures; it may stand in --config instead.", show_default=False
)


def train_command(
    name: str, kind: type[TrainOptions], make: Callable[[Any], Job], help: str
) -> Callable[..., None]:
    """A command with an option for every field of `kind`."""

    def command(
        data: Annotated[str | None, DATA] = None,
        config: Annotated[Path | None, CONFIG] = None,
        resume_from_checkpoint: Annotated[str | None, RESUME] = None,
        as_json: Annotated[bool, AS_JSON] = False,
        quiet: Annotated[bool, QUIET] = False,
        verbose: Annotated[bool, VERBOSE] = False,
        **values: Any,
    ) -> None:
        typed = typed_values({"data": data, **values})
        follows = int(os.environ.get("RANK", "0")) > 0  # torchrun started it; another process talks
        with make_view(quiet=quiet or follows, verbose=verbose) as view:
            with silent_if(follows):
                options, folder = collect(name, kind, typed, config, resume_from_checkpoint)
                check_reports(options)
                if not follows:
                    folder.refuse_other()
                with view.stage("opening", None):
                    job = make(options)
            run(job, folder, quiet=quiet, as_json=as_json, follows=follows)

    KINDS[name] = kind
    with_parameters(command, parameters_of(kind, without=("data",)))
    app.command(name, cls=Command, help=help)(command)
    return command


def check_reports(options: TrainOptions) -> None:
    """Refuse reports that cannot be written."""
    if options.report_to == "tensorboard" and find_spec("tensorboard") is None:
        raise UsageError("--report-to tensorboard needs TensorBoard; install it by: pip install tensorboard")


def run(job: Job, folder: RunFolder, *, quiet: bool, as_json: bool, follows: bool) -> None:
    """Read the pictures, train, and say where the model is."""
    import torch

    from sdscratch.device import out_of_memory_explained
    from sdscratch.training.engine.distributed import joined, launched_processes
    from sdscratch.training.run.display import Display
    from sdscratch.training.run.job import precision_of, run_job, source_of

    options = job.options
    device, precision = precision_of(options)
    _, processes, _ = launched_processes()
    size = options.train_batch_size * options.gradient_accumulation_steps * processes
    source = source_of(options, *job.framing, size)
    if not follows:
        folder.claim(options)
    start = time.monotonic()
    with (
        joined(device, precision) as distributed,
        Display(quiet=quiet or follows) as display,
        reports(options, folder.path, write=not follows) as record,
        out_of_memory_explained(),
    ):
        if options.mixed_precision == "bf16" and distributed.precision != torch.bfloat16:
            display.note("this processor multiplies no bfloat16: training in float32")
        display.note(f"{len(source.folder.pictures)} pictures, {len(source.skipped)} files skipped")
        outcome = run_job(job, folder, source, distributed, display, record)
    if follows:
        return
    if as_json:
        seconds = round(time.monotonic() - start, 1)
        facts = {"path": str(outcome.path), "steps": outcome.steps, "loss": outcome.loss, "seconds": seconds}
        print_line(json.dumps(facts))
    else:
        print_line(str(outcome.path))


@contextmanager
def reports(options: TrainOptions, folder: Path, *, write: bool) -> Iterator[Record]:
    """Takes lines of the metrics, for TensorBoard where that is asked for."""
    if options.report_to != "tensorboard" or not write:
        yield lambda line: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / "tensorboard") as writer:

        def record(line: dict[str, float]) -> None:
            for name, value in line.items():
                if name != "step":
                    writer.add_scalar(name, value, int(line["step"]))

        yield record


@contextmanager
def silent_if(follows: bool) -> Iterator[None]:
    """Where another process says the same, an error is its exit code alone."""
    try:
        yield
    except SdscratchError as error:
        if follows:
            raise typer.Exit(error.exit_code) from None
        raise


def make_autoencoder(options: AutoencoderOptions) -> Job:
    """Torch is imported here, and not by the help."""
    from sdscratch.training.tasks.autoencoder_job import AutoencoderJob

    return AutoencoderJob(options)


def make_diffusion(options: DiffusionOptions) -> Job:
    """The same for `train diffusion`."""
    from sdscratch.training.tasks.diffusion_job import DiffusionJob

    return DiffusionJob(options)


def make_lora(options: LoraOptions) -> Job:
    """The same for `train lora`."""
    from sdscratch.training.tasks.lora_job import LoraJob

    return LoraJob(options)


def make_control(options: ControlOptions) -> Job:
    """The same for `train control`."""
    from sdscratch.training.tasks.control_job import ControlJob

    return ControlJob(options)


def make_taesd(options: TaesdOptions) -> Job:
    """The same for `train taesd`."""
    from sdscratch.training.tasks.taesd_job import TaesdJob

    return TaesdJob(options)


train_command("autoencoder", AutoencoderOptions, make_autoencoder, AUTOENCODER_HELP)
train_command("diffusion", DiffusionOptions, make_diffusion, DIFFUSION_HELP)
train_command("lora", LoraOptions, make_lora, LORA_HELP)
train_command("control", ControlOptions, make_control, CONTROL_HELP)
train_command("taesd", TaesdOptions, make_taesd, TAESD_HELP)
app.command("shapes", cls=Command)(shapes)
