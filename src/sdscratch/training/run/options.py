"""What can be asked of `train`, each thing defined once: for the command line, the TOML file and the trainer.

Names are those of diffusers' training scripts. A field's metadata tells the command line what to say of it.
This module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sdscratch.errors import UsageError
from sdscratch.options import MAX_SEED, check_placement
from sdscratch.settings import check_ranges, setting

__all__ = [
    "ARCHITECTURES",
    "MODEL",
    "OUTPUT",
    "RATE",
    "AutoencoderOptions",
    "DenoisingOptions",
    "DiffusionOptions",
    "TaesdOptions",
    "TrainOptions",
]

ARCHITECTURES = ("tiny", "small", "sd1")

DATA, STEPS, RATE, MODEL, OUTPUT, MACHINE = (
    "Pictures",
    "How long",
    "How to descend",
    "What is trained",
    "Output",
    "Machine",
)


@dataclass(frozen=True)
class TrainOptions:
    """What every kind of training can be asked.

    Raises:
        UsageError: a value out of its range, or options that do not go together.
    """

    data: str = setting("", "The folder of pictures.", DATA)
    resolution: int | None = setting(
        None,
        "Pixels that a square picture has in training; others have about as many.",
        DATA,
        low=8,
        high=8192,
        default="the model's own",
    )
    center_crop: bool = setting(False, "Crop in the middle, not at random.", DATA)
    random_flip: bool = setting(False, "Show pictures mirrored, every second time.", DATA)
    buckets: bool = setting(
        True, "Pictures of many shapes in batches of a shape each; else all are cropped to squares.", DATA
    )
    caption_column: str | None = setting(
        None, "The column of metadata.jsonl or .csv that holds captions.", DATA, default="text or the like"
    )
    validation_share: float = setting(
        0.0, "What share of the pictures is kept out of training.", DATA, low=0, high=0.9
    )
    max_train_steps: int | None = setting(None, "Steps to train, earlier parts included.", STEPS, low=1)
    max_train_minutes: float | None = setting(None, "Or minutes to train.", STEPS, low=0)
    train_batch_size: int = setting(
        8, "Pictures at once, a process; a step takes this × accumulation × processes.", STEPS, low=1
    )
    gradient_accumulation_steps: int = setting(1, "How many such batches make one step.", STEPS, low=1)
    learning_rate: float | None = setting(
        None, "The highest rate.", RATE, low=0, high=10, default="by what is trained"
    )
    lr_scheduler: Literal["constant", "linear", "cosine"] = setting(
        "cosine", "How the rate falls after the warm-up: constant, linear, cosine.", RATE
    )
    lr_warmup_steps: int = setting(100, "Steps in which the rate rises.", RATE, low=0)
    lr_decay_from: float = setting(0.0, "Share of the run after which the rate falls.", RATE, low=0, high=1)
    adam_beta1: float = setting(0.9, "AdamW's decay of means.", RATE, low=0, high=1)
    adam_beta2: float = setting(0.99, "AdamW's decay of squares.", RATE, low=0, high=1)
    adam_weight_decay: float = setting(0.01, "AdamW's pull towards zero.", RATE, low=0)
    adam_epsilon: float = setting(1e-8, "Added to AdamW's divisor.", RATE, low=0)
    max_grad_norm: float = setting(1.0, "The gradient is made no longer than this.", RATE, low=0)
    use_ema: bool | None = setting(
        None, "Keep a moving average of the weights, which is the result.", RATE, default="unless --model"
    )
    ema_decay: float = setting(0.999, "Its decay a step; the first steps count less.", RATE, low=0, high=1)
    model: str | None = setting(
        None, "Go on from a model: a file, a folder, a name, or a hub id.", MODEL, default="from nothing"
    )
    gradient_checkpointing: bool = setting(
        False, "Compute again backwards instead of remembering: less memory, a third slower.", MACHINE
    )
    output: str = setting("", "The run's folder; the model will be in it.", OUTPUT, metavar="RUN")
    checkpointing_steps: int = setting(500, "Steps between two checkpoints.", OUTPUT, low=1)
    checkpoints_total_limit: int | None = setting(2, "How many of the newest are kept.", OUTPUT, low=1)
    validation_steps: int = setting(500, "Steps between two grids of samples.", OUTPUT, low=1)
    report_to: Literal["none", "tensorboard"] = setting(
        "none", "tensorboard writes events into RUN/tensorboard, too.", OUTPUT
    )
    seed: int = setting(0, "Of everything that is random.", MACHINE, low=0, high=MAX_SEED)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1 (a number), mps.", MACHINE)
    mixed_precision: Literal["auto", "no", "bf16"] = setting(
        "auto", "Of the arithmetic; weights are float32 in training.", MACHINE
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", "What the model's file is written in.", OUTPUT, default="auto: --model's, or float16"
    )
    workers: int | None = setting(
        None, "Threads that share a batch on a CPU.", MACHINE, low=1, default="one a core"
    )

    @property
    def needs_captions(self) -> bool:
        """Whether a picture without a caption is of no use."""
        return True

    def __post_init__(self) -> None:
        check_ranges(self)
        check_placement(self.device, "auto")
        if not self.data:
            raise UsageError("DATA is missing: the folder of pictures")
        if not self.output:
            raise UsageError("--output is missing: the folder that the run is kept in")
        if (self.max_train_steps is None) == (self.max_train_minutes is None):
            raise UsageError("say how long to train: give either --max-train-steps or --max-train-minutes")
        if self.workers is not None and self.train_batch_size % self.workers:
            raise UsageError(
                f"a batch of {self.train_batch_size} cannot be shared out to {self.workers} workers; "
                "choose --train-batch-size and --workers so that one divides the other"
            )


@dataclass(frozen=True)
class ShapeOptions(TrainOptions):
    """What can be asked where networks may be made from nothing."""

    architecture: str | None = setting(
        None,
        "The shape of what is made from nothing.",
        MODEL,
        metavar=f"{'|'.join(ARCHITECTURES)}|FILE.toml",
        default="tiny, unless --model",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model is not None and self.architecture is not None:
            raise UsageError("--model brings its own shape, so it does not go with --architecture")


@dataclass(frozen=True)
class AutoencoderOptions(ShapeOptions):
    """What `train autoencoder` can be asked."""

    l1_weight: float = setting(1.0, "Of the mean absolute error.", MODEL, low=0)
    l2_weight: float = setting(1.0, "Of the mean squared error.", MODEL, low=0)
    gradient_weight: float = setting(1.0, "Of errors in edges.", MODEL, low=0)
    perceptual_weight: float = setting(
        0.0, "Of differences in contrast at every scale, as eyes see them.", MODEL, low=0
    )
    kl_weight: float = setting(1e-6, "Of the pull of latents towards a normal distribution.", MODEL, low=0)
    adversarial_weight: float = setting(
        0.0, "Of a critic's verdict; 1 pulls as hard as all others. Begin from a good --model.", MODEL, low=0
    )
    freeze_encoder: bool = setting(False, "Train the decoder alone: latents keep their meaning.", MODEL)

    @property
    def needs_captions(self) -> bool:
        """Whether a picture without a caption is of no use."""
        return False

    def weights(self) -> dict[str, float]:
        """By the names of the loss's terms; the critic is none of them."""
        return {
            name: getattr(self, f"{name}_weight") for name in ("l1", "l2", "gradient", "perceptual", "kl")
        }


@dataclass(frozen=True)
class LatentOptions(TrainOptions):
    """What can be asked wherever pictures are encoded for training."""

    cache: str | None = setting(
        None,
        "Where latents and text embeddings are kept; runs may share it.",
        DATA,
        metavar="FOLDER",
        default="RUN/cache",
    )


@dataclass(frozen=True)
class TaesdOptions(LatentOptions):
    """What `train taesd` can be asked; some defaults are other ones."""

    model: str | None = setting(
        "default",
        "Whose previews it is to draw: a file, a folder, a name, or a hub id.",
        MODEL,
        default="the embedded model",
    )
    channels: int = setting(
        64, "Its width; 64 is TAESD's, less is faster and rougher.", MODEL, low=4, high=512
    )
    learning_rate: float | None = setting(None, "The highest rate.", RATE, low=0, high=10, default="1e-3")
    use_ema: bool | None = setting(True, "Keep a moving average, which is the result.", RATE)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", "What its file is written in.", OUTPUT, default="auto: float16"
    )

    @property
    def needs_captions(self) -> bool:
        """Whether a picture without a caption is of no use."""
        return False


@dataclass(frozen=True)
class DenoisingOptions(LatentOptions):
    """What can be asked wherever a network learns to denoise latents."""

    snr_gamma: float | None = setting(
        None, "Min-SNR weighting of timesteps; 5 is usual.", RATE, low=0, default="all alike"
    )
    caption_dropout: float = setting(
        0.1, "Share of captions that are left out, which guidance needs.", RATE, low=0, high=1
    )
    late_bias: float = setting(
        1.0,
        "Below 1, late timesteps come more often: small models learn them slowest.",
        RATE,
        low=0.1,
        high=10,
    )
    tokenizer: str | None = setting(
        None,
        "A folder with vocab.json and merges.txt, or tokenizer.json.",
        MODEL,
        default="--model's, or the embedded model's",
    )
    validation_prompt: tuple[str, ...] = setting(
        (),
        "Draw it every --validation-steps; repeatable.",
        OUTPUT,
        metavar="PROMPT",
        default="four captions; with --model none",
    )


@dataclass(frozen=True)
class DiffusionOptions(DenoisingOptions, ShapeOptions):
    """What `train diffusion` can be asked."""

    prediction_type: Literal["epsilon", "v"] | None = setting(
        None, "What the U-Net predicts: epsilon or v.", MODEL, default="--model's, or v"
    )
    train_text_encoder: bool | None = setting(
        None,
        "Train the text encoder, too.",
        MODEL,
        negative="--freeze-text-encoder",
        default="unless --model",
    )
    vae: str | None = setting(
        None,
        "The autoencoder: of a model, or a file of `train autoencoder`.",
        MODEL,
        default="--model's, or the embedded model's",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model is None and self.train_text_encoder is False:
            raise UsageError(
                "a text encoder made from nothing must be trained; leave out --freeze-text-encoder"
            )
