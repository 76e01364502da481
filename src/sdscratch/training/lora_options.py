"""What can be asked of `train lora` (no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sdscratch.settings import setting
from sdscratch.training.lora_plan import MAX_RANK, TARGETS, LoraPlan, parse_targets
from sdscratch.training.options import MODEL, OUTPUT, RATE, DenoisingOptions

__all__ = ["LoraOptions"]


@dataclass(frozen=True)
class LoraOptions(DenoisingOptions):
    """What `train lora` can be asked; some defaults are other ones."""

    model: str | None = setting(
        "default",
        "What the LoRA is for: a file, a folder, a name, or a hub id.",
        MODEL,
        default="the embedded model",
    )
    rank: int = setting(4, "Of a layer's two matrices; 4 to 32 are usual.", MODEL, low=1, high=MAX_RANK)
    lora_alpha: float | None = setting(
        None, "A change is multiplied by alpha / rank.", MODEL, low=0, high=MAX_RANK, default="the rank"
    )
    lora_targets: str = setting(
        "attention",
        f"Which layers change: {', '.join(TARGETS)}, joined by commas; or all.",
        MODEL,
        metavar="NAMES",
    )
    train_text_encoder: bool = setting(False, "Change the text encoder, too.", MODEL)
    learning_rate: float | None = setting(None, "The highest rate.", RATE, low=0, high=10, default="1e-4")
    use_ema: bool | None = setting(False, "Keep a moving average, which is the result.", RATE)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", "What the LoRA's file is written in.", OUTPUT, default="auto: float32"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.plan

    @property
    def plan(self) -> LoraPlan:
        """The shape of the LoRA.

        Raises:
            UsageError: it makes no sense.
        """
        targets = parse_targets(self.lora_targets)
        return LoraPlan(self.rank, self.lora_alpha, targets, self.train_text_encoder)
