"""What can be asked of `train`, each thing defined once: for the command line, the TOML file and the trainer.

Names are those of diffusers' training scripts. A help line begins with a noun or a verb and is read alone.
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
    "Duration",
    "Optimiser",
    "Model",
    "Output",
    "Machine",
)


@dataclass(frozen=True)
class TrainOptions:
    """What every kind of training can be asked.

    Raises:
        UsageError: a value out of its range, or options that do not go together.
    """

    data: str = setting("", "Folder of pictures.", DATA)
    resolution: int | None = setting(
        None,
        "Side of a square picture in training, in pixels; others have about as many.",
        DATA,
        low=8,
        high=8192,
        default="the model's own",
    )
    center_crop: bool = setting(False, "Crop pictures in the middle, not at random.", DATA)
    random_flip: bool = setting(False, "Mirror pictures, every second time.", DATA)
    buckets: bool = setting(
        True, "Sort pictures by shape into batches of one shape each; else all are cropped to squares.", DATA
    )
    caption_column: str | None = setting(
        None, "Column of metadata.jsonl or .csv that holds captions.", DATA, default="text or the like"
    )
    validation_share: float = setting(
        0.0, "Share of the pictures that is kept out of training, for validation.", DATA, low=0, high=0.9
    )
    max_train_steps: int | None = setting(
        None, "Steps to train, earlier parts of the run included.", STEPS, low=1
    )
    max_train_minutes: float | None = setting(
        None, "Minutes to train, instead of a number of steps.", STEPS, low=0
    )
    train_batch_size: int = setting(
        8, "Pictures that a process takes at once; a step has this × accumulation × processes.", STEPS, low=1
    )
    gradient_accumulation_steps: int = setting(1, "Batches whose gradients make one step.", STEPS, low=1)
    learning_rate: float | None = setting(
        None,
        "Learning rate after the warm-up, the highest.",
        RATE,
        low=0,
        high=10,
        default="by what is trained",
    )
    lr_scheduler: Literal["constant", "linear", "cosine"] = setting(
        "cosine", "Fall of the learning rate after the warm-up: constant, linear, cosine.", RATE
    )
    lr_warmup_steps: int = setting(100, "Steps in which the learning rate rises.", RATE, low=0)
    lr_decay_from: float = setting(
        0.0, "Share of the run after which the learning rate falls.", RATE, low=0, high=1
    )
    adam_beta1: float = setting(0.9, "Decay of AdamW's mean of gradients, β₁.", RATE, low=0, high=1)
    adam_beta2: float = setting(0.99, "Decay of AdamW's mean of squared gradients, β₂.", RATE, low=0, high=1)
    adam_weight_decay: float = setting(0.01, "Weight decay of AdamW.", RATE, low=0)
    adam_epsilon: float = setting(1e-8, "Term that AdamW adds to its divisor, ε.", RATE, low=0)
    max_grad_norm: float = setting(1.0, "Norm that the gradient is clipped to.", RATE, low=0)
    use_ema: bool | None = setting(
        None,
        "Keep a moving average of the weights (EMA), which is the result.",
        RATE,
        default="unless --model",
    )
    ema_decay: float = setting(
        0.999, "Decay of the moving average a step; the first steps count less.", RATE, low=0, high=1
    )
    model: str | None = setting(
        None, "Model to go on from: a file, a folder, a name, or a hub id.", MODEL, default="from nothing"
    )
    gradient_checkpointing: bool = setting(
        False, "Compute activations again in the backward pass: less memory, a third slower.", MACHINE
    )
    output: str = setting("", "Folder of the run; the model will be in it.", OUTPUT, metavar="RUN")
    checkpointing_steps: int = setting(500, "Steps between two checkpoints.", OUTPUT, low=1)
    checkpoints_total_limit: int | None = setting(
        2, "Number of checkpoints that are kept, the newest.", OUTPUT, low=1
    )
    validation_steps: int = setting(500, "Steps between two sample grids.", OUTPUT, low=1)
    report_to: Literal["none", "tensorboard"] = setting(
        "none", "Write metrics elsewhere, too: tensorboard into RUN/tensorboard.", OUTPUT
    )
    seed: int = setting(0, "Seed of every random choice.", MACHINE, low=0, high=MAX_SEED)
    device: str = setting("auto", "Device to train on: auto, cpu, cuda, cuda:1 (a number), mps.", MACHINE)
    mixed_precision: Literal["auto", "no", "bf16"] = setting(
        "auto",
        "Precision of the arithmetic: auto, no (float32), bf16; weights are float32 in training.",
        MACHINE,
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto",
        "Precision that the model's file is written in.",
        OUTPUT,
        default="auto: --model's, or float16",
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
        "Shape of the networks that are made from nothing.",
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

    l1_weight: float = setting(1.0, "Weight of the mean absolute error in the loss.", MODEL, low=0)
    l2_weight: float = setting(1.0, "Weight of the mean squared error in the loss.", MODEL, low=0)
    gradient_weight: float = setting(1.0, "Weight of errors in edges.", MODEL, low=0)
    perceptual_weight: float = setting(
        0.0, "Weight of differences in contrast at every scale, as eyes see them.", MODEL, low=0
    )
    kl_weight: float = setting(
        1e-6, "Weight of the latents' distance from a normal distribution.", MODEL, low=0
    )
    adversarial_weight: float = setting(
        0.0,
        "Weight of a discriminator's term; 1 pulls as hard as all others together. Begin from a good model.",
        MODEL,
        low=0,
    )
    freeze_encoder: bool = setting(
        False, "Train the decoder alone, so that latents keep their meaning.", MODEL
    )

    @property
    def needs_captions(self) -> bool:
        """Whether a picture without a caption is of no use."""
        return False

    def weights(self) -> dict[str, float]:
        """By the names of the loss's terms; the discriminator is none of them."""
        return {
            name: getattr(self, f"{name}_weight") for name in ("l1", "l2", "gradient", "perceptual", "kl")
        }


@dataclass(frozen=True)
class LatentOptions(TrainOptions):
    """What can be asked wherever pictures are encoded for training."""

    cache: str | None = setting(
        None,
        "Folder of latents and text embeddings that are kept; runs may share it.",
        DATA,
        metavar="FOLDER",
        default="RUN/cache",
    )


@dataclass(frozen=True)
class TaesdOptions(LatentOptions):
    """What `train taesd` can be asked; some defaults are other ones."""

    model: str | None = setting(
        "default",
        "Model whose previews are to be drawn: a file, a folder, a name, or a hub id.",
        MODEL,
        default="the built-in model",
    )
    channels: int = setting(
        64,
        "Width of the tiny decoder in channels; 64 is TAESD's, less is faster and rougher.",
        MODEL,
        low=4,
        high=512,
    )
    learning_rate: float | None = setting(
        None, "Learning rate after the warm-up, the highest.", RATE, low=0, high=10, default="1e-3"
    )
    use_ema: bool | None = setting(
        True, "Keep a moving average of the weights (EMA), which is the result.", RATE
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", "Precision that the decoder's file is written in.", OUTPUT, default="auto: float16"
    )

    @property
    def needs_captions(self) -> bool:
        """Whether a picture without a caption is of no use."""
        return False


@dataclass(frozen=True)
class DenoisingOptions(LatentOptions):
    """What can be asked wherever a network learns to denoise latents."""

    snr_gamma: float | None = setting(
        None, "Limit γ of min-SNR weighting of timesteps; 5 is usual.", RATE, low=0, default="all alike"
    )
    caption_dropout: float = setting(
        0.1, "Share of captions that are left out, which guidance needs.", RATE, low=0, high=1
    )
    late_bias: float = setting(
        1.0,
        "Exponent of the draw of timesteps; below 1, late ones, which are learnt slowest, come more often.",
        RATE,
        low=0.1,
        high=10,
    )
    tokenizer: str | None = setting(
        None,
        "Tokenizer: a folder with vocab.json and merges.txt, or tokenizer.json.",
        MODEL,
        default="--model's, or the built-in model's",
    )
    validation_prompt: tuple[str, ...] = setting(
        (),
        "Prompt to draw every --validation-steps; repeatable.",
        OUTPUT,
        metavar="PROMPT",
        default="four captions; with --model none",
    )


@dataclass(frozen=True)
class DiffusionOptions(DenoisingOptions, ShapeOptions):
    """What `train diffusion` can be asked."""

    prediction_type: Literal["epsilon", "v"] | None = setting(
        None,
        "Prediction of the U-Net: epsilon (the noise) or v (the velocity).",
        MODEL,
        default="--model's, or v",
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
        "Autoencoder: of a model, or a file of `train autoencoder`.",
        MODEL,
        default="--model's, or the built-in model's",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model is None and self.train_text_encoder is False:
            raise UsageError(
                "a text encoder made from nothing must be trained; leave out --freeze-text-encoder"
            )
